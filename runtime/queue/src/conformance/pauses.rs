//! Rules of pauses that come from several: people, and whoever pauses a queue by itself and probes whether it may go on.

use gristmill_core::State;

use super::Rig;
use super::bench::{Bench, DAY, MINUTE, ack, ids, reject, types};
use super::queues::{pause, resume};
use crate::contract::{Claim, Feature, Operation, PauseIf, QueueOptions, Rate, ResumeIf, Then};

/// The reason of what pauses by itself.
const OWN: &str = "five failures in a row";
/// A person's.
const BY_HAND: &str = "the bank is down";

fn pause_if_not_paused<R: Rig>(bench: &Bench<R>, reason: &str) -> Operation {
    Operation::Pause { queue: bench.name.clone(), reason: reason.to_owned(), only_if: PauseIf::NotPaused }
}

fn resume_from<R: Rig>(bench: &Bench<R>, reason: &str) -> Operation {
    Operation::Resume { queue: bench.name.clone(), only_if: ResumeIf::Reason(reason.to_owned()) }
}

fn through<R: Rig>(bench: &Bench<R>, reason: &str) -> Claim {
    Claim::new(bench.name.clone(), 1).through(reason)
}

async fn reason<R: Rig>(bench: &Bench<R>) -> Option<String> {
    bench.stats().await.paused
}

/// What pauses by itself takes nobody's pause over, and ends none but its own; a person's word counts in any case. The
/// answer says whether it was done.
pub async fn a_pause_by_hand_is_not_taken_over(rig: impl Rig) {
    let bench = Bench::new(rig).await;
    assert_eq!(bench.operate(resume_from(&bench, OWN)).await.changed, 0, "it is not paused");
    assert_eq!(bench.operate(pause_if_not_paused(&bench, OWN)).await.changed, 1);
    assert_eq!(bench.operate(pause_if_not_paused(&bench, "another")).await.changed, 0);
    assert_eq!(reason(&bench).await.as_deref(), Some(OWN));
    assert_eq!(bench.operate(pause(&bench, BY_HAND)).await.changed, 1, "a person takes it over");
    for operation in [pause_if_not_paused(&bench, OWN), resume_from(&bench, OWN), resume_from(&bench, "")] {
        assert_eq!(bench.operate(operation.clone()).await.changed, 0, "{operation:?}");
        assert_eq!(reason(&bench).await.as_deref(), Some(BY_HAND), "{operation:?}");
    }
    let bench = bench.reopened().await;
    assert_eq!(bench.operate(resume_from(&bench, BY_HAND)).await.changed, 1);
    assert_eq!(reason(&bench).await, None);
    for _ in 0..2 {
        assert_eq!(bench.operate(resume(&bench)).await.changed, 1, "paused or not");
    }
}

/// A claim goes through the pause that it names, also after a reopen, and through no other; without a pause it is like
/// any claim.
pub async fn a_claim_goes_through_the_pause_that_it_names(rig: impl Rig) {
    let bench = Bench::new(rig).await;
    bench.publish(&["1", "2", "3", "4"]).await;
    bench.operate(pause_if_not_paused(&bench, OWN)).await;
    assert!(bench.claim(9).await.is_empty());
    for other in ["", "five failures", "five failures in a row ", BY_HAND] {
        assert!(bench.claim_with(through(&bench, other)).await.is_empty(), "{other:?}");
    }
    let probe = bench.claim_with(through(&bench, OWN)).await;
    assert_eq!((ids(&probe), probe[0].attempt), (vec!["1"], 1));
    bench.settle(&probe[0], ack()).await;
    let bench = bench.reopened().await;
    let acked = bench.claim_with(Claim { then: Then::Ack, ..through(&bench, OWN) }).await;
    assert_eq!(ids(&acked), ["2"]);
    assert!(bench.claim(9).await.is_empty(), "it is still paused for everybody else");
    bench.operate(pause(&bench, BY_HAND)).await;
    assert!(bench.claim_with(through(&bench, OWN)).await.is_empty(), "a person has stopped it");
    bench.operate(resume(&bench)).await;
    assert_eq!(ids(&bench.claim_with(through(&bench, OWN)).await), ["3"]);
    assert_eq!(ids(&bench.claim(9).await), ["4"]);
}

