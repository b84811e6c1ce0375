//! Jobs in steps, and what happens between them.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gristmill_core::{Event, ManualClock, QueueName};
use smallvec::smallvec;

use super::*;
use crate::contract::{Due, OnDuplicate, QueueOptions};
use crate::engine::chunk::Chunk;
use crate::engine::entry::Draft;
use crate::engine::event::INLINE_DATA;
use crate::engine::keys::LogKey;
use crate::engine::memory::Memory;
use crate::engine::publish::{self, Admission, Prepared, Target};
use crate::engine::state::Settings;
use crate::engine::store::{Store, for_each};
use crate::engine::sweep::{self, Progress};

const SECOND: Duration = Duration::from_secs(1);

/// A store and its state, one commit at a time.
struct Bench {
    store: Arc<dyn Store>,
    state: State,
    now: Now,
}

impl Bench {
    fn new(log_retention: Option<Duration>) -> Self {
        let clock = ManualClock::at(Timestamp::from_micros(1_800_000_000_000_000));
        let store = Memory::default().store();
        let settings = Settings { idempotency_window: Duration::ZERO, log_retention };
        let state = State::open(&*store, &clock, settings).unwrap();
        let now = Now { wall: Timestamp::from_micros(1_800_000_000_000_000), monotonic: Monotonic::default() };
        Self { store, state, now }
    }

    fn commit<T>(&mut self, work: impl FnOnce(&mut State, &mut Tx<'_>, Now) -> Result<T, QueueError>) -> T {
        let mut tx = Tx::new(self.store.current());
        let done = work(&mut self.state, &mut tx, self.now).unwrap();
        self.state.finish(&mut tx, self.now).unwrap();
        self.store.commit(tx.into_writes()).unwrap();
        done
    }

    fn add_queue(&mut self, name: &str) -> QueueId {
        let name = QueueName::new(name).unwrap();
        self.commit(|state, tx, _| {
            state.configure(tx, name.clone(), QueueOptions::default(), Monotonic::default())?;
            state.queue_id(&name)
        })
    }

    fn publish(&mut self, queue: &str, key: Option<&str>, due: Due, data: Option<Bytes>) {
        let event = Event { data, ..Event::new("1", "/test", "t") };
        let prepared = Prepared {
            draft: Draft::new(&event, key, &mut Chunk::default()),
            body: event.data.filter(|data| data.len() > INLINE_DATA),
            targets: smallvec![Target { queue: QueueName::new(queue).unwrap(), key: key.map(Arc::from) }],
            due,
            priority: 0,
            key: key.map(str::to_owned),
            time_to_live: None,
            origin: None,
            on_duplicate: OnDuplicate::Allow,
        };
        let published = self.commit(|state, tx, now| publish::publish(state, tx, prepared, Admission::Emitted, now));
        assert!(published.is_ok());
    }

    fn count(&self, family: Family) -> usize {
        let mut count = 0;
        for_each(self.store.current(), family, &[], |_, _| {
            count += 1;
            Ok(())
        })
        .unwrap();
        count
    }

    fn finish(&mut self, mut job: Job) -> Operated {
        for _ in 0..100 {
            if self.commit(|state, tx, now| job.step(state, tx, now)) == Step::Finished {
                return job.into_result();
            }
        }
        panic!("it does not come to an end");
    }
}

#[test]
fn what_becomes_due_while_its_queue_is_deleted_goes_as_well() {
    let mut bench = Bench::new(None);
    let queue = bench.add_queue("orders");
    bench.publish("orders", Some("k"), Due::Now, None);
    bench.publish("orders", Some("k"), Due::After(SECOND), None);
    bench.commit(|state, _, _| state.doom(queue));
    let mut job = Job::delete(queue);
    assert_eq!(bench.commit(|state, tx, now| job.step(state, tx, now)), Step::More, "nothing waits yet");
    bench.now.wall = bench.now.wall.after(2 * SECOND);
    bench.commit(sweep::due);
    assert_eq!(bench.count(Family::Waiting), 1);
    assert_eq!(bench.finish(job).changed, 2);
    for family in [Family::Ready, Family::Waiting, Family::Due, Family::Place, Family::Key] {
        assert_eq!(bench.count(family), 0, "{family:?}");
    }
}

#[test]
fn a_replay_passes_over_what_is_being_dropped() {
    let mut bench = Bench::new(Some(16 * SECOND));
    bench.add_queue("orders");
    let late = bench.add_queue("late");
    for _ in 0..SWEEP + 2 {
        bench.publish("orders", None, Due::Now, Some(Bytes::from(vec![b'x'; INLINE_DATA + 1])));
    }
    let all = Filter::all(QueueName::new("orders").unwrap());
    let purge = Act { action: Action::Purge, on: Selection::Where(all), rate: None };
    let purge = bench.commit(|state, _, _| Job::act(state, purge));
    bench.finish(purge);
    assert_eq!(bench.count(Family::Body), SWEEP + 2, "the log has them");
    bench.now.wall = bench.now.wall.after(17 * SECOND);
    bench.publish("orders", None, Due::Now, None);
    assert_eq!(bench.commit(log::drop_old), Progress::More);
    assert_eq!(bench.count(Family::Body), 2, "half of it is gone");

    // Whatever the clock says by now, and however far the replay had come.
    bench.now.wall = Timestamp::from_micros(1_800_000_001_000_000);
    let until = Some(Timestamp::from_micros(u64::MAX));
    let request = Replay { until, what: ReplayWhat::All, ..Replay::new(QueueName::new("late").unwrap()) };
    let replay = bench.commit(|state, _, now| Job::replay(state, request, now));
    assert_eq!(bench.finish(replay).changed, 1);
    assert_eq!(bench.state.queue(late).unwrap().counts.ready, 1);
    assert_eq!(bench.count(Family::BodyCount), 0);
    let mut first = None;
    for_each(bench.store.current(), Family::Log, &[], |key, _| {
        first.get_or_insert(LogKey::decode(key)?);
        Ok(())
    })
    .unwrap();
    let reached = first.unwrap().encode();
    let (records, next) =
        log::part(&bench.state, bench.store.current(), (Timestamp::EPOCH, Some(&reached)), 10).unwrap();
    assert_eq!((records.len(), next), (1, None));
    assert_eq!(bench.commit(log::drop_old), Progress::More, "it goes on, although the clock was set back");
    assert_eq!((bench.count(Family::Body), bench.count(Family::Log)), (0, 1));
}
