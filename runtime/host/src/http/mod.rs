//! `wasi:http/outgoing-handler` of WASI 0.2 and `wasi:http/client` of WASI 0.3: requests that a handler sends, as far as they
//! are granted.
//!
//! | file | holds |
//! | --- | --- |
//! | `address` | which addresses are public |
//! | `connect` | names to addresses to connections |
//! | `send` | one request over one connection, with its limits |
//! | `tls` | whom the host trusts |
//! | `denials` | what the log says of what was refused |
//! | `link` | the functions that guests import |
//!
//! **A request goes where it was checked to go**: the name is resolved once, every address of it is checked, and one of
//! those is connected to. Redirects are not followed: the guest would have to send another request, and that is checked.

mod address;
mod connect;
mod denials;
mod link;
mod send;
mod tls;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use gristmill_core::http::{HttpHost, HttpReach, HttpScheme, HttpTarget};
use http::header::HOST;
use http::uri::Scheme;
use http::{HeaderValue, Request, Response, Uri};
use tokio::sync::{Semaphore, watch};
use wasmtime::component::ResourceTable;
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody, WasiHttpCtx, WasiHttpCtxView, WasiHttpHooks};

use self::connect::{Destination, Lookups, Traffic};
pub(crate) use self::link::{link, link_async};
use self::send::Sending;
use crate::component::Identity;
use crate::error::HostError;
use crate::replay::Scene;
use crate::stdio::SharedLog;

/// Connections of one invocation at once; further requests wait for one of them to end.
const MAX_CONNECTIONS: usize = 8;
/// Names that are looked up at once, by all invocations. The operating system does that in a thread, and cannot be told to
/// stop: whoever drops a lookup must not be free to begin the next.
const MAX_LOOKUPS: usize = 64;
/// How many of those one component may have going on.
const MAX_OWN_LOOKUPS: usize = 8;
/// About as many bytes of headers as a request or a response of a guest may have.
const MAX_HEADERS: usize = 32 << 10;
/// How much of a body a guest may write at once; twice that is kept until it is sent.
const CHUNK: usize = 16 << 10;

/// What a response and the rest of its connection are.
type Sent = Result<(Response<WasiBody>, Box<dyn Future<Output = Result<(), Error>> + Send>), Error>;

/// What all requests of a host have in common. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Client {
    tls: Arc<rustls::ClientConfig>,
    lookups: Lookups,
}

impl Client {
    /// Trusts the public authorities and those in `authorities`, PEM text.
    pub(crate) fn new(authorities: Option<&[u8]>) -> Result<Self, HostError> {
        let tls = tls::config(authorities).map_err(|reason| HostError::Authorities { reason })?;
        let (all, own) = (Semaphore::new(MAX_LOOKUPS), Semaphore::new(MAX_OWN_LOOKUPS));
        Ok(Self { tls: Arc::new(tls), lookups: Lookups { all: Arc::new(all), own: Arc::new(own) } })
    }

    /// The same for another component, which is not kept waiting by the look-ups of this one.
    pub(crate) fn for_another(&self) -> Self {
        let lookups = Lookups { all: self.lookups.all.clone(), own: Arc::new(Semaphore::new(MAX_OWN_LOOKUPS)) };
        Self { tls: self.tls.clone(), lookups }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Client")
    }
}

/// One invocation's side of `wasi:http`.
pub(crate) struct Http {
    ctx: WasiHttpCtx,
    hooks: Hooks,
}

impl Http {
    /// A replay's sends nothing.
    pub(crate) fn new(identity: Arc<Identity>, log: SharedLog, scene: Option<Arc<Scene>>) -> Self {
        let mut ctx = WasiHttpCtx::new();
        ctx.set_field_size_limit(MAX_HEADERS);
        Self { ctx, hooks: Hooks { identity, log, scene, session: None } }
    }

    /// `table` is the one that streams are in.
    pub(crate) fn view<'a>(&'a mut self, table: &'a mut ResourceTable) -> WasiHttpCtxView<'a> {
        WasiHttpCtxView { hooks: &mut self.hooks, table, ctx: &mut self.ctx }
    }

