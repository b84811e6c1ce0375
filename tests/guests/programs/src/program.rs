//! Does what the event's type says, and knows nothing of Gristmill: the event is on stdin, what it emits goes to stdout,
//! and the exit status is the verdict.
//!
//! | type | does |
//! | --- | --- |
//! | `test.ack` | exits with 0 |
//! | `test.echo` | logs the event as it came |
//! | `test.retry`, `test.reject`, `test.fail` | says why, and exits with 75, 65, 3 |
//! | `test.emit` | emits `test.made`, twice |
//! | `test.emit-then-retry` | the same, and exits with 75 |
//! | `test.emit-denied` | emits `forbidden.type` |
//! | `test.garbage` | writes what is no event |
//! | `test.surroundings` | logs how many arguments, variables and readable directories there are |
//! | `test.panic`, `test.loop`, `test.sleep`, `test.alloc` | panics, computes, sleeps, hoards memory |
#![forbid(unsafe_code)]

use std::io::{Read as _, stdin};
use std::process::ExitCode;
use std::time::Duration;

fn main() -> ExitCode {
    let mut event = String::new();
    if let Err(error) = stdin().read_to_string(&mut event) {
        return exit(65, &format!("cannot read the event: {error}"));
    }
    match attribute(&event, "type") {
        "test.ack" => {}
        "test.echo" => eprint!("{event}"),
        "test.retry" => return exit(75, "not yet"),
        "test.reject" => return exit(65, "bad order"),
        "test.fail" => return exit(3, "no idea"),
        "test.emit" => emit(),
        "test.emit-then-retry" => {
            emit();
            return exit(75, "not yet");
        }
        "test.emit-denied" => println!(r#"{{"type":"forbidden.type"}}"#),
        "test.garbage" => println!("hello"),
        "test.surroundings" => {
            let readable = ["/", ".", "/etc"].into_iter().filter(|path| std::fs::read_dir(path).is_ok()).count();
            eprintln!("{} {} {readable}", std::env::args().count(), std::env::vars().count());
        }
        "test.panic" => panic!("boom"),
        "test.loop" => loop {
            std::hint::spin_loop();
        },
        "test.sleep" => std::thread::sleep(Duration::from_secs(3_600)),
        "test.alloc" => {
            let mut hoard = Vec::new();
            loop {
                hoard.push(std::hint::black_box(vec![1u8; 1 << 20]));
            }
        }
        other => return exit(65, &format!("no such test: {other}")),
    }
    ExitCode::SUCCESS
}

fn emit() {
    for n in 0..2 {
        println!(r#"{{"type":"test.made","data":{{"n":{n}}}}}"#);
    }
}

fn exit(status: u8, why: &str) -> ExitCode {
    eprintln!("{why}");
    ExitCode::from(status)
}

/// The value of an attribute that needs no escapes. A real program uses a JSON library.
fn attribute<'a>(event: &'a str, name: &str) -> &'a str {
    let start = format!("\"{name}\":\"");
    let value = event.split_once(&start).map(|(_, rest)| rest).unwrap_or_default();
    value.split_once('"').map(|(value, _)| value).unwrap_or_default()
}
