//! Guests written in WebAssembly text, so that each test shows all that its guest does.

#![allow(dead_code, reason = "each test file uses a part")]
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

pub(crate) mod server;

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

use bytes::Bytes;
use gristmill_core::{Event, HandlerName, Pattern, Timestamp};
use gristmill_host::{
    Component, Configuration, Grants, Host, HostOptions, Instances, Invocation, Limits, LoadError, LoadRequest, Report,
};

/// The types of `gristmill:events/types` that a handler's export needs.
const TYPES: &str = r#"
    (type $payload (variant (case "text" string) (case "binary" (list u8))))
    (type $event (record
        (field "id" string) (field "source" string) (field "type" string)
        (field "subject" (option string)) (field "time" (option string))
        (field "datacontenttype" (option string)) (field "dataschema" (option string))
        (field "extensions" (list (tuple string string))) (field "data" (option $payload))))
    (type $delivery (record
        (field "id" string) (field "queue" string) (field "attempt" u32) (field "max-attempts" (option u32))
        (field "enqueued-at" string) (field "event" $event)))
    (type $failure (record (field "reason" string) (field "after" (option u32))))
    (type $deferral (record (field "after" u32) (field "reason" (option string))))
    (type $verdict (variant
        (case "ack" (option $payload)) (case "retry" $failure) (case "defer" $deferral) (case "reject" string)))
"#;

/// Where strings from the host go: above everything that guests keep.
pub(crate) const ALLOCATE: &str = r#"
    (global $next (mut i32) (i32.const 8192))
    (func (export "realloc") (param i32 i32 i32 i32) (result i32)
        (local $at i32)
        (local.set $at (i32.and (i32.add (global.get $next) (i32.const 7)) (i32.const -8)))
        (global.set $next (i32.add (local.get $at) (local.get 3)))
        (local.get $at))
"#;

/// A handler in parts.
#[derive(Clone, Copy, Default)]
pub(crate) struct Guest<'a> {
    /// Component-level imports, and `(core func $name (canon lower …))` for each; may use the memory `$m`.
    pub(crate) imports: &'a str,
    /// `(import …)` lines of the core module.
    pub(crate) core_imports: &'a str,
    /// `(with …)` arguments of the core instance.
    pub(crate) with: &'a str,
    /// Further core items.
    pub(crate) items: &'a str,
    /// Body of `handle`: takes the address of the delivery, leaves the address of the verdict.
    pub(crate) handle: &'a str,
}

impl Guest<'_> {
    /// As a binary component.
    pub(crate) fn build(self) -> Bytes {
        let Guest { imports, core_imports, with, items, handle } = self;
        let text = format!(
            r#"(component
                {TYPES}
                (core module $memory (memory (export "memory") 1) {ALLOCATE})
                (core instance $memory (instantiate $memory))
                (alias core export $memory "memory" (core memory $m))
                (alias core export $memory "realloc" (core func $realloc))
                {imports}
                (core module $guest
                    (import "memory" "memory" (memory 1))
                    {core_imports}
                    {items}
                    (func $handle (export "handle") (param $delivery i32) (result i32) {handle}))
                (core instance $guest (instantiate $guest (with "memory" (instance $memory)) {with}))
                (func $handle (param "delivery" $delivery) (result $verdict)
                    (canon lift (core func $guest "handle") (memory $m) (realloc (core func $realloc))))
                (instance $handler
                    (export "payload" (type $payload)) (export "event" (type $event))
                    (export "delivery" (type $delivery)) (export "failure" (type $failure))
                    (export "deferral" (type $deferral)) (export "verdict" (type $verdict))
                    (export "handle" (func $handle)))
                (export "gristmill:events/handler@0.1.0" (instance $handler)))"#
        );
        wat::parse_str(&text).unwrap_or_else(|error| panic!("{error}")).into()
    }
}

pub(crate) fn request(bytes: impl Into<Bytes>) -> LoadRequest {
    LoadRequest {
        name: HandlerName::new("guest").unwrap(),
        bytes: bytes.into(),
        digest: None,
        interface: None,
        grants: Grants { emit: vec![Pattern::new("com.acme.*")], ..Grants::default() },
        instances: Instances::Fresh,
    }
}

pub(crate) fn host(instances: u32) -> Host {
    Host::new(HostOptions { instances, ..HostOptions::default() }).unwrap()
}

pub(crate) async fn load(guest: Guest<'_>) -> Component {
    try_load(guest).await.unwrap_or_else(|error| panic!("{error}"))
}

pub(crate) async fn try_load(guest: Guest<'_>) -> Result<Component, LoadError> {
    host(2).load(request(guest.build())).await
}

pub(crate) fn invocation() -> Invocation {
    Invocation {
        delivery_id: "e7".to_owned(),
        queue: "guest".to_owned(),
        attempt: 1,
        max_attempts: Some(5),
        enqueued_at: Timestamp::EPOCH,
        event: Arc::new(Event::new("1", "/test", "com.acme.test")),
        state: None,
        configuration: Configuration::default(),
        limits: Limits::default(),
    }
}

pub(crate) fn with_timeout(timeout: Duration) -> Invocation {
    let mut invocation = invocation();
    invocation.limits.timeout = timeout;
    invocation
}

/// Why it did not ack.
#[track_caller]
pub(crate) fn reason(report: &Report) -> &str {
    report.outcome.reason().unwrap()
}

/// Whether there is still something that it waits for.
pub(crate) fn is_pending<F: Future + Unpin>(future: &mut F) -> bool {
    Pin::new(future).poll(&mut Context::from_waker(Waker::noop())).is_pending()
}
