//! What a store holds during one invocation.

use std::sync::Arc;
use std::time::Instant;

use gristmill_core::StateReader;
use wasmtime::component::ResourceTable;
use wasmtime_wasi::p1::WasiP1Ctx;
use wasmtime_wasi::p2::pipe::MemoryInputPipe;
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

use crate::component::Identity;
use crate::keyvalue::Overlay;
use crate::log::Stream;
use crate::memory::MemoryMeter;
use crate::options::Limits;
use crate::outbox::{Outbox, Parent};
use crate::stdio::{Output, SharedLog, Stdio};

/// The most handles (streams, pollables, sockets) that a guest may hold.
const MAX_HANDLES: usize = 10_000;

/// One invocation's side of the host.
pub(crate) struct State {
    /// Of components as well: preview 1 keeps nothing but the numbers of open files beside what they use.
    wasi: WasiP1Ctx,
    /// Handles of buckets.
    pub(crate) table: ResourceTable,
    pub(crate) identity: Arc<Identity>,
    /// `None`: so far away that there is none.
    pub(crate) deadline: Option<Instant>,
    pub(crate) memory: MemoryMeter,
    pub(crate) log: SharedLog,
    /// What a program wrote to stdout, which is no part of the log then.
    pub(crate) output: Option<Output>,
    pub(crate) outbox: Outbox,
    pub(crate) overlay: Overlay,
}

impl State {
    pub(crate) fn new(
        identity: Arc<Identity>,
        parent: Parent,
        reader: Option<Arc<dyn StateReader>>,
        limits: &Limits,
        (deadline, stdio): (Option<Instant>, Stdio),
    ) -> Self {
        let log = SharedLog::new(limits.max_log_bytes);
        // The builder starts without environment, arguments, files and input.
        let mut wasi = WasiCtx::builder();
        wasi.stderr(log.stream(Stream::Stderr)).allow_tcp(false).allow_udp(false).allow_ip_name_lookup(false);
        let output = match stdio {
            Stdio::Log => {
                wasi.stdout(log.stream(Stream::Stdout));
                None
            }
            Stdio::Event { input } => {
                let output = Output::new(limits.max_output_bytes());
                wasi.stdin(MemoryInputPipe::new(input)).stdout(output.stream());
                Some(output)
            }
        };
        let mut wasi = wasi.build_p1();
        wasi.ctx().table.set_max_capacity(MAX_HANDLES);
        let memory = MemoryMeter::new(limits.memory);
        let outbox = Outbox::new(parent, limits);
        let overlay = Overlay::new(reader, limits);
        let mut table = ResourceTable::new();
        table.set_max_capacity(MAX_HANDLES);
        Self { wasi, table, identity, deadline, memory, log, output, outbox, overlay }
    }

    pub(crate) fn preview1(&mut self) -> &mut WasiP1Ctx {
        &mut self.wasi
    }
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        self.wasi.ctx()
    }
}
