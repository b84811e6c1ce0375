//! Hosts: the one that a request goes to, and those that a grant names.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::host_name::is_host_name;

/// What stands before a domain for every name below it.
const BELOW: &str = "*.";

/// Where a request goes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HttpHost {
    /// A name, in lower case.
    Name(String),
    /// An address, written as such.
    Address(IpAddr),
}

impl HttpHost {
    /// The host in a URL: a name, an IPv4 address in four decimal numbers, or an IPv6 address in brackets. `None` for
    /// anything else, also for the other spellings of IPv4 addresses, such as `127.1`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if let Some(inner) = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')) {
            return inner.parse::<Ipv6Addr>().ok().map(|address| Self::Address(address.into()));
        }
        if let Ok(address) = text.parse::<Ipv4Addr>() {
            return Some(Self::Address(address.into()));
        }
        is_host_name(text).then(|| Self::Name(text.to_ascii_lowercase()))
    }
}

/// As in a URL.
impl fmt::Display for HttpHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Address(IpAddr::V4(address)) => write!(f, "{address}"),
            Self::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
        }
    }
}

/// The hosts that a grant is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HttpHosts {
    /// This one.
    One(HttpHost),
    /// Every name below this domain, and not the domain itself.
    Below(String),
}

impl HttpHosts {
    /// `HOST` or `*.DOMAIN`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        match text.strip_prefix(BELOW) {
            None => HttpHost::parse(text).map(Self::One),
            Some(domain) => match HttpHost::parse(domain)? {
                HttpHost::Name(domain) => Some(Self::Below(domain)),
                HttpHost::Address(_) => None,
            },
        }
    }

    pub(super) fn contains(&self, host: &HttpHost) -> bool {
        match (self, host) {
            (Self::One(one), host) => one == host,
            (Self::Below(domain), HttpHost::Name(name)) => {
                name.strip_suffix(domain.as_str()).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
            }
            (Self::Below(_), HttpHost::Address(_)) => false,
        }
    }
}

impl fmt::Display for HttpHosts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::One(host) => host.fmt(f),
            Self::Below(domain) => write!(f, "{BELOW}{domain}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_names_or_addresses() {
        let name = |name: &str| Some(HttpHost::Name(name.to_owned()));
        assert_eq!(HttpHost::parse("API.Example.com"), name("api.example.com"));
        assert_eq!(HttpHost::parse("my_host"), name("my_host"));
        assert_eq!(HttpHost::parse("10.0.0.7"), Some(HttpHost::Address(IpAddr::from([10, 0, 0, 7]))));
        assert_eq!(HttpHost::parse("[::1]"), Some(HttpHost::Address(Ipv6Addr::LOCALHOST.into())));
        for wrong in ["", "a..b", "::1", "[10.0.0.7]", "[fe80::1%eth0]", "[::1", "127.1", "0x7f000001", "1.2.3.4.5"] {
            assert_eq!(HttpHost::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_star_is_for_every_name_below() {
        let below = HttpHosts::parse("*.Example.com").unwrap();
        let covers = |host: &str| below.contains(&HttpHost::parse(host).unwrap());
        assert!(covers("a.example.com") && covers("a.b.EXAMPLE.com"));
        for other in ["example.com", "badexample.com", "a.example.com.evil.org", "a.example.org", "10.0.0.7"] {
            assert!(!covers(other), "{other}");
        }
        for wrong in ["*", "*.", "*example.com", "a.*.com", "*.10.0.0.7", "*.*.com", "*.[::1]"] {
            assert_eq!(HttpHosts::parse(wrong), None, "{wrong}");
        }
    }
}
