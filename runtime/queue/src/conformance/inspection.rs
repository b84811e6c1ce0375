//! Rules of looking and of redriving.

use std::collections::BTreeSet;
use std::time::Duration;

use gristmill_core::{EntryId, LastLine, Outcome, Postmortem, QueueName, State};

use super::Rig;
use super::bench::{Bench, ack, event};
use crate::contract::{ActReply, Action, Claim, Due, List, Publish, QueueError, Selection, Settle};

fn trap() -> Outcome {
    Outcome::Trap { reason: "unreachable\n  at handle".into() }
}

/// What a person needs to judge a dead letter is on it.
pub async fn a_dead_letter_keeps_reason_version_and_history(rig: impl Rig) {
    let bench = Bench::new(rig).await;
    let entry = bench.publish(&["1"]).await.remove(0);
    for attempt in 1..=5 {
        let delivery = bench.claim_one().await;
        assert_eq!(delivery.attempt, attempt);
        let version = Some(format!("sha256:{attempt}"));
        bench.settle_with(Settle { version, ..Settle::new(delivery.lease, trap()) }).await;
        bench.advance(Duration::from_secs(60)).await;
    }
    let dead = bench.rig.queue().get(entry.clone()).await.unwrap().unwrap();
    assert_eq!((dead.state, dead.attempts), (State::Dead, 5));
    assert_eq!(dead.event, event("1"), "with its payload");
    let attempts = dead.history.attempts();
    assert_eq!(attempts.iter().map(|a| a.attempt).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
    let last = dead.last_attempt().unwrap();
    assert_eq!(last.reason.as_deref(), Some("unreachable\n  at handle"));
    assert_eq!(last.version.as_deref(), Some("sha256:5"));
    let listed = bench.rig.queue().list(list(&bench.name, State::Dead, 10, None)).await.unwrap();
    assert_eq!(listed.entries, [dead]);
}

/// What the last delivery cost and said stays with the dead letter it made, and only then.
pub async fn a_dead_letter_keeps_its_postmortem(rig: impl Rig) {
    let bench = Bench::new(rig).await;
    let [retried, dead] = <[_; 2]>::try_from(bench.publish(&["1", "2"]).await).unwrap();
    let line = LastLine { level: "warn".into(), context: "stderr".into(), message: "no \u{1b}".into() };
    let postmortem = Some(Box::new(Postmortem { host_calls: 7, ..Postmortem::default() }.with_log([line])));
    for outcome in [trap(), Outcome::Reject { reason: "never".into() }] {
        let delivery = bench.claim_one().await;
        let postmortem = postmortem.clone();
        bench.settle_with(Settle { postmortem, ..Settle::new(delivery.lease, outcome) }).await;
    }
    let queue = bench.rig.queue();
    assert_eq!(queue.get(retried).await.unwrap().unwrap().postmortem, None);
    assert_eq!(queue.get(dead.clone()).await.unwrap().unwrap().postmortem, postmortem);
    // It outlives a redrive, until there is another.
    let redriven = bench.act(Action::Redrive, Selection::Entries(vec![dead.clone()])).await;
    assert_eq!(redriven.replies, [ActReply::Done]);
    assert_eq!(queue.get(dead).await.unwrap().unwrap().postmortem, postmortem);
}

/// A leased entry says when it was claimed, wherever it is looked at.
pub async fn a_leased_entry_says_when_it_was_claimed(rig: impl Rig) {
    let bench = Bench::new(rig).await;
    let entries = bench.publish(&["1", "2", "3"]).await;
    for entry in &entries {
        bench.advance(Duration::from_secs(5)).await;
        assert_eq!(&bench.claim_one().await.entry, entry);
        let leased = bench.entry(entry).await;
        assert_eq!((leased.state, leased.at), (State::Leased, bench.now()));
    }
    let mut looked = Vec::new();
    for entry in &entries {
        looked.push(bench.entry(entry).await);
    }
    assert_eq!(bench.list(State::Leased).await, looked);
}

/// A redriven entry starts again, and remembers.
pub async fn redrive_counts_attempts_anew_and_keeps_the_history(rig: impl Rig) {
    let bench = Bench::new(rig).await;
    let entries = bench.publish(&["1", "2"]).await;
    let first = bench.claim_one().await;
    bench.settle(&first, Outcome::Reject { reason: "bad".into() }).await;
    let unknown = EntryId::new("000000-1").unwrap();
    let all = vec![entries[0].clone(), entries[1].clone(), unknown];
    let operated = bench.act(Action::Redrive, Selection::Entries(all)).await;
    assert_eq!(operated.changed, 1);
    assert_eq!(operated.replies, [ActReply::Done, ActReply::WrongState(State::Ready), ActReply::Unknown]);
    let claimed = bench.claim(2).await;
    let again = claimed.iter().find(|delivery| delivery.entry == entries[0]).unwrap();
    assert_eq!(again.attempt, 1);
    bench.settle(again, ack()).await;
    let done = bench.rig.queue().get(entries[0].clone()).await.unwrap().unwrap();
    let outcomes: Vec<_> = done.history.attempts().iter().map(|a| a.outcome.as_str()).collect();
    assert_eq!(outcomes, ["reject", "ack"]);
    let stats = bench.stats().await;
    assert_eq!((stats.dead, stats.totals.redriven), (0, 1));
}

/// Pages add up to the whole, in every state, without repetition.
pub async fn lists_are_complete_in_pages_of_any_size(rig: impl Rig) {
    let bench = Bench::new(rig).await;
    let other = bench.add_queue("other").await;
    let mut expected: Vec<(State, BTreeSet<EntryId>)> = Vec::new();
    let fill = |prefix: &str| (0..7).map(|n| format!("{prefix}{n}")).collect::<Vec<_>>();
    for (state, outcome) in [
        (State::Done, Some(ack())),
        (State::Dead, Some(Outcome::Reject { reason: String::new() })),
        (State::Leased, None),
    ] {
        let ids = fill(state.as_str());
        let entries = bench.publish(&ids.iter().map(String::as_str).collect::<Vec<_>>()).await;
        for delivery in bench.claim(7).await {
            if let Some(outcome) = outcome.clone() {
                bench.settle(&delivery, outcome).await;
            }
        }
        expected.push((state, entries.into_iter().collect()));
    }
    let mut ready = BTreeSet::new();
    let mut scheduled = BTreeSet::new();
    for (n, id) in fill("rest").iter().enumerate() {
        let queues = [bench.name.clone(), other.clone()];
        let publish = Publish { priority: u8::try_from(n % 3).unwrap(), ..Publish::new(event(id), queues) };
        ready.insert(bench.publish_with(publish.clone()).await);
        let due = Due::After(Duration::from_secs(60));
        scheduled.insert(bench.publish_with(Publish { due, ..publish }).await);
    }
    bench.rig.queue().claim(Claim::new(other, 3)).await.unwrap();
    expected.extend([(State::Ready, ready), (State::Scheduled, scheduled)]);
    for (state, entries) in expected {
        for limit in [1, 3, 7, 100] {
            let mut seen = Vec::new();
            let mut cursor = None;
            for _ in 0..20 {
                let page = bench.rig.queue().list(list(&bench.name, state, limit, cursor)).await.unwrap();
                assert!(page.entries.len() <= limit);
                assert!(page.entries.iter().all(|entry| entry.state == state), "{state}");
                seen.extend(page.entries.into_iter().map(|entry| entry.id));
                cursor = page.next;
                if cursor.is_none() {
                    break;
                }
            }
            assert_eq!(seen.len(), entries.len(), "{state} by {limit}");
            assert_eq!(seen.into_iter().collect::<BTreeSet<_>>(), entries, "{state} by {limit}");
        }
    }
}

/// Typed errors, not silence.
pub async fn a_request_that_makes_no_sense_is_refused(rig: impl Rig) {
    let bench = Bench::new(rig).await;
    let queue = bench.rig.queue();
    let nowhere = QueueName::new("nowhere").unwrap();
    let unknown = QueueError::UnknownQueue(nowhere.clone());
    assert_eq!(queue.claim(Claim::new(nowhere.clone(), 1)).await.unwrap_err(), unknown);
    assert_eq!(queue.list(list(&nowhere, State::Ready, 1, None)).await.unwrap_err(), unknown);
    let is_invalid = |error: &QueueError| matches!(error, QueueError::InvalidRequest(_));
    assert!(is_invalid(&queue.claim(Claim::new(bench.name.clone(), 0)).await.unwrap_err()));
    assert!(is_invalid(&queue.list(list(&bench.name, State::Ready, 0, None)).await.unwrap_err()));
    assert!(is_invalid(&queue.list(list(&bench.name, State::Ready, 1_001, None)).await.unwrap_err()));
    let garbage = Some("zz".to_owned());
    assert!(is_invalid(&queue.list(list(&bench.name, State::Ready, 1, garbage)).await.unwrap_err()));
    assert_eq!(queue.get(EntryId::new("no-such-entry").unwrap()).await, Ok(None));
}

fn list(queue: &QueueName, state: State, limit: usize, cursor: Option<String>) -> List {
    List { limit, cursor, ..List::new(queue.clone(), state) }
}
