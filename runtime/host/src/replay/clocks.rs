//! The time of a replay: it stands still while the guest computes, and moves by what the guest waits.
//!
//! The engine's own clocks cannot be told that somebody has waited, so what waits for them is linked over. Outside of
//! replays, that does what it always did.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use gristmill_core::Timestamp;
use tokio::time::Instant;
use wasmtime::StoreContextMut;
use wasmtime::component::{Accessor, Linker, Resource};
use wasmtime_wasi::clocks::WasiClocksView as _;
use wasmtime_wasi::p2::bindings::clocks::monotonic_clock::Host as _;
use wasmtime_wasi::p2::{DynPollable, Pollable, subscribe};
use wasmtime_wasi::{HostMonotonicClock, HostWallClock, WasiView as _, async_trait};

use super::Scene;
use crate::provided::{WASI, WASI3};
use crate::state::State;

/// What the monotonic clock says when a replay begins, in nanoseconds. Not 0, which Go takes for a clock that is broken.
const START: u64 = 1_000_000_000;

/// Both clocks of a replay.
#[derive(Debug)]
pub(crate) struct ReplayClock {
    start: Timestamp,
    /// Nanoseconds.
    waited: AtomicU64,
}

impl ReplayClock {
    pub(super) fn new(start: Timestamp) -> Self {
        Self { start, waited: AtomicU64::new(0) }
    }

    /// How long the guest has waited.
    pub(crate) fn waited(&self) -> Duration {
        Duration::from_nanos(self.waited.load(Ordering::Relaxed))
    }

    /// The time on the wall.
    pub(crate) fn now(&self) -> Timestamp {
        self.start.after(self.waited())
    }

    fn monotonic(&self) -> u64 {
        START.saturating_add(self.waited.load(Ordering::Relaxed))
    }

    /// How long it is until a moment of the monotonic clock.
    pub(super) fn until(&self, mark: u64) -> Duration {
        Duration::from_nanos(mark.saturating_sub(self.monotonic()))
    }

    /// How long it is until a moment of the wall clock, in nanoseconds since the epoch.
    pub(super) fn until_wall(&self, mark: u64) -> Duration {
        let now = Duration::from_micros(self.start.as_micros()).saturating_add(self.waited());
        Duration::from_nanos(mark).saturating_sub(now)
    }

    /// Begins to wait.
    pub(super) fn wait(&self, time: Duration) -> Wait {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let waited = self.waited.load(Ordering::Relaxed).saturating_add(nanos);
        Wait { ends: Instant::now().checked_add(time), waited }
    }

    /// A wait is over.
    pub(super) fn end(&self, wait: Wait) {
        // Of several that go on at once, the longest counts.
        self.waited.fetch_max(wait.waited, Ordering::Relaxed);
    }
}

/// A wait that has begun.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wait {
    /// `None`: never.
    ends: Option<Instant>,
    /// How long the guest has waited in all, once this is over. Nanoseconds.
    waited: u64,
}

impl Wait {
    /// Takes as long as it says: whatever else the guest waits for has its time, and so has the time-out.
    pub(super) async fn over(self) {
        match self.ends {
            Some(ends) => tokio::time::sleep_until(ends).await,
            None => std::future::pending().await,
        }
    }

    /// Orders waits by when they are over.
    pub(super) fn rank(self) -> u64 {
        self.waited
    }
}

/// The wall clock as WASI knows it.
pub(super) struct Wall(pub(super) Arc<Scene>);

/// The monotonic clock as WASI knows it.
pub(super) struct Steady(pub(super) Arc<Scene>);

impl HostWallClock for Wall {
    fn resolution(&self) -> Duration {
        Duration::from_nanos(1)
    }

    fn now(&self) -> Duration {
        Duration::from_micros(self.0.clock.start.as_micros()).saturating_add(self.0.clock.waited())
    }
}

impl HostMonotonicClock for Steady {
    fn resolution(&self) -> u64 {
        1
    }

    fn now(&self) -> u64 {
        self.0.clock.monotonic()
    }
}

/// A wait that a guest of WASI 0.2 can poll.
struct Waiting {
    scene: Arc<Scene>,
    wait: Wait,
}

#[async_trait]
impl Pollable for Waiting {
    async fn ready(&mut self) {
        self.wait.over().await;
        self.scene.clock.end(self.wait);
    }
}

/// Links what waits in WASI 0.2.
pub(crate) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    let mut clock = linker.instance(&format!("wasi:clocks/monotonic-clock@{WASI}"))?;
    clock.func_wrap("subscribe-duration", |mut store: StoreContextMut<'_, State>, (nanos,): (u64,)| {
        let state = store.data_mut();
        match waiting(state, |_| Duration::from_nanos(nanos))? {
            Some(pollable) => Ok((pollable,)),
            None => Ok((state.clocks().subscribe_duration(nanos)?,)),
        }
    })?;
    clock.func_wrap("subscribe-instant", |mut store: StoreContextMut<'_, State>, (mark,): (u64,)| {
        let state = store.data_mut();
        match waiting(state, |clock| clock.until(mark))? {
            Some(pollable) => Ok((pollable,)),
            None => Ok((state.clocks().subscribe_instant(mark)?,)),
        }
    })?;
    linker.allow_shadowing(false);
    Ok(())
}

/// The wait of a replay; `None`: it is none, or there is nothing to wait for.
fn waiting(
    state: &mut State,
    time: impl FnOnce(&ReplayClock) -> Duration,
) -> wasmtime::Result<Option<Resource<DynPollable>>> {
    let Some(scene) = state.scene.clone() else { return Ok(None) };
    let time = time(&scene.clock);
    if time.is_zero() {
        return Ok(None);
    }
    let wait = scene.clock.wait(time);
    let table = state.ctx().table;
    let waiting = table.push(Waiting { scene, wait })?;
    subscribe(table, waiting).map(Some)
}

/// The same for WASI 0.3.
pub(crate) fn link_async(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    let mut clock = linker.instance(&format!("wasi:clocks/monotonic-clock@{WASI3}"))?;
    clock.func_wrap_concurrent("wait-for", |accessor: &Accessor<State>, (nanos,): (u64,)| {
        Box::pin(async move {
            wait(accessor, |_| Duration::from_nanos(nanos)).await;
            Ok(())
        })
    })?;
    clock.func_wrap_concurrent("wait-until", |accessor: &Accessor<State>, (mark,): (u64,)| {
        Box::pin(async move {
            wait(accessor, |state| match &state.scene {
                Some(scene) => scene.clock.until(mark),
                None => {
                    let now = state.clocks().now().unwrap_or_default();
                    Duration::from_nanos(mark.saturating_sub(now))
                }
            })
            .await;
            Ok(())
        })
    })?;
    linker.allow_shadowing(false);
    Ok(())
}

async fn wait(accessor: &Accessor<State>, time: impl FnOnce(&mut State) -> Duration) {
    let (time, scene) = accessor.with(|mut store| {
        let state = store.get();
        (time(state), state.scene.clone())
    });
    if time.is_zero() {
        return;
    }
    let Some(scene) = scene else { return tokio::time::sleep(time).await };
    let wait = scene.clock.wait(time);
    wait.over().await;
    scene.clock.end(wait);
}
