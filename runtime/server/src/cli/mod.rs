//! The command line: its grammar, and the commands that talk to a running runtime.

pub mod args;
mod dead;
pub mod embed;
mod entries;
mod event;
pub mod handlers;
pub mod invoke;
pub mod logs;
pub mod ndjson;
pub mod options;
mod publish;
mod queues;
mod running;
mod runtime;
pub mod screen;
pub(crate) mod sheet;
pub mod state;
pub mod table;
pub mod text;

use std::io::ErrorKind;
use std::process::ExitCode;

use gristmill_core::{Clock as _, SystemClock};

use crate::http::Api;

use args::{Client, Dead, Entries, Global};
pub use event::EventFlags;
use publish::Target;
use runtime::Runtime;
use screen::Screen;

/// Runs a command against a running runtime. What is done with `--offline` is not one of those.
///
/// # Errors
/// When the runtime cannot be reached or refuses. [`complaint`] says it on a terminal.
pub async fn client(command: &Client, global: &Global) -> anyhow::Result<ExitCode> {
    let runtime = Runtime::new(global)?;
    let (screen, now) = (Screen::stdout(), SystemClock::new().now());
    match command {
        Client::Publish(args) => publish::publish(&Target::Running(&runtime), args, screen, now).await,
        Client::Queues(args) => queues::queues(&runtime, args, screen, now).await,
        Client::Pause(args) => queues::pause(&runtime, args, screen).await,
        Client::Resume(args) => queues::resume(&runtime, args, screen).await,
        Client::Entries(Entries::List(args)) => entries::list(&runtime, args, screen, now).await,
        Client::Entries(Entries::Show(args)) | Client::Dead(Dead::Show(args)) => {
            entries::show(&runtime, args, screen, now).await
        }
        Client::Dead(Dead::List(args)) => dead::list(&runtime, args, screen, now).await,
        Client::Handlers(args) => handlers::handlers(&runtime, args, screen, now).await,
        Client::Deploy(args) => handlers::deploy(&runtime, args, screen).await,
        Client::Rollback(args) => handlers::roll_back(&runtime, args, screen).await,
        Client::Status(args) => handlers::status(&runtime, args, screen, now).await,
        Client::Running(args) => running::running(&runtime, args, screen).await,
        Client::Kill(args) => running::kill(&runtime, args, screen).await,
        Client::State(command) => state::ask(command, &runtime).await,
        Client::Dead(Dead::Redrive(args)) => dead::redrive(&runtime, args, screen).await,
    }
}

/// `publish --offline`: into the store of a runtime that is stopped.
///
/// # Errors
/// When the events cannot be read, or the store fails.
pub async fn publish_offline(args: &args::Publish, api: &Api) -> anyhow::Result<ExitCode> {
    publish::publish(&Target::Stopped(api), args, Screen::stdout(), SystemClock::new().now()).await
}

/// An error with its causes, escaped for a terminal.
#[must_use]
pub fn complaint(error: &anyhow::Error) -> String {
    text::block(&format!("error: {error:#}"), "")
}

/// Whoever read the output has seen enough, as `head` has.
#[must_use]
pub fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == ErrorKind::BrokenPipe)
}
