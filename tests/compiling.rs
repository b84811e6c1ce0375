//! Compiling in a child: its limits, and what becomes of it. The child is the real binary.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gristmill::compiling::Program;
use gristmill_core::{Event, HandlerName, Outcome, Timestamp};
use gristmill_host::{
    ChildCompiler, Compiler, Component, Configuration, Grants, Host, HostOptions, Instances, Invocation, Limits,
    LoadError, LoadRequest,
};
use gristmill_test_guests as guests;

use super::rig::{Deployment, acker, handler, text};
use super::{ALL, rig};

/// A program whose only function has a great many loops and variables. The compiler needs half a minute for it, and two
/// gigabytes, though it has 240 kB.
fn bomb() -> Vec<u8> {
    const LOOPS: usize = 20_000;
    const VARIABLES: usize = 1_000;
    let a_loop = |at: usize| {
        let (read, written) = (at % VARIABLES, (at * 7 + 1) % VARIABLES);
        format!("(loop (br_if 0 (local.tee {written} (i32.eqz (local.get {read})))))")
    };
    let (variables, loops) = ("i32 ".repeat(VARIABLES), (0..LOOPS).map(a_loop).collect::<String>());
    let text = format!(r#"(module (memory (export "memory") 1) (func (export "_start") (local {variables}) {loops}))"#);
    wat::parse_str(text).unwrap()
}

fn gristmill() -> ChildCompiler {
    let program = Program::at(PathBuf::from(env!("CARGO_BIN_EXE_gristmill")));
    program.compiler(ChildCompiler::DEFAULT_CPU, ChildCompiler::DEFAULT_MEMORY)
}

/// Another program in place of a compiler.
fn other(program: &str) -> ChildCompiler {
    ChildCompiler { program: PathBuf::from(program), ..gristmill() }
}

/// A shell instead of a compiler.
fn script_of(script: &str) -> ChildCompiler {
    ChildCompiler { args: ["-c", script].map(OsString::from).to_vec(), ..other("/bin/sh") }
}

fn host(child: ChildCompiler, cache: Option<&Path>) -> Host {
    let cache = cache.map(Path::to_owned);
    Host::new(HostOptions { instances: 2, compiler: Compiler::Child(child), cache, ..HostOptions::default() }).unwrap()
}

fn request(bytes: Vec<u8>) -> LoadRequest {
    LoadRequest {
        name: HandlerName::new("guest").unwrap(),
        bytes: bytes.into(),
        digest: None,
        interface: None,
        grants: Grants::default(),
        instances: Instances::Fresh,
    }
}

async fn error_of(child: ChildCompiler, bytes: Vec<u8>) -> LoadError {
    match host(child, None).load(request(bytes)).await {
        Ok(component) => panic!("loaded {component:?}"),
        Err(error) => error,
    }
}

async fn outcome(component: &Component) -> Outcome {
    let invocation = Invocation {
        delivery_id: "e1".to_owned(),
        queue: "guest".to_owned(),
        attempt: 1,
        max_attempts: None,
        enqueued_at: Timestamp::EPOCH,
        event: Arc::new(Event::new("1", "/test", "test.ack")),
        state: None,
        configuration: Configuration::default(),
        limits: Limits::default(),
    };
    component.handle(invocation).await.outcome
}

#[tokio::test]
async fn what_a_child_compiles_runs_as_ever() {
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path().join("cache");
    // A component, one of the other engine, a core module that is made a component, and one that is not.
    for guest in [guests::ACKER, guests::ENVOY, guests::ACKER_MODULE, guests::PROGRAM_MODULE] {
        let compiled = host(gristmill(), Some(&cache)).load(request(guests::bytes(guest))).await.unwrap();
        assert!(!compiled.is_cached(), "{guest}");
        // Nothing is started for what was kept.
        let kept = host(other("/nonexistent"), Some(&cache)).load(request(guests::bytes(guest))).await.unwrap();
        assert!(kept.is_cached(), "{guest}");
        assert_eq!(outcome(&compiled).await, outcome(&kept).await, "{guest}");
        if guest == guests::ACKER {
            assert_eq!(outcome(&compiled).await, Outcome::Ack { result: None });
        }
    }
}

#[tokio::test]
async fn fuel_is_counted_in_what_a_child_compiles() {
    let options = HostOptions { count_fuel: true, compiler: Compiler::Child(gristmill()), ..HostOptions::default() };
    let component = Host::new(options).unwrap().load(request(guests::bytes(guests::ACKER))).await.unwrap();
    assert_eq!(outcome(&component).await, Outcome::Ack { result: None });
}

#[tokio::test]
async fn what_takes_too_much_time_is_given_up() {
    let started = Instant::now();
    let error = error_of(ChildCompiler { cpu: Duration::from_millis(300), ..gristmill() }, bomb()).await;
    assert!(matches!(error, LoadError::CompileTime { limit } if limit == Duration::from_secs(1)), "{error:?}");
    assert!(started.elapsed() < Duration::from_mins(1), "{:?}", started.elapsed());
    assert_eq!(
        error.to_string(),
        "compiling the component took more than 1s of processor time\n\
         build it smaller, or set `compile-time` in [runtime] higher, if you trust whoever made it"
    );
}

#[tokio::test]
async fn what_takes_too_much_memory_is_given_up() {
    const LIMIT: u64 = 256 << 20;
    let error = error_of(ChildCompiler { memory: LIMIT, ..gristmill() }, bomb()).await;
    assert!(matches!(error, LoadError::CompileMemory { limit: LIMIT }), "{error:?}");
    assert_eq!(
        error.to_string(),
        "compiling the component needed more than 256MiB of memory\n\
         build it smaller, or set `compile-memory` in [runtime] higher, if you trust whoever made it"
    );
    let host = host(ChildCompiler { memory: LIMIT, ..gristmill() }, None);
    host.load(request(guests::bytes(guests::ACKER))).await.unwrap();
}

#[tokio::test]
async fn what_does_not_compile_is_told_as_ever() {
    let bytes =
        wat::parse_str(r#"(module (memory (export "memory") 1) (func (export "_start") (drop (i32.const 1))))"#);
    let mut bytes = bytes.unwrap();
    // Nothing is there to be dropped.
    let at = bytes.windows(4).position(|code| code == [0x41, 1, 0x1a, 0x0b]).unwrap();
    bytes[at..at + 4].copy_from_slice(&[1, 1, 0x1a, 0x0b]);
    let in_process = Host::new(HostOptions { instances: 1, ..HostOptions::default() }).unwrap();
    let expected = in_process.load(request(bytes.clone())).await.unwrap_err();
    assert!(matches!(expected, LoadError::DoesNotCompile { .. }), "{expected:?}");
    assert_eq!(error_of(gristmill(), bytes).await.to_string(), expected.to_string());
}

#[tokio::test]
async fn a_compiler_that_does_not_work_is_an_error_of_its_own() {
    let acker = || guests::bytes(guests::ACKER);
    let error = error_of(other("/nonexistent"), acker()).await;
    assert!(matches!(error, LoadError::CompilerStart { .. }), "{error:?}");
    assert!(error.to_string().starts_with("cannot start the compiler, /nonexistent: No such file"), "{error}");
    for (script, how) in [
        ("exit 1", "it ended with exit status: 1\n"),
        ("echo sorry >&2; echo bye >&2; exit 7", "it ended with exit status: 7: sorry\n"),
        ("kill -KILL $$", "it ended with signal: 9 (SIGKILL)\n"),
        ("exit 0", "it said nothing\n"),
        ("echo no answer", "it said nothing\n"),
    ] {
        let error = error_of(script_of(script), acker()).await;
        assert!(matches!(error, LoadError::Compiler { .. }), "{script}: {error:?}");
        assert!(error.to_string().starts_with(&format!("the compiler gave no code: {how}")), "{script}: {error}");
    }
    // It sends a mark, and something that is no code.
    let error = error_of(script_of("printf 'nonsense+'"), acker()).await;
    assert!(error.to_string().starts_with("the compiler gave no code: its code is none: "), "{error}");
}

/// A process that is there, and is more than what is left of one until somebody asks for its status.
fn stat(process: &str) -> Option<Vec<String>> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // Behind its name, which may hold anything.
    let fields: Vec<_> = stat.rsplit_once(") ")?.1.split(' ').map(str::to_owned).collect();
    (fields[0] != "Z").then_some(fields)
}

/// Returns when `is_so`, which it is within a minute.
#[track_caller]
fn until(mut is_so: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < Duration::from_mins(1));
        std::thread::yield_now();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_compiler_ends_with_whoever_waits_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("process");
    // It never ends by itself, and has nothing to say.
    let endless = script_of(&format!("echo $$ > {0}.new; mv {0}.new {0}; exec tail -f /dev/null", file.display()));
    let loading = tokio::spawn(async move { host(endless, None).load(request(bomb())).await.map(drop) });
    until(|| file.exists());
    let process = std::fs::read_to_string(&file).unwrap().trim().to_owned();
    assert!(stat(&process).is_some());
    loading.abort();
    assert!(loading.await.unwrap_err().is_cancelled());
    until(|| stat(&process).is_none());
}

