//! An engine, and what it links: one for plain components, and one for those that use the component model's async
//! functions, which make every call slower.

use wasmtime::Engine;
use wasmtime::component::{HasSelf, Linker};
use wasmtime_wasi::I32Exit;

use crate::bindings::EventHost;
use crate::configuration;
use crate::http;
use crate::keyvalue;
use crate::messaging;
use crate::options::HostOptions;
use crate::provided::PREVIEW1;
use crate::replay;
use crate::sockets;
use crate::state::State;
use crate::tuning;

/// Which functions a component may consist of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Model {
    /// All are synchronous, as in WASI 0.2.
    Plain,
    /// Some are async, as in WASI 0.3.
    Async,
}

/// What components of one model are compiled and linked with.
pub(crate) struct Platform {
    engine: Engine,
    linker: Linker<State>,
    module_linker: wasmtime::Linker<State>,
    replay_linker: wasmtime::Linker<State>,
}

impl Platform {
    pub(crate) fn new(options: &HostOptions, model: Model) -> wasmtime::Result<Self> {
        let engine = Engine::new(&tuning::config(options, model))?;
        let (linker, module_linker) = (linker(&engine, model)?, module_linker(&engine)?);
        let mut replay_linker = module_linker.clone();
        replay::link_preview1(&mut replay_linker)?;
        Ok(Self { engine, linker, module_linker, replay_linker })
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Of components.
    pub(crate) fn linker(&self) -> &Linker<State> {
        &self.linker
    }

    /// Of core modules.
    pub(crate) fn module_linker(&self) -> &wasmtime::Linker<State> {
        &self.module_linker
    }

    /// Of core modules, for replays.
    pub(crate) fn replay_linker(&self) -> &wasmtime::Linker<State> {
        &self.replay_linker
    }
}

/// Links everything that `provided.rs` lists.
fn linker(engine: &Engine, model: Model) -> wasmtime::Result<Linker<State>> {
    let mut linker = Linker::new(engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    if model == Model::Async {
        wasmtime_wasi::p3::add_to_linker(&mut linker)?;
    }
    http::link(&mut linker)?;
    EventHost::add_to_linker::<State, HasSelf<State>>(&mut linker, |state| state)?;
    keyvalue::link(&mut linker)?;
    messaging::link(&mut linker)?;
    configuration::link(&mut linker)?;
    replay::link(&mut linker)?;
    sockets::link(&mut linker)?;
    if model == Model::Async {
        http::link_async(&mut linker)?;
        sockets::link_async(&mut linker)?;
        replay::link_async(&mut linker)?;
    }
    Ok(linker)
}

/// Links WASI preview 1.
fn module_linker(engine: &Engine) -> wasmtime::Result<wasmtime::Linker<State>> {
    let mut linker = wasmtime::Linker::new(engine);
    wasmtime_wasi::p1::add_to_linker_async(&mut linker, State::preview1)?;
    // Its own takes a status of 126 or more for a mistake, and programs exit with 255 when they mean -1.
    linker.allow_shadowing(true);
    linker.func_wrap(PREVIEW1, "proc_exit", |status: i32| -> wasmtime::Result<()> { Err(I32Exit(status).into()) })?;
    Ok(linker)
}
