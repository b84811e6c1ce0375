//! What guests see of state, and what is left of their writes: both drafts of `wasi:keyvalue`, through a real component.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use gristmill_core::state::{Change, StateRead, StateReader, StateUnavailable, StateUse, StateWrite};
use gristmill_core::{Event, Outcome};
use gristmill_host::{Component, Grants, Invocation, LoadRequest, Report};
use gristmill_test_guests::{KEEPER, bytes};
use serde_json::{Value, json};
use support::{invocation, request};

const DRAFTS: [u8; 2] = [1, 2];

/// A snapshot of `orders` (to read and write) and `prices` (to read); `closed` cannot be read.
#[derive(Debug)]
struct Stored(BTreeMap<(String, String), Bytes>);

impl StateReader for Stored {
    fn get(&self, bucket: &str, key: &str) -> Result<Option<Bytes>, StateUnavailable> {
        if bucket == "closed" {
            return Err(StateUnavailable("it is closed".to_owned()));
        }
        Ok(self.0.get(&(bucket.to_owned(), key.to_owned())).cloned())
    }

    fn keys(&self, bucket: &str, after: Option<&str>, limit: usize) -> Result<Vec<String>, StateUnavailable> {
        let all = self.0.keys().filter(|(b, key)| b == bucket && after.is_none_or(|after| key.as_str() > after));
        Ok(all.map(|(_, key)| key.clone()).take(limit).collect())
    }
}

async fn keeper() -> Component {
    let state = ["orders", "prices:read", "closed"].map(|grant| grant.parse().unwrap()).to_vec();
    let grants = Grants { state, ..Grants::default() };
    support::host(2).load(LoadRequest { grants, ..request(bytes(KEEPER)) }).await.unwrap()
}

fn script(draft: u8, then: &str, script: &Value, stored: &[(&str, &str, &str)]) -> Invocation {
    let mut event = Event::new("1", "/test", "test.state");
    event.data = Some(json!({ "draft": draft, "do": script, "then": then }).to_string().into());
    let stored = stored
        .iter()
        .map(|(bucket, key, value)| (((*bucket).to_owned(), (*key).to_owned()), Bytes::from((*value).to_owned())));
    Invocation { event: Arc::new(event), state: Some(Arc::new(Stored(stored.collect()))), ..invocation() }
}

/// What each operation answered, and what was read and written.
async fn acked(draft: u8, operations: Value, stored: &[(&str, &str, &str)]) -> (Value, StateUse) {
    let report = keeper().await.handle(script(draft, "ack", &operations, stored)).await;
    answers(report)
}

fn answers(report: Report) -> (Value, StateUse) {
    let Outcome::Ack { result: Some(result) } = report.outcome else { panic!("{:?}", report.outcome) };
    (serde_json::from_slice(&result).unwrap(), report.state)
}

fn set(key: &str, value: &str) -> StateWrite {
    StateWrite { bucket: "orders".into(), key: key.into(), change: Change::Set(Bytes::from(value.to_owned())) }
}

fn delete(key: &str) -> StateWrite {
    StateWrite { change: Change::Delete, ..set(key, "") }
}

fn key(key: &str) -> StateRead {
    StateRead::Key { bucket: "orders".into(), key: key.into() }
}

fn all(bucket: &str) -> StateRead {
    StateRead::Prefix { bucket: bucket.into(), prefix: String::new() }
}

fn refused(reason: &str) -> Value {
    json!({ "error": reason })
}

#[tokio::test]
async fn an_invocation_reads_its_own_writes_over_the_snapshot() {
    for draft in DRAFTS {
        let operations = json!([
            ["get", "orders", "a"],
            ["set", "orders", "a", "2"],
            ["get", "orders", "a"],
            ["delete", "orders", "b"],
            ["exists", "orders", "b"],
            ["exists", "orders", "c"],
            ["set", "orders", "d", ""],
            ["get", "orders", "d"],
        ]);
        let (told, used) = acked(draft, operations, &[("orders", "a", "1"), ("orders", "b", "1")]).await;
        assert_eq!(told, json!(["1", true, "2", true, false, false, true, ""]), "draft {draft}");
        assert_eq!(used.reads, [key("a"), key("c")], "what it wrote before it looked is not read");
        assert_eq!(used.writes, [set("a", "2"), delete("b"), set("d", "")]);
    }
}

