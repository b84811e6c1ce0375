//! The HTTP surface: publishing, inspection, redrive and probes.
//!
//! There is no authentication yet. The runtime therefore listens on loopback only, and [`routes`] refuses what a web
//! page in the user's browser could send there.

mod binary;
mod guard;
mod handlers;
mod inspect;
pub mod model;
pub mod problem;
mod publish;
mod running;
mod server;
mod state;
pub(crate) mod view;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::extract::{DefaultBodyLimit, State};
use axum::http::{Method, Uri, header};
use axum::middleware::from_fn;
use axum::routing::{get, post, put};
use gristmill_queue::Queue;

use crate::deployment::Deployment;
use crate::metrics::Metrics;
use crate::routing::Router;
pub use problem::Problem;
pub(crate) use publish::publish_events;
pub use server::Server;

/// What the handlers of HTTP requests work with.
#[derive(Clone)]
pub struct Api {
    /// The engine.
    pub queue: Arc<dyn Queue>,
    /// Which queues a published event goes to.
    pub router: Arc<Router>,
    /// The handlers at work; each handles the queue of its name. `None`: nothing is at work.
    pub deployment: Option<Deployment>,
    /// What `/metrics` shows.
    pub metrics: Arc<Metrics>,
    /// What `/readyz` answers.
    pub readiness: Readiness,
}

/// Whether the runtime takes work. Clones share one state; at first it does not.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<AtomicBool>);

impl Readiness {
    /// Everything is started.
    pub fn open(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// The runtime is about to stop.
    pub fn close(&self) {
        self.0.store(false, Ordering::Release);
    }

    /// Whether it takes work.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// Every route, with the guards around them. Errors of all kinds are problem details (RFC 9457).
pub fn routes(api: Api) -> axum::Router {
    axum::Router::new()
        .route("/v1/events", post(publish::publish))
        .route("/v1/queues", get(inspect::queues))
        .route("/v1/queues/{queue}", get(inspect::queue))
        .route("/v1/queues/{queue}/pause", post(inspect::pause))
        .route("/v1/queues/{queue}/resume", post(inspect::resume))
        .route("/v1/queues/{queue}/entries", get(inspect::entries))
        .route("/v1/entries/{entry}", get(inspect::entry))
        .route("/v1/entries/{entry}/redrive", post(inspect::redrive))
        .route("/v1/handlers", get(handlers::handlers))
        .route("/v1/handlers/{handler}/component", put(handlers::deploy))
        .route("/v1/handlers/{handler}/rollback", post(handlers::roll_back))
        .route("/v1/status", get(handlers::status))
        .route("/v1/running", get(running::running))
        .route("/v1/running/{number}/kill", post(running::kill))
        .route("/v1/state", get(state::buckets))
        .route("/v1/state/{bucket}/keys", get(state::keys))
        .route("/v1/state/{bucket}/value", get(state::value))
        .route("/healthz", get(async || "alive\n"))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        // The routes that read a body have limits of their own.
        .layer(DefaultBodyLimit::disable())
        .layer(from_fn(guard::local_only))
        .with_state(api)
}

async fn ready(State(api): State<Api>) -> Result<&'static str, Problem> {
    if api.readiness.is_open() {
        Ok("ready\n")
    } else {
        Err(Problem::new(problem::NOT_READY, "the runtime is starting or stopping; ask again in a second"))
    }
}

async fn metrics(State(api): State<Api>) -> ([(header::HeaderName, &'static str); 1], String) {
    let reloads = api.deployment.as_ref().map(Deployment::reloads);
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], api.metrics.render(reloads.as_ref()))
}

async fn unknown_path(uri: Uri) -> Problem {
    Problem::new(
        problem::UNKNOWN_PATH,
        format!(
            "there is nothing at `{}`: there are /v1/events, /v1/queues, /v1/queues/{{queue}}, \
             /v1/queues/{{queue}}/entries, /v1/queues/{{queue}}/pause, /v1/queues/{{queue}}/resume, /v1/entries/{{entry}}, /v1/handlers, /v1/handlers/{{handler}}/component, \
             /v1/handlers/{{handler}}/rollback, /v1/status, /v1/running, /v1/state, \
             /v1/state/{{bucket}}/keys, /v1/state/{{bucket}}/value, /metrics, /healthz and /readyz",
            uri.path().escape_debug()
        ),
    )
}

async fn wrong_method(method: Method, uri: Uri) -> Problem {
    Problem::new(
        problem::WRONG_METHOD,
        format!("`{}` does not understand {method}; the header `Allow` names what it does", uri.path().escape_debug()),
    )
}
