//! Rules of what is kept of entries that have ended.

use gristmill_core::{Outcome, State};

use super::Rig;
use super::bench::{Bench, DAY, HOUR, MINUTE, SECOND, event, reject};
use crate::contract::{ActReply, Action, Payload, QueueOptions, Retention, Selection, Waited};

fn keep(age: Option<std::time::Duration>, count: Option<u64>) -> Retention {
    Retention { age, count }
}

/// By default a dead letter stays for ever, and a cancelled entry for thirty days.
pub async fn dead_letters_stay_and_cancelled_entries_for_a_while(rig: impl Rig) {
    let bench = Bench::new(rig).await;
    let dead = bench.kill("dead", "bad").await;
    let cancelled = bench.publish(&["cancelled"]).await;
    bench.act(Action::Cancel, Selection::Entries(cancelled.clone())).await;
    bench.advance(30 * DAY - SECOND).await;
    assert_eq!(bench.state(&cancelled[0]).await, Some(State::Cancelled));
    bench.advance(SECOND).await;
    assert_eq!(bench.state(&cancelled[0]).await, None);
    bench.advance(365 * DAY).await;
    assert_eq!(bench.state(&dead).await, Some(State::Dead));
    let stats = bench.stats().await;
    assert_eq!((stats.dead, stats.cancelled, stats.totals.cancelled), (1, 0, 1));
}

/// Whoever limits them loses the oldest.
pub async fn dead_and_cancelled_entries_are_reaped_by_age_and_by_count(rig: impl Rig) {
    let limits = QueueOptions {
        dead: keep(Some(HOUR), Some(2)),
        cancelled: keep(Some(2 * HOUR), Some(3)),
        ..QueueOptions::default()
    };
    let bench = Bench::with(rig, limits).await;
    let entries = bench.publish(&["1", "2", "3", "4"]).await;
    for _ in &entries {
        bench.settle(&bench.claim_one().await, reject()).await;
        bench.advance(MINUTE).await;
    }
    assert_eq!(bench.listed(State::Dead).await, ["3", "4"]);
    assert_eq!(bench.state(&entries[0]).await, None);
    let more = bench.publish(&["5", "6", "7", "8"]).await;
    bench.act(Action::Cancel, Selection::Entries(more)).await;
    bench.rig.tick().await;
    assert_eq!(bench.listed(State::Cancelled).await, ["6", "7", "8"]);
    bench.advance(58 * MINUTE).await;
    assert_eq!(bench.listed(State::Dead).await, ["4"], "an hour after it died");
    let bench = bench.reopened().await;
    bench.advance(2 * HOUR).await;
    let stats = bench.stats().await;
    assert_eq!((stats.dead, stats.cancelled), (0, 0));
    assert_eq!((stats.totals.dead_lettered, stats.totals.cancelled), (4, 4), "totals remember");
}

/// Whoever keeps nothing gets nothing to see.
pub async fn a_done_entry_that_is_not_kept_is_gone(rig: impl Rig) {
    let bench = Bench::with(rig, QueueOptions { done: keep(None, Some(0)), ..QueueOptions::default() }).await;
    let entry = bench.publish(&["1"]).await.remove(0);
    bench.settle(&bench.claim_one().await, Outcome::Ack { result: Some("7".into()) }).await;
    bench.rig.tick().await;
    assert_eq!(bench.state(&entry).await, None);
    assert_eq!(bench.rig.queue().wait(entry, HOUR).await, Ok(Waited::Unknown));
    let stats = bench.stats().await;
    assert_eq!((stats.done, stats.totals.acked, stats.bytes), (0, 1, 0));
    assert!(bench.claim(9).await.is_empty());
}

/// Data of done entries stays if the queue says so, small or large.
pub async fn done_entries_may_keep_their_data(rig: impl Rig) {
    let bench = Bench::with(rig, QueueOptions { payload: Payload::Keep, ..QueueOptions::default() }).await;
    let small = bench.publish(&["small"]).await.remove(0);
    let mut large = (*event("large")).clone();
    large.data = Some(vec![b'x'; 100_000].into());
    let large_entry = bench.publish_with(crate::contract::Publish::new(large.clone(), [bench.name.clone()])).await;
    bench.ack_all(&bench.claim(9).await).await;
    let bench = bench.reopened().await;
    assert_eq!(bench.entry(&small).await.event, event("small"));
    assert_eq!(*bench.entry(&large_entry).await.event, large);
    bench.advance(DAY).await;
    assert_eq!(bench.state(&large_entry).await, None);
}

/// What is kept is what there is now to keep: other options hold for the past as well.
pub async fn retention_may_be_changed(rig: impl Rig) {
    let bench = Bench::new(rig).await;
    bench.publish(&["1", "2", "3"]).await;
    bench.ack_all(&bench.claim(9).await).await;
    bench.configure(QueueOptions { done: keep(None, Some(1)), ..QueueOptions::default() }).await;
    bench.rig.tick().await;
    assert_eq!(bench.listed(State::Done).await, ["3"]);
    bench.configure(QueueOptions { done: Retention::default(), ..QueueOptions::default() }).await;
    bench.advance(365 * DAY).await;
    assert_eq!(bench.listed(State::Done).await, ["3"], "for ever");
}

/// What was purged counts for nothing, and does not keep those behind it.
pub async fn purged_entries_hold_up_no_retention(rig: impl Rig) {
    let done = Retention { age: Some(HOUR), count: Some(2) };
    let bench = Bench::with(rig, QueueOptions { done, ..QueueOptions::default() }).await;
    let noon = bench.now();
    bench.jump_to(noon.after(DAY)).await;
    let tomorrow = bench.publish(&["tomorrow"]).await.remove(0);
    bench.ack_all(&bench.claim(9).await).await;
    bench.jump_to(noon).await;
    let mut entries = Vec::new();
    for id in ["1", "2"] {
        entries.extend(bench.publish(&[id]).await);
        bench.ack_all(&bench.claim(9).await).await;
        if id == "1" {
            assert_eq!(bench.act_on(Action::Purge, &tomorrow).await, ActReply::Done);
        }
    }
    assert_eq!(bench.act_on(Action::Purge, &entries[0]).await, ActReply::Done);
    for id in ["3", "4"] {
        bench.publish(&[id]).await;
        bench.ack_all(&bench.claim(9).await).await;
    }
    bench.rig.tick().await;
    assert_eq!(bench.listed(State::Done).await, ["3", "4"], "one was too many, and it was `2`");
    bench.advance(HOUR).await;
    assert_eq!((bench.listed(State::Done).await.len(), bench.stats().await.done), (0, 0));
}
