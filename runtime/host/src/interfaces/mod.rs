//! The interfaces that a handler may have: what the host calls, and what it makes of the answer.
//!
//! A file each says how the interface is found among the exports, how it is made ready once, and how one event goes
//! through a fresh instance and becomes an outcome. To add one: a file, a case in [`Interface`], and a case in each
//! function here. Nothing outside knows more than [`find`] and [`Ready`].

pub(crate) mod batch;
mod command;
mod handler;
mod incoming;
mod messaging;
mod program;
mod run;

use std::fmt;
use std::str::FromStr;

use gristmill_core::{Event, EventError, Outcome};
use wasmtime::Store;

use crate::compile::{Needs, Source};
use crate::error::LoadError;
use crate::execution::Work;
use crate::inspect::{Form, Outline};
use crate::outcome::Failure;
use crate::provided;
use crate::state::State;
use crate::stdio::Stdio;

/// What the host calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Interface {
    /// `gristmill:events/handler`: one event, one verdict.
    Handler,
    /// `gristmill:events/batch-handler`: several events, a verdict for each.
    BatchHandler,
    /// `wasi:http/incoming-handler` of WASI 0.2: the event is a request, and the status of the response is the verdict.
    IncomingHandler,
    /// `wasi:messaging/incoming-handler`: the event as a message.
    Messaging,
    /// `wasi:cli/run` of WASI 0.2 or of WASI 0.3: a program. The event is on stdin, emitted events come from stdout, and the exit
    /// status is the verdict.
    Run,
    /// The same as a core module, by WASI preview 1.
    Command,
}

impl Interface {
    /// All of them. Where a component has several, the first is taken.
    pub const ALL: [Self; 6] =
        [Self::Handler, Self::BatchHandler, Self::IncomingHandler, Self::Messaging, Self::Run, Self::Command];

    /// Its name in configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Handler => "gristmill:events/handler",
            Self::BatchHandler => "gristmill:events/batch-handler",
            Self::Messaging => "wasi:messaging/incoming-handler",
            Self::IncomingHandler => "wasi:http/incoming-handler",
            Self::Run => "wasi:cli/run",
            Self::Command => "wasi-preview1-command",
        }
    }

    /// Whether it is a whole program: it gets its event through stdin, and ends with it.
    pub(crate) fn is_program(self) -> bool {
        matches!(self, Self::Run | Self::Command)
    }

    /// What has to be exported for it, if it is.
    fn export(self, outline: &Outline) -> Option<&str> {
        match self {
            Self::Handler => handler::export(outline),
            Self::BatchHandler => batch::export(outline),
            Self::Messaging => messaging::export(outline),
            Self::IncomingHandler => incoming::export(outline),
            Self::Run => run::export(outline),
            Self::Command => command::export(outline),
        }
    }
}

/// The name, with the versions that the host calls, where there are any. What a component has of them:
/// [`Component::form`](crate::Component::form).
impl fmt::Display for Interface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Handler => handler::NAME,
            Self::BatchHandler => batch::NAME,
            Self::Messaging => messaging::NAME,
            Self::IncomingHandler => incoming::NAME,
            Self::Run => run::NAME,
            Self::Command => command::NAME,
        })
    }
}

impl FromStr for Interface {
    type Err = UnknownInterface;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|interface| interface.name() == name).ok_or(UnknownInterface)
    }
}

/// A name that is none of [`Interface::ALL`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no interface has this name")]
pub struct UnknownInterface;

/// An interface among the exports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) interface: Interface,
    /// The export's own name.
    export: String,
}

impl Found {
    /// The interface as it was found: where the host calls several versions, the one that it is.
    pub(crate) fn form(&self) -> String {
        match (self.interface, self.export.split_once('@')) {
            (Interface::Run, Some((name, version))) => {
                format!("{name}@{}", provided::track(version).unwrap_or(version))
            }
            (interface, _) => interface.to_string(),
        }
    }
}

/// The interface to call: the one that was asked for, or else the first that is there.
pub(crate) fn find(outline: &Outline, asked: Option<Interface>) -> Result<Found, LoadError> {
    let wanted = asked.as_ref().map_or(&Interface::ALL[..], std::slice::from_ref);
    let found = wanted.iter().find_map(|interface| {
        let export = interface.export(outline)?.to_owned();
        Some(Found { interface: *interface, export })
    });
    found.ok_or_else(|| match (asked, &outline.form) {
        (None | Some(Interface::Command), Form::Module { type_len }) => {
            LoadError::CoreModule { exports: outline.exports.clone(), carries_type: type_len.is_some() }
        }
        (None, Form::Component) => LoadError::NoHandler { exports: outline.exports.clone() },
        (Some(asked), form) => {
            LoadError::OtherInterface { asked, is_module: *form != Form::Component, exports: outline.exports.clone() }
        }
    })
}

