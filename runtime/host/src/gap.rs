//! Imports compared with grants: what a component would use and has not been granted, and what a newer one wants beyond
//! an older one.
//!
//! Without a grant, an emitter or a bucket is an error when the component is loaded: nobody imports those unasked. The
//! others are linked and powerless, and a gap says which line would change that.

use std::fmt;

use crate::component::Component;
use crate::error::printable;
use crate::options::Grants;
use crate::provided::ImportStatus;

/// A key of `grant` in runtime.toml.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum GrantKind {
    /// Types of events to emit.
    Emit,
    /// Buckets of state.
    State,
    /// Variables of the environment.
    Env,
    /// Directories.
    Files,
    /// Addresses to talk to.
    Sockets,
    /// Requests by HTTP.
    Http,
}

/// How the imports begin that each grant is about; of a command, `module::function`.
const NEEDS: [(&str, GrantKind); 11] = [
    ("gristmill:events/emitter@", GrantKind::Emit),
    ("wasi:messaging/producer@", GrantKind::Emit),
    ("wasi:keyvalue/", GrantKind::State),
    ("wasi:cli/environment@", GrantKind::Env),
    ("wasi:filesystem/", GrantKind::Files),
    ("wasi:sockets/", GrantKind::Sockets),
    ("wasi:http/outgoing-handler@", GrantKind::Http),
    ("wasi:http/client@", GrantKind::Http),
    ("wasi_snapshot_preview1::environ_", GrantKind::Env),
    ("wasi_snapshot_preview1::fd_prestat_", GrantKind::Files),
    ("wasi_snapshot_preview1::path_", GrantKind::Files),
];
/// The most imports that a line names.
const MAX_NAMED: usize = 3;

impl GrantKind {
    /// The grant that `import` needs, if it needs one.
    #[must_use]
    pub fn of(import: &str) -> Option<Self> {
        NEEDS.iter().find(|(start, _)| import.starts_with(start)).map(|(_, grant)| *grant)
    }

    /// Its key.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Emit => "emit",
            Self::State => "state",
            Self::Env => "env",
            Self::Files => "files",
            Self::Sockets => "sockets",
            Self::Http => "http",
        }
    }

    /// A value of the key that would do, in TOML.
    #[must_use]
    pub const fn example(self) -> &'static str {
        match self {
            Self::Emit => r#"["com.example.*"]"#,
            Self::State => r#"["thumbnails", "prices:read"]"#,
            Self::Env => r#"["TZ"]"#,
            Self::Files => r#"["in:read", "out:write"]"#,
            Self::Sockets => r#"["tcp://db.internal:5432"]"#,
            Self::Http => r#"["GET https://api.example.com"]"#,
        }
    }

    fn is_in(self, grants: &Grants) -> bool {
        match self {
            Self::Emit => !grants.emit.is_empty(),
            Self::State => !grants.state.is_empty(),
            Self::Env => !grants.env.is_empty(),
            Self::Files => !grants.files.is_empty(),
            Self::Sockets => !grants.sockets.is_empty(),
            Self::Http => !grants.http.is_empty(),
        }
    }
}

/// What an import that is powerless by itself is under `grants`.
pub(crate) fn status(import: &str, unless_granted: ImportStatus, grants: &Grants) -> ImportStatus {
    match GrantKind::of(import) {
        Some(grant) if grant.is_in(grants) => ImportStatus::Provided,
        _ => unless_granted,
    }
}

/// Imports that are powerless for lack of one grant. Displayed as one line that says what to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// What is lacking.
    pub grant: GrantKind,
    /// The imports, as the component names them; at least one.
    pub imports: Vec<String>,
}

impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named: Vec<_> = self.imports.iter().take(MAX_NAMED).map(|name| printable(unversioned(name))).collect();
        write!(f, "imports {}", named.join(", "))?;
        match self.imports.len().saturating_sub(MAX_NAMED) {
            0 => {}
            more => write!(f, " and {more} more")?,
        }
        write!(f, ", and gets nothing of it without: grant = {{ {} = {} }}", self.grant.name(), self.grant.example())
    }
}

/// An import that a component has and another has not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Want {
    /// As the component names it.
    pub import: String,
    /// The grant that it needs; `None`: none.
    pub grant: Option<GrantKind>,
    /// Whether it has that.
    pub is_granted: bool,
}

impl Component {
    /// What it imports and gets nothing of for lack of a grant; one gap for each grant.
    #[must_use]
    pub fn gaps(&self) -> Vec<Gap> {
        let mut gaps: Vec<Gap> = Vec::new();
        for import in self.imports().iter().filter(|import| import.status == ImportStatus::Powerless) {
            let Some(grant) = GrantKind::of(&import.name) else { continue };
            match gaps.iter_mut().find(|gap| gap.grant == grant) {
                Some(gap) => gap.imports.push(import.name.clone()),
                None => gaps.push(Gap { grant, imports: vec![import.name.clone()] }),
            }
        }
        gaps.sort_by_key(|gap| gap.grant);
        gaps
    }

    /// What it imports that `old` does not, whatever the versions.
    #[must_use]
    pub fn wants_beyond(&self, old: &Self) -> Vec<Want> {
        let is_new = |name: &str| old.imports().iter().all(|import| unversioned(&import.name) != unversioned(name));
        let new = self.imports().iter().filter(|import| is_new(&import.name));
        let want = new.map(|import| {
            let grant = GrantKind::of(&import.name);
            let is_granted = grant.is_none_or(|grant| grant.is_in(&self.identity().grants));
            Want { import: import.name.clone(), grant, is_granted }
        });
        want.collect()
    }
}

fn unversioned(import: &str) -> &str {
    import.split_once('@').map_or(import, |(name, _)| name)
}
