//! Sends the requests that the event's data describes, so that each test shows all that its guest does.
//!
//! | type | what happens |
//! | --- | --- |
//! | `test.call` | one request; the answer is the result |
//! | `test.calls` | `count` such requests at once, and only then their responses, one after the other; the answers are the result |
//! | `test.upload` | a body of `count` bytes, in parts; the answer is the result |
//! | `test.peek` | reads one part of the response's body and drops the rest; its length is the result |
//!
//! The data is `{"url": "http://host/path", "method": "GET", "headers": [[name, value], …], "body": "…", "count": 1,
//! "connect_ms": …, "first_byte_ms": …, "between_bytes_ms": …}`; all but `url` may be absent. An answer is `{"status": 200,
//! "headers": {…}, "body": "…", "length": 3}` or `{"error": "…"}`, with the name of the error code.

// Its bindings exist in guests only.
#![cfg(target_arch = "wasm32")]

use std::collections::BTreeMap;

use gristmill_sdk::{Error, Event, Json, handler};
use serde_json::{Value, json};

use bindings::wasi::http::outgoing_handler;
use bindings::wasi::http::types::{
    ErrorCode, Fields, FutureIncomingResponse, IncomingBody, IncomingResponse, Method, OutgoingBody, OutgoingRequest,
    RequestOptions, Scheme, http_error_code,
};
use bindings::wasi::io::streams::{InputStream, StreamError};

#[allow(warnings, reason = "generated code")]
mod bindings {
    wit_bindgen::generate!({
        path: "../../../wit",
        inline: "
            package gristmill:caller;
            world caller {
                import wasi:http/outgoing-handler@0.2.12;
            }
        ",
        world: "gristmill:caller/caller",
        generate_all,
    });
}

/// How much is written and read at once.
const PART: usize = 4096;

#[derive(serde::Deserialize)]
struct Call {
    url: String,
    #[serde(default)]
    method: Option<String>,
    #[serde(default)]
    headers: Vec<(String, String)>,
    #[serde(default)]
    body: Option<String>,
    #[serde(default)]
    count: usize,
    #[serde(default)]
    connect_ms: Option<u64>,
    #[serde(default)]
    first_byte_ms: Option<u64>,
    #[serde(default)]
    between_bytes_ms: Option<u64>,
}

#[handler]
fn call(event: Event<Call>) -> Result<Json<Value>, Error> {
    let call = &event.data;
    match event.ty.as_str() {
        "test.call" => {
            Ok(Json(answer(send(call, call.body.as_deref().map(str::as_bytes)).and_then(|sent| read(&sent)))))
        }
        "test.calls" => Ok(Json(json!(at_once(call)))),
        "test.upload" => Ok(Json(answer(send(call, Some(&vec![b'x'; call.count])).and_then(|sent| read(&sent))))),
        "test.peek" => Ok(Json(answer(send(call, None).and_then(|sent| peek(&sent))))),
        unknown => Err(Error::reject(format!("no behaviour is called {unknown}"))),
    }
}

fn answer(answer: Result<Value, ErrorCode>) -> Value {
    answer.unwrap_or_else(|error| {
        let code = format!("{error:?}");
        json!({ "error": code.trim_start_matches("ErrorCode::") })
    })
}

fn at_once(call: &Call) -> Vec<Value> {
    let sent: Vec<_> = (0..call.count).map(|_| send(call, None)).collect();
    sent.into_iter().map(|sent| answer(sent.and_then(|sent| read(&sent)))).collect()
}

/// Sends a request; its body is written before anything is read.
fn send(call: &Call, body: Option<&[u8]>) -> Result<FutureIncomingResponse, ErrorCode> {
    let headers = Fields::new();
    for (name, value) in &call.headers {
        if let Err(error) = headers.append(name, value.as_bytes()) {
            return Err(ErrorCode::InternalError(Some(format!("header {name}: {error:?}"))));
        }
    }
    let request = OutgoingRequest::new(headers);
    let (scheme, rest) = call.url.split_once("://").expect("a URL");
    let (authority, path) = rest.find('/').map_or((rest, "/"), |at| rest.split_at(at));
    let method = match call.method.as_deref() {
        None | Some("GET") => Method::Get,
        Some("POST") => Method::Post,
        Some("CONNECT") => Method::Connect,
        Some(other) => Method::Other(other.to_owned()),
    };
    let scheme = if scheme == "https" { Scheme::Https } else { Scheme::Http };
    let set = request
        .set_method(&method)
        .and(request.set_scheme(Some(&scheme)))
        .and(request.set_authority(Some(authority)))
        .and(request.set_path_with_query(Some(path)));
    set.map_err(|()| ErrorCode::HttpRequestUriInvalid)?;
    let options = RequestOptions::new();
    let nanoseconds = |milliseconds: Option<u64>| milliseconds.map(|ms| ms * 1_000_000);
    let set = options
        .set_connect_timeout(nanoseconds(call.connect_ms))
        .and(options.set_first_byte_timeout(nanoseconds(call.first_byte_ms)))
        .and(options.set_between_bytes_timeout(nanoseconds(call.between_bytes_ms)));
    set.expect("options are supported");
    let outgoing = body.map(|_| request.body().expect("the first"));
    let sent = outgoing_handler::handle(request, Some(options))?;
    if let (Some(outgoing), Some(bytes)) = (outgoing, body) {
        let stream = outgoing.write().expect("the first");
        for part in bytes.chunks(PART) {
            if stream.blocking_write_and_flush(part).is_err() {
                break;
            }
        }
        drop(stream);
        OutgoingBody::finish(outgoing, None)?;
    }
    Ok(sent)
}

fn response(sent: &FutureIncomingResponse) -> Result<IncomingResponse, ErrorCode> {
    sent.subscribe().block();
    sent.get().expect("it is ready").expect("the first time")
}

fn read(sent: &FutureIncomingResponse) -> Result<Value, ErrorCode> {
    let response = response(sent)?;
    let headers: BTreeMap<_, _> = response
        .headers()
        .entries()
        .into_iter()
        .map(|(name, value)| (name, String::from_utf8_lossy(&value).into_owned()))
        .collect();
    let body = response.consume().expect("the first time");
    let stream = body.stream().expect("the first time");
    let (mut length, mut shown) = (0, Vec::new());
    while let Some(part) = next(&stream)? {
        length += part.len();
        shown.extend(part.into_iter().take(PART.saturating_sub(shown.len())));
    }
    drop(stream);
    drop(IncomingBody::finish(body));
    let body = String::from_utf8_lossy(&shown).into_owned();
    Ok(json!({ "status": response.status(), "headers": headers, "body": body, "length": length }))
}

fn peek(sent: &FutureIncomingResponse) -> Result<Value, ErrorCode> {
    let response = response(sent)?;
    let body = response.consume().expect("the first time");
    let stream = body.stream().expect("the first time");
    let part = next(&stream)?.unwrap_or_default();
    Ok(json!({ "status": response.status(), "length": part.len() }))
}

fn next(stream: &InputStream) -> Result<Option<Vec<u8>>, ErrorCode> {
    match stream.blocking_read(PART as u64) {
        Ok(part) => Ok(Some(part)),
        Err(StreamError::Closed) => Ok(None),
        Err(StreamError::LastOperationFailed(error)) => {
            let words = error.to_debug_string();
            Err(http_error_code(&error).unwrap_or(ErrorCode::InternalError(Some(words))))
        }
    }
}
