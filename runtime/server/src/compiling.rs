//! What compiles components: this program once more, as a child with limits.

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use gristmill_host::ChildCompiler;

/// What makes a child of this program a compiler. People have no use for it, so that the grammar does not know it.
const ARGUMENT: &str = "compile-component";
/// What this program's allocator has to know where memory is limited: it would take a gigabyte ahead, which the system
/// counts, used or not.
const ALLOCATOR: (&str, &str) = ("MIMALLOC_ARENA_EAGER_COMMIT", "0");
/// How many times the processor time may pass on the clock: handlers come first.
const PATIENCE: u32 = 10;
/// This program as it was started, whatever has taken its place on the disk since.
#[cfg(target_os = "linux")]
const THIS: &str = "/proc/self/exe";

/// Whether this process is to be a compiler, by its command line.
pub fn is_asked_for(mut line: impl Iterator<Item = OsString>) -> bool {
    line.nth(1).is_some_and(|argument| argument == ARGUMENT) && line.next().is_none()
}

/// The program to start: only `main` knows that it is this one.
#[derive(Clone, Debug)]
pub struct Program {
    path: PathBuf,
}

impl Program {
    /// The one that runs.
    ///
    /// # Errors
    /// When the system does not say where it is.
    #[cfg(target_os = "linux")]
    pub fn this() -> io::Result<Self> {
        Ok(Self::at(PathBuf::from(THIS)))
    }

    /// The one that runs.
    ///
    /// # Errors
    /// When the system does not say where it is.
    #[cfg(not(target_os = "linux"))]
    pub fn this() -> io::Result<Self> {
        Ok(Self::at(std::env::current_exe()?))
    }

    /// This program, at `path`.
    #[must_use]
    pub fn at(path: PathBuf) -> Self {
        Self { path }
    }

    /// A compiler with so much processor time and so much memory.
    #[must_use]
    pub fn compiler(&self, cpu: Duration, memory: u64) -> ChildCompiler {
        let (args, env) = (vec![ARGUMENT.into()], vec![(ALLOCATOR.0.into(), ALLOCATOR.1.into())]);
        let patience = cpu.saturating_mul(PATIENCE);
        ChildCompiler { program: self.path.clone(), args, env, cpu, patience, memory }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_whole_line_makes_a_compiler() {
        let asked = |line: &str| is_asked_for(line.split(' ').map(OsString::from));
        assert!(asked("gristmill compile-component"));
        for line in
            ["gristmill", "compile-component", "gristmill compile-component x", "gristmill check compile-component"]
        {
            assert!(!asked(line), "{line}");
        }
    }
}
