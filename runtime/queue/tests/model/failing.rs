//! The store fails under a command, and the engine opens it again.

use std::time::{Duration, Instant};

use gristmill_core::{EntryId, Outcome, QueueName};
use gristmill_queue::{
    Act, Action, Claim, Confirm, Fault, Holder, Operation, PauseIf, Publish, Queue, QueueError, Selection, Settle,
    SettleReply,
};
use rand::RngExt;

use super::choices::{self, one};
use super::operations::applies;
use super::publishing::{Admission, Decision};
use super::run::{Place, Run, name_of};

/// How long an engine may take to open its store again.
const PATIENCE: Duration = Duration::from_secs(20);

/// A bucket that nobody else uses.
const ASIDE: &str = "aside";

/// The command that fails.
enum Failing {
    Publish(Publish),
    Claim(Claim),
    Settle(EntryId, Settle, Confirm),
    Act(EntryId, Action),
    Pause(QueueName),
    Configure(QueueName),
}

impl Run {
    /// A failed commit has changed nothing; what was committed before a failed sync stays. Neither is reported as a
    /// success, if the answer promises that it is durable.
    pub(crate) async fn fail(&mut self) {
        let Place::Memory(memory) = &self.place else { return self.reopen().await };
        let memory = memory.clone();
        let fault = one(&mut self.random, &[Fault::Commit, Fault::Sync]);
        let failing = self.something().await;
        // What was committed before is synced, so that it is this command's sync that fails.
        self.transact_set(ASIDE).await;
        memory.fail_next(fault);
        self.note(format!("its {fault:?} fails"));
        match failing {
            Failing::Publish(publish) => self.fail_publish(publish, fault).await,
            Failing::Claim(claim) => self.fail_claim(claim, fault).await,
            Failing::Settle(id, settle, confirm) => self.fail_settle(&id, settle, confirm, fault).await,
            Failing::Act(id, action) => {
                let act = Act { action: action.clone(), on: Selection::Entries(vec![id.clone()]), rate: None };
                unavailable(self.engine().operate(Operation::Act(act)).await);
                if fault == Fault::Sync {
                    self.world.act(&action, &id);
                }
            }
            Failing::Pause(queue) => {
                let reason = "it fails".to_owned();
                let only_if = PauseIf::Any;
                let operation = Operation::Pause { queue: queue.clone(), reason: reason.clone(), only_if };
                unavailable(self.engine().operate(operation).await);
                if fault == Fault::Sync {
                    self.world.line(&queue).paused = Some(reason);
                }
            }
            Failing::Configure(queue) => {
                let options = self.world.queues[&queue].options.clone();
                let options = choices::changed(&mut self.random, options);
                unavailable(self.engine().configure(queue.clone(), options.clone()).await);
                if fault == Fault::Sync {
                    self.world.configure(&queue, options);
                }
            }
        }
        self.recover().await;
    }

    /// A command that writes something.
    async fn something(&mut self) -> Failing {
        let queue = QueueName::new("alpha").unwrap();
        if !self.world.queues.contains_key(&queue) {
            self.configure(&queue).await;
        }
        match self.random.random_range(0..12) {
            0..2 if !self.world.claimable(&Claim::new(queue.clone(), 1)).is_empty() => {
                let mut claim = Claim::new(queue, one(&mut self.random, &[1, 3]));
                claim.holder = one(&mut self.random, &[Holder::Process, Holder::Outside]);
                self.note(format!("{claim:?}"));
                return Failing::Claim(claim);
            }
            2..6 => {
                let held: Vec<_> = self.world.leased().map(|(item, lease)| (item.id.clone(), lease.token)).collect();
                if !held.is_empty() {
                    let (id, token) = one(&mut self.random, &held);
                    let settle = Settle::new(token, choices::outcome(&mut self.random));
                    let confirm = one(&mut self.random, &[Confirm::Committed, Confirm::Durable]);
                    self.note(format!("{settle:?} {confirm:?}"));
                    return Failing::Settle(id, settle, confirm);
                }
            }
            6..9 => {
                let action = one(&mut self.random, &[Action::Cancel, Action::Purge, Action::Redrive]);
                let fitting = self.world.items.values().filter(|item| applies(&action, item));
                let fitting: Vec<_> = fitting.map(|item| item.id.clone()).collect();
                if !fitting.is_empty() {
                    let id = one(&mut self.random, &fitting);
                    self.note(format!("{action:?} {id}"));
                    return Failing::Act(id, action);
                }
            }
            9 => {
                self.note(format!("pause {queue}"));
                return Failing::Pause(queue);
            }
            10 => {
                self.note(format!("configure {queue}"));
                return Failing::Configure(queue);
            }
            _ => {}
        }
        let publish = choices::fresh(self, [queue]);
        self.note(format!("publish {}", choices::brief(&publish)));
        Failing::Publish(publish)
    }

