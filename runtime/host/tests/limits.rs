//! What an invocation may use besides time and memory of its own, and what it is told to have used.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use gristmill_core::{Event, Outcome};
use gristmill_host::{Host, HostError, HostOptions, Invocation, Limits, LoadError, Report};
use support::{Guest, host, invocation, is_pending, load, request, try_load, with_timeout};

const ACK: Outcome = Outcome::Ack { result: None };
const DONE: &str = "(i32.const 1024)";
const SPIN: &str = "(loop $again (br $again)) (unreachable)";

fn handling(handle: &str) -> Guest<'_> {
    Guest { handle, ..Guest::default() }
}

fn reason(report: &Report) -> &str {
    let Outcome::OverLimit { reason } = &report.outcome else { panic!("over a limit: {:?}", report.outcome) };
    reason
}

/// With one function of `wasi:random`, `$random`, that fills memory; and one of handles, `$subscribe`.
fn calling(handle: &str) -> Guest<'_> {
    Guest {
        imports: r#"
            (import "wasi:random/random@0.2.0" (instance $random
                (export "get-random-bytes" (func (param "len" u64) (result (list u8))))))
            (import "wasi:io/poll@0.2.0" (instance $poll
                (export "pollable" (type $pollable (sub resource)))
                (export "[method]pollable.block" (func (param "self" (borrow $pollable))))))
            (alias export $poll "pollable" (type $pollable))
            (import "wasi:clocks/monotonic-clock@0.2.0" (instance $clock
                (export "pollable" (type $p (eq $pollable)))
                (export "subscribe-duration" (func (param "when" u64) (result (own $p))))))
            (core func $bytes (canon lower (func $random "get-random-bytes") (memory $m) (realloc (core func $realloc))))
            (core func $block (canon lower (func $poll "[method]pollable.block")))
            (core func $subscribe (canon lower (func $clock "subscribe-duration")))"#,
        core_imports: r#"(import "wasi" "random" (func $random (param i64 i32)))
                         (import "wasi" "subscribe" (func $subscribe (param i64) (result i32)))
                         (import "wasi" "block" (func $block (param i32)))"#,
        with: r#"(with "wasi" (instance (export "random" (func $bytes)) (export "subscribe" (func $subscribe))
                                        (export "block" (func $block))))"#,
        handle,
        ..Guest::default()
    }
}

#[tokio::test]
async fn a_result_that_is_too_large_is_no_ack() {
    // A result of 40 bytes.
    let guest = handling(
        "(i32.store (i32.const 1028) (i32.const 1)) (i32.store (i32.const 1032) (i32.const 1))
         (i32.store (i32.const 1040) (i32.const 40)) (i32.const 1024)",
    );
    let component = load(guest).await;
    let mut invocation = invocation();
    invocation.limits.max_result_bytes = 40;
    let report = component.handle(invocation.clone()).await;
    assert_eq!(report.outcome, Outcome::Ack { result: Some(Bytes::from_static(&[0; 40])) });
    invocation.limits.max_result_bytes = 39;
    let report = component.handle(invocation).await;
    assert_eq!(reason(&report), "its result has 40B; `max-result-bytes` is 39B");
}

#[tokio::test]
async fn handles_are_limited_together() {
    let leak = r"
        (local $left i32)
        (local.set $left (i32.const 100))
        (loop $next
            (drop (call $subscribe (i64.const 0)))
            (local.set $left (i32.sub (local.get $left) (i32.const 1)))
            (br_if $next (local.get $left)))
        (i32.const 1024)";
    let component = load(calling(leak)).await;
    assert_eq!(component.handle(invocation()).await.outcome, ACK);
    let mut few = invocation();
    few.limits.max_handles = 50;
    let report = component.handle(few).await;
    let expected = "it holds more handles than `max-handles` allows\n  0: handle";
    assert_eq!(reason(&report), expected);
}

