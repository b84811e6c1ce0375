//! A guest's backtrace, made short: where it was, and how it came there.

use std::fmt::Write as _;

use wasmtime::WasmBacktrace;

/// How many frames are shown.
const MAX_FRAMES: usize = 12;
/// The longest name of a function, in characters.
const MAX_NAME_LEN: usize = 120;
/// Parts of the names of functions that every panic runs through; they say nothing about where it came from.
const PANIC_MACHINERY: [&str; 8] = [
    "abort",
    "core::panicking::",
    "std::panicking::",
    "std::process::abort",
    "std::sys::",
    "rust_begin_unwind",
    "rust_panic",
    "__rust_",
];

/// One line per frame, innermost first, each after a line break; empty without frames.
pub(crate) fn render(backtrace: &WasmBacktrace) -> String {
    let frames = parse(&backtrace.to_string());
    let interesting = frames.iter().position(|frame| !is_panic_machinery(&frame.name)).unwrap_or(0);
    let shown = frames.get(interesting..).unwrap_or_default();
    let mut text = String::new();
    for (number, frame) in shown.iter().take(MAX_FRAMES).enumerate() {
        let name: String = frame.name.chars().take(MAX_NAME_LEN).collect();
        // Writing to a string does not fail.
        let _ = write!(text, "\n  {number}: {name}");
        if let Some(place) = &frame.place {
            let _ = write!(text, " at {place}");
        }
    }
    if shown.len() > MAX_FRAMES {
        let _ = write!(text, "\n  … {} more", shown.len() - MAX_FRAMES);
    }
    text
}

#[derive(Debug, PartialEq, Eq)]
struct Frame {
    name: String,
    place: Option<String>,
}

/// Reads the engine's own rendering: that is where names are demangled. A frame is `3: 0x1f - module!name`, or
/// `3: 0x1f - name` with debug information; then functions inlined there follow as `- name`, and each may be followed
/// by `at file:line:column`.
fn parse(rendered: &str) -> Vec<Frame> {
    let mut frames: Vec<Frame> = Vec::new();
    for line in rendered.lines().skip(1) {
        let line = line.trim_start();
        if let Some(place) = line.strip_prefix("at ") {
            if let Some(frame) = frames.last_mut() {
                frame.place = Some(place.to_owned());
            }
        } else if let Some(name) = frame_name(line) {
            frames.push(Frame { name: without_hashes(name), place: None });
        }
    }
    frames
}

fn frame_name(line: &str) -> Option<&str> {
    if let Some(inlined) = line.strip_prefix("- ") {
        return Some(inlined);
    }
    let (number, rest) = line.split_once(": ")?;
    if number.is_empty() || !number.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let name = match rest.trim_start().split_once(" - ") {
        Some((offset, name)) if offset.starts_with("0x") => name,
        _ => rest,
    };
    // The module's name says nothing: a component's modules have none, or the file's.
    match name.split_once('!') {
        Some((module, name)) if !module.contains([' ', ':', '(']) || module == "<unknown>" => Some(name),
        _ => Some(name),
    }
}

/// `core::fmt::write::h0123456789abcdef` and `a[0123456789abcdef]::b` without what only tells builds apart.
fn without_hashes(name: &str) -> String {
    let is_hash = |text: &str| text.len() > 12 && text.bytes().all(|b| b.is_ascii_hexdigit());
    let name = match name.rsplit_once("::h") {
        Some((path, hash)) if is_hash(hash) => path,
        _ => name,
    };
    let mut text = String::with_capacity(name.len());
    let mut rest = name;
    while let Some((before, after)) = rest.split_once('[') {
        text.push_str(before);
        match after.split_once(']') {
            Some((hash, after)) if is_hash(hash) => rest = after,
            _ => {
                text.push('[');
                rest = after;
            }
        }
    }
    text.push_str(rest);
    text
}

fn is_panic_machinery(name: &str) -> bool {
    let name = name.trim_start_matches("__rustc::");
    PANIC_MACHINERY.iter().any(|part| name.starts_with(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(name: &str, place: Option<&str>) -> Frame {
        Frame { name: name.to_owned(), place: place.map(str::to_owned) }
    }

    #[test]
    fn the_engines_rendering_is_read() {
        let rendered = "error while executing at wasm backtrace:\n    0:  0x1f2 - guest.wasm!rust_panic\n    1:   0x2f - \
                        <unknown>!core[0123456789abcdef]::fmt::write::<T>\n    2: 0x3 - a::b::h0123456789abcdef\n   \
                        at src/lib.rs:3:4\n        - c\n       at src/d.rs:1\n    3: 0x4 - <unknown>!<wasm function 7>";
        let frames = parse(rendered);
        assert_eq!(
            frames,
            [
                frame("rust_panic", None),
                frame("core::fmt::write::<T>", None),
                frame("a::b", Some("src/lib.rs:3:4")),
                frame("c", Some("src/d.rs:1")),
                frame("<wasm function 7>", None),
            ]
        );
    }

    #[test]
    fn only_hashes_are_removed() {
        for name in ["a[0]", "<[u8] as x>::y", "f::h1", "x[", "]"] {
            assert_eq!(without_hashes(name), name);
        }
    }
}
