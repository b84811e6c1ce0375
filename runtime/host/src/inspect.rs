//! What a file is, told from its bytes: the checks that need no compiler.

use sha2::{Digest, Sha256};
use wasmparser::{CanonicalFunction, CanonicalOption, ComponentTypeRef, Parser, Payload, TypeBounds};

use crate::error::{EMITTER, KEYVALUE, LoadError, PRODUCER};
use crate::gap;
use crate::interfaces::Interface;
use crate::options::Grants;
use crate::provided::{self, ImportStatus, PREVIEW1};

/// An interface that a component imports, or a function that a command does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Import {
    /// Its name with its version, such as `wasi:io/streams@0.2.6`; of a function, `wasi_snapshot_preview1::fd_read`.
    pub name: String,
    /// What the component gets.
    pub status: ImportStatus,
}

/// The outer names of a component or a core module.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Outline {
    pub(crate) form: Form,
    pub(crate) imports: Vec<String>,
    pub(crate) exports: Vec<String>,
    /// Whether it needs the async functions of the component model.
    pub(crate) is_async: bool,
}

/// The two things that a WebAssembly file may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Component,
    /// A core module.
    Module {
        /// The bytes of the sections that say what component it is meant to become; `None`: none.
        type_len: Option<usize>,
    },
}

/// Where a program begins.
pub(crate) const START: &str = "_start";
/// How the section is called that says what component a module is to become.
const COMPONENT_TYPE: &str = "component-type";

