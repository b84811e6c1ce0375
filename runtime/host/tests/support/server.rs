//! A server for tests, on a free port of this machine. It speaks just enough HTTP to be asked.

#![allow(dead_code, reason = "each test file uses a part")]
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

/// Tests that wait for the other side give up after this long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// What a server does with each connection, once it has read a request.
#[derive(Clone)]
pub(crate) enum Answer {
    /// Writes these bytes and closes.
    Say(Vec<u8>),
    /// Writes these bytes, and then waits for the client to go.
    Hold(Vec<u8>),
    /// Writes these bytes, and then `x` until the client goes.
    Flood(Vec<u8>),
}

/// A server, and what it was asked.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    asked: mpsc::UnboundedReceiver<String>,
    gone: mpsc::UnboundedReceiver<u64>,
    traffic: Arc<Mutex<(u64, u64)>>,
}

impl Server {
    pub(crate) async fn start(answer: Answer) -> Self {
        Self::over(answer, |stream| async { stream }).await
    }

    /// `wrap` makes another stream of each connection, such as one over TLS.
    pub(crate) async fn over<S, F>(answer: Answer, wrap: impl Fn(TcpStream) -> F + Send + Sync + 'static) -> Self
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
        F: Future<Output = S> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (tell_asked, asked) = mpsc::unbounded_channel();
        let (tell_gone, gone) = mpsc::unbounded_channel();
        let traffic = Arc::new(Mutex::new((0, 0)));
        let counts = traffic.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (wrapped, answer) = (wrap(stream), answer.clone());
                let (asked, gone, counts) = (tell_asked.clone(), tell_gone.clone(), counts.clone());
                tokio::spawn(async move {
                    let mut stream = wrapped.await;
                    let Some(request) = read_request(&mut stream).await else { return };
                    counts.lock().unwrap().0 += request.len() as u64;
                    let _ = asked.send(request);
                    let written = reply(&mut stream, answer).await;
                    counts.lock().unwrap().1 += written;
                    let _ = gone.send(written);
                });
            }
        });
        Self { address, asked, gone, traffic }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// The next request, as it came.
    pub(crate) async fn asked(&mut self) -> String {
        tokio::time::timeout(PATIENCE, self.asked.recv()).await.unwrap().unwrap()
    }

    /// Whether there was no further request.
    pub(crate) fn was_left_alone(&mut self) -> bool {
        self.asked.try_recv().is_err()
    }

    /// Waits for the end of a connection. How many bytes were written to it.
    pub(crate) async fn gone(&mut self) -> u64 {
        tokio::time::timeout(PATIENCE, self.gone.recv()).await.unwrap().unwrap()
    }

    /// Bytes that were read, and that were written.
    pub(crate) fn traffic(&self) -> (u64, u64) {
        *self.traffic.lock().unwrap()
    }
}

/// A response whose length is said.
pub(crate) fn response(status: &str, headers: &str, body: &str) -> Answer {
    Answer::Say(format!("HTTP/1.1 {status}\r\n{headers}content-length: {}\r\n\r\n{body}", body.len()).into_bytes())
}

async fn read_request(stream: &mut (impl AsyncRead + Unpin)) -> Option<String> {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes).to_lowercase();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
            let is_whole = match length {
                Some(length) => body.len() >= length,
                None if head.contains("transfer-encoding: chunked") => body.ends_with("0\r\n\r\n"),
                None => true,
            };
            if is_whole {
                return String::from_utf8(bytes).ok();
            }
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
}

async fn reply(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), answer: Answer) -> u64 {
    let (bytes, flood) = match &answer {
        Answer::Say(bytes) | Answer::Hold(bytes) => (bytes, false),
        Answer::Flood(bytes) => (bytes, true),
    };
    if stream.write_all(bytes).await.is_err() || stream.flush().await.is_err() {
        return 0;
    }
    let mut written = bytes.len() as u64;
    if matches!(answer, Answer::Say(_)) {
        let _ = stream.shutdown().await;
        return written;
    }
    let part = [b'x'; 4096];
    while flood && stream.write_all(&part).await.is_ok() {
        written += part.len() as u64;
    }
    let mut rest = [0; 64];
    while matches!(stream.read(&mut rest).await, Ok(1..)) {}
    written
}
