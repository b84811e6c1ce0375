//! Calls of one handler, one after the other.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use gristmill_core::{Event, HandlerName, Outcome, Pattern, Timestamp};
use gristmill_host::{Component, Grants, Host, HostOptions, Instances, Invocation, Limits, LoadRequest};
use gristmill_test_guests as guests;

use crate::{CALLS, PAYLOAD};

/// What is called.
pub(crate) struct Called {
    bytes: Bytes,
    instances: Instances,
    calls: usize,
}

/// The smallest handler, in fresh instances.
pub(crate) fn noop() -> Called {
    Called { bytes: guests::bytes(guests::ACKER).into(), instances: Instances::Fresh, calls: CALLS }
}

/// An interpreter, in fresh instances.
pub(crate) fn fresh(bytes: Bytes) -> Called {
    Called { bytes, instances: Instances::Fresh, calls: 256 }
}

/// An interpreter, in one instance.
pub(crate) fn reused(bytes: Bytes) -> Called {
    Called { bytes, instances: Instances::Reuse { events: u32::MAX, age: Duration::from_hours(1) }, calls: 256 }
}

pub(crate) async fn micros_per_call(called: &Called) -> f64 {
    let host = Host::new(HostOptions { cache: cache(), ..HostOptions::default() }).unwrap();
    let component = load(&host, "bench", called.bytes.clone(), called.instances).await;
    call(&component).await;
    let started = Instant::now();
    for _ in 0..called.calls {
        call(&component).await;
    }
    started.elapsed().as_secs_f64() * 1e6 / f64::from(u32::try_from(called.calls).unwrap())
}

/// Compiling it is not what is measured here.
fn cache() -> Option<std::path::PathBuf> {
    let target = std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
    Some(std::path::PathBuf::from(target).join("bench-guests/cache"))
}

pub(crate) async fn load(host: &Host, name: &str, bytes: Bytes, instances: Instances) -> Component {
    let (digest, interface) = (None, None);
    let grants = Grants { emit: vec![Pattern::new("*")], ..Grants::default() };
    let name = HandlerName::new(name).unwrap();
    host.load(LoadRequest { name, bytes, digest, interface, grants, instances }).await.unwrap()
}

pub(crate) async fn call(component: &Component) {
    let report = component.handle(invocation("bench.event", Limits::default())).await;
    assert!(matches!(report.outcome, Outcome::Ack { .. }), "{:?}", report.outcome);
}

pub(crate) fn invocation(ty: &str, limits: Limits) -> Invocation {
    let event = Event { data: Some(Bytes::from(vec![b'x'; PAYLOAD])), ..Event::new("1", "/bench", ty) };
    Invocation {
        delivery_id: "1".to_owned(),
        queue: "bench".to_owned(),
        attempt: 1,
        max_attempts: None,
        enqueued_at: Timestamp::EPOCH,
        event: Arc::new(event),
        state: None,
        configuration: gristmill_host::Configuration::default(),
        limits,
    }
}
