//! Rules of what operators do to entries that they name.

use gristmill_core::{EntryId, OutcomeKind, State};

use super::Rig;
use super::bench::{Bench, HOUR, MINUTE, SECOND, ack, event, ids, queue_name, reject, retry, three_attempts};
use crate::contract::{
    Act, ActReply, Action, Claim, Due, Operation, Publish, QueueError, Selection, Settle, SettleReply,
};

/// One entry in every state, in the order of [`State::ALL`] without waiting.
async fn one_in_each_state<R: Rig>(bench: &Bench<R>) -> Vec<(State, EntryId)> {
    let scheduled = bench.publish_with(Publish { due: Due::After(HOUR), ..bench.one("scheduled") }).await;
    let dead = bench.kill("dead", "bad").await;
    let done = bench.publish(&["done"]).await.remove(0);
    bench.settle(&bench.claim_one().await, ack()).await;
    let leased = bench.publish(&["leased"]).await.remove(0);
    bench.claim_one().await;
    let cancelled = bench.publish(&["cancelled"]).await.remove(0);
    bench.act(Action::Cancel, Selection::Entries(vec![cancelled.clone()])).await;
    let ready = bench.publish(&["ready"]).await.remove(0);
    vec![
        (State::Scheduled, scheduled),
        (State::Ready, ready),
        (State::Leased, leased),
        (State::Done, done),
        (State::Dead, dead),
        (State::Cancelled, cancelled),
    ]
}

/// Every action says which entries it is not for, and leaves them alone; one's refusal does not touch the others.
pub async fn an_action_applies_to_its_states_only(rig: impl Rig) {
    let bench = Bench::new(rig).await;
    let other = bench.add_queue("other").await;
    for action in [Action::Cancel, Action::Redrive, Action::Move(other.clone()), Action::Purge] {
        let entries = one_in_each_state(&bench).await;
        let named = entries.iter().map(|(_, entry)| entry.clone());
        let unknown = EntryId::new("no-such-entry").unwrap();
        let operated = bench.act(action.clone(), Selection::Entries(named.chain([unknown]).collect())).await;
        assert_eq!(operated.replies.len(), entries.len() + 1);
        for ((state, entry), reply) in entries.iter().zip(&operated.replies) {
            let after = bench.state(entry).await;
            if action.applies_to().contains(state) {
                assert!(matches!(reply, ActReply::Done | ActReply::Moved(_)), "{action:?} {state}: {reply:?}");
                assert_ne!(after, Some(*state), "{action:?}");
            } else {
                assert_eq!((reply, after), (&ActReply::WrongState(*state), Some(*state)), "{action:?}");
            }
        }
        assert_eq!(operated.replies.last(), Some(&ActReply::Unknown));
        let done = operated.replies.iter().filter(|reply| matches!(reply, ActReply::Done | ActReply::Moved(_)));
        assert_eq!(operated.changed, done.count() as u64);
        bench.operate(Operation::Delete { queue: bench.name.clone() }).await;
        bench.configure(crate::contract::QueueOptions::default()).await;
    }
}

/// Withdrawn: listed, counted, and never handled.
pub async fn a_cancelled_entry_is_never_handled(rig: impl Rig) {
    let bench = Bench::with(rig, three_attempts()).await;
    let entries = bench.publish(&["ready", "retried"]).await;
    let late = bench.publish_with(Publish { due: Due::After(MINUTE), ..bench.one("late") }).await;
    let claimed = bench.claim(9).await;
    bench.settle(&claimed[0], gristmill_core::Outcome::Released).await;
    bench.settle(&claimed[1], retry()).await;
    for entry in [&entries[0], &entries[1], &late] {
        assert_eq!(bench.act_on(Action::Cancel, entry).await, ActReply::Done);
        assert_eq!(bench.act_on(Action::Cancel, entry).await, ActReply::WrongState(State::Cancelled));
    }
    bench.advance(HOUR).await;
    let bench = bench.reopened().await;
    bench.advance(HOUR).await;
    assert!(bench.claim(9).await.is_empty());
    assert_eq!(bench.listed(State::Cancelled).await, ["ready", "retried", "late"]);
    let stats = bench.stats().await;
    assert_eq!((stats.cancelled, stats.totals.cancelled), (3, 3));
    assert_eq!((stats.ready, stats.scheduled, stats.bytes), (0, 0, 0));
    let cancelled = bench.entry(&entries[1]).await;
    assert_eq!((cancelled.event.id.as_str(), &cancelled.event.data), ("retried", &event("retried").data));
    assert_eq!(cancelled.last_attempt().map(|last| last.outcome), Some(OutcomeKind::Retry), "with its history");
}

/// A redrive is news, and goes by its turn.
pub async fn a_waiting_claim_is_woken_by_a_redrive(rig: impl Rig) {
    let bench = Bench::new(rig).await;
    let dead = bench.kill("1", "bad").await;
    let redriven = async { assert_eq!(bench.act_on(Action::Redrive, &dead).await, ActReply::Done) };
    let woken = bench.claim_during(Claim::new(bench.name.clone(), 9), redriven).await;
    assert_eq!((ids(&woken), woken[0].attempt, &woken[0].entry), (vec!["1"], 1, &dead));
}

