//! Whatever a file holds, loading it ends soon, and with a component or an error.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use bytes::Bytes;
use gristmill_core::{Outcome, Pattern};
use gristmill_host::{Component, Host, ImportStatus, Interface, LoadError, LoadRequest};
use gristmill_test_guests::{ACKER_MODULE, BATCHER, MESSENGER};
use proptest::prelude::*;
use support::{Guest, host, invocation, request};
use tokio::runtime::Runtime;

const ACK: &str = "(i32.const 1024)";
/// What no load of these takes, even on a busy machine.
const SOON: Duration = Duration::from_secs(30);

static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap());
static HOST: LazyLock<Host> = LazyLock::new(|| host(2));

fn load_as(bytes: Bytes, interface: Option<Interface>) -> Result<Component, LoadError> {
    let mut request = LoadRequest { interface, ..request(bytes) };
    request.grants.emit = vec![Pattern::new("*")];
    request.grants.state = vec!["counts".parse().unwrap()];
    let started = Instant::now();
    let loaded = RUNTIME.block_on(HOST.load(request));
    assert!(started.elapsed() < SOON, "{:?}", started.elapsed());
    assert!(!matches!(loaded, Err(LoadError::Fault | LoadError::Interrupted)), "it panicked");
    loaded
}

fn load(bytes: impl Into<Bytes>) -> Result<Component, LoadError> {
    load_as(bytes.into(), None)
}

/// Loads, and shows what came of it as a person would see it: one page at most, without control characters.
fn try_load(bytes: Vec<u8>, interface: Option<Interface>) {
    if let Err(error) = load_as(bytes.into(), interface) {
        let text = error.to_string();
        assert!(text.len() < 16 << 10, "{} bytes", text.len());
        assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "{text:?}");
    }
}

fn acks(component: &Component) -> bool {
    RUNTIME.block_on(component.handle(invocation())).outcome == Outcome::Ack { result: None }
}

/// A small handler, a handler of a toolchain, a module with a type, and a program.
fn samples() -> &'static [Vec<u8>] {
    static SAMPLES: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
        let command = r#"(module (import "wasi_snapshot_preview1" "proc_exit" (func (param i32)))
            (memory (export "memory") 1) (func (export "_start")))"#;
        vec![
            Guest { handle: ACK, ..Guest::default() }.build().to_vec(),
            gristmill_test_guests::bytes(BATCHER),
            gristmill_test_guests::bytes(MESSENGER),
            gristmill_test_guests::bytes(ACKER_MODULE),
            wat::parse_str(command).unwrap(),
        ]
    });
    &SAMPLES
}

/// Where the sections are that say what the module is to become, at its end; the encoder of components reads them.
fn type_of(module: &[u8]) -> std::ops::Range<usize> {
    let mut range = module.len()..module.len();
    for payload in wasmparser::Parser::new(0).parse_all(module) {
        if let wasmparser::Payload::CustomSection(section) = payload.unwrap()
            && section.name().starts_with("component-type")
        {
            range = section.data_offset()..section.data_offset() + section.data().len();
        }
    }
    range
}

fn custom_section(name: &str, data: &[u8]) -> Vec<u8> {
    let name_len = u8::try_from(name.len()).unwrap();
    let content = [&[name_len], name.as_bytes(), data].concat();
    let length = u32::try_from(content.len()).unwrap();
    let length = (0..5).map(|n| (length >> (7 * n)) as u8 & 0x7f | if n < 4 { 0x80 } else { 0 });
    [0].into_iter().chain(length).chain(content).collect()
}

fn interfaces() -> impl Strategy<Value = Option<Interface>> {
    prop::option::weighted(0.3, prop::sample::select(&Interface::ALL[..]))
}

fn cases(few: u32) -> ProptestConfig {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(few);
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(cases(256))]

    #[test]
    fn any_bytes(
        head in prop::sample::select(vec![&b""[..], b"\0asm\x01\0\0\0", b"\0asm\x0d\0\x01\0", b"\0asm"]),
        tail in prop::collection::vec(any::<u8>(), 0..2048),
        interface in interfaces(),
    ) {
        try_load([head, &tail].concat(), interface);
    }

    #[test]
    fn a_part_of_a_file(which in any::<prop::sample::Index>(), end in any::<prop::sample::Index>()) {
        let sample = which.get(samples());
        try_load(sample[..end.index(sample.len())].to_vec(), None);
    }
}

proptest! {
    // Many of these are valid, and compiled.
    #![proptest_config(cases(32))]

    #[test]
    fn a_file_with_some_bytes_changed(
        which in any::<prop::sample::Index>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        interface in interfaces(),
    ) {
        let mut bytes = which.get(samples()).clone();
        for (at, to) in changes {
            let at = at.index(bytes.len());
            bytes[at] = to;
        }
        try_load(bytes, interface);
    }

    #[test]
    fn a_module_whose_type_has_some_bytes_changed(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut bytes = gristmill_test_guests::bytes(ACKER_MODULE);
        let range = type_of(&bytes);
        for (at, to) in changes {
            let at = range.start + at.index(range.len());
            bytes[at] = to;
        }
        try_load(bytes, None);
    }
}

