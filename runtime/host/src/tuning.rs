//! How the engines are set up: what is reserved, what stays resident, and how code is stopped.

use std::num::NonZeroUsize;

use wasmtime::{Config, Enabled, InstanceAllocationStrategy, PoolingAllocationConfig, WasmBacktraceDetails};

use crate::options::HostOptions;
use crate::platform::Model;

/// A Rust component has two or three tables, and other toolchains make more.
pub(crate) const TABLES_PER_INSTANCE: u32 = 8;

/// The most elements of a table. The largest component seen, a Python interpreter, has 10,000.
const TABLE_ELEMENTS: usize = 100_000;
/// The whole of a 32-bit memory: only an invocation's own limit decides how much is used.
const MEMORY_SLOT: usize = 1 << 32;
/// More of them, of two engines, do not fit into the address space.
const MAX_MEMORIES: u32 = 12_000;
/// How much of a used slot is cleared in place rather than given back to the operating system.
const KEEP_RESIDENT: usize = 256 << 10;
const KEEP_TABLE_RESIDENT: usize = 16 << 10;
/// How many slots are given back to the operating system with one call.
const DECOMMIT_BATCH: usize = 16;
/// A backtrace shows fewer, after those of the panic machinery are left out.
const BACKTRACE_FRAMES: usize = 48;
/// What host functions need of a stack, above the handler's own.
const HOST_STACK: usize = 1 << 20;

/// For an engine that runs code.
pub(crate) fn config(options: &HostOptions, model: Model) -> Config {
    let stack = usize::try_from(options.stack).unwrap_or(usize::MAX - HOST_STACK);
    let mut config = code(model, options.count_fuel);
    config
        .allocation_strategy(InstanceAllocationStrategy::Pooling(pool(options.instances, model)))
        .max_wasm_stack(stack)
        .async_stack_size(stack + HOST_STACK)
        .wasm_backtrace_max_frames(NonZeroUsize::new(BACKTRACE_FRAMES));
    config
}

/// What code depends on. An engine that has no more than this reserves nothing; what it compiles, the others run.
pub(crate) fn code(model: Model, count_fuel: bool) -> Config {
    let mut config = Config::new();
    config
        .wasm_component_model(true)
        .wasm_component_model_async(model == Model::Async)
        .concurrency_support(model == Model::Async)
        .memory_init_cow(true)
        .epoch_interruption(true)
        .consume_fuel(count_fuel)
        .wasm_backtrace_details(WasmBacktraceDetails::Enable);
    config
}

fn pool(instances: u32, model: Model) -> PoolingAllocationConfig {
    let mut pool = PoolingAllocationConfig::new();
    // What a garbage collector manages is in a memory too, which no component says that it needs.
    let memories = instances.saturating_mul(2).min(MAX_MEMORIES).max(instances);
    // An async call may need a second stack while its first waits, and each part of a composed one another.
    let stacks = if model == Model::Async { instances.saturating_mul(4) } else { instances };
    pool.total_memories(memories)
        .total_tables(instances.saturating_mul(TABLES_PER_INSTANCE))
        .total_stacks(stacks)
        .total_gc_heaps(instances)
        // Only counters, and a component may consist of many: the permits and the totals above are the limit.
        .total_core_instances(u32::MAX)
        .total_component_instances(u32::MAX)
        .max_core_instance_size(64 << 20)
        .max_component_instance_size(64 << 20)
        .max_memories_per_module(16)
        .max_tables_per_module(16)
        .max_memory_size(MEMORY_SLOT)
        .table_elements(TABLE_ELEMENTS)
        .linear_memory_keep_resident(KEEP_RESIDENT)
        .table_keep_resident(KEEP_TABLE_RESIDENT)
        .decommit_batch_size(DECOMMIT_BATCH)
        .pagemap_scan(Enabled::Auto);
    pool
}

#[cfg(test)]
mod tests {
    use std::hash::{DefaultHasher, Hash as _, Hasher as _};

    use wasmtime::Engine;

    use super::*;

    fn hash(config: &Config) -> u64 {
        let mut hasher = DefaultHasher::new();
        Engine::new(config).unwrap().precompile_compatibility_hash().hash(&mut hasher);
        hasher.finish()
    }

    #[test]
    fn what_runs_code_takes_it_from_an_engine_that_reserves_nothing() {
        let mut hashes = std::collections::BTreeSet::new();
        for model in [Model::Plain, Model::Async] {
            for count_fuel in [false, true] {
                let options = HostOptions { count_fuel, instances: 3, stack: 2 << 20, ..HostOptions::default() };
                let compiles = hash(&code(model, count_fuel));
                assert_eq!(compiles, hash(&config(&options, model)));
                hashes.insert(compiles);
            }
        }
        assert_eq!(hashes.len(), 4, "each is another");
    }
}
