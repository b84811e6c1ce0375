//! Rules of whole queues: paused, resumed, deleted, made again. `pauses` has those of several who pause.

use gristmill_core::{Disposition, State};

use super::Rig;
use super::bench::{Bench, HOUR, MINUTE, ack, event, ids, queue_name, retry, three_attempts};
use super::ordering::with_keys;
use crate::contract::{
    ActReply, Action, Claim, Due, ExtendReply, Operation, PauseIf, Publish, PublishError, QueueError, QueueOptions,
    ResumeIf, Settle, SettleReply, Waited,
};

/// As a person does it.
pub(super) fn pause<R: Rig>(bench: &Bench<R>, reason: &str) -> Operation {
    Operation::Pause { queue: bench.name.clone(), reason: reason.to_owned(), only_if: PauseIf::Any }
}

/// As a person does it.
pub(super) fn resume<R: Rig>(bench: &Bench<R>) -> Operation {
    Operation::Resume { queue: bench.name.clone(), only_if: ResumeIf::Any }
}

fn delete<R: Rig>(bench: &Bench<R>) -> Operation {
    Operation::Delete { queue: bench.name.clone() }
}

/// Nothing is claimed from a paused queue, and everything else goes on; it says why, also after a reopen.
pub async fn a_paused_queue_hands_out_nothing(rig: impl Rig) {
    let bench = Bench::with(rig, three_attempts()).await;
    bench.publish(&["1", "2"]).await;
    let claimed = bench.claim(1).await;
    bench.operate(pause(&bench, "a bad version")).await;
    assert!(bench.claim(9).await.is_empty());
    bench.publish(&["3"]).await;
    assert_eq!(bench.settle(&claimed[0], ack()).await, Disposition::Complete);
    assert_eq!(bench.stats().await.paused.as_deref(), Some("a bad version"));
    bench.operate(pause(&bench, "still bad")).await;
    let bench = bench.reopened().await;
    assert_eq!(bench.stats().await.paused.as_deref(), Some("still bad"));
    bench.configure(three_attempts()).await;
    assert!(bench.claim(9).await.is_empty(), "other options do not resume it");
    bench.operate(resume(&bench)).await;
    let stats = bench.stats().await;
    assert_eq!((stats.paused, stats.ready), (None, 2));
    assert_eq!(ids(&bench.claim(9).await), ["2", "3"]);
}

/// A claim may wait for a paused queue; what comes in does not wake it, and the end of the pause does.
pub async fn a_waiting_claim_is_woken_by_a_resume(rig: impl Rig) {
    let bench = Bench::new(rig).await;
    bench.operate(pause(&bench, "")).await;
    let resumes = async {
        bench.publish(&["1"]).await;
        bench.rig.tick().await;
        assert_eq!(bench.stats().await.ready, 1);
        bench.operate(resume(&bench)).await;
    };
    assert_eq!(ids(&bench.claim_during(Claim::new(bench.name.clone(), 9), resumes).await), ["1"]);
}

/// While a queue is paused, time goes on: what is due is ready, and what has expired comes back.
pub async fn time_passes_in_a_paused_queue(rig: impl Rig) {
    let bench = Bench::with(rig, three_attempts()).await;
    let late = bench.publish_with(Publish { due: Due::After(MINUTE), ..bench.one("late") }).await;
    let leased = bench.publish(&["leased"]).await.remove(0);
    bench.claim_one().await;
    bench.operate(pause(&bench, "")).await;
    bench.advance(MINUTE).await;
    assert_eq!(bench.state(&late).await, Some(State::Ready));
    assert_eq!(bench.state(&leased).await, Some(State::Scheduled));
}

/// A deleted queue takes everything with it: entries in every state, leases, ids, and its name.
pub async fn a_deleted_queue_is_gone(rig: impl Rig) {
    let Some(bench) = with_keys(rig, three_attempts()).await else { return };
    let audit = bench.add_queue("audit").await;
    let mut entries = vec![bench.kill("dead", "bad").await];
    entries.extend(bench.publish(&["done", "retried", "leased"]).await);
    let claimed = bench.claim(9).await;
    bench.settle(&claimed[0], ack()).await;
    bench.settle(&claimed[1], retry()).await;
    entries.extend(bench.publish_keyed(&["a1", "a2"]).await);
    entries.push(bench.publish_with(Publish { due: Due::After(HOUR), ..bench.one("late") }).await);
    entries.push(bench.publish(&["cancelled"]).await.remove(0));
    assert_eq!(bench.act_on(Action::Cancel, entries.last().unwrap()).await, ActReply::Done);
    bench.publish_with(Publish::new(event("both"), [bench.name.clone(), audit.clone()])).await;
    bench.operate(delete(&bench)).await;
    assert_eq!(bench.stats_of(&bench.name).await, None);
    for entry in &entries {
        assert_eq!(bench.state(entry).await, None);
        assert_eq!(bench.act_on(Action::Purge, entry).await, ActReply::Unknown);
        assert_eq!(bench.rig.queue().wait(entry.clone(), HOUR).await, Ok(Waited::Unknown));
    }
    assert_eq!(bench.settle_with(Settle::new(claimed[2].lease, ack())).await, SettleReply::StaleLease);
    assert_eq!(bench.extend(claimed[2].lease, HOUR).await, ExtendReply::StaleLease);
    let unknown = QueueError::UnknownQueue(bench.name.clone());
    assert_eq!(bench.rig.queue().claim(Claim::new(bench.name.clone(), 1)).await, Err(unknown.clone()));
    assert_eq!(bench.rig.queue().operate(delete(&bench)).await, Err(unknown));
    assert_eq!(bench.try_publish(bench.one("2")).await, Err(PublishError::UnknownQueue(bench.name.clone())));
    let bench = bench.reopened().await;
    assert_eq!(bench.stats_of(&bench.name).await, None);
    bench.advance(2 * HOUR).await;
    assert_eq!(ids(&bench.claim_from(&audit, 9).await), ["both"], "in the other queue it is as it was");
}