    /// Ends the invocation's requests and connections, whatever the guest keeps of them, and is as new then. Returns how
    /// many bytes were sent, and how many received.
    pub(crate) fn end(&mut self) -> (u64, u64) {
        let Some(Session { traffic, .. }) = self.hooks.session.take() else { return (0, 0) };
        (traffic.sent.load(Ordering::Relaxed), traffic.received.load(Ordering::Relaxed))
    }
}

/// Sends what is granted.
struct Hooks {
    identity: Arc<Identity>,
    log: SharedLog,
    /// Of a replay.
    scene: Option<Arc<Scene>>,
    /// Made with the first request: most invocations send none.
    session: Option<Session>,
}

/// What the requests of one invocation have in common.
struct Session {
    connections: Arc<Semaphore>,
    traffic: Arc<Traffic>,
    /// Dropped when the invocation ends, and whoever subscribes ends with it.
    going_on: watch::Sender<()>,
}

impl Session {
    fn new() -> Self {
        let connections = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        Self { connections, traffic: Arc::default(), going_on: watch::Sender::new(()) }
    }
}

impl Hooks {
    /// What it takes to send `request`, if it may be sent; it then says what servers want to read.
    fn admit(&mut self, request: &mut Request<WasiBody>) -> Result<Sending, Error> {
        let to = destination(request.uri())?;
        let Identity { grants, http, .. } = &*self.identity;
        let Some(reach) = self.reach(request, &to) else {
            denials::not_granted(&self.log, &asked(request, &to), &grants.http);
            return Err(Error::HttpRequestDenied);
        };
        if let Some(scene) = &self.scene {
            scene.refuse_http();
            denials::replayed(&self.log, &asked(request, &to));
            return Err(Error::HttpRequestDenied);
        }
        let host = HeaderValue::try_from(to.to_string()).map_err(|_| Error::HttpRequestUriInvalid)?;
        request.headers_mut().insert(HOST, host);
        let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
        *request.uri_mut() = path.parse::<Uri>().map_err(|_| Error::HttpRequestUriInvalid)?;
        let (client, log) = (http.clone(), self.log.clone());
        let Session { connections, traffic, going_on } = self.session.get_or_insert_with(Session::new);
        let (connections, traffic, going_on) = (connections.clone(), traffic.clone(), going_on.subscribe());
        Ok(Sending { to, reach, client, connections, traffic, log, going_on })
    }

    /// As far as the grants that cover a request let it reach; `None`: none does.
    fn reach(&self, request: &Request<WasiBody>, to: &Destination) -> Option<HttpReach> {
        let Destination { scheme, host, port } = to;
        let (method, path) = (request.method().as_str(), request.uri().path());
        let target = HttpTarget { method, scheme: *scheme, host, port: *port, path };
        let covering = self.identity.grants.http.iter().filter(|grant| grant.covers(&target));
        covering.map(|grant| grant.reach).max()
    }
}

impl WasiHttpHooks for Hooks {
    fn send_request(
        &mut self,
        mut request: Request<WasiBody>,
        options: Option<RequestOptions>,
        _processed: Box<dyn Future<Output = Result<(), Error>> + Send>,
    ) -> Box<dyn Future<Output = Sent> + Send> {
        let admitted = self.admit(&mut request);
        Box::new(async move {
            let sending = admitted?;
            let mut going_on = sending.going_on.clone();
            tokio::select! {
                biased;
                _ = going_on.changed() => Err(Error::ConnectionTerminated),
                sent = sending.send(request, options.unwrap_or_default()) => sent,
            }
        })
    }

    fn p2_outgoing_body_chunk_size(&mut self) -> usize {
        CHUNK
    }

    fn p3_outgoing_body_chunk_size(&mut self) -> usize {
        CHUNK
    }
}

/// What the log says of a request. Paths may be secrets, those of webhooks for instance.
fn asked(request: &Request<WasiBody>, Destination { scheme, host, port }: &Destination) -> String {
    format!("{} {}://{host}:{port}", request.method(), scheme.as_str())
}

