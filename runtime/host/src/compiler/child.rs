//! The compiler's process: one order from stdin, one answer to stdout.
//!
//! It limits itself before it reads what it is to compile. Stdin stays open for as long as its parent waits: when that ends,
//! however it ends, so does this process.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd as _;
use std::process::ExitCode;

use rustix::process::{Resource, Rlimit, getrlimit, nice, setrlimit};
use wasmtime::Engine;

use super::message::{Answer, Order};
use crate::compile::causes;
use crate::tuning;

/// How much others come first: whoever handles events does.
const NICENESS: i32 = 10;
/// What somebody gets who starts this by hand.
const USAGE: u8 = 2;
/// The thread that waits for the parent's end does nothing else.
const WATCH_STACK: usize = 64 << 10;

/// What a [`ChildCompiler`](super::ChildCompiler)'s program does, and all that it does: compiles the component that its parent
/// hands it. Call it before any other thread is started: only this one gives way to others.
#[must_use]
pub fn compile_as_child() -> ExitCode {
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(USAGE)
        }
    }
}

fn serve() -> io::Result<()> {
    // Without the buffers of the standard library.
    let mut stdin = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    let mut stdout = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    let mut order = [0; Order::LEN];
    let order = stdin.read_exact(&mut order).ok().and_then(|()| Order::decode(&order));
    let Some(order) = order else {
        return Err(io::Error::other(
            "this compiles a component for `gristmill run`, `check` or `invoke`, which start it",
        ));
    };
    confine(&order)?;
    let mut bytes = Vec::with_capacity(usize::try_from(order.len).unwrap_or_default());
    Read::by_ref(&mut stdin).take(order.len).read_to_end(&mut bytes)?;
    if bytes.len() as u64 != order.len {
        return Err(io::Error::other("the component broke off"));
    }
    end_with_parent(stdin)?;
    let compiled = Engine::new(&tuning::code(order.model, order.count_fuel))
        .and_then(|engine| order.kind.compile(&engine, &bytes));
    let (answer, content) = match compiled {
        Ok(code) => (Answer::Code, code),
        Err(error) => (Answer::Refused, causes(&error).into_bytes()),
    };
    stdout.write_all(&content)?;
    stdout.write_all(&[answer.mark()])
}

/// Gives up what compiling does not need.
fn confine(order: &Order) -> io::Result<()> {
    nice(NICENESS)?;
    let seconds = order.cpu.as_secs();
    // The signal at the first says which limit it was; the second is for those who ignore it.
    limit(Resource::Cpu, seconds, seconds.saturating_add(1))?;
    limit(Resource::Data, order.memory, order.memory)?;
    limit(Resource::Fsize, 0, 0)?;
    limit(Resource::Core, 0, 0)?;
    // Where cores go to a program, the limit of their size does not count.
    #[cfg(target_os = "linux")]
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)?;
    Ok(())
}

/// Lowers a limit. One that is lower already stays.
fn limit(resource: Resource, current: u64, maximum: u64) -> io::Result<()> {
    let lower = |limit: u64, now: Option<u64>| Some(now.map_or(limit, |now| now.min(limit)));
    let now = getrlimit(resource);
    let new = Rlimit { current: lower(current, now.current), maximum: lower(maximum, now.maximum) };
    Ok(setrlimit(resource, new)?)
}

fn end_with_parent(mut stdin: File) -> io::Result<()> {
    let watch = move || {
        // It says nothing more. Whatever comes is the end.
        let _ = stdin.read(&mut [0]);
        std::process::abort();
    };
    std::thread::Builder::new().name("gristmill-parent".to_owned()).stack_size(WATCH_STACK).spawn(watch).map(drop)
}
