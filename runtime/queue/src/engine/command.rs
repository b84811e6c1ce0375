//! What can be asked of the writer, and how it is answered.

use std::time::Duration;

use gristmill_core::{EntryId, QueueName, State as EntryState};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::claim::{self, Claimed};
use super::publish::{Prepared, Stored};
use super::settle::PreparedSettle;
use crate::contract::{
    Confirm, Extend, ExtendReply, LeaseToken, Operated, Operation, PublishError, QueueError, QueueOptions, SettleReply,
    Transacted, Transaction,
};

/// Where an answer goes.
pub(crate) type Answer<T> = oneshot::Sender<Result<T, QueueError>>;

/// What can be asked of the writer.
pub(crate) enum Command {
    Configure(QueueName, Box<QueueOptions>, Answer<()>),
    Publish(Vec<Result<Prepared, PublishError>>, Answer<Vec<Result<Stored, PublishError>>>),
    Claim(ClaimCommand, Answer<Vec<Claimed>>),
    Settle(Vec<PreparedSettle>, Confirm, Answer<Vec<SettleReply>>),
    Extend(Vec<Extend>, Answer<Vec<ExtendReply>>),
    Wait(EntryId, Duration, Answer<WaitReply>),
    Operate(Box<Operation>, Answer<Operated>),
    Transact(Transaction, Answer<Transacted>),
    /// Leases that were granted to somebody who is gone.
    GiveBack(Vec<LeaseToken>),
    /// Looks at the clocks. For tests that move them.
    Tick(Answer<()>),
    Close(Answer<()>),
}

/// How a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WaitReply {
    /// The entry has ended, or gone.
    Ended,
    /// The time is over.
    Pending(EntryState),
    Unknown,
}

/// A claim, as the writer wants it.
pub(crate) struct ClaimCommand {
    pub(crate) queue: QueueName,
    pub(crate) request: claim::Request,
    pub(crate) wait: Duration,
}

/// A command and its place in the bounded channel.
pub(crate) struct Envelope {
    pub(crate) command: Command,
    pub(crate) permit: Option<OwnedSemaphorePermit>,
}

/// Answers a command that cannot be done. A close is remembered: it can be done in any case.
pub(crate) fn refuse(command: Command, error: &QueueError, closing: &mut Option<Answer<()>>) {
    let error = error.clone();
    match command {
        Command::Configure(_, _, answer) | Command::Tick(answer) => drop(answer.send(Err(error))),
        Command::Publish(_, answer) => drop(answer.send(Err(error))),
        Command::Claim(_, answer) => drop(answer.send(Err(error))),
        Command::Settle(_, _, answer) => drop(answer.send(Err(error))),
        Command::Extend(_, answer) => drop(answer.send(Err(error))),
        Command::Wait(_, _, answer) => drop(answer.send(Err(error))),
        Command::Operate(_, answer) => drop(answer.send(Err(error))),
        Command::Transact(_, answer) => drop(answer.send(Err(error))),
        Command::GiveBack(_) => {}
        Command::Close(answer) => *closing = Some(answer),
    }
}
