//! A guest's standard streams. What it writes goes into the invocation's log, or is kept as its output. Streams are never
//! full, so that a guest that prints too much is not stopped by it; and written at once, so that a panic message is there
//! when the trap is.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::io::AsyncWrite;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult};

use crate::log::{Log, Stream};

/// How much may be written at once.
const PERMIT: usize = 64 * 1024;

/// What goes through the standard streams, besides the log that stderr is.
#[derive(Debug)]
pub(crate) enum Stdio {
    /// Nothing goes in, and stdout is part of the log.
    Log,
    /// A program's: the event goes in, and what comes out is kept.
    Event {
        /// The event, written out.
        input: Bytes,
    },
}

/// A log that streams share with the functions of `wasi:logging`.
#[derive(Clone, Debug)]
pub(crate) struct SharedLog(Arc<Mutex<Log>>);

impl SharedLog {
    pub(crate) fn new(max: u64) -> Self {
        Self(Arc::new(Mutex::new(Log::new(max))))
    }

    /// Makes an empty log of it.
    pub(crate) fn restart(&self, max: u64) {
        *self.lock() = Log::new(max);
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Log> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn stream(&self, stream: Stream) -> impl StdoutStream + 'static {
        SinkStream(LogSink { log: self.clone(), stream })
    }
}

#[derive(Clone)]
struct LogSink {
    log: SharedLog,
    stream: Stream,
}

impl Sink for LogSink {
    fn put(&self, bytes: &[u8]) {
        self.log.lock().write(self.stream, bytes);
    }
}

/// What a program writes to stdout, up to a number of bytes.
#[derive(Clone, Debug)]
pub(crate) struct Output {
    written: Arc<Mutex<Written>>,
    max: u64,
}

/// See [`Output`].
#[derive(Debug, Default)]
pub(crate) struct Written {
    pub(crate) bytes: Vec<u8>,
    /// The limit, if more was written; the rest is dropped.
    pub(crate) overflow: Option<u64>,
}

impl Output {
    pub(crate) fn new(max: u64) -> Self {
        Self { written: Arc::default(), max }
    }

    pub(crate) fn stream(&self) -> impl StdoutStream + 'static {
        SinkStream(self.clone())
    }

    /// What was written so far.
    pub(crate) fn take(&self) -> Written {
        std::mem::take(&mut *self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Written> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sink for Output {
    fn put(&self, bytes: &[u8]) {
        let mut written = self.lock();
        let room = self.max.saturating_sub(written.bytes.len() as u64);
        let part = usize::try_from(room).ok().and_then(|room| bytes.get(..room));
        if part.is_some_and(|part| part.len() < bytes.len()) {
            written.overflow = Some(self.max);
        }
        written.bytes.extend_from_slice(part.unwrap_or(bytes));
    }
}

/// Where a stream's bytes go.
trait Sink: Clone + Send + Sync + Unpin + 'static {
    fn put(&self, bytes: &[u8]);
}

/// One output stream of a guest.
#[derive(Clone)]
struct SinkStream<S>(S);

impl<S: Sink> IsTerminal for SinkStream<S> {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl<S: Sink> StdoutStream for SinkStream<S> {
    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }

    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }
}

impl<S: Sink> OutputStream for SinkStream<S> {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.0.put(&bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(PERMIT)
    }
}

impl<S: Sink> Pollable for SinkStream<S> {
    fn ready<'a, 'b>(&'a mut self) -> Pin<Box<dyn Future<Output = ()> + Send + 'b>>
    where
        'a: 'b,
        Self: 'b,
    {
        Box::pin(std::future::ready(()))
    }
}

impl<S: Sink> AsyncWrite for SinkStream<S> {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.0.put(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
