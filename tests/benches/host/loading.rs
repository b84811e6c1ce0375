//! What it takes to load handlers.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use bytes::Bytes;
use gristmill_host::{Host, HostOptions, Instances};
use gristmill_test_guests as guests;

use crate::calls;
use crate::report::{Line, Target};

/// Handlers that are loaded to see what one takes.
const HANDLERS: u32 = 200;
const CHILD: &str = "GRISTMILL_BENCH_CHILD";

/// Loading a component, as after a start: with a host of its own.
pub(crate) async fn seconds(component: Bytes, is_cached: bool) -> f64 {
    let directory = tempfile::tempdir().unwrap();
    let host =
        |cache: &Path| Host::new(HostOptions { cache: Some(cache.to_owned()), ..HostOptions::default() }).unwrap();
    let cache = directory.path().join("cache");
    if is_cached {
        let loaded = calls::load(&host(&cache), "bench", component.clone(), Instances::Fresh).await;
        assert!(!loaded.is_cached());
    }
    let host = host(&cache);
    let started = Instant::now();
    let loaded = calls::load(&host, "bench", component, Instances::Fresh).await;
    assert_eq!(loaded.is_cached(), is_cached);
    started.elapsed().as_secs_f64()
}

/// What a handler takes that has nothing to do, in a process of its own.
pub(crate) fn memory_per_handler() -> Line {
    let child = Command::new(std::env::current_exe().unwrap()).env(CHILD, "idle").stderr(Stdio::inherit()).output();
    let output = child.unwrap();
    assert!(output.status.success());
    let value: f64 = String::from_utf8(output.stdout).unwrap().trim().parse().unwrap();
    Line {
        name: "idle handler".to_owned(),
        unit: "MiB",
        value,
        floor: 1.0,
        floor_is: format!("1 MiB; no-op Rust, {HANDLERS} of them, once"),
        ratio: value,
        target: Target::AtMost(2.0),
    }
}

/// Whether this process is a child, whose work is done then.
pub(crate) fn run_child() -> bool {
    if std::env::var_os(CHILD).is_none() {
        return false;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let host = Host::new(HostOptions::default()).unwrap();
        let bytes = Bytes::from(guests::bytes(guests::ACKER));
        let mut handlers = Vec::new();
        // Each has handled something, and the first ones made what is made once.
        for n in 0..HANDLERS / 10 {
            handlers.push(one(&host, &bytes, n).await);
        }
        let before = resident();
        for n in 0..HANDLERS {
            handlers.push(one(&host, &bytes, HANDLERS + n).await);
        }
        println!("{}", (resident() - before) / f64::from(HANDLERS) / f64::from(1 << 20));
    });
    true
}

async fn one(host: &Host, bytes: &Bytes, n: u32) -> gristmill_host::Component {
    let component = calls::load(host, &format!("handler-{n}"), bytes.clone(), Instances::Fresh).await;
    calls::call(&component).await;
    component
}

/// Bytes of this process that are in memory.
fn resident() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() * 1_024.0
}
