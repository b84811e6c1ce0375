//! The custom section that carries a component's manifest: found, put in and taken out. What stands in it means nothing
//! here.
//!
//! A component and a core module are the same at the top: eight bytes, and sections that each say how long they are. What
//! lies within a section is not looked at, so that a manifest of something nested is no manifest of the whole.

use std::ops::Range;

use gristmill_core::units::format_size;
use wasmparser::{BinaryReader, BinaryReaderError};

use crate::error::LoadError;
use crate::inspect;

/// What the section is called.
pub const MANIFEST_SECTION: &str = "gristmill:manifest";
/// The longest manifest, in bytes.
pub const MAX_MANIFEST: usize = 64 << 10;

/// The magic number, and the version.
const HEADER: usize = 8;
/// Of a custom section.
const CUSTOM: u8 = 0;

/// Why a file's manifest cannot be read or written. None names the file: only the caller knows it.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// The file is no WebAssembly, or damaged.
    #[error(transparent)]
    File(#[from] LoadError),
    /// There is more than one.
    #[error(
        "the file carries {count} manifests (custom sections `{MANIFEST_SECTION}`); it may have one\n\
         embed the right one again: `gristmill embed COMPONENT --manifest FILE` replaces all of them"
    )]
    Several {
        /// How many.
        count: usize,
    },
    /// It is too long.
    #[error("the manifest has {size} bytes; it may have {} at most", format_size(MAX_MANIFEST as u64))]
    TooLong {
        /// Its bytes.
        size: usize,
    },
}

/// One section that carries a manifest.
struct Section<'a> {
    /// All of it, its head included.
    range: Range<usize>,
    data: &'a [u8],
}

/// The manifest that a component or a core module carries; `None`: none. Not even known to be text.
///
/// # Errors
/// When the file is no WebAssembly or damaged at the top, and when there are several or it is too long.
pub fn manifest(bytes: &[u8]) -> Result<Option<&[u8]>, ManifestError> {
    let sections = sections(bytes)?;
    match sections.as_slice() {
        [] => Ok(None),
        [section] if section.data.len() > MAX_MANIFEST => Err(ManifestError::TooLong { size: section.data.len() }),
        [section] => Ok(Some(section.data)),
        several => Err(ManifestError::Several { count: several.len() }),
    }
}

/// The same file with `manifest` at its end and no other; `None`: with none. All else stays as it is, byte for byte.
///
/// # Errors
/// When the file is no WebAssembly or damaged at the top, and when the manifest is too long.
pub fn with_manifest(bytes: &[u8], manifest: Option<&[u8]>) -> Result<Vec<u8>, ManifestError> {
    if let Some(manifest) = manifest.filter(|manifest| manifest.len() > MAX_MANIFEST) {
        return Err(ManifestError::TooLong { size: manifest.len() });
    }
    let mut written = Vec::with_capacity(bytes.len() + MAX_MANIFEST);
    let mut next = 0;
    for section in sections(bytes)? {
        written.extend_from_slice(bytes.get(next..section.range.start).unwrap_or_default());
        next = section.range.end;
    }
    written.extend_from_slice(bytes.get(next..).unwrap_or_default());
    if let Some(manifest) = manifest {
        let mut content = Vec::with_capacity(manifest.len() + MANIFEST_SECTION.len() + 1);
        put_length(&mut content, MANIFEST_SECTION.len());
        content.extend_from_slice(MANIFEST_SECTION.as_bytes());
        content.extend_from_slice(manifest);
        written.push(CUSTOM);
        put_length(&mut written, content.len());
        written.extend_from_slice(&content);
    }
    Ok(written)
}

fn sections(bytes: &[u8]) -> Result<Vec<Section<'_>>, LoadError> {
    inspect::expect_wasm(bytes)?;
    read_sections(bytes).map_err(inspect::damaged)
}

fn read_sections(bytes: &[u8]) -> Result<Vec<Section<'_>>, BinaryReaderError> {
    let mut reader = BinaryReader::new(bytes, 0);
    reader.read_bytes(HEADER)?;
    let mut sections = Vec::new();
    while !reader.eof() {
        let start = reader.original_position();
        let id = reader.read_u8()?;
        let length = reader.read_var_u32()?;
        let content_start = reader.original_position();
        let content = reader.read_bytes(usize::try_from(length).unwrap_or(usize::MAX))?;
        if id == CUSTOM {
            let mut content = BinaryReader::new(content, content_start);
            if content.read_unlimited_string()? == MANIFEST_SECTION {
                let data = content.read_bytes(content.bytes_remaining())?;
                sections.push(Section { range: start..reader.original_position(), data });
            }
        }
    }
    Ok(sections)
}

