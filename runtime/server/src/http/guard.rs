//! Who may talk to a port without authentication: programs on this machine, and no web page.
//!
//! A page of somebody else can make the user's browser send requests to loopback. It gives itself away by `Host`, when
//! it has pointed a name of its own at 127.0.0.1 (DNS rebinding), or by `Origin`, when it posts across sites.

use std::net::{Ipv4Addr, Ipv6Addr};

use axum::extract::Request;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, Method, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::problem::{FORBIDDEN, Problem};

pub(super) async fn local_only(request: Request, next: Next) -> Response {
    match check(request.method(), request.uri(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    }
}

fn check(method: &Method, uri: &Uri, headers: &HeaderMap) -> Result<(), Problem> {
    let hosts = headers.get_all(header::HOST).iter().map(|value| value.to_str().unwrap_or_default());
    for host in hosts.chain(uri.authority().map(Authority::as_str)) {
        if !is_loopback(host) {
            return Err(Problem::new(
                FORBIDDEN,
                format!(
                    "the header `Host` names `{}`; this runtime answers to localhost, 127.0.0.1 and [::1] only",
                    host.escape_debug()
                ),
            ));
        }
    }
    if method == Method::GET || method == Method::HEAD {
        return Ok(());
    }
    for origin in headers.get_all(header::ORIGIN) {
        let origin = origin.to_str().unwrap_or_default();
        if !is_loopback_origin(origin) {
            return Err(Problem::new(
                FORBIDDEN,
                format!(
                    "a web page of `{}` sent this; pages from other machines may not change anything here",
                    origin.escape_debug()
                ),
            ));
        }
    }
    Ok(())
}

fn is_loopback_origin(origin: &str) -> bool {
    let authority = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
    authority.is_some_and(is_loopback)
}

/// `localhost`, `127.x.y.z` or `[::1]`, with or without a port.
fn is_loopback(authority: &str) -> bool {
    let Ok(authority) = authority.parse::<Authority>() else { return false };
    let host = authority.host();
    let v6 = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<Ipv4Addr>().is_ok_and(|ip| ip.is_loopback())
        || v6.and_then(|host| host.parse::<Ipv6Addr>().ok()).is_some_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_is_loopback() {
        for host in ["localhost", "LOCALHOST:8080", "127.0.0.1", "127.0.0.1:80", "[::1]", "[::1]:8080"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["", "evil.example", "localhost.evil.example:80", "127.0.0.1.nip.io", "10.0.0.1", "::1", "[::2]"] {
            assert!(!is_loopback(host), "{host}");
        }
    }

    #[test]
    fn pages_of_others_change_nothing() {
        let verdict = |method: Method, origin: &'static str| {
            let headers = HeaderMap::from_iter([
                (header::HOST, "localhost:8080".parse().unwrap()),
                (header::ORIGIN, origin.parse().unwrap()),
            ]);
            check(&method, &Uri::from_static("/v1/events"), &headers).is_ok()
        };
        assert!(verdict(Method::POST, "http://localhost:3000"));
        assert!(verdict(Method::GET, "https://evil.example"));
        assert!(!verdict(Method::POST, "https://evil.example"));
        assert!(!verdict(Method::POST, "null"));
        assert!(!verdict(Method::POST, "file://localhost"));
    }

    #[test]
    fn a_rebound_name_is_refused_in_both_forms() {
        let headers = HeaderMap::from_iter([(header::HOST, "evil.example".parse().unwrap())]);
        assert!(check(&Method::GET, &Uri::from_static("/"), &headers).is_err());
        assert!(check(&Method::GET, &Uri::from_static("http://evil.example/"), &HeaderMap::new()).is_err());
    }
}
