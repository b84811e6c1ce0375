//! Components of WASI 0.3, whose functions may be async.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::time::Duration;

use bytes::Bytes;
use gristmill_core::Outcome;
use gristmill_host::{Interface, Report};
use support::{host, request, with_timeout};

/// A program that waits for so many nanoseconds, and returns ok (0) or an error (1).
fn waiting(nanos: u64, result: u32) -> Bytes {
    let text = format!(
        r#"(component
            (import "wasi:clocks/monotonic-clock@0.3.0" (instance $clock
                (export "now" (func (result u64)))
                (export "wait-for" (func async (param "how-long" u64)))))
            (core func $now (canon lower (func $clock "now")))
            (core func $wait (canon lower (func $clock "wait-for")))
            (core module $m
                (import "wasi" "now" (func $now (result i64)))
                (import "wasi" "wait" (func $wait (param i64)))
                (func (export "run") (result i32)
                    (local $start i64)
                    (local.set $start (call $now))
                    (call $wait (i64.const {nanos}))
                    (if (i64.lt_u (i64.sub (call $now) (local.get $start)) (i64.const {nanos})) (then (unreachable)))
                    (i32.const {result})))
            (core instance $i (instantiate $m
                (with "wasi" (instance (export "now" (func $now)) (export "wait" (func $wait))))))
            (func $run async (result (result)) (canon lift (core func $i "run")))
            (instance $program (export "run" (func $run)))
            (export "wasi:cli/run@0.3.0" (instance $program)))"#
    );
    wat::parse_str(&text).unwrap_or_else(|error| panic!("{error}")).into()
}

async fn run(bytes: Bytes, timeout: Duration) -> Report {
    let component = host(1).load(request(bytes)).await.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(component.interface(), Interface::Run);
    component.handle(with_timeout(timeout)).await
}

#[tokio::test]
async fn a_program_may_wait() {
    let long = Duration::from_secs(10);
    let report = run(waiting(5_000_000, 0), long).await;
    assert_eq!(report.outcome, Outcome::Ack { result: None });
    assert!(report.ledger.wall >= Duration::from_millis(5));
    let report = run(waiting(1, 1), long).await;
    assert_eq!(report.outcome, Outcome::Retry { reason: "exit status 1".to_owned(), after: None });
}

#[tokio::test]
async fn a_program_that_waits_too_long_is_stopped() {
    let Outcome::Timeout { reason } = run(waiting(3_600_000_000_000, 0), Duration::from_millis(20)).await.outcome
    else {
        panic!("a time-out")
    };
    assert_eq!(reason, "the handler ran longer than its time-out of 20ms; it was waiting in a host call");
}

/// Looks up `localhost`: ok if there is an answer.
fn looking_up() -> Bytes {
    let text = r#"(component
        (import "wasi:sockets/types@0.3.0" (instance $types
            (type $v4 (tuple u8 u8 u8 u8))
            (type $v6 (tuple u16 u16 u16 u16 u16 u16 u16 u16))
            (type $address' (variant (case "ipv4" $v4) (case "ipv6" $v6)))
            (export "ip-address" (type $address (eq $address')))))
        (alias export $types "ip-address" (type $address))
        (import "wasi:sockets/ip-name-lookup@0.3.0" (instance $lookup
            (export "ip-address" (type $a (eq $address)))
            (type $error' (variant
                (case "access-denied") (case "invalid-argument") (case "name-unresolvable")
                (case "temporary-resolver-failure") (case "permanent-resolver-failure") (case "other" (option string))))
            (export "error-code" (type $error (eq $error')))
            (export "resolve-addresses" (func async (param "name" string) (result (result (list $a) (error $error)))))))
        (core module $memory
            (memory (export "memory") 1)
            (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 8192)))
        (core instance $memory (instantiate $memory))
        (core func $resolve (canon lower (func $lookup "resolve-addresses")
            (memory (core memory $memory "memory")) (realloc (core func $memory "realloc"))))
        (core module $m
            (import "memory" "memory" (memory 1))
            (import "wasi" "resolve" (func $resolve (param i32 i32 i32)))
            (data (i32.const 16) "localhost")
            (func (export "run") (result i32)
                (call $resolve (i32.const 16) (i32.const 9) (i32.const 1024))
                (i32.load8_u (i32.const 1024))))
        (core instance $i (instantiate $m
            (with "memory" (instance $memory)) (with "wasi" (instance (export "resolve" (func $resolve))))))
        (func $run async (result (result)) (canon lift (core func $i "run")))
        (instance $program (export "run" (func $run)))
        (export "wasi:cli/run@0.3.0" (instance $program)))"#;
    wat::parse_str(text).unwrap_or_else(|error| panic!("{error}")).into()
}

#[tokio::test]
async fn only_granted_names_are_looked_up() {
    for (granted, is_found) in [("tcp://localhost:80", true), ("tcp://10.0.0.0/8:*", false)] {
        let mut request = request(looking_up());
        request.grants.sockets = vec![granted.parse().unwrap()];
        let component = host(1).load(request).await.unwrap_or_else(|error| panic!("{error}"));
        let report = component.handle(with_timeout(Duration::from_secs(10))).await;
        assert_eq!(matches!(report.outcome, Outcome::Ack { .. }), is_found, "{granted}: {:?}", report.outcome);
    }
}
