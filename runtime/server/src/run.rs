//! `gristmill run`: everything started in order, and stopped in the opposite one.

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use gristmill_core::{Clock, QueueName, SystemClock, Timestamp};
use gristmill_host::Host;
use gristmill_queue::{ListKeys, OnLoss, Publish, PublishStatus, Queue, QueueError, QueueStats, WhichKeys};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::{debug, info, warn};

use crate::cli::args::Run;
use crate::cli::ndjson::Source;
use crate::cli::screen::{self, Screen};
use crate::cli::text::one_line;
use crate::config::Config;
use crate::dispatch::{Dispatcher, Observers, Phase};
use crate::engine;
use crate::http::{Api, Readiness, Server};
use crate::progress::Progress;
use crate::registry::{self, Handler};
use crate::report::{self, Baseline};
use crate::routing::Router;
use crate::threads::Threads;

/// How often an idle check looks at the queues.
const IDLE_INTERVAL: Duration = Duration::from_millis(20);
/// Keys that one look at a queue asks for.
const KEYS_AT_ONCE: usize = 1_000;
/// Threads that claim and settle for all handlers.
const DISPATCH_THREADS: usize = 1;

/// Runs a deployment until it is stopped, or idle if that is asked for.
///
/// # Errors
/// When something cannot be started: the store, a component, the address.
pub async fn run(args: &Run, config: &Config) -> anyhow::Result<ExitCode> {
    let mut signals = Signals::new()?;
    let host = registry::host(config)?;
    let hangups = signal(SignalKind::hangup()).context("cannot listen to signals")?;
    let handlers = load(&host, config).await?;
    let refreshing = tokio::spawn(refresh(hangups, handlers.clone()));
    let on_loss = if args.accept_loss { OnLoss::Accept } else { OnLoss::Refuse };
    let queue = engine::open(config, on_loss).await?;
    let runtime = Runtime::start(config, host, handlers, queue).await?;
    let work = runtime.work(args, config);
    let worked = tokio::select! {
        worked = work => worked,
        () = signals.next() => Ok(0),
    };
    let baseline = runtime.baseline.clone();
    let (queue, latencies) = (runtime.queue.clone(), runtime.observers.latencies.clone());
    // Stopped in order whatever happened: what runs is settled or released.
    runtime.stop(config.shutdown_grace, &mut signals).await;
    refreshing.abort();
    if worked.is_ok() && args.until_idle {
        screen::print(&report::render(&*queue, &baseline, &latencies, Screen::stdout()).await?)?;
    }
    let closed = queue.close().await;
    let refused = worked?;
    closed?;
    Ok(if refused == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn load(host: &Host, config: &Config) -> anyhow::Result<Vec<Arc<Handler>>> {
    let mut handlers = Vec::new();
    let mut errors = Vec::new();
    for loaded in registry::load(host, config).await {
        match loaded {
            Ok(handler) => {
                let component = &handler.component;
                info!(handler = %component.name(), digest = component.digest(),
                    compile_ms = u64::try_from(component.compile_time().as_millis()).unwrap_or(u64::MAX), "loaded");
                for gap in component.gaps() {
                    debug!(handler = %component.name(), "{}", one_line(&gap.to_string()));
                }
                handlers.push(handler);
            }
            Err(error) => errors.push(error.to_string()),
        }
    }
    if !errors.is_empty() {
        bail!("{}", errors.join("\nerror: "));
    }
    Ok(handlers)
}

/// Reads secrets again at each signal.
async fn refresh(mut hangups: Signal, handlers: Vec<Arc<Handler>>) {
    while hangups.recv().await.is_some() {
        registry::refresh(handlers.clone()).await;
    }
}

/// A deployment at work.
struct Runtime {
    queue: Arc<dyn Queue>,
    router: Arc<Router>,
    observers: Observers,
    baseline: Baseline,
    phase: watch::Sender<Phase>,
    dispatchers: JoinSet<()>,
    readiness: Readiness,
    http: Server,
    /// On which dispatchers run.
    _threads: Threads,
}

impl Runtime {
    async fn start(
        config: &Config,
        host: Host,
        handlers: Vec<Arc<Handler>>,
        queue: Arc<dyn Queue>,
    ) -> anyhow::Result<Self> {
        let stats = queue.stats().await?;
        warn_of_idle_queues(config, &stats);
        let router = Arc::new(registry::router(config));
        let observers = Observers::default();
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let readiness = Readiness::default();
        let api = Api {
            queue: queue.clone(),
            router: router.clone(),
            handlers: Arc::new(handlers.iter().map(|handler| handler.config.name.clone()).collect()),
            host: Some(host),
            metrics: observers.metrics.clone(),
            readiness: readiness.clone(),
        };
        let http = Server::start(config.listen, api).await.with_context(|| {
            format!("cannot listen on {}; choose another address with `[http] listen`", config.listen)
        })?;
        readiness.open();
        let capabilities = queue.capabilities();
        info!(url = %format_args!("http://{}", http.address()), engine = capabilities.engine, durability = %capabilities.durability,
            handlers = handlers.len(), "ready");
        let (phase, phases) = watch::channel(Phase::Running);
        let threads = Threads::start("gristmill-dispatch", DISPATCH_THREADS).context("cannot start threads")?;
        let mut dispatchers = JoinSet::new();
        for handler in handlers {
            let observed = (observers.clone(), phases.clone());
            let dispatcher = Dispatcher::new(handler, queue.clone(), router.clone(), clock.clone(), observed);
            dispatchers.spawn_on(dispatcher.run(), threads.handle());
        }
        Ok(Self {
            queue,
            router,
            observers,
            baseline: Baseline::new(&stats),
            phase,
            dispatchers,
            readiness,
            http,
            _threads: threads,
        })
    }

    /// Publishes what was asked for, and returns when there is nothing left to do, if that was asked for. The number of
    /// lines that were refused.
    async fn work(&self, args: &Run, config: &Config) -> anyhow::Result<u64> {
        let publish = async {
            match &args.publish {
                Some(file) => publish_file(&*self.queue, &self.router, &Source::new(file)).await,
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
        let idle = self.until_idle(config, &progress, published.subscribe());
        let worked = tokio::try_join!(publish, idle);
        progress.finish();
        worked.map(|(refused, ())| refused)
    }

    async fn until_idle(
        &self,
        config: &Config,
        progress: &Progress,
        published: watch::Receiver<bool>,
    ) -> anyhow::Result<()> {
        let ours: BTreeSet<_> = config.handlers.iter().map(|handler| handler.name.as_str()).collect();
        let horizon = config.handlers.iter().map(|handler| handler.queue.retry.backoff.max).max().unwrap_or_default();
        let clock = SystemClock::new();
        let mut interval = tokio::time::interval(IDLE_INTERVAL);
        loop {
            interval.tick().await;
            // Asked before looking: what was published by then is among the numbers.
            let published = *published.borrow();
            let mut stats = self.queue.stats().await?;
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
            let sleeping = is_sleeping(stats, soon);
            // Who waits behind an entry that sleeps has to wait as long.
            let stuck = sleeping && stats.scheduled > 0;
            if !sleeping || stats.waiting > 0 && !stuck && stats.waiting > held(&*self.queue, &stats.queue).await? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    async fn stop(mut self, grace: Duration, signals: &mut Signals) {
        self.readiness.close();
        self.phase.send_replace(Phase::Draining);
        let drained = async { while self.dispatchers.join_next().await.is_some() {} };
        let in_time = tokio::select! {
            drained = tokio::time::timeout(grace, drained) => drained.is_ok(),
            () = signals.next() => false,
        };
        if !in_time {
            warn!("handlers still run: their deliveries are released");
            self.phase.send_replace(Phase::Releasing);
            while self.dispatchers.join_next().await.is_some() {}
        }
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

    async fn next(&mut self) {
        let name = tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        };
        info!(signal = name, "stopping; once more to stop at once");
    }
}
