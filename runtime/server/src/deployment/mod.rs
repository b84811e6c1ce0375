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
use bytes::Bytes;
use gristmill_core::{Clock, HandlerName, SystemClock};
use gristmill_host::{Host, Want, digest};
use gristmill_queue::{Operation, Queue, QueueError, ResumeIf};
use tokio::runtime::Handle;
use tracing::{info, warn};

use self::canary::Tried;
use self::plugins::Plugins;
use self::prepare::{Choice, Workshop};
pub use self::prepare::{PrepareError, Prepared};
use self::record::{Kept, NoVersion, Origin, Record};
pub use self::reload::{Applied, ApplyError, Look};
use self::shadow::Shadow;
pub use self::start::Start;
use self::status::{Reloads, RolledBack};
use self::versions::{Versions, VersionsError};
use self::work::Work;
use crate::cli::screen::Screen;
use crate::cli::text::{one_line, short_digest};
use crate::config::{CanaryOptions, Config, HandlerConfig};
use crate::dispatch::Observers;
use crate::registry::{self, Handler};
use crate::routing::Router;
use crate::shadow::comparison::{Comparison, TooDifferent};
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

/// What came of a deployment or a rollback.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deployed {
    /// The version that handles events from now on.
    pub current: Kept,
    /// The digest of the one that did before.
    pub before: String,
    /// What the new one imports that the old one did not and that needs a grant, a line each.
    pub wants: Vec<String>,
    /// A new version that has a share of the events first.
    pub tried: Option<Kept>,
    /// How it compares with the one before, if that was asked for.
    pub comparison: Option<Comparison>,
    /// A version that had a share of the events, and has it no more.
    pub ended: Option<Kept>,
}

impl Deployed {
    fn unchanged(current: Kept) -> Self {
        Self { before: current.digest.clone(), current, wants: Vec::new(), tried: None, comparison: None, ended: None }
    }
}

/// How a version that is deployed takes over.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct How {
    /// At once, even if the configuration lets it have a share of the events first.
    pub at_once: bool,
    /// After it has been compared with the current version.
    pub shadow: Option<Shadow>,
}

