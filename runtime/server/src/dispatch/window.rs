//! What is claimed and not begun: as much as begins within [`AT_ONCE`].
//!
//! A crash counts against everything that was claimed, and what is claimed has left the queue's order; so a handler claims
//! what it can start at once. "At once" is about as long as asking the queue takes when all processors are busy: calls
//! that take 20 µs begin by the hundred in that time, and would have to wait for the answer. A handler whose calls take
//! longer claims for its free slots alone. Should calls suddenly take longer, what is not begun after [`PATIENCE`] goes
//! back to the queue.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, Semaphore};

/// What begins within this begins at once: the time of four slices.
const AT_ONCE: Duration = Duration::from_millis(4);
/// How long something may be claimed and not begun. The shortest lease leaves a second for it.
pub(super) const PATIENCE: Duration = Duration::from_millis(250);
/// The most deliveries that are claimed ahead.
const MAX_AHEAD: usize = 256;
/// A call is one in so many of what is known of how long they take.
const MEMORY: u32 = 8;

/// Calls on their way from the claim to whoever runs them.
#[derive(Debug)]
pub(super) struct Window<T> {
    /// How many run at once.
    concurrency: usize,
    /// How many of those there are threads for.
    parallel: usize,
    /// The most calls that are claimed ahead.
    max_ahead: usize,
    inner: Mutex<Inner<T>>,
    /// At least as many permits as calls wait.
    waiting: Semaphore,
    /// There is room again.
    room: Notify,
}

#[derive(Debug)]
struct Inner<T> {
    waiting: VecDeque<(Instant, T)>,
    running: usize,
    /// How long calls take. `None`: not known yet.
    duration: Option<Duration>,
}

/// A call that runs until this is dropped.
pub(super) struct Running<'a, T> {
    window: &'a Window<T>,
    since: Instant,
}

impl<T> Window<T> {
    /// For `concurrency` calls at once, on `threads`, each of up to `size` deliveries.
    pub(super) fn new(concurrency: usize, threads: usize, size: usize) -> Self {
        let inner = Inner { waiting: VecDeque::new(), running: 0, duration: None };
        Self {
            concurrency,
            parallel: concurrency.min(threads),
            max_ahead: MAX_AHEAD / size.max(1),
            inner: Mutex::new(inner),
            waiting: Semaphore::new(0),
            room: Notify::new(),
        }
    }

    /// Waits until something may be claimed; how many calls.
    pub(super) async fn room(&self) -> usize {
        loop {
            let room = self.room_in(&self.lock());
            if room > 0 {
                return room;
            }
            self.room.notified().await;
        }
    }

    /// Adds what was claimed. How many calls there are by now that wait or run, of those that may run at once.
    pub(super) fn put(&self, calls: impl IntoIterator<Item = T>) -> usize {
        let now = Instant::now();
        let mut inner = self.lock();
        let before = inner.waiting.len();
        inner.waiting.extend(calls.into_iter().map(|call| (now, call)));
        let (added, all) = (inner.waiting.len() - before, inner.waiting.len() + inner.running);
        drop(inner);
        self.waiting.add_permits(added);
        all.min(self.concurrency)
    }

    /// The next call. `None`: there will be no more.
    pub(super) async fn take(&self) -> Option<(T, Running<'_, T>)> {
        loop {
            self.waiting.acquire().await.ok()?.forget();
            // What was not begun for too long has gone without its permit.
            if let Some(taken) = self.begin() {
                return Some(taken);
            }
        }
    }

    /// The next call, if one waits.
    pub(super) fn try_take(&self) -> Option<(T, Running<'_, T>)> {
        self.waiting.try_acquire().ok()?.forget();
        self.begin()
    }

    fn begin(&self) -> Option<(T, Running<'_, T>)> {
        let mut inner = self.lock();
        let (_, call) = inner.waiting.pop_front()?;
        inner.running += 1;
        drop(inner);
        Some((call, Running { window: self, since: Instant::now() }))
    }

    /// What has waited for so long that it should go back. Nothing is claimed ahead from then on, until calls are quick again.
    pub(super) fn overdue(&self) -> Vec<T> {
        let mut inner = self.lock();
        let now = Instant::now();
        let is_overdue = |(since, _): &(Instant, T)| now.duration_since(*since) >= PATIENCE;
        let (overdue, others): (VecDeque<_>, _) = std::mem::take(&mut inner.waiting).into_iter().partition(is_overdue);
        inner.waiting = others;
        if !overdue.is_empty() {
            inner.duration = inner.duration.max(Some(PATIENCE));
            self.room.notify_one();
        }
        overdue.into_iter().map(|(_, call)| call).collect()
    }

    /// All that waits.
    pub(super) fn take_all(&self) -> Vec<T> {
        self.lock().waiting.drain(..).map(|(_, call)| call).collect()
    }

