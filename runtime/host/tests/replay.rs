//! Replays: the same event sees the same again, and nothing comes of it.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gristmill_core::{Event, Outcome, Pattern, Timestamp};
use gristmill_host::{Component, Grants, Instances, Invocation, LoadRequest, Refused, Replay, Replayed, Report};
use gristmill_test_guests::{
    ACTOR, CALLER, ENVOY, OBSERVER, RESPONDER, VISITOR_COMPONENT, VISITOR_MODULE, WITNESS_COMPONENT, WITNESS_MODULE,
    bytes,
};
use serde_json::{Value, json};
use support::server::{PATIENCE, Server, response};
use support::{Guest, host, invocation, request};
use tempfile::TempDir;
use tokio::net::TcpListener;

/// WASI 0.2, preview 1 and WASI 0.3.
const WITNESSES: [&str; 3] = [WITNESS_COMPONENT, WITNESS_MODULE, OBSERVER];
const NOW: Timestamp = Timestamp::from_micros(1_700_000_000_123_456);
const SCENE: Replay = Replay { now: NOW, seed: 7 };
const NOTHING: Refused = Refused { http: 0, sockets: 0 };

async fn load(guest: impl Into<Bytes>, mut grants: Grants) -> Component {
    grants.emit = vec![Pattern::new("test.*")];
    host(2).load(LoadRequest { grants, ..request(guest) }).await.unwrap_or_else(|error| panic!("{error}"))
}

fn event(ty: &str, subject: &str) -> Invocation {
    let mut event = Event::new("1", "/test", ty);
    event.subject = Some(subject.to_owned());
    event.data = Some(r#"{"n":1}"#.into());
    let mut invocation = Invocation { event: Arc::new(event), ..invocation() };
    invocation.limits.timeout = PATIENCE;
    invocation
}

/// The data of the one event that was emitted.
#[track_caller]
fn told(report: &Report) -> Value {
    assert_eq!(report.outcome, Outcome::Ack { result: None }, "{:?}", report.logs);
    let [emit] = &report.emits[..] else { panic!("one event: {:?}", report.emits) };
    serde_json::from_slice(emit.event.data.as_ref().unwrap()).unwrap()
}

#[tokio::test]
async fn the_same_event_sees_the_same_again() {
    for guest in WITNESSES {
        let witness = load(bytes(guest), Grants::default()).await;
        let look = async |scene| told(&witness.replay(event("test.look", "-"), scene).await.report);
        let seen = look(SCENE).await;
        assert_eq!(seen, look(SCENE).await, "{guest}");
        assert_eq!((&seen["wall"], &seen["steady"]), (&json!(NOW.as_micros() * 1_000), &json!(0)), "{guest}");
        let other = look(Replay { seed: 8, ..SCENE }).await;
        assert_eq!((&other["wall"], &other["steady"]), (&seen["wall"], &seen["steady"]), "{guest}");
        assert_ne!(other["random"], seen["random"], "{guest}");
        let later = look(Replay { now: NOW.after(Duration::from_micros(1)), ..SCENE }).await;
        assert_eq!(later["wall"], json!(NOW.as_micros() * 1_000 + 1_000), "{guest}");
        assert_eq!(later["random"], seen["random"], "{guest}");

        let outside = told(&witness.handle(event("test.look", "-")).await);
        assert!(outside["wall"].as_u64() > later["wall"].as_u64(), "{guest}: {outside}");
        assert_ne!(outside["random"], seen["random"], "{guest}");
    }
}

#[tokio::test]
async fn every_kind_of_random_number_follows_from_the_seed() {
    let dice = Guest {
        imports: r#"
            (import "wasi:random/random@0.2.0" (instance $random
                (export "get-random-bytes" (func (param "len" u64) (result (list u8))))
                (export "get-random-u64" (func (result u64)))))
            (import "wasi:random/insecure@0.2.0" (instance $insecure
                (export "get-insecure-random-u64" (func (result u64)))))
            (import "wasi:random/insecure-seed@0.2.0" (instance $seed
                (export "insecure-seed" (func (result (tuple u64 u64))))))
            (core func $bytes (canon lower (func $random "get-random-bytes")
                (memory $m) (realloc (core func $memory "realloc"))))
            (core func $secure (canon lower (func $random "get-random-u64")))
            (core func $insecure (canon lower (func $insecure "get-insecure-random-u64")))
            (core func $seed (canon lower (func $seed "insecure-seed") (memory $m)))"#,
        core_imports: r#"
            (import "wasi" "bytes" (func $bytes (param i64 i32)))
            (import "wasi" "secure" (func $secure (result i64)))
            (import "wasi" "insecure" (func $insecure (result i64)))
            (import "wasi" "seed" (func $seed (param i32)))"#,
        with: r#"(with "wasi" (instance (export "bytes" (func $bytes)) (export "secure" (func $secure))
            (export "insecure" (func $insecure)) (export "seed" (func $seed))))"#,
        // Ack with a binary result of 40 bytes at 1024.
        handle: r"
            (call $bytes (i64.const 8) (i32.const 64))
            (i64.store (i32.const 1024) (i64.load (i32.load (i32.const 64))))
            (i64.store (i32.const 1032) (call $secure))
            (i64.store (i32.const 1040) (call $insecure))
            (call $seed (i32.const 1048))
            (i32.store8 (i32.const 256) (i32.const 0))
            (i32.store8 (i32.const 260) (i32.const 1))
            (i32.store8 (i32.const 264) (i32.const 1))
            (i32.store (i32.const 268) (i32.const 1024))
            (i32.store (i32.const 272) (i32.const 40))
            (i32.const 256)",
        ..Guest::default()
    };
    let dice = load(dice.build(), Grants::default()).await;
    let roll = async |seed| {
        let Outcome::Ack { result: Some(result) } =
            dice.replay(invocation(), Replay { seed, ..SCENE }).await.report.outcome
        else {
            panic!("an ack")
        };
        result.chunks(8).map(<[u8]>::to_vec).collect::<Vec<_>>()
    };
    let (one, again, other) = (roll(1).await, roll(1).await, roll(2).await);
    assert_eq!((one.len(), &one), (5, &again));
    let mut all = [one, other].concat();
    all.sort();
    all.dedup();
    assert_eq!(all.len(), 10, "no two are alike");
}

