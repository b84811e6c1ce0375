//! The handler of `docs/outgoing-http.md`.

// Its bindings exist in guests only.
#![cfg(target_arch = "wasm32")]

use bindings::wasi::http::outgoing_handler;
use bindings::wasi::http::types::{Fields, OutgoingRequest, Scheme};
use bindings::wasi::io::streams::StreamError;
use gristmill_sdk::{Error, Event, Json, handler};

#[allow(warnings, reason = "generated code")]
mod bindings {
    wit_bindgen::generate!({
        path: "../../../wit",
        inline: "
            package example:fetcher;
            world fetcher {
                import wasi:http/outgoing-handler@0.2.12;
            }
        ",
        world: "example:fetcher/fetcher",
        generate_all,
    });
}

#[derive(serde::Deserialize)]
struct Lookup {
    host: String,
    item: String,
}

#[handler]
fn fetch(event: Event<Lookup>) -> Result<Json<String>, Error> {
    let Lookup { host, item } = &event.data;
    let request = OutgoingRequest::new(Fields::new());
    request.set_scheme(Some(&Scheme::Http)).expect("a scheme");
    request.set_authority(Some(host)).map_err(|()| Error::reject("`host` is no host"))?;
    request.set_path_with_query(Some(&format!("/prices/{item}"))).map_err(|()| Error::reject("`item` is no path"))?;

    let sent = outgoing_handler::handle(request, None)?;
    sent.subscribe().block();
    let response = sent.get().expect("it is there").expect("for the first time")?;
    if response.status() != 200 {
        return Err(Error::retry(format!("HTTP {}", response.status())));
    }
    let body = response.consume().expect("for the first time");
    let stream = body.stream().expect("for the first time");
    let mut text = Vec::new();
    loop {
        match stream.blocking_read(64 * 1024) {
            Ok(part) => text.extend(part),
            Err(StreamError::Closed) => break,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(Json(String::from_utf8_lossy(&text).into_owned()))
}
