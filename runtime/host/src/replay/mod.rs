//! Replays: an event that was handled before goes through a component once more, to see what it says, and nothing comes
//! of it.
//!
//! | file | holds |
//! | --- | --- |
//! | `clocks` | the time, and what waits for it |
//! | `poll` | the same for WASI preview 1, which waits in a function of its own |
//! | `random` | random bytes |
//!
//! Two replays of one event under one [`Replay`] see the same, so that what they do can be compared. **Nothing leaves a
//! replay**: requests and sockets are refused whatever is granted, directories can be read at most, and what it emits and
//! writes to the state is told to the caller, who throws it away.
//!
//! The clocks stand still while the guest computes, however long that takes, and move by what it waits: whoever sleeps for
//! a second takes a second, and reads a time that is exactly a second later. A clock that does not move at all would keep
//! those waiting for ever who look at it again after each sleep, as the runtimes of Go and Python do; one that moves with
//! each look would tell two builds apart by how often they look. A guest that only computes until the time has come waits
//! in vain, until its time-out.

mod clocks;
mod poll;
mod random;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use gristmill_core::Timestamp;
use gristmill_core::directory::DirectoryAccess;
use wasmtime_wasi::WasiCtxBuilder;

use self::clocks::ReplayClock;
pub(crate) use self::clocks::{link, link_async};
pub(crate) use self::poll::link_preview1;
use crate::component::Component;
use crate::invocation::{Invocation, Place, Report, Room};

/// What a replay takes for given, so that another one can have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replay {
    /// What the wall clock says when it begins.
    pub now: Timestamp,
    /// What all random numbers are made of: the same seed gives the same numbers.
    pub seed: u64,
}

/// What came of a replay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replayed {
    /// As if it had counted. Whoever asked throws the events and the writes away.
    pub report: Report,
    /// What it was not allowed to do.
    pub refused: Refused,
}

/// What a replay would have done to others, were it none. What no grant covers is refused at all times, and is not
/// counted; nor are writes to files: see [`Component::may_write_files`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Refused {
    /// Requests that were to be sent.
    pub http: u32,
    /// Addresses that sockets were to use, and names that were to be looked up.
    pub sockets: u32,
}

/// One replay, as the parts of the host see it.
#[derive(Debug)]
pub(crate) struct Scene {
    clock: ReplayClock,
    seed: u64,
    http: AtomicU32,
    sockets: AtomicU32,
}

impl Component {
    /// Whether a replay cannot do all that an invocation may without anybody being told: it is granted a directory to
    /// write to, and those writes are refused without being counted.
    #[must_use]
    pub fn may_write_files(&self) -> bool {
        self.identity().grants.files.iter().any(|grant| grant.access == DirectoryAccess::Write)
    }

    /// Handles an event as [`handle`](Self::handle) does, in an instance of its own, and lets nothing out: see
    /// [`Replay`]. It waits for room like any other invocation.
    pub async fn replay(&self, invocation: Invocation, replay: Replay) -> Replayed {
        let scene = Arc::new(Scene::new(replay));
        let admission = self.admission(&invocation.limits).await;
        let report = self.handle_in(Place(Room::Replay(admission, Arc::clone(&scene))), invocation).await;
        Replayed { report, refused: scene.refused() }
    }
}

impl Scene {
    fn new(Replay { now, seed }: Replay) -> Self {
        Self { clock: ReplayClock::new(now), seed, http: AtomicU32::default(), sockets: AtomicU32::default() }
    }

    /// Gives a context that is being made the time and the random numbers.
    pub(crate) fn furnish(self: &Arc<Self>, wasi: &mut WasiCtxBuilder) {
        wasi.wall_clock(clocks::Wall(Arc::clone(self))).monotonic_clock(clocks::Steady(Arc::clone(self)));
        random::furnish(self.seed, wasi);
    }

    pub(crate) fn clock(&self) -> &ReplayClock {
        &self.clock
    }

    /// A request is not sent.
    pub(crate) fn refuse_http(&self) {
        self.http.fetch_add(1, Ordering::Relaxed);
    }

    /// A socket is not used, or a name not looked up.
    pub(crate) fn refuse_socket(&self) {
        self.sockets.fetch_add(1, Ordering::Relaxed);
    }

    fn refused(&self) -> Refused {
        Refused { http: self.http.load(Ordering::Relaxed), sockets: self.sockets.load(Ordering::Relaxed) }
    }
}
