//! A program of WASI 0.3, whose functions are async. It does what the event's type says, and emits one event, `test.made`,
//! whose data is what came of it.
//!
//! | type | the data |
//! | --- | --- |
//! | `test.echo` | the event, as it was on stdin |
//! | `test.call` | the answer to a POST of the event's data to the URL in its subject |
//! | `test.fail` | nothing comes of it: it fails once it has written an event |
//!
//! An answer is `{"status": 200, "body": "…"}` or `{"error": "…"}`, with the name of the error code.

// Its bindings exist in guests only.
#![cfg(target_arch = "wasm32")]

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;

use serde_json::{Value, json};

use bindings::exports::wasi::cli::run::Guest;
use bindings::wasi::cli::{stdin, stdout};
use bindings::wasi::http::client;
use bindings::wasi::http::types::{ErrorCode, Fields, Method, Request, Response, Scheme};
use bindings::{wit_future, wit_stream};

#[allow(warnings, unsafe_code, reason = "generated code")]
mod bindings {
    wit_bindgen::generate!({ path: "wit", world: "gristmill:programs/envoy", generate_all });

    export!(Envoy);
    use super::Envoy;
}

struct Envoy;

impl Guest for Envoy {
    async fn run() -> Result<(), ()> {
        let (input, ended) = stdin::read_via_stream();
        let event: Value = serde_json::from_slice(&input.collect().await).map_err(drop)?;
        ended.await.map_err(drop)?;
        match event["type"].as_str() {
            Some("test.echo") => emit(&event).await,
            Some("test.call") => emit(&answer(call(&event).await)).await,
            _ => emit(&Value::Null).await.and(Err(())),
        }
    }
}

/// Writes a line to stdout.
async fn emit(data: &Value) -> Result<(), ()> {
    let (mut output, written) = wit_stream::new();
    let ended = stdout::write_via_stream(written);
    let line = json!({ "type": "test.made", "data": data }).to_string() + "\n";
    output.write_all(line.into_bytes()).await;
    drop(output);
    ended.await.map_err(drop)
}

fn answer(answer: Result<Value, ErrorCode>) -> Value {
    answer.unwrap_or_else(|error| {
        let code = format!("{error:?}");
        json!({ "error": code.trim_start_matches("ErrorCode::") })
    })
}

async fn call(event: &Value) -> Result<Value, ErrorCode> {
    let url = event["subject"].as_str().unwrap_or_default();
    let (scheme, rest) = url.split_once("://").ok_or(ErrorCode::HttpRequestUriInvalid)?;
    let (authority, path) = rest.find('/').map_or((rest, "/"), |at| rest.split_at(at));
    let scheme = if scheme == "https" { Scheme::Https } else { Scheme::Http };
    let (mut body, contents) = wit_stream::new();
    let (_, trailers) = wit_future::new(|| Ok(None));
    let (request, _) = Request::new(Fields::new(), Some(contents), trailers, None);
    let set = request
        .set_method(&Method::Post)
        .and(request.set_scheme(Some(&scheme)))
        .and(request.set_authority(Some(authority)))
        .and(request.set_path_with_query(Some(path)));
    set.map_err(|()| ErrorCode::HttpRequestUriInvalid)?;
    let write = async {
        body.write_all(event["data"].to_string().into_bytes()).await;
        drop(body);
    };
    let (response, ()) = both(client::send(request), write).await;
    let response = response?;
    let status = response.get_status_code();
    let (_, consumed) = wit_future::new(|| Ok(()));
    let (body, trailers) = Response::consume_body(response, consumed);
    let body = body.collect().await;
    trailers.await?;
    Ok(json!({ "status": status, "body": String::from_utf8_lossy(&body) }))
}

/// What two futures give that need each other.
async fn both<A, B>(first: impl Future<Output = A>, second: impl Future<Output = B>) -> (A, B) {
    let (mut first, mut second) = (pin!(first), pin!(second));
    let (mut a, mut b) = (None, None);
    poll_fn(|cx| {
        if a.is_none()
            && let Poll::Ready(value) = first.as_mut().poll(cx)
        {
            a = Some(value);
        }
        if b.is_none()
            && let Poll::Ready(value) = second.as_mut().poll(cx)
        {
            b = Some(value);
        }
        if a.is_some() && b.is_some() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    (a.expect("it is ready"), b.expect("it is ready"))
}
