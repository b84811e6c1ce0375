//! The handlers at work, and every way to change them while they are.
//!
//! ```text
//! runtime.toml ─┐
//! deploy        ├─► prepare ──► record ──► switch: the successor claims, the predecessor finishes
//! rollback     ─┘   (load)     (on disk)
//! ```
//!
//! | file | holds |
//! | --- | --- |
//! | `canary` | a version that is tried with a share of the deliveries |
//! | [`plugins`] | the folder of plugins |
//! | `deploy` | another version by hand |
//! | `prepare` | a version made ready, before anything is changed |
//! | [`record`] | which versions a handler has had, and which is current |
//! | [`versions`] | where records and components are kept |
//! | `reload` | a configuration, applied by difference |
//! | [`watch`] | notices that files have changed |
//! | `work` | one version at work |
//! | [`shadow`] | a version compared with the current one before it is deployed |
//! | `start` | what runs when the process begins |
//! | [`status`] | what people are shown |
//!
//! **Invariants.** One change at a time. A change that fails before its record is written has changed nothing; once it is,
//! it is carried out, after a crash too. Every version has a dispatcher of its own: what it has begun it finishes, what it
//! has claimed and not begun goes back without an attempt spent, and the successor claims at once. So during a switch
//! calls of both versions run side by side, and a handler's `concurrency` holds for each of them.

mod canary;
mod deploy;
pub mod plugins;
mod prepare;
pub mod record;
mod reload;
pub mod shadow;
mod start;
pub mod status;
pub mod versions;
pub mod watch;
mod work;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use anyhow::Context as _;
use gristmill_core::{Clock, HandlerName, SystemClock};
use gristmill_host::Host;
use gristmill_queue::{Operation, Queue, QueueError, ResumeIf};
use tokio::runtime::Handle;
use tracing::warn;

use self::canary::Tried;
pub use self::deploy::{DeployError, Deployed, How};
use self::plugins::Plugins;
use self::prepare::Workshop;
pub use self::prepare::{PrepareError, Prepared};
use self::record::Record;
pub use self::reload::{Applied, ApplyError, Look};
pub use self::start::Start;
use self::status::{Reloads, RolledBack};
use self::versions::{Versions, VersionsError};
use self::work::Work;
use crate::cli::text::short_digest;
use crate::config::Config;
use crate::dispatch::Observers;
use crate::registry::{self, Handler};
use crate::routing::Router;
use crate::threads::Threads;

/// Threads that claim and settle for all handlers.
const DISPATCH_THREADS: usize = 1;
/// Why the queue of a handler is paused that is not there any more.
const REMOVED: &str = "its handler was removed";

/// A deployment at work. Cheap to clone; all clones are the same one.
#[derive(Clone, Debug)]
pub struct Deployment {
    shared: Arc<Shared>,
}

/// What the handlers of a deployment share.
struct Shared {
    host: Host,
    queue: Arc<dyn Queue>,
    router: Arc<Router>,
    observers: Observers,
    clock: Arc<dyn Clock>,
    versions: Arc<Versions>,
    /// Where calls run.
    guests: Handle,
    /// Where dispatchers run.
    threads: Threads,
    /// Held by whoever changes anything.
    changing: tokio::sync::Mutex<()>,
    /// Everything is about to end: nothing is set to work any more. Looked at with the slots locked for writing.
    is_stopping: AtomicBool,
    /// What is written in runtime.toml and in effect.
    written: RwLock<Arc<Config>>,
    /// The same with the handlers that plugins are.
    config: RwLock<Arc<Config>>,
    plugins: Mutex<Plugins>,
    slots: RwLock<BTreeMap<HandlerName, Slot>>,
    /// Predecessors that finish what they have begun.
    finishing: Mutex<Vec<Work>>,
    reloads: Mutex<Reloads>,
}

/// One handler.
#[derive(Debug)]
struct Slot {
    handler: Arc<Handler>,
    record: Record,
    work: Work,
    /// Another version, which has a share of the deliveries.
    tried: Option<Tried>,
    /// The version that was tried last and had to go.
    rolled_back: Option<RolledBack>,
}

