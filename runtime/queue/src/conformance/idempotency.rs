//! Rules of publishing the same event more than once.

use std::time::Duration;

use gristmill_core::{Disposition, Event, State, Timestamp};

use super::bench::{Bench, HOUR, MINUTE, SECOND, ack, event, ids, reject};
use super::{Rig, RigOptions};
use crate::contract::{
    Accepted, ActReply, Action, EntryRef, Feature, MAX_KEY_LEN, OnDuplicate, Publish, PublishError, PublishStatus,
    QueueOptions, Settle, SettleReply,
};

/// A bench whose engine remembers publishes; `None`: it does not, and says so.
async fn remembering<R: Rig>(rig: R) -> Option<Bench<R>> {
    let bench = Bench::new(rig).await;
    if !bench.has(Feature::Idempotency) {
        bench.is_refused(Feature::Idempotency, bench.rig.queue().find("/test".into(), "1".into()).await);
        return None;
    }
    Some(bench)
}

fn is_new(answer: &Result<Accepted, PublishError>) -> bool {
    answer.as_ref().is_ok_and(|accepted| accepted.status == PublishStatus::Accepted)
}

fn entries(answer: Result<Accepted, PublishError>) -> Vec<EntryRef> {
    answer.unwrap().entries
}

/// Publishing again says what there is already, for as long as the window.
pub async fn a_publish_is_not_repeated_within_the_window(rig: impl Rig) {
    let Some(bench) = remembering(rig).await else { return };
    let first = bench.try_publish(bench.one("1")).await.unwrap();
    assert_eq!(first.status, PublishStatus::Accepted);
    bench.advance(599 * SECOND).await;
    let again = bench.try_publish(bench.one("1")).await.unwrap();
    assert_eq!((again.status, &again.entries), (PublishStatus::Duplicate, &first.entries));
    let stats = bench.stats().await;
    assert_eq!((stats.ready, stats.totals.published, stats.totals.duplicates), (1, 1, 1));
    bench.advance(SECOND).await;
    assert!(is_new(&bench.try_publish(bench.one("1")).await), "the window is over");
    assert_eq!(ids(&bench.claim(9).await), ["1", "1"]);
}

/// A done entry has been published as much as a ready one.
pub async fn what_is_done_is_not_published_again(rig: impl Rig) {
    let Some(bench) = remembering(rig).await else { return };
    bench.publish(&["1"]).await;
    bench.ack_all(&bench.claim(1).await).await;
    for on_duplicate in [OnDuplicate::ReturnExisting, OnDuplicate::AllowAfterFailure] {
        let again = bench.try_publish(Publish { on_duplicate, ..bench.one("1") }).await.unwrap();
        assert_eq!(again.status, PublishStatus::Duplicate);
    }
    assert!(bench.claim(1).await.is_empty());
}

/// The publisher says what a repetition means.
pub async fn a_repetition_means_what_its_publisher_says(rig: impl Rig) {
    let Some(bench) = remembering(rig).await else { return };
    let with = |on_duplicate| Publish { on_duplicate, ..bench.one("1") };
    let first = entries(bench.try_publish(with(OnDuplicate::Refuse)).await);
    assert_eq!(
        bench.try_publish(with(OnDuplicate::Refuse)).await,
        Err(PublishError::Duplicate(first.clone())),
        "with what there is"
    );
    assert_eq!(entries(bench.try_publish(with(OnDuplicate::ReturnExisting)).await), first);
    assert!(!is_new(&bench.try_publish(with(OnDuplicate::AllowAfterFailure)).await), "it is ready");
    let delivery = bench.claim_one().await;
    assert!(!is_new(&bench.try_publish(with(OnDuplicate::AllowAfterFailure)).await), "it is handled");
    bench.settle(&delivery, reject()).await;
    assert!(!is_new(&bench.try_publish(with(OnDuplicate::ReturnExisting)).await), "a dead letter is there");
    let second = entries(bench.try_publish(with(OnDuplicate::AllowAfterFailure)).await);
    assert_ne!(second, first, "it is dead");
    assert_eq!(entries(bench.try_publish(with(OnDuplicate::ReturnExisting)).await), second, "the latest counts");
    assert_eq!(bench.act_on(Action::Cancel, &second[0].entry).await, ActReply::Done);
    let third = entries(bench.try_publish(with(OnDuplicate::AllowAfterFailure)).await);
    assert_ne!(third, second, "it is cancelled");
    assert_ne!(entries(bench.try_publish(with(OnDuplicate::Allow)).await), third);
    assert_eq!(bench.stats().await.ready, 2);
}

