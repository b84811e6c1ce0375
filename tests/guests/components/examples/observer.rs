//! Says what it sees of time and chance, as a program of WASI 0.3: emits one event, `test.seen`, with what the event's type
//! asks for.
//!
//! | type | the data |
//! | --- | --- |
//! | `test.look` | `wall`: nanoseconds since the epoch; `steady`: nanoseconds between two looks at the other clock; `random`: a number of each kind that there is |
//! | `test.sleep` | what passed on both clocks, in nanoseconds, while it waited for as many milliseconds as the subject says |
//! | `test.wait` | the same, where it waits until the clock says that it is over |

// Its bindings exist in guests only.
#![cfg(target_arch = "wasm32")]

use serde_json::{Value, json};

use bindings::exports::wasi::cli::run::Guest;
use bindings::wasi::cli::{stdin, stdout};
use bindings::wasi::clocks::{monotonic_clock, system_clock};
use bindings::wasi::random::{insecure, insecure_seed, random};
use bindings::wit_stream;

#[allow(warnings, unsafe_code, reason = "generated code")]
mod bindings {
    wit_bindgen::generate!({ path: "wit", world: "gristmill:programs/observer", generate_all });

    export!(Observer);
    use super::Observer;
}

struct Observer;

impl Guest for Observer {
    async fn run() -> Result<(), ()> {
        let (input, ended) = stdin::read_via_stream();
        let event: Value = serde_json::from_slice(&input.collect().await).map_err(drop)?;
        ended.await.map_err(drop)?;
        let millis: u64 = event["subject"].as_str().and_then(|text| text.parse().ok()).unwrap_or_default();
        let (steady, on_wall) = (monotonic_clock::now(), wall());
        match event["type"].as_str() {
            Some("test.sleep") => monotonic_clock::wait_for(millis * 1_000_000).await,
            Some("test.wait") => monotonic_clock::wait_until(steady + millis * 1_000_000).await,
            _ => {
                let bytes = random::get_random_bytes(8);
                let numbers = (random::get_random_u64(), insecure::get_insecure_random_u64());
                let random = json!([bytes, numbers, insecure_seed::get_insecure_seed()]);
                let steady = monotonic_clock::now() - steady;
                return emit(&json!({ "wall": on_wall, "steady": steady, "random": random })).await;
            }
        }
        emit(&json!({ "wall": wall() - on_wall, "steady": monotonic_clock::now() - steady })).await
    }
}

/// Nanoseconds since the epoch.
fn wall() -> u64 {
    let now = system_clock::now();
    now.seconds.unsigned_abs() * 1_000_000_000 + u64::from(now.nanoseconds)
}

/// Writes a line to stdout.
async fn emit(data: &Value) -> Result<(), ()> {
    let (mut output, written) = wit_stream::new();
    let ended = stdout::write_via_stream(written);
    let line = json!({ "type": "test.seen", "data": data }).to_string() + "\n";
    output.write_all(line.into_bytes()).await;
    drop(output);
    ended.await.map_err(drop)
}
