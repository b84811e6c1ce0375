//! Programs as components (`wasi:cli/run`), and one Rust program as a component and as a core module.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gristmill_core::{Event, Outcome, Pattern};
use gristmill_host::{Component, Grants, ImportStatus, Interface, Invocation, LoadError, LoadRequest, Report};
use gristmill_test_guests::{PROGRAM_COMPONENT, PROGRAM_MODULE, bytes};
use support::{Guest, host, invocation, reason, request, with_timeout};

const ACK: Outcome = Outcome::Ack { result: None };

/// A component that exports `wasi:cli/run`. `body` leaves 0 (ok) or 1 (error), or calls `$exit` (with 0 or 1) or `$code`.
fn program(version: &str, body: &str) -> Bytes {
    let text = format!(
        r#"(component
            (import "wasi:cli/exit@0.2.12" (instance $exit
                (export "exit" (func (param "status" (result))))
                (export "exit-with-code" (func (param "status-code" u8)))))
            (core func $exit (canon lower (func $exit "exit")))
            (core func $code (canon lower (func $exit "exit-with-code")))
            (core module $m
                (import "wasi" "exit" (func $exit (param i32)))
                (import "wasi" "code" (func $code (param i32)))
                (func $run (export "run") (result i32) {body}))
            (core instance $i (instantiate $m
                (with "wasi" (instance (export "exit" (func $exit)) (export "code" (func $code))))))
            (func $run (result (result)) (canon lift (core func $i "run")))
            (instance $run (export "run" (func $run)))
            (export "wasi:cli/run@{version}" (instance $run)))"#
    );
    wat::parse_str(&text).unwrap_or_else(|error| panic!("{error}")).into()
}

async fn run(body: &str, invocation: Invocation) -> Report {
    host(2).load(request(program("0.2.3", body))).await.unwrap().handle(invocation).await
}

#[tokio::test]
async fn the_result_or_the_exit_status_is_the_verdict() {
    let retry = |status: u32| Outcome::Retry { reason: format!("exit status {status}"), after: None };
    for (body, outcome) in [
        ("(i32.const 0)", ACK),
        ("(i32.const 1)", retry(1)),
        ("(call $exit (i32.const 0)) (unreachable)", ACK),
        ("(call $exit (i32.const 1)) (unreachable)", retry(1)),
        ("(call $code (i32.const 0)) (unreachable)", ACK),
        ("(call $code (i32.const 75)) (unreachable)", retry(75)),
        ("(call $code (i32.const 65)) (unreachable)", Outcome::Reject { reason: "exit status 65".to_owned() }),
        ("(call $code (i32.const 255)) (unreachable)", retry(255)),
    ] {
        assert_eq!(run(body, invocation()).await.outcome, outcome, "{body}");
    }
    let trap = run("(unreachable)", invocation()).await;
    assert!(matches!(trap.outcome, Outcome::Trap { .. }), "{:?}", trap.outcome);
    let spin = run("(loop $again (br $again)) (unreachable)", with_timeout(Duration::from_millis(20))).await;
    assert!(matches!(spin.outcome, Outcome::Timeout { .. }), "{:?}", spin.outcome);
}

#[tokio::test]
async fn every_version_of_wasi_0_2_is_found() {
    for version in ["0.2.0", "0.2.6", "0.2.99"] {
        let component = host(1).load(request(program(version, "(i32.const 0)"))).await.unwrap();
        assert_eq!(component.interface(), Interface::Run, "{version}");
        assert_eq!(component.form(), "wasi:cli/run@0.2");
        assert_eq!(component.handle(invocation()).await.outcome, ACK, "{version}");
    }
    for version in ["0.4.0", "0.2.0-rc-2023-12-05", "1.2.0"] {
        let error = host(1).load(request(program(version, "(i32.const 0)"))).await.unwrap_err();
        assert!(matches!(error, LoadError::NoHandler { .. }), "{version}: {error}");
    }
}

/// Acks as a handler, and fails as a program.
fn both() -> Bytes {
    let guest = Guest {
        imports: r#"
            (core module $program (func (export "run") (result i32) (i32.const 1)))
            (core instance $program (instantiate $program))
            (func $run (result (result)) (canon lift (core func $program "run")))
            (instance $run (export "run" (func $run)))
            (export "wasi:cli/run@0.2.0" (instance $run))"#,
        handle: "(i32.const 1024)",
        ..Guest::default()
    };
    guest.build()
}

#[tokio::test]
async fn with_several_interfaces_the_handler_wins_unless_another_is_asked_for() {
    let host = host(4);
    let load = |interface: Option<Interface>| host.load(LoadRequest { interface, ..request(both()) });
    for (asked, found, outcome) in [
        (None, Interface::Handler, ACK),
        (Some(Interface::Handler), Interface::Handler, ACK),
        (Some(Interface::Run), Interface::Run, Outcome::Retry { reason: "exit status 1".to_owned(), after: None }),
    ] {
        let component = load(asked).await.unwrap();
        assert_eq!(component.interface(), found);
        assert_eq!(component.handle(invocation()).await.outcome, outcome, "{asked:?}");
    }
    assert!(matches!(load(Some(Interface::Command)).await, Err(LoadError::OtherInterface { .. })));
}