#[tokio::test]
async fn one_call_of_the_host_hands_over_no_more_than_it_may() {
    // Logs a line of 1 MiB: the engine copies it before the log cuts it.
    let guest = Guest {
        imports: r#"
            (import "wasi:logging/logging@0.1.0-draft" (instance $logging
                (type $level' (enum "trace" "debug" "info" "warn" "error" "critical"))
                (export "level" (type $level (eq $level')))
                (export "log" (func (param "level" $level) (param "context" string) (param "message" string)))))
            (core func $log (canon lower (func $logging "log") (memory $m)))"#,
        core_imports: r#"(import "host" "log" (func $log (param i32 i32 i32 i32 i32)))"#,
        with: r#"(with "host" (instance (export "log" (func $log))))"#,
        handle: r"
            (drop (memory.grow (i32.const 16)))
            (call $log (i32.const 4) (i32.const 0) (i32.const 0) (i32.const 65536) (i32.const 1048576))
            (i32.const 1024)",
        ..Guest::default()
    };
    let component = load(guest).await;
    assert_eq!(component.handle(invocation()).await.outcome, ACK);
    let mut little = invocation();
    little.limits.max_call_bytes = (1 << 20) - 1;
    let report = component.handle(little).await;
    assert_eq!(reason(&report), "one call handed over more than `max-call-bytes` allows\n  0: handle");
}

#[tokio::test]
async fn a_table_that_grows_is_memory_too() {
    let items = "(table $t 10 funcref) (elem declare func $nothing) (func $nothing)";
    let handle = "(drop (table.grow $t (ref.null func) (i32.const 50000))) (i32.const 1024)";
    let component = load(Guest { items, handle, ..Guest::default() }).await;
    assert_eq!(component.handle(invocation()).await.outcome, ACK);
    let mut little = invocation();
    little.limits.memory = 256 << 10;
    let outcome = component.handle(little).await.outcome;
    let Outcome::OutOfMemory { reason } = &outcome else { panic!("out of memory: {outcome:?}") };
    assert!(reason.starts_with("the handler asked for 455 KiB of memory; its limit is 256KiB"), "{reason}");
}

#[tokio::test]
async fn text_that_is_none_is_the_handlers_fault() {
    // Rejects with one byte that no text has.
    let items = r#"(data (i32.const 4096) "\ff")"#;
    let handle = "(i32.store (i32.const 1024) (i32.const 3)) (i32.store (i32.const 1028) (i32.const 4096))
                  (i32.store (i32.const 1032) (i32.const 1)) (i32.const 1024)";
    let outcome = load(Guest { items, handle, ..Guest::default() }).await.handle(invocation()).await.outcome;
    let Outcome::Trap { reason } = &outcome else { panic!("a trap: {outcome:?}") };
    assert!(reason.starts_with("invalid utf-8"), "{reason}");
}

#[tokio::test]
async fn a_component_may_be_too_large() {
    let bytes = handling(DONE).build();
    let max_component_size = bytes.len() as u64;
    let sized = |max_component_size| Host::new(HostOptions { max_component_size, ..HostOptions::default() }).unwrap();
    sized(max_component_size).load(request(bytes.clone())).await.unwrap();
    let error = sized(max_component_size - 1).load(request(bytes)).await.unwrap_err();
    assert!(matches!(error, LoadError::TooManyBytes { size, max } if size == max + 1), "{error}");
}

#[test]
fn a_stack_may_be_too_small() {
    let error = Host::new(HostOptions { stack: 1, ..HostOptions::default() }).unwrap_err();
    assert!(matches!(error, HostError::Stack { stack: 1 }), "{error}");
}

/// A recursion of 10,000 calls, each with some locals that have to stay.
#[tokio::test]
async fn the_stack_is_as_deep_as_it_is_set() {
    let items = r"(func $down (param $n i32) (result i32) (local $keep i64)
        (local.set $keep (i64.extend_i32_u (local.get $n)))
        (if (result i32) (local.get $n)
            (then (i32.add (call $down (i32.sub (local.get $n) (i32.const 1))) (i32.wrap_i64 (local.get $keep))))
            (else (i32.const 0))))";
    let handle = "(drop (call $down (i32.const 10000))) (i32.const 1024)";
    let bytes = Guest { items, handle, ..Guest::default() }.build();
    let run = async |stack| {
        let host = Host::new(HostOptions { stack, ..HostOptions::default() }).unwrap();
        host.load(request(bytes.clone())).await.unwrap().handle(invocation()).await
    };
    assert_eq!(run(8 << 20).await.outcome, ACK);
    assert!(reason(&run(64 << 10).await).starts_with("it used more stack than `stack` in [runtime] allows"));
}

#[tokio::test]
async fn all_instances_together_have_so_much_memory() {
    let limits = Limits::default();
    let options = HostOptions { memory: limits.memory * 2, ..HostOptions::default() };
    let component = Host::new(options).unwrap().load(request(handling(DONE).build())).await.unwrap();
    let (first, second) = (component.admit(&limits).await, component.admit(&limits).await);
    let mut third = Box::pin(component.admit(&limits));
    assert!(is_pending(&mut third), "there is no memory for a third");
    // Who is first in the line is served first, whatever he needs.
    let little = Limits { memory: 1, ..limits.clone() };
    let mut fourth = Box::pin(component.admit(&little));
    assert!(is_pending(&mut fourth));
    drop(first);
    let third = third.await;
    assert!(is_pending(&mut fourth));
    drop((second, third));
    assert_eq!(component.handle_in(fourth.await, invocation()).await.outcome, ACK);
    // More than there is counts as all there is.
    let whole = Limits { memory: limits.memory * 3, ..limits };
    drop(component.admit(&whole).await);
}

#[tokio::test]
async fn memory_is_counted_in_whole_pages() {
    const PAGE: u64 = 64 << 10;
    let options = HostOptions { memory: 3 * PAGE, ..HostOptions::default() };
    let component = Host::new(options).unwrap().load(request(handling(DONE).build())).await.unwrap();
    let limits = Limits { memory: PAGE + 1, ..Limits::default() };
    let _first = component.admit(&limits).await;
    assert!(is_pending(&mut Box::pin(component.admit(&limits))), "two and two are more than three");
    let last = Limits { memory: PAGE, ..limits };
    assert!(!is_pending(&mut Box::pin(component.admit(&last))));
}

#[tokio::test]
async fn whoever_finds_no_place_takes_no_memory_either() {
    let limits = Limits::default();
    let options = HostOptions { instances: 1, memory: limits.memory * 2, ..HostOptions::default() };
    let component = Host::new(options).unwrap().load(request(handling(DONE).build())).await.unwrap();
    let place = component.admit(&limits).await;
    for _ in 0..3 {
        assert!(is_pending(&mut Box::pin(component.admit(&limits))));
    }
    drop(place);
    let whole = Limits { memory: limits.memory * 2, ..limits };
    assert!(!is_pending(&mut Box::pin(component.admit(&whole))), "all of it is free again");
}

#[tokio::test]
async fn a_component_of_several_parts_takes_several_places() {
    let limits = Limits { memory: 1 << 20, ..Limits::default() };
    let host = host(3);
    let small = host.load(request(handling(DONE).build())).await.unwrap();
    let parts = "(core module $more (memory 1))
                 (core instance (instantiate $more)) (core instance (instantiate $more))";
    let large = host.load(request(Guest { imports: parts, ..handling(DONE) }.build())).await.unwrap();
    let place = large.admit(&limits).await;
    let mut waiting = Box::pin(small.admit(&limits));
    assert!(is_pending(&mut waiting), "it has all three");
    drop(place);
    // The same for one that has waited.
    let place = waiting.await;
    let mut waiting = Box::pin(large.admit(&limits));
    assert!(is_pending(&mut waiting));
    drop(place);
    let place = waiting.await;
    assert!(is_pending(&mut Box::pin(small.admit(&limits))));
    assert_eq!(large.handle_in(place, invocation()).await.outcome, ACK);
}

#[tokio::test]
async fn many_tables_take_several_places() {
    let limits = Limits { memory: 1 << 20, ..Limits::default() };
    let (few, many) = ("(table 1 funcref)".repeat(8), "(table 1 funcref)".repeat(9));
    for (tables, takes_both) in [(few, false), (many, true)] {
        let component = host(2).load(request(Guest { items: &tables, ..handling(DONE) }.build())).await.unwrap();
        let place = component.admit(&limits).await;
        assert_eq!(is_pending(&mut Box::pin(component.admit(&limits))), takes_both);
        assert_eq!(component.handle_in(place, invocation()).await.outcome, ACK);
    }
}

#[tokio::test]
async fn a_component_without_memory_takes_a_place_too() {
    let text = r#"(component
        (core module $m (func (export "run") (result i32) (i32.const 0)))
        (core instance $i (instantiate $m))
        (func $run (result (result)) (canon lift (core func $i "run")))
        (instance $r (export "run" (func $run)))
        (export "wasi:cli/run@0.2.0" (instance $r)))"#;
    let limits = Limits { memory: 1 << 20, ..Limits::default() };
    let component = host(1).load(request(wat::parse_str(text).unwrap())).await.unwrap();
    let place = component.admit(&limits).await;
    assert!(is_pending(&mut Box::pin(component.admit(&limits))));
    assert_eq!(component.handle_in(place, invocation()).await.outcome, ACK);
}

/// What is managed by a collector is in a memory of its own, which no component says that it needs.
#[tokio::test]
async fn garbage_collected_memories_do_not_fill_the_pool() {
    let guest = Guest {
        items: "(type $box (struct (field i64)))",
        handle: "(drop (struct.new $box (i64.const 1)))
                 (call $block (call $subscribe (i64.const 3600000000000))) (i32.const 1024)",
        ..calling("")
    };
    let host = host(2);
    let component = host.load(request(guest.build())).await.unwrap();
    let (mut first, mut second) = (Box::pin(component.handle(invocation())), Box::pin(component.handle(invocation())));
    assert!(is_pending(&mut first) && is_pending(&mut second), "as many as there are places");
    assert_eq!(host.running().len(), 2);
}

#[tokio::test]
async fn the_ledger_says_what_it_cost() {
    let handle = r"
        (call $block (call $subscribe (i64.const 30000000)))
        (call $random (i64.const 100) (i32.const 3072))
        (i32.store (i32.const 1028) (i32.const 1)) (i32.store (i32.const 1032) (i32.const 1))
        (i32.store (i32.const 1036) (i32.load (i32.const 3072)))
        (i32.store (i32.const 1040) (i32.load (i32.const 3076)))
        (i32.const 1024)";
    let mut event = Event::new("1", "/test", "com.acme.test");
    event.data = Some(Bytes::from(vec![7; 5_000]));
    let event_size = event.size();
    let invocation = Invocation { event: Arc::new(event), ..invocation() };
    let component = load(calling(handle)).await;
    let (before, started) = (thread_time(), Instant::now());
    let ledger = component.handle(invocation).await.ledger;
    let (on_processor, passed) = (thread_time() - before, started.elapsed());
    assert_eq!((ledger.host_calls, ledger.bytes_in, ledger.bytes_out, ledger.fuel), (3, event_size, 100, None));
    assert!(ledger.host_time >= Duration::from_millis(29), "{ledger:?}");
    assert!(ledger.wall >= ledger.host_time && ledger.wall <= passed, "{ledger:?} in {passed:?}");
    // This thread ran it, and did some more.
    assert!(ledger.cpu > Duration::ZERO && ledger.cpu <= on_processor, "{ledger:?}; {on_processor:?}");
}

/// How long a processor has worked on this thread, however busy the machine is.
fn thread_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.try_into().unwrap(), time.tv_nsec.try_into().unwrap())
}