/// As LEB128.
fn put_length(bytes: &mut Vec<u8>, length: usize) {
    let mut rest = length;
    loop {
        let low = u8::try_from(rest & 0x7f).unwrap_or_default();
        rest >>= 7;
        if rest == 0 {
            bytes.push(low);
            return;
        }
        bytes.push(low | 0x80);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NESTED: &str = r#"(component
        (core module (@custom "gristmill:manifest" "inner"))
        (component (@custom "gristmill:manifest" "inner too"))
        (@custom "other" "x"))"#;

    fn read(bytes: &[u8]) -> Option<String> {
        manifest(bytes).unwrap().map(|manifest| String::from_utf8(manifest.to_owned()).unwrap())
    }

    fn size(manifest: &[u8]) -> usize {
        with_manifest(&wat::parse_str("(module)").unwrap(), Some(manifest)).unwrap().len()
    }

    #[test]
    fn only_the_outer_one_counts() {
        for text in [NESTED, r#"(module (@custom "other" "x"))"#] {
            let bytes = wat::parse_str(text).unwrap();
            assert_eq!(read(&bytes), None);
            let with = with_manifest(&bytes, Some(b"outer")).unwrap();
            assert_eq!(read(&with).as_deref(), Some("outer"));
            assert_eq!(with_manifest(&with, None).unwrap(), bytes, "the others are still there");
        }
        let inside = wat::parse_str(r#"(component (@custom "gristmill:manifest" "a") (core module))"#).unwrap();
        assert_eq!(read(&inside).as_deref(), Some("a"), "wherever it stands");
    }

    #[test]
    fn there_is_one_at_most() {
        let text = r#"(module (@custom "gristmill:manifest" "a") (func) (@custom "gristmill:manifest" "a"))"#;
        let bytes = wat::parse_str(text).unwrap();
        assert!(matches!(manifest(&bytes), Err(ManifestError::Several { count: 2 })));
        assert_eq!(read(&with_manifest(&bytes, Some(b"b")).unwrap()).as_deref(), Some("b"));
    }

    #[test]
    fn its_length_has_a_bound() {
        let (module, longest) = (wat::parse_str("(module)").unwrap(), vec![b'#'; MAX_MANIFEST]);
        let with = with_manifest(&module, Some(&longest)).unwrap();
        assert_eq!(manifest(&with).unwrap(), Some(longest.as_slice()));
        let longer = vec![b'#'; MAX_MANIFEST + 1];
        assert!(matches!(with_manifest(&module, Some(&longer)), Err(ManifestError::TooLong { size: 65_537 })));
        let text = format!(r#"(module (@custom "gristmill:manifest" "{}"))"#, "#".repeat(MAX_MANIFEST + 1));
        let bytes = wat::parse_str(text).unwrap();
        assert!(matches!(manifest(&bytes), Err(ManifestError::TooLong { size: 65_537 })));
    }

    #[test]
    fn the_length_of_the_section_is_written_in_as_few_bytes_as_it_needs() {
        let module = 8;
        let head = 1 + 1 + MANIFEST_SECTION.len();
        assert_eq!(size(b""), module + 1 + head);
        let last = 127 - 1 - MANIFEST_SECTION.len();
        assert_eq!(size(&vec![0; last]), module + 1 + head + last);
        assert_eq!(size(&vec![0; last + 1]), module + 1 + head + last + 2);
    }

    #[test]
    fn no_part_of_a_file_panics() {
        let whole = with_manifest(&wat::parse_str(NESTED).unwrap(), Some(b"outer")).unwrap();
        for end in 0..whole.len() {
            let part = &whole[..end];
            // A part that ends between two sections is whole at the top.
            assert!(manifest(part).is_err() || manifest(part).unwrap().is_none(), "{end}");
        }
    }

    proptest! {
        #[test]
        fn what_is_put_in_is_read_and_taken_out_again(
            first in proptest::collection::vec(any::<u8>(), 0..400),
            second in proptest::collection::vec(any::<u8>(), 0..400),
        ) {
            let bytes = wat::parse_str(NESTED).unwrap();
            let once = with_manifest(&bytes, Some(&first)).unwrap();
            let replaced = with_manifest(&once, Some(&second)).unwrap();
            prop_assert!(replaced.starts_with(&bytes));
            prop_assert_eq!(manifest(&replaced).unwrap(), Some(second.as_slice()));
            prop_assert_eq!(&with_manifest(&replaced, Some(&second)).unwrap(), &replaced);
            prop_assert_eq!(&with_manifest(&replaced, None).unwrap(), &bytes);
            wasmparser::Validator::new().validate_all(&replaced).unwrap();
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let bytes = [b"\0asm\x01\0\0\0".as_slice(), &bytes].concat();
            let _ = manifest(&bytes);
            let _ = with_manifest(&bytes, Some(b"x"));
        }
    }
}
