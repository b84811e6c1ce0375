//! Samples: the latest events that came into a queue, whole. On a snapshot and outside the writer; what is examined is
//! bounded, and data that lives apart is read of those alone that are shown.
//!
//! Numbers of entries and positions in the log come from one counter: they say in which order events came in, whatever
//! the clock said.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;
use gristmill_core::{State as EntryState, Timestamp};

use super::body;
use super::event::EncodedEvent;
use super::inspect::Reading;
use super::keys::{EndKey, Family, LogKey, QueueId, ReadyKey, after_prefix};
use super::page::{self, MAX_EXAMINED, Wanted, lanes, line_range};
use super::read::{Found, StoredCursors, Whereabouts, at_ready, ended};
use super::records::{LogRecord, QueueRecord, Record};
use crate::contract::{QueueError, Sample, SampleOf, Sampled};

/// An event that may be shown.
struct Candidate {
    /// When it came in, by the counter.
    number: u64,
    published_at: Timestamp,
    /// Whole; its data may live apart.
    event: EncodedEvent,
    /// `None`: the log has it.
    entry: Option<Found>,
}

/// The events that are asked for.
pub(crate) fn sample(reading: &Reading<'_>, request: &Sample) -> Result<Vec<Sampled>, QueueError> {
    let (queue, record) = reading.queue(&request.queue)?;
    let looking = Looking { reading, queue, record };
    let candidates = match request.which {
        SampleOf::Dead => looking.dead(request.limit)?.into_iter().map(Candidate::of).collect(),
        SampleOf::Last => looking.last()?,
    };
    let shown = candidates.into_iter().take(request.limit);
    Ok(shown.filter_map(|candidate| candidate.show(reading, request)).collect())
}

impl Candidate {
    fn of(found: Found) -> Self {
        let record = &found.record;
        let (number, published_at, event) = (record.number, record.enqueued_at, record.event.clone());
        Self { number, published_at, event, entry: Some(found) }
    }

    /// `None`: it cannot be read, or its data has gone: a part of the log that is being dropped loses it first.
    fn show(self, reading: &Reading<'_>, request: &Sample) -> Option<Sampled> {
        let number = self.number;
        let shown = self.try_show(reading, request);
        shown.inspect_err(|error| {
            tracing::error!(queue = %request.queue, number, %error, "an event cannot be read, and is left out of a sample");
        }).ok()
    }

    fn try_show(self, reading: &Reading<'_>, request: &Sample) -> Result<Sampled, QueueError> {
        let Self { published_at, event, entry, .. } = self;
        let whole = event.decode(body::load(reading.view, &event)?)?;
        let entry = entry.map(|found| reading.entry(found, &request.queue)).transpose()?;
        Ok(Sampled { event: Arc::new(whole), published_at, entry })
    }
}

/// What looks for them.
struct Looking<'a> {
    reading: &'a Reading<'a>,
    queue: QueueId,
    record: QueueRecord,
}

