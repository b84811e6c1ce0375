//! Requests over TLS: whom the host trusts, and for which name.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::sync::Arc;

use gristmill_core::{Event, Outcome};
use gristmill_host::{Grants, Host, HostError, HostOptions, Invocation, LoadRequest};
use gristmill_test_guests::{CALLER, bytes};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};
use support::server::{PATIENCE, Server, response};
use support::{invocation, request};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// An authority that nobody else knows.
struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    /// A server with a certificate for these names.
    async fn server(&self, names: &[&str]) -> Server {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &self.issuer).unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config =
            rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = config.with_no_client_auth().with_single_cert(vec![certificate.der().clone()], key).unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        Server::over(response("200 OK", "", "safe"), move |stream| {
            let acceptor = acceptor.clone();
            async move {
                match acceptor.accept(stream).await {
                    Ok(stream) => stream,
                    // The client went: there is nothing to serve.
                    Err(_) => std::future::pending().await,
                }
            }
        })
        .await
    }

    async fn ask(&self, url: &str) -> Value {
        ask(&HostOptions { authorities: Some(self.pem.clone().into_bytes()), ..HostOptions::default() }, url).await
    }
}

async fn ask(options: &HostOptions, url: &str) -> Value {
    let grants = Grants { http: vec![url.parse().unwrap()], ..Grants::default() };
    let host = Host::new(HostOptions { instances: 2, ..options.clone() }).unwrap();
    let caller = host.load(LoadRequest { grants, ..request(bytes(CALLER)) }).await.unwrap();
    let mut event = Event::new("1", "/test", "test.call");
    event.data = Some(json!({ "url": url }).to_string().into());
    let mut invocation = Invocation { event: Arc::new(event), ..invocation() };
    invocation.limits.timeout = PATIENCE;
    let report = caller.handle(invocation).await;
    let Outcome::Ack { result: Some(result) } = &report.outcome else { panic!("{:?}", report.outcome) };
    serde_json::from_slice(result).unwrap()
}

#[tokio::test]
async fn a_certificate_has_to_be_for_the_host() {
    let authority = Authority::new();
    let both = authority.server(&["localhost", "127.0.0.1"]).await;
    let port = both.address.port();
    for host in ["localhost", "127.0.0.1"] {
        let told = authority.ask(&format!("https://{host}:{port}")).await;
        assert_eq!((&told["status"], &told["body"]), (&json!(200), &json!("safe")), "{host}: {told}");
    }
    for (name, host) in [("localhost", "127.0.0.1"), ("127.0.0.1", "localhost"), ("other.example.com", "localhost")] {
        let server = authority.server(&[name]).await;
        let told = authority.ask(&format!("https://{host}:{}", server.address.port())).await;
        assert_eq!(told, json!({ "error": "TlsCertificateError" }), "{name} asked for as {host}");
    }
}

#[tokio::test]
async fn a_certificate_has_to_come_from_an_authority_that_is_trusted() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let server = authority.server(&["localhost"]).await;
    let url = format!("https://localhost:{}", server.address.port());
    let error = json!({ "error": "TlsCertificateError" });
    assert_eq!(ask(&HostOptions::default(), &url).await, error, "public authorities only");
    assert_eq!(stranger.ask(&url).await, error, "and another one");
}

#[tokio::test]
async fn a_server_that_speaks_no_tls_is_an_error_of_the_protocol() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut hello = [0; 64];
            stream.read_exact(&mut hello).await.unwrap();
            stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        }
    });
    let told = Authority::new().ask(&format!("https://localhost:{port}")).await;
    assert_eq!(told, json!({ "error": "TlsProtocolError" }));
}

#[test]
fn authorities_that_are_none_are_refused() {
    let words = |pem: &str| {
        let authorities = Some(pem.as_bytes().to_vec());
        match Host::new(HostOptions { authorities, ..HostOptions::default() }) {
            Err(error @ HostError::Authorities { .. }) => error.to_string(),
            other => panic!("{other:?}"),
        }
    };
    assert!(words("").contains("there is no certificate in it"));
    let good = Authority::new().pem;
    let bad = format!("{good}-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    assert!(words(&bad).contains("certificate 2 cannot be used: "), "{}", words(&bad));
}
