//! One suite for every engine. Each function is a rule of the [`Queue`] contract; its name says which.
//!
//! An engine runs the suite by giving [`conformance_tests!`](crate::conformance_tests) something that makes a [`Rig`].
//! Time is the rig's manual clock; no rule sleeps.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "assertions of a test suite")]

mod bench;
mod clocks;
mod deaths;
mod delivery;
mod filters;
mod flow;
mod forgiving;
mod idempotency;
mod inspection;
mod keys;
mod large;
mod leases;
mod lifetime;
mod log;
mod operations;
mod ordering;
mod pauses;
mod queues;
mod reopening;
mod results;
mod retention;
mod samples;
mod selection;
mod state;
mod timing;
mod together;
mod transactions;

use std::time::Duration;

use async_trait::async_trait;
use gristmill_core::ManualClock;

use crate::contract::{DeadLetter, Queue};

/// An engine under test, opened with the default [`RigOptions`], and empty at first.
#[async_trait]
pub trait Rig: Send + Sync {
    /// The engine.
    fn queue(&self) -> &dyn Queue;
    /// The clock that the engine goes by.
    fn clock(&self) -> &ManualClock;
    /// Returns once everything that is due by the clock has happened.
    async fn tick(&self);
    /// The next dead letter that whoever opened the engine is told of (see [`DeadHook`](crate::DeadHook)); waits for it.
    async fn told(&self) -> DeadLetter;
    /// Ends the process, as far as the engine can tell, and starts another on the same store, with these options.
    async fn reopen(&mut self, options: RigOptions);
}

/// What a rule wants of the engine as a whole. What an engine is missing a [`Feature`](crate::Feature) for, it need not
/// heed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RigOptions {
    /// The largest event, in bytes of attributes and data. Default: 1 MiB. An engine may take less than is asked for;
    /// its [`Capabilities`](crate::Capabilities) say so.
    pub max_event_size: u64,
    /// For how long a publish is remembered, so that it is not repeated. Default: 10 minutes; zero: not at all.
    pub idempotency_window: Duration,
    /// For how long published events are kept in the log. Default: there is no log.
    pub log_retention: Option<Duration>,
}

impl Default for RigOptions {
    fn default() -> Self {
        Self { max_event_size: 1 << 20, idempotency_window: Duration::from_secs(600), log_retention: None }
    }
}

/// Makes a `#[tokio::test]` of every rule. `$rig` is an expression that makes a [`Rig`](crate::conformance::Rig). With
/// `for $each in $all =>` before it, every rule is tried on each of several rigs in turn.
#[macro_export]
macro_rules! conformance_tests {
    (@rules [$($rule:ident)*] for $each:pat in $all:expr => $rig:expr) => {
        $(
            #[tokio::test]
            async fn $rule() {
                for $each in $all {
                    // Behind a pointer: otherwise every test is compiled with all of its rule.
                    let rule: ::std::pin::Pin<Box<dyn ::std::future::Future<Output = ()>>> =
                        Box::pin($crate::conformance::$rule($rig));
                    rule.await;
                }
            }
        )*
    };
    (for $($each_in_all_and_rig:tt)*) => {
        $crate::conformance_rules! { for $($each_in_all_and_rig)* }
    };
    ($rig:expr) => {
        $crate::conformance_rules! { for _ in [()] => $rig }
    };
}

/// Names every rule, once: one that is not among them is dead code, which the compiler reports.
macro_rules! rules {
    ($($module:ident: $($rule:ident),+;)*) => {
        rules! { @with ($) $($module: $($rule),+;)* }
    };
    // What the other macro is given needs a dollar that is not meant for this one.
    (@with ($dollar:tt) $($module:ident: $($rule:ident),+;)*) => {
        $(pub use $module::{$($rule),+};)*

        /// Hands all rules to [`conformance_tests!`](crate::conformance_tests).
        #[doc(hidden)]
        #[macro_export]
        macro_rules! conformance_rules {
            ($dollar($dollar how:tt)*) => {
                $dollar crate::conformance_tests! { @rules [$($($rule)+)*] $dollar($dollar how)* }
            };
        }
    };
}

