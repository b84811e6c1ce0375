//! One run: an engine and the model side by side, and the random choices that drive them.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gristmill_core::{EntryId, Event, ManualClock, Outcome, Pattern, QueueName, Timestamp};
use gristmill_queue::{
    Engine, EngineOptions, LeaseToken, Memory, Operation, Publish, Queue, QueueOptions, RocksDb, StateSnapshot,
};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::buckets::Moment;
use super::choices;
use super::publishing::WINDOW;
use super::world::{Shape, World};

const SECOND: Duration = Duration::from_secs(1);
/// Commands that are shown when a run fails.
const SHOWN: usize = 25;

/// Where an engine keeps its entries.
pub(crate) enum Place {
    Memory(Memory),
    Rocks(tempfile::TempDir),
}

impl Place {
    fn open(&self, clock: &ManualClock) -> Engine {
        let clock = Arc::new(clock.clone());
        let options = EngineOptions { clock, idempotency_window: WINDOW, disk_reserve: 0, ..EngineOptions::default() };
        match self {
            Self::Memory(memory) => memory.open(options),
            Self::Rocks(directory) => RocksDb::open(directory.path(), options),
        }
        .unwrap()
    }
}

/// A run in progress.
pub(crate) struct Run {
    pub(crate) random: StdRng,
    /// For how to look, so that looking more often does not change what is done.
    pub(crate) looks: StdRng,
    pub(crate) world: World,
    pub(crate) clock: ManualClock,
    pub(crate) place: Place,
    engine: Option<Engine>,
    /// Every delivery and every entry that was ever issued.
    pub(crate) deliveries: HashSet<u64>,
    pub(crate) tokens: Vec<LeaseToken>,
    pub(crate) ids: Vec<EntryId>,
    pub(crate) events: Vec<(String, String)>,
    pub(crate) snapshots: Vec<(Arc<dyn StateSnapshot>, Moment)>,
    pub(crate) jumped_back: bool,
    log: Vec<String>,
}

impl Drop for Run {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let from = self.log.len().saturating_sub(SHOWN);
            for (number, line) in self.log.iter().enumerate().skip(from) {
                println!("{number:5} {line}");
            }
        }
    }
}

impl Run {
    pub(crate) async fn new(place: Place, seed: u64) -> Self {
        let start = Timestamp::from_micros(1_800_000_000_000_000);
        let clock = ManualClock::at(start);
        let engine = place.open(&clock);
        let mut run = Self {
            random: StdRng::seed_from_u64(seed),
            looks: StdRng::seed_from_u64(seed),
            world: World::new(start),
            clock,
            place,
            engine: Some(engine),
            deliveries: HashSet::new(),
            tokens: Vec::new(),
            ids: Vec::new(),
            events: Vec::new(),
            snapshots: Vec::new(),
            jumped_back: false,
            log: Vec::new(),
        };
        run.measure().await;
        for name in choices::QUEUES {
            run.configure(&QueueName::new(name).unwrap()).await;
        }
        for bucket in choices::BUCKETS {
            run.transact_set(bucket).await;
        }
        run
    }

    pub(crate) fn engine(&self) -> &Engine {
        self.engine.as_ref().unwrap()
    }

    pub(crate) fn note(&mut self, line: String) {
        self.log.push(line);
    }

    /// Learns what the engine counts for events beside their attributes and data.
    async fn measure(&mut self) {
        let scale = QueueName::new("scale").unwrap();
        self.engine().configure(scale.clone(), QueueOptions::default()).await.unwrap();
        let mut known = 0;
        for (index, data) in [None, Some(vec![b'x'; 9]), Some(vec![b'x'; 5_000])].into_iter().enumerate() {
            let event = choices::event(&format!("scale{index}"), "/a", "t.a", "k0", data.map(Bytes::from));
            let shape = Shape::of(&event);
            let size = event.size();
            self.engine().publish(vec![Publish::new(event, [scale.clone()])]).await.unwrap();
            let bytes = self.engine().stats().await.unwrap()[0].bytes;
            self.world.overhead.insert(shape, bytes - known - size);
            known = bytes;
        }
        self.engine().operate(Operation::Delete { queue: scale }).await.unwrap();
    }

