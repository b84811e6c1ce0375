//! Why a host cannot be made, and why a component is not loaded.

use std::time::Duration;

use gristmill_core::units::{format_duration, format_size};

use crate::interfaces::Interface;
use crate::provided;

/// The interface that needs an `emit` grant.
pub(crate) const EMITTER: &str = "gristmill:events/emitter";
/// How the name of the interface begins that does nothing without an `emit` grant. Worlds list it for handlers that only
/// receive, so that it is not asked for.
pub(crate) const PRODUCER: &str = "wasi:messaging/producer@";
/// How the names of the interfaces begin that need a `state` grant.
pub(crate) const KEYVALUE: &str = "wasi:keyvalue/";

/// Why there is no host. Nothing that trying again would mend.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// An option is out of its range.
    #[error("{instances} instances are not possible: use 1 to {}", crate::options::MAX_INSTANCES)]
    Instances {
        /// What was asked for.
        instances: u32,
    },
    /// The stack is out of its range.
    #[error("a stack of {stack} bytes is not possible: use 64KiB to 64MiB")]
    Stack {
        /// What was asked for, in bytes.
        stack: u64,
    },
    /// The WebAssembly engine does not start: most likely the operating system refuses the address space.
    #[error("cannot set up the WebAssembly engine")]
    Engine(#[source] wasmtime::Error),
    /// The thread that measures time slices cannot be started.
    #[error("cannot start the thread that interrupts handlers")]
    Ticker(#[source] std::io::Error),
    /// The further authorities that requests should trust are none.
    #[error("the certificate authorities for outgoing HTTP cannot be used: {reason}")]
    Authorities {
        /// What is wrong with them.
        reason: String,
    },
}

/// Why a component is not loaded. Each message says what was found, what was expected and what to do; some have
/// several lines. None names the file: only the caller knows it. Nothing that trying again would mend, except
/// [`LoadError::Interrupted`] and what befalls a compiler that is a process of its own: [`LoadError::CompileWait`],
/// [`LoadError::CompilerStart`] and [`LoadError::Compiler`].
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// No bytes at all.
    #[error("the file is empty; expected a WebAssembly component\nwas the build interrupted? build it again")]
    Empty,
    /// More bytes than this host loads.
    #[error(
        "the file has {}; at most {} are loaded\nbuild it smaller, without debug information, or set `max-component-size` higher",
        format_size(*size),
        format_size(*max)
    )]
    TooManyBytes {
        /// Bytes of the file.
        size: u64,
        /// What the host was set to.
        max: u64,
    },
    /// Something else than WebAssembly.
    #[error("this is {found}, not a WebAssembly component\n{advice}")]
    NotWasm {
        /// What it looks like.
        found: String,
        /// What to do about it.
        advice: &'static str,
    },
    /// A core module that is no command.
    #[error(
        "this is a core WebAssembly module, neither a component nor a WASI preview 1 command\n{}\n{}",
        listed("it exports", exports),
        core_module_advice(exports, *carries_type)
    )]
    CoreModule {
        /// What it exports.
        exports: Vec<String>,
        /// Whether it could be made a component, and that was not asked for.
        carries_type: bool,
    },
    /// A core module that carries the type of a component, and cannot be made one.
    #[error(
        "this core WebAssembly module carries the type of a component, but cannot be made one: {reason}\n\
         build it again with the bindings and the toolchain of one version, or as a component: `cargo build --target wasm32-wasip2`"
    )]
    NotWrapped {
        /// What does not fit.
        reason: String,
    },
    /// A core module that has a command's entry, and yet is none.
    #[error(
        "this core WebAssembly module exports `_start`, but is no WASI preview 1 command: {reason}\n\
         build it as a program: `cargo build --target wasm32-wasip1`, `GOOS=wasip1 GOARCH=wasm go build`"
    )]
    BadCommand {
        /// What is wrong.
        reason: String,
    },
    /// It begins as WebAssembly does, but cannot be read to its end.
    #[error(
        "the component is damaged: {reason}\nit was cut short or changed after it was built: copy or build it again"
    )]
    Damaged {
        /// Where reading failed, and how.
        reason: String,
    },
    /// The file is not the one that was pinned.
    #[error(
        "the digest is not the one that is pinned\n  pinned: {pinned}\n  actual: {actual}\nif the new file is wanted, pin its digest"
    )]
    DigestMismatch {
        /// What was asked for.
        pinned: String,
        /// What the bytes have.
        actual: String,
    },
    /// A component, but no handler.
    #[error(
        "the component exports nothing that this host calls: none of\n{}\n{}\n{}",
        callable(),
        listed("it exports", exports),
        no_handler_advice(exports)
    )]
    NoHandler {
        /// What it exports.
        exports: Vec<String>,
    },
    /// It does not have the interface that was asked for.
    #[error(
        "the interface {} is asked for, but {}\n{}\nask for one that is there, or leave `interface` out",
        asked.name(),
        other_interface(*asked, *is_module),
        listed("it exports", exports)
    )]
    OtherInterface {
        /// What was asked for.
        asked: Interface,
        /// Whether it is a core module, rather than a component.
        is_module: bool,
        /// What it exports.
        exports: Vec<String>,
    },
    /// It imports what nobody provides.
    #[error(
        "it imports what this host does not provide:\n{}\nbuild it without {}",
        unknown_imports(imports),
        them(imports)
    )]
    UnknownImports {
        /// Their names, as imported.
        imports: Vec<String>,
    },
    /// It imports the emitter and may emit nothing.
    #[error(
        "the component imports {EMITTER}, but the handler has no grant to emit\n\
         say which types of events it may emit, or build it without the emitter:\n\
         \u{20}   grant = {{ emit = [\"com.example.*\"] }}"
    )]
    EmitNotGranted,
    /// It imports state and may use no bucket.
    #[error(
        "the component imports wasi:keyvalue, but the handler has no grant of a bucket\n\
         say which buckets it may use, `NAME` to read and write, `NAME:read` to read only, or build it without them:\n\
         \u{20}   grant = {{ state = [\"thumbnails\", \"prices:read\"] }}"
    )]
    StateNotGranted,
    /// It is granted a directory that is not there.
    #[error(
        "the handler is granted the directory {}, which cannot be opened: {}\n\
         make it, or take it out of `files` in the grant",
        printable(path),
        printable(reason)
    )]
    Directory {
        /// Where it should be.
        path: String,
        /// Why not.
        reason: String,
    },
    /// The name of an interface is right, its content is not.
    #[error(
        "an interface of the component is not what its name says: {reason}\nbuild it against the released WIT packages"
    )]
    Incompatible {
        /// Which, and how.
        reason: String,
    },
    /// It would not fit if it were alone.
    #[error(
        "one instance needs {memories} memories and {tables} tables, more than the pool of this host has for {instances} instances in all\nset `max-instances` in [runtime] to {needed} or more"
    )]
    TooLarge {
        /// Linear memories of all its core instances.
        memories: u32,
        /// Tables of all its core instances.
        tables: u32,
        /// What the host was sized for.
        instances: u32,
        /// What would do.
        needed: u32,
    },
    /// It is not valid, or uses what this engine cannot run.
    #[error(
        "the component does not compile: {reason}\nit was built for another engine or by a toolchain with a fault: build it again with a current one"
    )]
    DoesNotCompile {
        /// The engine's words.
        reason: String,
    },
    /// Compiling it was given up, as it took too long.
    #[error(
        "compiling the component took more than {} of processor time\n\
         build it smaller, or set `compile-time` in [runtime] higher, if you trust whoever made it",
        format_duration(*limit)
    )]
    CompileTime {
        /// How long it may take.
        limit: Duration,
    },
    /// Compiling it was given up, as it did not come to an end.
    #[error(
        "compiling the component was not finished after {}, without having used up its processor time\n\
         is the machine busy? try again, or set `compile-time` in [runtime] higher",
        format_duration(*limit)
    )]
    CompileWait {
        /// How long that may take.
        limit: Duration,
    },
    /// Compiling it was given up, as it needed too much memory.
    #[error(
        "compiling the component needed more than {} of memory\n\
         build it smaller, or set `compile-memory` in [runtime] higher, if you trust whoever made it",
        format_size(*limit)
    )]
    CompileMemory {
        /// How much it may need, in bytes.
        limit: u64,
    },
    /// There is no process for the compiler.
    #[error(
        "cannot start the compiler, {}: {reason}\nmay this user start further processes, and is there room for one?",
        printable(program)
    )]
    CompilerStart {
        /// What was to be started.
        program: String,
        /// Why not.
        reason: String,
    },
    /// The compiler's process has ended, and there is no code.
    #[error(
        "the compiler gave no code: {how}\n\
         was it ended from outside, or by a system without memory? try again; if it always ends so, report it, with the file"
    )]
    Compiler {
        /// How it ended, and what it said.
        how: String,
    },
    /// It uses async functions, and the engine that runs them does not start.
    #[error("cannot set up the WebAssembly engine for async components")]
    Engine(#[source] wasmtime::Error),
    /// Neither the component's doing nor the caller's.
    #[error("loading it failed by a fault of this version of Gristmill\nreport it, with the file if possible")]
    Fault,
    /// The process is shutting down.
    #[error("loading was interrupted")]
    Interrupted,
}

