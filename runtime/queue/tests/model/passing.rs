//! What happens because time passes, and when the engine is opened again.

use gristmill_core::{EntryId, Outcome, OutcomeKind, QueueName, State, Timestamp};
use gristmill_queue::{Holder, Retention};

use super::pace::Pace;
use super::world::{Rank, World};

impl World {
    /// Everything that is due by the clocks.
    pub(crate) fn pass(&mut self) {
        let mut expired: Vec<_> = self
            .leased()
            .filter(|(_, lease)| lease.deadline <= self.monotonic)
            .map(|(i, l)| (l.deadline, l.token.delivery, i.id.clone()))
            .collect();
        expired.sort();
        for (_, _, id) in expired {
            self.conclude(&id, &Outcome::Expired, None);
        }
        let mut due: Vec<(Timestamp, u64, EntryId)> = Vec::new();
        for item in self.items.values() {
            if item.state == State::Scheduled && item.at <= self.wall {
                due.push((item.at, item.order, item.id.clone()));
            }
            due.extend(item.dies_at.filter(|(at, _)| *at <= self.wall).map(|(at, order)| (at, order, item.id.clone())));
        }
        due.sort();
        for (at, order, id) in due {
            let Some(item) = self.items.get_mut(&id) else { continue };
            if item.dies_at == Some((at, order)) {
                item.dies_at = None;
                let was_claimed = !item.history.attempts().is_empty() || item.redriven_at.is_some();
                if !was_claimed && matches!(item.state, State::Scheduled | State::Waiting | State::Ready) {
                    self.note(&id, OutcomeKind::TimeToLive);
                    self.end(&id, State::Dead);
                }
            } else if item.state == State::Scheduled && item.order == order {
                if item.holds {
                    self.make_ready(&id, Rank::Normal);
                } else {
                    self.admit(&id);
                }
            }
        }
        for origin in self.origins.values_mut() {
            origin.lapsed |= origin.expires_at <= self.wall;
        }
        for queue in self.queues.keys().cloned().collect::<Vec<_>>() {
            let options = self.queues[&queue].options.clone();
            for (state, retention) in
                [(State::Done, options.done), (State::Dead, options.dead), (State::Cancelled, options.cancelled)]
            {
                self.reap(&queue, state, retention);
            }
        }
    }

    fn reap(&mut self, queue: &QueueName, state: State, retention: Retention) {
        let kept = self.in_state(queue, state);
        let excess = kept.len().saturating_sub(retention.count.map_or(usize::MAX, |count| count as usize));
        let is_old = |at: Timestamp| retention.age.is_some_and(|age| self.wall.since(at) >= age);
        let gone = kept.into_iter().enumerate().take_while(|(index, item)| *index < excess || is_old(item.at));
        for id in gone.map(|(_, item)| item.id.clone()).collect::<Vec<_>>() {
            self.forget(&id);
        }
    }

    /// The engine was opened again. Leases of the process end: lost with it, or released if it goes on.
    pub(crate) fn reopened(&mut self, outcome: &Outcome) {
        if *outcome == Outcome::Lost {
            self.stale = 0;
        }
        self.buckets.reopened();
        for line in self.queues.values_mut() {
            // A rate is the process's own.
            line.pace = Pace::default();
        }
        let (wall, monotonic) = (self.wall, self.monotonic);
        let mut over = Vec::new();
        for item in self.items.values_mut() {
            let Some(lease) = &mut item.lease else { continue };
            match lease.holder {
                Holder::Process => over.push((lease.token.delivery, item.id.clone())),
                Holder::Outside => {
                    lease.deadline = monotonic.after(lease.wall_deadline.since(wall));
                    lease.conflicts = 0;
                }
            }
        }
        over.sort();
        for (_, id) in over {
            self.conclude(&id, outcome, None);
        }
    }
}
