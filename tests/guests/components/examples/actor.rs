//! Does what the event's type says: one behaviour per type, for tests of the host and of the whole runtime.
//!
//! | type | what happens |
//! | --- | --- |
//! | `test.ack` | ack |
//! | `test.result` | ack with the result `{"answer":42}` |
//! | `test.echo` | ack with the event's data as the result |
//! | `test.context` | ack with handler, digest, remaining milliseconds and every delivery field as the result |
//! | `test.retry` | retry, `not yet` |
//! | `test.retry-twice` | retry on the attempts 1 and 2, then ack |
//! | `test.retry-after` | retry after 200 ms |
//! | `test.defer` | defer by 150 ms, until the entry is as old as that |
//! | `test.reject` | reject, `bad order` |
//! | `test.trap` | the `unreachable` instruction |
//! | `test.panic` | a panic, `boom` |
//! | `test.exit` | exit code 3 |
//! | `test.loop` | computes for ever |
//! | `test.sleep` | waits in the host for 30 s |
//! | `test.alloc` | takes and touches memory without end |
//! | `test.emit` | emits `data.count` (1) events of type `data.type` (`test.emitted`) with the data `{"n":0}` and so on, with `data.key` and `data.dedupe_key` if they are given, then acks |
//! | `test.emit-then-retry` | emits the same, then retries |
//! | `test.emit-then-reject` | emits the same, then rejects |
//! | `test.emit-then-trap` | emits the same, then traps |
//! | `test.emit-denied` | emits a `forbidden.type` and rejects with the error's text |
//! | `test.emit-loop` | emits an event of its own type |
//! | `test.log` | writes through `tracing`, `log`, stdout and stderr |

use std::hint::black_box;
use std::thread;
use std::time::{Duration, SystemTime};

use gristmill_sdk::{Error, Event, Json, NewEvent, Raw, Verdict, emit, handler};
use gristmill_sdk::{IntoVerdict as _, component_digest, handler_name, remaining};
use serde_json::json;

const DEFERRAL: Duration = Duration::from_millis(150);

#[handler]
fn act(event: Event<Raw>) -> Result<Verdict, Error> {
    match event.ty.as_str() {
        "test.ack" => Ok(Verdict::ACK),
        "test.result" => Ok(Json(json!({ "answer": 42 })).into_verdict()),
        "test.echo" => Ok(Verdict::Ack(event.data.0)),
        "test.context" => Ok(Json(context(&event)).into_verdict()),
        "test.retry" => Err(Error::retry("not yet")),
        "test.retry-twice" if event.delivery.attempt < 3 => Err(Error::retry("not yet")),
        "test.retry-twice" => Ok(Verdict::ACK),
        "test.retry-after" => Err(Error::retry("not yet").after(Duration::from_millis(200))),
        "test.defer" if age(&event.delivery.enqueued_at) < DEFERRAL => Err(Error::defer(DEFERRAL).because("too early")),
        "test.defer" => Ok(Verdict::ACK),
        "test.reject" => Err(Error::reject("bad order")),
        "test.trap" => trap(),
        "test.panic" => panic!("boom"),
        "test.exit" => std::process::exit(3),
        "test.loop" => compute_for_ever(),
        "test.sleep" => {
            thread::sleep(Duration::from_secs(30));
            Ok(Verdict::ACK)
        }
        "test.alloc" => allocate_for_ever(),
        "test.emit" => emit_many(&event).map(|()| Verdict::ACK),
        "test.emit-then-retry" => emit_many(&event).and(Err(Error::retry("not yet"))),
        "test.emit-then-reject" => emit_many(&event).and(Err(Error::reject("bad order"))),
        "test.emit-then-trap" => {
            emit_many(&event)?;
            trap()
        }
        "test.emit-denied" => match emit(NewEvent::new("forbidden.type")) {
            Ok(id) => Err(Error::reject(format!("emitted {id}"))),
            Err(error) => Err(Error::reject(error.to_string())),
        },
        "test.emit-loop" => {
            emit(NewEvent::new("test.emit-loop"))?;
            Ok(Verdict::ACK)
        }
        "test.log" => {
            tracing::info!(order = 7, "from tracing");
            log::warn!("from log");
            println!("from stdout");
            eprintln!("from stderr");
            Ok(Verdict::ACK)
        }
        unknown => Err(Error::reject(format!("no behaviour is called {unknown}"))),
    }
}

fn context(event: &Event<Raw>) -> serde_json::Value {
    let delivery = &event.delivery;
    json!({
        "handler": handler_name(),
        "digest": component_digest(),
        "remaining_ms": remaining().as_millis() as u64,
        "delivery": delivery.id,
        "queue": delivery.queue,
        "attempt": delivery.attempt,
        "max_attempts": delivery.max_attempts,
        "enqueued_at": delivery.enqueued_at,
        "event": {
            "id": event.id,
            "source": event.source,
            "type": event.ty,
            "subject": event.subject,
            "time": event.time,
            "datacontenttype": event.datacontenttype,
            "dataschema": event.dataschema,
            "extensions": event.extensions,
        },
    })
}

fn emit_many(event: &Event<Raw>) -> Result<(), Error> {
    #[derive(Default, serde::Deserialize)]
    #[serde(default)]
    struct Emission {
        count: Option<u32>,
        r#type: Option<String>,
        key: Option<String>,
        dedupe_key: Option<String>,
    }
    let Emission { count, r#type, key, dedupe_key } =
        if event.data.0.is_some() { event.data.json()? } else { Emission::default() };
    let ty = r#type.unwrap_or_else(|| "test.emitted".to_owned());
    for n in 0..count.unwrap_or(1) {
        let mut new = NewEvent::new(&ty).json(&json!({ "n": n }))?;
        (new.key, new.dedupe_key) = (key.clone(), dedupe_key.clone());
        emit(new)?;
    }
    Ok(())
}

#[cfg(target_arch = "wasm32")]
fn trap() -> ! {
    core::arch::wasm32::unreachable()
}

#[cfg(not(target_arch = "wasm32"))]
fn trap() -> ! {
    std::process::abort()
}

fn compute_for_ever() -> ! {
    let mut n = 0_u64;
    loop {
        n = black_box(n.wrapping_add(1));
    }
}

fn allocate_for_ever() -> ! {
    const CHUNK: usize = 256 * 1024;
    let mut chunks = Vec::new();
    loop {
        chunks.push(black_box(vec![1_u8; CHUNK]));
    }
}

/// The time since a moment in UTC, in RFC 3339. A moment that cannot be read is long ago.
fn age(then: &str) -> Duration {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    now.saturating_sub(since_epoch(then).unwrap_or_default())
}

fn since_epoch(text: &str) -> Option<Duration> {
    let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
    let mut date = date.split('-').map(|part| part.parse::<u64>().ok());
    let (year, month, day) = (date.next()??, date.next()??, date.next()??);
    let mut time = time.splitn(3, ':');
    let (hour, minute) = (time.next()?.parse::<u64>().ok()?, time.next()?.parse::<u64>().ok()?);
    let second: f64 = time.next()?.parse().ok()?;
    // Years that begin in March have their odd day at the end.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year.checked_sub(1)?, month + 9) };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day;
    const EPOCH: u64 = 719_469;
    let seconds = (days.checked_sub(EPOCH)? * 24 + hour) * 3600 + minute * 60;
    Some(Duration::from_secs(seconds) + Duration::try_from_secs_f64(second).ok()?)
}
