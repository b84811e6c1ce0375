//! Says what it sees of time and chance: emits one event, `test.seen`, with what the event's type asks for. A plain program,
//! so that the same source is a component and a core module.
//!
//! | type | the data |
//! | --- | --- |
//! | `test.look` | `wall`: nanoseconds since the epoch; `steady`: nanoseconds between two looks at the other clock; `random`: a number that a hash map would be made of |
//! | `test.sleep` | what passed on both clocks, in nanoseconds, while it slept for as many milliseconds as the subject says |
//! | `test.wait` | the same, where it sleeps for a millisecond at a time until so much has passed on both clocks |
#![forbid(unsafe_code)]

use std::hash::{BuildHasher as _, RandomState};
use std::io::{Read as _, stdin};
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime};

fn main() {
    let mut event = String::new();
    if stdin().read_to_string(&mut event).is_err() {
        return;
    }
    let (steady, wall) = (Instant::now(), SystemTime::now());
    let time = Duration::from_millis(attribute(&event, "subject").parse().unwrap_or_default());
    match attribute(&event, "type") {
        "test.sleep" => sleep(time),
        "test.wait" => {
            while steady.elapsed() < time || since(wall) < time {
                sleep(Duration::from_millis(1));
            }
        }
        _ => {
            let (wall, random) = (since(SystemTime::UNIX_EPOCH).as_nanos(), RandomState::new().hash_one(7));
            return emit(&format!(r#"{{"wall":{wall},"steady":{},"random":{random}}}"#, steady.elapsed().as_nanos()));
        }
    }
    emit(&format!(r#"{{"wall":{},"steady":{}}}"#, since(wall).as_nanos(), steady.elapsed().as_nanos()));
}

fn since(then: SystemTime) -> Duration {
    SystemTime::now().duration_since(then).unwrap_or_default()
}

fn emit(data: &str) {
    println!(r#"{{"type":"test.seen","data":{data}}}"#);
}

/// The value of an attribute that needs no escapes. A real program uses a JSON library.
fn attribute<'a>(event: &'a str, name: &str) -> &'a str {
    let start = format!("\"{name}\":\"");
    let value = event.split_once(&start).map(|(_, rest)| rest).unwrap_or_default();
    value.split_once('"').map(|(value, _)| value).unwrap_or_default()
}
