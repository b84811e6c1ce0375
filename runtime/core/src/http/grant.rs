//! Grants of HTTP: `GET,POST https://api.example.com/v1`, and what they cover.

use std::fmt;
use std::str::FromStr;

use super::host::{HttpHost, HttpHosts};

/// The word that a grant ends with when private addresses are meant.
const PRIVATE: &str = "private";
/// Means this machine, and so a private address.
const LOCALHOST: &str = "localhost";

/// Requests that a handler may send: `[METHOD,…] SCHEME://HOST[:PORT][/PATH] [private]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpGrant {
    /// In upper case; empty: every method.
    pub methods: Vec<String>,
    /// Of the URL.
    pub scheme: HttpScheme,
    /// Of the URL.
    pub hosts: HttpHosts,
    /// Of the URL; by default that of the scheme.
    pub port: u16,
    /// How the path begins, in whole segments. Empty: any path. Ends with `/` only if the path itself is not meant.
    pub path: String,
    /// Which addresses a name may have.
    pub reach: HttpReach,
}

/// How a server is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HttpScheme {
    /// In the clear.
    Http,
    /// Over TLS.
    Https,
}

/// Which addresses the name of a host may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HttpReach {
    /// Those of the public Internet.
    Public,
    /// Also loopback and private ones.
    Private,
}

/// A request, as far as a grant looks at it.
#[derive(Clone, Debug)]
pub struct HttpTarget<'a> {
    /// In upper case, as usual.
    pub method: &'a str,
    /// How.
    pub scheme: HttpScheme,
    /// Where to.
    pub host: &'a HttpHost,
    /// Where to.
    pub port: u16,
    /// Without the query.
    pub path: &'a str,
}

/// Why a text is no grant of HTTP.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HttpGrantError {
    /// There is no URL in it.
    #[error("`{}` holds no URL: expected `http://` or `https://` and a host", .0.escape_debug())]
    Url(String),
    /// It begins with another scheme.
    #[error("the scheme `{}` is not possible: use `http` or `https`", .0.escape_debug())]
    Scheme(String),
    /// What stands before the URL.
    #[error("`{}` is not a method: write methods in upper case, with commas between them", .0.escape_debug())]
    Method(String),
    /// A method that is no request.
    #[error("`CONNECT` cannot be granted: it opens a tunnel to anywhere")]
    Connect,
    /// Neither a name, nor an address, nor `*.` and a name.
    #[error("`{}` is not a host: write a name, `*.` and a name, an IPv4 address, or an IPv6 address in brackets", .0.escape_debug())]
    Host(String),
    /// Not 1 to 65535.
    #[error("`{}` is not a port: write 1 to 65535, or leave it out", .0.escape_debug())]
    Port(String),
    /// A path that requests cannot be compared with.
    #[error("`{}` is not the beginning of a path: write plain segments, without `?`, `#`, `%`, `//`, `.` and `..`", .0.escape_debug())]
    Path(String),
    /// What stands after the URL.
    #[error("`{}` is not understood: after the URL there may only be the word `private`", .0.escape_debug())]
    Word(String),
}

impl HttpScheme {
    /// Its name in a URL.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// The port that need not be written.
    #[must_use]
    pub const fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

impl HttpGrant {
    /// Whether it is for such a request. Never for `CONNECT`.
    #[must_use]
    pub fn covers(&self, target: &HttpTarget<'_>) -> bool {
        let method = target.method != "CONNECT"
            && (self.methods.is_empty() || self.methods.iter().any(|method| method == target.method));
        method
            && self.scheme == target.scheme
            && self.port == target.port
            && self.hosts.contains(target.host)
            && self.covers_path(target.path)
    }

    /// A server may read `/v1/../admin` as `/admin`: with a prefix, only paths that have one reading are covered.
    fn covers_path(&self, path: &str) -> bool {
        if self.path.is_empty() {
            return true;
        }
        let Some(rest) = path.strip_prefix(self.path.as_str()) else { return false };
        (self.path.ends_with('/') || rest.is_empty() || rest.starts_with('/')) && has_one_reading(path)
    }
}

impl FromStr for HttpGrant {
    type Err = HttpGrantError;