/// A queue of the same name is another queue: it is empty, and nobody's old id or token fits.
pub async fn a_queue_made_again_starts_anew(rig: impl Rig) {
    let bench = Bench::new(rig).await;
    let old = bench.publish(&["1", "2"]).await;
    let delivery = bench.claim_one().await;
    bench.operate(pause(&bench, "")).await;
    bench.operate(delete(&bench)).await;
    bench.configure(QueueOptions::default()).await;
    let stats = bench.stats().await;
    assert_eq!((stats.ready, stats.leased, stats.paused, stats.totals.published), (0, 0, None, 0));
    assert!(bench.claim(9).await.is_empty());
    let new = bench.publish(&["1", "2"]).await;
    assert!(new.iter().all(|entry| !old.contains(entry)));
    assert_eq!(bench.settle_with(Settle::new(delivery.lease, ack())).await, SettleReply::StaleLease);
    assert_eq!(bench.state(&old[0]).await, None);
    let bench = bench.reopened().await;
    assert_eq!(ids(&bench.claim(9).await), ["1", "2"]);
}

/// Nobody waits for a queue that is gone; the next claim is told.
pub async fn a_claim_that_waits_for_a_deleted_queue_ends(rig: impl Rig) {
    let bench = Bench::new(rig).await;
    let deletes = async {
        bench.operate(delete(&bench)).await;
    };
    assert_eq!(bench.claim_during(Claim::new(bench.name.clone(), 9), deletes).await, []);
}

/// Whoever waits for an entry hears that its queue is gone.
pub async fn a_wait_ends_when_its_queue_is_deleted(rig: impl Rig) {
    let bench = Bench::new(rig).await;
    let entry = bench.publish(&["1"]).await.remove(0);
    bench.claim_one().await;
    let deletes = async {
        bench.rig.tick().await;
        bench.operate(delete(&bench)).await;
        bench.rig.tick().await;
    };
    let (waited, ()) = tokio::join!(bench.rig.queue().wait(entry, HOUR), deletes);
    assert_eq!(waited, Ok(Waited::Unknown));
}

/// However much is in a queue, all of it goes; also with a crash in the middle.
pub async fn a_large_queue_is_deleted_as_a_whole(rig: impl Rig) {
    let bench = Bench::new(rig).await;
    let many = (0..3_000).map(|n| bench.one(&n.to_string())).collect();
    bench.publish_all(many).await;
    bench.claim(1_500).await;
    {
        // Nobody waits for it to end.
        let queue = bench.rig.queue();
        let deletion = queue.operate(delete(&bench));
        tokio::select! {
            biased;
            _ = deletion => {}
            () = bench.rig.tick() => {}
        }
    }
    let bench = bench.reopened().await;
    assert_eq!(bench.stats_of(&bench.name).await, None);
    bench.rig.tick().await;
    bench.configure(QueueOptions::default()).await;
    let stats = bench.stats().await;
    assert_eq!((stats.ready, stats.leased, stats.bytes), (0, 0, 0));
    assert!(bench.claim(9).await.is_empty());
}

/// Queues do not know each other: one's pause, limits and backlog are not the others'.
pub async fn queues_do_not_get_in_each_others_way(rig: impl Rig) {
    let bench = Bench::with(rig, QueueOptions { max_in_flight: 1, max_events: Some(2), ..three_attempts() }).await;
    let audit = bench.add_queue("audit").await;
    bench.publish(&["1", "2"]).await;
    let audited = |id: &str| Publish::new(event(id), [audit.clone()]);
    bench.publish_all(["1", "2", "3"].map(audited).to_vec()).await;
    bench.claim_one().await;
    assert!(bench.claim(9).await.is_empty());
    bench.operate(pause(&bench, "")).await;
    assert_eq!(ids(&bench.claim_from(&audit, 9).await), ["1", "2", "3"]);
    let names: Vec<_> = bench.rig.queue().stats().await.unwrap().into_iter().map(|stats| stats.queue).collect();
    assert_eq!(names, [audit, queue_name("orders")], "in the order of their names");
}
