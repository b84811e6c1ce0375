//! The second version of the clerk: see `../clerk/mod.rs`.

// Its bindings exist in guests only.
#![cfg(target_arch = "wasm32")]

#[path = "../clerk/mod.rs"]
mod clerk;

const IS_CHANGED: bool = true;
