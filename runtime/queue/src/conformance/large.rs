//! Rules of large events.

use gristmill_core::{Event, EventError, State};

use super::bench::{Bench, SECOND, ack, ids, reject, retry, three_attempts};
use super::{Rig, RigOptions};
use crate::contract::{ActReply, Action, Claim, Publish, PublishError, Settle, SettleReply, Then};

const DATA: u64 = 16 << 20;

/// A bench that takes events with 16 MiB of data, or what the engine makes of that; an event of the largest size.
async fn spacious<R: Rig>(rig: R) -> (Bench<R>, Event) {
    let bench = Bench::opened(rig, RigOptions { max_event_size: DATA + 1_024, ..RigOptions::default() }).await;
    bench.configure(three_attempts()).await;
    let max = bench.rig.queue().capabilities().max_event_size;
    let mut event = Event::new("large", "/test", "test.happened");
    let room = usize::try_from(max - event.size()).unwrap();
    // No two places of it are alike for long, so that a piece that is missing or in the wrong place is found out.
    let data: Vec<u8> = (0..room).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    event.data = Some(data.into());
    assert_eq!(event.size(), max);
    (bench, event)
}

/// However large, the data is as it was published: at every attempt, in every queue, before and after a reopen.
pub async fn large_data_stays_whole(rig: impl Rig) {
    let (bench, event) = spacious(rig).await;
    let audit = bench.add_queue("audit").await;
    let entry = bench.publish_with(Publish::new(event.clone(), [bench.name.clone(), audit.clone()])).await;
    assert!(*bench.entry(&entry).await.event == event, "as it is looked at");
    for attempt in 1..=3 {
        let delivery = bench.claim_one().await;
        assert_eq!(delivery.attempt, attempt);
        assert!(*delivery.event == event, "attempt {attempt}");
        bench.settle(&delivery, retry()).await;
        bench.advance(20 * SECOND).await;
    }
    let bench = bench.reopened().await;
    let dead = bench.entry(&entry).await;
    assert!(dead.state == State::Dead && *dead.event == event, "as a dead letter");
    let claimed = bench.claim_from(&audit, 9).await;
    assert!(*claimed[0].event == event, "in another queue");
    bench.settle(&claimed[0], ack()).await;
    assert!(bench.entry(&claimed[0].entry).await.event.data.is_none(), "done, and its data is not kept");
    assert!(*bench.entry(&entry).await.event == event, "what one queue is done with, another still has");
    let ActReply::Moved(moved) = bench.act_on(Action::Move(audit.clone()), &entry).await else { panic!("moved") };
    assert!(*bench.entry(&moved).await.event == event, "moved");
    let acked = bench.claim_with(Claim { then: Then::Ack, ..Claim::new(audit, 1) }).await;
    assert!(*acked[0].event == event, "and acked with the claim");
}

/// What a handler emits may be as large, and so may its result.
pub async fn large_data_is_emitted(rig: impl Rig) {
    let (bench, event) = spacious(rig).await;
    bench.publish(&["1"]).await;
    let delivery = bench.claim_one().await;
    let emits = vec![Publish::new(event.clone(), [bench.name.clone()])];
    let settled = bench.settle_with(Settle { emits, ..Settle::new(delivery.lease, ack()) }).await;
    assert!(matches!(settled, SettleReply::Settled(_)));
    assert!(*bench.claim_one().await.event == event);
}

/// One byte more is too much, and nobody else's business.
pub async fn what_is_too_large_is_refused(rig: impl Rig) {
    let (bench, mut event) = spacious(rig).await;
    let max = event.size();
    event.id.push('r');
    let batch = vec![bench.one("1"), Publish::new(event, [bench.name.clone()]), bench.one("2")];
    let results = bench.rig.queue().publish(batch.clone()).await.unwrap().results;
    let too_large = PublishError::Invalid(EventError::TooLarge { actual: max + 1, max });
    assert_eq!(results[1], Err(too_large.clone()));
    let claimed = bench.claim(9).await;
    assert_eq!(ids(&claimed), ["1", "2"]);
    let emits = vec![batch[1].clone()];
    let refused = bench.settle_with(Settle { emits, ..Settle::new(claimed[0].lease, ack()) }).await;
    assert_eq!(refused, SettleReply::Refused(too_large));
    assert!(matches!(bench.settle_with(Settle::new(claimed[0].lease, reject())).await, SettleReply::Settled(_)));
}

/// A claim brings as many as it was asked for, large and small, in their order.
pub async fn large_and_small_events_keep_their_order(rig: impl Rig) {
    let bench = Bench::new(rig).await;
    let publish = |n: usize| {
        let mut event = Event::new(n.to_string(), "/test", "test.happened");
        event.data = Some(vec![n as u8; [10, 4_096, 4_097, 300_000][n % 4]].into());
        Publish::new(event, [bench.name.clone()])
    };
    bench.publish_all((0..40).map(publish).collect()).await;
    let bench = bench.reopened().await;
    let claimed = bench.claim(40).await;
    for (n, delivery) in claimed.iter().enumerate() {
        let data = delivery.event.data.as_ref().unwrap();
        assert_eq!((delivery.event.id.clone(), data.len()), (n.to_string(), [10, 4_096, 4_097, 300_000][n % 4]));
        assert!(data.iter().all(|byte| *byte == n as u8));
    }
    assert_eq!(claimed.len(), 40);
    bench.ack_all(&claimed).await;
    assert_eq!(bench.stats().await.bytes, 0);
}
