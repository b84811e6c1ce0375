//! Rules of the options of ordering keys: whose value they are, how many at once, and what dead letters mean.

use gristmill_core::{Event, State};

use super::Rig;
use super::bench::{Bench, HOUR, ack, ids, reject};
use super::ordering::with_keys;
use crate::contract::{
    ActReply, Action, Claim, KeyOptions, ListKeys, OnDead, Operation, Publish, QueueError, QueueOptions, Retention,
    Selection, WhichKeys,
};

fn keys(key: KeyOptions) -> QueueOptions {
    QueueOptions { key, ..QueueOptions::default() }
}

fn holding() -> QueueOptions {
    keys(KeyOptions { on_dead: OnDead::Hold, ..KeyOptions::default() })
}

/// A queue knows where its events have their keys; the publisher knows better.
pub async fn the_key_of_an_event_is_one_of_its_attributes(rig: impl Rig) {
    let by = |attribute: &str| keys(KeyOptions { attribute: Some(attribute.to_owned()), ..KeyOptions::default() });
    let Some(bench) = with_keys(rig, by("subject")).await else { return };
    let regional = bench.add_queue_with("regional", by("region")).await;
    let bench = bench.reopened().await;
    let mut event = Event::new("1", "/test", "test.happened");
    event.subject = Some("order-7".into());
    event.extensions.insert("region".into(), "eu".into());
    let both = [bench.name.clone(), regional.clone()];
    bench.publish_with(Publish::new(event.clone(), both.clone())).await;
    bench.publish_with(Publish { key: Some("given".into()), ..Publish::new(event, both) }).await;
    bench.publish(&["bare"]).await;
    let key_of = |claimed: &[crate::contract::Delivery]| -> Vec<_> {
        claimed.iter().map(|delivery| delivery.key.as_deref().map(str::to_owned)).collect()
    };
    assert_eq!(key_of(&bench.claim(9).await), [Some("order-7".into()), Some("given".into()), None]);
    assert_eq!(key_of(&bench.claim_from(&regional, 9).await), [Some("eu".into()), Some("given".into())]);
}

/// Who gives up the order gets several at a time, and no more than that.
pub async fn as_many_entries_of_a_key_are_handled_as_its_concurrency_says(rig: impl Rig) {
    let options = keys(KeyOptions { concurrency: 2, ..KeyOptions::default() });
    let Some(bench) = with_keys(rig, options).await else { return };
    bench.publish_keyed(&["a1", "a2", "a3", "a4", "b1"]).await;
    let claimed = bench.claim(9).await;
    assert_eq!(ids(&claimed), ["a1", "a2", "b1"]);
    assert_eq!(
        bench.keys(WhichKeys::Active).await.iter().map(|key| (key.busy, key.waiting)).collect::<Vec<_>>(),
        [(2, 2), (1, 0)]
    );
    bench.settle(&claimed[1], ack()).await;
    assert_eq!(ids(&bench.claim(9).await), ["a3"]);
}

/// Where the order matters more than anything, a dead letter stops its key. The list shows which, and why.
pub async fn a_dead_letter_may_hold_its_key(rig: impl Rig) {
    let Some(bench) = with_keys(rig, holding()).await else { return };
    let entries = bench.publish_keyed(&["a1", "a2", "a3", "b1", "b2"]).await;
    let claimed = bench.claim(9).await;
    bench.settle(&claimed[0], reject()).await;
    bench.settle(&claimed[1], ack()).await;
    assert_eq!(ids(&bench.claim(9).await), ["b2"], "another key");
    let bench = bench.reopened().await;
    bench.publish_keyed(&["a4"]).await;
    assert!(bench.claim(9).await.iter().all(|delivery| delivery.key.as_deref() == Some("b")));
    let held = bench.keys(WhichKeys::Held).await;
    assert_eq!(held.len(), 1);
    assert_eq!((held[0].key.as_str(), held[0].busy, held[0].waiting), ("a", 0, 3));
    assert_eq!(held[0].held_by, [entries[0].clone()]);
    assert_eq!(bench.state(&entries[1]).await, Some(State::Waiting));
}

async fn hold_up<R: Rig>(bench: &Bench<R>) -> gristmill_core::EntryId {
    let entries = bench.publish_keyed(&["a1", "a2", "a3"]).await;
    bench.settle(&bench.claim_one().await, reject()).await;
    assert!(bench.claim(9).await.is_empty(), "the key is held");
    entries[0].clone()
}

async fn handles<R: Rig>(bench: &Bench<R>, expected: &[&str]) {
    for id in expected {
        let claimed = bench.claim(9).await;
        assert_eq!(ids(&claimed), [*id]);
        bench.settle(&claimed[0], ack()).await;
    }
    assert!(bench.claim(9).await.is_empty());
    assert_eq!(bench.keys(WhichKeys::Active).await, []);
}