#[tokio::test]
async fn the_ledger_says_how_much_memory_there_was() {
    let peak = async |pages: u32| {
        let handle = format!("(drop (memory.grow (i32.const {pages}))) {DONE}");
        load(handling(&handle)).await.handle(invocation()).await.ledger.peak_memory
    };
    let little = peak(0).await;
    assert!((64 << 10..128 << 10).contains(&little), "a page, and what tables there are: {little}");
    assert_eq!(peak(16).await, little + (1 << 20));
}

#[tokio::test]
async fn the_time_of_a_call_that_was_given_up_counts() {
    let waiting = calling("(call $block (call $subscribe (i64.const 3600000000000))) (unreachable)");
    let report = load(waiting).await.handle(with_timeout(Duration::from_millis(60))).await;
    assert!(matches!(report.outcome, Outcome::Timeout { .. }), "{:?}", report.outcome);
    // It may have computed for some of the time, in the call of `subscribe` for instance.
    assert!(report.ledger.host_time > Duration::from_millis(20), "{:?}", report.ledger);
}

#[tokio::test]
async fn no_more_chance_is_had_at_once_than_a_call_may_hand_over() {
    let guest = calling("(call $random (i64.const 101) (i32.const 3072)) (i32.const 1024)");
    let component = load(guest).await;
    let mut little = invocation();
    little.limits.max_call_bytes = 101;
    assert_eq!(component.handle(little.clone()).await.outcome, ACK);
    little.limits.max_call_bytes = 100;
    assert_ne!(component.handle(little).await.outcome, ACK);
}