#[test]
fn a_compiler_ends_with_the_runtime_whatever_ends_that() {
    const PARENT: usize = 1;
    const THREADS: usize = 17;
    let bombs = tempfile::tempdir().unwrap();
    let path = bombs.path().join("bomb.wasm");
    std::fs::write(&path, bomb()).unwrap();
    let deployment = Deployment::new(&[]);
    let event = deployment.events(&[rig::event("1", "test.ack", serde_json::Value::Null)]);
    let mut command = rig::gristmill();
    command.arg("invoke").arg(&path).arg("--event").arg(event).stdout(Stdio::null()).stderr(Stdio::null());
    let mut runtime = command.spawn().unwrap();
    let mut compiler = String::new();
    until(|| {
        let processes = std::fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().file_name());
        let is_at_work = |name: &String| {
            stat(name).is_some_and(|fields| fields[PARENT] == runtime.id().to_string() && fields[THREADS] != "1")
        };
        compiler = processes.map(|name| name.to_string_lossy().into_owned()).find(is_at_work).unwrap_or_default();
        !compiler.is_empty()
    });
    let files = |process: &str| {
        let files = std::fs::read_dir(format!("/proc/{process}/fd")).ok()?;
        let links = files.filter_map(|file| std::fs::read_link(file.ok()?.path()).ok());
        Some(links.map(|link| link.display().to_string()).collect::<Vec<_>>())
    };
    // Only root may look. What this process was started with, everybody has.
    let inherited = files("self").unwrap_or_default();
    if let Some(files) = files(&compiler) {
        assert_eq!(std::fs::read(format!("/proc/{compiler}/environ")).unwrap(), b"MIMALLOC_ARENA_EAGER_COMMIT=0\0");
        let other = files.iter().find(|file| !file.starts_with("pipe:") && !inherited.contains(file));
        assert_eq!(other, None, "it has pipes, and no file of the runtime's: {files:?}");
    }
    runtime.kill().unwrap();
    runtime.wait().unwrap();
    until(|| stat(&compiler).is_none());
}

