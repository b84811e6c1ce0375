//! Writes a receipt for each paid order. The receipt is the event's result, kept with the entry.

use gristmill_sdk::{Error, Event, Json, OrFail, handler};
use serde::{Deserialize, Serialize};

/// What the handler of orders emits.
#[derive(Deserialize)]
struct ReceiptRequest {
    order: String,
    email: String,
    total_cents: u64,
    currency: String,
}

/// The result.
#[derive(Debug, PartialEq, Serialize)]
struct Receipt {
    number: String,
    to: String,
    text: String,
}

#[handler]
fn handle(event: Event<ReceiptRequest>) -> Result<Json<Receipt>, Error> {
    let ReceiptRequest { order, email, total_cents, currency } = event.data;
    let number = order.strip_prefix("A-").or_reject(format!("order {order} is not one of ours"))?;
    let receipt = Receipt {
        number: format!("R-{number}"),
        text: format!(
            "Thank you! {}.{:02} {currency} received for order {order}.",
            total_cents / 100,
            total_cents % 100
        ),
        to: email,
    };
    tracing::info!(receipt = receipt.number, to = receipt.to, "written");
    Ok(Json(receipt))
}

#[cfg(test)]
mod tests {
    use gristmill_sdk::testing::Host;
    use serde_json::json;

    use super::*;

    fn request(order: &str) -> Event<ReceiptRequest> {
        let data = json!({ "order": order, "email": "ada@example.com", "total_cents": 2105, "currency": "EUR" });
        Event::for_test("com.acme.receipt.requested", data)
    }

    #[test]
    fn the_result_is_the_receipt() {
        let host = Host::new();
        let Json(receipt) = handle(request("A-1001")).unwrap();
        assert_eq!(receipt.number, "R-1001");
        assert_eq!(receipt.to, "ada@example.com");
        assert_eq!(receipt.text, "Thank you! 21.05 EUR received for order A-1001.");
        assert_eq!(host.logs()[0].message, "written receipt=R-1001 to=ada@example.com");
    }

    #[test]
    fn an_order_of_another_shop_is_rejected() {
        assert_eq!(handle(request("B-1")), Err(Error::reject("order B-1 is not one of ours")));
    }
}
