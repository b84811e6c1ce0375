//! The same host with a guest as people write them: Rust, the SDK, and the standard library.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gristmill_core::{Event, Outcome, Pattern};
use gristmill_host::{Component, Grants, Host, HostOptions, ImportStatus, Invocation, LoadRequest, LogLevel};
use gristmill_test_guests::{ACTOR, bytes};
use support::{invocation, reason, request};

async fn actor_in(host: &Host) -> Component {
    let grants = Grants { emit: vec![Pattern::new("test.*")], ..Grants::default() };
    host.load(LoadRequest { grants, ..request(bytes(ACTOR)) }).await.unwrap()
}

async fn actor() -> Component {
    actor_in(&support::host(4)).await
}

fn act(ty: &str) -> Invocation {
    Invocation { event: Arc::new(Event::new("1", "/test", ty)), ..invocation() }
}

fn act_within(ty: &str, timeout: Duration) -> Invocation {
    let mut invocation = act(ty);
    invocation.limits.timeout = timeout;
    invocation
}

#[tokio::test]
async fn what_a_toolchain_imports_unasked_is_listed_as_powerless() {
    let component = actor().await;
    let status = |name: &str| {
        component.imports().iter().find(|import| import.name.starts_with(name)).map(|import| import.status)
    };
    assert_eq!(status("gristmill:events/emitter@"), Some(ImportStatus::Provided));
    assert_eq!(status("wasi:cli/environment@"), Some(ImportStatus::Powerless));
    assert_eq!(component.interface().to_string(), "gristmill:events/handler@0.1.0");
    assert!(component.digest().starts_with("sha256:") && component.digest().len() == 71);
}

#[tokio::test]
async fn verdicts() {
    let component = actor().await;
    for (ty, outcome) in [
        ("test.ack", Outcome::Ack { result: None }),
        ("test.result", Outcome::Ack { result: Some(Bytes::from_static(br#"{"answer":42}"#)) }),
        ("test.retry", Outcome::Retry { reason: "not yet".to_owned(), after: None }),
        ("test.reject", Outcome::Reject { reason: "bad order".to_owned() }),
    ] {
        assert_eq!(component.handle(act(ty)).await.outcome, outcome, "{ty}");
    }
}

#[tokio::test]
async fn a_panic_is_a_trap_with_its_message_first_and_no_panic_machinery() {
    let report = actor().await.handle(act("test.panic")).await;
    let (first, rest) = reason(&report).split_once('\n').unwrap();
    assert!(first.starts_with("panicked at ") && first.ends_with(": boom"), "{first}");
    let (second, frames) = rest.split_once('\n').unwrap();
    assert_eq!(second, "wasm trap: wasm `unreachable` instruction executed");
    assert!(frames.contains("handle") && !frames.contains("panic"), "{frames}");
    assert_eq!(report.outcome.kind().as_str(), "trap");
}

#[tokio::test]
async fn other_ends() {
    let component = actor().await;
    let trap = component.handle(act("test.trap")).await;
    assert!(
        reason(&trap).starts_with("wasm trap: wasm `unreachable` instruction executed\n  0: "),
        "{}",
        reason(&trap)
    );
    let exit = component.handle(act("test.exit")).await;
    assert!(reason(&exit).starts_with("the handler called exit with status "), "{}", reason(&exit));
    let alloc = component.handle(act("test.alloc")).await;
    assert!(reason(&alloc).contains("its limit is 64MiB\n  0: "), "{}", reason(&alloc));
    assert!(matches!(alloc.outcome, Outcome::OutOfMemory { .. }));
    assert!(alloc.ledger.peak_memory > 60 << 20 && alloc.ledger.peak_memory <= 64 << 20);
}

#[tokio::test]
async fn time_outs_of_computing_and_of_waiting() {
    let component = actor().await;
    let computing = component.handle(act_within("test.loop", Duration::from_millis(30))).await;
    assert!(reason(&computing).contains("time-out of 30ms\n  0: "), "{}", reason(&computing));
    let waiting = component.handle(act_within("test.sleep", Duration::from_millis(30))).await;
    assert!(reason(&waiting).ends_with("it was waiting in a host call"), "{}", reason(&waiting));
}

#[tokio::test]
async fn emits_follow_the_verdict() {
    let component = actor().await;
    let report = component.handle(act("test.emit")).await;
    assert_eq!(report.outcome, Outcome::Ack { result: None });
    let [emit] = &report.emits[..] else { panic!("{:?}", report.emits) };
    assert_eq!((emit.event.id.as_str(), emit.event.ty.as_str()), ("e7-1", "test.emitted"));
    assert_eq!(emit.event.text(), Some(r#"{"n":0}"#));
    for ty in ["test.emit-then-retry", "test.emit-then-reject", "test.emit-then-trap", "test.emit-denied"] {
        let report = component.handle(act(ty)).await;
        assert!(report.emits.is_empty() && !matches!(report.outcome, Outcome::Ack { .. }), "{ty}: {report:?}");
    }
}

#[tokio::test]
async fn logs_of_all_kinds_arrive_in_order() {
    let report = actor().await.handle(act("test.log")).await;
    let find = |text: &str| report.logs.iter().position(|line| line.message.contains(text)).map(|at| &report.logs[at]);
    assert_eq!(find("from stdout").map(|l| (l.level, l.context.as_str())), Some((LogLevel::Info, "stdout")));
    assert_eq!(find("from stderr").map(|l| (l.level, l.context.as_str())), Some((LogLevel::Warn, "stderr")));
    assert_eq!(find("from tracing").map(|l| l.level), Some(LogLevel::Info));
    assert_eq!(find("from log").map(|l| l.level), Some(LogLevel::Warn));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_calls_at_once_in_a_pool_of_one() {
    let host = Host::new(HostOptions { instances: 1, ..HostOptions::default() }).unwrap();
    let component = actor_in(&host).await;
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..50 {
        let component = component.clone();
        calls.spawn(async move { component.handle(act("test.ack")).await.outcome });
    }
    for outcome in calls.join_all().await {
        assert_eq!(outcome, Outcome::Ack { result: None });
    }
}