#[tokio::test]
async fn who_sleeps_finds_that_so_much_time_has_passed() {
    for guest in WITNESSES {
        let witness = load(bytes(guest), Grants::default()).await;
        for ty in ["test.sleep", "test.wait"] {
            let Replayed { report, refused } = witness.replay(event(ty, "20"), SCENE).await;
            assert_eq!(told(&report), json!({ "wall": 20_000_000, "steady": 20_000_000 }), "{guest} {ty}");
            assert!(report.ledger.wall >= Duration::from_millis(20), "{guest} {ty}");
            assert_eq!(refused, NOTHING);
        }
    }
}

#[tokio::test]
async fn who_sleeps_for_too_long_runs_out_of_time() {
    for guest in WITNESSES {
        let mut invocation = event("test.sleep", "3600000");
        invocation.limits.timeout = Duration::from_millis(20);
        let report = load(bytes(guest), Grants::default()).await.replay(invocation, SCENE).await.report;
        assert!(matches!(report.outcome, Outcome::Timeout { .. }), "{guest}: {:?}", report.outcome);
    }
}

/// A command that polls for `subscriptions`, each a tag and what it means, and traps unless `events` are ready.
fn polling(subscriptions: &[Subscription], events: &[u8]) -> Bytes {
    let mut memory = Vec::new();
    for (number, subscription) in (1_u64..).zip(subscriptions) {
        let mut bytes = [0; 48];
        let (kind, id, time, flags) = match *subscription {
            Subscription::Clock { id, time, flags } => (0, id, time, flags),
            Subscription::Read { file } => (1, file, 0, 0),
        };
        bytes[..8].copy_from_slice(&number.to_le_bytes());
        bytes[8] = kind;
        bytes[16..20].copy_from_slice(&id.to_le_bytes());
        bytes[24..32].copy_from_slice(&time.to_le_bytes());
        bytes[40..42].copy_from_slice(&flags.to_le_bytes());
        memory.extend(bytes);
    }
    let data: String = memory.iter().map(|byte| format!("\\{byte:02x}")).collect();
    let mut checks = String::new();
    for (at, user_data) in events.iter().enumerate() {
        // The user's data, no error, and the kind.
        let kind = u8::from(matches!(subscriptions[usize::from(*user_data) - 1], Subscription::Read { .. }));
        for (offset, expected) in [(0, *user_data), (8, 0), (10, kind), (16, kind)] {
            let address = 4096 + 32 * at + offset;
            checks += &format!(
                "(if (i32.ne (i32.load8_u (i32.const {address})) (i32.const {expected})) (then (unreachable)))"
            );
        }
    }
    let text = format!(
        r#"(module
            (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
            (memory (export "memory") 1)
            (data (i32.const 1024) "{data}")
            (func (export "_start")
                (if (call $poll (i32.const 1024) (i32.const 4096) (i32.const {}) (i32.const 8)) (then (unreachable)))
                (if (i32.ne (i32.load (i32.const 8)) (i32.const {})) (then (unreachable)))
                {checks}))"#,
        subscriptions.len(),
        events.len(),
    );
    wat::parse_str(&text).unwrap_or_else(|error| panic!("{error}")).into()
}

