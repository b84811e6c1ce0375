//! Instances that are kept for further events, where a handler asks for it.
//!
//! A kept instance holds its places in the pool and its memory. It gives them up when it has served its events or its
//! time, when its component goes, and when somebody else waits for room.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;

use wasmtime::Store;

use crate::interfaces::Bound;
use crate::options::Instances;
use crate::pool::{Admission, Pool};
use crate::state::State;

/// A store, what was instantiated in it, and the room that it takes.
pub(crate) struct Seat {
    // Dropped in this order: the room is free when the instance is gone.
    pub(crate) bound: Option<Bound>,
    pub(crate) store: Store<State>,
    _admission: Admission,
    born: Instant,
    events: u32,
}

impl Seat {
    pub(crate) fn new(store: Store<State>, admission: Admission) -> Self {
        Self { bound: None, store, _admission: admission, born: Instant::now(), events: 0 }
    }

    /// It has answered another event.
    pub(crate) fn count(&mut self) {
        self.events = self.events.saturating_add(1);
    }

    fn may_go_on(&self, instances: Instances) -> bool {
        match instances {
            Instances::Fresh => false,
            Instances::Reuse { events, age } => self.events < events && self.born.elapsed() < age,
        }
    }
}

/// The kept instances of one component; the one that was used last is used first.
#[derive(Default)]
pub(crate) struct Shelf {
    instances: Instances,
    #[allow(clippy::vec_box, reason = "they come and go as boxes: a store is large")]
    seats: Mutex<Vec<Box<Seat>>>,
}

impl Shelf {
    pub(crate) fn new(instances: Instances) -> Arc<Self> {
        Arc::new(Self { instances, seats: Mutex::default() })
    }

    pub(crate) fn is_used(&self) -> bool {
        self.instances != Instances::Fresh
    }

    pub(crate) fn take(&self) -> Option<Box<Seat>> {
        let mut old = Vec::new();
        let mut seats = self.lock();
        while let Some(seat) = seats.pop() {
            if seat.may_go_on(self.instances) {
                return Some(seat);
            }
            old.push(seat);
        }
        drop(seats);
        None
    }

    /// Keeps an instance, unless it has served its time or somebody waits for its room.
    pub(crate) fn put(&self, seat: Box<Seat>, pool: &Pool) {
        if !seat.may_go_on(self.instances) {
            return;
        }
        self.lock().push(seat);
        // In this order: whoever began to wait meanwhile may have asked for room before this one was there.
        if pool.is_waited_for() {
            self.clear(true);
        }
    }

    /// Drops what is too old, or everything.
    fn clear(&self, everything: bool) {
        let is_over = |seat: &mut Box<Seat>| everything || !seat.may_go_on(self.instances);
        let over: Vec<_> = self.lock().extract_if(.., is_over).collect();
        drop(over);
    }

    #[allow(clippy::vec_box, reason = "see above")]
    fn lock(&self) -> MutexGuard<'_, Vec<Box<Seat>>> {
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The shelves of all components of a host.
#[derive(Clone, Default)]
pub(crate) struct Shelves(Arc<Mutex<Vec<Weak<Shelf>>>>);

impl Shelves {
    pub(crate) fn add(&self, shelf: &Arc<Shelf>) {
        self.lock().push(Arc::downgrade(shelf));
    }

    /// Drops instances that are too old.
    pub(crate) fn sweep(&self) {
        self.clear(false);
    }

    /// Makes room: drops every instance that is not at work.
    pub(crate) fn make_room(&self) {
        self.clear(true);
    }

    fn clear(&self, everything: bool) {
        let mut shelves = Vec::new();
        self.lock().retain(|shelf| shelf.upgrade().map(|shelf| shelves.push(shelf)).is_some());
        for shelf in shelves {
            shelf.clear(everything);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Weak<Shelf>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
