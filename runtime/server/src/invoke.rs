//! `gristmill invoke`: one component, one event, no queue.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, anyhow};
use bytes::Bytes;
use gristmill_core::state::{Change, StateWrite};
use gristmill_core::{Clock as _, HandlerName, Outcome, Secret, SystemClock, json};
use gristmill_host::{
    ChildCompiler, Compiler, Grants, Host, HostOptions, Instances, Invocation, Limits, LoadError, LoadRequest, Report,
};

use crate::cli::args::Invoke;
use crate::cli::text::{block, one_line};
use crate::cli::{screen, sheet};
use crate::compiling::Program;
use crate::http::view;
use crate::{postmortem, registry};

/// The largest event that is read, in bytes.
const MAX_EVENT: u64 = 16 << 20;

/// Runs the component once and prints what became of it. Fails unless it acked.
///
/// # Errors
/// When the component or the event cannot be read, or are none.
pub async fn invoke(args: &Invoke, program: &Program) -> anyhow::Result<ExitCode> {
    let bytes = std::fs::read(&args.component).with_context(|| format!("cannot read {}", args.component.display()))?;
    let event = json::parse(&read_event(&args.event)?).with_context(|| args.event.display().to_string())?;
    let read = |path: &PathBuf| std::fs::read(path).with_context(|| format!("cannot read {}", path.display()));
    let compiler = program.compiler(ChildCompiler::DEFAULT_CPU, ChildCompiler::DEFAULT_MEMORY);
    let host = Host::new(HostOptions {
        instances: 16,
        memory: args.memory,
        count_fuel: true,
        compiler: Compiler::Child(compiler),
        cache: registry::usual_cache(),
        authorities: args.ca_file.as_ref().map(read).transpose()?,
        ..HostOptions::default()
    })?;
    let request = LoadRequest {
        name: name_of(&args.component)?,
        bytes: Bytes::from(bytes),
        digest: None,
        interface: args.interface,
        grants: grants(args)?,
        instances: Instances::Fresh,
    };
    let component = host.load(request).await.map_err(|error| match error {
        LoadError::EmitNotGranted => anyhow!(
            "{} emits events: say which types it may emit, for instance --emit 'com.example.*'",
            args.component.display()
        ),
        LoadError::StateNotGranted => anyhow!(
            "{} uses state: say which buckets it may use, for instance --state thumbnails --state prices:read",
            args.component.display()
        ),
        error => anyhow!("{}: {error}", args.component.display()),
    })?;
    let limits = Limits { timeout: args.timeout, memory: args.memory, max_event_size: MAX_EVENT, ..Limits::default() };
    let invocation = Invocation {
        delivery_id: "invoke".to_owned(),
        queue: component.name().to_string(),
        attempt: 1,
        max_attempts: None,
        enqueued_at: SystemClock::new().now(),
        event: Arc::new(event),
        state: None,
        configuration: args.set.iter().map(|(key, value)| (key.clone(), Secret::new(value.as_str()))).collect(),
        limits,
    };
    let report = component.handle(invocation).await;
    screen::print(&describe(component.form(), &report))?;
    Ok(if matches!(report.outcome, Outcome::Ack { .. }) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A variable that is not set is a mistake here: somebody has just named it.
fn grants(args: &Invoke) -> anyhow::Result<Grants> {
    let variable = |name: &String| match std::env::var(name) {
        Ok(value) => Ok((name.clone(), Secret::new(value))),
        Err(error) => Err(anyhow!("--env {name}: {error}")),
    };
    Ok(Grants {
        http: args.http.clone(),
        emit: args.emit.clone(),
        state: args.state.clone(),
        env: args.env.iter().map(variable).collect::<anyhow::Result<_>>()?,
        files: args.files.clone(),
        sockets: args.sockets.clone(),
    })
}

fn read_event(path: &Path) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = if path.as_os_str() == "-" {
        std::io::stdin().take(MAX_EVENT).read_to_end(&mut bytes)
    } else {
        std::fs::File::open(path).and_then(|file| file.take(MAX_EVENT).read_to_end(&mut bytes))
    };
    read.with_context(|| format!("cannot read {}", path.display()))?;
    Ok(bytes)
}

/// A handler is called as its file, as far as names go.
fn name_of(path: &Path) -> anyhow::Result<HandlerName> {
    let stem = path.file_stem().map(|stem| stem.to_string_lossy().to_lowercase()).unwrap_or_default();
    let name: String =
        stem.chars().map(|c| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '-' }).take(63).collect();
    Ok(HandlerName::new(name.trim_start_matches(['-', '_', '.'])).or_else(|_| HandlerName::new("handler"))?)
}

fn describe(form: &str, report: &Report) -> String {
    let mut lines = vec![format!("runs     {form}"), format!("outcome  {}", report.outcome.kind())];
    if let Some(reason) = report.outcome.reason() {
        lines.push(format!("reason   {}", block(reason, "         ").trim()));
    }
    if let Outcome::Ack { result: Some(result) } = &report.outcome {
        lines.push(format!("result   {}", one_line(&String::from_utf8_lossy(result))));
    }
    let ledger = &report.ledger;
    let cost = sheet::cost(&view::postmortem(&postmortem::cost(ledger)));
    lines.extend(cost.map(|(name, text)| format!("{name:<9}{text}")));
    if ledger.http_sent > 0 {
        lines.push(format!("http     {} bytes sent, {} received", ledger.http_sent, ledger.http_received));
    }
    if let Some(fuel) = ledger.fuel {
        lines.push(format!("fuel     {fuel}"));
    }
    for emit in &report.emits {
        let event = serde_json::to_string(&json::Structured(&emit.event)).unwrap_or_default();
        lines.push(format!("emitted  {}", one_line(&event)));
    }
    lines.extend(report.state.writes.iter().map(describe_write));
    for line in &report.logs {
        lines.push(format!("log      {:<5} {}: {}", line.level, one_line(&line.context), one_line(&line.message)));
    }
    lines.join("\n") + "\n"
}

fn describe_write(write: &StateWrite) -> String {
    let key = one_line(&format!("{}/{}", write.bucket, write.key));
    match &write.change {
        Change::Set(value) => format!("wrote    {key} = {}", one_line(&String::from_utf8_lossy(value))),
        Change::Delete => format!("deleted  {key}"),
        Change::Increment(by) => format!("added    {key} + {by}"),
    }
}
