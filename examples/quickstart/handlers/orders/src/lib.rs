//! Watches the shop's orders: checks each one, and asks for a receipt when it has been paid.

mod mishap;
mod order;
#[cfg(test)]
mod sample;

use gristmill_sdk::{Error, Event, NewEvent, emit, handler};
use serde::Serialize;

use crate::order::Order;

/// What the handler of receipts needs to know.
#[derive(Serialize)]
struct ReceiptRequest<'a> {
    order: &'a str,
    email: &'a str,
    total_cents: u64,
    currency: &'a str,
}

/// `event.data` is the order: data that is not one was rejected before this function is called.
#[handler]
fn handle(event: Event<Order>) -> Result<(), Error> {
    let order = &event.data;
    order.check()?;
    mishap::play(order, &event.delivery)?;

    if event.ty == "com.acme.order.paid" {
        let request = ReceiptRequest {
            order: &order.id,
            email: &order.customer.email,
            total_cents: order.total_cents,
            currency: &order.currency,
        };
        // Published together with the ack of this event, or not at all: no receipt is asked for twice.
        emit(NewEvent::new("com.acme.receipt.requested").subject(&order.id).json(&request)?)?;
        tracing::info!(order = order.id, cents = order.total_cents, "paid");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use gristmill_sdk::testing::{self, Host};
    use gristmill_sdk::{Raw, Verdict};
    use serde_json::{Value, json};

    use super::*;

    const PAID: &str = "com.acme.order.paid";

    fn order() -> Value {
        json!({
            "id": "A-1001",
            "customer": { "name": "Ada Holm", "email": "ada@example.com" },
            "items": [
                { "sku": "TEA-01", "quantity": 2, "unit_cents": 450 },
                { "sku": "CUP-03", "quantity": 1, "unit_cents": 1200 },
            ],
            "total_cents": 2100,
            "currency": "EUR",
            "payment": "card",
        })
    }

    fn order_with(pointer: &str, value: Value) -> Value {
        let mut order = order();
        *order.pointer_mut(pointer).unwrap() = value;
        order
    }

    #[test]
    fn a_paid_order_asks_for_a_receipt() {
        let host = Host::new();
        assert_eq!(handle(Event::for_test(PAID, order())), Ok(()));
        let emitted = host.emitted();
        assert_eq!(emitted.len(), 1);
        assert_eq!(emitted[0].ty, "com.acme.receipt.requested");
        assert_eq!(emitted[0].subject.as_deref(), Some("A-1001"));
        let data: Value = emitted[0].data.as_ref().unwrap().json().unwrap();
        let expected = json!({ "order": "A-1001", "email": "ada@example.com", "total_cents": 2100, "currency": "EUR" });
        assert_eq!(data, expected);
        assert_eq!(host.logs()[0].message, "paid order=A-1001 cents=2100");
    }

    #[test]
    fn other_events_of_an_order_need_no_receipt() {
        let host = Host::new();
        assert_eq!(handle(Event::for_test("com.acme.order.shipped", order())), Ok(()));
        assert_eq!(host.emitted(), []);
    }

    #[test]
    fn an_order_that_does_not_add_up_is_rejected() {
        let host = Host::new();
        let answer = handle(Event::for_test(PAID, order_with("/total_cents", json!(1))));
        assert_eq!(answer, Err(Error::reject("order A-1001 says 1 cents, and its items cost 2100")));
        let answer = handle(Event::for_test(PAID, order_with("/items", json!([]))));
        assert_eq!(answer, Err(Error::reject("order A-1001 has no items")));
        assert_eq!(host.emitted(), []);
    }

    #[test]
    fn a_field_of_the_wrong_type_is_rejected_by_name() {
        let event = Event::for_test(PAID, order_with("/items/1/quantity", json!("one")));
        let Verdict::Reject(reason) = testing::invoke(handle, event) else { panic!("not rejected") };
        assert!(reason.starts_with(r#"data.items[1].quantity: invalid type: string "one", expected u64"#), "{reason}");
    }

    #[test]
    fn broken_json_is_rejected() {
        let mut event = Event::<Raw>::for_test(PAID, ());
        event.data = Raw(Some(r#"{"id":"A-1001","items":["#.into()));
        let Verdict::Reject(reason) = testing::invoke(handle, event) else { panic!("not rejected") };
        assert!(reason.starts_with("data.items: EOF while parsing a list"), "{reason}");
    }

    #[test]
    fn a_payment_that_is_slow_to_confirm_succeeds_at_the_third_attempt() {
        let host = Host::new();
        let mut event = Event::for_test(PAID, order_with("/payment", json!("flaky")));
        for attempt in 1..=2 {
            event.delivery.attempt = attempt;
            assert!(matches!(testing::invoke(handle, event.clone()), Verdict::Retry { after: None, .. }));
        }
        assert_eq!(host.emitted(), []);
        event.delivery.attempt = 3;
        assert_eq!(testing::invoke(handle, event), Verdict::ACK);
        assert_eq!(host.emitted().len(), 1);
    }

    #[test]
    fn a_payment_that_is_never_confirmed_is_always_retried() {
        let mut event = Event::for_test(PAID, order_with("/payment", json!("offline")));
        event.delivery.attempt = 99;
        assert_eq!(handle(event), Err(Error::retry("payment of order A-1001: gateway `offline` does not answer")));
    }

    #[test]
    #[should_panic(expected = "cannot print a gift card for order A-1001")]
    fn a_bug_is_a_panic() {
        let mut order = order();
        order["note"] = json!("demo: panic");
        let _ = handle(Event::for_test(PAID, order));
    }
}
