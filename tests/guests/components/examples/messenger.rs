//! Handles messages: the topic says what happens.
//!
//! | topic | what happens |
//! | --- | --- |
//! | `msg.ack` | ok |
//! | `msg.timeout`, `msg.connection`, `msg.denied`, `msg.other` | that error |
//! | `msg.describe` | an error whose text is all that is known of the message, as JSON |
//! | `msg.send` | sends a message of its own to `test.made`, whose metadata were added, replaced and removed |
//! | `msg.forward` | sends the message that came in to `test.made` |
//! | `msg.send-then-error` | sends the same, then an error |
//! | `msg.send-denied` | the error of sending to `forbidden.type` |
//! | `msg.send-wrong` | the error of sending metadata that are no attribute |
//! | `msg.send-twice` | the error of sending metadata with one name twice |
//! | `msg.request`, `msg.reply` | the error of that call |
//! | `msg.hoard` | makes messages of 1 MiB without end, and keeps them |
//! | `msg.churn` | makes 100 of them, and keeps none |
//! | `msg.keep` | ok, and keeps the message that came in |
//! | `msg.count` | an error whose text is how many of these the instance has handled |

// Its bindings exist in guests only.
#![cfg(target_arch = "wasm32")]

use std::sync::atomic::{AtomicU32, Ordering};

use bindings::exports::wasi::messaging::incoming_handler::Guest;
use bindings::wasi::messaging::types::{Client, Error, Message};
use bindings::wasi::messaging::{producer, request_reply};
use serde_json::json;

#[allow(warnings, unsafe_code, reason = "generated code")]
mod bindings {
    wit_bindgen::generate!({
        path: "../../../wit",
        world: "wasi:messaging/messaging-request-reply",
        generate_all,
    });

    export!(Messenger);
    use super::Messenger;
}

static COUNTED: AtomicU32 = AtomicU32::new(0);

struct Messenger;

impl Guest for Messenger {
    fn handle(message: Message) -> Result<(), Error> {
        let topic = message.topic().unwrap_or_default();
        let client = Client::connect("anywhere")?;
        match topic.as_str() {
            "msg.timeout" => Err(Error::Timeout),
            "msg.connection" => Err(Error::Connection("gone".to_owned())),
            "msg.denied" => Err(Error::PermissionDenied("by me".to_owned())),
            "msg.other" => Err(Error::Other("not yet".to_owned())),
            "msg.describe" => Err(Error::Other(describe(&message))),
            "msg.send" => {
                producer::send(&client, "test.made", made())?;
                client.disconnect()
            }
            "msg.forward" => producer::send(&client, "test.made", message),
            "msg.send-then-error" => {
                producer::send(&client, "test.made", made())?;
                Err(Error::Other("not yet".to_owned()))
            }
            "msg.send-denied" => producer::send(&client, "forbidden.type", made()),
            "msg.send-wrong" => {
                message.add_metadata("Content-Language", "de");
                producer::send(&client, "test.made", message)
            }
            "msg.send-twice" => {
                let twice = [("subject", "a"), ("subject", "b")];
                message.set_metadata(&twice.map(|(key, value)| (key.to_owned(), value.to_owned())));
                producer::send(&client, "test.made", message)
            }
            "msg.request" => {
                let options = request_reply::RequestOptions::new();
                options.set_timeout_ms(10);
                options.set_expected_replies(1);
                request_reply::request(&client, "test.made", &message, Some(options)).map(drop)
            }
            "msg.reply" => request_reply::reply(&message, made()),
            "msg.hoard" => {
                let mut kept = Vec::new();
                loop {
                    kept.push(Message::new(&vec![1; 1 << 20]));
                }
            }
            "msg.keep" => {
                std::mem::forget(message);
                Ok(())
            }
            "msg.count" => Err(Error::Other((COUNTED.fetch_add(1, Ordering::Relaxed) + 1).to_string())),
            "msg.churn" => {
                for _ in 0..100 {
                    drop(Message::new(&vec![1; 1 << 20]));
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

fn made() -> Message {
    let message = Message::new(b"old");
    message.set_data(br#"{"n":1}"#);
    message.set_content_type("application/json");
    for (key, value) in [("id", "mine"), ("subject", "first"), ("subject", "order/7"), ("lang", "de"), ("gone", "x")] {
        message.add_metadata(key, value);
    }
    message.remove_metadata("gone");
    message
}

fn describe(message: &Message) -> String {
    let described = json!({
        "topic": message.topic(),
        "content_type": message.content_type(),
        "data": String::from_utf8_lossy(&message.data()),
        "metadata": message.metadata(),
        "new": { "topic": made().topic(), "metadata": Message::new(b"").metadata() },
    });
    described.to_string()
}
