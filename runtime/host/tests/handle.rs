//! What becomes of invocations: verdicts, traps, limits, emits, logs, and the pool.

mod support;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gristmill_core::event::{HOPS_EXTENSION, MAX_HOPS};
use gristmill_core::{Event, Outcome};
use gristmill_host::{Invocation, LogLevel, Report};
use support::{Guest, host, invocation, load, request, with_timeout};

/// Memory is zero at first, and all zero is `ack(none)`.
const ACK: &str = "(i32.const 1024)";
/// Never returns.
const SPIN: &str = "(loop $again (br $again)) (unreachable)";

async fn run(guest: Guest<'_>, invocation: Invocation) -> Report {
    load(guest).await.handle(invocation).await
}

fn handling(handle: &str) -> Guest<'_> {
    Guest { handle, ..Guest::default() }
}

#[tokio::test]
async fn a_verdict_becomes_an_outcome() {
    // A verdict is a case at 1024 and its content from 1028; the event's type is at 52 of the delivery, as the text.
    let text = |at: u32| format!("(i64.store offset={at} (i32.const 0) (i64.load offset=52 (local.get $delivery)))");
    let case = |case: u32| format!("(i32.store (i32.const 1024) (i32.const {case}))");
    let word = |at: u32, value: u32| format!("(i32.store (i32.const {at}) (i32.const {value}))");
    let ty = "com.acme.test".to_owned();
    for (body, outcome) in [
        (String::new(), Outcome::Ack { result: None }),
        (word(1028, 1) + &text(1036), Outcome::Ack { result: Some(Bytes::from(ty.clone())) }),
        (case(1) + &text(1028), Outcome::Retry { reason: ty.clone(), after: None }),
        (
            case(1) + &text(1028) + &word(1036, 1) + &word(1040, 7),
            Outcome::Retry { reason: ty.clone(), after: Some(Duration::from_millis(7)) },
        ),
        (case(2) + &word(1028, 9), Outcome::Defer { reason: None, after: Duration::from_millis(9) }),
        (case(3) + &text(1028), Outcome::Reject { reason: ty.clone() }),
    ] {
        let report = run(handling(&format!("{body} {ACK}")), invocation()).await;
        assert_eq!(report.outcome, outcome, "{body}");
        assert_eq!(report.ledger.peak_memory, 65_536);
    }
}

#[tokio::test]
async fn textual_data_crosses_as_text_and_other_data_as_bytes() {
    // Rejects with the data if it is there: the option is at 116 of the delivery, the payload at 120.
    let body = format!(
        "(i32.store (i32.const 1024) (i32.const 3))
         (if (i32.eq (i32.load8_u offset=120 (local.get $delivery)) (i32.const 0))
            (then (i64.store (i32.const 1028) (i64.load offset=124 (local.get $delivery)))))
         {ACK}"
    );
    let component = load(handling(&body)).await;
    for (datacontenttype, reason) in [(None, "{}"), (Some("application/json"), "{}"), (Some("image/png"), "")] {
        let mut event = Event::new("1", "/test", "com.acme.test");
        event.data = Some(Bytes::from_static(b"{}"));
        event.datacontenttype = datacontenttype.map(str::to_owned);
        let report = component.handle(Invocation { event: Arc::new(event), ..invocation() }).await;
        assert_eq!(report.outcome, Outcome::Reject { reason: reason.to_owned() }, "{datacontenttype:?}");
    }
}

#[tokio::test]
async fn a_trap_says_what_and_where() {
    let guest =
        Guest { items: "(func $inner (unreachable))", handle: "(call $inner) (i32.const 0)", ..Guest::default() };
    let Outcome::Trap { reason } = run(guest, invocation()).await.outcome else { panic!("a trap") };
    assert_eq!(reason, "wasm trap: wasm `unreachable` instruction executed\n  0: inner\n  1: handle");
}

