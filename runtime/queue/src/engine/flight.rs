//! Deliveries in flight: who holds what, and until when.

use std::collections::{BTreeMap, BTreeSet};

use gristmill_core::{Monotonic, Timestamp};

use super::entry::EntryRecord;
use super::keys::{Family, QueueId, ReadyKey, number_key};
use super::records::Past;
use super::store::Tx;
use crate::contract::{Holder, LeaseToken};

/// One delivery in flight.
#[derive(Clone, Debug)]
pub(crate) struct Lease {
    /// Where its entry is, behind the cursor of its line.
    pub(crate) key: ReadyKey,
    pub(crate) record: EntryRecord,
    /// What had happened to the entry before; `None`: nothing, and it has no place.
    pub(crate) past: Option<Past>,
    pub(crate) attempt: u32,
    pub(crate) claimed_at: Timestamp,
    pub(crate) deadline: Monotonic,
    /// How many of its transactions found that something had changed.
    pub(crate) conflicts: u32,
}

impl Lease {
    pub(crate) const fn queue(&self) -> QueueId {
        self.key.line.queue
    }
}

/// The deliveries of one claim; the first has the number that the claim is known by, the others follow.
#[derive(Debug)]
pub(crate) struct ClaimState {
    pub(crate) incarnation: u64,
    pub(crate) holder: Holder,
    leases: Vec<Option<Lease>>,
    open: usize,
    /// No lease ends before this.
    watched: Monotonic,
}

/// All deliveries in flight.
#[derive(Debug, Default)]
pub(crate) struct Flight {
    claims: BTreeMap<u64, ClaimState>,
    deadlines: BTreeSet<(Monotonic, u64)>,
}

impl Flight {
    /// Adds the deliveries of a claim; `None` for one that is settled already.
    pub(crate) fn add(&mut self, first: u64, incarnation: u64, holder: Holder, leases: Vec<Option<Lease>>) {
        let open = leases.iter().flatten().count();
        let Some(watched) = leases.iter().flatten().map(|lease| lease.deadline).min() else { return };
        self.deadlines.insert((watched, first));
        self.claims.insert(first, ClaimState { incarnation, holder, leases, open, watched });
    }

    /// The lease with this token, if it is held.
    pub(crate) fn get(&self, token: LeaseToken) -> Option<&Lease> {
        let (first, claim) = self.claim(token.delivery)?;
        let lease = claim.leases.get(usize::try_from(token.delivery - first).ok()?)?.as_ref();
        lease.filter(|_| claim.incarnation == token.incarnation)
    }

    pub(crate) fn get_mut(&mut self, token: LeaseToken) -> Option<&mut Lease> {
        let (&first, claim) = self.claims.range_mut(..=token.delivery).next_back()?;
        let lease = claim.leases.get_mut(usize::try_from(token.delivery - first).ok()?)?.as_mut();
        lease.filter(|_| claim.incarnation == token.incarnation)
    }

    fn claim(&self, delivery: u64) -> Option<(u64, &ClaimState)> {
        self.claims.range(..=delivery).next_back().map(|(first, claim)| (*first, claim))
    }

    /// Who holds this delivery.
    pub(crate) fn holder(&self, delivery: u64) -> Option<Holder> {
        self.claim(delivery).map(|(_, claim)| claim.holder)
    }

    /// Makes a lease last until `deadline`.
    pub(crate) fn extend(&mut self, token: LeaseToken, deadline: Monotonic) {
        let Some(lease) = self.get_mut(token) else { return };
        lease.deadline = deadline;
        // A shorter one must be watched from now on; a longer one is found out when the old time comes.
        if let Some((&first, claim)) = self.claims.range_mut(..=token.delivery).next_back()
            && deadline < claim.watched
        {
            self.deadlines.remove(&(claim.watched, first));
            claim.watched = deadline;
            self.deadlines.insert((deadline, first));
        }
    }

    /// Takes a delivery out; its stored claim goes with the last one.
    pub(crate) fn remove(&mut self, tx: &mut Tx<'_>, delivery: u64) -> Option<Lease> {
        let (&first, claim) = self.claims.range_mut(..=delivery).next_back()?;
        let lease = claim.leases.get_mut(usize::try_from(delivery - first).ok()?)?.take()?;
        claim.open -= 1;
        if claim.open == 0 {
            let family = match claim.holder {
                Holder::Process => Family::Claim,
                Holder::Outside => Family::Lease,
            };
            tx.delete(family, number_key(first));
            self.deadlines.remove(&(claim.watched, first));
            self.claims.remove(&first);
        }
        Some(lease)
    }

    /// Up to `max` deliveries whose lease is over. They are found again until they are taken out.
    pub(crate) fn expired(&mut self, now: Monotonic, max: usize) -> Vec<u64> {
        let watched: Vec<_> = self.deadlines.iter().take_while(|(at, _)| *at <= now).take(max).copied().collect();
        let mut over = Vec::new();
        for (at, first) in watched {
            if over.len() >= max {
                break;
            }
            let Some(claim) = self.claims.get_mut(&first) else { continue };
            let held = || claim.leases.iter().flatten();
            if let Some(next) = held().map(|lease| lease.deadline).min().filter(|next| *next > now) {
                // They were extended.
                claim.watched = next;
                self.deadlines.remove(&(at, first));
                self.deadlines.insert((next, first));
                continue;
            }
            let numbered = (first..).zip(&claim.leases);
            let ended = numbered.filter(|(_, l)| l.as_ref().is_some_and(|l| l.deadline <= now));
            over.extend(ended.map(|(number, _)| number).take(max - over.len()));
        }
        over
    }

    /// When the next lease may end.
    pub(crate) fn next_deadline(&self) -> Option<Monotonic> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// Up to `max` deliveries that match, in the order of their numbers.
    pub(crate) fn select(&self, max: usize, mut wanted: impl FnMut(&ClaimState, &Lease) -> bool) -> Vec<u64> {
        let all = self.claims.iter().flat_map(|(first, claim)| {
            let numbered = (*first..).zip(&claim.leases);
            numbered.filter_map(move |(number, lease)| lease.as_ref().map(|lease| (number, claim, lease)))
        });
        all.filter(|(_, claim, lease)| wanted(claim, lease)).map(|(number, ..)| number).take(max).collect()
    }
}
