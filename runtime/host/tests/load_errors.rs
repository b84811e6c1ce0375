//! Every reason not to load a component, and its words: `load-errors/*.err`. Rewrite them with `UPDATE_GOLDEN=1`.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::path::PathBuf;

use bytes::Bytes;
use gristmill_host::{Grants, Host, Interface, LoadError, LoadRequest};
use support::{Guest, host, request};

const ACK: &str = "(i32.const 1024)";

async fn error_of(host: &Host, request: LoadRequest) -> LoadError {
    match host.load(request).await {
        Ok(component) => panic!("loaded {component:?}"),
        Err(error) => error,
    }
}

async fn expect(golden: &str, bytes: impl Into<Bytes>) -> LoadError {
    let error = error_of(&host(1), request(bytes)).await;
    compare(golden, &error);
    error
}

fn compare(golden: &str, error: &LoadError) {
    let path = PathBuf::from("tests/load-errors").join(format!("{golden}.err"));
    let actual = format!("{error}\n");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &actual).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(actual, expected, "{golden}.err; UPDATE_GOLDEN=1 rewrites it");
}

fn component(wat: &str) -> Vec<u8> {
    wat::parse_str(wat).unwrap()
}

#[tokio::test]
async fn files_that_are_no_webassembly() {
    assert!(matches!(expect("empty", "").await, LoadError::Empty));
    for (golden, bytes) in [
        ("text", &b"name = \"resize\"\n"[..]),
        ("wat", b"\n(component)"),
        ("html", b"<!doctype html><title>404</title>"),
        ("gzip", b"\x1f\x8b\x08\x00\x00"),
        ("elf", b"\x7fELF\x02\x01\x01\x00"),
        ("unknown-bytes", b"\x00\x01\x02\xff"),
    ] {
        assert!(matches!(expect(golden, bytes).await, LoadError::NotWasm { .. }), "{golden}");
    }
}

