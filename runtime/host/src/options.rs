//! What can be set: of the host as a whole, and of one invocation.

use std::path::PathBuf;
use std::time::Duration;

use gristmill_core::{DirectoryGrant, HttpGrant, Pattern, Secret, SocketGrant, StateGrant};

use crate::compiler::Compiler;

/// The most instances that one host can be sized for: each reserves 4 GiB of address space.
pub const MAX_INSTANCES: u32 = 10_000;

/// What a [`Host`](crate::Host) is sized for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostOptions {
    /// How many instances may exist at once, 1 to [`MAX_INSTANCES`]; further calls wait. A component that consists of
    /// several counts as several. Each reserves address space, not memory. Default: 64.
    pub instances: u32,
    /// Bytes for all instances together: each counts with its [limit](Limits::memory), used or not, so that none fails
    /// because of another; further calls wait. Default: 1 GiB.
    pub memory: u64,
    /// Bytes of stack that a handler may use, 64 KiB to 64 MiB. Interpreters need more than most. Default: 1 MiB.
    pub stack: u64,
    /// Bytes of the largest component that is loaded. Default: 64 MiB.
    pub max_component_size: u64,
    /// Whether to count [fuel](crate::Ledger::fuel), which makes handlers slower. Default: no.
    pub count_fuel: bool,
    /// Who compiles components. Default: this process.
    pub compiler: Compiler,
    /// Where compiled code is kept, so that it is compiled once: a directory that belongs to this user alone, made if it
    /// is not there. `None`: nothing is kept. Default: `None`.
    pub cache: Option<PathBuf>,
    /// Bytes of compiled code that are kept; what was not used for longest goes first. Default: 1 GiB.
    pub max_cache_size: u64,
    /// Certificate authorities that requests of handlers trust besides the public ones, as PEM text. Default: none.
    pub authorities: Option<Vec<u8>>,
}

/// How little and how much stack is possible.
pub(crate) const STACK: std::ops::RangeInclusive<u64> = (64 << 10)..=(64 << 20);

impl Default for HostOptions {
    fn default() -> Self {
        Self {
            instances: 64,
            memory: 1 << 30,
            stack: 1 << 20,
            max_component_size: 64 << 20,
            count_fuel: false,
            compiler: Compiler::InProcess,
            cache: None,
            max_cache_size: 1 << 30,
            authorities: None,
        }
    }
}

/// For how many events an instance lives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Instances {
    /// For one: nothing of an event is left when the next one comes.
    #[default]
    Fresh,
    /// For several, one after the other. What the handler keeps in its memory stays: an event can read what another
    /// left there, and so can whoever takes over the handler through one. An instance also ends with the first event that
    /// it does not answer.
    Reuse {
        /// How many events at most.
        events: u32,
        /// For how long at most. An event that has begun is finished.
        age: Duration,
    },
}

/// What a component may do beyond computing. Default: nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grants {
    /// Types of events that it may emit.
    pub emit: Vec<Pattern>,
    /// Buckets of state that it may use; each name once.
    pub state: Vec<StateGrant>,
    /// Variables of its environment and their values; each name once.
    pub env: Vec<(String, Secret)>,
    /// Directories, opened when the component is loaded; what the handler calls them, each once.
    pub files: Vec<DirectoryGrant>,
    /// Addresses that it may talk to.
    pub sockets: Vec<SocketGrant>,
    /// Requests that it may send.
    pub http: Vec<HttpGrant>,
}

/// What one invocation may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Wall-clock time, without waiting for a free instance. Default: 5 s.
    pub timeout: Duration,
    /// Bytes of all its memories and tables together. Default: 64 MiB.
    pub memory: u64,
    /// How many events it may emit. Default: 1,000.
    pub max_emits: usize,
    /// Bytes of all events that it emits. Default: 16 MiB.
    pub max_emit_bytes: u64,
    /// Bytes of all that it logs, stdout and stderr included; the rest is dropped. Default: 64 KiB.
    pub max_log_bytes: u64,
    /// Bytes of one event that it emits. Default: 1 MiB.
    pub max_event_size: u64,
    /// Bytes of an ordering key or a dedupe key of an event that it emits. Default: 1,024.
    pub max_key_len: usize,
    /// How many keys of the state it may write. Default: 1,000.
    pub max_state_writes: usize,
    /// Bytes of all keys and values that it writes to the state. Default: 4 MiB.
    pub max_state_bytes: u64,
    /// Bytes of its result. Default: 1 MiB.
    pub max_result_bytes: u64,
    /// Bytes that one call of a host function may hand over. Default: 16 MiB.
    pub max_call_bytes: u64,
    /// How many handles (streams, pollables, buckets, its own resources) it may hold at once. What
    /// some of them stand for is the host's memory, up to 100 KiB each. Default: 1,000.
    pub max_handles: usize,
}

impl Limits {
    /// How much a program may write to stdout: what it may emit, with room for the escapes that JSON needs.
    pub(crate) fn max_output_bytes(&self) -> u64 {
        self.max_emit_bytes.saturating_mul(2)
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(5),
            memory: 64 << 20,
            max_emits: 1_000,
            max_emit_bytes: 16 << 20,
            max_log_bytes: 64 << 10,
            max_event_size: 1 << 20,
            max_key_len: 1_024,
            max_state_writes: 1_000,
            max_state_bytes: 4 << 20,
            max_result_bytes: 1 << 20,
            max_call_bytes: 16 << 20,
            max_handles: 1_000,
        }
    }
}
