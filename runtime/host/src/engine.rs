//! The engine, its pool of instances, and the thread that makes time slices.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use wasmtime::component::{HasSelf, Linker};
use wasmtime::{Config, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig, WasmBacktraceDetails};
use wasmtime_wasi::I32Exit;

use crate::bindings::EventHost;
use crate::error::HostError;
use crate::keyvalue;
use crate::options::{HostOptions, MAX_INSTANCES};
use crate::provided::PREVIEW1;
use crate::state::State;

/// A handler that computes gives way to others after this long; also the precision of its time-out.
pub(crate) const TICK: Duration = Duration::from_millis(1);
/// A Rust component has two or three tables, and other toolchains make more.
pub(crate) const TABLES_PER_INSTANCE: u32 = 8;

/// Stack of the handler's own code. Interpreters need more than the default of 512 KiB.
const WASM_STACK: usize = 1 << 20;
/// Stack of the handler's code and of the host functions that it calls.
const ASYNC_STACK: usize = 2 << 20;
/// The most elements of a table. The largest component seen, a Python interpreter, has 10,000.
const TABLE_ELEMENTS: usize = 100_000;
/// The whole of a 32-bit memory: only an invocation's own limit decides how much is used.
const MEMORY_SLOT: usize = 1 << 32;
/// How much of a used slot is cleared in place rather than given back to the operating system.
const KEEP_RESIDENT: usize = 256 << 10;
const KEEP_TABLE_RESIDENT: usize = 16 << 10;
/// A backtrace shows fewer, after those of the panic machinery are left out.
const BACKTRACE_FRAMES: usize = 48;

/// Runs components. Cheap to clone; all clones share one pool of instances. Needs a tokio runtime with time enabled.
#[derive(Clone)]
pub struct Host {
    shared: Arc<Shared>,
}

struct Shared {
    engine: Engine,
    linker: Linker<State>,
    module_linker: wasmtime::Linker<State>,
    pool: Arc<Semaphore>,
    instances: u32,
}

impl Host {
    /// Reserves address space for the pool and starts the thread that makes time slices. The thread ends after the
    /// last [`Host`] and [`Component`](crate::Component) is dropped.
    ///
    /// # Errors
    /// When an option is out of range, or the operating system refuses the address space or the thread.
    pub fn new(options: HostOptions) -> Result<Self, HostError> {
        let HostOptions { instances } = options;
        if !(1..=MAX_INSTANCES).contains(&instances) {
            return Err(HostError::Instances { instances });
        }
        let engine = Engine::new(&config(instances)).map_err(HostError::Engine)?;
        let linker = linker(&engine).map_err(HostError::Engine)?;
        let module_linker = module_linker(&engine).map_err(HostError::Engine)?;
        start_ticker(&engine).map_err(HostError::Ticker)?;
        let pool = Arc::new(Semaphore::new(instances as usize));
        Ok(Self { shared: Arc::new(Shared { engine, linker, module_linker, pool, instances }) })
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.shared.engine
    }

    /// Of components.
    pub(crate) fn linker(&self) -> &Linker<State> {
        &self.shared.linker
    }

    /// Of core modules.
    pub(crate) fn module_linker(&self) -> &wasmtime::Linker<State> {
        &self.shared.module_linker
    }

    /// Permits for the pool, as many as instances.
    pub(crate) fn pool(&self) -> &Semaphore {
        &self.shared.pool
    }

    pub(crate) fn instances(&self) -> u32 {
        self.shared.instances
    }
}

impl std::fmt::Debug for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Host").field("instances", &self.shared.instances).finish_non_exhaustive()
    }
}

fn config(instances: u32) -> Config {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_memories(instances)
        .total_tables(instances.saturating_mul(TABLES_PER_INSTANCE))
        .total_stacks(instances)
        .total_gc_heaps(instances)
        // Only counters, and a component may consist of many: the permits and the totals above are the limit.
        .total_core_instances(u32::MAX)
        .total_component_instances(u32::MAX)
        .max_core_instance_size(64 << 20)
        .max_component_instance_size(64 << 20)
        .max_memories_per_module(16)
        .max_tables_per_module(16)
        .max_memory_size(MEMORY_SLOT)
        .table_elements(TABLE_ELEMENTS)
        .linear_memory_keep_resident(KEEP_RESIDENT)
        .table_keep_resident(KEEP_TABLE_RESIDENT)
        .pagemap_scan(Enabled::Auto);
    let mut config = Config::new();
    config
        .allocation_strategy(InstanceAllocationStrategy::Pooling(pool))
        .wasm_component_model(true)
        .concurrency_support(false)
        .memory_init_cow(true)
        .epoch_interruption(true)
        .max_wasm_stack(WASM_STACK)
        .async_stack_size(ASYNC_STACK)
        .wasm_backtrace_max_frames(std::num::NonZeroUsize::new(BACKTRACE_FRAMES))
        .wasm_backtrace_details(WasmBacktraceDetails::Enable);
    config
}

/// Links everything that `provided.rs` lists.
fn linker(engine: &Engine) -> wasmtime::Result<Linker<State>> {
    let mut linker = Linker::new(engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    EventHost::add_to_linker::<State, HasSelf<State>>(&mut linker, |state| state)?;
    keyvalue::link(&mut linker)?;
    Ok(linker)
}

/// Links WASI preview 1.
fn module_linker(engine: &Engine) -> wasmtime::Result<wasmtime::Linker<State>> {
    let mut linker = wasmtime::Linker::new(engine);
    wasmtime_wasi::p1::add_to_linker_async(&mut linker, State::preview1)?;
    // Its own takes a status of 126 or more for a mistake, and programs exit with 255 when they mean -1.
    linker.allow_shadowing(true);
    linker.func_wrap(PREVIEW1, "proc_exit", |status: i32| -> wasmtime::Result<()> { Err(I32Exit(status).into()) })?;
    Ok(linker)
}

fn start_ticker(engine: &Engine) -> std::io::Result<()> {
    let engine = engine.weak();
    let tick = move || {
        while let Some(engine) = engine.upgrade() {
            engine.increment_epoch();
            drop(engine);
            std::thread::sleep(TICK);
        }
    };
    std::thread::Builder::new().name("gristmill-ticks".to_owned()).spawn(tick).map(drop)
}
