//! Looks around: does what the event's type says with the event's subject, and says on stderr what came of it. A plain
//! program, so that the same source is a component and a core module.
//!
//! | type | does, with the subject |
//! | --- | --- |
//! | `test.env` | logs every variable, `NAME=VALUE` |
//! | `test.list` | logs the names in a directory |
//! | `test.read` | logs what is in a file |
//! | `test.write` | writes `written` to a file |
//! | `test.remove` | deletes a file |
//! | `test.link` | makes a symbolic link to `/etc` |
//! | `test.connect` | connects, sends `ping`, and logs the answer |
//! | `test.send` | sends `ping` as a datagram, and logs the answer |
//! | `test.listen` | listens at an address |
//! | `test.resolve` | logs how many addresses a name has |
//! | `test.chatter` | logs so many lines |
//! | `test.paint` | logs control characters |
//!
//! What fails is logged as `failed: ` and the kind of the error.
#![forbid(unsafe_code)]

use std::io::{self, Read as _, Write as _, stdin};
use std::net::{Shutdown, TcpListener, TcpStream, ToSocketAddrs as _, UdpSocket};
use std::{env, fs};

fn main() {
    let mut event = String::new();
    if stdin().read_to_string(&mut event).is_err() {
        return;
    }
    match act(attribute(&event, "type"), attribute(&event, "subject")) {
        Ok(lines) => lines.iter().for_each(|line| eprintln!("{line}")),
        Err(error) => eprintln!("failed: {:?}", error.kind()),
    }
}

fn act(ty: &str, subject: &str) -> io::Result<Vec<String>> {
    match ty {
        "test.env" => Ok(env::vars().map(|(name, value)| format!("{name}={value}")).collect()),
        "test.list" => {
            let names = fs::read_dir(subject)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
            let mut names: Vec<_> = names.collect::<io::Result<_>>()?;
            names.sort_unstable();
            Ok(names)
        }
        "test.read" => fs::read_to_string(subject).map(|text| vec![text]),
        "test.write" => fs::write(subject, "written").map(|()| vec!["done".to_owned()]),
        "test.remove" => fs::remove_file(subject).map(|()| vec!["done".to_owned()]),
        "test.link" => link(subject),
        "test.connect" => {
            let mut stream = TcpStream::connect(subject)?;
            stream.write_all(b"ping")?;
            stream.shutdown(Shutdown::Write)?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(vec![answer])
        }
        "test.send" => {
            let socket = UdpSocket::bind("0.0.0.0:0")?;
            socket.send_to(b"ping", subject)?;
            let mut answer = [0; 16];
            let (length, _) = socket.recv_from(&mut answer)?;
            Ok(vec![String::from_utf8_lossy(&answer[..length]).into_owned()])
        }
        "test.listen" => TcpListener::bind(subject).map(|_| vec!["listening".to_owned()]),
        "test.resolve" => Ok(vec![(subject, 80).to_socket_addrs()?.count().to_string()]),
        "test.chatter" => Ok((0..subject.parse().unwrap_or(0)).map(|n| format!("line {n}")).collect()),
        "test.paint" => Ok(vec!["\u{1b}[31mred\u{1b}[0m\rover\u{7}\u{9b}2J \u{202e}back\tq".to_owned()]),
        _ => Err(io::Error::from(io::ErrorKind::Unsupported)),
    }
}

#[cfg(target_os = "wasi")]
#[allow(deprecated, reason = "the only way without unstable features")]
fn link(at: &str) -> io::Result<Vec<String>> {
    fs::soft_link("/etc", at).map(|()| vec!["done".to_owned()])
}

#[cfg(not(target_os = "wasi"))]
fn link(_: &str) -> io::Result<Vec<String>> {
    Err(io::Error::from(io::ErrorKind::Unsupported))
}

/// The value of an attribute that needs no escapes. A real program uses a JSON library.
fn attribute<'a>(event: &'a str, name: &str) -> &'a str {
    let start = format!("\"{name}\":\"");
    let value = event.split_once(&start).map(|(_, rest)| rest).unwrap_or_default();
    value.split_once('"').map(|(value, _)| value).unwrap_or_default()
}