/// Moved: the same event and history under another id; what was dead begins anew.
pub async fn a_moved_entry_goes_on_in_another_queue(rig: impl Rig) {
    let bench = Bench::with(rig, three_attempts()).await;
    let other = bench.add_queue("other").await;
    let publish = Publish { priority: 9, ..bench.one("retried") };
    let retried = bench.publish_with(publish).await;
    bench.settle(&bench.claim_one().await, retry()).await;
    let dead = bench.kill("dead", "bad").await;
    let ready = bench.publish(&["ready"]).await.remove(0);
    let mut moved = Vec::new();
    for entry in [&retried, &dead, &ready] {
        let ActReply::Moved(id) = bench.act_on(Action::Move(other.clone()), entry).await else { panic!("moved") };
        assert_ne!(&id, entry);
        assert_eq!(bench.state(entry).await, None, "the old id is gone");
        assert_eq!(bench.act_on(Action::Move(other.clone()), entry).await, ActReply::Unknown);
        moved.push(id);
    }
    let bench = bench.reopened().await;
    let scheduled = bench.entry(&moved[0]).await;
    assert_eq!((scheduled.state, scheduled.attempts, scheduled.priority), (State::Scheduled, 1, 9));
    assert_eq!((&scheduled.queue, scheduled.event), (&other, event("retried")));
    assert_eq!(ids(&bench.claim_from(&other, 9).await), ["dead", "ready"]);
    bench.advance(10 * SECOND).await;
    let again = bench.claim_from(&other, 9).await;
    assert_eq!((ids(&again), again[0].attempt), (vec!["retried"], 2));
    let entry = bench.entry(&moved[1]).await;
    assert_eq!((entry.attempts, entry.last_attempt().map(|last| last.outcome)), (1, Some(OutcomeKind::Reject)));
    let here = bench.stats().await;
    assert_eq!((here.ready, here.scheduled, here.dead, here.bytes), (0, 0, 0, 0));
}

/// There is nowhere to go to, or no way to get there.
pub async fn an_entry_moves_only_into_another_queue_that_exists(rig: impl Rig) {
    let bench = Bench::new(rig).await;
    let entry = bench.publish(&["1"]).await.remove(0);
    let nowhere = queue_name("nowhere");
    let act = |to, on| Operation::Act(Act { action: Action::Move(to), on, rate: None });
    let named = Selection::Entries(vec![entry.clone()]);
    let answer = bench.rig.queue().operate(act(nowhere.clone(), named.clone())).await;
    assert_eq!(answer, Err(QueueError::UnknownQueue(nowhere)));
    let answer = bench.rig.queue().operate(act(bench.name.clone(), Selection::Where(bench.all()))).await;
    assert!(matches!(answer, Err(QueueError::InvalidRequest(_))), "{answer:?}");
    assert_eq!(bench.act(Action::Move(bench.name.clone()), named).await.changed, 0, "it is there already");
    assert_eq!(ids(&bench.claim(9).await), ["1"]);
}

/// Purged: gone from every count and list, and its id with it.
pub async fn a_purged_entry_leaves_no_trace(rig: impl Rig) {
    let bench = Bench::new(rig).await;
    let entries = one_in_each_state(&bench).await;
    for (state, entry) in &entries {
        if *state != State::Leased {
            assert_eq!(bench.act_on(Action::Purge, entry).await, ActReply::Done);
            assert_eq!(bench.act_on(Action::Purge, entry).await, ActReply::Unknown);
            assert!(bench.list(*state).await.is_empty(), "{state}");
        }
    }
    let bench = bench.reopened().await;
    let stats = bench.stats().await;
    assert_eq!((stats.scheduled, stats.done, stats.dead, stats.cancelled), (0, 0, 0, 0));
    assert_eq!(ids(&bench.claim(9).await), ["leased"]);
    bench.advance(HOUR).await;
    assert!(bench.claim(9).await.iter().all(|delivery| delivery.event.id == "leased"));
}

/// What somebody handles is his until he settles it, whatever operators want.
pub async fn a_lease_is_safe_from_operators(rig: impl Rig) {
    let bench = Bench::new(rig).await;
    let other = bench.add_queue("other").await;
    let entry = bench.publish(&["1"]).await.remove(0);
    let delivery = bench.claim_one().await;
    for action in [Action::Cancel, Action::Purge, Action::Move(other), Action::Redrive] {
        assert_eq!(bench.act_on(action, &entry).await, ActReply::WrongState(State::Leased));
    }
    let settled = bench.settle_with(Settle::new(delivery.lease, reject())).await;
    assert!(matches!(settled, SettleReply::Settled(_)));
    assert_eq!(bench.state(&entry).await, Some(State::Dead));
}