/// A batch that repeats itself is judged event by event as well.
pub async fn a_batch_may_repeat_itself(rig: impl Rig) {
    let Some(bench) = remembering(rig).await else { return };
    let refused = Publish { on_duplicate: OnDuplicate::Refuse, ..bench.one("1") };
    let batch = vec![bench.one("1"), bench.one("1"), refused, bench.one("2")];
    let results = bench.rig.queue().publish(batch).await.unwrap().results;
    assert!(is_new(&results[0]) && is_new(&results[3]));
    assert_eq!(results[1].as_ref().unwrap().status, PublishStatus::Duplicate);
    assert_eq!(results[1].as_ref().unwrap().entries, results[0].as_ref().unwrap().entries);
    assert!(matches!(results[2], Err(PublishError::Duplicate(_))));
    assert_eq!(ids(&bench.claim(9).await), ["1", "2"]);
}

/// Ids are of their sources, and so are dedupe keys, which take their place.
pub async fn ids_are_told_apart_by_source_and_dedupe_key(rig: impl Rig) {
    let Some(bench) = remembering(rig).await else { return };
    let publish = |id: &str, source: &str, dedupe: Option<&str>| Publish {
        dedupe_key: dedupe.map(str::to_owned),
        ..Publish::new(Event::new(id, source, "t"), [bench.name.clone()])
    };
    assert!(is_new(&bench.try_publish(publish("1", "/a", None)).await));
    assert!(is_new(&bench.try_publish(publish("1", "/b", None)).await), "another source");
    assert!(is_new(&bench.try_publish(publish("2", "/a", Some("d"))).await));
    assert!(!is_new(&bench.try_publish(publish("3", "/a", Some("d"))).await), "another id, the same key");
    assert!(is_new(&bench.try_publish(publish("2", "/a", Some("e"))).await), "the same id, another key");
    assert!(is_new(&bench.try_publish(publish("3", "/b", Some("d"))).await), "another source");
    assert!(is_new(&bench.try_publish(publish("d", "/a", None)).await), "an id is no key");
    for len in [0, MAX_KEY_LEN + 1] {
        let odd = bench.try_publish(publish("4", "/a", Some(&"x".repeat(len)))).await;
        assert_eq!(odd, Err(PublishError::InvalidKey { name: "dedupe key", len }));
    }
}

/// A publisher that did not hear the answer asks again, whatever has happened to the process meanwhile.
pub async fn repetitions_are_known_after_a_reopen(rig: impl Rig) {
    let Some(bench) = remembering(rig).await else { return };
    let first = entries(bench.try_publish(bench.one("1")).await);
    bench.advance(5 * MINUTE).await;
    let bench = bench.reopened().await;
    assert_eq!(entries(bench.try_publish(bench.one("1")).await), first);
    bench.advance(5 * MINUTE).await;
    assert!(is_new(&bench.try_publish(bench.one("1")).await));
}

/// A clock that is set back makes the window longer, not shorter.
pub async fn a_clock_that_is_set_back_does_not_repeat_a_publish(rig: impl Rig) {
    let Some(bench) = remembering(rig).await else { return };
    bench.publish(&["1"]).await;
    bench.jump_to(Timestamp::from_micros(1_000_000)).await;
    bench.advance(5 * MINUTE).await;
    assert!(!is_new(&bench.try_publish(bench.one("1")).await));
}

/// A window of no time is none.
pub async fn without_a_window_every_publish_is_new(rig: impl Rig) {
    let off = RigOptions { idempotency_window: Duration::ZERO, ..RigOptions::default() };
    let bench = Bench::opened(rig, off).await;
    for _ in 0..2 {
        assert!(is_new(&bench.try_publish(bench.one("1")).await));
    }
    assert_eq!(bench.stats().await.ready, 2);
}