/// A held key goes on by decree; its dead letter has lost its place.
pub async fn a_held_key_may_be_freed(rig: impl Rig) {
    let Some(bench) = with_keys(rig, holding()).await else { return };
    let dead = hold_up(&bench).await;
    let free = |key: &str| Operation::FreeKey { queue: bench.name.clone(), key: key.to_owned() };
    assert_eq!(bench.operate(free("b")).await.changed, 0, "nobody holds it");
    assert_eq!(bench.operate(free("a")).await.changed, 1);
    assert_eq!(bench.keys(WhichKeys::Held).await, []);
    assert_eq!(bench.state(&dead).await, Some(State::Dead), "as dead as before");
    assert_eq!(bench.act_on(Action::Redrive, &dead).await, ActReply::Done);
    handles(&bench, &["a2", "a3", "a1"]).await;
}

/// A dead letter that holds its key is its head again when it is redriven.
pub async fn a_redrive_of_what_holds_a_key_goes_first(rig: impl Rig) {
    let Some(bench) = with_keys(rig, holding()).await else { return };
    let dead = hold_up(&bench).await;
    assert_eq!(bench.act_on(Action::Redrive, &dead).await, ActReply::Done);
    assert_eq!(bench.keys(WhichKeys::Held).await, []);
    handles(&bench, &["a1", "a2", "a3"]).await;
}

/// A dead letter that goes away holds nothing.
pub async fn a_key_is_freed_when_what_holds_it_goes(rig: impl Rig) {
    let Some(bench) = with_keys(rig, holding()).await else { return };
    let other = bench.add_queue("other").await;
    for action in [Action::Purge, Action::Move(other.clone())] {
        let dead = hold_up(&bench).await;
        let freed = async {
            bench.act_on(action, &dead).await;
        };
        let woken = bench.claim_during(Claim::new(bench.name.clone(), 9), freed).await;
        assert_eq!(ids(&woken), ["a2"]);
        bench.ack_all(&woken).await;
        handles(&bench, &["a3"]).await;
    }
    assert_eq!(ids(&bench.claim_from(&other, 9).await), ["a1"]);
    let dead = Retention { age: Some(HOUR), count: None };
    bench.configure(QueueOptions { dead, ..holding() }).await;
    let dead = hold_up(&bench).await;
    bench.advance(HOUR).await;
    assert_eq!(bench.state(&dead).await, None, "retention");
    handles(&bench, &["a2", "a3"]).await;
}

/// A poison event stops those behind it, however often it is redriven; and nobody else.
pub async fn a_key_is_held_again_when_its_head_dies_again(rig: impl Rig) {
    let Some(bench) = with_keys(rig, holding()).await else { return };
    let dead = hold_up(&bench).await;
    for _ in 0..3 {
        bench.act_on(Action::Redrive, &dead).await;
        let claimed = bench.claim(9).await;
        assert_eq!(ids(&claimed), ["a1"]);
        bench.settle(&claimed[0], reject()).await;
        let held = bench.keys(WhichKeys::Held).await;
        assert_eq!((held[0].held_by.clone(), held[0].waiting), (vec![dead.clone()], 2));
    }
}

/// Pages add up to the keys in use, in byte order.
pub async fn keys_are_listed_in_pages(rig: impl Rig) {
    let Some(bench) = with_keys(rig, QueueOptions::default()).await else { return };
    let mut expected: Vec<_> = (0..25).map(|n| format!("key-{}", n * 7 % 25)).collect();
    for key in &expected {
        bench.publish_all(vec![bench.keyed("head", key), bench.keyed("next", key)]).await;
    }
    expected.sort();
    for limit in [1, 7, 25, 1_000] {
        let (mut seen, mut cursor) = (Vec::new(), None);
        for _ in 0..30 {
            let request = ListKeys { limit, cursor, ..ListKeys::new(bench.name.clone()) };
            let page = bench.rig.queue().keys(request).await.unwrap();
            assert!(page.keys.len() <= limit);
            assert!(page.keys.iter().all(|key| (key.busy, key.waiting) == (1, 1)));
            seen.extend(page.keys.into_iter().map(|key| key.key));
            cursor = page.next;
            if cursor.is_none() {
                break;
            }
        }
        assert_eq!(seen, expected, "by {limit}");
    }
    let nonsense = ListKeys { limit: 0, ..ListKeys::new(bench.name.clone()) };
    assert!(matches!(bench.rig.queue().keys(nonsense).await, Err(QueueError::InvalidRequest(_))));
    let all = bench.act(Action::Cancel, Selection::Where(bench.all())).await;
    assert_eq!(all.changed, 50, "heads and those behind them");
    assert_eq!(bench.keys(WhichKeys::Active).await, []);
}
