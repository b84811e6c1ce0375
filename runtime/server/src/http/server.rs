//! HTTP on threads of its own: a request is answered while handlers keep every other thread busy.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::warn;

use super::{Api, routes};
use crate::threads::Threads;

/// Threads that answer requests.
const THREADS: usize = 2;
/// How long open connections may take to end.
const GRACE: Duration = Duration::from_secs(1);

/// Serves until it is stopped, or dropped.
#[derive(Debug)]
pub struct Server {
    serving: JoinHandle<()>,
    stop: watch::Sender<bool>,
    address: SocketAddr,
    _threads: Threads,
}

impl Server {
    /// Listens on `address` and serves [`routes`].
    ///
    /// # Errors
    /// When the threads cannot be started, or somebody else listens there.
    pub async fn start(address: SocketAddr, api: Api) -> io::Result<Self> {
        let threads = Threads::start("gristmill-http", THREADS)?;
        let listener = threads.handle().spawn(TcpListener::bind(address)).await.map_err(io::Error::other)??;
        let address = listener.local_addr()?;
        let (stop, mut stopping) = watch::channel(false);
        let serving = threads.handle().spawn(async move {
            let stopped = async move { drop(stopping.wait_for(|stop| *stop).await) };
            if let Err(error) = axum::serve(listener, routes(api)).with_graceful_shutdown(stopped).await {
                warn!(%error, "HTTP ended");
            }
        });
        Ok(Self { serving, stop, address, _threads: threads })
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Takes no more connections, and waits a second for those that are open.
    pub async fn stop(mut self) {
        self.stop.send_replace(true);
        if tokio::time::timeout(GRACE, &mut self.serving).await.is_err() {
            self.serving.abort();
        }
    }
}
