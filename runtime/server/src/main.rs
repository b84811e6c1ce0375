//! The `gristmill` binary: reads the command line, and hands over.

use std::io::IsTerminal as _;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser as _;
use gristmill::cli::args::{Args, Client, Command, Global, LogFormat};
use gristmill::compiling::{self, Program};
use gristmill::config::{self, Color, Config};
use gristmill::manifest::embed;
use gristmill::progress::LogWriter;
use gristmill::{check, cli, copies, invoke, offline, run, tls};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// A call makes and drops some hundred small things, on whichever thread it is at the time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What has gone wrong before anything was done: the command line or the configuration.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    // Before there are threads, or anything else that a compiler has no use for.
    if compiling::is_asked_for(std::env::args_os()) {
        return gristmill_host::compile_as_child();
    }
    let args = Args::parse();
    if let Err(error) = init_logs(&args.global) {
        eprint!("{}", cli::complaint(&error));
        return ExitCode::from(USAGE);
    }
    raise_file_limit();
    tls::use_ring();
    // Handlers give way after each time slice; then whoever waits for a timer or a socket is looked after at once, and
    // not only after so many other slices.
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().event_interval(1).build();
    let result = match runtime {
        Ok(runtime) => {
            let result = runtime.block_on(execute(&args));
            // Whatever has to end has been waited for. A thread that opens a pipe for a handler, looks up a name or
            // compiles may be busy for ever, and must not hold the process.
            runtime.shutdown_background();
            result
        }
        Err(error) => Err(anyhow::Error::new(error).context("cannot start threads")),
    };
    match result {
        Ok(code) => code,
        Err(error) if cli::is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprint!("{}", cli::complaint(&error));
            ExitCode::FAILURE
        }
    }
}

async fn execute(args: &Args) -> anyhow::Result<ExitCode> {
    let program = Program::this().context("cannot tell which program this is")?;
    match &args.command {
        Command::Run(run) => match load(&args.global) {
            Ok(config) => Box::pin(run::run(run, args.global.config_path(), config, &program)).await,
            Err(code) => Ok(code),
        },
        Command::Check(check) => match load(&args.global) {
            Ok(config) if check.components.is_empty() => check::check(&config, &program).await,
            Ok(config) => check::components(&check.components, &config, &program).await,
            Err(code) => Ok(code),
        },
        Command::Embed(args) => embed::embed(args),
        Command::Backup(backup) => match load(&args.global) {
            Ok(config) => copies::backup(backup, &config).await,
            Err(code) => Ok(code),
        },
        Command::Restore(restore) => match load(&args.global) {
            Ok(config) => copies::restore(restore, &config).await,
            Err(code) => Ok(code),
        },
        Command::Client(Client::State(state)) if state.is_offline() => match load(&args.global) {
            Ok(config) => offline::state(state, &config).await,
            Err(code) => Ok(code),
        },
        Command::Invoke(args) => invoke::invoke(args, &program).await,
        Command::Client(Client::Publish(publish)) if publish.offline => match load(&args.global) {
            Ok(config) => offline::publish(publish, &config).await,
            Err(code) => Ok(code),
        },
        Command::Client(client) => cli::client(client, &args.global).await,
    }
}

/// The configuration, or what to exit with: its errors are printed with carets.
fn load(global: &Global) -> Result<Config, ExitCode> {
    config::load(global.config_path()).map_err(|errors| {
        let color = if std::io::stderr().is_terminal() { Color::Ansi } else { Color::Plain };
        eprintln!("{}", errors.render(color).trim_end());
        ExitCode::from(USAGE)
    })
}

/// As many open files as the system lets this process have: what handlers open must not be what the store lacks.
fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        tracing::debug!(%error, "cannot raise the limit of open files");
    }
}

fn init_logs(global: &Global) -> anyhow::Result<()> {
    let filter = cli::logs::filter(&global.log)?;
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(LogWriter::default);
    match global.log_format {
        LogFormat::Text => logs.with_ansi(std::io::stderr().is_terminal()).init(),
        LogFormat::Json => logs.json().flatten_event(true).init(),
    }
    Ok(())
}
