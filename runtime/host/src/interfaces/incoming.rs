//! `wasi:http/incoming-handler` of WASI 0.2: the event as an HTTP request, the status of the response as the verdict.
//!
//! Nothing listens, and nothing is spawned: the handler's call and whatever reads its response are polled side by side, so
//! that whoever drops the invocation drops both.

mod request;
mod response;

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

use gristmill_core::Outcome;
use tokio::sync::oneshot;
use wasmtime::Store;
use wasmtime::component::Resource;
use wasmtime_wasi_http::WasiHttpView as _;
use wasmtime_wasi_http::p2::bindings::http::types::Scheme;
use wasmtime_wasi_http::p2::bindings::{Proxy, ProxyPre};
use wasmtime_wasi_http::p2::types::{HostIncomingRequest, HostResponseOutparam};

use self::response::Answer;
use crate::compile::{Needs, Source, incompatible};
use crate::error::LoadError;
use crate::inspect::Outline;
use crate::invocation::Invocation;
use crate::outcome::Failure;
use crate::provided;
use crate::state::State;

/// What a component exports, of any 0.2.
pub(crate) const NAME: &str = "wasi:http/incoming-handler@0.2";

type Parameters = (Resource<HostIncomingRequest>, Resource<HostResponseOutparam>);

pub(super) fn export(outline: &Outline) -> Option<&str> {
    outline.component_export(|name| {
        name.strip_prefix("wasi:http/incoming-handler@")
            .is_some_and(|version| provided::compatible(provided::WASI, version))
    })
}

pub(crate) struct Ready {
    pre: ProxyPre<State>,
}

impl Ready {
    pub(super) fn new(source: &Source<'_>, export: &str) -> Result<(Self, Needs), LoadError> {
        let (pre, needs) = source.component::<Parameters, ()>(export, "handle")?;
        Ok((Self { pre: ProxyPre::new(pre).map_err(incompatible)? }, needs))
    }

    pub(super) async fn bind(&self, store: &mut Store<State>) -> wasmtime::Result<Bound> {
        self.pre.instantiate_async(store).await.map(Bound)
    }
}

/// An instance.
pub(crate) struct Bound(Proxy);

impl Bound {
    pub(super) async fn call(&self, store: &mut Store<State>, invocation: Invocation) -> Result<Outcome, Failure> {
        let max_result = invocation.limits.max_result_bytes;
        let request = match request::of(invocation) {
            Ok(request) => request,
            Err(error) => {
                return Ok(Outcome::HostError { reason: format!("cannot write the event as a request: {error}") });
            }
        };
        let (set, response) = oneshot::channel();
        let mut http = store.data_mut().http();
        let request = http.new_incoming_request(Scheme::Http, request).map_err(Failure::Call)?;
        let out = http.new_response_outparam(set).map_err(Failure::Call)?;
        let kept = Resource::<HostIncomingRequest>::new_borrow(request.rep());

        let mut call = Box::pin(self.0.wasi_http_incoming_handler().call_handle(&mut *store, request, out));
        let mut reading = pin!(response::read(response, max_result));
        let mut answer = None;
        let returned = poll_fn(|cx| {
            if answer.is_none()
                && let Poll::Ready(read) = reading.as_mut().poll(cx)
            {
                answer = Some(read);
            }
            call.as_mut().poll(cx)
        });
        returned.await.map_err(Failure::Call)?;
        drop(call);
        // What the handler has written is there by now, and what it has not ended will never end. Nothing else may
        // keep the reader from seeing that, such as the scheduler's own idea of fairness.
        let answer = match answer {
            Some(answer) => answer,
            None => {
                let last = poll_fn(|cx| match reading.as_mut().poll(cx) {
                    Poll::Ready(answer) => Poll::Ready(answer),
                    Poll::Pending => Poll::Ready(Answer::Unfinished),
                });
                tokio::task::unconstrained(last).await
            }
        };
        // Whoever keeps an event keeps the host's memory: such an instance serves no other.
        let state = store.data_mut();
        state.keeps_event = state.http().table.get(&kept).is_ok();
        Ok(response::outcome(answer, store.data().now()))
    }
}