/// Where a request goes: scheme, host and port, and nothing else in between, such as a user's name.
fn destination(uri: &Uri) -> Result<Destination, Error> {
    let scheme = match uri.scheme() {
        Some(scheme) if *scheme == Scheme::HTTP => HttpScheme::Http,
        Some(scheme) if *scheme == Scheme::HTTPS => HttpScheme::Https,
        _ => return Err(Error::HttpRequestUriInvalid),
    };
    let authority = uri.authority().ok_or(Error::HttpRequestUriInvalid)?;
    let port = authority.as_str().strip_prefix(authority.host()).ok_or(Error::HttpRequestUriInvalid)?;
    let port = match port.strip_prefix(':') {
        None if port.is_empty() => scheme.default_port(),
        Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => {
            digits.parse().map_err(|_| Error::HttpRequestUriInvalid)?
        }
        _ => return Err(Error::HttpRequestUriInvalid),
    };
    let host = HttpHost::parse(authority.host()).ok_or(Error::HttpRequestUriInvalid)?;
    Ok(Destination { scheme, host, port })
}

/// As in the header `Host`.
impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.host.fmt(f)?;
        if self.port == self.scheme.default_port() { Ok(()) } else { write!(f, ":{}", self.port) }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;

    use gristmill_core::HandlerName;
    use http_body_util::{BodyExt as _, Empty};
    use tokio::io::AsyncReadExt as _;
    use tokio::net::TcpListener;

    use super::*;
    use crate::options::Grants;
    use crate::surroundings::Surroundings;

    fn parsed(uri: &str) -> Result<String, ()> {
        destination(&uri.parse().map_err(|_| ())?).map(|to| to.to_string()).map_err(|_| ())
    }

    #[test]
    fn only_host_and_port_say_where_a_request_goes() {
        for (uri, to) in [
            ("https://API.example.com/x?y", "api.example.com"),
            ("https://a:443/", "a"),
            ("http://a:443/", "a:443"),
            ("http://[::1]:8080/", "[::1]:8080"),
            ("http://10.0.0.7/", "10.0.0.7"),
        ] {
            assert_eq!(parsed(uri).as_deref(), Ok(to), "{uri}");
        }
        for wrong in
            ["http://user@a/", "http://a@b:80/", "http://a:/", "http://a:99999/", "http://127.1/", "ftp://a/", "/path"]
        {
            assert_eq!(parsed(wrong), Err(()), "{wrong}");
        }
    }

    #[test]
    fn no_component_takes_the_look_ups_of_another() {
        let host = Client::new(None).unwrap();
        let (one, other) = (host.for_another(), host.for_another());
        let all_of_one = one.lookups.own.try_acquire_many(u32::try_from(MAX_OWN_LOOKUPS).unwrap()).unwrap();
        assert!(one.lookups.own.try_acquire().is_err());
        assert_eq!(other.lookups.own.available_permits(), MAX_OWN_LOOKUPS);
        drop(all_of_one);
        assert!(Arc::ptr_eq(&one.lookups.all, &other.lookups.all), "the limit of the host is for both");
    }

    #[tokio::test]
    async fn what_goes_on_ends_with_the_invocation() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let grants = Grants { http: vec![url.parse().unwrap()], ..Grants::default() };
        let (name, http) = (HandlerName::new("a").unwrap(), Client::new(None).unwrap());
        let surroundings = Surroundings::new(&grants).unwrap();
        let identity = Identity { name, digest: String::new(), grants, surroundings, http };
        let mut http = Http::new(Arc::new(identity), SharedLog::new(100), None);
        let body = Empty::new().map_err(Error::from).boxed_unsync();
        let request = Request::get(url).body(body).unwrap();
        let sent = http.hooks.send_request(request, None, Box::new(std::future::ready(Ok(()))));
        let sending = tokio::spawn(Pin::from(sent));
        let (mut stream, _) = listener.accept().await.unwrap();
        assert!(stream.read(&mut [0; 8]).await.unwrap() > 0);

        let (sent, received) = http.end();
        assert!(sent > 0 && received == 0);
        assert!(matches!(sending.await.unwrap(), Err(Error::ConnectionTerminated)));
        assert!(stream.read_to_end(&mut Vec::new()).await.is_ok(), "it was closed");
        assert_eq!(http.end(), (0, 0));
    }
}
