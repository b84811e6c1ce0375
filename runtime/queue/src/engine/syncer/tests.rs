//! The writer and the syncer sync the same store: nothing is forgotten, and nothing is done twice.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};

use super::*;
use crate::engine::keys::Family;
use crate::engine::store::{Snapshot, Space, View, Visit, Writes};

/// Nothing that must happen takes this long.
const PATIENCE: Duration = Duration::from_secs(60);

/// How a sync went.
type Synced = Result<(), QueueError>;
/// What somebody who waited is told, and up to where the disk was synced then.
type Told = (Synced, u64);

/// A store in which nothing but syncing happens.
#[derive(Default)]
struct Disk {
    committed: AtomicU64,
    synced: AtomicU64,
    syncs: Mutex<Vec<String>>,
    under_way: AtomicU64,
    /// Told of every sync that begins, and what it waits for.
    gate: Option<Mutex<(Sender<()>, Receiver<Synced>)>>,
}

/// The other side of a gate: syncs begin, and end when and how the test wants.
struct Gate {
    begun: Receiver<()>,
    end: Sender<Synced>,
}

impl Disk {
    fn with_gate() -> (Arc<Self>, Gate) {
        let ((begins, begun), (end, ends)) = (channel(), channel());
        let gate = Some(Mutex::new((begins, ends)));
        (Arc::new(Self { gate, ..Self::default() }), Gate { begun, end })
    }

    /// One more commit; the number that a sync must have reached to cover it.
    fn commits(&self) -> u64 {
        self.committed.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// The threads that synced, in order.
    fn syncs(&self) -> Vec<String> {
        self.syncs.lock().unwrap().clone()
    }
}

impl Store for Disk {
    fn sync(&self) -> Result<(), QueueError> {
        assert_eq!(self.under_way.fetch_add(1, Ordering::SeqCst), 0, "two syncs at once");
        let covered = self.committed.load(Ordering::SeqCst);
        self.syncs.lock().unwrap().push(std::thread::current().name().unwrap_or_default().to_owned());
        let result = match &self.gate {
            Some(gate) => {
                let gate = gate.lock().unwrap();
                gate.0.send(()).unwrap();
                gate.1.recv_timeout(PATIENCE).unwrap()
            }
            None => Ok(()),
        };
        if result.is_ok() {
            self.synced.fetch_max(covered, Ordering::SeqCst);
        }
        self.under_way.fetch_sub(1, Ordering::SeqCst);
        result
    }

    fn current(&self) -> &dyn View {
        self
    }

    fn snapshot(&self) -> Result<Snapshot, QueueError> {
        Err(QueueError::Closed)
    }

    fn commit(&self, _: Writes) -> Result<(), QueueError> {
        Ok(())
    }

    fn persist(&self) -> Result<(), QueueError> {
        Ok(())
    }

    fn space(&self) -> Option<Space> {
        None
    }

    fn expire_origins(&self, _: gristmill_core::Timestamp) {}

    fn reclaim(&self) -> Result<bool, QueueError> {
        Ok(true)
    }

    fn backup(&self, _: &std::path::Path) -> Result<(), QueueError> {
        Ok(())
    }
}

impl View for Disk {
    fn get(&self, _: Family, _: &[u8]) -> Result<Option<bytes::Bytes>, QueueError> {
        Ok(None)
    }

