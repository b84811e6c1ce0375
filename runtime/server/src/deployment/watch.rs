//! Notices that files have changed: when whoever writes them is done, and not while they still write.
//!
//! A folder is watched rather than a file: most editors, and whoever deploys with care, write another file and rename it
//! into place. What the operating system does not tell (folders on other machines, a burst that it could not keep) is
//! found by looking every few seconds.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use notify::event::{AccessKind, AccessMode, ModifyKind};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::Notify;
use tracing::warn;

/// A file that was written is complete when nobody has touched it for so long.
pub(super) const QUIET: Duration = Duration::from_millis(50);
/// A file that somebody keeps open for writing counts as complete when nobody has touched it for so long.
const ABANDONED: Duration = Duration::from_secs(10);
/// How often somebody looks although nothing was told.
const LOOK: Duration = Duration::from_secs(5);

/// Watches folders until it is dropped.
pub struct Watch {
    seen: Arc<Seen>,
    _watcher: Option<RecommendedWatcher>,
}

/// What was told.
#[derive(Default)]
struct Seen {
    touched: Mutex<BTreeMap<PathBuf, Touch>>,
    told: Notify,
}

/// A file that was touched.
#[derive(Clone, Copy, Debug)]
struct Touch {
    at: Instant,
    /// Whether it was written to and not closed since.
    is_open: bool,
}

impl Watch {
    /// Watches what is directly in these folders, as far as `interests` says so. Where the operating system cannot, it is
    /// looked at now and then.
    pub fn start<'a>(
        folders: impl IntoIterator<Item = &'a Path>,
        interests: impl Fn(&Path) -> bool + Send + 'static,
    ) -> Self {
        let seen = Arc::<Seen>::default();
        let watcher = notify::recommended_watcher({
            let seen = seen.clone();
            move |event: notify::Result<Event>| match event {
                Ok(event) => seen.note(&event, &interests, Instant::now()),
                // It is found by looking.
                Err(error) => warn!(%error, "changes of files may be noticed late"),
            }
        });
        let watched = watcher.and_then(|mut watcher| {
            for folder in folders {
                watcher.watch(folder, RecursiveMode::NonRecursive)?;
            }
            Ok(watcher)
        });
        let watched = watched.inspect_err(|error| {
            warn!(%error, "changes of files are not told by the operating system: they are looked for every few seconds");
        });
        Self { seen, _watcher: watched.ok() }
    }

    /// Whether somebody has written to this file, and not closed it since.
    #[must_use]
    pub fn is_being_written(&self, path: &Path) -> bool {
        self.seen.lock().get(path).is_some_and(|touch| touch.is_open && touch.at.elapsed() < ABANDONED)
    }

    /// Waits until something may have changed, and is complete.
    pub async fn changed(&self) {
        let look = tokio::time::sleep(LOOK);
        tokio::pin!(look);
        loop {
            let next = self.seen.next(Instant::now());
            let wait = match next {
                Some(Duration::ZERO) => return,
                Some(wait) => wait,
                None => LOOK,
            };
            tokio::select! {
                () = self.seen.told.notified() => {}
                () = tokio::time::sleep(wait) => {}
                // Not while something is being written.
                () = &mut look, if next.is_none() => return,
            }
        }
    }
}

impl Seen {
    fn note(&self, event: &Event, interests: &impl Fn(&Path) -> bool, now: Instant) {
        let is_open = match event.kind {
            EventKind::Access(AccessKind::Close(AccessMode::Write)) => Some(false),
            EventKind::Access(_) | EventKind::Modify(ModifyKind::Metadata(_)) => return,
            EventKind::Modify(ModifyKind::Data(_)) => Some(cfg!(target_os = "linux")),
            EventKind::Modify(ModifyKind::Name(_)) | EventKind::Remove(_) => Some(false),
            _ => None,
        };
        let mut touched = self.lock();
        for path in event.paths.iter().filter(|path| interests(path)) {
            let known = touched.get(path).is_some_and(|touch| touch.is_open);
            touched.insert(path.clone(), Touch { at: now, is_open: is_open.unwrap_or(known) });
        }
        if event.need_rescan() {
            touched.insert(PathBuf::new(), Touch { at: now, is_open: false });
        }
        drop(touched);
        self.told.notify_one();
    }

    /// How long until something is complete; zero: it is, and forgotten. `None`: nothing was touched.
    fn next(&self, now: Instant) -> Option<Duration> {
        let mut touched = self.lock();
        let left = |touch: &Touch| {
            let needed = if touch.is_open { ABANDONED } else { QUIET };
            needed.saturating_sub(now.duration_since(touch.at))
        };
        let next = touched.values().map(left).min()?;
        if next.is_zero() {
            touched.retain(|_, touch| !left(touch).is_zero());
        }
        Some(next)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<PathBuf, Touch>> {
        self.touched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use notify::event::{CreateKind, DataChange};

    use super::*;

    const WRITE: EventKind = EventKind::Modify(ModifyKind::Data(DataChange::Any));
    const CLOSE: EventKind = EventKind::Access(AccessKind::Close(AccessMode::Write));
    const MILLI: Duration = Duration::from_millis(1);

    fn told(seen: &Seen, kind: EventKind, path: &str, at: Instant) {
        seen.note(&Event::new(kind).add_path(path.into()), &|path: &Path| path != Path::new("other"), at);
    }

    #[test]
    fn a_file_is_complete_when_it_is_closed_and_quiet() {
        let (seen, start) = (Seen::default(), Instant::now());
        assert_eq!(seen.next(start), None);
        told(&seen, EventKind::Create(CreateKind::File), "a", start);
        told(&seen, WRITE, "a", start);
        told(&seen, CLOSE, "other", start);
        assert_eq!(seen.next(start + QUIET), Some(ABANDONED - QUIET), "it is still open");
        told(&seen, CLOSE, "a", start + QUIET);
        assert_eq!(seen.next(start + QUIET + MILLI), Some(QUIET - MILLI));
        told(&seen, EventKind::Access(AccessKind::Read), "a", start + QUIET + MILLI);
        assert_eq!(seen.next(start + 2 * QUIET), Some(Duration::ZERO), "to read it is not to touch it");
        assert_eq!(seen.next(start + 2 * QUIET), None, "it was told");
    }

    #[test]
    fn a_file_that_stays_open_does_not_hold_up_others() {
        let (seen, start) = (Seen::default(), Instant::now());
        told(&seen, WRITE, "a", start);
        told(&seen, CLOSE, "b", start);
        assert_eq!(seen.next(start + QUIET), Some(Duration::ZERO));
        assert_eq!(seen.next(start + QUIET), Some(ABANDONED - QUIET));
        assert_eq!(seen.next(start + ABANDONED), Some(Duration::ZERO));
    }
}