/// A handler that is compiled and linked, by its interface.
pub(crate) enum Ready {
    Handler(handler::Ready),
    BatchHandler(batch::Ready),
    Messaging(messaging::Ready),
    IncomingHandler(incoming::Ready),
    Run(run::Ready),
    Command(command::Ready),
}

/// An instance of a handler, in a store of its own.
pub(crate) enum Bound {
    Handler(handler::Bound),
    BatchHandler(batch::Bound),
    IncomingHandler(incoming::Bound),
    Messaging(messaging::Bound),
    Run(run::Bound),
    Command(command::Bound),
}

impl Ready {
    /// Compiles and links; also says what an instance takes of the pool.
    pub(crate) fn new(source: &Source<'_>, found: &Found) -> Result<(Self, Needs), LoadError> {
        Ok(match found.interface {
            Interface::Handler => {
                let (ready, needs) = handler::Ready::new(source)?;
                (Self::Handler(ready), needs)
            }
            Interface::BatchHandler => {
                let (ready, needs) = batch::Ready::new(source)?;
                (Self::BatchHandler(ready), needs)
            }
            Interface::IncomingHandler => {
                let (ready, needs) = incoming::Ready::new(source, &found.export)?;
                (Self::IncomingHandler(ready), needs)
            }
            Interface::Messaging => {
                let (ready, needs) = messaging::Ready::new(source)?;
                (Self::Messaging(ready), needs)
            }
            Interface::Run => {
                let (ready, needs) = run::Ready::new(source, &found.export)?;
                (Self::Run(ready), needs)
            }
            Interface::Command => {
                let (ready, needs) = command::Ready::new(source)?;
                (Self::Command(ready), needs)
            }
        })
    }

    pub(crate) fn interface(&self) -> Interface {
        match self {
            Self::Handler(_) => Interface::Handler,
            Self::BatchHandler(_) => Interface::BatchHandler,
            Self::Messaging(_) => Interface::Messaging,
            Self::IncomingHandler(_) => Interface::IncomingHandler,
            Self::Run(_) => Interface::Run,
            Self::Command(_) => Interface::Command,
        }
    }

    /// What goes through the standard streams.
    pub(crate) fn stdio(&self, event: &Event) -> Result<Stdio, EventError> {
        if self.interface().is_program() { program::stdio(event) } else { Ok(Stdio::Log) }
    }

    /// Makes an instance in `store`, which is new.
    pub(crate) async fn bind(&self, store: &mut Store<State>) -> Result<Bound, Failure> {
        // Boxed, here and below: a future is as large as its largest part, and is moved where it is made. Handlers of
        // events are the smallest, and the quickest.
        let bound = match self {
            Self::Handler(handler) => handler.bind(store).await.map(Bound::Handler),
            Self::BatchHandler(handler) => Box::pin(handler.bind(store)).await.map(Bound::BatchHandler),
            Self::IncomingHandler(handler) => Box::pin(handler.bind(store)).await.map(Bound::IncomingHandler),
            Self::Messaging(handler) => Box::pin(handler.bind(store)).await.map(Bound::Messaging),
            Self::Run(run) => Box::pin(run.bind(store)).await.map(Bound::Run),
            Self::Command(command) => Box::pin(command.bind(store)).await.map(Bound::Command),
        };
        bound.map_err(Failure::Instantiate)
    }
}

impl Bound {
    /// Runs one event, or several at once, with an outcome for each; only [`Interface::BatchHandler`] takes several.
    pub(crate) async fn call(&self, store: &mut Store<State>, work: Work) -> Result<Vec<Outcome>, Failure> {
        let outcome = match (self, work) {
            (Self::BatchHandler(handler), work) => {
                return Box::pin(handler.call(store, work.into_deliveries())).await;
            }
            (_, Work::Batch { .. }) => Ok(Outcome::HostError { reason: "it handles events one by one".to_owned() }),
            (Self::Handler(handler), Work::One(invocation)) => handler.call(store, invocation).await,
            (Self::IncomingHandler(handler), Work::One(invocation)) => Box::pin(handler.call(store, invocation)).await,
            (Self::Messaging(handler), Work::One(invocation)) => Box::pin(handler.call(store, invocation)).await,
            (Self::Run(run), Work::One(_)) => Box::pin(run.call(store)).await,
            (Self::Command(command), Work::One(_)) => Box::pin(command.call(store)).await,
        };
        outcome.map(|outcome| vec![outcome])
    }
}
