//! Batch handlers: several deliveries through one instance.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use gristmill_core::event::{HOPS_EXTENSION, MAX_HOPS};
use gristmill_core::{Event, Outcome, OutcomeKind, Pattern, Timestamp};
use gristmill_host::{
    BatchDelivery, BatchInvocation, BatchOutcome, BatchReport, Component, Configuration, Interface, Invocation, Limits,
};
use gristmill_test_guests::{ACKER, BATCHER, bytes};
use support::{host, invocation, request};

async fn batcher() -> Component {
    let mut request = request(bytes(BATCHER));
    request.grants.emit = vec![Pattern::new("*")];
    request.grants.state = vec!["counts".parse().unwrap()];
    host(4).load(request).await.unwrap()
}

/// One delivery for each type; their ids are `e1` and so on.
fn batch(types: &[&str]) -> BatchInvocation {
    batch_of(types.iter().zip(1..).map(|(ty, n)| delivery(&format!("e{n}"), ty)).collect())
}

fn batch_of(deliveries: Vec<BatchDelivery>) -> BatchInvocation {
    BatchInvocation {
        queue: "guest".to_owned(),
        deliveries,
        state: None,
        configuration: Configuration::default(),
        limits: Limits::default(),
    }
}

fn delivery(id: &str, ty: &str) -> BatchDelivery {
    BatchDelivery {
        delivery_id: id.to_owned(),
        attempt: 1,
        max_attempts: Some(5),
        enqueued_at: Timestamp::EPOCH,
        event: Arc::new(Event::new(id, "/test", ty)),
    }
}

fn kinds(report: &BatchReport) -> Vec<OutcomeKind> {
    match &report.outcome {
        BatchOutcome::Each(outcomes) => outcomes.iter().map(Outcome::kind).collect(),
        BatchOutcome::Whole(outcome) => panic!("{outcome:?}"),
    }
}

fn whole(report: &BatchReport) -> &Outcome {
    match &report.outcome {
        BatchOutcome::Each(outcomes) => panic!("{outcomes:?}"),
        BatchOutcome::Whole(outcome) => outcome,
    }
}

fn emitted_ids(report: &BatchReport) -> Vec<&str> {
    report.emits.iter().map(|emit| emit.event.id.as_str()).collect()
}

