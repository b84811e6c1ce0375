//! Threads beside those on which handlers run, for what must not wait until a handler gives way.

use std::io;

use tokio::runtime::{Builder, Handle, Runtime};

/// A runtime that is dropped anywhere; what runs on it ends then.
#[derive(Debug)]
pub struct Threads {
    /// `None`: it is being dropped.
    runtime: Option<Runtime>,
    handle: Handle,
}

impl Threads {
    /// So many threads of this name.
    ///
    /// # Errors
    /// When the operating system refuses them.
    pub fn start(name: &str, threads: usize) -> io::Result<Self> {
        let runtime = Builder::new_multi_thread().thread_name(name).worker_threads(threads).enable_all().build()?;
        let handle = runtime.handle().clone();
        Ok(Self { runtime: Some(runtime), handle })
    }

    /// Where to spawn what shall run on them.
    #[must_use]
    pub const fn handle(&self) -> &Handle {
        &self.handle
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        // Waiting for threads is not allowed where this may be dropped.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
