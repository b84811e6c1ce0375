//! Raw bindings to both drafts of `wasi:keyvalue`. Every function may wait for the disk, hence is async.

#[allow(missing_docs, unreachable_pub, reason = "generated code")]
mod first {
    wasmtime::component::bindgen!({
        path: "../../wit",
        inline: "
            package gristmill:keyvalue-draft;

            world keyvalue {
                import wasi:keyvalue/store@0.2.0-draft;
                import wasi:keyvalue/atomics@0.2.0-draft;
                import wasi:keyvalue/batch@0.2.0-draft;
            }
        ",
        imports: { default: async | trappable },
        with: { "wasi:keyvalue/store.bucket": crate::keyvalue::Bucket },
        require_store_data_send: true,
    });
}

#[allow(missing_docs, unreachable_pub, reason = "generated code")]
mod second {
    wasmtime::component::bindgen!({
        path: "../../wit",
        inline: "
            package gristmill:keyvalue-draft2;

            world keyvalue {
                import wasi:keyvalue/store@0.2.0-draft2;
                import wasi:keyvalue/atomics@0.2.0-draft2;
                import wasi:keyvalue/batch@0.2.0-draft2;
            }
        ",
        imports: { default: async | trappable },
        with: {
            "wasi:keyvalue/store.bucket": crate::keyvalue::Bucket,
            "wasi:keyvalue/atomics.cas": crate::keyvalue::Cas,
        },
        require_store_data_send: true,
    });
}

/// `wasi:keyvalue@0.2.0-draft`.
pub(super) mod draft {
    pub(in crate::keyvalue) use super::first::wasi::keyvalue0_2_0_draft::{atomics, batch, store};
}

/// `wasi:keyvalue@0.2.0-draft2`.
pub(super) mod draft2 {
    pub(in crate::keyvalue) use super::second::wasi::keyvalue0_2_0_draft2::{atomics, batch, store};
}
