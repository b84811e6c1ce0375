//! A handler that acks every event and writes one line about it to the log.

use gristmill_sdk::{Event, Raw, handler};

/// Subscribe it to whatever you want to see go by.
#[handler]
fn log(event: Event<Raw>) {
    tracing::info!(r#type = event.ty, source = event.source, id = event.id, subject = event.subject, "event");
}

#[cfg(test)]
mod tests {
    use gristmill_sdk::testing::{Host, Level};

    use super::*;

    #[test]
    fn one_line_says_which_event_it_was() {
        let host = Host::new();
        let mut event = Event::for_test("com.acme.order.paid", serde_json::json!({ "total": 7 }));
        event.subject = Some("order 17".to_owned());
        log(event);
        let logs = host.logs();
        assert_eq!(logs.len(), 1);
        assert_eq!(logs[0].level, Level::Info);
        assert_eq!(logs[0].message, r#"event type=com.acme.order.paid source=/test id=test-event subject="order 17""#);
    }

    #[test]
    fn any_data_will_do() {
        let host = Host::new();
        let mut event = Event::<Raw>::for_test("com.acme.image", ());
        event.data = Raw(None);
        log(event);
        assert_eq!(host.logs()[0].message, "event type=com.acme.image source=/test id=test-event");
    }
}
