//! Answers with what it is configured with: the result is `[the value of the event's subject or null, [[key, value], …]]`.
//! The event's type says through which interface: `test.candidate`, `test.later-draft` or `test.draft`.

// Its bindings exist in guests only.
#![cfg(target_arch = "wasm32")]

use gristmill_sdk::IntoVerdict as _;
use gristmill_sdk::{Error, Event, Json, Raw, Verdict, handler};
use serde_json::json;

#[allow(warnings, reason = "generated code")]
mod bindings {
    wit_bindgen::generate!({
        path: "../../../wit",
        inline: "
            package gristmill:configured;
            world configured {
                import wasi:config/store@0.2.0-rc.1;
                import wasi:config/store@0.2.0-draft-2024-09-27;
                import wasi:config/runtime@0.2.0-draft;
            }
        ",
        world: "gristmill:configured/configured",
        generate_all,
    });
}

use bindings::wasi::config0_2_0_draft::runtime as draft;
use bindings::wasi::config0_2_0_draft_2024_09_27::store as later_draft;
use bindings::wasi::config0_2_0_rc_1::store as candidate;

#[handler]
fn tell(event: Event<Raw>) -> Result<Verdict, Error> {
    let key = event.subject.as_deref().unwrap_or_default();
    let wrong = |error: String| Error::reject(error);
    let (value, all) = match event.ty.as_str() {
        "test.candidate" => (
            candidate::get(key).map_err(|error| wrong(format!("{error:?}")))?,
            candidate::get_all().map_err(|error| wrong(format!("{error:?}")))?,
        ),
        "test.later-draft" => (
            later_draft::get(key).map_err(|error| wrong(format!("{error:?}")))?,
            later_draft::get_all().map_err(|error| wrong(format!("{error:?}")))?,
        ),
        _ => (
            draft::get(key).map_err(|error| wrong(format!("{error:?}")))?,
            draft::get_all().map_err(|error| wrong(format!("{error:?}")))?,
        ),
    };
    Ok(Json(json!([value, all])).into_verdict())
}
