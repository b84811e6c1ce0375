//! Core modules that carry the type of a component, as compilers yield them: made components when they are loaded.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::sync::Arc;

use gristmill_core::{Event, Outcome, Pattern};
use gristmill_host::{Component, Grants, ImportStatus, Interface, Invocation, LoadError, LoadRequest};
use gristmill_test_guests::{ACKER_MODULE, ACTOR_MODULE, PROGRAM_MODULE, bytes};
use support::{host, invocation, request};

/// A handler that acks everything and calls nobody. `more` are further items of the module.
fn bare(more: &str) -> Vec<u8> {
    let text = format!(
        r#"(module
            (memory (export "memory") 1)
            (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024))
            (func (export "gristmill:events/handler@0.1.0#handle") (param i32) (result i32) (i32.const 16))
            {more})"#
    );
    with_sections(wat::parse_str(&text).unwrap(), &types_of(&bytes(ACKER_MODULE)))
}

/// The sections that carry the type.
fn types_of(module: &[u8]) -> Vec<(String, Vec<u8>)> {
    let sections = wasmparser::Parser::new(0).parse_all(module).filter_map(|payload| match payload.unwrap() {
        wasmparser::Payload::CustomSection(section) if section.name().starts_with("component-type") => {
            Some((section.name().to_owned(), section.data().to_owned()))
        }
        _ => None,
    });
    sections.collect()
}

fn with_sections(mut module: Vec<u8>, sections: &[(String, Vec<u8>)]) -> Vec<u8> {
    for (name, data) in sections {
        let mut content = leb128(name.len());
        content.extend(name.as_bytes());
        content.extend(data);
        module.push(0);
        module.extend(leb128(content.len()));
        module.extend(content);
    }
    module
}

fn leb128(mut number: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = (number & 0x7f) as u8;
        number >>= 7;
        if number == 0 {
            bytes.push(low);
            return bytes;
        }
        bytes.push(low | 0x80);
    }
}

async fn load(bytes: Vec<u8>, interface: Option<Interface>) -> Result<Component, LoadError> {
    let grants = Grants { emit: vec![Pattern::new("test.*")], ..Grants::default() };
    host(2).load(LoadRequest { grants, interface, ..request(bytes) }).await
}

fn act(ty: &str) -> Invocation {
    Invocation { event: Arc::new(Event::new("1", "/test", ty)), ..invocation() }
}

#[tokio::test]
async fn a_module_of_a_compiler_is_a_handler_like_any_other() {
    let component = load(bytes(ACTOR_MODULE), None).await.unwrap();
    assert!(component.is_wrapped());
    assert_eq!(component.interface(), Interface::Handler);
    let status = |name: &str| {
        component.imports().iter().find(|import| import.name.starts_with(name)).map(|import| import.status)
    };
    assert_eq!(status("gristmill:events/emitter@"), Some(ImportStatus::Provided));
    assert_eq!(status("wasi:cli/environment@"), Some(ImportStatus::Powerless));

    let emitted = component.handle(act("test.emit")).await;
    assert_eq!(emitted.outcome, Outcome::Ack { result: None });
    assert_eq!(emitted.emits.len(), 1);
    let panicked = component.handle(act("test.panic")).await;
    let reason = panicked.outcome.reason().unwrap();
    assert!(reason.starts_with("panicked at ") && reason.contains(": boom\n"), "{reason}");
    let logged = component.handle(act("test.log")).await;
    for words in ["from stdout", "from stderr", "from tracing"] {
        assert!(logged.logs.iter().any(|line| line.message.contains(words)), "{words}: {:?}", logged.logs);
    }
    assert_eq!(component.handle(act("test.reject")).await.outcome.kind().as_str(), "reject");
}

#[tokio::test]
async fn the_digest_is_that_of_the_file() {
    let file = bytes(ACKER_MODULE);
    let digest = load(file.clone(), None).await.unwrap().digest().to_owned();
    let pinned = LoadRequest { digest: Some(digest), ..request(file) };
    assert!(host(1).load(pinned).await.unwrap().is_wrapped());
}

#[tokio::test]
async fn grants_are_asked_of_modules_too() {
    let refused = host(1).load(LoadRequest { grants: Grants::default(), ..request(bytes(ACTOR_MODULE)) }).await;
    assert!(matches!(refused, Err(LoadError::EmitNotGranted)));
}

#[tokio::test]
async fn a_module_without_wasi_needs_no_adapter() {
    let component = load(bare(""), None).await.unwrap();
    assert!(component.is_wrapped());
    // The types of what is handed over, and nothing that could be called.
    let [types] = component.imports() else { panic!("{:?}", component.imports()) };
    assert_eq!(types.name, "gristmill:events/types@0.1.0");
    assert_eq!(component.handle(invocation()).await.outcome, Outcome::Ack { result: None });
}

#[tokio::test]
async fn a_module_may_be_a_program_and_a_handler() {
    let module = bare(r#"(func (export "_start") unreachable)"#);
    let handler = load(module.clone(), None).await.unwrap();
    assert_eq!((handler.is_wrapped(), handler.interface()), (true, Interface::Handler));
    assert_eq!(handler.handle(invocation()).await.outcome, Outcome::Ack { result: None });
    let program = load(module, Some(Interface::Run)).await.unwrap();
    assert_eq!((program.is_wrapped(), program.interface()), (true, Interface::Run));
    assert_eq!(program.handle(invocation()).await.outcome.kind().as_str(), "trap");
}

#[tokio::test]
async fn a_program_that_only_carries_a_type_is_run_as_it_is() {
    let module = with_sections(bytes(PROGRAM_MODULE), &types_of(&bytes(ACKER_MODULE)));
    let component = load(module, None).await.unwrap();
    assert_eq!((component.is_wrapped(), component.interface()), (false, Interface::Command));
    assert_eq!(component.handle(act("test.reject")).await.outcome.kind().as_str(), "reject");
}

#[tokio::test]
async fn a_type_that_is_too_large_is_not_read() {
    let large = ("component-type:large".to_owned(), vec![0; (1 << 20) + 1]);
    let Err(error) = load(with_sections(b"\0asm\x01\0\0\0".to_vec(), &[large]), None).await else { panic!("loaded") };
    assert!(error.to_string().contains("its type has 1048577 bytes"), "{error}");
}
