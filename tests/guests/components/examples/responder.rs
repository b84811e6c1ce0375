//! A `wasi:http/incoming-handler` that does what the event's type says: one behaviour per type, for tests of the host.
//!
//! | `ce-type` | what happens |
//! | --- | --- |
//! | `test.echo` | 200 with method, path, headers and body as JSON |
//! | `test.status` | the status in `ce-status`, with the header `Retry-After` of `ce-retryafter`; the event's data is the body |
//! | `test.trailers` | 200 with trailers after the body `ok` |
//! | `test.stream` | 200 with a body of `ce-bytes` bytes, written after the response was set |
//! | `test.none` | returns without a response |
//! | `test.keep` | returns without a response, and keeps what it should have set it with |
//! | `test.error` | an error instead of a response |
//! | `test.panic` | panics before anything |
//! | `test.panic-after` | 200 and a whole body, then a panic |
//! | `test.loop-after` | 200 and a whole body, then computes for ever |
//! | `test.open` | 200, and a body that is neither finished nor dropped |
//! | `test.abort` | 200, and a body that is dropped before it is finished |
//! | `test.emit` | emits a `com.acme.echoed` and answers 204; the status in `ce-status`, if there is one |
//! | `test.log` | prints a line and answers 204 |

// Its bindings exist in guests only.
#![cfg(target_arch = "wasm32")]

use std::hint::black_box;

use serde_json::json;

use bindings::exports::wasi::http::incoming_handler::Guest;
use bindings::gristmill::events::emitter::{self, NewEvent};
use bindings::wasi::http::types::{
    ErrorCode, Fields, IncomingRequest, OutgoingBody, OutgoingResponse, ResponseOutparam,
};
use bindings::wasi::io::streams::StreamError;

#[allow(warnings, unsafe_code, reason = "generated code")]
mod bindings {
    wit_bindgen::generate!({
        path: "../../../wit",
        inline: "
            package gristmill:responder;
            world responder {
                import gristmill:events/emitter@0.1.0;
                export wasi:http/incoming-handler@0.2.12;
            }
        ",
        world: "gristmill:responder/responder",
        generate_all,
    });
    use super::Responder;
    export!(Responder);
}

/// How much is written at once.
const PART: usize = 4096;

struct Responder;

impl Guest for Responder {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let headers = request.headers();
        let header = |name: &str| headers.get(name).first().map(|value| String::from_utf8_lossy(value).into_owned());
        let status = header("ce-status").and_then(|status| status.parse().ok());
        match header("ce-type").unwrap_or_default().as_str() {
            "test.echo" => {
                let all: Vec<_> = headers
                    .entries()
                    .into_iter()
                    .map(|(name, value)| (name, String::from_utf8_lossy(&value).into_owned()))
                    .collect();
                let about = json!({
                    "method": format!("{:?}", request.method()),
                    "scheme": format!("{:?}", request.scheme()),
                    "authority": request.authority(),
                    "path": request.path_with_query(),
                    "headers": all,
                    "body": String::from_utf8_lossy(&body(&request)),
                });
                respond(out, 200, None, about.to_string().as_bytes());
            }
            "test.status" => {
                respond(
                    out,
                    status.unwrap_or(200),
                    header("ce-retryafter").map(|value| value.replace("%20", " ")).as_deref(),
                    &body(&request),
                );
            }
            "test.trailers" => {
                let outgoing = start(out, 200, None);
                write(&outgoing, b"ok");
                let trailers = Fields::from_list(&[("x-sum".to_owned(), b"1".to_vec())]).expect("trailers");
                OutgoingBody::finish(outgoing, Some(trailers)).expect("finished");
            }
            "test.stream" => {
                let bytes = header("ce-bytes").and_then(|bytes| bytes.parse().ok()).unwrap_or(0);
                respond(out, status.unwrap_or(200), None, &vec![b'x'; bytes]);
            }
            "test.none" => {}
            "test.keep" => std::mem::forget(out),
            "test.error" => ResponseOutparam::set(out, Err(ErrorCode::InternalError(Some("no luck".to_owned())))),
            "test.panic-after" => {
                respond(out, 200, None, b"fine");
                panic!("after the response");
            }
            "test.loop-after" => {
                respond(out, 200, None, b"fine");
                let mut n = 0_u64;
                loop {
                    n = black_box(n.wrapping_add(1));
                }
            }
            "test.open" => {
                let outgoing = start(out, 200, None);
                write(&outgoing, b"half");
                std::mem::forget(outgoing);
            }
            "test.abort" => {
                let outgoing = start(out, 200, None);
                write(&outgoing, b"half");
            }
            "test.emit" => {
                let event = NewEvent {
                    id: None,
                    source: None,
                    type_: "com.acme.echoed".to_owned(),
                    subject: None,
                    datacontenttype: None,
                    dataschema: None,
                    extensions: Vec::new(),
                    data: None,
                    key: None,
                    dedupe_key: None,
                    priority: None,
                    delay: None,
                };
                emitter::emit(&event).expect("granted");
                respond(out, status.unwrap_or(204), None, b"");
            }
            "test.log" => {
                println!("from stdout");
                respond(out, 204, None, b"");
            }
            unknown => panic!("no behaviour is called {unknown}"),
        }
    }
}

fn body(request: &IncomingRequest) -> Vec<u8> {
    let body = request.consume().expect("the first time");
    let stream = body.stream().expect("the first time");
    let mut whole = Vec::new();
    loop {
        match stream.blocking_read(PART as u64) {
            Ok(part) => whole.extend(part),
            Err(StreamError::Closed) => return whole,
            Err(StreamError::LastOperationFailed(error)) => panic!("{}", error.to_debug_string()),
        }
    }
}

fn respond(out: ResponseOutparam, status: u16, retry_after: Option<&str>, bytes: &[u8]) {
    let outgoing = start(out, status, retry_after);
    write(&outgoing, bytes);
    OutgoingBody::finish(outgoing, None).expect("finished");
}

/// Sets the response; its body is still to come.
fn start(out: ResponseOutparam, status: u16, retry_after: Option<&str>) -> OutgoingBody {
    let headers = Fields::new();
    if let Some(value) = retry_after {
        headers.append("retry-after", value.as_bytes()).expect("a header");
    }
    let response = OutgoingResponse::new(headers);
    response.set_status_code(status).expect("a status");
    let outgoing = response.body().expect("the first time");
    ResponseOutparam::set(out, Ok(response));
    outgoing
}

fn write(outgoing: &OutgoingBody, bytes: &[u8]) {
    let stream = outgoing.write().expect("the first time");
    for part in bytes.chunks(PART) {
        stream.blocking_write_and_flush(part).expect("it is read");
    }
}