    fn from_str(text: &str) -> Result<Self, HttpGrantError> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let at = words.iter().position(|word| word.contains("://"));
        let Some((at, url)) = at.and_then(|at| words.get(at).map(|url| (at, *url))) else {
            return Err(HttpGrantError::Url(text.to_owned()));
        };
        let methods = methods(&words.get(..at).unwrap_or_default().join(" "))?;
        let (scheme, rest) = scheme(url)?;
        let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
        let (host, port) = authority_of(authority, scheme)?;
        let hosts = HttpHosts::parse(host).ok_or_else(|| HttpGrantError::Host(host.to_owned()))?;
        let is_here = hosts == HttpHosts::One(HttpHost::Name(LOCALHOST.to_owned()));
        let reach = match words.get(at + 1..).unwrap_or_default() {
            [] if is_here => HttpReach::Private,
            [] => HttpReach::Public,
            [word] if *word == PRIVATE => HttpReach::Private,
            others => return Err(HttpGrantError::Word(others.join(" "))),
        };
        Ok(Self { methods, scheme, hosts, port, path: prefix(path)?, reach })
    }
}

/// As it is written, with nothing that goes without saying.
impl fmt::Display for HttpGrant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.methods.is_empty() {
            write!(f, "{} ", self.methods.join(","))?;
        }
        write!(f, "{}://{}", self.scheme.as_str(), self.hosts)?;
        if self.port != self.scheme.default_port() {
            write!(f, ":{}", self.port)?;
        }
        f.write_str(&self.path)?;
        match self.reach {
            HttpReach::Public => Ok(()),
            HttpReach::Private => write!(f, " {PRIVATE}"),
        }
    }
}

fn methods(text: &str) -> Result<Vec<String>, HttpGrantError> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let method = |method: &str| match method.trim() {
        "CONNECT" => Err(HttpGrantError::Connect),
        method if !method.is_empty() && method.bytes().all(|b| b.is_ascii_uppercase() || b == b'-') => {
            Ok(method.to_owned())
        }
        other => Err(HttpGrantError::Method(other.to_owned())),
    };
    text.split(',').map(method).collect()
}

fn scheme(url: &str) -> Result<(HttpScheme, &str), HttpGrantError> {
    match url.split_once("://") {
        Some(("http", rest)) => Ok((HttpScheme::Http, rest)),
        Some(("https", rest)) => Ok((HttpScheme::Https, rest)),
        Some((other, _)) => Err(HttpGrantError::Scheme(other.to_owned())),
        None => Err(HttpGrantError::Url(url.to_owned())),
    }
}

/// Host and port.
fn authority_of(authority: &str, scheme: HttpScheme) -> Result<(&str, u16), HttpGrantError> {
    // The colons of an IPv6 address are inside of the brackets.
    let after_brackets = authority.rfind(']').map_or(0, |at| at + 1);
    let colon = authority.get(after_brackets..).and_then(|rest| rest.find(':')).map(|at| at + after_brackets);
    let Some((host, port)) = colon.map(|at| authority.split_at(at)) else {
        return Ok((authority, scheme.default_port()));
    };
    let port = port.trim_start_matches(':');
    match port.parse::<u16>() {
        Ok(number) if number > 0 && port.bytes().all(|b| b.is_ascii_digit()) => Ok((host, number)),
        _ => Err(HttpGrantError::Port(port.to_owned())),
    }
}

fn prefix(path: &str) -> Result<String, HttpGrantError> {
    match path {
        "" | "/" => Ok(String::new()),
        path if path.contains(['?', '#', '%']) || path.contains("//") || !has_one_reading(path) => {
            Err(HttpGrantError::Path(path.to_owned()))
        }
        path => Ok(path.to_owned()),
    }
}

