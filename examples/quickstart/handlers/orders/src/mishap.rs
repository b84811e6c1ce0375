//! What goes wrong in real life, on request: a few of the quickstart's orders ask for it. Your handler has no such file.

use std::hint::black_box;

use gristmill_sdk::{Delivery, Error};

use crate::order::Order;

/// Does to this handler what the order's `payment` or `note` asks for.
pub(crate) fn play(order: &Order, delivery: &Delivery) -> Result<(), Error> {
    match order.payment.as_str() {
        "flaky" if delivery.attempt < 3 => return Err(no_answer(order)),
        "offline" => return Err(no_answer(order)),
        _ => {}
    }
    match order.note.as_deref() {
        Some("demo: panic") => panic!("cannot print a gift card for order {}", order.id),
        Some("demo: loop") => loop_for_ever(),
        Some("demo: hoard") => hoard_memory(),
        _ => Ok(()),
    }
}

fn no_answer(order: &Order) -> Error {
    Error::retry(format!("payment of order {}: gateway `{}` does not answer", order.id, order.payment))
}

/// The runtime stops it after `timeout`.
fn loop_for_ever() -> ! {
    let mut n = 0_u64;
    loop {
        n = black_box(n.wrapping_add(1));
    }
}

/// The runtime stops it at `memory`.
fn hoard_memory() -> ! {
    let mut hoard = Vec::new();
    loop {
        hoard.push(black_box(vec![1_u8; 64 * 1024]));
    }
}