/// A pause is all that such a claim goes through: limits, rates and filters hold for it.
pub async fn a_claim_through_a_pause_keeps_to_the_limits(rig: impl Rig) {
    let bench = Bench::with(rig, QueueOptions { max_in_flight: 2, ..QueueOptions::default() }).await;
    bench.publish(&["1", "2", "3"]).await;
    bench.publish_with(bench.typed("odd", "odd")).await;
    bench.operate(pause(&bench, OWN)).await;
    let all = || Claim { max: 9, ..through(&bench, OWN) };
    if bench.has(Feature::FilteredClaims) {
        let odd = bench.claim_with(Claim { types: types(&["odd"]), ..all() }).await;
        assert_eq!(ids(&odd), ["odd"]);
        assert!(bench.claim_with(Claim { through: None, types: types(&["odd"]), ..all() }).await.is_empty());
        bench.settle(&odd[0], ack()).await;
    }
    assert_eq!(ids(&bench.claim_with(all()).await), ["1", "2"]);
    assert!(bench.claim_with(all()).await.is_empty());
    if bench.has(Feature::Rates) {
        let rate = Some(Rate { per_second: 1.0 / 60.0, burst: 1 });
        let paced = bench.add_queue_with("paced", QueueOptions { rate, ..QueueOptions::default() }).await;
        let bench = bench.of(paced);
        bench.publish(&["a", "b"]).await;
        bench.operate(pause(&bench, OWN)).await;
        let all = || Claim { max: 9, ..through(&bench, OWN) };
        assert_eq!(ids(&bench.claim_with(all()).await), ["a"]);
        assert!(bench.claim_with(all()).await.is_empty());
        let later = async { bench.advance(MINUTE).await };
        assert_eq!(ids(&bench.claim_during(all(), later).await), ["b"], "the rate wakes it while the queue is paused");
    }
}

/// A claim that waits goes through as soon as the pause is the one that it names, or is over.
pub async fn a_claim_that_waits_is_woken_by_the_pause_that_it_names(rig: impl Rig) {
    let bench = Bench::new(rig).await;
    bench.publish(&["1", "2"]).await;
    bench.operate(pause(&bench, BY_HAND)).await;
    let becomes_its_own = async {
        bench.operate(pause(&bench, "another")).await;
        assert_eq!(bench.stats().await.ready, 2);
        bench.operate(pause(&bench, OWN)).await;
    };
    assert_eq!(ids(&bench.claim_during(through(&bench, OWN), becomes_its_own).await), ["1"]);
    bench.operate(pause(&bench, BY_HAND)).await;
    let ends = async {
        assert_eq!(bench.operate(resume_from(&bench, OWN)).await.changed, 0);
        assert_eq!(bench.stats().await.ready, 1);
        bench.operate(resume(&bench)).await;
    };
    assert_eq!(ids(&bench.claim_during(through(&bench, OWN), ends).await), ["2"]);
}

/// What comes into a paused queue wakes the claim that goes through, also behind others that wait for the end of the
/// pause; they get what is left.
pub async fn who_waits_for_the_end_of_a_pause_stands_in_nobodys_way(rig: impl Rig) {
    let bench = Bench::new(rig).await;
    bench.operate(pause(&bench, OWN)).await;
    let mut patient = Box::pin(bench.rig.queue().claim(Claim::new(bench.name.clone(), 9).wait(DAY)));
    tokio::select! {
        biased;
        _ = &mut patient => panic!("the queue is paused"),
        () = bench.rig.tick() => {}
    }
    let publishes = async {
        bench.publish(&["1", "2"]).await;
    };
    let probe = bench.claim_during(through(&bench, OWN), publishes).await;
    assert_eq!(ids(&probe), ["1"]);
    bench.settle(&probe[0], reject()).await;
    assert_eq!(bench.listed(State::Ready).await, ["2"]);
    assert_eq!(bench.operate(resume_from(&bench, OWN)).await.changed, 1);
    assert_eq!(ids(&patient.await.unwrap()), ["2"]);
}

/// A person's pause stops also the probe that waits already.
pub async fn a_pause_by_hand_stops_a_claim_that_waits(rig: impl Rig) {
    let bench = Bench::new(rig).await;
    bench.operate(pause(&bench, OWN)).await;
    let by_hand = async {
        bench.operate(pause(&bench, BY_HAND)).await;
        bench.publish(&["1"]).await;
        bench.rig.tick().await;
        assert_eq!(bench.stats().await.ready, 1, "it is not taken");
        bench.operate(resume(&bench)).await;
    };
    assert_eq!(ids(&bench.claim_during(through(&bench, OWN), by_hand).await), ["1"]);
}
