//! A running runtime, as the command line sees it: over HTTP.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use bytes::Bytes;
use gristmill_core::json::{BATCH, Structured};
use gristmill_core::{EntryId, Event, HandlerName, QueueName, State};
use reqwest::{Client, RequestBuilder, Url, header, redirect};
use serde::de::DeserializeOwned;

use super::args::Global;
use crate::config;
use crate::http::Problem;
use crate::http::model::{Deployed, Entry, Handler, Killed, List, PublishReply, Queue, Redriven, Running, Status};
use crate::publishing::PublishOptions;
use crate::tls;

/// How long an answer may take. The slowest is a publish that waits for a sync.
const TIMEOUT: Duration = Duration::from_secs(60);
/// How long a deployment may take.
const DEPLOY_TIMEOUT: Duration = Duration::from_mins(10);
const DEFAULT_URL: &str = "http://127.0.0.1:8080";

/// A client of one runtime. What the runtime refuses is a [`Problem`] inside the error.
#[derive(Debug)]
pub(super) struct Runtime {
    http: Client,
    base: Url,
}

/// A page of entries to ask for.
#[derive(Clone, Debug)]
pub(super) struct PageOf<'a> {
    pub(super) queue: &'a QueueName,
    pub(super) state: State,
    pub(super) limit: u16,
    pub(super) cursor: Option<&'a str>,
}

/// Nobody listens where the runtime should be: nothing was sent.
#[derive(Debug, thiserror::Error)]
#[error("no runtime answers at {0}: start one with `gristmill run`, or name another with --url")]
pub(super) struct NoRuntime(String);

impl Runtime {
    /// The runtime that the flags, the environment or the configuration name.
    pub(super) fn new(global: &Global) -> anyhow::Result<Self> {
        tls::use_ring();
        let http = Client::builder()
            .user_agent(concat!("gristmill/", env!("CARGO_PKG_VERSION")))
            .redirect(redirect::Policy::none())
            .no_proxy()
            // Runtimes speak plain HTTP: the authorities of the system need not be read.
            .tls_certs_only([])
            .timeout(TIMEOUT)
            .build()?;
        Ok(Self { http, base: base(global)? })
    }

    pub(super) async fn queues(&self) -> anyhow::Result<List<Queue>> {
        self.send(self.http.get(self.url(&["queues"])?)).await
    }

    pub(super) async fn queue(&self, name: &QueueName) -> anyhow::Result<Queue> {
        self.send(self.http.get(self.url(&["queues", name.as_str()])?)).await
    }

    pub(super) async fn pause(&self, name: &QueueName, reason: Option<&str>) -> anyhow::Result<Queue> {
        let mut url = self.url(&["queues", name.as_str(), "pause"])?;
        if let Some(reason) = reason {
            url.query_pairs_mut().append_pair("reason", reason);
        }
        self.send(self.http.post(url)).await
    }

    pub(super) async fn resume(&self, name: &QueueName) -> anyhow::Result<Queue> {
        self.send(self.http.post(self.url(&["queues", name.as_str(), "resume"])?)).await
    }

    pub(super) async fn entries(&self, page: PageOf<'_>) -> anyhow::Result<List<Entry>> {
        let mut url = self.url(&["queues", page.queue.as_str(), "entries"])?;
        url.query_pairs_mut()
            .append_pair("state", page.state.as_str())
            .append_pair("limit", &page.limit.to_string())
            .extend_pairs(page.cursor.map(|cursor| ("cursor", cursor)));
        self.send(self.http.get(url)).await
    }

    pub(super) async fn entry(&self, entry: &EntryId) -> anyhow::Result<Entry> {
        self.send(self.http.get(self.url(&["entries", entry.as_str()])?)).await
    }

    pub(super) async fn redrive(&self, entry: &EntryId) -> anyhow::Result<Redriven> {
        self.send(self.http.post(self.url(&["entries", entry.as_str(), "redrive"])?)).await
    }

    pub(super) async fn publish(&self, events: &[&Event], options: &PublishOptions) -> anyhow::Result<PublishReply> {
        let batch: Vec<_> = events.iter().map(|event| Structured(event)).collect();
        let body = serde_json::to_vec(&batch)?;
        let mut url = self.url(&["events"])?;
        url.query_pairs_mut().extend_pairs(options.to_query());
        let request = self.http.post(url).header(header::CONTENT_TYPE, BATCH).body(body);
        self.send(request).await
    }

    pub(super) async fn running(&self) -> anyhow::Result<List<Running>> {
        self.send(self.http.get(self.url(&["running"])?)).await
    }

    pub(super) async fn kill(&self, number: u64) -> anyhow::Result<Killed> {
        self.send(self.http.post(self.url(&["running", &number.to_string(), "kill"])?)).await
    }

    pub(super) async fn handlers(&self) -> anyhow::Result<List<Handler>> {
        self.send(self.http.get(self.url(&["handlers"])?)).await
    }

