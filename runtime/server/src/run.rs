//! `gristmill run`: everything started in order, and stopped in the opposite one.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use gristmill_core::{Clock, QueueName, SystemClock, Timestamp};
use gristmill_host::{Compiler, Host};
use gristmill_queue::{ListKeys, OnLoss, Publish, PublishStatus, Queue, QueueError, QueueStats, WhichKeys};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tracing::{error, info, warn};

use crate::cli::args::Run;
use crate::cli::ndjson::Source;
use crate::cli::screen::{self, Screen};
use crate::cli::text::one_line;
use crate::compiling::Program;
use crate::config::Config;
use crate::deployment::plugins::Folder;
use crate::deployment::versions::Versions;
use crate::deployment::watch::Watch;
use crate::deployment::{Deployment, Look, Start};
use crate::http::{Api, Readiness, Server};
use crate::progress::Progress;
use crate::report::{self, Baseline};
use crate::routing::Router;
use crate::{engine, registry};

/// How often an idle check looks at the queues.
const IDLE_INTERVAL: Duration = Duration::from_millis(20);
/// Keys that one look at a queue asks for.
const KEYS_AT_ONCE: usize = 1_000;

/// Runs a deployment until it is stopped, or idle if that is asked for.
///
/// # Errors
/// When something cannot be started: the store, a component, the address.
pub async fn run(args: &Run, path: &Path, config: Config, program: &Program) -> anyhow::Result<ExitCode> {
    let mut signals = Signals::new()?;
    let compiler = program.compiler(config.host.compile_time, config.host.compile_memory);
    let host = registry::host(&config, Compiler::Child(compiler))?;
    let hangups = signal(SignalKind::hangup()).context("cannot listen to signals")?;
    let versions = Arc::new(Versions::of(&config));
    info!(handlers = config.handlers.len(), "loading");
    // Compiling may take long, and nothing is at stake yet.
    let mut folder = Folder::of(&config);
    let start = tokio::select! {
        start = Start::prepare(&host, &versions, config.clone(), folder.as_mut()) => start?,
        () = signals.next("stopping") => return Ok(ExitCode::SUCCESS),
    };
    let on_loss = if args.accept_loss { OnLoss::Accept } else { OnLoss::Refuse };
    let queue = engine::open(&start.config, on_loss).await?;
    let runtime = Runtime::start(start, (host, queue.clone(), versions)).await?;
    let reloading = tokio::spawn(reload(hangups, path.to_owned(), folder, runtime.deployment.clone()));
    let worked = tokio::select! {
        worked = runtime.work(args) => worked,
        () = signals.next("stopping; once more to stop at once") => Ok(0),
    };
    // From here on, what is written is for the next start.
    let (baseline, latencies) = (runtime.baseline.clone(), runtime.deployment.observers().latencies.clone());
    reloading.abort();
    let is_well = !args.until_idle || runtime.deployment.handlers().iter().all(|handler| handler.circuit.is_none());
    // Stopped in order whatever happened: what runs is settled or released.
    runtime.stop(&mut signals).await;
    if worked.is_ok() && args.until_idle {
        screen::print(&report::render(&*queue, &baseline, &latencies, Screen::stdout()).await?)?;
    }
    let closed = queue.close().await;
    let refused = worked?;
    closed?;
    Ok(if refused == 0 && is_well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Applies the configuration when it has changed, and at each signal, which means the secrets too.
async fn reload(mut hangups: Signal, path: PathBuf, mut plugins: Option<Folder>, deployment: Deployment) {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_owned();
    let name = path.file_name().map(OsStr::to_owned).unwrap_or_default();
    // Where a configuration is mounted, it may be a link to a folder that is replaced as a whole.
    let is_config =
        move |touched: &Path| touched.file_name().is_some_and(|touched| touched == name || touched == "..data");
    let is_ours = move |touched: &Path| is_config(touched) || Folder::is_of_interest(touched);
    let watch = Watch::start(std::iter::once(&*folder).chain(plugins.as_ref().map(Folder::path)), is_ours);
    let mut read = Some(deployment.config().written.clone());
    let mut is_told = false;
    loop {
        let is_signal = tokio::select! {
            hangup = hangups.recv() => match hangup {
                Some(()) => true,
                None => return,
            },
            () = watch.changed() => false,
        };
        let now = contents(&path).await;
        let is_reloaded = is_signal || now != read;
        if is_reloaded {
            read = now;
            deployment.reload(&path, if is_signal { Look::Everywhere } else { Look::WhereChanged }).await;
        }
        if let Some(folder) = &mut plugins {
            if is_reloaded {
                // What was refused may be allowed now.
                folder.forget(deployment.wrong_plugins().iter().map(|(path, _)| path));
            }
            let before = folder.clone();
            let looked = tokio::task::block_in_place(|| folder.look(|path| watch.is_being_written(path)));
            match looked {
                Ok(found) => {
                    is_told = false;
                    deployment.note_folder(folder.path(), None);
                    if !deployment.take_plugins(found).await {
                        // It is found again.
                        *folder = before;
                    }
                }
                // Once, and not every few seconds.
                Err(error) if !is_told => {
                    is_told = true;
                    error!("plugins stay as they are: {error}");
                    deployment.note_folder(folder.path(), Some(error.to_string()));
                }
                Err(_) => {}
            }
        }
        if is_signal {
            deployment.refresh_secrets().await;
        }
    }
}

/// What identifies a file's contents. `None`: it cannot be read.
async fn contents(path: &Path) -> Option<String> {
    let path = path.to_owned();
    tokio::task::spawn_blocking(move || Some(gristmill_host::digest(&std::fs::read(path).ok()?))).await.ok().flatten()
}

/// A deployment at work, and how others reach it.
struct Runtime {
    deployment: Deployment,
    baseline: Baseline,
    readiness: Readiness,
    http: Server,
}

impl Runtime {
    async fn start(start: Start, parts: (Host, Arc<dyn Queue>, Arc<Versions>)) -> anyhow::Result<Self> {
        let (listen, queue) = (start.config.listen, parts.1.clone());
        let stats = queue.stats().await?;
        warn_of_idle_queues(&start.config, &stats);
        let deployment = Deployment::new(&start, parts).await?;
        let readiness = Readiness::default();
        let api = Api {
            queue: queue.clone(),
            router: deployment.router().clone(),
            metrics: deployment.observers().metrics.clone(),
            deployment: Some(deployment.clone()),
            readiness: readiness.clone(),
        };
        let http = Server::start(listen, api)
            .await
            .with_context(|| format!("cannot listen on {listen}; choose another address with `[http] listen`"))?;
        let handlers = start.prepared.len();
        deployment.begin(start).await;
        readiness.open();
        let capabilities = queue.capabilities();
        info!(url = %format_args!("http://{}", http.address()), engine = capabilities.engine, durability = %capabilities.durability,
            handlers, "ready");
        Ok(Self { deployment, baseline: Baseline::new(&stats), readiness, http })
    }

    /// Publishes what was asked for, and returns when there is nothing left to do, if that was asked for. The number of
    /// lines that were refused.
    async fn work(&self, args: &Run) -> anyhow::Result<u64> {
        let publish = async {
            match &args.publish {
                Some(file) => {
                    let (queue, router) = (self.deployment.queue(), self.deployment.router());
                    publish_file(&**queue, router, &Source::new(file)).await
                }
                None => Ok(0),
            }
        };
        if !args.until_idle {
            publish.await?;
            return std::future::pending().await;
        }
        let progress = Progress::start();
        let published = watch::Sender::new(false);
        let publish = async {
            let refused = publish.await?;
            published.send_replace(true);
            anyhow::Ok(refused)
        };
        let idle = self.until_idle(&progress, published.subscribe());
        let worked = tokio::try_join!(publish, idle);
        progress.finish();
        worked.map(|(refused, ())| refused)
    }

    async fn until_idle(&self, progress: &Progress, published: watch::Receiver<bool>) -> anyhow::Result<()> {
        let (config, queue) = (self.deployment.config(), self.deployment.queue());
        let ours: BTreeSet<_> = config.handlers.iter().map(|handler| handler.name.as_str()).collect();
        let horizon = config.handlers.iter().map(|handler| handler.queue.retry.backoff.max).max().unwrap_or_default();
        let clock = SystemClock::new();
        let mut interval = tokio::time::interval(IDLE_INTERVAL);
        loop {
            interval.tick().await;
            // Asked before looking: what was published by then is among the numbers.
            let published = *published.borrow();
            let mut stats = queue.stats().await?;
            stats.retain(|stats| ours.contains(stats.queue.as_str()));
            show(progress, &stats);
            let soon = clock.now().after(horizon);
            if published && self.is_idle(&stats, soon).await? {
                return Ok(());
            }
        }
    }

    /// Whether nothing is left to do before `soon`.
    async fn is_idle(&self, stats: &[QueueStats], soon: Timestamp) -> Result<bool, QueueError> {
        for stats in stats {
            if stats.paused.is_some() && stats.leased == 0 && !self.deployment.is_to_be_probed(&stats.queue) {
                continue;
            }
            let sleeping = is_sleeping(stats, soon);
            // Who waits behind an entry that sleeps has to wait as long.
            let stuck = sleeping && stats.scheduled > 0;
            if !sleeping
                || stats.waiting > 0 && !stuck && stats.waiting > held(&**self.deployment.queue(), &stats.queue).await?
            {
                return Ok(false);
            }
        }
        Ok(true)
    }

    async fn stop(self, signals: &mut Signals) {
        self.readiness.close();
        let grace = self.deployment.config().shutdown_grace;
        self.deployment.stop(grace, signals.next("stopping at once")).await;
        self.http.stop().await;
        info!("stopped");
    }
}

/// Entries that nobody handles are no error: a handler may have been taken out for a while, or a queue been paused. But
/// somebody should know.
fn warn_of_idle_queues(config: &Config, stats: &[QueueStats]) {
    for stats in stats {
        let entries = stats.ready + stats.scheduled + stats.waiting;
        if entries > 0 && config.handlers.iter().all(|handler| handler.name != stats.queue) {
            warn!(queue = %stats.queue, entries, "this queue has entries and no handler");
        }
        if let Some(reason) = &stats.paused {
            warn!(queue = %stats.queue, entries, reason = one_line(reason), "this queue is paused");
        }
    }
}

/// Whether nothing is handled, or may be handled before `soon`. Entries that wait for another are not looked at.
fn is_sleeping(stats: &QueueStats, soon: Timestamp) -> bool {
    // A scheduled entry whose time is not known counts as one that is due.
    let later = stats.scheduled == 0 || stats.next_due.is_some_and(|due| due > soon);
    stats.ready == 0 && stats.leased == 0 && later
}

/// How many entries of `queue` wait behind dead letters that hold their key.
async fn held(queue: &dyn Queue, name: &QueueName) -> Result<u64, QueueError> {
    let mut held = 0;
    let mut cursor = None;
    loop {
        let request = ListKeys { queue: name.clone(), which: WhichKeys::Held, limit: KEYS_AT_ONCE, cursor };
        let page = queue.keys(request).await?;
        held += page.keys.iter().map(|key| key.waiting).sum::<u64>();
        match page.next {
            Some(next) => cursor = Some(next),
            None => return Ok(held),
        }
    }
}

fn show(progress: &Progress, stats: &[QueueStats]) {
    let sum = |count: fn(&QueueStats) -> u64| stats.iter().map(count).sum::<u64>();
    let ended = sum(|s| s.totals.acked + s.totals.dead_lettered + s.totals.cancelled);
    let published = sum(|s| s.totals.published);
    let message = format!(
        "{} ready, {} running, {} to be retried, {} dead",
        sum(|s| s.ready + s.waiting),
        sum(|s| s.leased),
        sum(|s| s.scheduled),
        sum(|s| s.dead)
    );
    progress.show(ended, published, message);
}

/// Publishes every line that is an event; what is refused is reported. How many lines that were.
async fn publish_file(queue: &dyn Queue, router: &Router, source: &Source) -> anyhow::Result<u64> {
    let mut refused = 0;
    let mut duplicates = 0_u64;
    let mut batches = source.stream().with_context(|| format!("cannot read {source}"))?;
    let mut complain = |line: u64, error: &dyn std::fmt::Display| {
        refused += 1;
        warn!("{}:{line}: {}", one_line(&source.to_string()), one_line(&error.to_string()));
    };
    while let Some(batch) = batches.recv().await {
        let mut numbers = Vec::new();
        let mut publishes = Vec::new();
        for line in batch.with_context(|| format!("cannot read {source} any further"))? {
            match line.event {
                Ok(event) => {
                    numbers.push(line.number);
                    let queues = router.route(&event);
                    publishes.push(Publish::new(event, queues));
                }
                Err(error) => complain(line.number, &error),
            }
        }
        let results = queue.publish(publishes).await?.results;
        for (number, result) in numbers.into_iter().zip(results) {
            match result {
                Ok(accepted) => duplicates += u64::from(accepted.status == PublishStatus::Duplicate),
                Err(error) => complain(number, &error),
            }
        }
    }
    if duplicates > 0 {
        info!(duplicates, "events that had been published before were not published again");
    }
    Ok(refused)
}

/// What asks a process to stop.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> anyhow::Result<Self> {
        let listen = |kind| signal(kind).context("cannot listen to signals");
        Ok(Self { terminate: listen(SignalKind::terminate())?, interrupt: listen(SignalKind::interrupt())? })
    }

    /// Waits for one, and says what comes of it.
    async fn next(&mut self, consequence: &str) {
        let name = tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        };
        info!(signal = name, "{consequence}");
    }
}
