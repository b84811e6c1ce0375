//! The floor of a handler's call: Wasmtime alone. The same component, instantiated from a pool and called in a loop; no
//! limits, no time-out, no host of ours.

use std::time::Instant;

use wasmtime::component::{Component, Linker, ResourceTable};
use wasmtime::{Config, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig, Store};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

#[allow(unreachable_pub, missing_docs, reason = "generated code")]
mod generated {
    wasmtime::component::bindgen!({
        path: "../../wit",
        inline: "
            package gristmill:bench;

            world handler {
                import wasi:logging/logging@0.1.0-draft;
                export gristmill:events/handler@0.1.0;
            }
        ",
        exports: { default: async },
        require_store_data_send: true,
    });
}

use crate::{CALLS, CONCURRENCY, EVENTS, PAYLOAD};

use generated::HandlerPre;
use generated::gristmill::events::types;
use generated::wasi::logging::logging;

struct State {
    wasi: WasiCtx,
    table: ResourceTable,
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

impl logging::Host for State {
    fn log(&mut self, _: logging::Level, _: String, _: String) {}
}

struct Own;

impl wasmtime::component::HasData for Own {
    type Data<'a> = &'a mut State;
}

/// As many tasks and calls as a run has, on the threads of the runtime.
pub(crate) async fn calls_per_second() -> f64 {
    let seconds = seconds(CONCURRENCY, EVENTS / CONCURRENCY).await;
    f64::from(u32::try_from(EVENTS).unwrap()) / seconds
}

/// One call after the other.
pub(crate) async fn micros_per_call() -> f64 {
    seconds(1, CALLS).await * 1e6 / f64::from(u32::try_from(CALLS).unwrap())
}

/// How long it takes to call the component `calls` times from each of `tasks` tasks.
async fn seconds(tasks: usize, calls: usize) -> f64 {
    let component = gristmill_test_guests::bytes(gristmill_test_guests::ACKER);
    let mut config = Config::new();
    // Tuned as the pool of our host is; with the defaults, a call takes seven times as long.
    let mut pool = PoolingAllocationConfig::new();
    pool.total_memories(64).total_stacks(64).linear_memory_keep_resident(256 << 10).table_keep_resident(16 << 10);
    pool.total_tables(512).total_gc_heaps(64).decommit_batch_size(16).pagemap_scan(Enabled::Auto);
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    config.concurrency_support(false);
    let engine = Engine::new(&config).unwrap();
    let mut linker = Linker::<State>::new(&engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker).unwrap();
    logging::add_to_linker::<State, Own>(&mut linker, |state| state).unwrap();
    let component = Component::from_binary(&engine, &component).unwrap();
    component.initialize_copy_on_write_image().unwrap();
    let pre = HandlerPre::new(linker.instantiate_pre(&component).unwrap()).unwrap();
    one(&engine, &pre).await;
    let started = Instant::now();
    let running = (0..tasks).map(|_| {
        let (engine, pre) = (engine.clone(), pre.clone());
        tokio::spawn(async move {
            for _ in 0..calls {
                one(&engine, &pre).await;
            }
        })
    });
    for task in running.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    started.elapsed().as_secs_f64()
}

async fn one(engine: &Engine, pre: &HandlerPre<State>) {
    let state = State { wasi: WasiCtx::builder().build(), table: ResourceTable::new() };
    let mut store = Store::new(engine, state);
    let instance = pre.instantiate_async(&mut store).await.unwrap();
    let handler = instance.gristmill_events_handler();
    let verdict = handler.call_handle(&mut store, &delivery(PAYLOAD)).await.unwrap();
    assert!(matches!(verdict, types::Verdict::Ack(None)));
}

fn delivery(payload: usize) -> types::Delivery {
    types::Delivery {
        id: "1".to_owned(),
        queue: "bench".to_owned(),
        attempt: 1,
        max_attempts: None,
        enqueued_at: "2026-05-04T12:00:00.000Z".to_owned(),
        event: types::Event {
            id: "1".to_owned(),
            source: "/bench".to_owned(),
            type_: "bench.event".to_owned(),
            subject: None,
            time: None,
            datacontenttype: None,
            dataschema: None,
            extensions: Vec::new(),
            data: Some(types::Payload::Text("x".repeat(payload))),
        },
    }
}