#[tokio::test]
async fn core_modules_that_are_no_commands() {
    let many: String = (0..25).map(|n| format!("(func (export \"f{n}\"))")).collect();
    for (golden, text) in [
        ("core-module", "(module)".to_owned()),
        ("core-module-exports", format!("(module {many})")),
        ("core-library", r#"(module (func (export "_initialize")))"#.to_owned()),
    ] {
        assert!(matches!(expect(golden, component(&text)).await, LoadError::CoreModule { .. }), "{golden}");
    }
}

#[tokio::test]
async fn core_modules_that_carry_a_type_and_cannot_be_made_components() {
    for (golden, text) in [
        ("core-with-type", r#"(module (@custom "component-type:x" "x"))"#),
        (
            "core-with-type-and-start",
            r#"(module (import "gristmill:events/emitter@0.1.0" "emit" (func)) (func (export "_start"))
                (@custom "component-type:x" "x"))"#,
        ),
    ] {
        assert!(matches!(expect(golden, component(text)).await, LoadError::NotWrapped { .. }), "{golden}");
    }
    let bytes = component(r#"(module (@custom "component-type:x" "x"))"#);
    let error = error_of(&host(1), LoadRequest { interface: Some(Interface::Command), ..request(bytes) }).await;
    compare("core-with-type-asked-for-command", &error);
}

#[tokio::test]
async fn commands_that_cannot_run() {
    const EXIT: &str = r#"(import "wasi_snapshot_preview1" "proc_exit" (func (param i32)))"#;
    for (golden, text) in [
        ("command-start", r#"(module (func (export "_start") (param i32)))"#.to_owned()),
        ("command-memory", format!(r#"(module {EXIT} (func (export "_start")))"#)),
        (
            "command-unknown-function",
            r#"(module (import "wasi_snapshot_preview1" "fork" (func)) (memory (export "memory") 1)
                (func (export "_start")))"#
                .to_owned(),
        ),
    ] {
        assert!(matches!(expect(golden, component(&text)).await, LoadError::BadCommand { .. }), "{golden}");
    }
    let imports = r#"(module (import "env" "abort" (func)) (import "wbg" "log" (func)) (func (export "_start")))"#;
    let error = expect("command-unknown-imports", component(imports)).await;
    assert!(matches!(error, LoadError::UnknownImports { imports } if imports.len() == 2));
}

#[tokio::test]
async fn another_interface_than_the_one_asked_for() {
    let handler = Guest { handle: ACK, ..Guest::default() }.build();
    let command = Bytes::from(component(r#"(module (func (export "_start")))"#));
    for (golden, asked, bytes) in [
        ("asked-for-run", Interface::Run, &handler),
        ("asked-for-command", Interface::Command, &handler),
        ("asked-for-incoming", Interface::IncomingHandler, &handler),
        ("asked-for-handler", Interface::Handler, &command),
        ("asked-for-batch-handler", Interface::BatchHandler, &handler),
    ] {
        let request = LoadRequest { interface: Some(asked), ..request(bytes.clone()) };
        let error = error_of(&host(1), request).await;
        compare(golden, &error);
        assert!(matches!(error, LoadError::OtherInterface { .. }), "{golden}");
    }
}

#[tokio::test]
async fn a_component_that_was_cut_short() {
    let whole = Guest { handle: ACK, ..Guest::default() }.build();
    assert!(matches!(expect("damaged", whole.slice(..whole.len() / 2)).await, LoadError::Damaged { .. }));
}

#[tokio::test]
async fn components_that_are_no_handlers() {
    let exporting = |name: &str| component(&format!(r#"(component (instance $i) (export "{name}" (instance $i)))"#));
    for (golden, bytes) in [
        ("no-exports", component("(component)")),
        ("other-exports", exporting("acme:tools/resize@1.0.0")),
        ("other-messaging", exporting("wasi:messaging/incoming-handler@0.3.0")),
        ("other-version", exporting("gristmill:events/handler@0.2.0")),
        ("other-wasi", exporting("wasi:cli/run@0.4.0")),
        ("other-wasi-http", exporting("wasi:http/handler@0.3.0")),
    ] {
        assert!(matches!(expect(golden, bytes).await, LoadError::NoHandler { .. }), "{golden}");
    }
}

#[tokio::test]
async fn imports_that_nobody_provides() {
    let guest = Guest {
        imports: r#"(import "wasi:clocks/timezone@0.2.0" (instance))
                    (import "wasi:keyvalue/store@0.2.0-draft3" (instance))
                    (import "wasi:io/poll@0.2.99" (instance))
                    (import "log" (func))"#,
        handle: ACK,
        ..Guest::default()
    };
    let error = expect("unknown-imports", guest.build()).await;
    assert!(matches!(error, LoadError::UnknownImports { imports } if imports.len() == 3));
    let one = Guest {
        imports: r#"(import "wasi:nn/graph@0.2.0-rc-2024-10-28" (instance))"#,
        handle: ACK,
        ..Guest::default()
    };
    expect("unknown-import", one.build()).await;
}

#[tokio::test]
async fn an_emitter_without_a_grant() {
    let guest =
        Guest { imports: r#"(import "gristmill:events/emitter@0.1.0" (instance))"#, handle: ACK, ..Guest::default() };
    let bytes = guest.build();
    let error = error_of(&host(1), LoadRequest { grants: Grants::default(), ..request(bytes.clone()) }).await;
    compare("emit-not-granted", &error);
    assert!(host(1).load(request(bytes)).await.is_ok(), "with the grant");
}

#[tokio::test]
async fn state_without_a_grant() {
    for name in ["store@0.2.0-draft", "atomics@0.2.0-draft2"] {
        let imports = format!(r#"(import "wasi:keyvalue/{name}" (instance))"#);
        let bytes = Guest { imports: &imports, handle: ACK, ..Guest::default() }.build();
        compare("state-not-granted", &error_of(&host(1), request(bytes.clone())).await);
        let grants = Grants { state: vec!["orders:read".parse().unwrap()], ..Grants::default() };
        assert!(host(1).load(LoadRequest { grants, ..request(bytes) }).await.is_ok(), "with the grant");
    }
}

#[tokio::test]
async fn a_granted_directory_that_is_not_there() {
    let bytes = Guest { handle: ACK, ..Guest::default() }.build();
    let grants = Grants { files: vec!["/no/such/directory:/in:read".parse().unwrap()], ..Grants::default() };
    compare("directory-missing", &error_of(&host(1), LoadRequest { grants, ..request(bytes) }).await);
}

#[tokio::test]
async fn another_digest_than_the_pinned_one() {
    let bytes = Guest { handle: ACK, ..Guest::default() }.build();
    let host = host(1);
    let loaded = host.load(request(bytes.clone())).await.unwrap();
    let pinned = Some(loaded.digest().to_owned());
    assert!(host.load(LoadRequest { digest: pinned, ..request(bytes) }).await.is_ok(), "the right digest");

    let pinned = Some(format!("sha256:{}", "0".repeat(64)));
    let request = LoadRequest { digest: pinned, ..request(component("(component)")) };
    compare("digest-mismatch", &error_of(&host, request).await);
}

#[tokio::test]
async fn a_component_that_is_not_valid() {
    let guest = Guest { handle: "(i64.const 1024)", ..Guest::default() };
    assert!(matches!(expect("does-not-compile", guest.build()).await, LoadError::DoesNotCompile { .. }));
}

#[tokio::test]
async fn interfaces_with_the_right_name_and_another_content() {
    let bytes = component(
        r#"(component
            (core module $m (func (export "handle")))
            (core instance $m (instantiate $m))
            (func $handle (canon lift (core func $m "handle")))
            (instance $i (export "handle" (func $handle)))
            (export "gristmill:events/handler@0.1.0" (instance $i)))"#,
    );
    assert!(matches!(expect("other-handler", bytes).await, LoadError::Incompatible { .. }));
    let guest = Guest {
        imports: r#"(import "wasi:clocks/wall-clock@0.2.99" (instance (export "leap-seconds" (func (result u32)))))"#,
        handle: ACK,
        ..Guest::default()
    };
    assert!(matches!(expect("newer-wasi", guest.build()).await, LoadError::Incompatible { .. }));
}

#[tokio::test]
async fn a_component_that_needs_more_than_the_pool() {
    let guest = Guest {
        imports: r#"(core module $more (memory 1) (table 0 funcref))
                    (core instance (instantiate $more)) (core instance (instantiate $more))"#,
        handle: ACK,
        ..Guest::default()
    };
    assert!(matches!(expect("too-large", guest.build()).await, LoadError::TooLarge { .. }));
    assert!(host(3).load(request(guest.build())).await.is_ok(), "in a larger pool");
}
