//! Instances that serve several events.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gristmill_core::state::{Change, StateReader, StateUnavailable};
use gristmill_core::{Event, Outcome, Pattern};
use gristmill_host::{Component, Host, HostOptions, Instances, Invocation, LoadRequest, Report};
use gristmill_test_guests::{BATCHER, MESSENGER, VISITOR_COMPONENT, bytes};
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
        // Room for this one's line, and not for two.
        invocation.limits.max_log_bytes = ty.len() as u64 + 1;
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

/// A snapshot in which every key has the same value.
#[derive(Debug)]
struct Always(&'static str);

impl StateReader for Always {
    fn get(&self, _: &str, _: &str) -> Result<Option<Bytes>, StateUnavailable> {
        Ok(Some(Bytes::from_static(self.0.as_bytes())))
    }

    fn keys(&self, _: &str, _: Option<&str>, _: usize) -> Result<Vec<String>, StateUnavailable> {
        Ok(Vec::new())
    }
}

/// The guest `batcher`, whose instances serve many events.
async fn batcher() -> Component {
    let mut request = LoadRequest { instances: reuse(100), ..request(bytes(BATCHER)) };
    request.grants.emit = vec![Pattern::new("*")];
    request.grants.state = vec!["counts".parse().unwrap()];
    Host::new(options(1 << 30)).unwrap().load(request).await.unwrap()
}

fn delivery(id: &str, ty: &str) -> Invocation {
    Invocation { delivery_id: id.to_owned(), event: Arc::new(Event::new(id, "/test", ty)), ..invocation() }
}

#[tokio::test]
async fn what_an_event_emitted_is_not_the_next_ones() {
    let component = batcher().await;
    for id in ["a", "b", "c"] {
        let mut one = delivery(id, "batch.emit");
        one.limits.max_emits = 1;
        let report = component.handle(one).await;
        let emitted: Vec<_> = report.emits.iter().map(|emit| emit.event.id.as_str()).collect();
        assert_eq!(emitted, [format!("{id}-1")], "one for each, and of that event");
    }
    // Also where the events before came to nothing.
    component.handle(delivery("d", "batch.retry-emit")).await;
    let report = component.handle(delivery("e", "batch.ack")).await;
    let result = r#"{"of":1,"at":0}"#;
    assert!(report.emits.is_empty(), "{:?}", report.emits);
    assert_eq!(report.ledger.bytes_out, result.len() as u64);
}

#[tokio::test]
async fn what_an_event_saw_and_wrote_of_the_state_is_not_the_next_ones() {
    let component = batcher().await;
    let count = async |stored| {
        let state = Some(Arc::new(Always(stored)) as Arc<dyn StateReader>);
        component.handle(Invocation { state, ..delivery("a", "batch.count") }).await
    };
    for (stored, sum) in [("41", "42"), ("7", "8"), ("7", "8")] {
        let report = count(stored).await;
        let changes: Vec<_> = report.state.writes.iter().map(|write| write.change.clone()).collect();
        assert_eq!(changes, [Change::Set(Bytes::from_static(sum.as_bytes()))]);
        assert_eq!(report.state.reads.len(), 1);
    }
    let report = component.handle(delivery("b", "batch.ack")).await;
    assert!(report.state.reads.is_empty() && report.state.writes.is_empty(), "{:?}", report.state);
}

/// The queue remembers every write since the oldest snapshot that somebody holds.
#[tokio::test]
async fn a_kept_instance_lets_go_of_the_snapshot() {
    let component = batcher().await;
    for ty in ["batch.read", "batch.count", "batch.retry", "batch.ack"] {
        let reader: Arc<dyn StateReader> = Arc::new(Always("1"));
        let held = Arc::downgrade(&reader);
        component.handle(Invocation { state: Some(reader), ..delivery("a", ty) }).await;
        assert!(held.upgrade().is_none(), "{ty}");
    }
}

/// Answers with how many events it has handled, as a digit. If the type is one of 13 letters, it waits for ever; if it is
/// one of 12, it computes for ever; if it is one of 11, it takes 1 MiB more.
fn patient<'a>() -> Guest<'a> {
    Guest {
        imports: r#"
            (import "wasi:io/poll@0.2.0" (instance $poll
                (export "pollable" (type $pollable (sub resource)))
                (export "[method]pollable.block" (func (param "self" (borrow $pollable))))))
            (alias export $poll "pollable" (type $pollable))
            (import "wasi:clocks/monotonic-clock@0.2.0" (instance $clock
                (export "pollable" (type $p (eq $pollable)))
                (export "subscribe-duration" (func (param "when" u64) (result (own $p))))))
            (core func $block (canon lower (func $poll "[method]pollable.block")))
            (core func $subscribe (canon lower (func $clock "subscribe-duration")))"#,
        core_imports: r#"(import "wasi" "subscribe" (func $subscribe (param i64) (result i32)))
                         (import "wasi" "block" (func $block (param i32)))"#,
        with: r#"(with "wasi" (instance (export "subscribe" (func $subscribe)) (export "block" (func $block))))"#,
        items: "",
        handle: r"
            (local $length i32)
            (local.set $length (i32.load offset=56 (local.get $delivery)))
            (i32.store8 (i32.const 4096) (i32.add (i32.load8_u (i32.const 4096)) (i32.const 1)))
            (if (i32.eq (local.get $length) (i32.const 13))
                (then (call $block (call $subscribe (i64.const 3600000000000)))))
            (if (i32.eq (local.get $length) (i32.const 12)) (then (loop $again (br $again))))
            (if (i32.eq (local.get $length) (i32.const 11)) (then (drop (memory.grow (i32.const 16)))))
            (i32.store8 (i32.const 4097) (i32.add (i32.const 48) (i32.load8_u (i32.const 4096))))
            (i32.store (i32.const 1028) (i32.const 1)) (i32.store (i32.const 1036) (i32.const 4097))
            (i32.store (i32.const 1040) (i32.const 1))
            (i32.const 1024)",
    }
}

const WAIT: &str = "com.acme.wait";
const SPIN: &str = "com.acme.spi";
const GROW: &str = "com.acme.gr";

async fn load_patient(host: &Host) -> Component {
    host.load(LoadRequest { instances: reuse(10), ..request(patient().build()) }).await.unwrap()
}

#[tokio::test]
async fn an_instance_that_took_too_long_is_not_used_again() {
    let host = Host::new(options(1 << 30)).unwrap();
    let component = load_patient(&host).await;
    for ty in [WAIT, SPIN] {
        assert_eq!([count(&component).await, count(&component).await], [1, 2], "{ty}");
        let mut late = delivery("a", ty);
        late.limits.timeout = Duration::from_millis(20);
        let outcome = component.handle(late).await.outcome;
        assert!(matches!(outcome, Outcome::Timeout { .. }), "{outcome:?}");
        assert_eq!(count(&component).await, 1, "{ty}");
        trap_of_memory(&component).await;
    }
}

/// Leaves the component without an instance.
async fn trap_of_memory(component: &Component) {
    let mut little = delivery("a", GROW);
    little.limits.memory = 1 << 20;
    let outcome = component.handle(little).await.outcome;
    assert!(matches!(outcome, Outcome::OutOfMemory { .. }), "{outcome:?}");
}

#[tokio::test]
async fn an_instance_that_was_ended_is_not_used_again() {
    let host = Host::new(options(1 << 30)).unwrap();
    for (ty, words) in [(WAIT, "a person ended it"), (SPIN, "a person ended it\n  0: ")] {
        let component = load_patient(&host).await;
        assert_eq!([count(&component).await, count(&component).await], [1, 2], "{ty}");
        let mut invocation = delivery("kept", ty);
        invocation.limits.timeout = Duration::from_mins(10);
        let mut run = Box::pin(component.handle(invocation));
        assert!(is_pending(&mut run));
        let [running] = &host.running()[..] else { panic!("one runs") };
        assert_eq!(running.delivery_id, "kept");
        assert!(running.memory >= 64 << 10, "what it has from before: {running:?}");
        assert!(host.kill(running.number));
        let Outcome::Killed { reason } = run.await.outcome else { panic!("killed") };
        assert!(reason.starts_with(words), "{reason}");
        assert_eq!(count(&component).await, 1, "{ty}");
    }
}

#[tokio::test]
async fn memory_is_that_of_all_events_and_the_limit_that_of_each() {
    let host = Host::new(options(1 << 30)).unwrap();
    let component = load_patient(&host).await;
    let peak = async |memory| {
        let mut grow = delivery("a", GROW);
        grow.limits.memory = memory;
        let Report { outcome, ledger, .. } = component.handle(grow).await;
        (matches!(outcome, Outcome::Ack { .. }), ledger.peak_memory)
    };
    let (acked, first) = peak(2 << 20).await;
    assert!(acked);
    assert_eq!(peak(64 << 20).await, (true, first + (1 << 20)), "with a limit of its own");
    assert!(!peak(first + (2 << 20) - 1).await.0);
    assert_eq!(peak(2 << 20).await, (true, first), "another instance");
}

#[tokio::test]
async fn fuel_is_that_of_one_event() {
    let host = Host::new(HostOptions { count_fuel: true, ..HostOptions::default() }).unwrap();
    let component = load(&host, COUNTER, reuse(10)).await;
    let mut fuel = Vec::new();
    for _ in 0..3 {
        fuel.push(component.handle(delivery("a", "com.acme.count")).await.ledger.fuel.unwrap());
    }
    assert!(fuel[0] >= fuel[1] && fuel[1] == fuel[2] && fuel[2] > 0, "{fuel:?}");
}

#[tokio::test]
async fn instances_are_kept_again_when_nobody_waits_any_more() {
    let memory = invocation().limits.memory;
    let host = Host::new(options(memory)).unwrap();
    let component = load(&host, COUNTER, reuse(10)).await;
    let place = component.admit(&invocation().limits).await;
    let mut waiting = Box::pin(count(&component));
    assert!(is_pending(&mut waiting));
    drop((waiting, place));
    assert_eq!([count(&component).await, count(&component).await], [1, 2]);
}

/// Who keeps the event that it was given keeps the host's memory.
#[tokio::test]
async fn an_instance_that_keeps_its_event_is_not_used_again() {
    let host = Host::new(options(1 << 30)).unwrap();
    let component = host.load(LoadRequest { instances: reuse(10), ..request(bytes(MESSENGER)) }).await.unwrap();
    let handled = async |topic: &str| component.handle(delivery("a", topic)).await.outcome;
    for _ in 0..2 {
        for expected in ["1", "2"] {
            let outcome = handled("msg.count").await;
            assert!(outcome.reason().is_some_and(|reason| reason.ends_with(expected)), "{outcome:?}");
        }
        assert_eq!(handled("msg.keep").await, Outcome::Ack { result: None });
    }
}

#[tokio::test]
async fn a_program_ends_with_its_event() {
    let host = Host::new(options(1 << 30)).unwrap();
    let component = host.load(LoadRequest { instances: reuse(10), ..request(bytes(VISITOR_COMPONENT)) }).await.unwrap();
    for lines in ["2", "3", "1"] {
        let mut event = Event::new("1", "/test", "test.chatter");
        event.subject = Some(lines.to_owned());
        let report = component.handle(Invocation { event: Arc::new(event), ..invocation() }).await;
        assert_eq!((report.outcome.kind().as_str(), report.logs.len().to_string().as_str()), ("ack", lines));
    }
}
