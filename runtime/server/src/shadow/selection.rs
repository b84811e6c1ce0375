//! Which stored events go through a shadow replay.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use futures_util::{Stream, TryStreamExt as _, stream};
use gristmill_core::{EntryId, QueueName, State};
use gristmill_queue::{Entry, List, Queue, QueueError};

use super::Sample;

/// The most events that `last:N` takes: all of them are in memory at once.
const MAX_LAST: usize = 1_000;

/// Which stored events of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Selection {
    /// The last that came, as many as that, or all that are found: those that the queue still has, with their data, and
    /// those that are in the log.
    Last(usize),
    /// All dead letters.
    Dead,
}

/// A text that selects no events.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{}` selects no events: write `last:N` for the last N that came, 1 to {MAX_LAST}, or `dead` for all dead letters",
    .0.escape_debug()
)]
pub struct SelectionError(String);

impl Selection {
    /// Those events of the queue `name`, the oldest first.
    ///
    /// # Errors
    /// When the queue cannot be read.
    pub async fn samples(
        self,
        queue: Arc<dyn Queue>,
        name: QueueName,
    ) -> Result<impl Stream<Item = Result<Sample, QueueError>> + Send, QueueError> {
        let (first, rest) = match self {
            Self::Last(number) => (last(&*queue, name, number).await?, None),
            Self::Dead => (Vec::new(), Some(List::new(name, State::Dead))),
        };
        let first = stream::iter(first.into_iter().map(Ok));
        Ok(futures_util::StreamExt::chain(first, pages(queue, rest).map_ok(Sample::from)))
    }
}

/// The entries of a page and of all that follow; `None`: none.
fn pages(queue: Arc<dyn Queue>, first: Option<List>) -> impl Stream<Item = Result<Entry, QueueError>> + Send {
    let pages = stream::try_unfold(first, move |request| {
        let queue = Arc::clone(&queue);
        async move {
            let Some(request) = request else { return Ok::<_, QueueError>(None) };
            let page = queue.list(request.clone()).await?;
            let next = page.next.map(|cursor| List { cursor: Some(cursor), ..request });
            Ok(Some((stream::iter(page.entries.into_iter().map(Ok)), next)))
        }
    });
    pages.try_flatten()
}

async fn last(queue: &dyn Queue, name: QueueName, number: usize) -> Result<Vec<Sample>, QueueError> {
    let sampled = queue.sample(gristmill_queue::Sample::last(name.clone(), number)).await?;
    let samples = sampled.into_iter().enumerate().filter_map(|(at, sampled)| match sampled.entry {
        Some(entry) => Some(Sample { event: sampled.event, ..Sample::from(entry) }),
        // It is in the log alone: a number stands for what its entry was.
        None => Some(Sample {
            entry: EntryId::new(&format!("0-{}", at + 1)).ok()?,
            queue: name.clone(),
            attempt: 1,
            enqueued_at: sampled.published_at,
            event: sampled.event,
        }),
    });
    let mut samples: Vec<_> = samples.collect();
    samples.reverse();
    Ok(samples)
}

impl FromStr for Selection {
    type Err = SelectionError;

    fn from_str(text: &str) -> Result<Self, SelectionError> {
        let number = |text: &str| text.parse().ok().filter(|number| (1..=MAX_LAST).contains(number));
        match text.split_once(':') {
            None if text == "dead" => Some(Self::Dead),
            Some(("last", text)) => number(text).map(Self::Last),
            _ => None,
        }
        .ok_or_else(|| SelectionError(text.to_owned()))
    }
}

impl fmt::Display for Selection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Last(number) => write!(f, "last:{number}"),
            Self::Dead => f.write_str("dead"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selections_are_read_as_they_are_written() {
        for (text, selection) in [("dead", Selection::Dead), ("last:500", Selection::Last(500))] {
            assert_eq!(text.parse(), Ok(selection));
            assert_eq!(selection.to_string(), text);
        }
        for wrong in ["", "last", "last:", "last:0", "last:1001", "last:-1", "dead:5", "all", "Dead"] {
            assert_eq!(wrong.parse::<Selection>(), Err(SelectionError(wrong.to_owned())));
        }
    }
}
