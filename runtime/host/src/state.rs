//! What a store holds during one invocation.

use std::sync::Arc;
use std::time::{Duration, Instant};

use gristmill_core::{Clock as _, SystemClock, Timestamp};
use wasmtime::component::ResourceTable;
use wasmtime_wasi::p1::WasiP1Ctx;
use wasmtime_wasi::p2::pipe::MemoryInputPipe;
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_http::{WasiHttpCtxView, WasiHttpView};

use crate::component::Identity;
use crate::configuration::Configuration;
use crate::http::Http;
use crate::invocation::Invocation;
use crate::keyvalue::Overlay;
use crate::ledger::CallMeter;
use crate::live::Call;
use crate::log::Stream;
use crate::memory::MemoryMeter;
use crate::messaging::Held;
use crate::options::Limits;
use crate::outbox::{Outbox, Parent};
use crate::replay::Scene;
use crate::stdio::{Output, SharedLog, Stdio};

/// One invocation's side of the host; or, where instances are reused, that of one after the other.
pub(crate) struct State {
    /// Of components as well: preview 1 keeps nothing but the numbers of open files beside what they use.
    wasi: WasiP1Ctx,
    /// Handles of buckets and of messages.
    pub(crate) table: ResourceTable,
    pub(crate) identity: Arc<Identity>,
    /// `None`: so far away that there is none.
    pub(crate) deadline: Option<Instant>,
    /// How long the invocation may take in all.
    pub(crate) timeout: Duration,
    pub(crate) call: Option<Arc<Call>>,
    pub(crate) calls: CallMeter,
    pub(crate) memory: MemoryMeter,
    pub(crate) log: SharedLog,
    /// What a program wrote to stdout, which is no part of the log then.
    pub(crate) output: Option<Output>,
    pub(crate) outbox: Outbox,
    pub(crate) overlay: Overlay,
    pub(crate) messages: Held,
    pub(crate) configuration: Configuration,
    pub(crate) http: Http,
    /// The guest has not let go of what stands for its event.
    pub(crate) keeps_event: bool,
    /// Of a replay: where it takes place.
    pub(crate) scene: Option<Arc<Scene>>,
}

impl State {
    pub(crate) fn new(identity: Arc<Identity>, limits: &Limits, stdio: Stdio, scene: Option<Arc<Scene>>) -> Self {
        let log = SharedLog::new(limits.max_log_bytes);
        // The builder starts without environment, arguments, files and input.
        let mut wasi = WasiCtx::builder();
        wasi.max_random_size(limits.max_call_bytes);
        wasi.stderr(log.stream(Stream::Stderr));
        identity.surroundings.furnish(&mut wasi, scene.as_ref());
        if let Some(scene) = &scene {
            scene.furnish(&mut wasi);
        }
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
        *wasi.ctx().ctx.filesystem() = identity.surroundings.files(scene.as_deref());
        let http = Http::new(Arc::clone(&identity), log.clone(), scene.clone());
        Self {
            wasi,
            table: ResourceTable::new(),
            http,
            keeps_event: false,
            identity,
            deadline: None,
            timeout: limits.timeout,
            call: None,
            calls: CallMeter::default(),
            memory: MemoryMeter::new(limits.memory),
            log,
            output,
            outbox: Outbox::new(Parent::default(), limits),
            overlay: Overlay::new(None, limits),
            messages: Held::new(limits),
            configuration: Configuration::default(),
            scene,
        }
    }

    /// Begins an invocation: nothing of an earlier one is left, but what the guest itself keeps.
    pub(crate) fn begin(&mut self, invocation: &Invocation, deadline: Option<Instant>, call: Arc<Call>) {
        let limits = &invocation.limits;
        let parent = Parent { delivery_id: invocation.delivery_id.clone(), hops: invocation.event.hops() };
        self.outbox = Outbox::new(parent, limits);
        self.overlay = Overlay::new(invocation.state.clone(), limits);
        self.log.restart(limits.max_log_bytes);
        self.memory.begin(limits.memory, Arc::clone(&call));
        self.calls = CallMeter::default();
        self.keeps_event = false;
        self.wasi.ctx().table.set_max_capacity(limits.max_handles);
        self.table.set_max_capacity(limits.max_handles);
        self.configuration = invocation.configuration.clone();
        self.deadline = deadline;
        self.timeout = limits.timeout;
        self.call = Some(call);
    }

    /// Whether a person has ended the invocation.
    pub(crate) fn is_killed(&self) -> bool {
        self.call.as_ref().is_some_and(|call| call.is_killed())
    }

    /// The time on the guest's wall.
    pub(crate) fn now(&self) -> Timestamp {
        self.scene.as_ref().map_or_else(|| SystemClock::new().now(), |scene| scene.clock().now())
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

impl WasiHttpView for State {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        self.http.view(self.wasi.ctx().table)
    }
}