/// All queues of a repetition have it already; none gets it twice.
pub async fn a_repetition_names_the_entries_in_all_queues(rig: impl Rig) {
    let Some(bench) = remembering(rig).await else { return };
    let audit = bench.add_queue("audit").await;
    let both = Publish::new(event("1"), [bench.name.clone(), audit.clone()]);
    let first = entries(bench.try_publish(both.clone()).await);
    let found = bench.rig.queue().find("/test".into(), "1".into()).await.unwrap();
    let refs = found.iter().map(|entry| EntryRef { queue: entry.queue.clone(), entry: entry.id.clone() });
    assert_eq!(refs.collect::<Vec<_>>(), first);
    assert_eq!(entries(bench.try_publish(both).await), first);
    for queue in [&bench.name, &audit] {
        let stats = bench.stats_of(queue).await.unwrap();
        assert_eq!((stats.ready, stats.totals.duplicates), (1, 1), "{queue}");
    }
}

/// A full queue does not make a repetition look like news.
pub async fn a_repetition_is_answered_by_a_full_queue(rig: impl Rig) {
    let Some(bench) = remembering(rig).await else { return };
    bench.configure(QueueOptions { max_events: Some(1), ..QueueOptions::default() }).await;
    let first = entries(bench.try_publish(bench.one("1")).await);
    assert_eq!(entries(bench.try_publish(bench.one("1")).await), first);
    assert!(matches!(bench.try_publish(bench.one("2")).await, Err(PublishError::Full { .. })));
}

/// What a handler emits again is not published again; and an attempt that is run again emits once.
pub async fn what_is_emitted_twice_is_published_once(rig: impl Rig) {
    let Some(bench) = remembering(rig).await else { return };
    let receipts = bench.add_queue("receipts").await;
    let emit = Publish::new(event("r1"), [receipts.clone()]);
    bench.publish(&["1", "2", "3"]).await;
    for delivery in bench.claim(2).await {
        let emits = vec![emit.clone(), emit.clone()];
        let settled = bench.settle_with(Settle { emits, ..Settle::new(delivery.lease, ack()) }).await;
        assert_eq!(settled, SettleReply::Settled(Disposition::Complete));
    }
    assert_eq!(bench.stats_of(&receipts).await.unwrap().totals.published, 1);
    let delivery = bench.claim_one().await;
    let emits = vec![Publish { on_duplicate: OnDuplicate::Refuse, ..emit }];
    let refused = bench.settle_with(Settle { emits, ..Settle::new(delivery.lease, ack()) }).await;
    assert!(matches!(refused, SettleReply::Refused(PublishError::Duplicate(_))), "{refused:?}");
    assert_eq!(bench.state(&delivery.entry).await, Some(State::Leased), "the lease goes on");
}

/// What operators bring back is wanted, and no repetition.
pub async fn a_redrive_is_no_repetition(rig: impl Rig) {
    let Some(bench) = remembering(rig).await else { return };
    let entry = bench.try_publish(bench.one("1")).await.unwrap().entries.remove(0).entry;
    bench.settle(&bench.claim_one().await, reject()).await;
    assert_eq!(bench.act_on(Action::Redrive, &entry).await, ActReply::Done);
    assert_eq!(ids(&bench.claim(9).await), ["1"]);
}

/// Events are found by what their publisher calls them: the latest publish, and what is left of it.
pub async fn entries_are_found_by_source_and_id(rig: impl Rig) {
    let Some(bench) = remembering(rig).await else { return };
    let find = |id: &str| bench.rig.queue().find("/test".into(), id.to_owned());
    assert_eq!(find("1").await.unwrap(), []);
    bench.publish(&["1"]).await;
    let latest = bench.publish(&["1"]).await.remove(0);
    bench.publish_with(Publish { dedupe_key: Some("d".into()), ..bench.one("2") }).await;
    let found = find("1").await.unwrap();
    assert_eq!(found.iter().map(|entry| &entry.id).collect::<Vec<_>>(), [&latest]);
    assert_eq!((found[0].state, &found[0].event), (State::Ready, &event("1")));
    assert_eq!(find("2").await.unwrap().len(), 1, "by its id also when it has a dedupe key");
    assert_eq!(bench.rig.queue().find("/elsewhere".into(), "1".into()).await.unwrap(), []);
    bench.act_on(Action::Purge, &latest).await;
    assert_eq!(find("1").await.unwrap(), [], "gone");
    bench.advance(HOUR).await;
    assert_eq!(find("2").await.unwrap(), [], "forgotten");
}