    /// Nothing will be put into it any more.
    pub(super) fn close(&self) {
        self.waiting.close();
    }

    /// A call that took so long.
    fn ended(&self, took: Duration) {
        let mut inner = self.lock();
        inner.running = inner.running.saturating_sub(1);
        inner.duration = Some(match inner.duration {
            None => took,
            Some(known) => (known * (MEMORY - 1) + took) / MEMORY,
        });
        let has_room = self.room_in(&inner) > 0;
        drop(inner);
        if has_room {
            self.room.notify_one();
        }
    }

    fn room_in(&self, inner: &Inner<T>) -> usize {
        let ahead = inner.duration.map_or(0, |duration| self.ahead(duration));
        let there = inner.waiting.len() + inner.running;
        let room = (self.concurrency + ahead).saturating_sub(there);
        // Half of it at a time, unless somebody has nothing to do.
        if there < self.concurrency || room >= ahead.div_ceil(2) { room } else { 0 }
    }

    /// How many calls begin at once, beyond those that run.
    fn ahead(&self, duration: Duration) -> usize {
        let on_each = AT_ONCE.as_nanos() / duration.as_nanos().max(1);
        usize::try_from(on_each).unwrap_or(MAX_AHEAD).saturating_mul(self.parallel).min(self.max_ahead)
    }

    fn lock(&self) -> MutexGuard<'_, Inner<T>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Drop for Running<'_, T> {
    fn drop(&mut self) {
        self.window.ended(self.since.elapsed());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUICK: Duration = Duration::from_micros(400);
    const SLOW: Duration = Duration::from_millis(5);

    /// A window of four calls on two threads, which take so long.
    fn window(duration: Duration) -> Window<usize> {
        let window = Window::new(4, 2, 1);
        window.lock().duration = Some(duration);
        window
    }

    /// Runs the next call; it takes so long.
    async fn run(window: &Window<usize>, duration: Duration) -> usize {
        let (call, running) = window.take().await.unwrap();
        std::mem::forget(running);
        window.ended(duration);
        call
    }

    fn room(window: &Window<usize>) -> usize {
        window.room_in(&window.lock())
    }

    #[tokio::test]
    async fn slow_calls_are_claimed_for_free_slots_alone() {
        let window = window(SLOW);
        assert_eq!(window.room().await, 4);
        assert_eq!(window.put(0..3), 3);
        assert_eq!(room(&window), 1);
        let (call, running) = window.take().await.unwrap();
        assert_eq!((call, room(&window)), (0, 1), "one that runs has its slot");
        drop(running);
        assert_eq!(room(&window), 2);
    }

    #[tokio::test]
    async fn as_much_is_claimed_ahead_as_begins_at_once() {
        let window = window(QUICK);
        assert_eq!(window.room().await, 4 + 20);
        assert_eq!(window.put(0..24), 4);
        assert_eq!(room(&window), 0);
        for call in 0..9 {
            assert_eq!(run(&window, QUICK).await, call);
        }
        assert_eq!(room(&window), 0, "half of what is ahead goes first");
        run(&window, QUICK).await;
        assert_eq!(room(&window), 10);
    }

    #[tokio::test]
    async fn who_waits_for_room_is_told() {
        let window = window(SLOW);
        window.put(0..4);
        let (told, ()) = tokio::join!(window.room(), async {
            run(&window, SLOW).await;
        });
        assert_eq!(told, 1);
    }

    #[tokio::test]
    async fn of_batches_no_more_deliveries_are_claimed_ahead() {
        let window = Window::<usize>::new(4, 2, 100);
        window.lock().duration = Some(QUICK);
        assert_eq!(window.room().await, 4 + 2);
    }

    #[tokio::test]
    async fn of_the_first_calls_nothing_is_known() {
        let window = Window::<usize>::new(4, 2, 1);
        assert_eq!(window.room().await, 4);
    }

    #[tokio::test]
    async fn calls_that_become_slow_go_back() {
        let window = window(QUICK);
        window.put(0..24);
        assert!(window.overdue().is_empty(), "they have only just come");
        for (since, _) in &mut window.lock().waiting {
            *since -= PATIENCE;
        }
        assert_eq!(window.overdue(), (0..24).collect::<Vec<_>>());
        assert_eq!(window.room().await, 4, "nothing is claimed ahead any more");
        window.put(30..31);
        assert_eq!(run(&window, QUICK).await, 30, "permits without calls are no calls");
        for _ in 0..100 {
            window.put(0..1);
            // What is known comes close, and never gets there.
            run(&window, QUICK * 99 / 100).await;
        }
        assert_eq!(window.room().await, 4 + 20, "they are quick again");
    }

    #[tokio::test]
    async fn a_closed_window_has_no_more_calls() {
        let window = window(SLOW);
        window.close();
        assert!(window.take().await.is_none());
    }
}