#[tokio::test]
async fn a_compiler_that_does_nothing_is_given_up() {
    let started = Instant::now();
    let stuck = ChildCompiler { patience: Duration::from_millis(300), ..script_of("exec tail -f /dev/null") };
    let error = error_of(stuck, guests::bytes(guests::ACKER)).await;
    assert!(matches!(error, LoadError::CompileWait { limit } if limit == Duration::from_millis(300)), "{error:?}");
    assert!(started.elapsed() < Duration::from_secs(30), "{:?}", started.elapsed());
    let words = "compiling the component was not finished after 300ms, without having used up its processor time\n";
    assert!(error.to_string().starts_with(words), "{error}");
}

#[test]
fn a_bomb_is_an_error_of_its_handler_alone() {
    let bombs = tempfile::tempdir().unwrap();
    let path = bombs.path().join("bomb.wasm");
    std::fs::write(&path, bomb()).unwrap();
    let component = format!("component = {path:?}");
    let other = handler("bomb", guests::PROGRAM_MODULE, ALL, "");
    let line = other.lines().find(|line| line.starts_with("component")).unwrap();
    let deployment =
        Deployment::new(&[acker("first", ALL), rig::swapped(&other, line, &component), acker("last", ALL)]);
    deployment.swap("[runtime]\n", "[runtime]\ncode-cache = false\ncompile-time = \"1s\"\n");
    let output = deployment.command(&["check"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let (shown, complaint) = (text(&output.stdout), text(&output.stderr));
    assert!(shown.contains("first") && shown.contains("last") && !shown.contains("bomb"), "{shown}");
    assert!(complaint.starts_with("error: handler `bomb`: "), "{complaint}");
    assert!(
        complaint.contains("bomb.wasm: compiling the component took more than 1s of processor time\n"),
        "{complaint}"
    );
}

#[test]
fn nobody_compiles_by_hand() {
    let output = rig::gristmill().arg("compile-component").stdin(Stdio::null()).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(
        text(&output.stderr),
        "error: this compiles a component for `gristmill run`, `check` or `invoke`, which start it\n"
    );
}