#[derive(Clone, Copy)]
enum Subscription {
    Clock { id: u32, time: u64, flags: u16 },
    Read { file: u32 },
}

#[tokio::test]
async fn a_command_polls_in_a_replay_as_it_does_outside() {
    const REALTIME: u32 = 0;
    const MONOTONIC: u32 = 1;
    const HOUR: u64 = 3_600_000_000_000;
    let short = Subscription::Clock { id: MONOTONIC, time: 1_000_000, flags: 0 };
    let long = Subscription::Clock { id: REALTIME, time: HOUR, flags: 0 };
    let past = Subscription::Clock { id: REALTIME, time: 1, flags: 1 };
    let begun = Subscription::Clock { id: MONOTONIC, time: 1, flags: 1 };
    let input = Subscription::Read { file: 0 };
    for (subscriptions, events) in [
        (&[long, short][..], &[2][..]),
        (&[short, short], &[1, 2]),
        (&[past, long], &[1]),
        (&[long, begun], &[2]),
        (&[long, input], &[2]),
    ] {
        let command = load(polling(subscriptions, events), Grants::default()).await;
        let outside = command.handle(event("test", "-")).await;
        assert_eq!(outside.outcome, Outcome::Ack { result: None }, "{events:?}");
        let replayed = command.replay(event("test", "-"), SCENE).await.report;
        assert_eq!(replayed.outcome, outside.outcome, "{events:?}");
    }
}

#[tokio::test]
async fn a_handler_has_its_whole_time_left() {
    let mut invocation = event("test.context", "-");
    invocation.limits.timeout = Duration::from_secs(5);
    let report = load(bytes(ACTOR), Grants::default()).await.replay(invocation, SCENE).await.report;
    let Outcome::Ack { result: Some(result) } = report.outcome else { panic!("{:?}", report.outcome) };
    assert_eq!(serde_json::from_slice::<Value>(&result).unwrap()["remaining_ms"], 5_000);
}

#[tokio::test]
async fn a_date_in_an_answer_is_as_far_away_as_the_clock_of_the_replay_says() {
    let mut invocation = event("test.status", "-");
    let extensions = &mut Arc::get_mut(&mut invocation.event).unwrap().extensions;
    extensions.insert("status".to_owned(), "503".to_owned());
    // Ten seconds after the second that it is.
    extensions.insert("retryafter".to_owned(), "Tue, 14 Nov 2023 22:13:30 GMT".to_owned());
    let report = load(bytes(RESPONDER), Grants::default()).await.replay(invocation, SCENE).await.report;
    let Outcome::Retry { after, .. } = report.outcome else { panic!("{:?}", report.outcome) };
    assert_eq!(after, Some(Duration::from_secs(10) - Duration::from_micros(123_456)));
}