impl Deployment {
    /// A deployment of what is `prepared`, whose versions are recorded. Calls run on the runtime on which this is called,
    /// from when it [begins](Self::begin).
    ///
    /// # Errors
    /// When the operating system refuses threads, or a record cannot be written.
    pub async fn new(
        start: &Start,
        (host, queue, versions): (Host, Arc<dyn Queue>, Arc<Versions>),
    ) -> anyhow::Result<Self> {
        let Start { written, config, plugins, prepared, .. } = start;
        let threads = Threads::start("gristmill-dispatch", DISPATCH_THREADS).context("cannot start threads")?;
        let router = Arc::new(Router::new(registry::routes(config)));
        let shared = Arc::new(Shared {
            host,
            queue,
            router,
            observers: Observers::default(),
            clock: Arc::new(SystemClock::new()),
            versions,
            guests: Handle::current(),
            threads,
            changing: tokio::sync::Mutex::default(),
            is_stopping: AtomicBool::new(false),
            written: RwLock::new(Arc::new(written.clone())),
            config: RwLock::new(Arc::new(config.clone())),
            plugins: Mutex::new(plugins.clone()),
            slots: RwLock::default(),
            finishing: Mutex::default(),
            reloads: Mutex::new(Reloads::at_start(&start.complaints)),
        });
        for prepared in prepared {
            let name = &prepared.handler.config.name;
            shared.record(prepared).await.with_context(|| format!("handler `{name}`"))?;
            shared.unpause(name).await?;
        }
        Ok(Self { shared })
    }

    /// Sets the handlers to work.
    pub async fn begin(&self, start: Start) {
        let _change = self.shared.changing.lock().await;
        for prepared in start.prepared {
            self.shared.switch(prepared);
        }
        for (next, canary) in start.tried {
            self.shared.begin_trial(next, canary).await;
        }
    }

    /// Carries out a change as a whole, one at a time, whether or not somebody waits for its end.
    async fn uninterrupted<T: Send + 'static, F>(
        &self,
        change: impl FnOnce(Arc<Shared>) -> F + Send + 'static,
    ) -> Result<T, DeployError>
    where
        F: Future<Output = Result<T, DeployError>> + Send,
    {
        let shared = self.shared.clone();
        let changed = self.shared.guests.spawn(async move {
            let owner = shared.clone();
            let _change = owner.changing.lock().await;
            if owner.is_stopping() {
                return Err(DeployError::Stopping);
            }
            change(shared).await
        });
        // It panicked, or the process ends.
        changed.await.unwrap_or(Err(DeployError::Stopping))
    }

    /// The queue that its handlers work on.
    #[must_use]
    pub fn queue(&self) -> &Arc<dyn Queue> {
        &self.shared.queue
    }

    /// Where published events go.
    #[must_use]
    pub fn router(&self) -> &Arc<Router> {
        &self.shared.router
    }

    /// What is told of the handlers' work.
    #[must_use]
    pub fn observers(&self) -> &Observers {
        &self.shared.observers
    }

    /// What runs the components.
    #[must_use]
    pub fn host(&self) -> &Host {
        &self.shared.host
    }

    /// The configuration that holds.
    #[must_use]
    pub fn config(&self) -> Arc<Config> {
        self.shared.config()
    }

    /// Reads the secrets of all handlers again.
    pub async fn refresh_secrets(&self) {
        let _change = self.shared.changing.lock().await;
        let all = |slot: &Slot| {
            let tried = slot.tried.as_ref().map(|tried| tried.trial.candidate.clone());
            std::iter::once(slot.handler.clone()).chain(tried)
        };
        let handlers = self.shared.slots().values().flat_map(all).collect();
        registry::refresh(handlers).await;
    }

    /// Ends all work: no more claims, and what runs may go on for `grace`, or until `hurry` ends. What still runs then goes
    /// back. Returns when every delivery is settled; whether none had to go back.
    pub async fn stop(&self, grace: Duration, hurry: impl Future<Output = ()>) -> bool {
        // A change that is under way is not waited for: what it has recorded is for the next start.
        let slots = {
            let mut slots = self.shared.slots_mut();
            self.shared.is_stopping.store(true, Ordering::SeqCst);
            std::mem::take(&mut *slots)
        };
        let mut all: Vec<_> = slots.into_values().map(|slot| slot.work).collect();
        all.append(&mut self.shared.finishing());
        all.iter().for_each(Work::drain);
        let drained = async {
            for work in &mut all {
                work.ended().await;
            }
        };
        let in_time = tokio::select! {
            drained = tokio::time::timeout(grace, drained) => drained.is_ok(),
            () = hurry => false,
        };
        if !in_time {
            warn!("handlers still run: their deliveries are released");
            all.iter().for_each(Work::release);
            for work in &mut all {
                work.ended().await;
            }
        }
        in_time
    }
}

