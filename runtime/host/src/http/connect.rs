//! From the name of a host to a connection: resolved once, every address checked, connected to what was checked.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use gristmill_core::http::{HttpHost, HttpReach, HttpScheme};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use wasmtime_wasi_http::Error;

use super::{address, tls};

/// When the next address is tried, while the one before has not answered (RFC 8305).
const STAGGER: Duration = Duration::from_millis(250);
/// Addresses of one name that are tried.
const MAX_ADDRESSES: usize = 16;

/// Where a request goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Destination {
    pub(super) scheme: HttpScheme,
    pub(super) host: HttpHost,
    pub(super) port: u16,
}

/// Bytes over all connections of an invocation, TLS and headers included.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    pub(super) sent: AtomicU64,
    pub(super) received: AtomicU64,
}

/// A name does not lead to where it may, or nowhere.
#[derive(Debug)]
pub(super) enum Unresolved {
    /// It stands for this address, which it may not.
    Prohibited(SocketAddr),
    /// It cannot be looked up.
    Failed(io::Error),
    /// It has no address.
    Nothing,
}

/// The addresses of `host`. Of a name, if `reach` permits all of them; an address as it is: the grant names it.
pub(super) async fn resolve(
    host: &HttpHost,
    port: u16,
    reach: HttpReach,
    lookups: &Lookups,
) -> Result<Vec<SocketAddr>, Unresolved> {
    let name = match host {
        HttpHost::Address(address) => return Ok(vec![SocketAddr::new(*address, port)]),
        HttpHost::Name(name) => name.clone(),
    };
    let found = lookup(name, port, lookups.clone()).await.map_err(Unresolved::Failed)?;
    match found.iter().find(|found| !address::is_permitted(found.ip(), reach)) {
        Some(prohibited) => Err(Unresolved::Prohibited(*prohibited)),
        None if found.is_empty() => Err(Unresolved::Nothing),
        None => Ok(found),
    }
}

/// Permits to look up names: each look-up holds a thread, and cannot be given up.
#[derive(Clone, Debug)]
pub(super) struct Lookups {
    /// Of the whole host.
    pub(super) all: Arc<Semaphore>,
    /// Of one component.
    pub(super) own: Arc<Semaphore>,
}

/// Holds its permit to the end, also when nobody waits for it any more.
async fn lookup(name: String, port: u16, lookups: Lookups) -> io::Result<Vec<SocketAddr>> {
    let own = lookups.own.acquire_owned().await.map_err(io::Error::other)?;
    let permit = lookups.all.acquire_owned().await.map_err(io::Error::other)?;
    let lookup = async move {
        let found = tokio::net::lookup_host((name, port)).await.map(Vec::from_iter);
        drop((own, permit));
        found
    };
    tokio::spawn(lookup).await.map_err(io::Error::other)?
}

/// The first of `addresses` that answers; they are tried one after the other, and none waits long for the one before.
pub(super) async fn connect(addresses: Vec<SocketAddr>) -> io::Result<TcpStream> {
    let mut waiting = addresses.into_iter().take(MAX_ADDRESSES);
    let mut attempts = JoinSet::new();
    let mut refused = None;
    loop {
        let next = waiting.next();
        let is_last = next.is_none();
        if let Some(address) = next {
            attempts.spawn(TcpStream::connect(address));
        }
        let wait = if is_last { Duration::MAX } else { STAGGER };
        match tokio::time::timeout(wait, attempts.join_next()).await {
            // Nobody has answered yet: another address may.
            Err(_) => {}
            Ok(Some(Ok(Ok(stream)))) => {
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Ok(Some(Ok(Err(error)))) => refused = refused.or(Some(error)),
            Ok(Some(Err(error))) => refused = refused.or(Some(io::Error::other(error))),
            Ok(None) => return Err(refused.unwrap_or_else(|| io::ErrorKind::AddrNotAvailable.into())),
        }
    }
}

/// TLS over `stream`, if the scheme says so; the certificate has to be for the host.
pub(super) async fn secure(
    stream: Counted<TcpStream>,
    to: &Destination,
    tls: &Arc<rustls::ClientConfig>,
) -> Result<Box<dyn Stream>, Error> {
    if to.scheme == HttpScheme::Http {
        return Ok(Box::new(stream));
    }
    let name = match &to.host {
        HttpHost::Address(address) => ServerName::from(*address),
        HttpHost::Name(name) => ServerName::try_from(name.clone()).map_err(|_| Error::HttpRequestUriInvalid)?,
    };
    Ok(Box::new(TlsConnector::from(tls.clone()).connect(name, stream).await.map_err(|error| tls::error(&error))?))
}

/// What HTTP is spoken over.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A stream whose bytes are counted.
pub(super) struct Counted<S> {
    stream: S,
    traffic: Arc<Traffic>,
}

impl<S> Counted<S> {
    pub(super) fn new(stream: S, traffic: Arc<Traffic>) -> Self {
        Self { stream, traffic }
    }

    fn sent(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(bytes)) = written {
            self.traffic.sent.fetch_add(bytes as u64, Ordering::Relaxed);
        }
        written
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        let bytes = buf.filled().len().saturating_sub(before);
        self.traffic.received.fetch_add(bytes as u64, Ordering::Relaxed);
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.sent(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bytes);
        self.sent(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn resolve(host: &str, reach: HttpReach) -> Result<Vec<SocketAddr>, Unresolved> {
        let permits = || Arc::new(Semaphore::new(1));
        super::resolve(&HttpHost::parse(host).unwrap(), 80, reach, &Lookups { all: permits(), own: permits() }).await
    }

    #[tokio::test]
    async fn a_name_that_leads_to_a_private_address_is_refused_unless_that_is_meant() {
        let refused = resolve("localhost", HttpReach::Public).await;
        assert!(matches!(refused, Err(Unresolved::Prohibited(address)) if address.ip().is_loopback()), "{refused:?}");
        let found = resolve("localhost", HttpReach::Private).await.unwrap();
        assert!(!found.is_empty() && found.iter().all(|address| address.ip().is_loopback() && address.port() == 80));
    }

    #[tokio::test]
    async fn a_look_up_has_its_permits_from_beginning_to_end() {
        let lookups = Lookups { all: Arc::new(Semaphore::new(0)), own: Arc::new(Semaphore::new(1)) };
        let localhost = HttpHost::parse("localhost").unwrap();
        let mut waiting = Box::pin(super::resolve(&localhost, 80, HttpReach::Private, &lookups));
        let waker = std::task::Waker::noop();
        assert!(waiting.as_mut().poll(&mut Context::from_waker(waker)).is_pending(), "others have all of them");
        assert_eq!(lookups.own.available_permits(), 0, "it counts while it waits");
        lookups.all.add_permits(1);
        assert!(!waiting.await.unwrap().is_empty());
        assert_eq!((lookups.all.available_permits(), lookups.own.available_permits()), (1, 1));
    }

    #[tokio::test]
    async fn an_address_is_itself() {
        let found = resolve("169.254.169.254", HttpReach::Public).await.unwrap();
        assert_eq!(found, ["169.254.169.254:80".parse().unwrap()]);
    }

    #[tokio::test]
    async fn the_address_that_answers_is_taken() {
        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let open = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = connect(vec![closed, open.local_addr().unwrap()]).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), open.local_addr().unwrap());
        assert_eq!(connect(vec![closed]).await.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        assert!(connect(Vec::new()).await.is_err());
    }
}
