//! Handles batches: each event's type says what happens for it.
//!
//! | type | what happens |
//! | --- | --- |
//! | `batch.ack` | ack; the result is `{"of": N, "at": I}`, the size of the batch and the place in it |
//! | `batch.emit` | emits a `test.made` with the event's id as the subject, then the same |
//! | `batch.count` | adds 1 to the key `total` of the bucket `counts`, then the same |
//! | `batch.read` | reads that key, and gives it as the result |
//! | `batch.retry`, `batch.defer`, `batch.reject` | that |
//! | `batch.retry-emit` | emits a `test.made`, then retries |
//! | `batch.trap` | traps, in the middle of the batch |
//! | `batch.sleep` | waits in the host for 30 s |
//! | `batch.alloc` | takes 4 MiB and keeps them until the end of the batch |
//! | `batch.short`, `batch.long` | the answer has a verdict less, or one more |
//! | `batch.empty` | the answer is empty |

// Its bindings exist in guests only.
#![cfg(target_arch = "wasm32")]

use std::hint::black_box;
use std::thread;
use std::time::Duration;

use bindings::exports::gristmill::events::batch_handler::{Delivery, Guest, Verdict};
use bindings::gristmill::events::emitter::{NewEvent, emit};
use bindings::gristmill::events::types::{Deferral, Failure, Payload};
use bindings::wasi::keyvalue0_2_0_draft::{atomics, store};

#[allow(warnings, unsafe_code, reason = "generated code")]
mod bindings {
    wit_bindgen::generate!({
        path: "../../../wit",
        inline: "
            package gristmill:batcher;
            world batcher {
                import gristmill:events/emitter@0.1.0;
                import wasi:keyvalue/store@0.2.0-draft;
                import wasi:keyvalue/atomics@0.2.0-draft;
                export gristmill:events/batch-handler@0.1.0;
            }
        ",
        world: "gristmill:batcher/batcher",
        generate_all,
    });

    export!(Batcher);
    use super::Batcher;
}

struct Batcher;

impl Guest for Batcher {
    fn handle(batch: Vec<Delivery>) -> Vec<Verdict> {
        let mut kept = Vec::new();
        let of = batch.len();
        let mut verdicts: Vec<_> =
            batch.iter().enumerate().map(|(at, delivery)| verdict(delivery, of, at, &mut kept)).collect();
        black_box(&kept);
        for delivery in &batch {
            match delivery.event.type_.as_str() {
                "batch.short" => drop(verdicts.pop()),
                "batch.long" => verdicts.push(Verdict::Ack(None)),
                "batch.empty" => verdicts.clear(),
                _ => {}
            }
        }
        verdicts
    }
}

fn verdict(delivery: &Delivery, of: usize, at: usize, kept: &mut Vec<Vec<u8>>) -> Verdict {
    let ack = |text: String| Verdict::Ack(Some(Payload::Text(text)));
    let done = || ack(format!(r#"{{"of":{of},"at":{at}}}"#));
    let retry = |reason: String| Verdict::Retry(Failure { reason, after: None });
    let event = &delivery.event;
    match event.type_.as_str() {
        "batch.emit" => {
            make(&event.id);
            done()
        }
        "batch.count" => match store::open("counts").and_then(|bucket| atomics::increment(&bucket, "total", 1)) {
            Ok(_) => done(),
            Err(error) => retry(format!("{error:?}")),
        },
        "batch.read" => match store::open("counts").and_then(|bucket| bucket.get("total")) {
            Ok(value) => ack(String::from_utf8_lossy(&value.unwrap_or_default()).into_owned()),
            Err(error) => retry(format!("{error:?}")),
        },
        "batch.retry" => retry("not yet".to_owned()),
        "batch.retry-emit" => {
            make(&event.id);
            retry("not yet".to_owned())
        }
        "batch.defer" => Verdict::Defer(Deferral { after: 60_000, reason: None }),
        "batch.reject" => Verdict::Reject("bad order".to_owned()),
        "batch.trap" => core::arch::wasm32::unreachable(),
        "batch.sleep" => {
            thread::sleep(Duration::from_secs(30));
            done()
        }
        "batch.alloc" => {
            kept.push(black_box(vec![1; 4 << 20]));
            done()
        }
        _ => done(),
    }
}

fn make(subject: &str) {
    let new = NewEvent {
        id: None,
        source: None,
        type_: "test.made".to_owned(),
        subject: Some(subject.to_owned()),
        datacontenttype: None,
        dataschema: None,
        extensions: Vec::new(),
        data: None,
        key: None,
        priority: None,
        delay: None,
        dedupe_key: None,
    };
    // A refusal shows in what is not there.
    let _ = emit(&new);
}
