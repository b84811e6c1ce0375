//! What a component wants, compared with what it is granted: only to say what is missing. A grant that covers what is
//! wanted in a way that is not seen here is named as missing; nothing follows from that.

use std::fmt::Display;
use std::net::SocketAddr;

use gristmill_core::http::{HttpHost, HttpHosts, HttpTarget};
use gristmill_core::socket::Peer;
use gristmill_core::{HttpGrant, SocketGrant};

use super::Granted;

impl Granted {
    /// Whether nothing is granted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// What of this `granted` does not cover.
    #[must_use]
    pub fn beyond(&self, granted: &Self) -> Self {
        Self {
            emit: kept(&self.emit, |wanted| !granted.emit.iter().any(|pattern| pattern.covers(wanted))),
            state: kept(&self.state, |wanted| {
                !granted.state.iter().any(|grant| grant.bucket == wanted.bucket && grant.access >= wanted.access)
            }),
            env: kept(&self.env, |wanted| !granted.env.contains(wanted)),
            files: kept(&self.files, |wanted| {
                !granted.files.iter().any(|grant| grant.guest == wanted.guest && grant.access >= wanted.access)
            }),
            sockets: kept(&self.sockets, |wanted| !granted.sockets.iter().any(|grant| covers_sockets(grant, wanted))),
            http: kept(&self.http, |wanted| !granted.http.iter().any(|grant| covers_http(grant, wanted))),
        }
    }

    /// The line of runtime.toml that grants all of this; `None`: it is nothing.
    #[must_use]
    pub fn line(&self) -> Option<String> {
        let parts = [
            part("emit", self.emit.iter()),
            part("state", self.state.iter()),
            part("http", self.http.iter()),
            part("env", self.env.iter()),
            part("files", self.files.iter()),
            part("sockets", self.sockets.iter()),
        ];
        let parts: Vec<_> = parts.into_iter().flatten().collect();
        (!parts.is_empty()).then(|| format!("grant = {{ {} }}", parts.join(", ")))
    }
}

fn kept<T: Clone>(items: &[T], is_kept: impl Fn(&T) -> bool) -> Vec<T> {
    items.iter().filter(|item| is_kept(item)).cloned().collect()
}

fn covers_sockets(grant: &SocketGrant, wanted: &SocketGrant) -> bool {
    let has_port = grant.port.is_none() || grant.port == wanted.port;
    let has_peer = match (&grant.peer, &wanted.peer) {
        (Peer::Network { prefix: granted, .. }, Peer::Network { address, prefix }) => {
            let port = wanted.port.or(grant.port).unwrap_or(1);
            granted <= prefix && grant.covers(wanted.protocol, SocketAddr::new(*address, port))
        }
        (granted, wanted) => granted == wanted,
    };
    grant.protocol == wanted.protocol && has_port && has_peer
}

fn covers_http(grant: &HttpGrant, wanted: &HttpGrant) -> bool {
    // A name below stands for all of them, but where exactly that one is granted.
    let host = match (&grant.hosts, &wanted.hosts) {
        (HttpHosts::One(_), HttpHosts::Below(_)) => return false,
        (_, HttpHosts::Below(domain)) => HttpHost::Name(format!("any.{domain}")),
        (_, HttpHosts::One(host)) => host.clone(),
    };
    let path = if wanted.path.is_empty() { "/" } else { &wanted.path };
    let covers =
        |method| grant.covers(&HttpTarget { method, scheme: wanted.scheme, host: &host, port: wanted.port, path });
    let has_methods = match wanted.methods.as_slice() {
        [] => grant.methods.is_empty() && covers("GET"),
        methods => methods.iter().all(|method| covers(method)),
    };
    has_methods && grant.reach >= wanted.reach
}

fn part<T: Display>(key: &str, items: impl Iterator<Item = T>) -> Option<String> {
    let mut items = items.peekable();
    items.peek()?;
    Some(format!("{key} = {}", list(items)))
}

/// A list of strings in TOML.
pub(super) fn list<T: Display>(items: impl Iterator<Item = T>) -> String {
    let items: Vec<_> = items.map(|item| in_quotes(&item.to_string())).collect();
    format!("[{}]", items.join(", "))
}

/// A string in TOML.
fn in_quotes(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => quoted += &format!("\\u{:04x}", u32::from(c)),
            c => quoted.push(c),
        }
    }
    quoted + "\""
}