/// The most names in a list: a module may export thousands.
const MAX_LISTED: usize = 20;

fn listed(title: &str, names: &[String]) -> String {
    if names.is_empty() {
        return format!("{title} nothing");
    }
    let list = names.iter().take(MAX_LISTED).fold(format!("{title}:"), |text, name| text + "\n  - " + &printable(name));
    match names.len().saturating_sub(MAX_LISTED) {
        0 => list,
        more => format!("{list}\n  … and {more} more"),
    }
}

fn core_module_advice(exports: &[String], carries_type: bool) -> &'static str {
    if carries_type {
        "it carries the type of a component: leave `interface` out, and it is made one when it is loaded"
    } else if exports.iter().any(|name| name == "_initialize") {
        "it is a library (`_initialize` and no `_start`): give it a `main`, so that it is a program, \
         or build it as a component: `cargo build --target wasm32-wasip2`"
    } else {
        "a command exports `_start`: build a program for WASI preview 1, such as `cargo build --target wasm32-wasip1` or \
         `GOOS=wasip1 GOARCH=wasm go build`, or a component: `cargo build --target wasm32-wasip2`"
    }
}

/// What a component may export.
fn callable() -> String {
    let components = Interface::ALL.into_iter().filter(|interface| *interface != Interface::Command);
    components.map(|interface| format!("  - {interface}")).collect::<Vec<_>>().join("\n")
}

