//! WASI preview 1 commands: what they are told, and what becomes of what they do.

mod support;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gristmill_core::event::{HOPS_EXTENSION, MAX_HOPS};
use gristmill_core::{Event, Outcome};
use gristmill_host::{Component, Interface, Invocation, Report};
use support::{host, invocation, request, with_timeout};

const ACK: Outcome = Outcome::Ack { result: None };

/// A command. `items` may use the memory above 64; `start` may `(call $write FILE AT LENGTH)` and `(call $exit STATUS)`.
fn command(items: &str, start: &str) -> Bytes {
    let text = format!(
        r#"(module
            (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
            (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
            (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
            (memory (export "memory") 2)
            (func $write (param $file i32) (param $at i32) (param $len i32)
                (i32.store (i32.const 0) (local.get $at))
                (i32.store (i32.const 4) (local.get $len))
                (drop (call $fd_write (local.get $file) (i32.const 0) (i32.const 1) (i32.const 8))))
            {items}
            (func $start (export "_start") {start}))"#
    );
    wat::parse_str(&text).unwrap_or_else(|error| panic!("{error}")).into()
}

/// Writes `text` to stdout (1) or stderr (2), and then does `then`.
fn writing(file: u32, text: &[u8], then: &str) -> Bytes {
    let escaped: String = text.iter().map(|byte| format!("\\{byte:02x}")).collect();
    let start = format!("(call $write (i32.const {file}) (i32.const 64) (i32.const {})) {then}", text.len());
    command(&format!("(data (i32.const 64) \"{escaped}\")"), &start)
}

async fn load(bytes: Bytes) -> Component {
    host(2).load(request(bytes)).await.unwrap_or_else(|error| panic!("{error}"))
}

async fn run(bytes: Bytes, invocation: Invocation) -> Report {
    load(bytes).await.handle(invocation).await
}

async fn printing(text: &[u8]) -> Report {
    run(writing(1, text, ""), invocation()).await
}

fn lines(report: &Report) -> Vec<(&str, &str)> {
    report.logs.iter().map(|line| (line.context.as_str(), line.message.as_str())).collect()
}

fn invalid(report: &Report) -> &str {
    let Outcome::InvalidOutput { reason } = &report.outcome else { panic!("invalid output: {:?}", report.outcome) };
    assert!(report.emits.is_empty(), "{:?}", report.emits);
    reason
}

#[tokio::test]
async fn the_exit_status_is_the_verdict() {
    let retry = |status: u32| Outcome::Retry { reason: format!("exit status {status}"), after: None };
    for (status, outcome) in [
        (0, ACK),
        (75, retry(75)),
        (65, Outcome::Reject { reason: "exit status 65".to_owned() }),
        (1, retry(1)),
        (3, retry(3)),
        (255, retry(255)),
    ] {
        let report = run(command("", &format!("(call $exit (i32.const {status}))")), invocation()).await;
        assert_eq!(report.outcome, outcome, "{status}");
    }
    let report = run(command("", ""), invocation()).await;
    assert_eq!((report.outcome, report.ledger.peak_memory), (ACK, 2 << 16), "who returns succeeds");
}

#[tokio::test]
async fn stderr_is_the_log_and_its_end_is_the_reason() {
    let bytes = writing(2, b"calling\nthe bank is closed\n", "(call $exit (i32.const 75))");
    let report = run(bytes.clone(), invocation()).await;
    let reason = "the bank is closed\nexit status 75".to_owned();
    assert_eq!(report.outcome, Outcome::Retry { reason: reason.clone(), after: None });
    assert_eq!(lines(&report), [("stderr", "calling"), ("stderr", "the bank is closed")]);

    let mut quiet = invocation();
    quiet.limits.max_log_bytes = 20;
    let report = run(bytes, quiet).await;
    assert_eq!(report.outcome, Outcome::Retry { reason, after: None }, "whatever the cap");
    assert_eq!(lines(&report)[1].0, "gristmill", "the cap holds, and is said");
}

#[tokio::test]
async fn a_trap_says_what_and_where() {
    let report = run(command("(func $inner (unreachable))", "(call $inner)"), invocation()).await;
    let Outcome::Trap { reason } = report.outcome else { panic!("{:?}", report.outcome) };
    assert_eq!(reason, "wasm trap: wasm `unreachable` instruction executed\n  0: inner\n  1: start");
}

#[tokio::test]
async fn an_endless_loop_ends_with_its_time() {
    let report = run(command("", "(loop $again (br $again))"), with_timeout(Duration::from_millis(20))).await;
    let Outcome::Timeout { reason } = report.outcome else { panic!("{:?}", report.outcome) };
    assert_eq!(reason, "the handler ran longer than its time-out of 20ms\n  0: start");
}

#[tokio::test]
async fn memory_over_the_limit_ends_the_invocation() {
    let mut little = invocation();
    little.limits.memory = 3 << 16;
    let grow = |pages: u32| command("", &format!("(drop (memory.grow (i32.const {pages})))"));
    assert_eq!(run(grow(1), little.clone()).await.outcome, ACK);
    let report = run(grow(2), little.clone()).await;
    let Outcome::OutOfMemory { reason } = report.outcome else { panic!("{:?}", report.outcome) };
    assert_eq!(reason, "the handler asked for 256 KiB of memory; its limit is 192KiB\n  0: start");
    little.limits.memory = 1 << 16;
    assert!(matches!(run(grow(0), little).await.outcome, Outcome::OutOfMemory { .. }), "from the beginning");
}

#[tokio::test]
async fn events_on_stdout_are_emitted_with_the_ack() {
    let report = printing(
        b"{\"type\":\"com.acme.a\",\"data\":{\"n\":1}}\r\n\n\
          {\"specversion\":\"1.0\",\"id\":\"7\",\"source\":\"/x\",\"type\":\"com.acme.b\",\"gristmillhops\":9}\n\
          {\"type\":\"com.acme.c\"}",
    )
    .await;
    assert_eq!(report.outcome, ACK);
    let emitted: Vec<_> = report
        .emits
        .iter()
        .map(|emit| (emit.event.id.as_str(), emit.event.source.as_str(), emit.event.ty.as_str(), emit.event.hops()))
        .collect();
    assert_eq!(
        emitted,
        [
            ("e7-1", "/handlers/guest", "com.acme.a", 1),
            ("7", "/x", "com.acme.b", 1),
            ("e7-3", "/handlers/guest", "com.acme.c", 1),
        ]
    );
    assert_eq!(report.emits[0].event.data.as_deref(), Some(&b"{\"n\":1}"[..]));
    assert_eq!(lines(&report), [], "events are no log");
}

#[tokio::test]
async fn nothing_is_emitted_without_an_ack_and_the_log_has_it_instead() {
    let event = b"{\"type\":\"com.acme.a\"}\n";
    for then in ["(call $exit (i32.const 75))", "(call $exit (i32.const 65))", "(unreachable)"] {
        let report = run(writing(1, event, then), invocation()).await;
        assert!(report.emits.is_empty() && report.outcome != ACK, "{then}");
        assert_eq!(lines(&report), [("stdout", "{\"type\":\"com.acme.a\"}")], "{then}");
    }
}

#[tokio::test]
async fn output_that_is_no_event_is_an_outcome_of_its_own() {
    let report = printing(b"{\"type\":\"com.acme.a\"}\nhello\n").await;
    let reason = invalid(&report);
    assert!(reason.starts_with("line 2 of stdout is no event: not a CloudEvent in JSON: "), "{reason}");
    assert!(reason.ends_with("\nit begins: hello"), "{reason}");
    assert_eq!(lines(&report)[1], ("stdout", "hello"), "the log has all of it");
    for (text, words) in [
        (&b"{}"[..], "`type` is missing"),
        (b"[]", "not a CloudEvent in JSON"),
        (b"{\"type\":\"\"}", "attribute `type`"),
        (b"{\"specversion\":\"0.3\",\"type\":\"com.acme.a\"}", "only \"1.0\""),
        (b"{\"type\":\"com.acme.a\"} {\"type\":\"com.acme.a\"}", "trailing characters"),
        (b"\xff\xfe", "not a CloudEvent in JSON"),
        (b"{\"type\":\"com.acme.a\",\"subject\":\"\xff\"}", "not a CloudEvent in JSON"),
        (b"{\"type\":\"com.acme.a\",\"data\":\"\xc3\"}", "not a CloudEvent in JSON"),
    ] {
        let report = printing(text).await;
        assert!(invalid(&report).contains(words), "{words}: {}", invalid(&report));
    }
}

#[tokio::test]
async fn what_was_not_granted_is_not_emitted() {
    let report = printing(b"{\"type\":\"com.acme.a\"}\n{\"type\":\"org.other\"}\n").await;
    assert!(
        invalid(&report).starts_with(
            "line 2 of stdout is not emitted: type `org.other` is not covered by the grant emit = [\"com.acme.*\"]"
        ),
        "{}",
        invalid(&report)
    );
    let mut two = invocation();
    two.limits.max_emits = 2;
    let three = b"{\"type\":\"com.acme.a\"}\n".repeat(3);
    let report = run(writing(1, &three, ""), two).await;
    assert!(invalid(&report).contains("one invocation may emit at most 2 events"), "{}", invalid(&report));
}

#[tokio::test]
async fn an_emit_after_too_many_hops_is_a_loop() {
    let mut event = Event::new("1", "/test", "com.acme.a");
    event.extensions.insert(HOPS_EXTENSION.to_owned(), MAX_HOPS.to_string());
    let looping = Invocation { event: Arc::new(event), ..invocation() };
    let report = run(writing(1, b"{\"type\":\"com.acme.a\"}\n", ""), looping).await;
    assert!(matches!(report.outcome, Outcome::Loop { .. }), "{:?}", report.outcome);
    assert!(report.emits.is_empty());
}

/// Writes one line: the head of an event, `count` times 64 KiB of `x`, and the event's end.
fn long_line(count: u32) -> Bytes {
    let head = br#"{"type":"com.acme.a","datacontenttype":"text/plain","data":""#;
    let escaped: String = head.iter().map(|byte| format!("\\{byte:02x}")).collect();
    let items = format!("(data (i32.const 64) \"{escaped}\") (data (i32.const 200) \"\\22}}\\0a\")");
    let start = format!(
        "(local $left i32)
         (local.set $left (i32.const {count}))
         (memory.fill (i32.const 256) (i32.const 120) (i32.const 65536))
         (call $write (i32.const 1) (i32.const 64) (i32.const {}))
         (loop $next
            (call $write (i32.const 1) (i32.const 256) (i32.const 65536))
            (br_if $next (local.tee $left (i32.sub (local.get $left) (i32.const 1)))))
         (call $write (i32.const 1) (i32.const 200) (i32.const 3))",
        head.len()
    );
    command(&items, &start)
}

#[tokio::test]
async fn a_long_line_is_an_event_up_to_the_limits() {
    let report = run(long_line(15), invocation()).await;
    assert_eq!(report.outcome, ACK);
    assert_eq!(report.emits[0].event.data.as_ref().map(Bytes::len), Some(15 << 16));
    let report = run(long_line(16), invocation()).await;
    assert!(invalid(&report).contains("at most 1MiB are allowed"), "{}", invalid(&report));

    let mut little = invocation();
    little.limits.max_emit_bytes = 64 << 10;
    let report = run(long_line(1_000), little).await;
    assert!(invalid(&report).starts_with("wrote more than 128KiB to stdout"), "{}", invalid(&report));
    assert!(report.logs.iter().all(|line| line.message.len() <= gristmill_host::MAX_LINE_LEN));
}

/// Copies stdin to stderr.
fn echo() -> Bytes {
    command(
        "",
        "(loop $more
            (i32.store (i32.const 16) (i32.const 256))
            (i32.store (i32.const 20) (i32.const 7))
            (if (call $read (i32.const 0) (i32.const 16) (i32.const 1) (i32.const 24)) (then (unreachable)))
            (if (i32.load (i32.const 24)) (then
                (call $write (i32.const 2) (i32.const 256) (i32.load (i32.const 24)))
                (br $more))))",
    )
}

#[tokio::test]
async fn the_event_is_one_line_of_json_on_stdin() {
    let echo = load(echo()).await;
    for (datacontenttype, data, expected) in [
        (None, &b"{\n  \"a\": 1.10\n}"[..], r#""data":{   "a": 1.10 }"#),
        (Some("application/json"), b"[1]", r#""datacontenttype":"application/json","data":[1]"#),
        (Some("application/json"), b"[", r#""datacontenttype":"application/json","data_base64":"Ww==""#),
        (Some("text/plain"), b"a\n\"b\"", r#""datacontenttype":"text/plain","data":"a\n\"b\"""#),
        (Some("image/png"), b"\xff\x00", r#""datacontenttype":"image/png","data_base64":"/wA=""#),
    ] {
        let mut event = Event::new("1", "/test", "com.acme.test");
        event.datacontenttype = datacontenttype.map(str::to_owned);
        event.data = Some(Bytes::from_static(data));
        let report = echo.handle(Invocation { event: Arc::new(event), ..invocation() }).await;
        assert_eq!(report.outcome, ACK);
        let head = r#"{"specversion":"1.0","id":"1","source":"/test","type":"com.acme.test""#;
        assert_eq!(lines(&report), [("stderr", format!("{head},{expected}}}").as_str())]);
    }
}

#[tokio::test]
async fn a_command_is_told_by_what_it_exports() {
    let component = load(command("", "")).await;
    assert_eq!(component.interface(), Interface::Command);
    assert_eq!(component.interface().to_string(), "wasi-preview1-command");
    let imports: Vec<_> = component.imports().iter().map(|import| import.name.as_str()).collect();
    assert_eq!(imports, ["fd_read", "fd_write", "proc_exit"].map(|name| format!("wasi_snapshot_preview1::{name}")));
}

#[tokio::test]
async fn a_full_pool_waits() {
    let host = host(1);
    let spin = host.load(request(command("", "(loop $again (br $again))"))).await.unwrap();
    let ack = host.load(request(command("(memory $second 1)", ""))).await;
    assert!(ack.is_err(), "an instance with two memories does not fit into a pool of one");
    let ack = host.load(request(command("", ""))).await.unwrap();
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
async fn nothing_of_an_invocation_is_left_for_the_next() {
    // Fails if memory is not as it was at first.
    let body = "(if (i32.load (i32.const 512)) (then (unreachable))) (i32.store (i32.const 512) (i32.const 1))";
    let component = load(command("", body)).await;
    for _ in 0..5 {
        assert_eq!(component.handle(invocation()).await.outcome, ACK);
    }
}
