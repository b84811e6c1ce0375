//! `gristmill handlers`, `deploy`, `rollback` and `status`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use gristmill_core::{HandlerName, Timestamp};

use super::runtime::Runtime;
use super::screen::{Screen, print};
use super::table::{Column, Table};
use super::text::{age, block, one_line, rough_size, short, short_digest};
use crate::http::model::{Canary, Deployed, Handler, Origin, RolledBack, WrongPlugin};
use crate::shadow::selection::Selection;

/// `handlers`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Examples:
  gristmill handlers
  gristmill handlers --json | jq '.items[] | {name, current: .versions[0].digest}'")]
pub struct Handlers {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `deploy`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Examples:
  gristmill deploy resize target/wasm32-wasip2/release/resize.wasm
  gristmill rollback resize                               if that was a mistake
  gristmill deploy resize resize.wasm --shadow last:500 --require-same

Calls that are going on end on the version that began them. The version stays over a restart, until the handler's own
`component` changes.")]
pub struct Deploy {
    /// The handler
    pub handler: HandlerName,
    /// The component's file
    #[arg(value_name = "FILE")]
    pub component: PathBuf,
    /// Let it take over at once, even if the handler's `canary` lets new versions have a share of the deliveries first
    #[arg(long)]
    pub now: bool,
    /// Run stored events through the current version and the new one first, and show where they differ: `last:N` for the
    /// last N that came, or `dead` for the dead letters. Nothing that they do has an effect
    #[arg(long, value_name = "EVENTS")]
    pub shadow: Option<Selection>,
    /// Deploy only if no event differs
    #[arg(long, requires = "shadow")]
    pub require_same: bool,
    /// Deploy only if no more than so many of a hundred events differ
    #[arg(long, value_name = "PERCENT", requires = "shadow", conflicts_with = "require_same", value_parser = percent)]
    pub max_different: Option<f64>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `rollback`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Examples:
  gristmill rollback resize                               to the version that was current before
  gristmill rollback resize --to sha256:4f5a              to the one whose digest begins like that")]
pub struct Rollback {
    /// The handler
    pub handler: HandlerName,
    /// The version: its digest, or how it begins [default: the one that was current before]
    #[arg(long, value_name = "DIGEST")]
    pub to: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `status`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Examples:
  gristmill status
  gristmill status --json | jq .config.error

Exit status: 1 where the configuration as it is written, or a plugin, is refused.")]
pub struct Status {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

pub(super) async fn handlers(
    runtime: &Runtime,
    args: &Handlers,
    screen: Screen,
    now: Timestamp,
) -> anyhow::Result<ExitCode> {
    let list = runtime.handlers().await?;
    if args.json {
        screen.json(&list)?;
    } else if list.items.is_empty() {
        eprintln!("there are no handlers");
    } else {
        print(&versions(&list.items, now).render(screen))?;
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn deploy(runtime: &Runtime, args: &Deploy, screen: Screen) -> anyhow::Result<ExitCode> {
    let path = &args.component;
    let component = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let manner = [
        args.now.then(|| ("now", "true".to_owned())),
        args.shadow.map(|selection| ("shadow", selection.to_string())),
        args.require_same.then(|| ("require_same", "true".to_owned())),
        args.max_different.map(|percent| ("max_different", percent.to_string())),
    ];
    let manner: Vec<_> = manner.into_iter().flatten().collect();
    tell(&runtime.deploy(&args.handler, component, &manner).await?, args.json, screen)
}

pub(super) async fn roll_back(runtime: &Runtime, args: &Rollback, screen: Screen) -> anyhow::Result<ExitCode> {
    tell(&runtime.roll_back(&args.handler, args.to.as_deref()).await?, args.json, screen)
}

fn tell(deployed: &Deployed, json: bool, screen: Screen) -> anyhow::Result<ExitCode> {
    if json {
        screen.json(deployed)?;
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(comparison) = &deployed.shadow {
        print(&comparison.render(screen))?;
        if comparison.compared() == 0 {
            eprintln!("nothing could be compared: done events keep their data with `keep-payload = true` only");
        }
    }
    let (now, before) = (short_digest(&deployed.current.digest), short_digest(&deployed.before));
    if let Some(canary) = &deployed.canary {
        let canary = short_digest(&canary.digest);
        print(&format!("{} tries {canary} with a share of the deliveries, beside {now}\n", deployed.handler))?;
    } else if deployed.current.digest == deployed.before {
        print(&format!("{} runs {now} already\n", deployed.handler))?;
    } else {
        print(&format!("{} runs {now} now, in the place of {before}\n", deployed.handler))?;
    }
    if let Some(ended) = &deployed.ended {
        print(&format!("the trial of {} has ended\n", short_digest(&ended.digest)))?;
    }
    for want in &deployed.wants {
        eprintln!("unlike the version before, it imports {}", one_line(want));
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn status(
    runtime: &Runtime,
    args: &Status,
    screen: Screen,
    now: Timestamp,
) -> anyhow::Result<ExitCode> {
    let status = runtime.status().await?;
    let is_well = status.config.error.is_none() && status.plugins.is_empty();
    let code = if is_well { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    if args.json {
        screen.json(&status)?;
        return Ok(code);
    }
    let current = status
        .handlers
        .iter()
        .map(|handler| Handler { versions: handler.versions.iter().take(1).cloned().collect(), ..handler.clone() });
    print(&versions(&current.collect::<Vec<_>>(), now).render(screen))?;
    for handler in &status.handlers {
        if let Some(circuit) = &handler.circuit {
            let next = short(Duration::from_millis(circuit.next_probe_ms));
            eprintln!("{} gets no events: {}; the next probe is in {next}", handler.name, one_line(&circuit.reason));
        }
        if let Some(RolledBack { digest, reason, at }) = &handler.rolled_back {
            let (digest, ago) = (short_digest(digest), age(now, at.0));
            eprintln!("{}: {digest} was rolled back {ago} ago: {}", handler.name, one_line(reason));
        }
    }
    for setting in &status.config.needs_restart {
        eprintln!("{} has changed, and needs a restart to take effect", one_line(setting));
    }
    for WrongPlugin { error, .. } in &status.plugins {
        eprintln!("{}", block(&format!("a plugin is not loaded:\n{error}"), ""));
    }
    if let Some(refused) = &status.config.error {
        let ago = age(now, refused.at.0);
        eprintln!("{}", block(&format!("the configuration was refused {ago} ago:\n{}", refused.reason), ""));
    }
    Ok(code)
}

fn left(canary: &Canary) -> String {
    match canary.left_ms {
        0 => "until it has handled enough".to_owned(),
        left => format!("{} left", short(Duration::from_millis(left))),
    }
}

fn versions(handlers: &[Handler], now: Timestamp) -> Table {
    let mut table = Table::new([
        Column::Key("HANDLER"),
        Column::Key("VERSION"),
        Column::Key("STATUS"),
        Column::Number("SIZE"),
        Column::Key("FROM"),
        Column::Number("SINCE"),
        Column::Rest("INTERFACE"),
    ]);
    for handler in handlers {
        if let Some(canary) = &handler.canary {
            let version = &canary.version;
            table.row([
                handler.name.to_string(),
                short_digest(&version.digest),
                format!("canary, {:.1} %", canary.share * 100.0),
                rough_size(version.size),
                origin(version.origin).to_owned(),
                "-".to_owned(),
                format!("{} of {} failed, {}", canary.failed, canary.handled, left(canary)),
            ]);
        }
        for (at, version) in handler.versions.iter().enumerate() {
            let is_current = at == 0;
            let status = match (is_current, &handler.pinned) {
                (true, Some(_)) => "current, pinned",
                (true, None) => "current",
                (false, _) => "earlier",
            };
            table.row([
                handler.name.to_string(),
                short_digest(&version.digest),
                status.to_owned(),
                rough_size(version.size),
                origin(version.origin).to_owned(),
                age(now, version.since.0),
                if is_current { handler.interface.clone() } else { String::new() },
            ]);
        }
    }
    table
}

fn percent(text: &str) -> Result<f64, &'static str> {
    let percent = text.trim_end_matches([' ', '%']).parse().ok();
    percent.filter(|percent| (0.0..=100.0).contains(percent)).ok_or("expected a number from 0 to 100")
}

const fn origin(origin: Origin) -> &'static str {
    match origin {
        Origin::Source => "source",
        Origin::Deploy => "deploy",
    }
}
