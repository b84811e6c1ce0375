//! Handles orders, `{"n": 7}`, in two versions: `clerk` and `clerk_changed` are this source, and do the same but for what
//! [`IS_CHANGED`](super::IS_CHANGED) changes.
//!
//! | type | what happens | changed |
//! | --- | --- | --- |
//! | `order.judge` | acks up to 100, rejects above | acks up to 99 |
//! | `order.emit` | emits `order.made` twice, with `n` | the second has 8 for 7 |
//! | `order.count` | adds `n` to the key `total` of the bucket `orders`, and sets `last` to it | sets 8 for 7 |
//! | `order.trap` | panics with `n` | in another place |
//! | `order.look` | acks with the time, and with a number that a hash map would be made of | |
//! | `order.chance` | acks with what is in `/chance/uuid` | |

use std::hash::{BuildHasher as _, RandomState};
use std::time::SystemTime;

use gristmill_sdk::{Error, Event, IntoVerdict as _, Json, NewEvent, Verdict, emit, handler};
use serde_json::json;

use super::IS_CHANGED;
use bindings::wasi::keyvalue0_2_0_draft::{atomics, store};

#[allow(warnings, reason = "generated code")]
mod bindings {
    wit_bindgen::generate!({
        path: "../../../wit",
        inline: "
            package gristmill:clerk;
            world clerk {
                import wasi:keyvalue/store@0.2.0-draft;
                import wasi:keyvalue/atomics@0.2.0-draft;
            }
        ",
        world: "gristmill:clerk/clerk",
        generate_all,
    });
}

#[derive(serde::Deserialize)]
struct Order {
    n: u64,
}

#[handler]
fn clerk(event: Event<Order>) -> Result<Verdict, Error> {
    let n = event.data.n;
    match event.ty.as_str() {
        "order.judge" if n > if IS_CHANGED { 99 } else { 100 } => Err(Error::reject(format!("{n} are too many"))),
        "order.emit" => {
            emit(NewEvent::new("order.made").json(&json!({ "n": n }))?)?;
            emit(NewEvent::new("order.made").json(&json!({ "n": changed(n) }))?)?;
            Ok(Verdict::ACK)
        }
        "order.count" => {
            let count = || {
                let bucket = store::open("orders")?;
                bucket.set("last", changed(n).to_string().as_bytes())?;
                atomics::increment(&bucket, "total", n)
            };
            let total = count().map_err(|error: store::Error| Error::retry(format!("{error:?}")))?;
            Ok(Json(json!({ "total": total })).into_verdict())
        }
        "order.trap" if IS_CHANGED => panic!("{n} is too much"),
        "order.trap" => panic!("{n} is too much"),
        "order.look" => {
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            let random = RandomState::new().hash_one(n);
            Ok(Json(json!({ "micros": now.as_micros() as u64, "random": random })).into_verdict())
        }
        "order.chance" => {
            let chance = std::fs::read_to_string("/chance/uuid").map_err(|error| Error::reject(error.to_string()))?;
            Ok(Json(json!(chance)).into_verdict())
        }
        _ => Ok(Verdict::ACK),
    }
}

fn changed(n: u64) -> u64 {
    if IS_CHANGED && n == 7 { 8 } else { n }
}
