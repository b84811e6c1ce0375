//! Damage to what belongs to entries: ordering keys, the order of completion, bodies, the log, and state.

use super::*;

#[tokio::test]
async fn entries_that_wait_without_their_key_are_found() {
    let problems = damaged(|view, tx| tx.delete(Family::Key, key_record(view, "paced", "slow").0)).await;
    let nobody = "waiting: it waits for an ordering key that is not in use";
    assert_eq!(problems, [nobody, nobody]);
    let problems = damaged(|view, tx| tx.delete(Family::Key, key_record(view, "ordered", "free").0)).await;
    let busy = "key: it is missing, or cannot be read, and 1 entries are busy with it";
    assert_eq!(problems, [nobody, nobody, busy]);
}

#[tokio::test]
async fn keys_that_do_not_add_up_are_found() {
    let change = async |name: &'static str, change: fn(&mut KeyRecord)| {
        damaged(|view, tx| {
            let (key, mut record) = key_record(view, if name == "slow" { "paced" } else { "ordered" }, name);
            change(&mut record);
            tx.put(Family::Key, key, record.encode());
        })
        .await
    };
    let busy = change("free", |record| record.busy += 1).await;
    assert_eq!(busy, ["key: it counts 2 busy; there are 1"]);
    let retried = change("retried", |record| record.busy += 1).await;
    assert_eq!(retried, ["key: it counts 2 busy; there are 1"], "a scheduled attempt is busy");
    let waiting = change("free", |record| record.waiting += 1).await;
    assert_eq!(waiting, ["key: it counts 3 waiting; there are 2"]);
    let bogus = |record: &mut KeyRecord| record.held_by.push(EntryKey { queue: 1, priority: 0, number: 5 });
    let held = change("free", bogus).await;
    assert_eq!(held, ["key: it is held by entry number 5, which is no dead letter that does"]);
    let unknown = change("held", |record| record.held_by.clear()).await;
    let of = "dead: it holds its ordering key, which does not know it";
    assert_eq!(unknown, [of, "key: entries wait behind nobody"]);
    let timer = change("slow", |record| record.timer = Some(Timestamp::from_micros(7))).await;
    assert!(timer.len() == 1 && timer[0].starts_with("key: the timer that it set to"), "{timer:?}");
    let from = change("slow", |record| record.from = u64::MAX).await;
    assert!(from.len() == 2 && from[0].contains("looks for entries that wait from"), "{from:?}");
    let id = change("slow", |record| record.id = 3).await;
    let number = "waiting: its ordering key has the number 3";
    assert_eq!(id, [number, number, "key: it counts 2 waiting; there are 0"]);
}

#[tokio::test]
async fn a_key_that_nobody_uses_is_found() {
    let problems = damaged(|view, tx| {
        let key = named_key(queue(view, "ordered").2, "unused");
        tx.put(Family::Key, key, KeyRecord::new(3).encode());
    })
    .await;
    assert_eq!(problems, ["key: nobody uses it"]);
}

#[tokio::test]
async fn two_keys_with_one_number_are_found() {
    let problems = damaged(|view, tx| {
        let (_, record) = key_record(view, "ordered", "free");
        let key = named_key(queue(view, "ordered").2, "another");
        tx.put(Family::Key, key, KeyRecord { busy: 0, timer: None, ..record }.encode());
    })
    .await;
    assert_eq!(problems, ["key: 2 entries wait for it that have another key", "key: entries wait behind nobody"]);
}

#[tokio::test]
async fn done_entries_out_of_order_are_found() {
    let order = |view: &dyn View| {
        first(view, Family::DoneOrder, |key, value| {
            let queue = EndKey::decode(key).ok()?.queue;
            let order = DoneOrderRecord::decode(value).ok()?;
            let done = EndKey { queue, position: order.numbers[0] };
            (order.numbers.len() == 1 && view.get(Family::Done, &done.encode()).unwrap().is_some()).then_some(order)
        })
    };
    let missing = damaged(|view, tx| tx.delete(Family::DoneOrder, order(view).0)).await;
    assert_eq!(missing, ["done: it is in the order of completion 0 times, not once"]);
    let twice = damaged(|view, tx| {
        let (key, mut record) = order(view);
        record.numbers.push(record.numbers[0]);
        tx.put(Family::DoneOrder, key, record.encode());
    })
    .await;
    assert_eq!(twice, ["done: it is in the order of completion 2 times, not once"]);
    let purged = damaged(|view, tx| {
        let (key, mut record) = order(view);
        record.numbers.push(3);
        tx.put(Family::DoneOrder, key, record.encode());
    })
    .await;
    assert!(purged.is_empty(), "{purged:?}");
}

#[tokio::test]
async fn what_lists_do_not_show_is_found() {
    for (family, from) in [
        (Family::DoneOrder, (|from| &mut from.done) as fn(&mut ListCursors) -> &mut u64),
        (Family::Dead, |from| &mut from.dead),
        (Family::Cancelled, |from| &mut from.cancelled),
    ] {
        let problems = damaged(|view, tx| {
            let (key, mut record, id) = queue(view, "work");
            let at = EndKey::decode(&all(view, family, &id.to_be_bytes())[0].0).unwrap();
            *from(&mut record.from) = at.position + 1;
            tx.put(Family::Meta, key, record.encode());
        })
        .await;
        assert_eq!(problems, [format!("{}: it is before the place where its queue's list begins", name(family))]);
    }
}