rules! {
    delivery:
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
        a_closed_queue_says_so;
    timing:
        retries_back_off_and_end_in_the_dead_letters,
        a_reject_is_dead_at_once,
        a_deferral_spends_no_attempt,
        an_expired_lease_counts_and_comes_back,
        an_extended_lease_does_not_expire,
        a_delayed_event_waits_for_its_time,
        a_clock_that_is_set_back_only_delays,
        new_traffic_does_not_starve_a_retry,
        done_entries_are_reaped_by_count_and_by_age,
        done_entries_are_reaped_in_the_order_of_their_completion;
    reopening:
        everything_unsettled_is_ready_after_a_reopen,
        lost_entries_are_delivered_one_at_a_time,
        a_lease_of_an_earlier_process_is_stale,
        an_entry_that_kills_its_process_ends_in_the_dead_letters,
        numbers_are_never_issued_twice,
        counts_are_right_after_a_reopen;
    inspection:
        a_dead_letter_keeps_reason_version_and_history,
        a_dead_letter_keeps_its_postmortem,
        a_leased_entry_says_when_it_was_claimed,
        redrive_counts_attempts_anew_and_keeps_the_history,
        lists_are_complete_in_pages_of_any_size,
        a_request_that_makes_no_sense_is_refused;
    ordering:
        entries_of_a_key_are_handled_one_at_a_time_in_publish_order,
        all_that_wait_go_when_the_concurrency_grows,
        entries_of_a_key_move_in_their_order,
        retries_and_deferrals_hold_their_key,
        a_release_and_a_crash_keep_the_key,
        a_redriven_entry_joins_its_key_at_the_end,
        a_delayed_publish_joins_its_key_when_it_is_due,
        priority_ranks_the_heads_of_keys_only,
        keys_take_turns,
        a_waiting_claim_is_woken_by_a_free_key,
        a_key_goes_on_when_some_of_its_entries_are_cancelled,
        no_entry_of_a_key_is_ever_overtaken,
        two_thousand_keys_leave_nothing_behind;
    keys:
        the_key_of_an_event_is_one_of_its_attributes,
        as_many_entries_of_a_key_are_handled_as_its_concurrency_says,
        a_dead_letter_may_hold_its_key,
        a_held_key_may_be_freed,
        a_redrive_of_what_holds_a_key_goes_first,
        a_key_is_freed_when_what_holds_it_goes,
        a_key_is_held_again_when_its_head_dies_again,
        keys_are_listed_in_pages;
    idempotency:
        a_publish_is_not_repeated_within_the_window,
        what_is_done_is_not_published_again,
        a_repetition_means_what_its_publisher_says,
        a_batch_may_repeat_itself,
        ids_are_told_apart_by_source_and_dedupe_key,
        repetitions_are_known_after_a_reopen,
        a_clock_that_is_set_back_does_not_repeat_a_publish,
        without_a_window_every_publish_is_new,
        a_repetition_names_the_entries_in_all_queues,
        a_repetition_is_answered_by_a_full_queue,
        what_is_emitted_twice_is_published_once,
        a_redrive_is_no_repetition,
        entries_are_found_by_source_and_id;
    flow:
        deliveries_in_flight_are_limited,
        claims_keep_to_the_rate,
        another_rate_holds_at_once,
        a_waiting_claim_is_woken_by_the_rate,
        a_clock_that_jumps_does_not_change_the_rate,
        every_key_has_a_rate_of_its_own,
        a_slow_rate_of_a_key_holds_for_days,
        the_rate_of_a_key_holds_for_retries_too,
        a_full_queue_refuses_what_is_too_much,
        waiting_entries_fill_a_queue,
        a_queue_may_be_full_by_its_bytes,
        emits_retries_redrives_and_moves_are_admitted_above_the_limit,
        limits_may_be_changed,
        limits_that_make_no_sense_are_refused;
    lifetime:
        what_nobody_claims_in_its_time_is_dead,
        time_to_live_passes_for_those_who_wait,
        time_to_live_ends_with_the_first_claim,
        a_released_entry_outlives_its_time_to_live,
        a_moved_entry_keeps_what_is_left_of_its_time_to_live,
        a_redrive_outlives_the_time_to_live,
        deferrals_end_at_the_maximum_age,
        retries_end_at_the_maximum_age;
    retention:
        dead_letters_stay_and_cancelled_entries_for_a_while,
        dead_and_cancelled_entries_are_reaped_by_age_and_by_count,
        a_done_entry_that_is_not_kept_is_gone,
        done_entries_may_keep_their_data,
        retention_may_be_changed,
        purged_entries_hold_up_no_retention;
    results:
        a_wait_without_time_says_where_an_entry_is,
        a_wait_is_ended_by_an_ack_and_brings_its_result,
        a_wait_is_ended_by_a_death_and_by_a_cancellation,
        a_wait_ends_when_its_entry_goes,
        a_wait_is_over_when_its_time_is,
        a_wait_ends_with_the_engine;
    operations:
        an_action_applies_to_its_states_only,
        a_cancelled_entry_is_never_handled,
        a_waiting_claim_is_woken_by_a_redrive,
        a_moved_entry_goes_on_in_another_queue,
        an_entry_moves_only_into_another_queue_that_exists,
        a_purged_entry_leaves_no_trace,
        a_lease_is_safe_from_operators;
    selection:
        dead_letters_are_redriven_by_what_killed_them,
        dead_letters_are_chosen_by_the_version_that_failed_last,
        a_filter_chooses_by_state,
        a_filter_chooses_by_key,
        an_action_on_everything_leaves_nothing,
        a_redrive_of_everything_ends,
        an_action_on_many_entries_is_complete,
        an_action_keeps_to_its_rate,
        a_filter_that_makes_no_sense_is_refused;
    samples:
        a_sample_has_the_last_events_of_a_queue,
        a_sample_has_what_waits,
        a_sample_of_dead_letters_has_the_latest_deaths,
        a_sample_takes_from_the_log_what_the_queue_has_no_more,
        a_sample_looks_at_so_much_and_no_more,
        a_sample_of_nothing_is_refused;
    forgiving:
        a_forgiven_failure_spends_no_attempt_and_is_remembered,
        every_failure_can_be_forgiven,
        a_forgiven_failure_may_come_back_later,
        a_forgiven_failure_keeps_its_ordering_key,
        what_was_forgiven_is_counted_until_a_redrive,
        a_forgiven_entry_that_was_lost_stays_alone,
        only_failures_are_forgiven;
    pauses:
        a_pause_by_hand_is_not_taken_over,
        a_claim_goes_through_the_pause_that_it_names,
        a_claim_through_a_pause_keeps_to_the_limits,
        a_claim_that_waits_is_woken_by_the_pause_that_it_names,
        who_waits_for_the_end_of_a_pause_stands_in_nobodys_way,
        a_pause_by_hand_stops_a_claim_that_waits;
    queues:
        a_paused_queue_hands_out_nothing,
        a_waiting_claim_is_woken_by_a_resume,
        time_passes_in_a_paused_queue,
        a_deleted_queue_is_gone,
        a_queue_made_again_starts_anew,
        a_claim_that_waits_for_a_deleted_queue_ends,
        a_wait_ends_when_its_queue_is_deleted,
        a_large_queue_is_deleted_as_a_whole,
        queues_do_not_get_in_each_others_way;
    leases:
        a_lease_of_somebody_outside_survives_a_reopen,
        a_lease_of_somebody_outside_expires_after_a_reopen,
        a_lease_of_somebody_outside_is_extended_for_good,
        a_lost_entry_that_is_held_outside_stays_the_only_one,
        leases_expire_while_the_process_is_down,
        a_claim_may_ack_what_it_takes,
        a_claim_that_acks_brings_its_data,
        a_claim_may_ask_for_another_lease,
        an_extension_may_be_shorter_than_the_lease,
        extensions_are_judged_one_by_one,
        stale_tokens_are_counted,
        a_token_fits_one_delivery_only,
        a_clock_that_jumps_does_not_end_leases;
    filters:
        a_filtered_claim_takes_what_matches,
        a_filtered_claim_gets_past_any_backlog,
        a_filtered_claim_that_waits_gets_past_any_backlog,
        a_filtered_claim_that_waits_rests_while_the_queue_is_paused,
        a_filtered_claim_that_waits_is_woken_by_what_matches,
        claims_that_wait_for_different_types_are_all_served,
        what_a_filtered_claim_took_is_settled_like_anything_else,
        a_filtered_claim_takes_one_lost_entry_at_a_time,
        a_lost_entry_that_a_filtered_claim_took_stays_the_only_one,
        a_filtered_claim_may_be_held_outside_or_ack_at_once,
        a_filtered_claim_does_not_break_the_order_of_a_key;
    state:
        a_key_has_the_value_that_was_written_last,
        a_number_grows_by_increments,
        what_is_no_number_cannot_be_incremented,
        keys_of_a_bucket_are_listed_by_prefix,
        a_snapshot_shows_one_moment,
        a_bucket_is_limited,
        names_in_state_are_limited;
    transactions:
        what_was_read_must_not_have_changed,
        what_appears_or_goes_conflicts_with_who_looked_for_it,
        blind_writes_do_not_conflict,
        a_snapshot_of_an_earlier_process_conflicts,
        state_commits_with_the_ack,
        what_a_failed_delivery_writes_never_appears,
        a_conflict_changes_nothing_and_spends_no_attempt,
        who_conflicts_three_times_has_its_buckets_to_itself,
        two_that_need_the_same_buckets_do_not_keep_each_other_out,
        a_bucket_is_free_when_its_delivery_is_over,
        a_write_that_cannot_be_done_refuses_the_settlement,
        transactions_are_serializable;
    together:
        deliveries_are_acked_together,
        keys_of_all_that_are_acked_together_are_free,
        one_stale_lease_refuses_what_is_acked_together,
        a_refused_emit_refuses_what_is_acked_together,
        state_commits_with_all_that_are_acked_together,
        only_different_acks_go_together;
    log:
        a_new_queue_is_filled_from_the_log,
        everything_may_be_handled_again,
        a_replay_begins_and_ends_where_it_is_told,
        a_replay_brings_what_a_subscription_wants,
        the_log_has_what_was_published_once,
        what_is_replayed_is_treated_as_new,
        the_log_forgets_what_is_old,
        a_replay_keeps_to_its_rate,
        a_replay_needs_a_log_and_a_queue;
    large:
        large_data_stays_whole,
        large_data_is_emitted,
        what_is_too_large_is_refused,
        large_and_small_events_keep_their_order;
    clocks:
        a_clock_that_is_set_ahead_makes_entries_due,
        a_clock_that_is_set_back_loses_nothing,
        a_clock_that_jumps_does_not_change_the_order_of_a_key,
        lifetimes_go_by_the_wall_clock,
        waits_go_by_a_clock_that_nobody_sets;
    deaths:
        every_death_is_told_once,
        deaths_are_told_in_their_order,
        what_does_not_die_is_not_told;
}
