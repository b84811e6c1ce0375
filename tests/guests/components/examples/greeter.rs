//! The handler of `docs/http-handlers.md`.

// Its bindings exist in guests only.
#![cfg(target_arch = "wasm32")]

use bindings::exports::wasi::http::incoming_handler::Guest;
use bindings::wasi::http::types::{Fields, IncomingRequest, OutgoingBody, OutgoingResponse, ResponseOutparam};

#[allow(warnings, unsafe_code, reason = "generated code")]
mod bindings {
    wit_bindgen::generate!({
        path: "../../../wit",
        inline: "
            package example:greeter;
            world greeter {
                export wasi:http/incoming-handler@0.2.12;
            }
        ",
        world: "example:greeter/greeter",
        generate_all,
    });
    use super::Greeter;
    export!(Greeter);
}

struct Greeter;

impl Guest for Greeter {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let subject = request.headers().get("ce-subject");
        let (status, text) = match subject.first() {
            Some(name) => (200, format!("Hello, {}!", String::from_utf8_lossy(name))),
            None => (400, "nobody to greet".to_owned()),
        };
        let response = OutgoingResponse::new(Fields::new());
        response.set_status_code(status).expect("a valid status");
        let body = response.body().expect("its first body");
        ResponseOutparam::set(out, Ok(response));
        let stream = body.write().expect("its first stream");
        stream.blocking_write_and_flush(text.as_bytes()).expect("a reader"); // at most 4,096 bytes at once
        drop(stream);
        OutgoingBody::finish(body, None).expect("a whole body");
    }
}