#[tokio::test]
async fn time_slices_are_no_calls_of_the_host() {
    let ledger = load(handling(SPIN)).await.handle(with_timeout(Duration::from_millis(30))).await.ledger;
    assert_eq!((ledger.host_calls, ledger.host_time), (0, Duration::ZERO));
    assert!(ledger.cpu > Duration::ZERO && ledger.cpu <= ledger.wall, "{ledger:?}");
}

#[tokio::test]
async fn fuel_is_counted_where_it_is_asked_for() {
    let host = Host::new(HostOptions { count_fuel: true, ..HostOptions::default() }).unwrap();
    let fuel = async |handle: &str| {
        let component = host.load(request(handling(handle).build())).await.unwrap();
        component.handle(invocation()).await.ledger.fuel.unwrap()
    };
    let (little, more) = (fuel(DONE).await, fuel(&format!("{}{DONE}", "(drop (i32.const 1))".repeat(100))).await);
    assert!(little > 0 && more >= little + 100, "{little} {more}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_runs_is_listed_and_can_be_ended() {
    let waiting = "(call $block (call $subscribe (i64.const 3600000000000))) (i32.const 1024)";
    let spinning = format!("(if (i32.const 1) (then {SPIN})) (unreachable)");
    for (guest, words) in [
        (calling(waiting), "a person ended it; it was waiting in a host call"),
        (handling(&spinning), "a person ended it\n  0: handle"),
    ] {
        let host = host(1);
        let component = host.load(request(guest.build())).await.unwrap();
        let run = tokio::spawn(async move { component.handle(with_timeout(Duration::from_mins(1))).await });
        let running = loop {
            match host.running().pop() {
                // Its memory is there: so is it.
                Some(running) if running.memory > 0 => break running,
                _ => tokio::task::yield_now().await,
            }
        };
        assert_eq!((running.handler.as_str(), running.delivery_id.as_str(), running.attempt), ("guest", "e7", 1));
        assert_eq!(running.timeout, Duration::from_mins(1));
        assert!(!host.kill(running.number + 1));
        assert!(host.kill(running.number));
        let Outcome::Killed { reason } = run.await.unwrap().outcome else { panic!("killed") };
        // Whoever is about to wait may still compute.
        assert!(reason == words || reason.starts_with("a person ended it\n  0: "), "{reason}");
        assert!(host.running().is_empty() && !host.kill(running.number));
    }
}

#[tokio::test]
async fn what_runs_is_listed_in_the_order_in_which_it_began() {
    const MANY: u32 = 20;
    let host = host(MANY);
    let waiting = "(call $block (call $subscribe (i64.const 3600000000000))) (unreachable)";
    let component = host.load(request(calling(waiting).build())).await.unwrap();
    let mut runs: Vec<_> = (0..MANY)
        .map(|n| {
            let mut invocation =
                Invocation { delivery_id: format!("e{n}"), attempt: n + 1, ..with_timeout(Duration::MAX) };
            invocation.limits.memory = 1 << 20;
            Box::pin(component.handle(invocation))
        })
        .collect();
    assert!(runs.iter_mut().all(is_pending));
    let running = host.running();
    let told: Vec<_> = running.iter().map(|running| (running.delivery_id.clone(), running.attempt)).collect();
    assert_eq!(told, (0..MANY).map(|n| (format!("e{n}"), n + 1)).collect::<Vec<_>>());
    assert!(running.iter().all(|running| running.elapsed > Duration::ZERO && running.digest == component.digest()));
    // One is ended, and no other.
    assert!(host.kill(running[3].number));
    let report = runs.remove(3).await;
    assert!(matches!(report.outcome, Outcome::Killed { .. }), "{:?}", report.outcome);
    assert!(runs.iter_mut().all(is_pending));
    let left: Vec<_> = host.running().into_iter().map(|running| running.number).collect();
    assert!(left.len() == 19 && !left.contains(&running[3].number), "{left:?}");
}

#[tokio::test]
async fn an_invocation_that_is_dropped_is_not_listed_any_more() {
    let host = host(1);
    let component = host
        .load(request(calling("(call $block (call $subscribe (i64.const 3600000000000))) (unreachable)").build()))
        .await
        .unwrap();
    let mut run = Box::pin(component.handle(invocation()));
    assert!(is_pending(&mut run));
    assert_eq!(host.running().len(), 1);
    drop(run);
    assert!(host.running().is_empty());
    assert!(try_load(handling(DONE)).await.is_ok());
}