const FORMS: [(&str, Interface); 2] = [(PROGRAM_COMPONENT, Interface::Run), (PROGRAM_MODULE, Interface::Command)];

async fn rust(guest: &str) -> Component {
    let grants = Grants { emit: vec![Pattern::new("test.*")], ..Grants::default() };
    host(2).load(LoadRequest { grants, ..request(bytes(guest)) }).await.unwrap()
}

fn event(ty: &str) -> Invocation {
    Invocation { event: Arc::new(Event::new("1", "/test", ty)), ..invocation() }
}

#[tokio::test]
async fn a_rust_program_acks_emits_and_logs() {
    for (guest, interface) in FORMS {
        let program = rust(guest).await;
        assert_eq!(program.interface(), interface);
        assert_eq!(program.handle(event("test.ack")).await.outcome, ACK);

        let report = program.handle(event("test.emit")).await;
        assert_eq!(report.outcome, ACK, "{guest}");
        let emitted: Vec<_> = report.emits.iter().map(|e| (e.event.id.as_str(), e.event.text().unwrap())).collect();
        assert_eq!(emitted, [("e7-1", r#"{"n":0}"#), ("e7-2", r#"{"n":1}"#)], "{guest}");

        let report = program.handle(event("test.echo")).await;
        assert_eq!(report.logs.len(), 1, "{guest}: {:?}", report.logs);
        assert_eq!(
            report.logs[0].message, r#"{"specversion":"1.0","id":"1","source":"/test","type":"test.echo"}"#,
            "{guest}"
        );
    }
}

#[tokio::test]
async fn a_rust_programs_exit_status() {
    let module = rust(PROGRAM_MODULE).await;
    let component = rust(PROGRAM_COMPONENT).await;
    for (ty, outcome) in [
        ("test.retry", Outcome::Retry { reason: "not yet\nexit status 75".to_owned(), after: None }),
        ("test.reject", Outcome::Reject { reason: "bad order\nexit status 65".to_owned() }),
        ("test.fail", Outcome::Retry { reason: "no idea\nexit status 3".to_owned(), after: None }),
        ("test.emit-then-retry", Outcome::Retry { reason: "not yet\nexit status 75".to_owned(), after: None }),
    ] {
        let report = module.handle(event(ty)).await;
        assert_eq!((report.outcome, report.emits), (outcome.clone(), vec![]), "{ty}");
        // Rust's standard library for WASI 0.2 knows no status but 0 and 1.
        let words = outcome.reason().unwrap().split('\n').next().unwrap();
        let reason = format!("{words}\nexit status 1");
        assert_eq!(component.handle(event(ty)).await.outcome, Outcome::Retry { reason, after: None }, "{ty}");
    }
}

#[tokio::test]
async fn a_rust_programs_other_ends() {
    for (guest, _) in FORMS {
        let program = rust(guest).await;
        let panic = program.handle(event("test.panic")).await;
        assert!(matches!(panic.outcome, Outcome::Trap { .. }), "{guest}: {:?}", panic.outcome);
        assert!(reason(&panic).lines().next().unwrap().ends_with(": boom"), "{guest}: {}", reason(&panic));
        for (ty, words) in [("test.garbage", "it begins: hello"), ("test.emit-denied", "`forbidden.type`")] {
            let report = program.handle(event(ty)).await;
            assert!(matches!(report.outcome, Outcome::InvalidOutput { .. }), "{guest}: {:?}", report.outcome);
            assert!(reason(&report).contains(words) && report.emits.is_empty(), "{guest}: {}", reason(&report));
        }
        for (ty, words) in [("test.loop", "30ms\n  0: "), ("test.sleep", "it was waiting in a host call")] {
            let mut short = event(ty);
            short.limits.timeout = Duration::from_millis(30);
            let report = program.handle(short).await;
            assert!(matches!(report.outcome, Outcome::Timeout { .. }), "{guest}: {:?}", report.outcome);
            assert!(reason(&report).contains(words), "{guest}: {}", reason(&report));
        }
        let alloc = program.handle(event("test.alloc")).await;
        assert!(matches!(alloc.outcome, Outcome::OutOfMemory { .. }), "{guest}: {:?}", alloc.outcome);
        assert!(alloc.ledger.peak_memory <= 64 << 20);
    }
}

#[tokio::test]
async fn a_program_has_no_surroundings() {
    for (guest, _) in FORMS {
        let program = rust(guest).await;
        let report = program.handle(event("test.surroundings")).await;
        assert_eq!(report.outcome, ACK, "{guest}");
        assert_eq!(report.logs[0].message, "0 0 0", "{guest}");
    }
    let status = |component: &Component, name: &str| {
        component.imports().iter().find(|import| import.name.starts_with(name)).map(|import| import.status)
    };
    let module = rust(PROGRAM_MODULE).await;
    assert_eq!(status(&module, "wasi_snapshot_preview1::environ_get"), Some(ImportStatus::Powerless));
    assert_eq!(status(&module, "wasi_snapshot_preview1::fd_read"), Some(ImportStatus::Provided));
    let component = rust(PROGRAM_COMPONENT).await;
    assert_eq!(status(&component, "wasi:cli/stdin@"), Some(ImportStatus::Provided));
    assert_eq!(status(&component, "wasi:cli/environment@"), Some(ImportStatus::Powerless));
}