#[tokio::test]
async fn granted_requests_are_refused_and_counted() {
    let mut server = Server::start(response("200 OK", "", "made")).await;
    let url = server.url("/v1");
    let grants = Grants { http: vec![server.url("/v1").parse().unwrap()], ..Grants::default() };
    let caller = load(bytes(CALLER), grants.clone()).await;
    let mut call = event("test.call", "-");
    Arc::get_mut(&mut call.event).unwrap().data = Some(json!({ "url": url }).to_string().into());
    let Replayed { report, refused } = caller.replay(call, SCENE).await;
    assert_eq!(report.outcome, Outcome::Ack { result: Some(r#"{"error":"HttpRequestDenied"}"#.into()) });
    assert_eq!(refused, Refused { http: 1, sockets: 0 });
    let line = &report.logs[0].message;
    assert!(line.starts_with("GET http://127.0.0.1:") && line.ends_with(" was denied: this is a replay"), "{line}");

    let envoy = load(bytes(ENVOY), grants).await;
    let Replayed { report, refused } = envoy.replay(event("test.call", &url), SCENE).await;
    assert_eq!(told(&report), json!({ "error": "HttpRequestDenied" }));
    assert_eq!(refused, Refused { http: 1, sockets: 0 });
    // Denied in any case.
    let Replayed { report, refused } = envoy.replay(event("test.call", &server.url("/v2")), SCENE).await;
    assert_eq!((told(&report), refused), (json!({ "error": "HttpRequestDenied" }), NOTHING));
    assert!(server.was_left_alone());

    assert_eq!(told(&envoy.handle(event("test.call", &url)).await)["status"], 200, "it is no replay any more");
}

fn logged(report: &Report) -> Vec<&str> {
    report.logs.iter().map(|line| line.message.as_str()).collect()
}

#[tokio::test]
async fn sockets_are_refused_and_counted() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let sockets = ["tcp://127.0.0.1:*", "udp://127.0.0.1:*", "tcp://localhost:*"].map(|grant| grant.parse().unwrap());
    let granted = load(bytes(VISITOR_COMPONENT), Grants { sockets: sockets.into(), ..Grants::default() }).await;
    for (ty, address) in [("test.connect", "127.0.0.1"), ("test.send", "127.0.0.1"), ("test.connect", "localhost")] {
        let Replayed { report, refused } = granted.replay(event(ty, &format!("{address}:{port}")), SCENE).await;
        assert!(logged(&report)[0].starts_with("failed: "), "{ty} {address}: {:?}", report.logs);
        assert!(refused.sockets > 0 && refused.http == 0, "{ty} {address}: {refused:?}");
    }
    let without = load(bytes(VISITOR_COMPONENT), Grants::default()).await;
    let Replayed { refused, .. } = without.replay(event("test.connect", &format!("127.0.0.1:{port}")), SCENE).await;
    assert_eq!(refused, NOTHING, "it may not in any case");
    let accepted = tokio::time::timeout(Duration::from_millis(1), listener.accept()).await;
    assert!(accepted.is_err(), "nobody has called: {accepted:?}");
}

#[tokio::test]
async fn directories_are_read_and_never_written() {
    for guest in [VISITOR_COMPONENT, VISITOR_MODULE] {
        let directory = TempDir::new().unwrap();
        fs::write(directory.path().join("a.txt"), "alpha").unwrap();
        let grant = format!("{}:/out:write", directory.path().display()).parse().unwrap();
        let writer = load(bytes(guest), Grants { files: vec![grant], ..Grants::default() }).await;
        let visit = async |ty, path| {
            let report = writer.replay(event(ty, path), SCENE).await.report;
            logged(&report).join("\n")
        };
        assert_eq!(visit("test.read", "/out/a.txt").await, "alpha", "{guest}");
        for (ty, path) in [
            ("test.write", "/out/a.txt"),
            ("test.write", "/out/b.txt"),
            ("test.remove", "/out/a.txt"),
            ("test.link", "/out/c"),
        ] {
            assert_eq!(visit(ty, path).await, "failed: PermissionDenied", "{guest} {ty} {path}");
        }
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "{guest}");
        assert_eq!(fs::read_to_string(directory.path().join("a.txt")).unwrap(), "alpha", "{guest}");

        let report = writer.handle(event("test.write", "/out/b.txt")).await;
        assert_eq!(logged(&report), ["done"], "{guest}: it is no replay any more");
    }
}

#[tokio::test]
async fn a_replay_has_an_instance_of_its_own() {
    // Rejects with as many `x` as there were events before.
    let counter = Guest {
        items: r#"(global $count (mut i32) (i32.const 0)) (data (i32.const 1024) "xxxxxxxxxxxxxxxx")"#,
        handle: r"
            (i32.store8 (i32.const 256) (i32.const 0))
            (i32.store8 (i32.const 260) (i32.const 1))
            (i32.store8 (i32.const 264) (i32.const 0))
            (i32.store (i32.const 268) (i32.const 1024))
            (i32.store (i32.const 272) (global.get $count))
            (global.set $count (i32.add (global.get $count) (i32.const 1)))
            (i32.const 256)",
        ..Guest::default()
    };
    let instances = Instances::Reuse { events: 100, age: PATIENCE };
    let counter = host(2).load(LoadRequest { instances, ..request(counter.build()) }).await.unwrap();
    let length = |report: Report| match report.outcome {
        Outcome::Ack { result: Some(result) } => result.len(),
        other => panic!("{other:?}"),
    };
    assert_eq!(length(counter.handle(invocation()).await), 0);
    assert_eq!(length(counter.handle(invocation()).await), 1);
    for _ in 0..2 {
        assert_eq!(length(counter.replay(invocation(), SCENE).await.report), 0);
    }
    assert_eq!(length(counter.handle(invocation()).await), 2, "and is not kept");
}
