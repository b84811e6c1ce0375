//! Fuzzing, in the tree and without a fuzzer: every decoder is fed valid bytes that were bent, cut, lengthened and
//! mixed, and random ones; and engines are opened on stores in which records were damaged. Nothing may panic or hang.
//!
//! `GRISTMILL_SOAK=1` runs a hundred times as many rounds. A failure names its seed; `GRISTMILL_SEED` runs it again.
#![allow(clippy::indexing_slicing, reason = "assertions")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use gristmill_core::{EntryId, ManualClock, Outcome, State, Timestamp};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::due::DueValue;
use super::entry::EntryRecord;
use super::event::EncodedEvent;
use super::ids::EntryKey;
use super::inspect::{decode_cursor, encode_cursor};
use super::keys::*;
use super::records::*;
use super::store::{Tx, for_each};
use super::verify::tests::lived_in;
use super::{Engine, EngineOptions, Memory, kv};
use crate::contract::*;

/// Rounds of each decoder.
const DECODER_ROUNDS: usize = 2_000;
/// Stores that are damaged.
const STORE_ROUNDS: usize = 60;
/// How long an engine may take over a damaged store.
const PATIENCE: Duration = Duration::from_secs(60);

fn rounds(rounds: usize) -> usize {
    if std::env::var_os("GRISTMILL_SOAK").is_some() { rounds * 100 } else { rounds }
}

