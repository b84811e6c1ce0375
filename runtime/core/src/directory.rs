//! Directories that a handler may be granted.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// What a handler may do in a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DirectoryAccess {
    /// Look: at whatever is in there, and below.
    Read,
    /// Look, make, change and delete.
    Write,
}

/// A directory that a handler may use: `PATH:ACCESS`, or `PATH:GUEST:ACCESS`.
///
/// ```
/// use gristmill_core::directory::{DirectoryAccess, DirectoryGrant};
///
/// let grant: DirectoryGrant = "data/in:read".parse()?;
/// assert_eq!((grant.guest.as_str(), grant.access), ("/data/in", DirectoryAccess::Read));
/// let grant: DirectoryGrant = "../common:/out:write".parse()?;
/// assert_eq!((grant.host.to_str(), grant.guest.as_str()), (Some("../common"), "/out"));
/// # Ok::<(), gristmill_core::directory::DirectoryGrantError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectoryGrant {
    /// Where it is.
    pub host: PathBuf,
    /// What the handler calls it: an absolute path. Default: the same as `host`, from `/`.
    pub guest: String,
    /// What it may do there.
    pub access: DirectoryAccess,
}

/// Why something grants no directory.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DirectoryGrantError {
    /// It does not end with what may be done.
    #[error("{0:?} does not say what may be done there")]
    NoAccess(String),
    /// It ends with something else.
    #[error("{0:?} is nothing that a handler can do with a directory")]
    Access(String),
    /// No path.
    #[error("the path of the directory is empty")]
    NoPath,
    /// What the handler would call it is no absolute path.
    #[error("{0:?} is no path that a handler can call a directory")]
    Guest(String),
}

impl DirectoryGrant {
    /// The directory `host`, called `guest` (default: as `host`).
    ///
    /// # Errors
    /// When a path is empty, or the handler's is not absolute or has `.` or `..` in it.
    pub fn new(host: &str, guest: Option<&str>, access: DirectoryAccess) -> Result<Self, DirectoryGrantError> {
        if host.is_empty() {
            return Err(DirectoryGrantError::NoPath);
        }
        let guest = match guest {
            Some(guest) => guest.to_owned(),
            None => format!("/{}", host.strip_prefix("./").unwrap_or(host).trim_matches('/')),
        };
        let names = guest.strip_prefix('/').map(|names| names.trim_end_matches('/'));
        let is_name = |name: &str| !["", ".", ".."].contains(&name) && !name.contains('\0');
        match names {
            Some(names) if names.is_empty() || names.split('/').all(is_name) => {
                Ok(Self { host: PathBuf::from(host), guest: format!("/{names}"), access })
            }
            _ => Err(DirectoryGrantError::Guest(guest)),
        }
    }
}

impl FromStr for DirectoryGrant {
    type Err = DirectoryGrantError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let Some((paths, access)) = text.rsplit_once(':') else {
            return Err(DirectoryGrantError::NoAccess(text.to_owned()));
        };
        let access = access.parse()?;
        match paths.rsplit_once(':') {
            Some((host, guest)) => Self::new(host, Some(guest), access),
            None => Self::new(paths, None, access),
        }
    }
}

impl FromStr for DirectoryAccess {
    type Err = DirectoryGrantError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "read" => Ok(Self::Read),
            "write" => Ok(Self::Write),
            other => Err(DirectoryGrantError::Access(other.to_owned())),
        }
    }
}

/// `PATH:GUEST:ACCESS`.
impl fmt::Display for DirectoryGrant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let access = match self.access {
            DirectoryAccess::Read => "read",
            DirectoryAccess::Write => "write",
        };
        write!(f, "{}:{}:{access}", self.host.display(), self.guest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_access() {
        let parts = |text: &str| {
            text.parse::<DirectoryGrant>().map(|grant| (grant.host.display().to_string(), grant.guest, grant.access))
        };
        use DirectoryAccess::{Read, Write};
        for (text, host, guest, access) in [
            ("data:read", "data", "/data", Read),
            ("./data/in/:write", "./data/in/", "/data/in", Write),
            ("/srv/in:read", "/srv/in", "/srv/in", Read),
            ("../in:/in:read", "../in", "/in", Read),
            ("in:/:read", "in", "/", Read),
            ("a:b:/in:read", "a:b", "/in", Read),
        ] {
            assert_eq!(parts(text), Ok((host.to_owned(), guest.to_owned(), access)), "{text}");
        }
        use DirectoryGrantError::{Access, Guest, NoAccess, NoPath};
        for (text, error) in [
            ("data", NoAccess("data".into())),
            ("data:rw", Access("rw".into())),
            ("data:", Access(String::new())),
            (":read", NoPath),
            ("../in:read", Guest("/../in".into())),
            (".:read", Guest("/.".into())),
            ("data:in:read", Guest("in".into())),
            ("data:/a/../b:read", Guest("/a/../b".into())),
            ("data:/a//b:read", Guest("/a//b".into())),
        ] {
            assert_eq!(parts(text), Err(error), "{text}");
        }
    }
}