/// Whether no segment goes up or stands for nothing, however a server decodes it.
fn has_one_reading(path: &str) -> bool {
    let path = path.to_ascii_lowercase().replace("%2e", ".");
    let ambiguous = ["\\", "%2f", "%5c", "%25", "%00"];
    let dots = |segment: &str| matches!(segment.split(';').next(), Some("." | ".."));
    !ambiguous.iter().any(|text| path.contains(text)) && !path.split('/').any(dots)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant(text: &str) -> HttpGrant {
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    /// `METHOD URL` as a request.
    fn covers(grant_text: &str, request: &str) -> bool {
        let (method, url) = request.split_once(' ').unwrap();
        let (scheme, rest) = scheme(url).unwrap();
        let (authority, path) = rest.find('/').map_or((rest, "/"), |at| rest.split_at(at));
        let (host, port) = authority_of(authority, scheme).unwrap();
        let host = HttpHost::parse(host).unwrap();
        grant(grant_text).covers(&HttpTarget { method, scheme, host: &host, port, path })
    }

    #[test]
    fn grants_are_read_as_they_are_written() {
        for text in [
            "https://api.example.com",
            "GET,POST http://example.com:8080/v1",
            "PUT https://*.example.com/files/",
            "http://[fd00::1]:81",
            "GET http://10.0.0.7:8080 private",
            "https://intranet private",
        ] {
            assert_eq!(grant(text).to_string(), text);
        }
        assert_eq!(grant(" GET,  POST   https://API.example.com:443/ "), grant("GET,POST https://api.example.com"));
        assert_eq!(grant("http://localhost").reach, HttpReach::Private);
        assert_eq!(grant("http://*.localhost").reach, HttpReach::Public);
    }

    #[test]
    fn what_is_no_grant_is_explained() {
        use HttpGrantError::{Connect, Host, Method, Path, Port, Scheme, Url, Word};
        let text = |text: &str| text.to_owned();
        for (wrong, error) in [
            ("", Url(text(""))),
            ("api.example.com", Url(text("api.example.com"))),
            ("ftp://a", Scheme(text("ftp"))),
            ("HTTP://a", Scheme(text("HTTP"))),
            ("get http://a", Method(text("get"))),
            ("GET, http://a", Method(text(""))),
            ("GET POST http://a", Method(text("GET POST"))),
            ("GET,CONNECT http://a", Connect),
            ("http://*", Host(text("*"))),
            ("http://", Host(text(""))),
            ("http://user@a", Host(text("user@a"))),
            ("http://a?q", Host(text("a?q"))),
            ("http://127.1", Host(text("127.1"))),
            ("http://a:0", Port(text("0"))),
            ("http://a:", Port(text(""))),
            ("http://a:+1", Port(text("+1"))),
            ("http://[::1]:65536", Port(text("65536"))),
            ("http://a/b?c", Path(text("/b?c"))),
            ("http://a/b/../c", Path(text("/b/../c"))),
            ("http://a//b", Path(text("//b"))),
            ("http://a public", Word(text("public"))),
            ("http://a http://b", Word(text("http://b"))),
        ] {
            assert_eq!(wrong.parse::<HttpGrant>(), Err(error), "{wrong}");
        }
    }

    #[test]
    fn every_part_of_a_request_has_to_fit() {
        let text = "GET,POST https://api.example.com:8443";
        assert!(covers(text, "GET https://api.example.com:8443/any/path"));
        assert!(covers(text, "POST https://API.example.com:8443"));
        for other in [
            "PUT https://api.example.com:8443/",
            "get https://api.example.com:8443/",
            "GET http://api.example.com:8443/",
            "GET https://api.example.com/",
            "GET https://example.com:8443/",
            "GET https://api.example.com.evil.org:8443/",
        ] {
            assert!(!covers(text, other), "{other}");
        }
        assert!(covers("http://a", "PATCH http://a:80/") && !covers("http://a", "CONNECT http://a"));
    }

    #[test]
    fn a_path_is_a_prefix_of_whole_segments() {
        for path in ["/v1", "/v1/", "/v1/orders/7", "/v1/a.b/..c/%20", "/v1;x=1"] {
            assert_eq!(covers("http://a/v1", &format!("GET http://a{path}")), !path.contains(';'), "{path}");
        }
        for path in ["/", "/v10", "/V1", "/v2", "/v1/../admin", "/v1/./x", "/v1/%2e%2E/admin", "/v1/..;a/admin"] {
            assert!(!covers("http://a/v1", &format!("GET http://a{path}")), "{path}");
        }
        for path in ["/v1/..%2fadmin", "/v1/..%5Cadmin", "/v1/..\\admin", "/v1/%252e%252e/admin"] {
            assert!(!covers("http://a/v1", &format!("GET http://a{path}")), "{path}");
        }
        assert!(covers("http://a/v1/", "GET http://a/v1/x") && !covers("http://a/v1/", "GET http://a/v1"));
        assert!(covers("http://a", "GET http://a/v1/../admin"), "no prefix, nothing to leave");
    }
}
