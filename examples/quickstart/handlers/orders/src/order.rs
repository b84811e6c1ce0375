//! An order, as the shop's events carry it.

use gristmill_sdk::Error;
use serde::Deserialize;

#[derive(Deserialize)]
pub(crate) struct Order {
    pub(crate) id: String,
    pub(crate) customer: Customer,
    pub(crate) items: Vec<Item>,
    pub(crate) total_cents: u64,
    pub(crate) currency: String,
    /// Which gateway the payment goes through.
    pub(crate) payment: String,
    pub(crate) note: Option<String>,
}

#[derive(Deserialize)]
pub(crate) struct Customer {
    pub(crate) email: String,
}

#[derive(Deserialize)]
pub(crate) struct Item {
    pub(crate) quantity: u64,
    pub(crate) unit_cents: u64,
}

impl Order {
    /// An order that does not add up will not do so at the next attempt: reject, not retry.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let Self { id, items, total_cents, .. } = self;
        if items.is_empty() {
            return Err(Error::reject(format!("order {id} has no items")));
        }
        let cost =
            items.iter().fold(0, |sum: u64, item| sum.saturating_add(item.quantity.saturating_mul(item.unit_cents)));
        if cost != *total_cents {
            return Err(Error::reject(format!("order {id} says {total_cents} cents, and its items cost {cost}")));
        }
        Ok(())
    }
}