#[tokio::test]
async fn deliveries_come_together_and_in_order() {
    let component = batcher().await;
    assert_eq!(component.interface(), Interface::BatchHandler);
    let report = component.handle_batch(batch(&["batch.ack"; 3])).await;
    let place = |at| Outcome::Ack { result: Some(format!(r#"{{"of":3,"at":{at}}}"#).into()) };
    assert_eq!(report.outcome, BatchOutcome::Each([0, 1, 2].map(place).into()));
    assert!(report.ledger.peak_memory > 0 && !report.discarded);
}

#[tokio::test]
async fn effects_count_when_every_verdict_is_an_ack() {
    let component = batcher().await;
    let acked = component.handle_batch(batch(&["batch.emit", "batch.count", "batch.emit", "batch.ack"])).await;
    assert_eq!(kinds(&acked), [OutcomeKind::Ack; 4]);
    assert_eq!((acked.emits.len(), acked.state.writes.len(), acked.discarded), (2, 1, false));

    for other in ["batch.retry", "batch.reject", "batch.defer", "batch.retry-emit"] {
        for effect in ["batch.emit", "batch.count"] {
            let mixed = component.handle_batch(batch(&["batch.ack", other, effect])).await;
            assert_eq!(kinds(&mixed)[0], OutcomeKind::Ack);
            assert_ne!(kinds(&mixed)[1], OutcomeKind::Ack);
            assert!(mixed.emits.is_empty() && mixed.state.writes.is_empty(), "{other} {effect}");
            assert!(mixed.discarded, "{other} {effect}");
        }
    }
}

#[tokio::test]
async fn without_effects_a_mixed_answer_stands() {
    let component = batcher().await;
    let mixed = component.handle_batch(batch(&["batch.read", "batch.retry"])).await;
    assert_eq!(kinds(&mixed), [OutcomeKind::Ack, OutcomeKind::Retry]);
    assert!(!mixed.discarded);
    assert_eq!(mixed.state.reads.len(), 1, "the ack relies on it");
}

#[tokio::test]
async fn effects_of_a_batch_without_an_ack_are_nothing() {
    let report = batcher().await.handle_batch(batch(&["batch.retry-emit", "batch.reject"])).await;
    assert_eq!(kinds(&report), [OutcomeKind::Retry, OutcomeKind::Reject]);
    assert!(report.emits.is_empty() && !report.discarded, "nobody has to run again");
}

#[tokio::test]
async fn an_answer_of_another_length_is_none() {
    let component = batcher().await;
    for (ty, verdicts) in [("batch.short", 2), ("batch.long", 4), ("batch.empty", 0)] {
        let report = component.handle_batch(batch(&["batch.emit", ty, "batch.ack"])).await;
        let words = format!("the handler got a batch of 3, and returned {verdicts} verdicts");
        assert_eq!(*whole(&report), Outcome::InvalidOutput { reason: words }, "{ty}");
        assert!(report.emits.is_empty() && !report.discarded);
    }
}

#[tokio::test]
async fn what_ends_the_handler_ends_the_batch() {
    let component = batcher().await;
    for (ty, kind) in [
        ("batch.trap", OutcomeKind::Trap),
        ("batch.sleep", OutcomeKind::Timeout),
        ("batch.alloc", OutcomeKind::OutOfMemory),
    ] {
        let mut batch = batch(&["batch.emit", ty, "batch.ack"]);
        batch.limits.timeout = Duration::from_millis(200);
        batch.limits.memory = 4 << 20;
        let report = component.handle_batch(batch).await;
        assert_eq!(whole(&report).kind(), kind, "{ty}");
        assert!(report.emits.is_empty());
    }
}

#[tokio::test]
async fn a_batch_is_one_call_that_can_be_ended() {
    let host = host(4);
    let mut request = request(bytes(BATCHER));
    (request.grants.emit, request.grants.state) = (vec![Pattern::new("*")], vec!["counts".parse().unwrap()]);
    let component = host.load(request).await.unwrap();
    let mut batch = batch(&["batch.emit", "batch.sleep", "batch.ack"]);
    batch.limits.timeout = Duration::from_mins(1);
    let run = tokio::spawn(async move { component.handle_batch(batch).await });
    let running = loop {
        match host.running().pop() {
            Some(running) if running.memory > 0 => break running,
            _ => tokio::task::yield_now().await,
        }
    };
    assert!(host.kill(running.number));
    let report = run.await.unwrap();
    assert_eq!(whole(&report).kind(), OutcomeKind::Killed);
    assert!(report.emits.is_empty() && !report.discarded && host.running().is_empty());
}

#[tokio::test]
async fn the_ledger_is_that_of_the_whole_batch() {
    let all = batch(&["batch.ack", "batch.emit", "batch.ack"]);
    let bytes_in: u64 = all.deliveries.iter().map(|delivery| delivery.event.size()).sum();
    let report = batcher().await.handle_batch(all).await;
    let BatchOutcome::Each(outcomes) = &report.outcome else { panic!("{:?}", report.outcome) };
    let results = outcomes.iter().map(|outcome| match outcome {
        Outcome::Ack { result: Some(result) } => result.len() as u64,
        other => panic!("{other:?}"),
    });
    let emitted: u64 = report.emits.iter().map(|emit| emit.event.size()).sum();
    assert!(emitted > 0);
    assert_eq!((report.ledger.bytes_in, report.ledger.bytes_out), (bytes_in, results.sum::<u64>() + emitted));
}

#[tokio::test]
async fn hops_count_from_the_event_that_came_furthest() {
    let component = batcher().await;
    let after = |hops: u32| {
        let mut event = Event::new("1", "/test", "batch.emit");
        event.extensions.insert(HOPS_EXTENSION.to_owned(), hops.to_string());
        BatchDelivery { event: Arc::new(event), ..delivery(&format!("e{hops}"), "") }
    };
    let report = component.handle_batch(batch_of(vec![after(0), after(5), after(2)])).await;
    assert!(report.emits.iter().all(|emit| emit.event.hops() == 6), "{:?}", report.emits);
    let looping = component.handle_batch(batch_of(vec![after(0), after(MAX_HOPS)])).await;
    assert_eq!(whole(&looping).kind(), OutcomeKind::Loop);
}

#[tokio::test]
async fn ids_of_emitted_events_are_those_of_the_same_batch() {
    let component = batcher().await;
    let of = |ids: &[&str]| batch_of(ids.iter().map(|id| delivery(id, "batch.emit")).collect());
    let single = component.handle_batch(of(&["e7"])).await;
    assert_eq!(emitted_ids(&single), ["e7-1"], "as if it were handled by itself");
    let first = component.handle_batch(of(&["e7", "e8"])).await;
    let again = component.handle_batch(of(&["e7", "e8"])).await;
    assert_eq!(emitted_ids(&first), emitted_ids(&again));
    assert!(emitted_ids(&first)[1].starts_with("e7-") && emitted_ids(&first)[1].ends_with("-2"));
    let mut all = BTreeSet::new();
    for ids in [&["e7"][..], &["e7", "e8"], &["e8", "e7"], &["e7", "e9"], &["e7", "e8", "e9"], &["e7", "e8e9"]] {
        let report = component.handle_batch(of(ids)).await;
        assert!(emitted_ids(&report).iter().all(|id| all.insert((*id).to_owned())), "{ids:?}: {all:?}");
    }
}

#[tokio::test]
async fn one_event_is_a_batch_of_one() {
    let component = batcher().await;
    let alone = |ty: &str| Invocation { event: Arc::new(Event::new("1", "/test", ty)), ..invocation() };
    let acked = component.handle(alone("batch.emit")).await;
    assert_eq!(acked.outcome, Outcome::Ack { result: Some(r#"{"of":1,"at":0}"#.into()) });
    assert_eq!(acked.emits[0].event.id, "e7-1");
    for (ty, verdicts) in [("batch.empty", 0), ("batch.long", 2)] {
        let reason = format!("the handler got a batch of 1, and returned {verdicts} verdicts");
        assert_eq!(component.handle(alone(ty)).await.outcome, Outcome::InvalidOutput { reason });
    }
}

#[tokio::test]
async fn what_cannot_be_a_batch_is_a_host_error() {
    let empty = batcher().await.handle_batch(batch(&[])).await;
    assert_eq!(whole(&empty).kind(), OutcomeKind::HostError);
    let acker = host(1).load(request(bytes(ACKER))).await.unwrap();
    assert_eq!(whole(&acker.handle_batch(batch(&["a"])).await).kind(), OutcomeKind::HostError);
}
