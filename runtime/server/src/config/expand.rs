//! `${NAME}` in strings: replaced by a variable of the environment. `$${` stands for `${` itself.

use std::ops::Range;

use super::Environment;

/// Why a string cannot be expanded. Ranges are bytes of the string.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ExpandError {
    /// No such variable.
    Unset {
        /// Which one.
        name: String,
        /// From `$` to `}`.
        at: Range<usize>,
    },
    /// What stands between the braces is no name of a variable.
    NotAName {
        /// From `$` to `}`.
        at: Range<usize>,
    },
    /// No `}` follows.
    Unclosed {
        /// `${`.
        at: Range<usize>,
    },
}

/// `text` with its variables filled in, once: what a variable holds is not expanded again.
pub(super) fn expand(text: &str, environment: &Environment<'_>) -> Result<String, Vec<ExpandError>> {
    let mut expanded = String::with_capacity(text.len());
    let mut errors = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        let open = text.len() - after.len() - 2;
        if let Some(before) = before.strip_suffix('$') {
            expanded.push_str(before);
            expanded.push_str("${");
            rest = after;
            continue;
        }
        expanded.push_str(before);
        let Some((name, behind)) = after.split_once('}') else {
            errors.push(ExpandError::Unclosed { at: open..open + 2 });
            rest = "";
            break;
        };
        let at = open..text.len() - behind.len();
        match is_name(name).then(|| environment(name)) {
            Some(Some(value)) => expanded.push_str(&value),
            Some(None) => errors.push(ExpandError::Unset { name: name.to_owned(), at }),
            None => errors.push(ExpandError::NotAName { at }),
        }
        rest = behind;
    }
    expanded.push_str(rest);
    if errors.is_empty() { Ok(expanded) } else { Err(errors) }
}

fn is_name(name: &str) -> bool {
    let starts_well = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    starts_well && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(name: &str) -> Option<String> {
        match name {
            "HOME" => Some("/home/ada".into()),
            "NESTED" => Some("${HOME}".into()),
            "EMPTY" => Some(String::new()),
            _ => None,
        }
    }

    #[test]
    fn variables_are_filled_in_once() {
        let cases = [
            ("", ""),
            ("plain $HOME $ { }", "plain $HOME $ { }"),
            ("${HOME}/data", "/home/ada/data"),
            ("a${EMPTY}b${HOME}", "ab/home/ada"),
            ("${NESTED}", "${HOME}"),
            ("$${HOME}", "${HOME}"),
            ("$$${HOME}", "$${HOME}"),
            ("$${", "${"),
        ];
        for (text, expected) in cases {
            assert_eq!(expand(text, &environment).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn every_error_names_its_place() {
        let errors = expand("ä${NOPE}-${}-${A:-b}-${HOME", &environment).unwrap_err();
        let expected = [
            ExpandError::Unset { name: "NOPE".into(), at: 2..9 },
            ExpandError::NotAName { at: 10..13 },
            ExpandError::NotAName { at: 14..21 },
            ExpandError::Unclosed { at: 22..24 },
        ];
        assert_eq!(errors, expected);
    }
}
