//! The parts of the `gristmill` binary: what stands between the queue, the host and the people who use them.
//!
//! | module | noun |
//! | --- | --- |
//! | [`config`] | `runtime.toml`, checked |
//! | [`configuration`] | what handlers are configured with, secrets included |
//! | [`source`] | where components come from: files, web servers, registries |
//! | [`compiling`] | the child that compiles components |
//! | [`manifest`] | what components say of themselves, and where |
//! | [`registry`] | handlers: components under their configuration |
//! | [`deployment`] | the handlers at work, and how they change meanwhile |
//! | [`routing`] | which queues an event goes to |
//! | [`publishing`] | what publishers may ask for |
//! | [`dispatch`] | claim, run, settle |
//! | [`handler_log`] | what handlers log, as records |
//! | [`shadow`] | two versions of a handler, compared |
//! | [`state`] | what a run sees of the state |
//! | [`http`] | the HTTP surface |
//! | [`cli`] | the command line, and the commands that talk to a running runtime |
//! | [`run`], [`check`], [`invoke`], [`offline`], [`copies`] | the commands that work without one |
//! | [`metrics`] | what calls cost, for Prometheus |
//! | [`report`], [`latency`], [`progress`] | what a person sees of a run |

pub mod check;
pub mod cli;
pub mod compiling;
pub mod config;
pub mod configuration;
pub mod copies;
pub mod deployment;
pub mod dispatch;
pub mod engine;
pub mod handler_log;
pub mod http;
pub mod invoke;
pub mod latency;
pub mod manifest;
pub mod metrics;
pub mod offline;
mod postmortem;
pub mod progress;
pub mod publishing;
pub mod registry;
pub mod report;
pub mod routing;
pub mod run;
pub mod shadow;
pub mod source;
pub mod state;
pub mod threads;
pub mod tls;
