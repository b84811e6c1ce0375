//! The interfaces that the host offers to components, by name: what load errors and listings show.

/// What a component gets from an interface that it imports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ImportStatus {
    /// It works.
    Provided,
    /// It is linked, because toolchains import it unasked, and offers nothing: no environment, no files, no network. A
    /// grant may change that: see [`Component::gaps`](crate::Component::gaps).
    Powerless,
}

/// Interfaces of one package.
pub(crate) struct Provided {
    package: &'static str,
    version: &'static str,
    status: ImportStatus,
    interfaces: &'static [&'static str],
}

/// The version of WASI 0.2 that `wasmtime-wasi` implements; it serves every 0.2.x.
pub(crate) const WASI: &str = "0.2.12";
/// The version of WASI 0.3 that it implements.
pub(crate) const WASI3: &str = "0.3.0";
/// Where a WASI preview 1 command gets its functions from.
pub(crate) const PREVIEW1: &str = "wasi_snapshot_preview1";
/// How the names of those that do nothing begin.
const PREVIEW1_POWERLESS: [&str; 5] = ["args_", "environ_", "fd_prestat_", "path_", "sock_"];

/// Everything that `platform.rs` links; that of WASI 0.3 only for components with async functions.
pub(crate) const PROVIDED: &[Provided] = {
    use ImportStatus::{Powerless, Provided as Works};
    &[
        interfaces("gristmill:events", "0.1.0", Works, &["types", "emitter", "context"]),
        interfaces("wasi:logging", "0.1.0-draft", Works, &["logging"]),
        interfaces("wasi:keyvalue", "0.2.0-draft", Works, &["store", "atomics", "batch"]),
        interfaces("wasi:keyvalue", "0.2.0-draft2", Works, &["store", "atomics", "batch"]),
        interfaces("wasi:messaging", "0.2.0-draft", Works, &["types", "producer"]),
        interfaces("wasi:messaging", "0.2.0-draft", Powerless, &["request-reply"]),
        interfaces("wasi:config", "0.2.0-rc.1", Works, &["store"]),
        interfaces("wasi:config", "0.2.0-draft-2024-09-27", Works, &["store"]),
        interfaces("wasi:config", "0.2.0-draft", Works, &["runtime"]),
        interfaces("wasi:io", WASI, Works, &["error", "poll", "streams"]),
        interfaces("wasi:clocks", WASI, Works, &["monotonic-clock", "wall-clock"]),
        interfaces("wasi:random", WASI, Works, &["random", "insecure", "insecure-seed"]),
        interfaces("wasi:cli", WASI, Works, &["exit", "stdout", "stderr"]),
        interfaces("wasi:cli", WASI, Powerless, &["environment", "stdin"]),
        interfaces("wasi:cli", WASI, Powerless, &["terminal-input", "terminal-output"]),
        interfaces("wasi:cli", WASI, Powerless, &["terminal-stdin", "terminal-stdout", "terminal-stderr"]),
        interfaces("wasi:filesystem", WASI, Powerless, &["types", "preopens"]),
        interfaces("wasi:http", WASI, Works, &["types"]),
        interfaces("wasi:http", WASI, Powerless, &["outgoing-handler"]),
        interfaces("wasi:sockets", WASI, Powerless, &["network", "instance-network", "ip-name-lookup"]),
        interfaces("wasi:sockets", WASI, Powerless, &["tcp", "tcp-create-socket", "udp", "udp-create-socket"]),
        interfaces("wasi:clocks", WASI3, Works, &["types", "monotonic-clock", "system-clock"]),
        interfaces("wasi:random", WASI3, Works, &["random", "insecure", "insecure-seed"]),
        interfaces("wasi:cli", WASI3, Works, &["types", "exit", "stdout", "stderr"]),
        interfaces("wasi:cli", WASI3, Powerless, &["environment", "stdin", "terminal-input", "terminal-output"]),
        interfaces("wasi:cli", WASI3, Powerless, &["terminal-stdin", "terminal-stdout", "terminal-stderr"]),
        interfaces("wasi:filesystem", WASI3, Powerless, &["types", "preopens"]),
        interfaces("wasi:http", WASI3, Works, &["types"]),
        interfaces("wasi:http", WASI3, Powerless, &["client"]),
        interfaces("wasi:sockets", WASI3, Powerless, &["types", "ip-name-lookup"]),
    ]
};

const fn interfaces(
    package: &'static str,
    version: &'static str,
    status: ImportStatus,
    interfaces: &'static [&'static str],
) -> Provided {
    Provided { package, version, status, interfaces }
}

impl Provided {
    fn names(&self) -> impl Iterator<Item = String> + '_ {
        self.interfaces.iter().map(|interface| format!("{}/{interface}@{}", self.package, self.version))
    }
}