fn seed() -> u64 {
    let seed = std::env::var("GRISTMILL_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(rand::random);
    println!("GRISTMILL_SEED={seed}");
    seed
}

/// Feeds a decoder; what it accepts must mean the same when it is written and read again.
type Decoder = fn(&Bytes);

/// Everything that reads stored bytes, and which family its keys or values are of.
const KEYS: [(&str, Option<Family>, Decoder); 11] = [
    ("ready key", Some(Family::Ready), |b| again(ReadyKey::decode(b), |key| key.encode(), b)),
    ("waiting key", Some(Family::Waiting), |b| again(WaitingKey::decode(b), |key| key.encode(), b)),
    ("due key", Some(Family::Due), |b| again(DueKey::decode(b), |key| key.encode(), b)),
    ("end key", Some(Family::Done), |b| again(EndKey::decode(b), |key| key.encode(), b)),
    ("log key", Some(Family::Log), |b| again(LogKey::decode(b), |key| key.encode(), b)),
    ("number key", Some(Family::Place), |b| again(decode_number_key(b), number_key, b)),
    ("named key", Some(Family::Key), |b| again(decode_named_key(b), |(number, name)| named_key(number, name), b)),
    ("state key", Some(Family::State), |b| again(decode_named_key(b), |(number, name)| named_key(number, name), b)),
    ("origin key", Some(Family::Origin), |b| {
        again(decode_origin_key(b), |(kind, source, id)| origin_key(kind, source, id), b);
    }),
    ("meta key", Some(Family::Meta), |b| again(Meta::decode(b), Meta::encode, b)),
    ("lane", None, |b| {
        if let Some(byte) = b.first() {
            again(Lane::from_stored(*byte), |lane| Key::from_slice(&[lane.stored()]), &b.slice(..1));
        }
    }),
];

const VALUES: [(&str, Family, Decoder); 22] = [
    ("entry", Family::Ready, |b| entry(b.clone())),
    ("due value", Family::Due, |b| {
        let _ = DueValue::entry(b);
        if let Ok(value) = DueValue::decode(b) {
            assert_eq!(DueValue::decode(&Bytes::from(value.encode())), Ok(value));
        }
    }),
    ("ended entry", Family::Done, |b| {
        if let Ok(end) = EndRecord::decode(b) {
            entry(end.entry);
        }
    }),
    ("event", Family::Log, |b| event(&EncodedEvent::from_bytes(b.clone()))),
    ("body", Family::Body, |b| event(&EncodedEvent::from_bytes(b.clone()))),
    ("logged event", Family::Log, |b| {
        record::<LogRecord>(b);
        if let Ok(log) = LogRecord::decode(b) {
            event(&EncodedEvent::from_bytes(log.event));
        }
    }),
    ("store", Family::Meta, record::<StoreRecord>),
    ("number", Family::Meta, record::<NumberRecord>),
    ("count", Family::BodyCount, record::<NumberRecord>),
    ("queue", Family::Meta, |b| {
        record::<QueueRecord>(b);
        let _ = QueueRecord::decode(b).map(|queue| queue.totals());
    }),
    ("lane record", Family::Meta, record::<LaneRecord>),
    ("segment", Family::Meta, record::<SegmentRecord>),
    ("bucket", Family::Meta, record::<BucketRecord>),
    ("options", Family::Meta, |b| {
        let _ = decode_options(b).map(|options| encode_options(&options));
    }),
    ("claim", Family::Claim, |b| {
        record::<ClaimRecord>(b);
        let keys = ClaimRecord::decode(b).and_then(|claim| claim.keys()).unwrap_or_default();
        assert!(keys.len() <= super::MAX_CLAIM);
    }),
    ("lease", Family::Lease, |b| {
        record::<LeaseRecord>(b);
        let _ = LeaseRecord::decode(b).map(|lease| lease.key());
    }),
    ("place", Family::Place, record::<PlaceRecord>),
    ("done order", Family::DoneOrder, record::<DoneOrderRecord>),
    ("ordering key", Family::Key, record::<KeyRecord>),
    ("timer", Family::Due, |b| record::<TimerRecord>(&b.slice(b.len().min(1)..))),
    ("origin", Family::Origin, |b| {
        let _ = OriginRecord::is_expired(b, Timestamp::EPOCH);
        if let Ok(origin) = OriginRecord::decode(b) {
            let mut bytes = bytes::BytesMut::new();
            OriginRecord::encode_into(origin.expires_at, &origin.entries, &mut bytes);
            assert_eq!(OriginRecord::decode(&bytes), Ok(origin));
        }
    }),
    ("state", Family::State, |b| {
        if let Ok(value) = kv::decode_value(b) {
            assert_eq!(kv::encode_value(&value), *b);
        }
    }),
];

/// A key that was accepted is written as it was: two keys never mean the same.
fn again<T>(decoded: Result<T, BadKey>, encode: impl Fn(T) -> Key, bytes: &Bytes) {
    if let Ok(key) = decoded {
        assert_eq!(encode(key).as_slice(), bytes);
    }
}

fn record<R: Record + PartialEq + std::fmt::Debug>(bytes: &Bytes) {
    if let Ok(record) = R::decode(bytes) {
        assert_eq!(R::decode(&record.encode()), Ok(record));
    }
}

fn entry(bytes: Bytes) {
    if let Ok(entry) = EntryRecord::decode(bytes.clone()) {
        assert_eq!(entry.encode(), bytes);
        assert_eq!(entry.encoded_len(), bytes.len());
        let _ = (entry.key(), entry.size());
        event(&entry.event);
    }
}

fn event(event: &EncodedEvent) {
    let _ = (event.decode(None), event.body(), event.size(), event.head().is_ok());
    if let Ok(header) = event.without_data() {
        assert_eq!(header.body(), Ok(None));
    }
    if let (Ok(Some(_)), Ok(moved)) = (event.body(), event.with_body(7)) {
        assert_eq!(moved.body().unwrap().unwrap().number, 7);
    }
}

/// Bends bytes: flips bits, cuts, lengthens, repeats and mixes with others.
fn bend(random: &mut StdRng, bytes: &[u8], other: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for _ in 0..random.random_range(1..4) {
        let at = random.random_range(0..=bytes.len());
        match random.random_range(0..7) {
            0 | 1 if at < bytes.len() => bytes[at] ^= 1 << random.random_range(0..8),
            2 if at < bytes.len() => bytes[at] = *[0, 1, 127, 128, 254, 255].get(random.random_range(0..6)).unwrap(),
            3 => bytes.truncate(at),
            4 => bytes.extend((0..random.random_range(1..20)).map(|_| random.random::<u8>())),
            5 => {
                let tail = other.get(random.random_range(0..=other.len())..).unwrap_or_default();
                bytes.truncate(at);
                bytes.extend_from_slice(tail);
            }
            6 => bytes.insert(at, random.random()),
            _ => {}
        }
    }
    bytes
}

fn noise(random: &mut StdRng) -> Vec<u8> {
    let length = random.random_range(0..160);
    let mut bytes: Vec<u8> = (0..length).map(|_| random.random()).collect();
    if let Some(first) = bytes.first_mut().filter(|_| random.random()) {
        *first = VERSION;
    }
    bytes
}

/// A record: its family, its key, its value.
type Stored = (Family, Key, Bytes);

fn options(clock: &ManualClock) -> EngineOptions {
    let log_retention = Some(Duration::from_secs(3_600));
    EngineOptions { clock: Arc::new(clock.clone()), log_retention, ..EngineOptions::default() }
}

fn clock() -> ManualClock {
    ManualClock::at(Timestamp::from_micros(1_800_000_000_000_000))
}

/// All that is in a store with something in every family.
async fn records() -> Vec<Stored> {
    let memory = Memory::default();
    let engine = memory.open(options(&clock())).unwrap();
    lived_in::first(&engine).await;
    drop(engine);
    let engine = memory.open(options(&clock())).unwrap();
    lived_in::second(&engine).await;
    drop(engine);
    let mut records = Vec::new();
    let store = memory.store();
    for family in Family::ALL {
        for_each(store.current(), family, &[], |key, value| {
            records.push((family, Key::from_slice(key), Bytes::copy_from_slice(value)));
            Ok(())
        })
        .unwrap();
    }
    records
}

fn feed(random: &mut StdRng, what: &str, seeds: &[Bytes], decode: Decoder) {
    assert!(!seeds.is_empty(), "{what}: nothing valid to begin with");
    seeds.iter().for_each(decode);
    for _ in 0..rounds(DECODER_ROUNDS) {
        let [one, other] = [0; 2].map(|_| &seeds[random.random_range(0..seeds.len())]);
        decode(&Bytes::from(bend(random, one, other)));
        decode(&Bytes::from(noise(random)));
    }
}

#[tokio::test]
async fn no_bytes_make_a_decoder_of_keys_panic() {
    let (mut random, records) = (StdRng::seed_from_u64(seed()), records().await);
    for (what, family, decode) in KEYS {
        let of = records.iter().filter(|(of, ..)| family.is_none_or(|family| family == *of));
        let seeds: Vec<_> = of.map(|(_, key, _)| Bytes::copy_from_slice(key)).collect();
        feed(&mut random, what, &seeds, decode);
    }
}

#[tokio::test]
async fn no_bytes_make_a_decoder_of_values_panic() {
    let (mut random, records) = (StdRng::seed_from_u64(seed()), records().await);
    for (what, family, decode) in VALUES {
        let of = records.iter().filter(|(of, ..)| family == *of);
        let seeds: Vec<_> = of.map(|(.., value)| value.clone()).collect();
        feed(&mut random, what, &seeds, decode);
    }
}

#[test]
fn no_text_makes_a_decoder_of_ids_and_cursors_panic() {
    let mut random = StdRng::seed_from_u64(seed());
    let id = EntryKey { queue: 3, priority: 200, number: 1 << 40 }.id(7);
    let cursor =
        encode_cursor(&ReadyKey { line: LaneKey { queue: 1, priority: 2, lane: Lane::Lost }, position: 3 }.encode());
    assert_eq!(EntryKey::parse(&id, 7).unwrap().number, 1 << 40);
    for _ in 0..rounds(DECODER_ROUNDS) {
        let bent = |random: &mut StdRng, text: &str, other: &str| {
            String::from_utf8_lossy(&bend(random, text.as_bytes(), other.as_bytes())).into_owned()
        };
        let text = bent(&mut random, id.as_str(), &cursor);
        if let Ok(other) = EntryId::new(&text)
            && let Some(key) = EntryKey::parse(&other, 7)
        {
            assert_eq!(key.id(7), other, "one entry has one id");
        }
        let text = bent(&mut random, &cursor, id.as_str());
        if let Ok(key) = decode_cursor(&text) {
            assert_eq!(encode_cursor(&key), text.to_lowercase());
        }
    }
}

/// Panics of the engine's own threads, which nobody would notice otherwise.
static PANICS: AtomicU64 = AtomicU64::new(0);

fn count_panics() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if std::thread::current().name().is_some_and(|name| name.starts_with("queue-")) {
                PANICS.fetch_add(1, Ordering::Relaxed);
            }
            before(info);
        }));
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_on_a_damaged_store_neither_panics_nor_hangs() {
    count_panics();
    let records = records().await;
    let first = seed();
    let mut opened = 0;
    let rounds = rounds(STORE_ROUNDS);
    for round in 0..rounds as u64 {
        let seed = first.wrapping_add(round);
        let memory = damaged(&mut StdRng::seed_from_u64(seed), &records);
        let clock = clock();
        // Opening runs on this thread: a hang would be one of the test.
        let engine = match memory.open(options(&clock)) {
            Ok(engine) => engine,
            Err(QueueError::Corrupt(problem)) => {
                assert!(!problem.is_empty());
                continue;
            }
            Err(error) => panic!("GRISTMILL_SEED={seed}: {error}"),
        };
        opened += 1;
        let used = tokio::time::timeout(PATIENCE, use_it(&engine, &clock)).await;
        assert!(used.is_ok(), "GRISTMILL_SEED={seed}: the engine hangs");
        drop(engine);
        assert_eq!(PANICS.load(Ordering::Relaxed), 0, "GRISTMILL_SEED={seed}: a thread of the engine panicked");
    }
    assert!(opened > rounds / 10, "most damage concerns single entries: {opened} of {rounds} were opened");
}

