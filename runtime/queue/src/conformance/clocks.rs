//! Rules of a wall clock that jumps. Each feature's own are with the feature.

use gristmill_core::{State, Timestamp};

use super::Rig;
use super::bench::{Bench, DAY, HOUR, MINUTE, SECOND, ack, event, ids, retry, three_attempts};
use super::ordering::with_keys;
use crate::contract::{Claim, Due, Publish, QueueOptions};

/// A clock that is set ahead makes due what is due by it, once.
pub async fn a_clock_that_is_set_ahead_makes_entries_due(rig: impl Rig) {
    let bench = Bench::with(rig, three_attempts()).await;
    bench.publish_with(Publish { due: Due::At(bench.now().after(DAY)), ..bench.one("tomorrow") }).await;
    bench.publish(&["retried"]).await;
    bench.settle(&bench.claim_one().await, retry()).await;
    let start = bench.now();
    let jumps = bench.jump_to(start.after(2 * DAY));
    let claimed = bench.claim_during(Claim::new(bench.name.clone(), 9), jumps).await;
    assert_eq!(ids(&claimed), ["retried", "tomorrow"]);
    bench.ack_all(&claimed).await;
    bench.jump_to(start).await;
    bench.jump_to(start.after(2 * DAY)).await;
    assert!(bench.claim(9).await.is_empty(), "once");
    assert_eq!(bench.stats().await.totals.acked, 2);
}

/// What was scheduled before the clock was set back comes when the clock is there again; later publishes come in time.
pub async fn a_clock_that_is_set_back_loses_nothing(rig: impl Rig) {
    let bench = Bench::with(rig, three_attempts()).await;
    let name = bench.name.clone();
    let delayed = |id, by| Publish { due: Due::After(by), ..Publish::new(event(id), [name.clone()]) };
    bench.publish_with(delayed("before", HOUR)).await;
    bench.publish(&["retried"]).await;
    bench.settle(&bench.claim_one().await, retry()).await;
    let start = bench.now();
    bench.publish_with(delayed("soon", SECOND)).await;
    bench.advance(SECOND).await;
    bench.ack_all(&bench.claim(9).await).await;
    bench.jump_to(Timestamp::from_micros(1_000_000)).await;
    bench.publish_with(delayed("after", HOUR)).await;
    let bench = bench.reopened().await;
    bench.publish(&["now"]).await;
    let claimed = bench.claim(9).await;
    assert_eq!(ids(&claimed), ["now"]);
    bench.ack_all(&claimed).await;
    bench.advance(HOUR).await;
    assert_eq!(ids(&bench.claim(9).await), ["after"]);
    assert_eq!(bench.stats().await.scheduled, 2);
    bench.jump_to(start.after(HOUR)).await;
    assert_eq!(ids(&bench.claim(9).await), ["retried", "before"]);
}

/// Whatever the clock does, nobody of a key is overtaken, and nobody is handled twice.
pub async fn a_clock_that_jumps_does_not_change_the_order_of_a_key(rig: impl Rig) {
    let Some(bench) = with_keys(rig, three_attempts()).await else { return };
    let start = bench.now();
    let mut order = Vec::new();
    for (n, id) in ["a1", "a2", "a3", "a4"].into_iter().enumerate() {
        let far = if n % 2 == 0 { start.after(n as u32 * DAY) } else { Timestamp::from_micros(1_000_000) };
        bench.jump_to(far).await;
        bench.publish_keyed(&[id]).await;
    }
    for jump in [start, Timestamp::from_micros(5), start.after(9 * DAY), Timestamp::from_micros(7)] {
        bench.jump_to(jump).await;
        let first = bench.claim(9).await;
        assert_eq!(first.len(), 1);
        bench.settle(&first[0], retry()).await;
        assert!(bench.claim(9).await.is_empty(), "it is scheduled, and the others are behind it");
        bench.advance(10 * SECOND).await;
        let again = bench.claim(9).await;
        assert_eq!((ids(&again), again[0].attempt), (ids(&first), 2));
        bench.settle(&again[0], ack()).await;
        order.push(first[0].event.id.clone());
    }
    assert_eq!(order, ["a1", "a2", "a3", "a4"]);
    assert_eq!(bench.stats().await.totals.acked, 4);
}

/// A jump back makes nobody older, and a jump ahead ends only what is judged by the wall clock.
pub async fn lifetimes_go_by_the_wall_clock(rig: impl Rig) {
    let options = QueueOptions { time_to_live: Some(HOUR), ..three_attempts() };
    let bench = Bench::with(rig, options).await;
    let start = bench.now();
    let entry = bench.publish(&["1"]).await.remove(0);
    bench.jump_to(Timestamp::from_micros(1_000_000)).await;
    bench.advance(2 * HOUR).await;
    assert_eq!(bench.state(&entry).await, Some(State::Ready), "a jump back only delays");
    bench.jump_to(start.after(HOUR)).await;
    assert_eq!(bench.state(&entry).await, Some(State::Dead));
    bench.publish(&["2"]).await;
    bench.ack_all(&bench.claim(9).await).await;
    bench.jump_to(start).await;
    bench.advance(MINUTE).await;
    assert_eq!(bench.listed(State::Done).await, ["2"]);
    bench.jump_to(start.after(2 * DAY)).await;
    bench.advance(SECOND).await;
    assert_eq!(bench.stats().await.done, 0);
}

/// A wait for a claim is as long as it was to be, whatever the wall clock shows.
pub async fn waits_go_by_a_clock_that_nobody_sets(rig: impl Rig) {
    let bench = Bench::new(rig).await;
    let claim = bench.rig.queue().claim(Claim::new(bench.name.clone(), 1).wait(MINUTE));
    let jumps = async {
        bench.rig.tick().await;
        bench.jump_to(bench.now().after(DAY)).await;
        bench.publish(&["1"]).await;
    };
    let (claimed, ()) = tokio::join!(claim, jumps);
    assert_eq!(ids(&claimed.unwrap()), ["1"], "it still waited");
    let claim = bench.rig.queue().claim(Claim::new(bench.name.clone(), 1).wait(MINUTE));
    let jumps = async {
        bench.rig.tick().await;
        bench.jump_to(Timestamp::from_micros(1_000_000)).await;
        bench.advance(MINUTE).await;
    };
    assert_eq!(tokio::join!(claim, jumps).0, Ok(Vec::new()), "and no longer");
}
