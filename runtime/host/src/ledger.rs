//! What one invocation cost.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use wasmtime::CallHook;

use crate::engine::TICK;

/// What one invocation cost.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// From having a place to the outcome.
    pub wall: Duration,
    /// Of that, on a processor: the guest's own time, and that of host functions that do not wait. After a call of
    /// less than 250 µs, the next one's may be the time that passed, 2 ms of it at most.
    pub cpu: Duration,
    /// Bytes of all memories and tables at the end, which is when they are largest.
    pub peak_memory: u64,
    /// How many host functions were called.
    pub host_calls: u64,
    /// The time that passed in them, waiting included.
    pub host_time: Duration,
    /// Bytes that it was given: the event, values of the state, and answers over HTTP.
    pub bytes_in: u64,
    /// Bytes that it gave: its result, emitted events, writes to the state, and requests over HTTP.
    pub bytes_out: u64,
    /// Of those, what it sent by HTTP, over all connections, with all that belongs to them (headers, TLS).
    pub http_sent: u64,
    /// What came back by HTTP, likewise.
    pub http_received: u64,
    /// Fuel, which is about the number of instructions; only where it is
    /// [counted](crate::HostOptions::count_fuel).
    pub fuel: Option<u64>,
}

/// Counts calls of host functions, and the time in them.
#[derive(Debug, Default)]
pub(crate) struct CallMeter {
    calls: u64,
    time: Duration,
    since: Option<Instant>,
    is_tick: bool,
}

impl CallMeter {
    pub(crate) fn note(&mut self, hook: CallHook) {
        match hook {
            CallHook::CallingHost => self.since = Some(Instant::now()),
            CallHook::ReturningFromHost => {
                let since = self.since.take();
                if std::mem::take(&mut self.is_tick) {
                    return;
                }
                self.calls += 1;
                self.time += since.map(|since| since.elapsed()).unwrap_or_default();
            }
            CallHook::CallingWasm | CallHook::ReturningFromWasm => {}
        }
    }

    /// The call that is going on is the end of a time slice: none of the guest's.
    pub(crate) fn note_tick(&mut self) {
        self.is_tick = true;
    }

    pub(crate) fn calls(&self) -> u64 {
        self.calls
    }

    /// With that of a call that was given up.
    pub(crate) fn time(&self) -> Duration {
        self.time + self.since.map(|since| since.elapsed()).unwrap_or_default()
    }
}

/// What takes less than this is not worth asking the system for the thread's time, which takes two microseconds.
const QUICK: Duration = Duration::from_micros(250);

/// How long a processor works on a call. Where a component's last call was quick, what passes while the next one is
/// polled counts as work, up to two time slices, although something else may have had the processor meanwhile.
#[derive(Debug)]
pub(crate) struct CpuMeter {
    expects_quick: bool,
    cpu: Duration,
    polls: u32,
}

impl CpuMeter {
    pub(crate) fn new(expects_quick: bool) -> Self {
        Self { expects_quick, cpu: Duration::ZERO, polls: 0 }
    }

    /// Runs a part of the call.
    pub(crate) fn measure<T>(&mut self, part: impl FnOnce() -> T) -> T {
        self.polls = self.polls.saturating_add(1);
        // Who waits, or has used up a time slice, is not quick.
        if self.expects_quick && self.polls == 1 {
            let started = Instant::now();
            let done = part();
            // A guest gives way after a slice: what took longer was not all work.
            self.cpu += started.elapsed().min(2 * TICK);
            return done;
        }
        let before = thread_time();
        let done = part();
        self.cpu += thread_time().saturating_sub(before);
        done
    }

    pub(crate) fn cpu(&self) -> Duration {
        self.cpu
    }

    /// Whether the call was so quick that the next one of the component may be measured by the clock.
    pub(crate) fn is_quick(&self) -> bool {
        self.cpu < QUICK
    }
}

/// How long a processor has worked on this thread.
fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let (seconds, nanos) = (u64::try_from(time.tv_sec), u32::try_from(time.tv_nsec));
    Duration::new(seconds.unwrap_or_default(), nanos.unwrap_or_default())
}
