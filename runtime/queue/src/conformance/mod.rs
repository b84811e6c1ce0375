//! One suite for every engine. Each function is a rule of the [`Queue`] contract; its name says which.
//!
//! An engine runs the suite by giving [`conformance_tests!`](crate::conformance_tests) something that makes a [`Rig`].
//! Time is the rig's manual clock; no rule sleeps.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "assertions of a test suite")]

mod delivery;
mod inspection;
mod reopening;
mod timing;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use gristmill_core::{Disposition, EntryId, Event, ManualClock, Outcome, QueueName, State};

pub use delivery::*;
pub use inspection::*;
pub use reopening::*;
pub use timing::*;

use crate::contract::{Claim, Confirm, Delivery, Publish, Queue, QueueOptions, QueueStats, Settle, SettleReply};

/// An engine under test.
#[async_trait]
pub trait Rig: Send {
    /// The engine, open and empty at first.
    fn queue(&self) -> &dyn Queue;
    /// The clock that the engine goes by.
    fn clock(&self) -> &ManualClock;
    /// Returns once everything that is due by the clock has happened.
    async fn tick(&self);
    /// Ends the process, as far as the engine can tell, and starts another on the same store.
    async fn reopen(&mut self);
}

/// What the rules do with a rig again and again.
struct Bench<R> {
    rig: R,
    name: QueueName,
}

impl<R: Rig> Bench<R> {
    async fn new(rig: R) -> Self {
        Self::with(rig, QueueOptions::default()).await
    }

    async fn with(rig: R, options: QueueOptions) -> Self {
        let name = QueueName::new("orders").unwrap();
        rig.queue().configure(name.clone(), options).await.unwrap();
        Self { rig, name }
    }

    async fn add_queue(&self, name: &str) -> QueueName {
        let name = QueueName::new(name).unwrap();
        self.rig.queue().configure(name.clone(), QueueOptions::default()).await.unwrap();
        name
    }

    async fn publish(&self, ids: &[&str]) -> Vec<EntryId> {
        let batch = ids.iter().map(|id| Publish::new(event(id), [self.name.clone()])).collect();
        let published = self.rig.queue().publish(batch).await.unwrap();
        published.results.into_iter().map(|result| result.unwrap().remove(0).entry).collect()
    }

    async fn publish_with(&self, publish: Publish) -> EntryId {
        self.rig.queue().publish(vec![publish]).await.unwrap().results.remove(0).unwrap().remove(0).entry
    }

    async fn claim(&self, max: usize) -> Vec<Delivery> {
        self.rig.queue().claim(Claim::new(self.name.clone(), max)).await.unwrap()
    }

    async fn claim_one(&self) -> Delivery {
        let mut claimed = self.claim(1).await;
        assert_eq!(claimed.len(), 1, "one entry should be ready");
        claimed.remove(0)
    }

    async fn settle(&self, delivery: &Delivery, outcome: Outcome) -> Disposition {
        match self.settle_with(Settle::new(delivery.lease, outcome)).await {
            SettleReply::Settled(disposition) => disposition,
            other => panic!("not settled: {other:?}"),
        }
    }

    async fn settle_with(&self, settle: Settle) -> SettleReply {
        self.rig.queue().settle(vec![settle], Confirm::Durable).await.unwrap().remove(0)
    }

    async fn advance(&self, by: Duration) {
        self.rig.clock().advance(by);
        self.rig.tick().await;
    }

    async fn stats(&self) -> QueueStats {
        let stats = self.rig.queue().stats().await.unwrap();
        stats.into_iter().find(|stats| stats.queue == self.name).unwrap()
    }

    async fn state(&self, entry: &EntryId) -> Option<State> {
        self.rig.queue().get(entry.clone()).await.unwrap().map(|entry| entry.state)
    }
}

fn event(id: &str) -> Arc<Event> {
    let mut event = Event::new(id, "/test", "test.happened");
    event.data = Some(bytes::Bytes::from(format!("{{\"id\":\"{id}\"}}")));
    Arc::new(event)
}

fn ack() -> Outcome {
    Outcome::Ack { result: None }
}

fn retry() -> Outcome {
    Outcome::Retry { reason: "not yet".into(), after: None }
}

fn ids(deliveries: &[Delivery]) -> Vec<&str> {
    deliveries.iter().map(|delivery| delivery.event.id.as_str()).collect()
}

/// Makes a `#[tokio::test]` of every rule. `$rig` is an expression that makes a [`Rig`](crate::conformance::Rig).
#[macro_export]
macro_rules! conformance_tests {
    ($rig:expr) => {
        $crate::conformance_tests! { $rig =>
            a_published_event_is_claimed_once_and_done_after_its_ack,
            a_batch_is_judged_event_by_event,
            an_event_for_several_queues_is_in_all_of_them_or_in_none,
            a_waiting_claim_is_woken_by_a_publish,
            a_waiting_claim_ends_empty_when_its_time_is_over,
            a_claim_whose_future_was_dropped_takes_nothing,
            a_claim_dropped_after_its_grant_gives_everything_back,
            order_is_priority_then_readiness,
            a_stale_token_changes_nothing,
            an_ack_and_what_it_emits_commit_together,
            what_a_failed_delivery_emits_never_appears,
            an_emit_for_an_unknown_queue_refuses_the_settlement,
            a_released_entry_comes_first_and_spends_no_attempt,
            retries_back_off_and_end_in_the_dead_letters,
            a_reject_is_dead_at_once,
            a_deferral_spends_no_attempt,
            an_expired_lease_counts_and_comes_back,
            an_extended_lease_does_not_expire,
            a_delayed_event_waits_for_its_time,
            a_clock_that_is_set_back_only_delays,
            new_traffic_does_not_starve_a_retry,
            done_entries_are_reaped_by_count_and_by_age,
            done_entries_are_reaped_in_the_order_of_their_completion,
            a_dead_letter_keeps_reason_version_and_history,
            redrive_counts_attempts_anew_and_keeps_the_history,
            lists_are_complete_in_pages_of_any_size,
            a_request_that_makes_no_sense_is_refused,
            everything_unsettled_is_ready_after_a_reopen,
            lost_entries_are_delivered_one_at_a_time,
            a_lease_of_an_earlier_process_is_stale,
            an_entry_that_kills_its_process_ends_in_the_dead_letters,
            numbers_are_never_issued_twice,
            counts_are_right_after_a_reopen,
            a_closed_queue_says_so,
        }
    };
    ($rig:expr => $($rule:ident,)*) => {
        $(
            #[tokio::test]
            async fn $rule() {
                $crate::conformance::$rule($rig).await;
            }
        )*
    };
}
