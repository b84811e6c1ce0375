//! One request over one connection.
//!
//! The delivery's time-out bounds all of it, because whoever drops the invocation drops this; a guest may set shorter ones.

use std::error::Error as _;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use gristmill_core::http::HttpReach;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::client::conn::http1::Builder;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, Sleep};
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody};

use super::connect::{self, Counted, Destination, Stream, Traffic, Unresolved};
use super::{Client, denials};
use crate::stdio::SharedLog;

/// The most bytes of a response's status line and headers.
const MAX_RESPONSE_HEAD: usize = 64 << 10;
/// How much of a connection is kept in memory, in each direction.
const BUFFER: usize = 64 << 10;
/// The most headers of a response.
const MAX_RESPONSE_HEADERS: usize = 256;

/// What drives a connection to its end.
type Driver = Box<dyn Future<Output = Result<(), Error>> + Send>;

/// A request that is granted, and what it needs.
pub(super) struct Sending {
    pub(super) to: Destination,
    pub(super) reach: HttpReach,
    pub(super) client: Client,
    pub(super) connections: Arc<Semaphore>,
    pub(super) traffic: Arc<Traffic>,
    pub(super) log: SharedLog,
    pub(super) going_on: watch::Receiver<()>,
}

impl Sending {
    /// The response's head; its body comes as it is read. The driver has to be kept until then.
    pub(super) async fn send(
        self,
        request: Request<WasiBody>,
        options: RequestOptions,
    ) -> Result<(Response<WasiBody>, Driver), Error> {
        let by = options.connect_timeout.and_then(|limit| Instant::now().checked_add(limit));
        let free = within(by, Error::ConnectionLimitReached, self.connections.clone().acquire_owned()).await?;
        let permit = free.map_err(|_| Error::ConnectionLimitReached)?;
        let stream = self.connect(by).await?;
        let mut builder = Builder::new();
        builder.max_buf_size(BUFFER).max_header_size(MAX_RESPONSE_HEAD).max_headers(MAX_RESPONSE_HEADERS);
        let (mut sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(of_hyper)?;
        let mut going_on = self.going_on.clone();
        // Aborted when it is dropped; until then the connection counts.
        let connection = wasmtime_wasi::runtime::spawn(async move {
            let end = tokio::select! {
                end = connection => end,
                _ = going_on.changed() => Ok(()),
            };
            drop(permit);
            end
        });
        let by = options.first_byte_timeout.and_then(|limit| Instant::now().checked_add(limit));
        let response = within(by, Error::ConnectionReadTimeout, sender.send_request(request)).await?;
        let response = response.map_err(of_hyper)?;
        let between = options.between_bytes_timeout;
        let response = response.map(|incoming| ResponseBody::new(incoming, between).boxed_unsync());
        Ok((response, Box::new(async move { connection.await.map_err(of_hyper) })))
    }

    async fn connect(&self, by: Option<Instant>) -> Result<Box<dyn Stream>, Error> {
        let Destination { host, port, .. } = &self.to;
        let found =
            within(by, Error::DnsTimeout, connect::resolve(host, *port, self.reach, &self.client.lookups)).await?;
        let addresses = found.map_err(|unresolved| match unresolved {
            Unresolved::Prohibited(address) => {
                denials::prohibited(&self.log, host, address.ip());
                Error::DestinationIpProhibited
            }
            Unresolved::Failed(error) => Error::DnsError { rcode: Some(error.to_string()), info_code: None },
            Unresolved::Nothing => Error::DestinationNotFound,
        })?;
        let connect = async {
            let stream: TcpStream = connect::connect(addresses).await.map_err(|error| of_connect(&error))?;
            let stream = Counted::new(stream, self.traffic.clone());
            connect::secure(stream, &self.to, &self.client.tls).await
        };
        within(by, Error::ConnectionTimeout, connect).await?
    }
}

/// What `future` gives, or `error` when it is too late for that.
async fn within<T>(by: Option<Instant>, error: Error, future: impl Future<Output = T>) -> Result<T, Error> {
    match by {
        None => Ok(future.await),
        Some(by) => tokio::time::timeout_at(by, future).await.map_err(|_| error),
    }
}

/// A response's body as it comes.
struct ResponseBody {
    incoming: Incoming,
    between: Option<Between>,
}

/// A limit on the time between two parts of a body.
struct Between {
    limit: Duration,
    timer: Pin<Box<Sleep>>,
}

impl ResponseBody {
    fn new(incoming: Incoming, between: Option<Duration>) -> Self {
        let between = between.map(|limit| Between { limit, timer: Box::pin(tokio::time::sleep(limit)) });
        Self { incoming, between }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let frame = Pin::new(&mut self.incoming).poll_frame(cx).map_err(of_hyper);
        if let Some(between) = &mut self.between {
            if frame.is_ready() {
                let next = Instant::now().checked_add(between.limit);
                if let Some(next) = next {
                    between.timer.as_mut().reset(next);
                }
            } else if between.timer.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Some(Err(Error::ConnectionReadTimeout)));
            }
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

fn of_connect(error: &io::Error) -> Error {
    use io::ErrorKind::{ConnectionRefused, ConnectionReset, TimedOut};
    match error.kind() {
        ConnectionRefused => Error::ConnectionRefused,
        ConnectionReset => Error::ConnectionTerminated,
        TimedOut => Error::ConnectionTimeout,
        _ => Error::DestinationUnavailable,
    }
}

/// An error of the HTTP protocol, or of what it is spoken over.
#[allow(clippy::needless_pass_by_value, reason = "used as a function in map_err")]
fn of_hyper(error: hyper::Error) -> Error {
    let cause = error.source();
    if cause.is_some_and(|cause| cause.is::<Error>()) {
        // The guest's own body came to no end.
        return Error::HttpProtocolError;
    }
    if error.is_parse_too_large() {
        return Error::HttpResponseHeaderSectionSize(None);
    }
    if error.is_timeout() {
        return Error::HttpResponseTimeout;
    }
    if error.is_incomplete_message() {
        return Error::HttpResponseIncomplete;
    }
    if error.is_parse() {
        return Error::HttpProtocolError;
    }
    match cause.and_then(|cause| cause.downcast_ref::<io::Error>()) {
        Some(cause) if cause.kind() == io::ErrorKind::UnexpectedEof => Error::HttpResponseIncomplete,
        Some(_) => Error::ConnectionTerminated,
        None if error.is_closed() || error.is_canceled() || error.is_body_write_aborted() => {
            Error::ConnectionTerminated
        }
        None => Error::HttpProtocolError,
    }
}
