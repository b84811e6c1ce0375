//! What a file is, told from its bytes: the checks that need no compiler.

use sha2::{Digest, Sha256};
use wasmparser::{ComponentTypeRef, Parser, Payload, TypeBounds};

use crate::error::{EMITTER, HANDLER, LoadError};
use crate::options::Grants;
use crate::provided::{self, ImportStatus};

/// An interface that a component imports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Import {
    /// Its name with its version, such as `wasi:io/streams@0.2.6`.
    pub name: String,
    /// What the component gets.
    pub status: ImportStatus,
}

/// The outer names of a component.
#[derive(Debug, Default, PartialEq, Eq)]
struct Outline {
    imports: Vec<String>,
    exports: Vec<String>,
}

/// `sha256:` and 64 hexadecimal digits.
pub(crate) fn digest(bytes: &[u8]) -> String {
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

/// Checks that `bytes` are a component that this host can run as a handler under `grants`; returns its imports.
pub(crate) fn expect_handler(bytes: &[u8], grants: &Grants) -> Result<Vec<Import>, LoadError> {
    let Outline { imports, exports } = outline(bytes)?;
    if !exports.iter().any(|name| name == HANDLER) {
        return Err(LoadError::NoHandler { exports });
    }
    let mut known = Vec::with_capacity(imports.len());
    let mut unknown = Vec::new();
    for name in imports {
        match provided::status(&name) {
            Some(status) => known.push(Import { name, status }),
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
    Ok(known)
}

fn outline(bytes: &[u8]) -> Result<Outline, LoadError> {
    if Parser::is_core_wasm(bytes) {
        return Err(LoadError::CoreModule);
    }
    let mut outline = Outline::default();
    let mut depth = 0u32;
    for payload in Parser::new(0).parse_all(bytes) {
        match payload.map_err(damaged)? {
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth = depth.saturating_add(1),
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::ComponentImportSection(section) if depth == 0 => {
                for import in section {
                    let import = import.map_err(damaged)?;
                    // An import that names a type of another import asks for nothing.
                    if !matches!(import.ty, ComponentTypeRef::Type(TypeBounds::Eq(_))) {
                        outline.imports.push(import.name.name.to_owned());
                    }
                }
            }
            Payload::ComponentExportSection(section) if depth == 0 => {
                for export in section {
                    outline.exports.push(export.map_err(damaged)?.name.name.to_owned());
                }
            }
            _ => {}
        }
    }
    Ok(outline)
}

#[allow(clippy::needless_pass_by_value, reason = "used as a function in map_err")]
fn damaged(error: wasmparser::BinaryReaderError) -> LoadError {
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
        let outline = outline(&bytes).unwrap();
        assert_eq!(outline.imports, ["wasi:io/poll@0.2.0"]);
        assert_eq!(outline.exports, [HANDLER]);
    }

    #[test]
    fn no_prefix_of_a_component_is_taken_for_a_whole_one() {
        let bytes =
            wat::parse_str(r#"(component (core module (func nop)) (instance $i) (export "a" (instance $i)))"#).unwrap();
        for end in 0..bytes.len() {
            let part = &bytes[..end];
            let result = expect_wasm(part).and_then(|()| expect_handler(part, &Grants::default()));
            assert!(result.is_err(), "{end}");
        }
    }

    #[test]
    fn text_is_shown_and_bytes_are_not() {
        assert!(other_format("naïve".as_bytes()).0.contains("naïve"));
        assert!(other_format(&"ä".repeat(100).as_bytes()[1..]).0.contains("bytes"));
        assert_eq!(other_format(b"\xff\x00").0, "of no known format (it begins with the bytes ff 00)");
    }
}