#[tokio::test]
async fn an_increment_is_a_read_and_a_write() {
    for draft in DRAFTS {
        let operations =
            json!([["increment", "orders", "n", 2], ["increment", "orders", "n", 3], ["get", "orders", "n"]]);
        let (told, used) = acked(draft, operations, &[("orders", "n", "40")]).await;
        assert_eq!(told, json!([42, 45, "45"]), "draft {draft}");
        assert_eq!(used, StateUse { reads: vec![key("n")], writes: vec![set("n", "45")] });
        let (told, _) = acked(draft, json!([["increment", "orders", "new", 7]]), &[]).await;
        assert_eq!(told, json!([7]));
    }
}

#[tokio::test]
async fn what_cannot_be_added_is_refused_and_nothing_is_written() {
    let max = i64::MAX.to_string();
    let stored = [("orders", "word", "seven"), ("orders", "max", max.as_str()), ("orders", "below", "-5")];
    let operations = json!([
        ["increment", "orders", "word", 1],
        ["increment", "orders", "max", 1],
        ["increment", "orders", "below", 1]
    ]);
    let (told, used) = acked(2, operations.clone(), &stored).await;
    let (word, large) = (refused("the value is no decimal number"), refused("the sum does not fit into 64 bits"));
    assert_eq!(told, json!([word, large, -4]));
    assert_eq!(used.writes, [set("below", "-4")]);
    let (told, used) = acked(1, operations, &stored).await;
    assert_eq!(told, json!([word, i64::MAX as u64 + 1, large]), "the first draft counts from 0 to 2^64");
    assert_eq!(used.writes, [set("max", "9223372036854775808")]);
}

#[tokio::test]
async fn what_is_read_and_written_is_in_the_ledger() {
    let operations = json!([["get", "orders", "a"], ["get", "orders", "none"], ["set", "orders", "key", "value"]]);
    let invocation = script(2, "ack", &operations, &[("orders", "a", "12345")]);
    let given = invocation.event.size();
    let report = keeper().await.handle(invocation).await;
    let ledger = report.ledger.clone();
    let Outcome::Ack { result: Some(result) } = report.outcome else { panic!("{:?}", report.outcome) };
    assert_eq!((ledger.bytes_in, ledger.bytes_out), (given + 5, result.len() as u64 + 8));
}

#[tokio::test]
async fn a_swap_fails_where_the_value_is_another_by_then() {
    let operations = json!([
        ["cas", "orders", "a", "2"],
        ["get", "orders", "a"],
        ["cas-late", "orders", "a", "3"],
        ["get", "orders", "a"],
        ["cas", "orders", "new", "1"],
        ["cas", "prices", "a", "1"],
    ]);
    let (told, used) = acked(2, operations, &[("orders", "a", "1")]).await;
    let late = json!(["late", true]);
    assert_eq!(told, json!([true, "2", late, "3", true, refused("access-denied")]));
    let prices = StateRead::Key { bucket: "prices".into(), key: "a".into() };
    assert_eq!(used.reads, [key("a"), key("new"), prices]);
    assert_eq!(used.writes, [set("a", "3"), set("new", "1")]);
}

#[tokio::test]
async fn batches_answer_in_order_and_write_all_or_nothing() {
    for draft in DRAFTS {
        let operations = json!([
            ["set-many", "orders", "b", "2", "c", "3", "b", "4"],
            ["get-many", "orders", "b", "none", "a", "b"],
            ["delete-many", "orders", "a", "none"],
            ["get-many", "orders", "a"],
            ["set-many", "orders", "e", "1", "", "2"],
            ["exists", "orders", "e"],
        ]);
        let (told, used) = acked(draft, operations, &[("orders", "a", "1")]).await;
        let found = json!([["b", "4"], null, ["a", "1"], ["b", "4"]]);
        let no_key = refused("a key has 0 bytes; 1 to 1024 are allowed");
        assert_eq!(told, json!([true, found, true, [null], no_key, false]), "draft {draft}");
        assert_eq!(used.reads, [key("a"), key("e"), key("none")]);
        assert_eq!(used.writes, [delete("a"), set("b", "4"), set("c", "3"), delete("none")]);
    }
}