/// What identifies bytes: `sha256:` and 64 hexadecimal digits.
#[must_use]
pub fn digest(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut text = String::from("sha256:");
    for byte in Sha256::digest(bytes) {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// Whether `bytes` are WebAssembly at all.
pub(crate) fn expect_wasm(bytes: &[u8]) -> Result<(), LoadError> {
    if bytes.is_empty() {
        return Err(LoadError::Empty);
    }
    if bytes.starts_with(b"\0asm") {
        return Ok(());
    }
    let (found, advice) = other_format(bytes);
    Err(LoadError::NotWasm { found, advice })
}

/// What becomes of the imports, if all of them are there and may be used under `grants`.
pub(crate) fn expect_imports(
    outline: &Outline,
    interface: Interface,
    grants: &Grants,
) -> Result<Vec<Import>, LoadError> {
    let mut known = Vec::with_capacity(outline.imports.len());
    let mut unknown = Vec::new();
    for name in outline.imports.iter().cloned() {
        match provided::status(&name) {
            Some(_) if interface.is_program() && name.starts_with("wasi:cli/stdin@") => {
                known.push(Import { name, status: ImportStatus::Provided });
            }
            Some(_) if grants.emit.is_empty() && name.starts_with(PRODUCER) => {
                known.push(Import { name, status: ImportStatus::Powerless });
            }
            Some(status) => known.push(Import { status: gap::status(&name, status, grants), name }),
            None => unknown.push(name),
        }
    }
    if !unknown.is_empty() {
        return Err(LoadError::UnknownImports { imports: unknown });
    }
    let emits = known.iter().any(|import| import.name.split('@').next() == Some(EMITTER));
    if emits && grants.emit.is_empty() {
        return Err(LoadError::EmitNotGranted);
    }
    let keeps_state = known.iter().any(|import| import.name.starts_with(KEYVALUE));
    if keeps_state && grants.state.is_empty() {
        return Err(LoadError::StateNotGranted);
    }
    Ok(known)
}

impl Outline {
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, LoadError> {
        let is_module = Parser::is_core_wasm(bytes);
        let form = if is_module { Form::Module { type_len: None } } else { Form::Component };
        let mut outline = Self { form, imports: Vec::new(), exports: Vec::new(), is_async: false };
        let mut depth = 0u32;
        for payload in Parser::new(0).parse_all(bytes) {
            match payload.map_err(damaged)? {
                Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth = depth.saturating_add(1),
                Payload::End(_) => depth = depth.saturating_sub(1),
                Payload::ComponentCanonicalSection(section) => {
                    for function in section {
                        outline.is_async |= is_async(&function.map_err(damaged)?);
                    }
                }
                payload if depth == 0 => outline.note(payload).map_err(damaged)?,
                _ => {}
            }
        }
        Ok(outline)
    }

    /// Whether it is a module that begins as programs do.
    pub(crate) fn has_start(&self) -> bool {
        self.form != Form::Component && self.exports.iter().any(|name| name == START)
    }

    /// Whether it is a program that needs nothing but WASI preview 1, whatever type it carries. What exports functions of
    /// interfaces besides is the inner part of a component.
    pub(crate) fn is_command(&self) -> bool {
        let Form::Module { type_len } = self.form else { return false };
        let needs_wasi_only = || self.imports.iter().all(|name| name.starts_with(PREVIEW1));
        let has_interfaces = || self.exports.iter().any(|name| name.contains(['#', '|']));
        self.has_start() && (type_len.is_none() || (needs_wasi_only() && !has_interfaces()))
    }

    /// The export of a component whose name fits.
    pub(crate) fn component_export(&self, fits: impl Fn(&str) -> bool) -> Option<&str> {
        let names = (self.form == Form::Component).then_some(&self.exports)?;
        names.iter().map(String::as_str).find(|name| fits(name))
    }

    fn note(&mut self, payload: Payload<'_>) -> wasmparser::Result<()> {
        match payload {
            Payload::ComponentImportSection(section) => {
                for import in section {
                    let import = import?;
                    // An import that names a type of another import asks for nothing.
                    if !matches!(import.ty, ComponentTypeRef::Type(TypeBounds::Eq(_))) {
                        self.is_async |= provided::is_async(import.name.name);
                        self.imports.push(import.name.name.to_owned());
                    }
                }
            }
            Payload::ComponentExportSection(section) => {
                for export in section {
                    let name = export?.name.name;
                    self.is_async |= provided::is_async(name);
                    self.exports.push(name.to_owned());
                }
            }
            Payload::ImportSection(section) => {
                for import in section.into_imports() {
                    let import = import?;
                    self.imports.push(format!("{}::{}", import.module, import.name));
                }
            }
            Payload::ExportSection(section) => {
                for export in section {
                    self.exports.push(export?.name.to_owned());
                }
            }
            Payload::CustomSection(section) if section.name().starts_with(COMPONENT_TYPE) => {
                if let Form::Module { type_len } = &mut self.form {
                    *type_len = Some(type_len.unwrap_or(0).saturating_add(section.data().len()));
                }
            }
            _ => {}
        }
        Ok(())
    }
}

/// Whether a function of a component belongs to the async part of the component model.
fn is_async(function: &CanonicalFunction) -> bool {
    match function {
        CanonicalFunction::Lift { options, .. } | CanonicalFunction::Lower { options, .. } => {
            options.contains(&CanonicalOption::Async)
        }
        CanonicalFunction::ResourceNew { .. }
        | CanonicalFunction::ResourceDrop { .. }
        | CanonicalFunction::ResourceRep { .. } => false,
        _ => true,
    }
}

#[allow(clippy::needless_pass_by_value, reason = "used as a function in map_err")]
pub(crate) fn damaged(error: wasmparser::BinaryReaderError) -> LoadError {
    LoadError::Damaged { reason: format!("{} (at byte {})", error.message(), error.offset()) }
}

/// What something that is not WebAssembly looks like, and what to do about it.
fn other_format(bytes: &[u8]) -> (String, &'static str) {
    const COMPONENT: &str =
        "name the `.wasm` file that the build wrote: `target/wasm32-wasip2/release/NAME.wasm` for Rust";
    const NATIVE: &str = "build it for WebAssembly: `cargo build --target wasm32-wasip2`";
    const UNPACK: &str = "unpack it and name the `.wasm` file inside";
    const MAGIC: [(&[u8], &str, &str); 9] = [
        (b"\x7fELF", "an ELF file (a native program, or a component that was compiled ahead of time)", NATIVE),
        (b"MZ", "a Windows program", NATIVE),
        (b"\xcf\xfa\xed\xfe", "a macOS program", NATIVE),
        (b"\xca\xfe\xba\xbe", "a macOS universal program or a Java class", NATIVE),
        (b"\x1f\x8b", "a gzip archive", UNPACK),
        (b"\x28\xb5\x2f\xfd", "a zstd archive", UNPACK),
        (b"PK\x03\x04", "a zip archive", UNPACK),
        (b"!<arch>\n", "a static library", NATIVE),
        (b"BC\xc0\xde", "LLVM bitcode", NATIVE),
    ];
    if let Some((_, found, advice)) = MAGIC.iter().find(|(magic, ..)| bytes.starts_with(magic)) {
        return ((*found).to_owned(), advice);
    }
    let head = bytes.get(..bytes.len().min(64)).unwrap_or_default();
    let Some(text) = text_of(head) else {
        let hex: Vec<_> = head.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        return (format!("of no known format (it begins with the bytes {})", hex.join(" ")), COMPONENT);
    };
    let start = text.trim_start_matches('\u{feff}').trim_start();
    if start.starts_with("(component") || start.starts_with("(module") || start.starts_with(";;") {
        return (
            "WebAssembly text".to_owned(),
            "turn it into a binary: `wasm-tools parse component.wat -o component.wasm`",
        );
    }
    if start.starts_with("version https://git-lfs") {
        return ("a Git LFS pointer".to_owned(), "fetch the file that it stands for: `git lfs pull`");
    }
    if start.starts_with('<') {
        return ("an HTML or XML page".to_owned(), "if it was downloaded, look at it: the server sent an error page");
    }
    let line: String = start.lines().next().unwrap_or_default().chars().take(32).collect();
    (format!("text (it begins with {line:?})"), COMPONENT)
}

/// `head` as text, if it looks like text; a character cut in two at the end does not matter.
fn text_of(head: &[u8]) -> Option<&str> {
    let text = match std::str::from_utf8(head) {
        Ok(text) => text,
        Err(error) if error.error_len().is_none() => std::str::from_utf8(head.get(..error.valid_up_to())?).ok()?,
        Err(_) => return None,
    };
    let printable = |c: char| !c.is_control() || c.is_ascii_whitespace();
    (!text.is_empty() && text.chars().all(printable)).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::interfaces;

    #[test]
    fn only_outer_names_count() {
        let bytes = wat::parse_str(
            r#"(component
                (import "wasi:io/poll@0.2.0" (instance))
                (component (import "inner" (func)) (export "x" (func 0)))
                (core module (import "a" "b" (func)) (export "y" (func 0)))
                (instance $i)
                (export "gristmill:events/handler@0.1.0" (instance $i)))"#,
        )
        .unwrap();
        let outline = Outline::read(&bytes).unwrap();
        assert_eq!(outline.form, Form::Component);
        assert_eq!(outline.imports, ["wasi:io/poll@0.2.0"]);
        assert_eq!(outline.exports, ["gristmill:events/handler@0.1.0"]);
    }

    #[test]
    fn no_prefix_of_a_component_is_taken_for_a_whole_one() {
        let bytes =
            wat::parse_str(r#"(component (core module (func nop)) (instance $i) (export "a" (instance $i)))"#).unwrap();
        for end in 0..bytes.len() {
            let part = &bytes[..end];
            let outline = expect_wasm(part).and_then(|()| Outline::read(part));
            let result = outline.and_then(|outline| interfaces::find(&outline, None));
            assert!(result.is_err(), "{end}");
        }
    }

    #[test]
    fn a_module_is_told_from_a_component() {
        let read = |wat: &str| Outline::read(&wat::parse_str(wat).unwrap()).unwrap();
        let command = read(
            r#"(module (import "env" "f" (func)) (import "env" "g" (memory 1)) (func (export "_start")) (@custom "x" ""))"#,
        );
        assert_eq!(command.form, Form::Module { type_len: None });
        assert_eq!((command.imports, command.exports), (vec!["env::f".into(), "env::g".into()], vec!["_start".into()]));
        let inner = read(r#"(module (@custom "component-type:wit-bindgen:0.1" "x"))"#);
        assert_eq!(inner.form, Form::Module { type_len: Some(1) });
    }

    #[test]
    fn text_is_shown_and_bytes_are_not() {
        assert!(other_format("naïve".as_bytes()).0.contains("naïve"));
        assert!(other_format(&"ä".repeat(100).as_bytes()[1..]).0.contains("bytes"));
        assert_eq!(other_format(b"\xff\x00").0, "of no known format (it begins with the bytes ff 00)");
    }
}
