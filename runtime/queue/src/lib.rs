//! A durable event queue with leases, retries and dead letters.
//!
//! [`Queue`] is the contract; its documentation holds the guarantees. Two engines keep it: [`RocksDb`], embedded and
//! durable, and [`Memory`], the same transitions without a store. [`conformance`] is the suite that both pass, open to
//! other engines.
//!
//! ```
//! use gristmill_core::{Event, Outcome, QueueName};
//! use gristmill_queue::{Claim, Confirm, EngineOptions, Memory, Publish, Queue, QueueOptions, Settle};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // RocksDb::open(path, options) for one that survives.
//! let queue = Memory::default().open(EngineOptions::default())?;
//! let orders = QueueName::new("orders")?;
//! queue.configure(orders.clone(), QueueOptions::default()).await?;
//!
//! let event = Event::new("1", "/shop", "com.acme.order.paid");
//! queue.publish(vec![Publish::new(event, [orders.clone()])]).await?;
//!
//! for delivery in queue.claim(Claim::new(orders, 10)).await? {
//!     println!("attempt {} at {}", delivery.attempt, delivery.event.ty);
//!     let done = Settle::new(delivery.lease, Outcome::Ack { result: None });
//!     queue.settle(vec![done], Confirm::Committed).await?;
//! }
//! assert_eq!(queue.stats().await?[0].done, 1);
//! # Ok(())
//! # }
//! ```

pub mod conformance;
mod contract;
mod engine;

pub use contract::*;
pub use engine::{DeadHook, Engine, EngineOptions, Fault, Memory, OnLoss, RocksDb};
