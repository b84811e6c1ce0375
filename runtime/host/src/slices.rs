//! Giving way.

use std::future::poll_fn;
use std::task::Poll;

/// Lets everybody else have a turn who is ready to run on this thread.
///
/// `tokio::task::yield_now` does not: who comes back from it goes before all others, so that two who do nothing but that
/// keep everybody else from running.
pub async fn give_way() {
    let mut has_given_way = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut has_given_way, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