#[tokio::test]
async fn bodies_and_references_that_differ_are_found() {
    let unused = damaged(|_, tx| tx.put(Family::Body, number_key(3), "data")).await;
    assert_eq!(unused, ["body: it counts 1 references; there are 0"]);
    let counted = |view: &dyn View| first(view, Family::BodyCount, |_, value| NumberRecord::decode(value).ok());
    let wrong = damaged(|view, tx| {
        let (key, count) = counted(view);
        tx.put(Family::BodyCount, key, NumberRecord(count.0 + 1).encode());
    })
    .await;
    assert!(wrong.len() == 1 && wrong[0].starts_with("body: it counts "), "{wrong:?}");
    let missing = damaged(|view, tx| {
        let (key, _) = counted(view);
        tx.delete(Family::Body, key.clone());
        tx.delete(Family::BodyCount, key);
    })
    .await;
    let [problem] = missing.as_slice() else { panic!("{missing:?}") };
    assert!(problem.contains(" references are to ") && problem.ends_with("there is no such body"), "{problem}");
    let needless = damaged(|_, tx| {
        tx.put(Family::Body, number_key(3), "data");
        tx.put(Family::BodyCount, number_key(3), NumberRecord(1).encode());
    })
    .await;
    assert_eq!(needless, ["body-count: it counts 1, which is not counted", unused[0].as_str()]);
    let of_nothing = damaged(|_, tx| tx.put(Family::BodyCount, number_key(3), NumberRecord(2).encode())).await;
    assert_eq!(of_nothing, ["body-count: there is no such body"]);
    let shorter = damaged(|view, tx| {
        let (key, _) = counted(view);
        let value = view.get(Family::Body, &key).unwrap().unwrap();
        tx.put(Family::Body, key, value.slice(1..));
    })
    .await;
    assert_eq!(shorter.len(), 2, "{shorter:?}");
    assert!(shorter[0].ends_with(" references; there are 0"), "{shorter:?}");
}

#[tokio::test]
async fn a_log_that_does_not_add_up_is_found() {
    let segment = |view: &dyn View| {
        first(view, Family::Meta, |key, value| match Meta::decode(key) {
            Ok(Meta::Segment(_)) => SegmentRecord::decode(value).ok(),
            _ => None,
        })
    };
    let count = damaged(|view, tx| {
        let (key, record) = segment(view);
        tx.put(Family::Meta, key, SegmentRecord { events: record.events + 1, ..record }.encode());
    })
    .await;
    assert!(count.len() == 1 && count[0].starts_with("meta: it counts"), "{count:?}");
    let missing = damaged(|view, tx| tx.delete(Family::Meta, segment(view).0)).await;
    assert!(missing.len() == 1 && missing[0].starts_with("meta: it is missing, and has"), "{missing:?}");
    let unreferred = damaged(|view, tx| tx.delete(Family::LogBody, all(view, Family::LogBody, &[])[1].0.clone())).await;
    let found: Vec<_> = unreferred.iter().map(|problem| problem.split(':').next().unwrap()).collect();
    assert_eq!(found, ["log", "body"], "not referred to by its segment, and counted too often: {unreferred:?}");
    let too_many = damaged(|view, tx| {
        let at = LogKey::decode(&all(view, Family::LogBody, &[])[0].0).unwrap();
        tx.put(Family::LogBody, LogKey { position: 3, ..at }.encode(), Vec::new());
    })
    .await;
    assert!(too_many.len() == 1 && too_many[0].starts_with("meta: it refers to "), "{too_many:?}");
}

#[tokio::test]
async fn a_segment_that_is_half_gone_is_sound() {
    let problems = damaged(|view, tx| {
        // As the engine does it: the first bodies go, the events later.
        for (key, _) in all(view, Family::LogBody, &[]).into_iter().take(3) {
            let body = number_key(LogKey::decode(&key).unwrap().position);
            tx.delete(Family::LogBody, key);
            match view.get(Family::BodyCount, &body).unwrap().map(|count| NumberRecord::decode(&count).unwrap().0) {
                None => tx.delete(Family::Body, body),
                Some(2) => tx.delete(Family::BodyCount, body),
                Some(count) => tx.put(Family::BodyCount, body, NumberRecord(count - 1).encode()),
            }
        }
    })
    .await;
    assert!(problems.is_empty(), "{problems:?}");
}

#[tokio::test]
async fn state_that_does_not_add_up_is_found() {
    let bucket = |view: &dyn View| {
        first(view, Family::Meta, |key, value| match Meta::decode(key) {
            Ok(Meta::Bucket(_)) => BucketRecord::decode(value).ok(),
            _ => None,
        })
    };
    let bytes = damaged(|view, tx| {
        let (key, record) = bucket(view);
        tx.put(Family::Meta, key, BucketRecord { bytes: record.bytes + 1, ..record }.encode());
    })
    .await;
    assert!(bytes.len() == 1 && bytes[0].starts_with("meta: it counts"), "{bytes:?}");
    let unknown = damaged(|_, tx| tx.put(Family::State, named_key(99, "k"), vec![1])).await;
    assert_eq!(unknown, ["state: there is no bucket number 99"]);
    let named = damaged(|view, tx| {
        let (_, record) = bucket(view);
        tx.put(Family::Meta, Meta::Bucket(99).encode(), BucketRecord { bytes: 0, ..record }.encode());
    })
    .await;
    assert!(named.len() == 1 && named[0].starts_with("meta: another bucket is called"), "{named:?}");
}
