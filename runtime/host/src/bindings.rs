//! Raw bindings to the `gristmill:events` package and to `wasi:logging`, generated from `wit/`.
//!
//! To serve one more interface:
//!
//! 1. import it in the inline world below;
//! 2. implement its generated `Host` trait for [`State`](crate::state::State), in `imports.rs`;
//! 3. list it in `provided.rs`, which is what load errors and `check` show.
//!
//! Nothing generated is public: what users of this crate see is written by hand.

#[allow(missing_docs, unreachable_pub, reason = "generated code")]
mod generated {
    wasmtime::component::bindgen!({
        path: "../../wit",
        inline: "
            package gristmill:host;

            world event-host {
                import gristmill:events/emitter@0.1.0;
                import gristmill:events/context@0.1.0;
                import wasi:logging/logging@0.1.0-draft;
                export gristmill:events/handler@0.1.0;
            }
        ",
        exports: { default: async },
        require_store_data_send: true,
    });
}

pub(crate) use self::generated::gristmill::events::{context, emitter, types};
pub(crate) use self::generated::wasi::logging::logging;
pub(crate) use self::generated::{EventHost, EventHostPre};