    async fn fail_publish(&mut self, publish: Publish, fault: Fault) {
        let enters = matches!(self.world.decide(&publish, Admission::Published), Decision::Enter(_));
        let reply = self.engine().publish(vec![publish.clone()]).await;
        if enters || reply.is_err() {
            unavailable(reply);
        }
        if fault == Fault::Sync && enters {
            self.await_reopening().await;
            let (source, id) = name_of(&publish.event);
            let found = self.engine().find(source, id).await.unwrap();
            assert_eq!(found.len(), 1, "what was committed before a failed sync stays");
            self.entered(&publish, found.into_iter().map(|entry| (entry.queue, entry.id)).collect());
        }
    }

    async fn fail_claim(&mut self, claim: Claim, fault: Fault) {
        let expected = self.world.claimable(&claim);
        let reply = self.engine().claim(claim.clone()).await;
        match fault {
            Fault::Commit => unavailable(reply),
            Fault::Sync => {
                // A claim does not wait for the sync.
                let claimed = reply.unwrap();
                assert_eq!(claimed.iter().map(|delivery| delivery.entry.clone()).collect::<Vec<_>>(), expected);
                for delivery in claimed {
                    self.claimed(&claim, delivery);
                }
            }
        }
    }

    async fn fail_settle(&mut self, id: &EntryId, settle: Settle, confirm: Confirm, fault: Fault) {
        let outcome = settle.outcome.clone();
        let reply = self.engine().settle(vec![settle], confirm).await;
        match (fault, confirm) {
            (Fault::Commit, _) => unavailable(reply),
            (Fault::Sync, Confirm::Durable) => {
                unavailable(reply);
                self.world.conclude(id, &outcome, None);
            }
            (Fault::Sync, Confirm::Committed) => {
                let disposition = self.world.conclude(id, &outcome, None);
                assert_eq!(reply, Ok(vec![SettleReply::Settled(disposition)]));
            }
        }
    }

    /// The store is open again; leases of the process are released.
    async fn recover(&mut self) {
        // If nothing has noticed the failure yet, this does.
        let snapshots = std::mem::take(&mut self.snapshots);
        let failing = choices::set(ASIDE, "failing", "1");
        let reply = self.engine().transact(failing.clone()).await;
        self.await_reopening().await;
        drop(snapshots);
        let seen = self.engine().snapshot().await.unwrap().get(ASIDE, "failing").unwrap().is_some();
        assert!(seen || reply.is_err(), "it was answered that this is durable");
        if seen {
            self.world.buckets.apply(&failing);
        }
        self.world.reopened(&Outcome::Released);
        self.tick().await;
    }

    async fn await_reopening(&self) {
        let deadline = Instant::now() + PATIENCE;
        while self.engine().tick().await.is_err() {
            assert!(Instant::now() < deadline, "the engine does not open its store again");
            tokio::task::yield_now().await;
        }
    }
}

fn unavailable<T: std::fmt::Debug>(reply: Result<T, QueueError>) {
    assert!(matches!(reply, Err(QueueError::Unavailable(_))), "{reply:?}");
}
