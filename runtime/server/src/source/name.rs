//! How a component is named in a configuration.

use std::net::{IpAddr, Ipv6Addr};
use std::path::PathBuf;

use oci_client::{ParseError, Reference};
use reqwest::Url;

use super::Source;
use crate::config::quoted;

/// Why a text names no component. All of it is for a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unusable {
    /// What is wrong.
    pub message: String,
    /// What was expected there.
    pub expected: &'static str,
    /// What to do.
    pub help: String,
}

const PATH_HELP: &str = "give the path of a file; a relative one starts from the folder of this file";
const OCI_FORM: &str = "expected `oci://REGISTRY/NAME:TAG`";

impl Source {
    /// Reads a path, `https://…` or `oci://REGISTRY/NAME:TAG`; with `@sha256:…` instead of the tag, or after it, that
    /// manifest. A path is as it was written.
    ///
    /// # Errors
    /// When it is none of these.
    pub fn parse(text: &str) -> Result<Self, Unusable> {
        match text.split_once("://") {
            None if text.is_empty() => {
                let message = "`component` is empty".to_owned();
                Err(Unusable { message, expected: "expected a path", help: PATH_HELP.to_owned() })
            }
            None => Ok(Self::Path(PathBuf::from(text))),
            Some(("oci", reference)) => Ok(Self::Oci { reference: oci(text, reference)? }),
            Some(("https", _)) => Ok(Self::Https { url: https(text)? }),
            Some(("http", _)) => Err(Unusable {
                message:
                    "a component is not fetched over `http://`: whoever is on the way could put another in its place"
                        .to_owned(),
                expected: "expected `https://`",
                help: format!("use `https://` or `oci://`, or download it, and {PATH_HELP}"),
            }),
            Some((scheme, _)) => Err(Unusable {
                message: format!("a component from {} is not supported", quoted(&format!("{scheme}://"))),
                expected: "expected a path, `https://` or `oci://`",
                help: format!("download it, and {PATH_HELP}"),
            }),
        }
    }
}

fn https(text: &str) -> Result<Url, Unusable> {
    let url = Url::parse(text).map_err(|error| Unusable {
        message: format!("{} is not a URL: {error}", quoted(text)),
        expected: "expected `https://HOST/PATH`",
        help: "for example: component = \"https://example.com/resize.wasm\"".to_owned(),
    })?;
    if url.username().is_empty() && url.password().is_none() {
        return Ok(url);
    }
    Err(Unusable {
        message: "a user and a password in the URL of a component are not supported".to_owned(),
        expected: "expected `https://HOST/PATH`",
        help: "put it where everybody may have it, or into a registry: `docker login` knows the password for that"
            .to_owned(),
    })
}

fn oci(text: &str, reference: &str) -> Result<Reference, Unusable> {
    let refuse = |message: String, help: &str| Unusable { message, expected: OCI_FORM, help: help.to_owned() };
    let Some((registry, rest)) = reference.split_once('/').filter(|(first, _)| is_registry(first)) else {
        let help = "a registry is a host, such as `ghcr.io` or `localhost:5000`; Docker's own is `docker.io`";
        return Err(refuse(format!("{} names no registry", quoted(text)), help));
    };
    // The crate takes no IPv6 address for a registry, so any other stands in for it.
    let parsed: Reference = format!("localhost/{rest}").parse().map_err(|error| {
        let help = match error {
            ParseError::NameContainsUppercase => "names in registries are in lower case",
            ParseError::DigestInvalidLength | ParseError::DigestInvalidFormat | ParseError::DigestUnsupported => {
                "the digest of a manifest is `sha256:` and 64 hexadecimal digits"
            }
            _ => "a name is of a-z, 0-9, `.`, `_`, `-` and `/`; a tag of at most 128 letters, digits, `.`, `_` and `-`",
        };
        refuse(format!("{} is not the name of an artifact", quoted(text)), help)
    })?;
    let is_latest_by_default =
        parsed.digest().is_none() && !rest.ends_with(":latest") && parsed.tag() == Some("latest");
    if is_latest_by_default {
        let message = format!("{} has neither a tag nor a digest", quoted(text));
        return Err(refuse(message, "say which one is wanted, for example with `:1.0` at its end"));
    }
    let (registry, name) = (registry.to_owned(), parsed.repository().to_owned());
    Ok(match (parsed.tag(), parsed.digest()) {
        (Some(tag), Some(digest)) => Reference::with_tag_and_digest(registry, name, tag.to_owned(), digest.to_owned()),
        (None, Some(digest)) => Reference::with_digest(registry, name, digest.to_owned()),
        (tag, None) => Reference::with_tag(registry, name, tag.unwrap_or_default().to_owned()),
    })
}