#[test]
fn all_of_wasi_may_be_imported_and_not_used() {
    let names = [
        "io/error io/poll io/streams clocks/monotonic-clock clocks/wall-clock random/random random/insecure",
        "random/insecure-seed cli/exit cli/stdout cli/stderr cli/stdin cli/environment cli/terminal-input",
        "cli/terminal-output cli/terminal-stdin cli/terminal-stdout cli/terminal-stderr filesystem/types",
        "filesystem/preopens sockets/network sockets/instance-network sockets/ip-name-lookup sockets/tcp",
        "sockets/tcp-create-socket sockets/udp sockets/udp-create-socket",
    ];
    let names: Vec<_> = names.iter().flat_map(|line| line.split(' ')).collect();
    for version in ["0.2.0", "0.2.6"] {
        let import = |name: &&str| format!("(import \"wasi:{name}@{version}\" (instance))\n");
        let imports: String = names.iter().map(import).collect();
        let component = load(Guest { imports: &imports, handle: ACK, ..Guest::default() }.build()).unwrap();
        assert_eq!(component.imports().len(), names.len());
        assert!(component.imports().iter().any(|import| import.status == ImportStatus::Powerless));
        assert!(acks(&component));
    }
}

#[test]
fn a_large_component_loads_in_time() {
    let functions: String = (0..20_000).map(|n| format!("(func (result i32) (i32.const {n}))")).collect();
    let data = "x".repeat(4 << 20);
    let imports = format!(
        r#"(core module $code {functions}) (core instance (instantiate $code))
           (core module $data (memory 100) (data (i32.const 0) "{data}")) (core instance (instantiate $data))"#
    );
    let mut bytes = Guest { imports: &imports, handle: ACK, ..Guest::default() }.build().to_vec();
    let padding = 30_000_000 - bytes.len();
    bytes.extend(custom_section("padding", &vec![7; padding]));
    assert!(bytes.len() > 30_000_000);
    let component = load(bytes).unwrap();
    assert!(acks(&component));
}

#[test]
fn names_that_are_no_text_are_damage() {
    let bytes = Guest { handle: ACK, ..Guest::default() }.build().to_vec();
    let name = b"gristmill:events/handler@0.1.0";
    let at = bytes.windows(name.len()).rposition(|window| window == name).unwrap();
    let mut wrong = bytes.clone();
    wrong[at] = 0xff;
    let error = load(wrong).unwrap_err();
    assert!(matches!(error, LoadError::Damaged { .. }), "{error}");
}

#[test]
fn what_nests_too_deep_is_refused() {
    let depth = 2_000;
    let components = "(component ".repeat(depth) + &")".repeat(depth);
    assert!(wat::parse_str(&components).map_or(true, |bytes| load(bytes).is_err()));
    // Lists of lists, as the type of a component: each is read by going into the one before.
    let lists: String = (0..100_000)
        .map(|n| format!("(type (list {}))", if n == 0 { "u8".into() } else { (n - 1).to_string() }))
        .collect();
    let error = load(wat::parse_str(format!("(component {lists})")).unwrap()).unwrap_err();
    assert!(!error.to_string().is_empty());
    let text = format!("(component (type (component {lists})) (export \"x\" (type 0)))");
    let types = wat::parse_str(text).unwrap();
    let module = [b"\0asm\x01\0\0\0", &custom_section("component-type", &types)[..]].concat();
    let error = load(module).unwrap_err();
    assert!(matches!(error, LoadError::NotWrapped { .. }), "{error}");
}

/// An interface whose type is that of a type of the world, which no WIT can say: the encoder panics.
#[test]
fn a_type_that_the_encoder_trips_over_is_an_error() {
    let types = wat::parse_str(
        r#"(component
            (type (component
                (type (component
                    (type $record (record (field "a" u32)))
                    (import "r" (type $r (eq $record)))
                    (type $interface (instance
                        (alias outer 1 $r (type $outer))
                        (export "s" (type (eq $outer)))))
                    (import "a:b/c" (instance (type $interface)))))
                (export "x:y/world" (component (type 0)))))
            (export "world" (type 0))
            (@custom "wit-component-encoding" "\04\00"))"#,
    );
    let module = [b"\0asm\x01\0\0\0", &custom_section("component-type", &types.unwrap())[..]].concat();
    let error = load(module).unwrap_err();
    assert!(matches!(error, LoadError::NotWrapped { .. }), "{error}");
}

#[test]
fn a_zip_is_named() {
    let error = load(&b"PK\x03\x04\x14\0\0\0"[..]).unwrap_err();
    assert!(error.to_string().starts_with("this is a zip archive"), "{error}");
}
