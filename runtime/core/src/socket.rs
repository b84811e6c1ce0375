//! Addresses that a handler may be granted.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use crate::host_name::is_host_name;

/// How two sockets talk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// In streams.
    Tcp,
    /// In datagrams.
    Udp,
}

/// Whom a grant is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peer {
    /// Every address that begins with the same bits.
    Network {
        /// One of them.
        address: IpAddr,
        /// How many bits are the same; all of them where it is one address.
        prefix: u8,
    },
    /// Whatever addresses the name has when it is used. In lower case.
    Name(String),
}

/// Addresses that a handler may talk to: `tcp://HOST:PORT` or `udp://HOST:PORT`, where `HOST` is an address, a network
/// (`10.0.0.0/8`, `[fd00::/8]`) or a name, and `PORT` a number or `*`.
///
/// ```
/// use gristmill_core::socket::{Protocol, SocketGrant};
///
/// let grant: SocketGrant = "tcp://10.0.0.0/8:5432".parse()?;
/// assert!(grant.covers(Protocol::Tcp, "10.1.2.3:5432".parse().unwrap()));
/// assert!(!grant.covers(Protocol::Tcp, "11.1.2.3:5432".parse().unwrap()));
/// # Ok::<(), gristmill_core::socket::SocketGrantError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketGrant {
    /// How.
    pub protocol: Protocol,
    /// To whom.
    pub peer: Peer,
    /// On which port; `None`: any.
    pub port: Option<u16>,
}

/// Why something grants no addresses.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SocketGrantError {
    /// Neither `tcp://` nor `udp://`.
    #[error("{0:?} does not begin with tcp:// or udp://")]
    Protocol(String),
    /// No port at the end.
    #[error("{0:?} names no port")]
    NoPort(String),
    /// A port that there is not.
    #[error("{0:?} is not a port")]
    Port(String),
    /// Neither an address, nor a network, nor a name.
    #[error("{0:?} is neither an address, nor a network, nor a name")]
    Peer(String),
}

impl SocketGrant {
    /// Whether it allows to talk to `address`, as far as that can be told without looking up a name.
    #[must_use]
    pub fn covers(&self, protocol: Protocol, address: SocketAddr) -> bool {
        match &self.peer {
            Peer::Network { address: network, prefix } => {
                self.fits(protocol, address.port()) && is_within(address.ip().to_canonical(), *network, *prefix)
            }
            Peer::Name(_) => false,
        }
    }

    /// The name that has to be looked up to know whether it allows to talk to `address`.
    #[must_use]
    pub fn name_for(&self, protocol: Protocol, address: SocketAddr) -> Option<&str> {
        self.name().filter(|_| self.fits(protocol, address.port()))
    }

    /// The name that it is about.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        match &self.peer {
            Peer::Name(name) => Some(name),
            Peer::Network { .. } => None,
        }
    }

    fn fits(&self, protocol: Protocol, port: u16) -> bool {
        self.protocol == protocol && self.port.is_none_or(|granted| granted == port)
    }
}

/// Whether the first `prefix` bits are the same.
fn is_within(address: IpAddr, network: IpAddr, prefix: u8) -> bool {
    let shift = |bits: u32| bits.saturating_sub(prefix.into());
    match (address, network) {
        (IpAddr::V4(address), IpAddr::V4(network)) => {
            (address.to_bits() ^ network.to_bits()).checked_shr(shift(32)).unwrap_or(0) == 0
        }
        (IpAddr::V6(address), IpAddr::V6(network)) => {
            (address.to_bits() ^ network.to_bits()).checked_shr(shift(128)).unwrap_or(0) == 0
        }
        _ => false,
    }
}

impl FromStr for SocketGrant {
    type Err = SocketGrantError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (protocol, rest) = match text.split_once("://") {
            Some(("tcp", rest)) => (Protocol::Tcp, rest),
            Some(("udp", rest)) => (Protocol::Udp, rest),
            _ => return Err(SocketGrantError::Protocol(text.to_owned())),
        };
        let no_port = || SocketGrantError::NoPort(text.to_owned());
        let (peer, port) = rest.rsplit_once(':').ok_or_else(no_port)?;
        // The colon of an address without brackets and without a port.
        if peer.contains(':') && !peer.ends_with(']') || port.ends_with(']') {
            return Err(no_port());
        }
        let port = match port {
            "*" => None,
            port => match port.parse() {
                Ok(0) | Err(_) => return Err(SocketGrantError::Port(port.to_owned())),
                Ok(port) => Some(port),
            },
        };
        let peer = Peer::parse(peer).ok_or_else(|| SocketGrantError::Peer(peer.to_owned()))?;
        Ok(Self { protocol, peer, port })
    }
}

