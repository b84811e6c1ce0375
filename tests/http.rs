//! HTTP both ways, with the real binary: handlers that send requests, and handlers that are asked by them.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};

use serde_json::json;

use crate::rig::{Deployment, event, gristmill, outcomes, reason};
use crate::text;

const ALL: &str = "{ type = \"*\" }";

/// A server that answers every request with a price.
fn prices() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, mut request) = (stream.unwrap(), Vec::new());
            while !request.ends_with(b"\r\n\r\n") {
                let mut part = [0; 512];
                let length = stream.read(&mut part).unwrap();
                request.extend_from_slice(&part[..length]);
            }
            let status = if request.starts_with(b"GET /prices/pear ") { "200 OK" } else { "404 Not Found" };
            write!(stream, "HTTP/1.1 {status}\r\ncontent-length: 2\r\n\r\n42").unwrap();
        }
    });
    address
}

fn handler(name: &str, guest: &str, extra: &str) -> String {
    let component = gristmill_test_guests::path(guest);
    format!(
        "[[handler]]\nname = \"{name}\"\ncomponent = {component:?}\nsubscribe = [{ALL}]\nmax-attempts = 2\n\
         backoff = {{ base = \"100ms\", factor = 1.0, jitter = 0.0 }}\n{extra}\n"
    )
}

#[test]
fn a_request_needs_its_grant() {
    let address = prices();
    let granted = format!("grant = {{ http = [\"GET http://{address}/prices\"] }}");
    let fetcher = |name, grant: &str| handler(name, gristmill_test_guests::FETCHER, grant);
    let deployment = Deployment::new(&[fetcher("granted", &granted), fetcher("denied", "")]);
    let lookup = |item: &str| event(item, "lookup", json!({ "host": address.to_string(), "item": item }));
    deployment.run_until_idle(&[lookup("pear"), lookup("none")]);
    let running = deployment.start();
    assert_eq!(running.entry("granted", "done", "pear")["result"], json!("42"));
    let missing = running.entry("granted", "dead", "none");
    assert_eq!(outcomes(&missing), ["retry"; 2]);
    assert_eq!(reason(&missing), "HTTP 404");
    let denied = running.entry("denied", "dead", "pear");
    assert!(outcomes(&denied) == ["retry"; 2] && reason(&denied).contains("HttpRequestDenied"), "{denied}");
}

#[test]
fn a_handler_that_sends_requests_can_be_tried() {
    let address = prices();
    let deployment = Deployment::new(&[]);
    let file = deployment.events(&[event("1", "lookup", json!({ "host": address.to_string(), "item": "pear" }))]);
    let invoke = |more: &[&str]| {
        let mut command = gristmill();
        command.arg("invoke").arg(gristmill_test_guests::path(gristmill_test_guests::FETCHER));
        command.arg("--event").arg(&file).args(more).output().unwrap()
    };
    let output = invoke(&["--http", &format!("http://{address}")]);
    let report = text(&output.stdout);
    assert!(output.status.success() && report.contains("outcome  ack"), "{report}{}", text(&output.stderr));
    assert!(report.lines().any(|line| line.starts_with("http ") && line.ends_with(" received")), "{report}");
    let report = text(&invoke(&[]).stdout);
    assert!(report.contains("was denied: the handler has no grant of HTTP"), "{report}");
    let wrong = invoke(&["--http", "ftp://files.example.com"]);
    assert!(wrong.status.code() == Some(2) && text(&wrong.stderr).contains("the scheme `ftp`"), "{wrong:?}");
}

#[test]
fn the_file_of_authorities_has_to_be_one() {
    let deployment = Deployment::new(&[handler("fetcher", gristmill_test_guests::FETCHER, "")]);
    let config = std::fs::read_to_string(deployment.config()).unwrap();
    std::fs::write(deployment.config(), format!("{config}[http-client]\nca-file = \"ca.pem\"\n")).unwrap();
    let check = || deployment.command(&["check"]).output().unwrap();
    let complaint = text(&check().stderr);
    assert!(complaint.contains("cannot read") && complaint.contains("ca.pem"), "{complaint}");
    std::fs::write(deployment.path().join("ca.pem"), "no certificate").unwrap();
    let complaint = text(&check().stderr);
    assert!(complaint.contains("ca.pem") && complaint.contains("there is no certificate in it"), "{complaint}");
}

#[test]
fn an_http_handler_handles_events() {
    let deployment = Deployment::new(&[handler("greeter", gristmill_test_guests::GREETER, "")]);
    let (mut ada, nobody) = (event("ada", "greet", json!({})), event("nobody", "greet", json!({})));
    ada["subject"] = json!("Ada");
    deployment.run_until_idle(&[ada, nobody]);
    let running = deployment.start();
    assert_eq!(running.entry("greeter", "done", "ada")["result"], json!("Hello, Ada!"));
    let dead = running.entry("greeter", "dead", "nobody");
    assert_eq!(outcomes(&dead), ["reject"]);
    assert_eq!(reason(&dead), "HTTP 400 Bad Request: nobody to greet");
    let check = text(&deployment.command(&["check"]).output().unwrap().stdout);
    assert!(check.contains("wasi:http/incoming-handler@0.2"), "{check}");
}

#[test]
fn the_documentation_shows_the_handlers_that_run_here() {
    for (page, guest) in [("http-handlers", "greeter"), ("outgoing-http", "fetcher")] {
        // Cargo starts tests in the folder of their package.
        let page = std::fs::read_to_string(format!("../../docs/{page}.md")).unwrap();
        let source = std::fs::read_to_string(format!("../../tests/guests/components/examples/{guest}.rs")).unwrap();
        let code = source.split_once("\nuse ").unwrap().1.replace("../../../wit", "wit");
        assert!(page.contains(&format!("use {}", code.trim_end())), "{guest}");
    }
}