    pub(super) async fn status(&self) -> anyhow::Result<Status> {
        self.send(self.http.get(self.url(&["status"])?)).await
    }

    pub(super) async fn deploy(
        &self,
        handler: &HandlerName,
        component: Vec<u8>,
        manner: &[(&str, String)],
    ) -> anyhow::Result<Deployed> {
        let mut url = self.url(&["handlers", handler.as_str(), "component"])?;
        if !manner.is_empty() {
            url.query_pairs_mut().extend_pairs(manner);
        }
        // To compile takes as long as the runtime lets it.
        let request = self.http.put(url).timeout(DEPLOY_TIMEOUT).header(header::CONTENT_TYPE, "application/wasm");
        self.send(request.body(component)).await
    }

    pub(super) async fn roll_back(&self, handler: &HandlerName, to: Option<&str>) -> anyhow::Result<Deployed> {
        let mut url = self.url(&["handlers", handler.as_str(), "rollback"])?;
        if let Some(to) = to {
            url.query_pairs_mut().append_pair("to", to);
        }
        self.send(self.http.post(url)).await
    }

    pub(super) async fn buckets(&self) -> anyhow::Result<List<String>> {
        self.send(self.http.get(self.url(&["state"])?)).await
    }

    pub(super) async fn keys(&self, bucket: &str, prefix: &str, cursor: Option<&str>) -> anyhow::Result<List<String>> {
        let mut url = self.url(&["state", bucket, "keys"])?;
        url.query_pairs_mut()
            .append_pair("limit", "1000")
            .append_pair("prefix", prefix)
            .extend_pairs(cursor.map(|cursor| ("cursor", cursor)));
        self.send(self.http.get(url)).await
    }

    pub(super) async fn value(&self, bucket: &str, key: &str) -> anyhow::Result<Bytes> {
        let mut url = self.url(&["state", bucket, "value"])?;
        url.query_pairs_mut().append_pair("key", key);
        self.answer(self.http.get(url)).await
    }

    fn url(&self, path: &[&str]) -> anyhow::Result<Url> {
        let mut url = self.base.clone();
        match url.path_segments_mut() {
            Ok(mut segments) => segments.pop_if_empty().push("v1").extend(path),
            Err(()) => bail!("{} is not the address of a runtime", self.base),
        };
        Ok(url)
    }

    async fn send<T: DeserializeOwned>(&self, request: RequestBuilder) -> anyhow::Result<T> {
        let body = self.answer(request).await?;
        serde_json::from_slice(&body)
            .with_context(|| format!("{} answered something else: is it a runtime of this version?", self.at()))
    }

    fn at(&self) -> &str {
        self.base.as_str().trim_end_matches('/')
    }

    async fn answer(&self, request: RequestBuilder) -> anyhow::Result<Bytes> {
        let at = self.at();
        let response = request.send().await.map_err(|error| {
            if error.is_connect() {
                anyhow::Error::new(NoRuntime(at.to_owned()))
            } else if error.is_timeout() {
                anyhow!("the runtime at {at} did not answer within {} s", TIMEOUT.as_secs())
            } else {
                anyhow::Error::new(error).context(format!("the runtime at {at} did not answer"))
            }
        })?;
        let status = response.status();
        let body = response.bytes().await.with_context(|| format!("the answer of {at} broke off"))?;
        if status.is_success() {
            return Ok(body);
        }
        match serde_json::from_slice::<Problem>(&body) {
            Ok(problem) => Err(problem.into()),
            Err(_) => bail!("{at} answered {status}: is it a Gristmill runtime?"),
        }
    }
}

fn base(global: &Global) -> anyhow::Result<Url> {
    if let Some(url) = &global.url {
        return Ok(url.clone());
    }
    let path = global.config_path();
    if global.config.is_none() && !path.exists() {
        return Ok(DEFAULT_URL.parse()?);
    }
    let listen = match config::load(path) {
        Ok(config) => config.listen,
        // A runtime goes on with what was written before, and whoever asks it wants to know.
        Err(errors) => match listen_of(path) {
            Some(listen) => {
                eprintln!("warning: {} has errors: see `gristmill check`", path.display());
                listen
            }
            None => bail!("cannot tell where the runtime listens: name it with --url, or mend this\n{errors}"),
        },
    };
    if listen.port() == 0 {
        bail!("{} lets the runtime listen on any free port: name the one it took with --url", path.display());
    }
    Ok(format!("http://{listen}").parse()?)
}

/// Where a runtime listens by a configuration that has errors elsewhere.
fn listen_of(path: &Path) -> Option<SocketAddr> {
    let table: toml::Table = std::fs::read_to_string(path).ok()?.parse().ok()?;
    match table.get("http").and_then(|http| http.get("listen")) {
        Some(listen) => listen.as_str()?.parse().ok(),
        None => Some(config::LISTEN),
    }
}