#[tokio::test]
async fn endless_recursion_is_over_the_stacks_limit_with_a_short_backtrace() {
    let guest =
        Guest { items: "(func $deeper (call $deeper))", handle: "(call $deeper) (i32.const 0)", ..Guest::default() };
    let Outcome::OverLimit { reason } = run(guest, invocation()).await.outcome else { panic!("over a limit") };
    let start = "it used more stack than `stack` in [runtime] allows: a recursion without an end?\n  0: deeper\n";
    assert!(reason.starts_with(start), "{reason}");
    assert!(reason.ends_with(" more") && reason.lines().count() == 14, "{reason}");
}

#[tokio::test]
async fn a_verdict_that_is_none_is_the_handlers_fault() {
    let cases = ["(i32.store (i32.const 1024) (i32.const 77)) (i32.const 1024)", "(i32.const 1023)", "(i32.const -4)"];
    for body in cases {
        let report = run(handling(body), invocation()).await;
        assert!(matches!(report.outcome, Outcome::Trap { .. }), "{body}: {:?}", report.outcome);
    }
}

#[tokio::test]
async fn a_handler_that_computes_too_long_is_interrupted_where_it_is() {
    let guest = Guest {
        items: "(func $spin (loop $again (br $again)))",
        handle: "(call $spin) (unreachable)",
        ..Guest::default()
    };
    let report = run(guest, with_timeout(Duration::from_millis(20))).await;
    let Outcome::Timeout { reason } = &report.outcome else { panic!("{:?}", report.outcome) };
    assert_eq!(reason, "the handler ran longer than its time-out of 20ms\n  0: spin\n  1: handle");
    assert!(report.ledger.wall >= Duration::from_millis(20));
}

#[test]
fn handlers_that_compute_give_way_to_whoever_a_timer_wakes() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).event_interval(1).enable_all().build();
    let runtime = runtime.unwrap();
    runtime.block_on(async {
        let component = load(handling(SPIN)).await;
        let spinning = tokio::spawn(async move { component.handle(with_timeout(Duration::from_secs(10))).await });
        let woken = tokio::spawn(async {
            for _ in 0..10 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });
        tokio::select! {
            biased;
            report = spinning => panic!("nobody else had a turn: {report:?}"),
            woken = woken => woken.unwrap(),
        }
    });
    runtime.shutdown_background();
}

#[tokio::test]
async fn a_handler_that_waits_too_long_in_a_host_call_is_dropped() {
    let sleeper = Guest {
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
        handle: "(call $block (call $subscribe (i64.const 3600000000000))) (i32.const 1024)",
        ..Guest::default()
    };
    let component = load(sleeper).await;
    let Outcome::Timeout { reason } = component.handle(with_timeout(Duration::from_millis(20))).await.outcome else {
        panic!("a time-out")
    };
    assert_eq!(reason, "the handler ran longer than its time-out of 20ms; it was waiting in a host call");
}

#[tokio::test]
async fn memory_over_the_limit_ends_the_invocation() {
    let mut little = invocation();
    little.limits.memory = 3 << 16;
    let grow = |pages: u32| format!("(drop (memory.grow (i32.const {pages}))) {ACK}");
    let report = run(handling(&grow(2)), little.clone()).await;
    assert_eq!((report.outcome, report.ledger.peak_memory), (Outcome::Ack { result: None }, 3 << 16));
    let report = run(handling(&grow(3)), little.clone()).await;
    let Outcome::OutOfMemory { reason } = report.outcome else { panic!("out of memory") };
    assert_eq!(reason, "the handler asked for 256 KiB of memory; its limit is 192KiB\n  0: handle");

    let large = Guest { items: "(memory $large 3)", handle: ACK, ..Guest::default() };
    let Outcome::OutOfMemory { reason } = run(large, little.clone()).await.outcome else { panic!("out of memory") };
    assert_eq!(reason, "the handler asked for 256 KiB of memory; its limit is 192KiB");

    little.limits.memory = 1;
    let tables = Guest { items: "(table 100 funcref)", handle: ACK, ..Guest::default() };
    assert!(matches!(run(tables, little).await.outcome, Outcome::OutOfMemory { .. }));
}

