//! The host: its engines, its pool of instances, and the thread that makes time slices.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use wasmtime::{Engine, EngineWeak};

use crate::cache::Cache;
use crate::compiler::Workshop;
use crate::error::HostError;
use crate::http::Client;
use crate::live::{Live, Running};
use crate::options::{HostOptions, MAX_INSTANCES, STACK};
use crate::platform::{Model, Platform};
use crate::pool::Pool;
use crate::reuse::Shelves;

/// A handler that computes gives way to others after this long; also the precision of its time-out.
pub(crate) const TICK: Duration = Duration::from_millis(1);
/// After so many ticks, instances that are kept and have become too old are dropped.
const TICKS_PER_SWEEP: u32 = 500;

/// Runs components. Cheap to clone; all clones share one pool of instances. Needs a tokio runtime with time enabled,
/// and with I/O where requests are granted.
#[derive(Clone)]
pub struct Host {
    shared: Arc<Shared>,
}

struct Shared {
    options: HostOptions,
    plain: Arc<Platform>,
    /// Made when a component first needs it.
    concurrent: Mutex<Option<Arc<Platform>>>,
    ticked: Arc<Ticked>,
    pool: Pool,
    live: Live,
    shelves: Shelves,
    cache: Option<Cache>,
    workshop: Workshop,
    http: Client,
}

/// What the ticker looks after.
struct Ticked {
    plain: EngineWeak,
    concurrent: OnceLock<EngineWeak>,
    shelves: Shelves,
}

impl Host {
    /// Reserves address space for the pool and starts the thread that makes time slices. The thread ends after the
    /// last [`Host`] and [`Component`](crate::Component) is dropped.
    ///
    /// # Errors
    /// When an option is out of range, or the operating system refuses the address space or the thread.
    pub fn new(options: HostOptions) -> Result<Self, HostError> {
        if !(1..=MAX_INSTANCES).contains(&options.instances) {
            return Err(HostError::Instances { instances: options.instances });
        }
        if !STACK.contains(&options.stack) {
            return Err(HostError::Stack { stack: options.stack });
        }
        let http = Client::new(options.authorities.as_deref())?;
        let plain = Arc::new(Platform::new(&options, Model::Plain).map_err(HostError::Engine)?);
        let shelves = Shelves::default();
        let ticked =
            Arc::new(Ticked { plain: plain.engine().weak(), concurrent: OnceLock::new(), shelves: shelves.clone() });
        start_ticker(Arc::clone(&ticked)).map_err(HostError::Ticker)?;
        let pool = Pool::new(options.instances, options.memory);
        let (concurrent, live) = (Mutex::default(), Live::default());
        let cache = options.cache.clone().map(|folder| Cache::new(folder, options.max_cache_size));
        let workshop = Workshop::new(options.compiler.clone());
        let shared = Shared { options, plain, concurrent, ticked, pool, live, shelves, cache, workshop, http };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// The invocations that are going on, in the order in which they began.
    #[must_use]
    pub fn running(&self) -> Vec<Running> {
        self.shared.live.running()
    }

    /// Ends an invocation of [`running`](Self::running) with the outcome `killed`. `false`: it is over already.
    #[must_use]
    pub fn kill(&self, number: u64) -> bool {
        self.shared.live.kill(number)
    }

    /// What components of `model` are compiled and linked with.
    pub(crate) fn platform(&self, model: Model) -> wasmtime::Result<Arc<Platform>> {
        if model == Model::Plain {
            return Ok(Arc::clone(&self.shared.plain));
        }
        let mut concurrent = self.shared.concurrent.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(platform) = &*concurrent {
            return Ok(Arc::clone(platform));
        }
        let platform = Arc::new(Platform::new(&self.shared.options, model)?);
        let _ = self.shared.ticked.concurrent.set(platform.engine().weak());
        *concurrent = Some(Arc::clone(&platform));
        Ok(platform)
    }

    pub(crate) fn options(&self) -> &HostOptions {
        &self.shared.options
    }

    pub(crate) fn pool(&self) -> &Pool {
        &self.shared.pool
    }

    pub(crate) fn live(&self) -> &Live {
        &self.shared.live
    }

    pub(crate) fn shelves(&self) -> &Shelves {
        &self.shared.shelves
    }

    /// What requests are sent with.
    pub(crate) fn http(&self) -> &Client {
        &self.shared.http
    }

    pub(crate) fn workshop(&self) -> &Workshop {
        &self.shared.workshop
    }

    pub(crate) fn cache(&self) -> Option<&Cache> {
        self.shared.cache.as_ref()
    }
}

impl std::fmt::Debug for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Host").field("options", &self.shared.options).finish_non_exhaustive()
    }
}

impl Ticked {
    /// `None`: the host is gone.
    fn engines(&self) -> Option<(Engine, Option<Engine>)> {
        Some((self.plain.upgrade()?, self.concurrent.get().and_then(EngineWeak::upgrade)))
    }
}

fn start_ticker(ticked: Arc<Ticked>) -> std::io::Result<()> {
    let tick = move || {
        let mut ticks = 0_u32;
        while let Some((plain, concurrent)) = ticked.engines() {
            plain.increment_epoch();
            if let Some(engine) = concurrent {
                engine.increment_epoch();
            }
            drop(plain);
            ticks = ticks.wrapping_add(1);
            if ticks.is_multiple_of(TICKS_PER_SWEEP) {
                ticked.shelves.sweep();
            }
            std::thread::sleep(TICK);
        }
    };
    std::thread::Builder::new().name("gristmill-ticks".to_owned()).spawn(tick).map(drop)
}