fn no_handler_advice(exports: &[String]) -> String {
    let exports_any = |prefixes: &[&str]| exports.iter().any(|name| prefixes.iter().any(|p| name.starts_with(p)));
    if exports_any(&["gristmill:events/handler@", "gristmill:events/batch-handler@"]) {
        "it was built against another version of gristmill:events: build it against 0.1.0".to_owned()
    } else if exports_any(&["wasi:cli/run@"]) {
        "it was built against another version of WASI: build it against 0.2 or 0.3".to_owned()
    } else if exports_any(&["wasi:messaging/"]) {
        "it was built against another version of wasi:messaging: build it against 0.2.0-draft".to_owned()
    } else if exports_any(&["wasi:http/"]) {
        "its HTTP handler is of another version of WASI: build it against `wasi:http/incoming-handler` of 0.2"
            .to_owned()
    } else {
        "implement the world `event-handler` of gristmill:events, in Rust with `#[gristmill_sdk::handler]`, or give it a \
         `main`"
            .to_owned()
    }
}

fn other_interface(asked: Interface, is_module: bool) -> &'static str {
    match (asked, is_module) {
        (_, true) => "this is a core WebAssembly module, and only a component has it",
        (Interface::Command, false) => "this is a component, and only a core WebAssembly module has it",
        (_, false) => "the component does not export it",
    }
}

fn unknown_imports(imports: &[String]) -> String {
    let lines: Vec<_> = imports
        .iter()
        .map(|name| format!("  - {} ({})", printable(name), printable(&provided::alternatives(name))))
        .collect();
    lines.join("\n")
}

fn them(imports: &[String]) -> &'static str {
    if imports.len() == 1 { "it" } else { "them" }
}

/// Text from a component that may be shown to a person: no control characters, on one line.
pub(crate) fn printable(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut shown, c| {
        if c.is_control() {
            shown.extend(c.escape_default())
        } else {
            shown.push(c)
        }
        shown
    })
}