/// Emits an event whose type is the one of the delivery, as often as the delivery says its attempt is. Acks with the
/// last id, or retries with the words of the first error.
fn emitter<'a>() -> Guest<'a> {
    Guest {
        imports: r#"
            (import "gristmill:events/emitter@0.1.0" (instance $emitter
                (type $payload' (variant (case "text" string) (case "binary" (list u8))))
                (export "payload" (type $payload (eq $payload')))
                (type $new' (record
                    (field "id" (option string)) (field "source" (option string)) (field "type" string)
                    (field "subject" (option string)) (field "datacontenttype" (option string))
                    (field "dataschema" (option string)) (field "extensions" (list (tuple string string)))
                    (field "data" (option $payload)) (field "key" (option string)) (field "priority" (option u8))
                    (field "delay" (option u32)) (field "dedupe-key" (option string))))
                (export "new-event" (type $new (eq $new')))
                (type $error' (variant
                    (case "denied" string) (case "invalid" string) (case "too-much" string) (case "other" string)))
                (export "emit-error" (type $error (eq $error')))
                (export "emit" (func (param "event" $new) (result (result string (error $error)))))))
            (core func $emit (canon lower (func $emitter "emit") (memory $m) (realloc (core func $realloc))))"#,
        core_imports: r#"(import "host" "emit" (func $emit (param i32 i32)))"#,
        with: r#"(with "host" (instance (export "emit" (func $emit))))"#,
        items: "",
        handle: r"
            (local $left i32)
            (local.set $left (i32.load offset=16 (local.get $delivery)))
            ;; The new event is at 2048, its type at 24; the result is at 3072.
            (i64.store (i32.const 2072) (i64.load offset=52 (local.get $delivery)))
            (loop $next
                (call $emit (i32.const 2048) (i32.const 3072))
                (if (i32.load8_u (i32.const 3072)) (then
                    (i32.store (i32.const 1024) (i32.const 1))
                    (i64.store (i32.const 1028) (i64.load (i32.const 3080)))
                    (return (i32.const 1024))))
                (local.set $left (i32.sub (local.get $left) (i32.const 1)))
                (br_if $next (local.get $left)))
            (i32.store (i32.const 1028) (i32.const 1))
            (i64.store (i32.const 1036) (i64.load (i32.const 3076)))
            (i32.const 1024)",
    }
}

fn emitting(ty: &str, times: u32) -> Invocation {
    Invocation { attempt: times, event: Arc::new(Event::new("1", "/test", ty)), ..invocation() }
}

#[tokio::test]
async fn granted_events_are_reported_with_the_ack() {
    let report = run(emitter(), emitting("com.acme.a", 2)).await;
    assert_eq!(report.outcome, Outcome::Ack { result: Some(Bytes::from_static(b"e7-2")) });
    let ids: Vec<_> = report.emits.iter().map(|emit| emit.event.id.as_str()).collect();
    assert_eq!(ids, ["e7-1", "e7-2"]);
    assert!(report.emits.iter().all(|emit| emit.event.source == "/handlers/guest" && emit.event.hops() == 1));
}

#[tokio::test]
async fn other_events_are_denied_and_nothing_is_reported_without_an_ack() {
    let report = run(emitter(), emitting("org.other", 1)).await;
    let reason = r#"type `org.other` is not covered by the grant emit = ["com.acme.*"]"#.to_owned();
    assert_eq!(report.outcome, Outcome::Retry { reason, after: None });

    let mut limited = emitting("com.acme.a", 3);
    limited.limits.max_emits = 2;
    let report = run(emitter(), limited).await;
    let reason = "one invocation may emit at most 2 events (`max-emits`)".to_owned();
    assert_eq!((report.outcome, report.emits), (Outcome::Retry { reason, after: None }, vec![]));
}

#[tokio::test]
async fn an_emit_after_too_many_hops_is_a_loop_whatever_the_verdict() {
    let mut event = Event::new("1", "/test", "com.acme.a");
    event.extensions.insert(HOPS_EXTENSION.to_owned(), MAX_HOPS.to_string());
    let report = run(emitter(), Invocation { event: Arc::new(event), ..invocation() }).await;
    assert!(
        matches!(&report.outcome, Outcome::Loop { reason } if reason.contains("com.acme.a")),
        "{:?}",
        report.outcome
    );
    assert!(report.emits.is_empty());
}

/// Writes `text` to stderr and then does `then`.
fn with_stderr(then: &str, text: &str) -> Bytes {
    let items = format!("(data (i32.const 4096) {text:?})");
    let handle =
        format!("(call $write (call $stderr) (i32.const 4096) (i32.const {}) (i32.const 3072)) {then}", text.len());
    let guest = Guest {
        imports: r#"
            (import "wasi:io/error@0.2.0" (instance $errors (export "error" (type (sub resource)))))
            (alias export $errors "error" (type $error))
            (import "wasi:io/streams@0.2.0" (instance $streams
                (export "error" (type $e (eq $error)))
                (type $stream-error' (variant (case "last-operation-failed" (own $e)) (case "closed")))
                (export "stream-error" (type $stream-error (eq $stream-error')))
                (export "output-stream" (type $stream (sub resource)))
                (export "[method]output-stream.blocking-write-and-flush" (func
                    (param "self" (borrow $stream)) (param "contents" (list u8))
                    (result (result (error $stream-error)))))))
            (alias export $streams "output-stream" (type $stream))
            (import "wasi:cli/stderr@0.2.0" (instance $err
                (export "output-stream" (type $s (eq $stream)))
                (export "get-stderr" (func (result (own $s))))))
            (import "wasi:cli/exit@0.2.0" (instance $exit (export "exit" (func (param "status" (result))))))
            (core func $write (canon lower (func $streams "[method]output-stream.blocking-write-and-flush") (memory $m)))
            (core func $get (canon lower (func $err "get-stderr")))
            (core func $exit (canon lower (func $exit "exit")))"#,
        core_imports: r#"(import "wasi" "write" (func $write (param i32 i32 i32 i32)))
                         (import "wasi" "stderr" (func $stderr (result i32)))
                         (import "wasi" "exit" (func $exit (param i32)))"#,
        with: r#"(with "wasi" (instance
                    (export "write" (func $write)) (export "stderr" (func $get)) (export "exit" (func $exit))))"#,
        items: &items,
        handle: &handle,
    };
    guest.build()
}

#[tokio::test]
async fn stderr_is_logged_and_its_end_explains_a_trap() {
    let host = host(1);
    let panic =
        "reading\nthread 'main' panicked at src/lib.rs:7:9:\nno such order\nnote: run with `RUST_BACKTRACE=1`\n";
    let mut silent = invocation();
    silent.limits.max_log_bytes = 0;
    let component = host.load(request(with_stderr("(unreachable)", panic))).await.unwrap();
    let report = component.handle(silent).await;
    let Outcome::Trap { reason } = report.outcome else { panic!("a trap") };
    assert!(reason.starts_with("panicked at src/lib.rs:7:9: no such order\nwasm trap: wasm `unreachable`"), "{reason}");

    let component = host.load(request(with_stderr(ACK, "one\ntwo"))).await.unwrap();
    let report = component.handle(invocation()).await;
    let lines: Vec<_> = report.logs.iter().map(|l| (l.level, l.context.as_str(), l.message.as_str())).collect();
    assert_eq!(lines, [(LogLevel::Warn, "stderr", "one"), (LogLevel::Warn, "stderr", "two")]);
    assert_eq!(report.outcome, Outcome::Ack { result: None });
}

#[tokio::test]
async fn exit_is_no_verdict() {
    let bytes = with_stderr("(call $exit (i32.const 0)) (unreachable)", "bye\n");
    let Outcome::Trap { reason } = host(1).load(request(bytes)).await.unwrap().handle(invocation()).await.outcome
    else {
        panic!("a trap")
    };
    assert!(
        reason.starts_with("bye\nthe handler called exit with status 0 instead of returning a verdict"),
        "{reason}"
    );
}

#[tokio::test]
async fn the_context_and_the_log_are_there() {
    let guest = Guest {
        imports: r#"
            (import "gristmill:events/context@0.1.0" (instance $context
                (export "handler-name" (func (result string)))
                (export "remaining" (func (result u32)))))
            (import "wasi:logging/logging@0.1.0-draft" (instance $logging
                (type $level' (enum "trace" "debug" "info" "warn" "error" "critical"))
                (export "level" (type $level (eq $level')))
                (export "log" (func (param "level" $level) (param "context" string) (param "message" string)))))
            (core func $name (canon lower (func $context "handler-name") (memory $m) (realloc (core func $realloc))))
            (core func $remaining (canon lower (func $context "remaining")))
            (core func $log (canon lower (func $logging "log") (memory $m)))"#,
        core_imports: r#"(import "host" "name" (func $name (param i32)))
                         (import "host" "remaining" (func $remaining (result i32)))
                         (import "host" "log" (func $log (param i32 i32 i32 i32 i32)))"#,
        with: r#"(with "host" (instance
                    (export "name" (func $name)) (export "remaining" (func $remaining)) (export "log" (func $log))))"#,
        items: "",
        handle: r"
            (call $name (i32.const 3072))
            (call $log (i32.const 4) (i32.load (i32.const 3072)) (i32.load (i32.const 3076)) (i32.const 0) (i32.const 0))
            (i32.store (i32.const 1024) (i32.const 2))
            (i32.store (i32.const 1028) (call $remaining))
            (i32.const 1024)",
    };
    let report = run(guest, invocation()).await;
    let Outcome::Defer { after, .. } = report.outcome else { panic!("{:?}", report.outcome) };
    assert!(after > Duration::ZERO && after <= invocation().limits.timeout, "{after:?}");
    let [line] = &report.logs[..] else { panic!("one line") };
    assert_eq!((line.level, line.context.as_str(), line.message.as_str()), (LogLevel::Error, "guest", ""));
}

#[tokio::test]
async fn a_full_pool_waits_and_waiting_is_not_the_handlers_time() {
    let host = host(1);
    let spin = host.load(request(handling(SPIN).build())).await.unwrap();
    let ack = host.load(request(handling(ACK).build())).await.unwrap();
    let mut calls = tokio::task::JoinSet::new();
    for number in 0..12 {
        let component = if number % 2 == 0 { spin.clone() } else { ack.clone() };
        calls.spawn(
            async move { component.handle(with_timeout(Duration::from_millis(25))).await.outcome.kind().as_str() },
        );
    }
    let mut outcomes = calls.join_all().await;
    outcomes.sort_unstable();
    assert_eq!(outcomes, [["ack"; 6], ["timeout"; 6]].concat());
}

#[tokio::test]
async fn handlers_that_compute_do_not_hold_up_others() {
    // One thread runs both: the spinning handler has to give way for the other to be done first.
    let host = host(2);
    let spin = host.load(request(handling(SPIN).build())).await.unwrap();
    let ack = host.load(request(handling(ACK).build())).await.unwrap();
    let spinning = tokio::spawn(async move { spin.handle(with_timeout(Duration::from_secs(2))).await });
    tokio::task::yield_now().await;
    for _ in 0..20 {
        assert_eq!(ack.handle(invocation()).await.outcome, Outcome::Ack { result: None });
    }
    assert!(!spinning.is_finished());
    spinning.abort();
    assert!(spinning.await.unwrap_err().is_cancelled());
    assert_eq!(ack.handle(invocation()).await.outcome, Outcome::Ack { result: None });
}

#[tokio::test]
async fn nothing_of_an_invocation_is_left_for_the_next() {
    // Retries if memory is not as it was at first.
    let body = format!(
        "(i32.store (i32.const 1024) (i32.load (i32.const 512)))
         (i32.store (i32.const 512) (i32.const 1)) {ACK}"
    );
    let component = load(handling(&body)).await;
    for _ in 0..5 {
        assert_eq!(component.handle(invocation()).await.outcome, Outcome::Ack { result: None });
    }
}