/// The records, some of them damaged.
fn damaged(random: &mut StdRng, records: &[Stored]) -> Memory {
    let memory = Memory::default();
    let store = memory.store();
    let mut records = records.to_vec();
    for _ in 0..random.random_range(1..6) {
        let (one, other) = (random.random_range(0..records.len()), random.random_range(0..records.len()));
        let other = records[other].clone();
        let (_, key, value) = &mut records[one];
        match random.random_range(0..8) {
            0 => *key = Key::from_slice(&bend(random, key, &other.1)),
            1 => drop(records.swap_remove(one)),
            2 => *value = other.2,
            _ => *value = Bytes::from(bend(random, value, &other.2)),
        }
    }
    let mut tx = Tx::new(store.current());
    let mut known = std::collections::HashSet::new();
    for (family, key, value) in records {
        if known.insert((family, key.clone())) {
            tx.put(family, key, value);
        }
    }
    store.commit(tx.into_writes()).unwrap();
    memory
}

/// Everything that an engine does, whatever it answers.
async fn use_it(engine: &Engine, clock: &ManualClock) {
    let queues = ["work", "keeps", "ordered", "paced", "copy"].map(lived_in::name);
    let _ = engine.verify().await.map(|report| report.to_string());
    let _ = engine.stats().await;
    for _ in 0..3 {
        for queue in &queues {
            for state in State::ALL {
                let _ = engine.list(List::new(queue.clone(), state)).await;
            }
            let which = WhichKeys::Active;
            let _ = engine.keys(ListKeys { which, ..ListKeys::new(queue.clone()) }).await;
            let claimed = engine.claim(Claim::new(queue.clone(), 8)).await.unwrap_or_default();
            let outcomes = [
                Outcome::Ack { result: None },
                Outcome::Reject { reason: "r".to_owned() },
                Outcome::Retry { reason: "r".to_owned(), after: None },
                Outcome::Released,
            ];
            let settles = claimed.iter().zip(outcomes.iter().cycle());
            let settles = settles.map(|(delivery, outcome)| Settle::new(delivery.lease, outcome.clone())).collect();
            let _ = engine.settle(settles, Confirm::Durable).await;
            let event = gristmill_core::Event::new("new", "/new", "new");
            let publish = Publish { key: Some("free".to_owned()), ..Publish::new(event, [queue.clone()]) };
            let _ = engine.publish(vec![publish]).await;
        }
        clock.advance(Duration::from_secs(1_900));
        let _ = engine.tick().await;
    }
    let redrive = Act { action: Action::Redrive, on: Selection::Where(Filter::all(queues[0].clone())), rate: None };
    let _ = engine.operate(Operation::Act(redrive)).await;
    let _ = engine.operate(Operation::Delete { queue: queues[2].clone() }).await;
    if let Ok(snapshot) = engine.snapshot().await {
        let _ = (snapshot.buckets(), snapshot.keys("words", "", None, 10), snapshot.get("numbers", "n"));
    }
    let _ = engine.close().await;
}
