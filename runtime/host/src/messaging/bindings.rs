//! Raw bindings to `wasi:messaging`. A guest that keeps too much in messages traps, hence every function may.

#[allow(missing_docs, unreachable_pub, reason = "generated code")]
mod generated {
    wasmtime::component::bindgen!({
        path: "../../wit",
        inline: "
            package gristmill:messaging;

            world messaging {
                import wasi:messaging/producer@0.2.0-draft;
                import wasi:messaging/request-reply@0.2.0-draft;
                export wasi:messaging/incoming-handler@0.2.0-draft;
            }
        ",
        imports: { default: trappable },
        exports: { default: async },
        with: {
            "wasi:messaging/types.client": crate::messaging::Client,
            "wasi:messaging/types.message": crate::messaging::Message,
            "wasi:messaging/request-reply.request-options": crate::messaging::RequestOptions,
        },
        require_store_data_send: true,
    });
}

pub(crate) use self::generated::wasi::messaging::{producer, request_reply, types};
pub(crate) use self::generated::{Messaging, MessagingPre};
