//! Who compiles, and within which limits.
//!
//! How long a component takes to compile, and how much memory, is up to whoever made it, and the compiler cannot be
//! interrupted. So it runs in a child of this process, which has limits of its own: [`Compiler::Child`].
//!
//! | file | holds |
//! | --- | --- |
//! | `parent` | starts the child, and says what became of it |
//! | `child` | what the child does: it limits itself, reads, compiles, answers |
//! | `message` | what the two say to each other |
//!
//! **What comes back is run as it is.** A fault of the compiler that makes it stop, spin or take all memory ends the child,
//! and is an error of the component. A fault that makes it compile wrongly is as bad as without a child, as wrong code runs in
//! this process; the same is true of the cache. A fault by which a component takes over the compiler gives it the child,
//! which is this user's process (it has neither environment nor open files of its parent, but may open what this user may),
//! and what it answers, which is run here.

mod child;
mod message;
mod parent;

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::Semaphore;

pub use self::child::compile_as_child;
use crate::compile::{Kind, does_not_compile};
use crate::component::off_thread;
use crate::error::LoadError;
use crate::platform::{Model, Platform};

/// Who compiles components.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Compiler {
    /// This process, without limits. For components that are trusted.
    #[default]
    InProcess,
    /// A process for each component, with limits. Needs a tokio runtime with I/O.
    Child(ChildCompiler),
}

/// A process that compiles one component. It has the lowest priority but few, and ends with its parent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChildCompiler {
    /// A program of the same version as this one that calls [`compile_as_child`], without anything else before.
    pub program: PathBuf,
    /// What makes it do so.
    pub args: Vec<OsString>,
    /// All of its environment.
    pub env: Vec<(OsString, OsString)>,
    /// Time on a processor, of all its threads together; rounded up to seconds, one at least.
    pub cpu: Duration,
    /// Time on the clock until it must have ended, whether it computes or not. Longer by far than `cpu`: others come first.
    pub patience: Duration,
    /// Bytes of memory that it may write to. What it compiles to may have half of it.
    pub memory: u64,
}

impl ChildCompiler {
    /// What [`cpu`](Self::cpu) should be where nobody says otherwise: 2 minutes. A JavaScript engine of 12 MB takes
    /// a fifth of that.
    pub const DEFAULT_CPU: Duration = Duration::from_mins(2);
    /// What [`memory`](Self::memory) should be where nobody says otherwise: 2 GiB.
    pub const DEFAULT_MEMORY: u64 = 2 << 30;
}

/// What is to be compiled, and how.
pub(crate) struct Job {
    pub(crate) platform: Arc<Platform>,
    pub(crate) model: Model,
    pub(crate) count_fuel: bool,
    pub(crate) kind: Kind,
    pub(crate) bytes: Bytes,
}

/// What became of it.
pub(crate) struct Compiled {
    /// As [`Kind::compile`] gives it.
    pub(crate) code: Vec<u8>,
    /// Without waiting for other compilers.
    pub(crate) took: Duration,
}

/// Where components are compiled: by few children at once, as each has several threads.
pub(crate) struct Workshop {
    compiler: Compiler,
    places: Semaphore,
}

impl Workshop {
    pub(crate) fn new(compiler: Compiler) -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Self { compiler, places: Semaphore::new(processors.div_ceil(2)) }
    }

    pub(crate) async fn compile(&self, job: Job) -> Result<Compiled, LoadError> {
        match &self.compiler {
            Compiler::InProcess => {
                let compile = move || {
                    let started = Instant::now();
                    let code = job.kind.compile(job.platform.engine(), &job.bytes).map_err(does_not_compile)?;
                    Ok(Compiled { code, took: started.elapsed() })
                };
                off_thread(compile).await
            }
            Compiler::Child(child) => {
                let _place = self.places.acquire().await.map_err(|_| LoadError::Interrupted)?;
                let started = Instant::now();
                let code = Box::pin(parent::compile(child, &job)).await?;
                Ok(Compiled { code, took: started.elapsed() })
            }
        }
    }
}