/// Why a version was not deployed. Nothing has changed.
#[derive(Debug, thiserror::Error)]
pub enum DeployError {
    /// There is no such handler.
    #[error("there is no handler `{handler}`; there are: {}", .known.join(", "))]
    Unknown {
        /// What was asked for.
        handler: HandlerName,
        /// Those that there are.
        known: Vec<String>,
    },
    /// The configuration pins it to another component.
    #[error(
        "handler `{handler}`: runtime.toml pins it to {pinned}, and this is {actual}\nchange or remove its `digest` first"
    )]
    Pinned {
        /// The handler.
        handler: HandlerName,
        /// What it is pinned to.
        pinned: String,
        /// What was to be deployed.
        actual: String,
    },
    /// It cannot take over.
    #[error(transparent)]
    Prepare(#[from] PrepareError),
    /// There is no such version.
    #[error("handler `{handler}`: {error}")]
    NoVersion {
        /// The handler.
        handler: HandlerName,
        /// Why not.
        error: NoVersion,
    },
    /// It cannot be recorded.
    #[error("handler `{handler}`: {error}")]
    Versions {
        /// The handler.
        handler: HandlerName,
        /// Why not.
        error: VersionsError,
    },
    /// It does something else than the current version.
    #[error("handler `{handler}`: {error}\n\n{}", .comparison.render(Screen::Plain).trim_end())]
    Different {
        /// The handler.
        handler: HandlerName,
        /// What is too much.
        error: TooDifferent,
        /// How they compare.
        comparison: Box<Comparison>,
    },
    /// The stored events cannot be read.
    #[error(transparent)]
    Queue(#[from] QueueError),
    /// The runtime is about to stop.
    #[error("the runtime is about to stop")]
    Stopping,
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

    /// Deploys a component by hand: from now on it handles the handler's events. The same one as before is nothing new.
    ///
    /// # Errors
    /// When it is not deployed; then nothing has changed.
    pub async fn deploy(&self, name: HandlerName, bytes: Bytes, how: How) -> Result<Deployed, DeployError> {
        self.uninterrupted(async move |shared| {
            let (handler, mut record) = shared.slot(&name)?;
            shared.note_tried(&name, &mut record);
            let actual = digest_of(&bytes).await;
            check_pin(&handler.config, &actual)?;
            if record.current.digest == actual {
                let ended = shared.end_trial(&name).await;
                return Ok(Deployed { ended, ..Deployed::unchanged(record.current) });
            }
            let config = shared.config();
            let workshop = shared.workshop(&config);
            let choice = workshop.version(bytes, actual, Origin::Deploy, Some(record));
            let next = workshop.prepare(&handler.config, choice).await?;
            let comparison = match how.shadow {
                Some(shadow) => Some(shared.compare(&handler, &next.handler, shadow).await?),
                None => None,
            };
            // What is tried has had its chance.
            let ended = shared.end_trial(&name).await;
            let deployed = match handler.config.canary {
                // Where every event fails, there is nothing to be careful of.
                Some(canary) if !how.at_once && !shared.is_circuit_open(&name) => {
                    shared.try_first(&handler, next, canary)
                }
                _ => shared.take_over(&handler, next).await?,
            };
            Ok(Deployed { comparison, ended, ..deployed })
        })
        .await
    }

    /// Goes back to a version that is kept: the one whose digest begins with `asked`, or the one that was current before.
    ///
    /// # Errors
    /// When there is no such version, or it cannot run any more; then nothing has changed.
    pub async fn roll_back(&self, name: HandlerName, asked: Option<String>) -> Result<Deployed, DeployError> {
        self.uninterrupted(async move |shared| {
            let (handler, mut record) = shared.slot(&name)?;
            if asked.is_none()
                && let Some(tried) = shared.end_trial(&name).await
            {
                info!(handler = %name, version = short_digest(&tried.digest), "the version that was tried is rolled back by hand");
                return Ok(Deployed { ended: Some(tried), ..Deployed::unchanged(record.current) });
            }
            let version = record
                .roll_back(asked.as_deref(), shared.clock.now())
                .map_err(|error| DeployError::NoVersion { handler: name.clone(), error })?;
            check_pin(&handler.config, &version.digest)?;
            shared.note_tried(&name, &mut record);
            if handler.component.digest() == version.digest {
                let ended = shared.end_trial(&name).await;
                return Ok(Deployed { ended, ..Deployed::unchanged(version) });
            }
            let config = shared.config();
            let workshop = shared.workshop(&config);
            let bytes = workshop
                .component(&version.digest)
                .await
                .map_err(|error| DeployError::Versions { handler: name.clone(), error })?;
            let choice = Choice { bytes, record, is_new: true };
            shared.take_over(&handler, workshop.prepare(&handler.config, choice).await?).await
        })
        .await
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

    /// Puts `next` in the place of `old`, on the disk and then in fact.
    async fn take_over(&self, old: &Handler, next: Prepared) -> Result<Deployed, DeployError> {
        let name = next.handler.config.name.clone();
        self.record(&next).await.map_err(|error| DeployError::Versions { handler: name.clone(), error })?;
        let wants = wants(old, &next.handler);
        let before = old.component.digest().to_owned();
        let current = next.record.current.clone();
        info!(handler = %name, from = short_digest(&before), to = short_digest(&current.digest), "another version takes over");
        self.switch(next);
        Ok(Deployed { current, before, wants, tried: None, comparison: None, ended: None })
    }

    /// Lets `next` have a share of the events first.
    fn try_first(self: &Arc<Self>, old: &Handler, next: Prepared, canary: CanaryOptions) -> Deployed {
        let (wants, tried) = (wants(old, &next.handler), next.record.current.clone());
        let name = next.handler.config.name.clone();
        self.try_out(next, canary);
        let current = self.slots().get(&name).map_or_else(|| tried.clone(), |slot| slot.record.current.clone());
        Deployed { before: current.digest.clone(), current, wants, tried: Some(tried), comparison: None, ended: None }
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

/// What a version imports that the one before does not, as far as it needs a grant; also told to the log.
fn wants(old: &Handler, new: &Handler) -> Vec<String> {
    let wants: Vec<_> = new.component.wants_beyond(&old.component).iter().filter_map(described).collect();
    for want in &wants {
        info!(handler = %new.config.name, "unlike the version before, it imports {want}");
    }
    wants
}

/// What an import needs that the version before did not have. `None`: no grant, and so nothing of interest.
fn described(want: &Want) -> Option<String> {
    let grant = want.grant?;
    let import = one_line(&want.import);
    Some(if want.is_granted {
        format!("{import}, which the grant `{}` covers", grant.name())
    } else {
        format!("{import}, and gets nothing of it without: grant = {{ {} = {} }}", grant.name(), grant.example())
    })
}

/// What identifies bytes; for many, that takes a while.
async fn digest_of(bytes: &Bytes) -> String {
    let bytes = bytes.clone();
    tokio::task::spawn_blocking(move || digest(&bytes)).await.unwrap_or_default()
}

/// Whether `digest` may run, by the configuration.
fn check_pin(config: &HandlerConfig, digest: &str) -> Result<(), DeployError> {
    match &config.digest {
        Some(pinned) if pinned != digest => {
            let (handler, pinned, actual) = (config.name.clone(), pinned.clone(), digest.to_owned());
            Err(DeployError::Pinned { handler, pinned, actual })
        }
        _ => Ok(()),
    }
}
