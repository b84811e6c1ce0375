//! A commit in the making: its writes, and the answers that wait for it.

use super::Now;
use super::claim::Claimed;
use super::command::Answer;
use super::store::Tx;
use super::syncer::Release;
use crate::contract::{LeaseToken, QueueError};

/// An answer that is sent once the commit has happened. Returns leases that nobody received.
pub(crate) type Committed = Box<dyn FnOnce(Result<(), QueueError>) -> Vec<LeaseToken> + Send>;

/// What a commit in the making has gathered.
pub(crate) struct Batch<'a> {
    pub(crate) tx: Tx<'a>,
    pub(crate) now: Now,
    pub(crate) on_commit: Vec<Committed>,
    pub(crate) on_sync: Vec<Release>,
}

impl<'a> Batch<'a> {
    pub(crate) fn new(tx: Tx<'a>, now: Now) -> Self {
        Self { tx, now, on_commit: Vec::new(), on_sync: Vec::new() }
    }

    pub(crate) fn answer_on_commit<T: Send + 'static>(&mut self, to: Answer<T>, result: Result<T, QueueError>) {
        self.on_commit.push(Box::new(move |committed| {
            // Nobody listens any more: nothing is lost by not answering.
            let _ = to.send(committed.and(result));
            Vec::new()
        }));
    }

    pub(crate) fn answer_on_sync<T: Send + 'static>(&mut self, to: Answer<T>, result: Result<T, QueueError>) {
        self.on_sync.push(Box::new(move |synced| {
            let _ = to.send(synced.and(result));
        }));
    }

    pub(crate) fn grant(&mut self, to: Answer<Vec<Claimed>>, claimed: Vec<Claimed>) {
        self.on_commit.push(Box::new(move |committed| match to.send(committed.map(|()| claimed)) {
            Ok(()) | Err(Err(_)) => Vec::new(),
            Err(Ok(unheard)) => unheard.into_iter().map(|claimed| claimed.lease).collect(),
        }));
    }
}
