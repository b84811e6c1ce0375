//! The guests that tests run. Building this package builds them; whoever depends on it can read them.
//!
//! ```
//! let component = std::fs::read(gristmill_test_guests::path("acker")).unwrap();
//! assert_eq!(&component[..4], b"\0asm");
//! ```

use std::path::PathBuf;

/// Acks every event and imports no emitter.
pub const ACKER: &str = "acker";
/// Does what the event's type says: see the table in `components/examples/actor.rs`.
pub const ACTOR: &str = "actor";
/// `acker` as a core module that carries the type of a component.
pub const ACKER_MODULE: &str = "acker_module";
/// `actor` as a core module that carries the type of a component.
pub const ACTOR_MODULE: &str = "actor_module";
/// Handles batches: see the table in `components/examples/batcher.rs`.
pub const BATCHER: &str = "batcher";
/// Sends the requests that the event's data describes: see `components/examples/caller.rs`.
pub const CALLER: &str = "caller";
/// Handles orders: see the table in `components/clerk/mod.rs`.
pub const CLERK: &str = "clerk";
/// The same, changed in the ways that the table says.
pub const CLERK_CHANGED: &str = "clerk_changed";
/// Answers with what it is configured with, by the interface that the event's type names: see
/// `components/examples/configured.rs`.
pub const CONFIGURED: &str = "configured";
/// A program of WASI 0.3: see the table in `components/examples/envoy.rs`.
pub const ENVOY: &str = "envoy";
/// Looks up a price by HTTP: the handler of `docs/outgoing-http.md`.
pub const FETCHER: &str = "fetcher";
/// Greets, as an HTTP handler: that of `docs/http-handlers.md`.
pub const GREETER: &str = "greeter";
/// Does to the state what the event's data says: see `components/examples/keeper.rs`.
pub const KEEPER: &str = "keeper";
/// Handles messages: see the table in `components/examples/messenger.rs`.
pub const MESSENGER: &str = "messenger";
/// Says what it sees of time and chance, as a program of WASI 0.3: see the table in `components/examples/observer.rs`.
pub const OBSERVER: &str = "observer";
/// A `wasi:http/incoming-handler` that does what the event's type says: see `components/examples/responder.rs`.
pub const RESPONDER: &str = "responder";
/// The plugin that logs every event.
pub const PLUGIN_LOG: &str = "gristmill_plugin_log";
/// The quickstart's handler of orders.
pub const QUICKSTART_ORDERS: &str = "quickstart_orders";
/// The quickstart's handler of receipts.
pub const QUICKSTART_RECEIPTS: &str = "quickstart_receipts";
/// Does what the event's type says, as a plain program: see the table in `programs/src/program.rs`.
pub const PROGRAM_COMPONENT: &str = "program_component";
/// The same program as a core module, for WASI preview 1.
pub const PROGRAM_MODULE: &str = "program_module";
/// Looks around, as the event's type says, as a plain program: see the table in `programs/src/visitor.rs`.
pub const VISITOR_COMPONENT: &str = "visitor_component";
/// The same program as a core module, for WASI preview 1.
pub const VISITOR_MODULE: &str = "visitor_module";
/// Says what it sees of time and chance, as a plain program: see the table in `programs/src/witness.rs`.
pub const WITNESS_COMPONENT: &str = "witness_component";
/// The same program as a core module, for WASI preview 1.
pub const WITNESS_MODULE: &str = "witness_module";
/// Every guest.
pub const ALL: [&str; 25] = [
    ACKER,
    ACTOR,
    ACKER_MODULE,
    ACTOR_MODULE,
    BATCHER,
    CALLER,
    CLERK,
    CLERK_CHANGED,
    CONFIGURED,
    ENVOY,
    FETCHER,
    GREETER,
    KEEPER,
    MESSENGER,
    OBSERVER,
    RESPONDER,
    PLUGIN_LOG,
    QUICKSTART_ORDERS,
    QUICKSTART_RECEIPTS,
    PROGRAM_COMPONENT,
    PROGRAM_MODULE,
    VISITOR_COMPONENT,
    VISITOR_MODULE,
    WITNESS_COMPONENT,
    WITNESS_MODULE,
];

/// The file of a guest.
///
/// # Panics
/// When there is no guest of this name.
#[must_use]
#[track_caller]
pub fn path(name: &str) -> PathBuf {
    assert!(ALL.contains(&name), "no guest is called {name:?}; there are {ALL:?}");
    PathBuf::from(env!("GRISTMILL_GUESTS")).join(name).with_extension("wasm")
}

/// The bytes of a guest.
///
/// # Panics
/// When there is no guest of this name, or its file is gone.
#[must_use]
#[track_caller]
pub fn bytes(name: &str) -> Vec<u8> {
    let path = path(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_is_a_module_if_its_name_says_so() {
        for name in ALL {
            // The magic number, and the version and layer.
            let expected = if name.ends_with("_module") { b"\0asm\x01\x00\x00\x00" } else { b"\0asm\x0d\x00\x01\x00" };
            assert_eq!(bytes(name)[..8], *expected, "{name}");
        }
    }

    #[test]
    fn only_components_that_emit_import_the_emitter() {
        let emits = |name| {
            let import = b"gristmill:events/emitter@0.1.0";
            bytes(name).windows(import.len()).any(|window| window == import)
        };
        // What a module is to become may import more than it will.
        let components = ALL.into_iter().filter(|name| !name.ends_with("_module"));
        let emitting: Vec<_> = components.filter(|name| emits(name)).collect();
        assert_eq!(emitting, [ACTOR, BATCHER, CLERK, CLERK_CHANGED, RESPONDER, QUICKSTART_ORDERS]);
    }

    #[test]
    #[should_panic(expected = "no guest is called \"nobody\"")]
    fn an_unknown_guest_is_named() {
        let _ = path("nobody");
    }
}