#[tokio::test]
async fn lists_are_merged_with_own_writes_page_by_page() {
    // Three full pages and a bit; the even ones are stored, the odd ones written; and one whole page is deleted.
    let names: Vec<_> = (0..3_100).map(|n| format!("k{n:06}")).collect();
    let stored: Vec<_> = names.iter().map(|name| ("orders", name.as_str(), "")).collect();
    for draft in DRAFTS {
        let mut large = script(
            draft,
            "ack",
            &json!([
                ["fill", "orders", "a", 500],
                ["fill", "orders", "k00100", 0],
                ["delete", "orders", "k000007"],
                ["set", "orders", "z", ""],
                ["pages", "orders"],
                ["list", "orders"]
            ]),
            &stored,
        );
        large.limits.memory = 64 << 20;
        let (told, used) = answers(keeper().await.handle(large).await);
        assert_eq!(told[4], json!([1_000, 1_000, 1_000, 600]), "draft {draft}");
        let listed: Vec<_> = told[5].as_array().unwrap().iter().map(|key| key.as_str().unwrap().to_owned()).collect();
        let own = (0..500).map(|n| format!("a{n:06}"));
        let rest = names.iter().filter(|name| *name != "k000007").cloned();
        let expected: Vec<_> = own.chain(rest).chain(["z".to_owned()]).collect();
        assert!(listed == expected, "draft {draft}: each key once, in order");
        assert_eq!(used.reads, [all("orders")]);
    }
}

#[tokio::test]
async fn a_page_of_which_all_is_deleted_is_not_the_end() {
    let names: Vec<_> = (0..1_005).map(|n| format!("k{n:06}")).collect();
    let stored: Vec<_> = names.iter().map(|name| ("orders", name.as_str(), "")).collect();
    let mut delete = vec![json!("delete-many"), json!("orders")];
    delete.extend(names.iter().take(1_000).map(|name| json!(name)));
    for draft in DRAFTS {
        let (told, _) = acked(draft, json!([delete, ["list", "orders"]]), &stored).await;
        assert_eq!(told[1], json!(names[1_000..]), "draft {draft}");
    }
}

#[tokio::test]
async fn cursors_that_nobody_gave_out() {
    let (told, _) = acked(1, json!([["cursor", "orders"]]), &[("orders", "a", "")]).await;
    assert_eq!(told, json!([refused("the cursor is none that this invocation was given")]));
    let (told, _) = acked(2, json!([["cursor", "orders"]]), &[("orders", "a", ""), ("orders", "zzzz", "")]).await;
    assert_eq!(told, json!([["zzzz"]]), "in the second draft it is a place in the order of keys");
}

#[tokio::test]
async fn buckets_are_what_was_granted() {
    for draft in DRAFTS {
        let denied = refused("access-denied");
        let operations = json!([
            ["get", "prices", "a"],
            ["list", "prices"],
            ["set", "prices", "a", "2"],
            ["delete", "prices", "a"],
            ["increment", "prices", "a", 1],
            ["set-many", "prices", "a", "2"],
            ["delete-many", "prices", "a"],
            ["get", "secrets", "a"],
            ["get", "", "a"],
            ["get", "no such/name", "a"],
        ]);
        let (told, used) = acked(draft, operations, &[("prices", "a", "1"), ("secrets", "a", "1")]).await;
        let none = refused("no-such-store");
        assert_eq!(
            told,
            json!(["1", ["a"], denied, denied, denied, denied, denied, denied, none, none]),
            "draft {draft}"
        );
        assert_eq!(used, StateUse { reads: vec![all("prices")], writes: vec![] });
    }
}

#[tokio::test]
async fn without_an_ack_nothing_was_written() {
    let component = keeper().await;
    for draft in DRAFTS {
        for then in ["retry", "reject", "trap"] {
            let operations = json!([["set", "orders", "a", "1"], ["increment", "orders", "n", 1], ["list", "orders"]]);
            let report = component.handle(script(draft, then, &operations, &[])).await;
            assert_eq!(report.outcome.kind().as_str(), then);
            assert!(report.state.is_empty(), "{then}: {:?}", report.state);
        }
    }
}

