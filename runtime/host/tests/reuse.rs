//! Instances that serve several events.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use gristmill_core::{Event, Outcome};
use gristmill_host::{Component, Host, HostOptions, Instances, Invocation, LoadRequest};
use support::{Guest, invocation, is_pending, request};

/// Answers with how many events it has handled, as a digit, and traps if the event's type is `com.acme.trap`, which is
/// shorter by one than `com.acme.count`.
const COUNTER: &str = r"
    (i32.store8 (i32.const 4096) (i32.add (i32.load8_u (i32.const 4096)) (i32.const 1)))
    (if (i32.eq (i32.load offset=56 (local.get $delivery)) (i32.const 13)) (then (unreachable)))
    (i32.store8 (i32.const 4097) (i32.add (i32.const 48) (i32.load8_u (i32.const 4096))))
    (i32.store (i32.const 1028) (i32.const 1)) (i32.store (i32.const 1036) (i32.const 4097))
    (i32.store (i32.const 1040) (i32.const 1))
    (i32.const 1024)";

fn options(memory: u64) -> HostOptions {
    HostOptions { memory, ..HostOptions::default() }
}

async fn load(host: &Host, handle: &str, instances: Instances) -> Component {
    let bytes = Guest { handle, ..Guest::default() }.build();
    host.load(LoadRequest { instances, ..request(bytes) }).await.unwrap()
}

async fn count(component: &Component) -> u8 {
    let event = Arc::new(Event::new("1", "/test", "com.acme.count"));
    let outcome = component.handle(Invocation { event, ..invocation() }).await.outcome;
    let Outcome::Ack { result: Some(result) } = outcome else { panic!("an answer: {outcome:?}") };
    result[0] - b'0'
}

async fn trap(component: &Component) {
    let event = Arc::new(Event::new("1", "/test", "com.acme.trap"));
    let outcome = component.handle(Invocation { event, ..invocation() }).await.outcome;
    assert!(matches!(outcome, Outcome::Trap { .. }), "{outcome:?}");
}

fn reuse(events: u32) -> Instances {
    Instances::Reuse { events, age: Duration::from_mins(10) }
}

#[tokio::test]
async fn an_instance_is_fresh_unless_it_is_asked_to_be_reused() {
    let host = Host::new(options(1 << 30)).unwrap();
    let fresh = load(&host, COUNTER, Instances::Fresh).await;
    assert_eq!([count(&fresh).await, count(&fresh).await], [1, 1]);
    let reused = load(&host, COUNTER, reuse(3)).await;
    let mut counts = Vec::new();
    for _ in 0..7 {
        counts.push(count(&reused).await);
    }
    assert_eq!(counts, [1, 2, 3, 1, 2, 3, 1]);
}

#[tokio::test]
async fn an_instance_that_trapped_is_not_used_again() {
    let host = Host::new(options(1 << 30)).unwrap();
    let component = load(&host, COUNTER, reuse(10)).await;
    assert_eq!([count(&component).await, count(&component).await], [1, 2]);
    trap(&component).await;
    assert_eq!(count(&component).await, 1);
}

#[tokio::test]
async fn an_instance_grows_too_old() {
    let host = Host::new(options(1 << 30)).unwrap();
    let component = load(&host, COUNTER, Instances::Reuse { events: 10, age: Duration::ZERO }).await;
    assert_eq!([count(&component).await, count(&component).await], [1, 1]);
}

#[tokio::test]
async fn a_kept_instance_makes_room_for_others() {
    let memory = invocation().limits.memory;
    let host = Host::new(options(memory)).unwrap();
    let (first, second) = (load(&host, COUNTER, reuse(10)).await, load(&host, COUNTER, reuse(10)).await);
    assert_eq!([count(&first).await, count(&first).await], [1, 2]);
    // There is room for one: the other gives way, and begins anew.
    assert_eq!([count(&second).await, count(&first).await, count(&second).await], [1, 1, 1]);
    // Also if it is at work when somebody begins to wait.
    let place = first.admit(&invocation().limits).await;
    let mut waiting = Box::pin(count(&second));
    assert!(is_pending(&mut waiting));
    let event = Arc::new(Event::new("1", "/test", "com.acme.count"));
    let report = first.handle_in(place, Invocation { event, ..invocation() }).await;
    assert!(matches!(report.outcome, Outcome::Ack { .. }));
    assert_eq!(waiting.await, 1);
}

#[tokio::test]
async fn nothing_of_the_host_is_left_for_the_next_event() {
    let guest = Guest {
        imports: r#"
            (import "wasi:logging/logging@0.1.0-draft" (instance $logging
                (type $level' (enum "trace" "debug" "info" "warn" "error" "critical"))
                (export "level" (type $level (eq $level')))
                (export "log" (func (param "level" $level) (param "context" string) (param "message" string)))))
            (import "gristmill:events/context@0.1.0" (instance $context (export "remaining" (func (result u32)))))
            (core func $remaining (canon lower (func $context "remaining")))
            (core func $log (canon lower (func $logging "log") (memory $m)))"#,
        core_imports: r#"(import "host" "remaining" (func $remaining (result i32)))
                         (import "host" "log" (func $log (param i32 i32 i32 i32 i32)))"#,
        with: r#"(with "host" (instance (export "remaining" (func $remaining)) (export "log" (func $log))))"#,
        items: "",
        // Logs the event's type, and comes back after the time that is left.
        handle: r"
            (call $log (i32.const 2) (i32.const 0) (i32.const 0)
                (i32.load offset=52 (local.get $delivery)) (i32.load offset=56 (local.get $delivery)))
            (i32.store (i32.const 1024) (i32.const 2))
            (i32.store (i32.const 1028) (call $remaining))
            (i32.const 1024)",
    };
    let host = Host::new(options(1 << 30)).unwrap();
    let component = host.load(LoadRequest { instances: reuse(10), ..request(guest.build()) }).await.unwrap();
    for (ty, seconds) in [("com.acme.a", 100), ("com.acme.b", 10), ("com.acme.c", 1_000)] {
        let mut invocation = Invocation { event: Arc::new(Event::new("1", "/test", ty)), ..invocation() };
        invocation.limits.timeout = Duration::from_secs(seconds);
        let report = component.handle(invocation).await;
        let Outcome::Defer { after, .. } = report.outcome else { panic!("{:?}", report.outcome) };
        assert!(after <= Duration::from_secs(seconds) && after > Duration::from_secs(seconds - 1), "{after:?}");
        let lines: Vec<_> = report.logs.iter().map(|line| line.message.as_str()).collect();
        assert_eq!((lines, report.ledger.host_calls), (vec![ty], 2));
    }
}

#[tokio::test]
async fn a_component_that_is_gone_keeps_no_instance() {
    let memory = invocation().limits.memory;
    let host = Host::new(options(memory)).unwrap();
    let component = load(&host, COUNTER, reuse(10)).await;
    assert_eq!(count(&component).await, 1);
    drop(component);
    let other = load(&host, COUNTER, Instances::Fresh).await;
    assert_eq!(count(&other).await, 1);
}