impl Looking<'_> {
    /// The last that came in, from wherever they are.
    fn last(&self) -> Result<Vec<Candidate>, QueueError> {
        let mut log = self.log()?;
        let mut candidates: Vec<_> = self.done()?.into_iter().filter_map(|found| with_data(found, &mut log)).collect();
        let mut live = self.dead(MAX_EXAMINED)?;
        live.extend(self.ready()?);
        for state in [EntryState::Leased, EntryState::Scheduled, EntryState::Waiting] {
            live.extend(self.first(state)?);
        }
        for found in live {
            // Its own record of the log is not another event.
            log.take(&found);
            candidates.push(Candidate::of(found));
        }
        candidates.extend(log.into_candidates());
        candidates.sort_unstable_by_key(|candidate| std::cmp::Reverse(candidate.number));
        Ok(candidates)
    }

    /// Dead letters, the latest death first.
    fn dead(&self, limit: usize) -> Result<Vec<Found>, QueueError> {
        let from = EndKey { queue: self.queue, position: self.record.from.dead }.encode();
        let to = after_prefix(&self.queue.to_be_bytes());
        let mut back = Back::new(limit, self.record.counts.dead);
        back.over(self.reading, Family::Dead, (&from, &to), |key, value| {
            ended(Whereabouts::Dead(EndKey::decode(key)?), &value)
        })?;
        Ok(back.found)
    }

    /// Done entries, the last to come in first.
    fn done(&self) -> Result<Vec<Found>, QueueError> {
        let (from, to) = (self.queue.to_be_bytes(), after_prefix(&self.queue.to_be_bytes()));
        // All that may be examined: those whose data has gone do not count.
        let mut back = Back::new(MAX_EXAMINED, self.record.counts.done);
        back.over(self.reading, Family::Done, (&from, &to), |key, value| {
            ended(Whereabouts::Done(EndKey::decode(key)?), &value)
        })?;
        Ok(back.found)
    }

    /// Ready entries, line by line, the last of each first.
    fn ready(&self) -> Result<Vec<Found>, QueueError> {
        let view = self.reading.view;
        // All that may be examined: who came back has joined behind those who came later.
        let mut back = Back::new(MAX_EXAMINED, self.record.counts.ready);
        for (line, lane) in lanes(view, self.queue)? {
            if lane.ready > 0 {
                let (from, to) = line_range(line, lane.cursor);
                back.over(self.reading, Family::Ready, (&from, &to), |key, value| {
                    at_ready(view, &StoredCursors(view), ReadyKey::decode(key)?, value)
                })?;
            }
        }
        Ok(back.found)
    }

    /// The first entries in a state, as lists have them.
    fn first(&self, state: EntryState) -> Result<Vec<Found>, QueueError> {
        let (queue, from) = (self.queue, self.record.from);
        let wanted = Wanted { queue, state, limit: MAX_EXAMINED, after: None, from };
        Ok(page::page(self.reading.view, &StoredCursors(self.reading.view), &wanted)?.found)
    }

    /// What the log has of the queue.
    fn log(&self) -> Result<Logged, QueueError> {
        let mut logged = Logged::default();
        let mut examined = 0;
        self.reading.view.scan_back(Family::Log, &[], &[], &mut |key, value| {
            examined += 1;
            match read_log(key, value) {
                Ok((position, record)) if record.queues.contains(&self.queue) => logged.add(position, record),
                Ok(_) => {}
                Err(error) => tracing::error!(?key, %error, "a record of the log cannot be read, and is left out"),
            }
            if examined < MAX_EXAMINED { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        Ok(logged)
    }
}

fn read_log(key: &[u8], value: &[u8]) -> Result<(u64, LogRecord), QueueError> {
    Ok((LogKey::decode(key)?.position, LogRecord::decode(value)?))
}

/// A done entry with the data that it has, or that the log has.
fn with_data(found: Found, log: &mut Logged) -> Option<Candidate> {
    let logged = log.take(&found);
    if found.record.event.has_data() {
        return Some(Candidate::of(found));
    }
    logged.map(|event| Candidate { event, ..Candidate::of(found) })
}

/// Gathers entries from the end of one range or several.
struct Back {
    /// No more than this is wanted.
    limit: usize,
    /// No more than this is there: what was deleted before is not looked through.
    left: u64,
    examined: usize,
    found: Vec<Found>,
}

impl Back {
    const fn new(limit: usize, count: u64) -> Self {
        Self { limit, left: count, examined: 0, found: Vec::new() }
    }

    const fn is_over(&self) -> bool {
        self.left == 0 || self.examined >= MAX_EXAMINED || self.found.len() >= self.limit
    }

    fn over(
        &mut self,
        reading: &Reading<'_>,
        family: Family,
        (from, to): (&[u8], &[u8]),
        mut look: impl FnMut(&[u8], Bytes) -> Result<Found, QueueError>,
    ) -> Result<(), QueueError> {
        if self.is_over() {
            return Ok(());
        }
        let mut failed = None;
        reading.view.scan_back(family, from, to, &mut |key, value| {
            self.examined += 1;
            self.left -= 1;
            match look(key, Bytes::copy_from_slice(value)) {
                Ok(found) => self.found.push(found),
                Err(QueueError::Corrupt(problem)) => {
                    tracing::error!(?key, problem, "an entry cannot be read, and is left out");
                }
                Err(error) => failed = Some(error),
            }
            if self.is_over() || failed.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        failed.map_or(Ok(()), Err)
    }
}

/// Events of the log, by source and id; the latest first.
#[derive(Default)]
struct Logged(HashMap<(String, String), Vec<LoggedEvent>>);

struct LoggedEvent {
    position: u64,
    at: Timestamp,
    event: EncodedEvent,
    /// An entry was found that was published with it.
    is_taken: bool,
}

impl Logged {
    fn add(&mut self, position: u64, record: LogRecord) {
        let event = EncodedEvent::from_bytes(record.event);
        if let Some(name) = name_of(&event) {
            let logged = LoggedEvent { position, at: record.at, event, is_taken: false };
            self.0.entry(name).or_default().push(logged);
        }
    }

    /// The event of an entry: that which was published when the entry was, or else the latest of its name, from which
    /// the entry may have come by a replay.
    fn take(&mut self, found: &Found) -> Option<EncodedEvent> {
        let all = self.0.get_mut(&name_of(&found.record.event)?)?;
        let own = all.iter_mut().find(|logged| !logged.is_taken && logged.at == found.record.enqueued_at);
        match own {
            Some(own) => {
                own.is_taken = true;
                Some(own.event.clone())
            }
            None => all.first().map(|latest| latest.event.clone()),
        }
    }

    /// Those of which no entry was found.
    fn into_candidates(self) -> impl Iterator<Item = Candidate> {
        let left = self.0.into_values().flatten().filter(|logged| !logged.is_taken);
        left.map(|LoggedEvent { position, at, event, .. }| Candidate {
            number: position,
            published_at: at,
            event,
            entry: None,
        })
    }
}

fn name_of(event: &EncodedEvent) -> Option<(String, String)> {
    event.head().ok().map(|head| (head.source.to_owned(), head.id.to_owned()))
}
