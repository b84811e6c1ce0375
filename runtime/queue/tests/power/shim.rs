//! A library that is put between a process and the kernel: it notes what is synced, or plays a disk that is full.

use std::path::PathBuf;
use std::process::Command;

/// The shim, compiled.
pub(crate) struct Shim {
    directory: tempfile::TempDir,
}

impl Shim {
    pub(crate) fn compile() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let source = PathBuf::from("tests/power/shim.c");
        let compiler = std::env::var_os("CC").unwrap_or_else(|| "cc".into());
        let compiled = Command::new(compiler)
            .args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"])
            .args([directory.path().join("shim.so"), source])
            .arg("-ldl")
            .status()
            .expect("a C compiler, as RocksDB needs one too");
        assert!(compiled.success(), "the shim does not compile");
        Self { directory }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.directory.path().join("shim.so")
    }
}