/// Whether it is a host, with or without a port; `acme` is none, as it is none for Docker.
fn is_registry(text: &str) -> bool {
    let Some((host, port)) = host_and_port(text) else { return false };
    let is_host = match host.strip_prefix('[') {
        Some(address) => address.trim_end_matches(']').parse::<Ipv6Addr>().is_ok(),
        None => {
            let is_label =
                |label: &str| !label.is_empty() && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
            host.split('.').all(is_label) && (host.contains('.') || host == "localhost" || port.is_some())
        }
    };
    is_host && port.is_none_or(|port| port.parse::<u16>().is_ok())
}

fn host_and_port(text: &str) -> Option<(&str, Option<&str>)> {
    if text.starts_with('[') {
        let end = text.find(']')? + 1;
        let (host, rest) = text.split_at(end);
        return if rest.is_empty() { Some((host, None)) } else { Some((host, Some(rest.strip_prefix(':')?))) };
    }
    Some(text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port))))
}

/// Whether a registry is on this machine: such a one is asked over plain HTTP.
pub(super) fn is_loopback(registry: &str) -> bool {
    let host = host_and_port(registry).map_or(registry, |(host, _)| host);
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registry_is_a_host() {
        let parsed = |text: &str| match Source::parse(text) {
            Ok(Source::Oci { reference }) => (reference.registry().to_owned(), reference.repository().to_owned()),
            other => panic!("{text}: {other:?}"),
        };
        for registry in
            ["ghcr.io", "localhost", "localhost:5000", "registry:5000", "127.0.0.1:5000", "[::1]:5000", "[::1]"]
        {
            assert_eq!(parsed(&format!("oci://{registry}/a/b:1")), (registry.to_owned(), "a/b".to_owned()));
        }
        for registry in ["acme", "", "ghcr.io:", "ghcr.io:x", "[::1", "[::1]5000", "[1]", "a..b", "user@ghcr.io"] {
            assert!(Source::parse(&format!("oci://{registry}/a/b:1")).is_err(), "{registry}");
        }
    }

    #[test]
    fn only_this_machine_is_asked_over_plain_http() {
        for registry in ["localhost", "localhost:5000", "127.0.0.1:5000", "127.8.9.1", "[::1]:5000", "[::1]"] {
            assert!(is_loopback(registry), "{registry}");
        }
        for registry in ["ghcr.io", "localhost.example.com", "10.0.0.1:5000", "[2001:db8::1]:5000", "registry:5000"] {
            assert!(!is_loopback(registry), "{registry}");
        }
    }

    #[test]
    fn a_source_is_shown_as_it_was_written() {
        let digest = format!("@sha256:{}", "0".repeat(64));
        for text in
            ["oci://ghcr.io/acme/resize:1", "oci://[::1]:5000/a:latest", "https://example.com/a.wasm", "a/b.wasm"]
        {
            assert_eq!(Source::parse(text).map(|source| source.to_string()).as_deref(), Ok(text));
        }
        for text in [format!("oci://ghcr.io/acme/resize{digest}"), format!("oci://ghcr.io/acme/resize:1{digest}")] {
            assert_eq!(Source::parse(&text).map(|source| source.to_string()), Ok(text));
        }
        let with_token = Source::parse("https://example.com/a.wasm?token=hush#x").map(|source| source.to_string());
        assert_eq!(with_token.as_deref(), Ok("https://example.com/a.wasm?…"));
    }
}
