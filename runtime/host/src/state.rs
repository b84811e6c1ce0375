//! What a store holds during one invocation.

use std::sync::Arc;
use std::time::Instant;

use wasmtime::component::ResourceTable;
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

use crate::component::Identity;
use crate::log::Stream;
use crate::memory::MemoryMeter;
use crate::options::Limits;
use crate::outbox::{Outbox, Parent};
use crate::stdio::SharedLog;

/// The most handles (streams, pollables, sockets) that a guest may hold.
const MAX_HANDLES: usize = 10_000;

/// One invocation's side of the host.
pub(crate) struct State {
    wasi: WasiCtx,
    table: ResourceTable,
    pub(crate) identity: Arc<Identity>,
    /// `None`: so far away that there is none.
    pub(crate) deadline: Option<Instant>,
    pub(crate) memory: MemoryMeter,
    pub(crate) log: SharedLog,
    pub(crate) outbox: Outbox,
}

impl State {
    pub(crate) fn new(identity: Arc<Identity>, parent: Parent, limits: &Limits, deadline: Option<Instant>) -> Self {
        let log = SharedLog::new(limits.max_log_bytes);
        // The builder starts without environment, arguments, files and input.
        let wasi = WasiCtx::builder()
            .stdout(log.stream(Stream::Stdout))
            .stderr(log.stream(Stream::Stderr))
            .allow_tcp(false)
            .allow_udp(false)
            .allow_ip_name_lookup(false)
            .build();
        let mut table = ResourceTable::new();
        table.set_max_capacity(MAX_HANDLES);
        let memory = MemoryMeter::new(limits.memory);
        let outbox = Outbox::new(parent, limits);
        Self { wasi, table, identity, deadline, memory, log, outbox }
    }
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}