#[tokio::test]
async fn writes_are_limited_in_number_and_in_bytes() {
    let run = async |draft, operations: Value| {
        let mut limited = script(draft, "ack", &operations, &[]);
        (limited.limits.max_state_writes, limited.limits.max_state_bytes) = (2, 10);
        answers(keeper().await.handle(limited).await)
    };
    for draft in DRAFTS {
        let operations = json!([
            ["set", "orders", "a", "1"],
            ["set", "orders", "b", "1"],
            ["set", "orders", "c", "1"],
            ["set", "orders", "a", "2"],
            ["delete", "orders", "c"],
            ["large", "orders", "b", 8],
            ["large", "orders", "b", 7],
            ["set-many", "orders", "a", "3", "c", "3"],
        ]);
        let (told, used) = run(draft, operations).await;
        let keys = refused("one invocation may write at most 2 keys");
        let bytes = refused("one invocation may write at most 10B of keys and values");
        assert_eq!(told, json!([true, true, keys, true, keys, bytes, true, keys]), "draft {draft}");
        assert_eq!(used.writes, [set("a", "2"), set("b", "xxxxxxx")]);
    }
}

#[tokio::test]
async fn values_that_a_guest_could_not_hold_are_not_read() {
    let large = "x".repeat(1 << 20);
    let stored = [("orders", "a", large.as_str())];
    let mut little =
        script(2, "ack", &json!([["exists", "orders", "a"], ["get-many", "orders", "a", "a", "a"]]), &stored);
    little.limits.memory = 2 << 20;
    let (told, _) = answers(keeper().await.handle(little).await);
    assert_eq!(told, json!([true, refused("the values are larger than the handler's memory of 2MiB")]));
}

#[tokio::test]
async fn a_store_that_fails_says_so_and_counts_as_read() {
    let (told, used) = acked(2, json!([["get", "closed", "a"]]), &[]).await;
    assert_eq!(told, json!([refused("the state cannot be read: it is closed")]));
    assert_eq!(used.reads, [StateRead::Key { bucket: "closed".into(), key: "a".into() }]);
}

#[tokio::test]
async fn whoever_reads_very_many_keys_has_read_the_bucket() {
    let keys = (0..10_001).map(|n| json!(format!("k{n}")));
    let many: Vec<_> = [json!("get-many"), json!("orders")].into_iter().chain(keys).collect();
    let (_, used) = acked(2, json!([many]), &[]).await;
    assert_eq!(used.reads, [all("orders")]);
}

#[tokio::test]
async fn get_many_of_the_second_draft_has_two_types() {
    // The older one is the one of the first draft. Acks if it is there; the type is all that this guest has of it.
    for (items, loads) in [
        ("(option (tuple string (list u8)))", true),
        ("(tuple string (option (list u8)))", true),
        ("(tuple string (list u8))", false),
    ] {
        let imports = format!(
            r#"(import "wasi:keyvalue/store@0.2.0-draft2" (instance $store
                   (type $error' (variant (case "no-such-store") (case "access-denied") (case "other" string)))
                   (export "error" (type $error (eq $error')))
                   (export "bucket" (type $bucket (sub resource)))))
               (alias export $store "error" (type $error))
               (alias export $store "bucket" (type $bucket))
               (import "wasi:keyvalue/batch@0.2.0-draft2" (instance $batch
                   (export "error" (type $e (eq $error)))
                   (export "bucket" (type $b (eq $bucket)))
                   (type $found (list {items}))
                   (export "get-many" (func (param "bucket" (borrow $b)) (param "keys" (list string))
                       (result (result $found (error $e)))))))"#
        );
        let bytes =
            support::Guest { imports: &imports, handle: "(i32.const 1024)", ..support::Guest::default() }.build();
        let grants = Grants { state: vec!["orders".parse().unwrap()], ..Grants::default() };
        let loaded = support::host(1).load(LoadRequest { grants, ..request(bytes) }).await;
        assert_eq!(loaded.is_ok(), loads, "{items}: {loaded:?}");
    }
}