    fn scan(&self, _: Family, _: &[u8], _: &[u8], _: &mut Visit<'_>) -> Result<(), QueueError> {
        Ok(())
    }
}

fn start(disk: &Arc<Disk>) -> Syncer {
    Syncer::start(disk.clone(), Arc::default()).unwrap()
}

/// Somebody who waits for a sync, and what they are told.
fn waiter(disk: &Arc<Disk>) -> (Vec<Release>, Receiver<Told>) {
    let (told, hears) = channel();
    let disk = disk.clone();
    let release: Release = Box::new(move |result| {
        let _ = told.send((result, disk.synced.load(Ordering::SeqCst)));
    });
    (vec![release], hears)
}

/// The syncer waits a while before it syncs what nobody waits for. A sync of the writer's own meanwhile covers that.
#[test]
fn what_the_writer_has_synced_is_not_synced_again() {
    let me = std::thread::current().name().unwrap_or_default().to_owned();
    // The syncer's thread is somewhere else each time: before its wait, at it, in it.
    for pause in 0..200_u32 {
        let disk = Arc::new(Disk::default());
        let syncer = start(&disk);
        disk.commits();
        syncer.committed(Vec::new());
        (0..pause * 10).for_each(|_| std::thread::yield_now());
        let number = disk.commits();
        let (release, hears) = waiter(&disk);
        syncer.sync_now(&*disk, release);
        let (result, synced) = hears.recv_timeout(PATIENCE).unwrap();
        assert!(result.is_ok() && synced >= number, "{result:?}, {synced}");
        assert!(hears.recv().is_err(), "told once");
        syncer.finish().unwrap();
        let syncs = disk.syncs();
        // On a busy machine the wait may be over before the writer comes to sync.
        if syncs.first() == Some(&me) {
            assert_eq!(syncs.len(), 1, "pause {pause}: {syncs:?}");
        }
    }
}

/// What is committed while the writer syncs is the syncer's, and it has to wait for its turn.
#[test]
fn syncs_come_one_after_the_other() {
    let (disk, gate) = Disk::with_gate();
    let syncer = start(&disk);
    disk.commits();
    // From now on the syncer waits for somebody to wait, or for a while.
    syncer.committed(Vec::new());
    let (first, hears_first) = waiter(&disk);
    let (second, hears_second) = waiter(&disk);
    std::thread::scope(|scope| {
        scope.spawn(|| syncer.sync_now(&*disk, first));
        gate.begun.recv_timeout(PATIENCE).unwrap();
        let number = disk.commits();
        syncer.committed(second);
        // Longer than the syncer waits at most. `sync` itself fails if two are under way.
        let another = gate.begun.recv_timeout(LAZY * 3);
        assert!(another.is_err() && hears_second.try_recv().is_err(), "before the first sync has ended");
        gate.end.send(Ok(())).unwrap();
        assert!(hears_first.recv_timeout(PATIENCE).unwrap().0.is_ok());
        gate.begun.recv_timeout(PATIENCE).expect("the second sync begins");
        assert!(hears_second.try_recv().is_err(), "before its sync has ended");
        gate.end.send(Ok(())).unwrap();
        let (result, synced) = hears_second.recv_timeout(PATIENCE).unwrap();
        assert!(result.is_ok() && synced >= number);
    });
    syncer.finish().unwrap();
    assert_eq!(disk.syncs().len(), 2);
}

/// Whatever the writer does in whatever order, and wherever the syncer is: each is told once, by a sync that covers it.
#[test]
fn everybody_is_told_by_a_sync_that_covers_them() {
    for round in 0..300_u32 {
        let disk = Arc::new(Disk::default());
        let syncer = start(&disk);
        let mut waiting = Vec::new();
        let mut choice = round.wrapping_mul(2_654_435_761);
        for _ in 0..12 {
            choice = choice.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let number = disk.commits();
            match choice >> 29 {
                0 | 1 => syncer.committed(Vec::new()),
                2..=4 => {
                    let (release, hears) = waiter(&disk);
                    syncer.committed(release);
                    waiting.push((number, hears));
                }
                _ => {
                    let (release, hears) = waiter(&disk);
                    syncer.sync_now(&*disk, release);
                    waiting.push((number, hears));
                }
            }
            (0..(choice >> 20) % 64).for_each(|_| std::thread::yield_now());
        }
        for (number, hears) in waiting {
            let (result, synced) = hears.recv_timeout(PATIENCE).expect("nobody is forgotten");
            assert!(result.is_ok() && synced >= number, "round {round}: {number} was told at {synced}");
            assert!(hears.recv_timeout(PATIENCE).is_err(), "told once");
        }
        syncer.finish().unwrap();
        assert_eq!(disk.synced.load(Ordering::SeqCst), disk.committed.load(Ordering::SeqCst), "round {round}");
        assert!(disk.syncs().len() <= 12, "no more syncs than commits");
    }
}

/// What nobody waits for is made durable all the same.
#[test]
fn a_commit_is_synced_though_nobody_waits() {
    let (disk, gate) = Disk::with_gate();
    let syncer = start(&disk);
    for _ in 0..3 {
        let number = disk.commits();
        syncer.committed(Vec::new());
        gate.begun.recv_timeout(PATIENCE).expect("it is synced");
        gate.end.send(Ok(())).unwrap();
        // It is the syncer's to say that it is done: a sync that follows comes after it.
        let (release, hears) = waiter(&disk);
        syncer.committed(release);
        gate.begun.recv_timeout(PATIENCE).unwrap();
        assert!(disk.synced.load(Ordering::SeqCst) >= number);
        gate.end.send(Ok(())).unwrap();
        assert!(hears.recv_timeout(PATIENCE).unwrap().0.is_ok());
    }
    syncer.finish().unwrap();
}

/// After a sync has failed, none that follows proves anything: whoever waits is refused, and nothing is tried.
#[test]
fn a_sync_that_failed_fails_all_that_follow() {
    for by_writer in [true, false] {
        let (disk, gate) = Disk::with_gate();
        let syncer = start(&disk);
        let broken = QueueError::Unavailable("broken".to_owned());
        gate.end.send(Err(broken.clone())).unwrap();
        for _ in 0..2 {
            disk.commits();
            let (release, hears) = waiter(&disk);
            if by_writer {
                syncer.sync_now(&*disk, release)
            } else {
                syncer.committed(release)
            }
            assert_eq!(hears.recv_timeout(PATIENCE).unwrap().0, Err(broken.clone()));
        }
        assert_eq!((syncer.failure(), disk.syncs().len()), (Some(broken.clone()), 1));
        assert_eq!(syncer.finish(), Err(broken));
        assert_eq!(disk.syncs().len(), 1);
    }
}

/// Who waited for an earlier commit is told first, whoever syncs.
#[test]
fn answers_come_in_the_order_of_the_commits() {
    let disk = Arc::new(Disk::default());
    let syncer = start(&disk);
    let ((told, order), (begun, begins), (go, wait)) = (channel(), channel(), channel());
    let second: Release = Box::new({
        let told = told.clone();
        move |_| told.send(2).unwrap()
    });
    // The syncer's thread is held up on its way to the answer.
    let first: Release = Box::new(move |_| {
        begun.send(()).unwrap();
        wait.recv_timeout(PATIENCE).unwrap();
        told.send(1).unwrap();
    });
    disk.commits();
    syncer.committed(vec![first]);
    begins.recv_timeout(PATIENCE).unwrap();
    disk.commits();
    std::thread::scope(|scope| {
        scope.spawn(|| syncer.sync_now(&*disk, vec![second]));
        let early = order.recv_timeout(LAZY);
        go.send(()).unwrap();
        assert!(early.is_err(), "the second is told before the first");
    });
    assert_eq!([order.recv_timeout(PATIENCE), order.recv_timeout(PATIENCE)], [Ok(1), Ok(2)]);
}