impl Shared {
    fn is_stopping(&self) -> bool {
        self.is_stopping.load(Ordering::SeqCst)
    }

    fn written(&self) -> Arc<Config> {
        self.written.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn plugins(&self) -> MutexGuard<'_, Plugins> {
        self.plugins.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn config(&self) -> Arc<Config> {
        self.config.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn slots(&self) -> RwLockReadGuard<'_, BTreeMap<HandlerName, Slot>> {
        self.slots.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn slots_mut(&self) -> RwLockWriteGuard<'_, BTreeMap<HandlerName, Slot>> {
        self.slots.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn finishing(&self) -> MutexGuard<'_, Vec<Work>> {
        self.finishing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reloads(&self) -> MutexGuard<'_, Reloads> {
        self.reloads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn workshop<'a>(&'a self, config: &'a Config) -> Workshop<'a> {
        Workshop { host: &self.host, versions: &self.versions, config, now: self.clock.now(), is_start: false }
    }

    /// A handler and its versions.
    fn slot(&self, name: &HandlerName) -> Result<(Arc<Handler>, Record), DeployError> {
        let slots = self.slots();
        match slots.get(name) {
            Some(slot) => Ok((slot.handler.clone(), slot.record.clone())),
            None => {
                let known = slots.keys().map(ToString::to_string).collect();
                Err(DeployError::Unknown { handler: name.clone(), known })
            }
        }
    }

    /// Writes down what is to run, if that is not written yet.
    async fn record(&self, prepared: &Prepared) -> Result<(), VersionsError> {
        let Some(bytes) = prepared.new.clone() else { return Ok(()) };
        let (versions, record) = (self.versions.clone(), prepared.record.clone());
        let name = prepared.handler.config.name.clone();
        let recorded = tokio::task::spawn_blocking(move || {
            versions.keep(&bytes)?;
            versions.commit(&name, &record)
        });
        recorded.await.unwrap_or_else(|error| Err(VersionsError::interrupted(error)))
    }

    /// Sets a version to work. Its predecessor finishes what it has begun.
    fn switch(&self, next: Prepared) {
        let name = next.handler.config.name.clone();
        let mut slots = self.slots_mut();
        if self.is_stopping() {
            return;
        }
        if let Some(Slot { work, .. }) = slots.get(&name) {
            work.drain();
        }
        let digest = next.handler.component.digest().to_owned();
        let work = Work::start(self, next.handler.clone().into());
        let predecessor = slots.insert(name.clone(), Slot::of(next, work));
        drop(slots);
        if let Some(Slot { work, tried, .. }) = predecessor {
            self.finish(work);
            if let Some(Tried { version, .. }) = tried.filter(|tried| tried.version.digest != digest) {
                let version = short_digest(&version.digest);
                warn!(handler = %name, version, "the trial of this version has ended, because the handler has changed");
            }
        }
    }

    /// Keeps what finishes, so that a stop waits for it.
    fn finish(&self, work: Work) {
        let mut finishing = self.finishing();
        finishing.retain(|work| !work.is_over());
        finishing.push(work);
    }

    /// The queue of a handler that was removed goes on when the handler is back.
    async fn unpause(&self, name: &HandlerName) -> Result<(), QueueError> {
        let only_if = ResumeIf::Reason(REMOVED.to_owned());
        self.queue.operate(Operation::Resume { queue: name.clone(), only_if }).await?;
        Ok(())
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("slots", &self.slots().keys()).finish_non_exhaustive()
    }
}