/// What becomes of an import called `name`; `None`: nobody provides it. A core module's is called `module::function`.
pub(crate) fn status(name: &str) -> Option<ImportStatus> {
    if let Some((module, function)) = name.split_once("::") {
        let is_powerless = PREVIEW1_POWERLESS.iter().any(|start| function.starts_with(start));
        let status = if is_powerless { ImportStatus::Powerless } else { ImportStatus::Provided };
        return (module == PREVIEW1).then_some(status);
    }
    let (package, interface, version) = split(name)?;
    let fits = |offer: &Provided| {
        offer.package == package && offer.interfaces.contains(&interface) && compatible(offer.version, version)
    };
    PROVIDED.iter().find(|offer| fits(offer)).map(|offer| offer.status)
}

/// The interfaces on offer in the package of the import `name`, as one phrase.
pub(crate) fn alternatives(name: &str) -> String {
    if name.contains("::") {
        return format!("a command gets the functions of {PREVIEW1}, and no others");
    }
    let Some((package, ..)) = split(name) else {
        return "only interfaces are provided, such as wasi:io/streams".to_owned();
    };
    let names: Vec<_> = PROVIDED.iter().filter(|offer| offer.package == package).flat_map(Provided::names).collect();
    if names.is_empty() {
        format!("nothing of {package} is provided")
    } else {
        format!("of {package} there are {}", names.join(", "))
    }
}

/// `wasi:io/poll@0.2.0` as `(wasi:io, poll, 0.2.0)`.
fn split(name: &str) -> Option<(&str, &str, &str)> {
    let (path, version) = name.split_once('@')?;
    let (package, interface) = path.split_once('/')?;
    Some((package, interface, version))
}

/// Whether the import `name` is of a WASI with async functions.
pub(crate) fn is_async(name: &str) -> bool {
    split(name).is_some_and(|(package, _, version)| package.starts_with("wasi:") && version.starts_with("0.3."))
}

/// Whether the linker lets a definition of version `offered` serve an import of version `wanted`.
pub(crate) fn compatible(offered: &str, wanted: &str) -> bool {
    offered == wanted || track(offered).is_some_and(|offered| track(wanted) == Some(offered))
}

/// The part of a version that must be the same: `1` of 1.4.2, `0.2` of 0.2.6; nothing else is compatible with 0.0.x or
/// with a pre-release.
pub(crate) fn track(version: &str) -> Option<&str> {
    let version = version.split('+').next()?;
    if version.contains('-') {
        return None;
    }
    let (major, rest) = version.split_once('.')?;
    let (minor, _patch) = rest.split_once('.')?;
    match (major, minor) {
        ("0", "0") => None,
        ("0", minor) => version.get(..2 + minor.len()),
        (major, _) => Some(major),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_one_track_serve_each_other() {
        assert_eq!(status("wasi:io/poll@0.2.0"), Some(ImportStatus::Provided));
        assert_eq!(status("wasi:io/poll@0.2.99"), Some(ImportStatus::Provided));
        assert_eq!(status("wasi:cli/environment@0.2.3"), Some(ImportStatus::Powerless));
        assert_eq!(status("wasi:logging/logging@0.1.0-draft"), Some(ImportStatus::Provided));
        for unknown in [
            "wasi:io/poll@0.3.0",
            "wasi:clocks/monotonic-clock@0.4.0",
            "wasi:io/poll@0.2.0-rc",
            "wasi:io/poll",
            "wasi:logging/logging@0.1.0",
            "x",
        ] {
            assert_eq!(status(unknown), None, "{unknown}");
        }
    }

    #[test]
    fn a_command_gets_preview_1() {
        assert_eq!(status("wasi_snapshot_preview1::fd_write"), Some(ImportStatus::Provided));
        assert_eq!(status("wasi_snapshot_preview1::path_open"), Some(ImportStatus::Powerless));
        assert_eq!(status("wasi_unstable::fd_write"), None);
        assert_eq!(status("env::abort"), None);
    }

    #[test]
    fn everything_listed_is_linked() {
        let host = crate::Host::new(crate::HostOptions { instances: 1, ..crate::HostOptions::default() }).unwrap();
        let platform = host.platform(crate::platform::Model::Async).unwrap();
        for name in PROVIDED.iter().flat_map(Provided::names) {
            // The linker has no question "is this there?". A function that nobody has is answered differently
            // depending on whether the instance that should have it exists.
            let wat = format!(r#"(component (import "{name}" (instance (export "no-such-function" (func)))))"#);
            let component =
                wasmtime::component::Component::new(platform.engine(), wat::parse_str(&wat).unwrap()).unwrap();
            let message = match platform.linker().instantiate_pre(&component) {
                Ok(_) => panic!("{name}: links a function that does not exist"),
                Err(error) => format!("{error:?}"),
            };
            assert!(message.contains("`no-such-function`"), "{name}: {message}");
        }
    }
}