    pub(crate) async fn configure(&mut self, queue: &QueueName) {
        let known = self.world.queues.get(queue).map(|line| line.options.clone());
        let options = match known {
            Some(options) => choices::changed(&mut self.random, options),
            None => choices::options(&mut self.random, queue),
        };
        self.note(format!("configure {queue}: {options:?}"));
        self.engine().configure(queue.clone(), options.clone()).await.unwrap();
        self.world.configure(queue, options);
    }

    /// One random command, and what happens by itself.
    pub(crate) async fn step(&mut self) {
        match self.random.random_range(0..100) {
            0..26 => self.publish().await,
            26..44 => self.claim().await,
            44..64 => self.settle().await,
            64..68 => self.extend().await,
            68..78 => self.operate().await,
            78..81 => self.wait().await,
            81..88 => self.transact().await,
            88..95 => self.advance().await,
            95..97 => self.jump(),
            97 => self.reopen().await,
            98 => self.fail().await,
            _ => {
                let queue = self.any_queue();
                self.configure(&queue).await;
            }
        }
        self.tick().await;
    }

    pub(crate) async fn tick(&mut self) {
        self.engine().tick().await.unwrap();
        self.world.pass();
    }

    pub(crate) fn any_queue(&mut self) -> QueueName {
        let name = choices::QUEUES[self.random.random_range(0..choices::QUEUES.len())];
        QueueName::new(name).unwrap()
    }

    pub(crate) fn any_type(&mut self) -> Pattern {
        Pattern::new(choices::one(&mut self.random, &["t.*", "t.a", "u.*", "x"]))
    }

    /// Time passes, from one lease's end to the next: what ends at the same time ends in an order that is known.
    async fn advance(&mut self) {
        let millis = choices::one(&mut self.random, &[1, 50, 100, 400, 1_000, 1_000, 2_500, 6_000, 25_000]);
        self.note(format!("advance by {millis} ms"));
        let end = self.world.monotonic.after(Duration::from_millis(millis));
        loop {
            let next = self.world.leased().map(|(_, lease)| lease.deadline).filter(|at| *at > self.world.monotonic);
            let next = next.min().map_or(end, |at| at.min(end));
            let by = next.since(self.world.monotonic);
            self.clock.advance(by);
            self.world.monotonic = next;
            self.world.wall = self.world.wall.after(by);
            self.tick().await;
            if next == end {
                break;
            }
        }
    }

    /// An administrator sets the wall clock.
    fn jump(&mut self) {
        let by = SECOND * self.random.random_range(1..40);
        let back = self.random.random_bool(0.5);
        let micros = self.world.wall.as_micros();
        let by_micros = u64::try_from(by.as_micros()).unwrap();
        self.world.wall = Timestamp::from_micros(if back { micros - by_micros } else { micros + by_micros });
        self.jumped_back |= back;
        self.note(format!("the wall clock jumps {} by {by:?}", if back { "back" } else { "forward" }));
        self.clock.jump_to(self.world.wall);
    }

    /// The process ends, and another opens the store.
    pub(crate) async fn reopen(&mut self) {
        self.note("reopen".to_owned());
        self.snapshots.clear();
        drop(self.engine.take());
        if self.random.random_bool(0.3) {
            let by = SECOND * self.random.random_range(1..30);
            self.clock.advance(by);
            self.world.wall = self.world.wall.after(by);
            self.world.monotonic = self.world.monotonic.after(by);
        }
        self.engine = Some(self.place.open(&self.clock));
        self.world.reopened(&Outcome::Lost);
        self.tick().await;
    }
}

/// Reads an event's names.
pub(crate) fn name_of(event: &Event) -> (String, String) {
    (event.source.clone(), event.id.clone())
}