impl Peer {
    fn parse(text: &str) -> Option<Self> {
        if let Some(inner) = text.strip_prefix('[') {
            let (address, prefix) = network(inner.strip_suffix(']')?, 128)?;
            return Some(Self::Network { address: IpAddr::V6(address.parse::<Ipv6Addr>().ok()?), prefix });
        }
        let (address, prefix) = network(text, 32).unwrap_or((text, 32));
        if let Ok(address) = address.parse() {
            return Some(Self::Network { address: IpAddr::V4(address), prefix });
        }
        is_host_name(text).then(|| Self::Name(text.to_ascii_lowercase()))
    }
}

/// `ADDRESS` or `ADDRESS/PREFIX`, whose prefix has at most `bits`.
fn network(text: &str, bits: u8) -> Option<(&str, u8)> {
    match text.split_once('/') {
        None => Some((text, bits)),
        Some((address, prefix)) => prefix.parse().ok().filter(|prefix| *prefix <= bits).map(|prefix| (address, prefix)),
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

/// As it is written in a grant.
impl fmt::Display for SocketGrant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://", self.protocol)?;
        match &self.peer {
            Peer::Name(name) => f.write_str(name)?,
            Peer::Network { address: IpAddr::V4(address), prefix: 32 } => write!(f, "{address}")?,
            Peer::Network { address: IpAddr::V4(address), prefix } => write!(f, "{address}/{prefix}")?,
            Peer::Network { address: IpAddr::V6(address), prefix: 128 } => write!(f, "[{address}]")?,
            Peer::Network { address: IpAddr::V6(address), prefix } => write!(f, "[{address}/{prefix}]")?,
        }
        match self.port {
            Some(port) => write!(f, ":{port}"),
            None => f.write_str(":*"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant(text: &str) -> SocketGrant {
        text.parse().unwrap()
    }

    #[test]
    fn what_is_written_is_what_is_shown() {
        for text in [
            "tcp://127.0.0.1:80",
            "udp://10.0.0.0/8:8125",
            "tcp://0.0.0.0/0:443",
            "tcp://[::1]:5432",
            "udp://[fd00::/8]:*",
            "tcp://db.internal:5432",
            "tcp://localhost:*",
        ] {
            assert_eq!(grant(text).to_string(), text);
        }
        assert_eq!(grant("tcp://DB.Internal:1").name(), Some("db.internal"));
    }

    #[test]
    fn what_is_no_grant() {
        use SocketGrantError::{NoPort, Peer, Port, Protocol};
        for (text, error) in [
            ("10.0.0.1:80", Protocol("10.0.0.1:80".into())),
            ("http://a:80", Protocol("http://a:80".into())),
            ("tcp://db", NoPort("tcp://db".into())),
            ("tcp://::1", NoPort("tcp://::1".into())),
            ("tcp://[::1]", NoPort("tcp://[::1]".into())),
            ("tcp://db:0", Port("0".into())),
            ("tcp://db:65536", Port("65536".into())),
            ("tcp://db:80/", Port("80/".into())),
            ("tcp://:80", Peer(String::new())),
            ("tcp://10.0.0.0/33:80", Peer("10.0.0.0/33".into())),
            ("tcp://10.0.0:80", Peer("10.0.0".into())),
            ("tcp://0x7f000001:80", Peer("0x7f000001".into())),
            ("tcp://*.internal:80", Peer("*.internal".into())),
            ("tcp://db/24:80", Peer("db/24".into())),
            ("tcp://[10.0.0.1]:80", Peer("[10.0.0.1]".into())),
        ] {
            assert_eq!(text.parse::<SocketGrant>(), Err(error), "{text}");
        }
    }

    #[test]
    fn a_network_is_its_first_bits() {
        let covers =
            |grant: &str, address: &str| self::grant(grant).covers(super::Protocol::Tcp, address.parse().unwrap());
        for (grant, address) in [
            ("tcp://10.0.0.0/8:80", "10.255.0.1:80"),
            ("tcp://10.1.2.3/8:*", "10.0.0.1:1"),
            ("tcp://0.0.0.0/0:80", "8.8.8.8:80"),
            ("tcp://[::/0]:80", "[2001:db8::1]:80"),
            ("tcp://[fd00::/8]:80", "[fdff::1]:80"),
            ("tcp://10.0.0.1:80", "[::ffff:10.0.0.1]:80"),
        ] {
            assert!(covers(grant, address), "{grant} {address}");
        }
        for (grant, address) in [
            ("tcp://10.0.0.0/8:80", "11.0.0.1:80"),
            ("tcp://10.0.0.0/8:80", "10.0.0.1:81"),
            ("udp://10.0.0.0/8:80", "10.0.0.1:80"),
            ("tcp://10.0.0.0/31:80", "10.0.0.2:80"),
            ("tcp://10.0.0.1:80", "10.0.0.0:80"),
            ("tcp://[fd00::/8]:80", "[fe00::1]:80"),
            ("tcp://0.0.0.0/0:80", "[::1]:80"),
            ("tcp://localhost:80", "127.0.0.1:80"),
        ] {
            assert!(!covers(grant, address), "{grant} {address}");
        }
    }
}
