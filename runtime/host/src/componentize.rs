//! Core modules that carry the type of a component: what a compiler yields before `wasm-tools component new` has seen it.
//! They are made components here, so that `cargo build --target wasm32-wasip1` or wasm32-unknown-unknown, TinyGo and C
//! toolchains need no further step. Calls of WASI preview 1 go through the adapter that comes with the engine.

use std::borrow::Cow;
use std::panic::{AssertUnwindSafe, catch_unwind};

use wasi_preview1_component_adapter_provider::{
    WASI_SNAPSHOT_PREVIEW1_COMMAND_ADAPTER as COMMAND_ADAPTER,
    WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER as LIBRARY_ADAPTER,
};
use wit_component::ComponentEncoder;

use crate::error::{LoadError, printable};
use crate::inspect::{Form, Outline};
use crate::interfaces::Interface;
use crate::provided::PREVIEW1;

/// The most of the sections that say what component a module is to become, in bytes. Those of all of WASI have 50 KiB.
const MAX_TYPE_LEN: usize = 1 << 20;
/// The longest reason that is told, in characters: the encoder quotes names from the file.
const MAX_REASON: usize = 1_000;

/// The component that `bytes` are to become, or themselves where they are to be taken as they are.
pub(crate) fn wrapped<'b>(
    bytes: &'b [u8],
    outline: &Outline,
    asked: Option<Interface>,
) -> Result<Cow<'b, [u8]>, LoadError> {
    let Form::Module { type_len: Some(type_len) } = outline.form else { return Ok(Cow::Borrowed(bytes)) };
    if asked == Some(Interface::Command) || outline.is_command() {
        return Ok(Cow::Borrowed(bytes));
    }
    if type_len > MAX_TYPE_LEN {
        return Err(refused(&format!("its type has {type_len} bytes, and at most {MAX_TYPE_LEN} are read")));
    }
    // It checks what it is given, but trusts some of it: where it finds itself wrong, it panics.
    match catch_unwind(AssertUnwindSafe(|| encode(bytes, outline))) {
        Ok(Ok(component)) => Ok(Cow::Owned(component)),
        Ok(Err(reason)) => Err(refused(&reason)),
        Err(_) => Err(refused("its type is damaged, or says what no WIT can say")),
    }
}

fn encode(module: &[u8], outline: &Outline) -> Result<Vec<u8>, String> {
    // The engine validates the result.
    let mut encoder = ComponentEncoder::default().validate(false);
    encoder = encoder.module(module).map_err(|error| format!("{error:#}"))?;
    if let Some(adapter) = adapter(outline) {
        encoder = encoder.adapter(PREVIEW1, adapter).map_err(|error| format!("{error:#}"))?;
    }
    encoder.encode().map_err(|error| format!("{error:#}"))
}

/// What serves the module's calls of WASI preview 1; for a program it also calls `_start`.
fn adapter(outline: &Outline) -> Option<&'static [u8]> {
    if outline.has_start() {
        return Some(COMMAND_ADAPTER);
    }
    outline.imports.iter().any(|name| name.starts_with(PREVIEW1)).then_some(LIBRARY_ADAPTER)
}

fn refused(reason: &str) -> LoadError {
    let shown: String = reason.chars().take(MAX_REASON).collect();
    LoadError::NotWrapped { reason: printable(&shown) }
}
