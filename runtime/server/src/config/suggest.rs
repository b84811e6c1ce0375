//! Near misses: which known word a person may have meant, and how unknown ones are shown.

/// Longer words are no typing mistakes.
const MAX_WORD: usize = 40;
/// Longer values are cut in messages.
const MAX_SHOWN: usize = 60;

/// The word of `known` that is nearest to `word`, if it is near: about a third of its letters may differ.
pub(super) fn closest<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    let word = normal(word);
    if word.chars().count() > MAX_WORD {
        return None;
    }
    known
        .iter()
        .map(|known| (distance(&word, known), *known))
        .filter(|(distance, known)| *distance <= known.chars().count().div_ceil(3).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, known)| known)
}

/// `word` in the style of this file's keys: lower case, with hyphens.
pub(super) fn normal(word: &str) -> String {
    word.trim().to_lowercase().replace(['_', ' '], "-")
}

/// `text` in backticks, without control characters and not too long.
pub(crate) fn quoted(text: &str) -> String {
    let mut shown = String::from("`");
    for (count, c) in text.chars().enumerate() {
        if count == MAX_SHOWN {
            shown.push('…');
            break;
        }
        match c {
            '"' | '\'' | '\\' => shown.push(c),
            c => shown.extend(c.escape_debug()),
        }
    }
    shown.push('`');
    shown
}

/// `` `a`, `b` or `c` ``.
pub(super) fn either<S: AsRef<str>>(words: &[S]) -> String {
    joined(words, " or ")
}

/// `` `a`, `b` and `c` ``.
pub(super) fn both<S: AsRef<str>>(words: &[S]) -> String {
    joined(words, " and ")
}

fn joined<S: AsRef<str>>(words: &[S], last: &str) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("`{}`", word.as_ref())).collect();
    match quoted.split_last() {
        Some((end, [])) => end.clone(),
        Some((end, rest)) => format!("{}{last}{end}", rest.join(", ")),
        None => String::new(),
    }
}

/// How many insertions, deletions, replacements and swaps of neighbours lead from `a` to `b` (optimal string alignment).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut before: Vec<usize> = Vec::new();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    let mut previous = None;
    for (i, x) in a.chars().enumerate() {
        let mut next = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let at = |row: &[usize], j: usize| row.get(j).copied().unwrap_or(usize::MAX - 1);
            let mut cost = (at(&row, j) + usize::from(x != *y)).min(at(&row, j + 1) + 1).min(at(&next, j) + 1);
            let swapped = j > 0 && previous == Some(*y) && b.get(j - 1) == Some(&x);
            if swapped {
                cost = cost.min(at(&before, j - 1) + 1);
            }
            next.push(cost);
        }
        previous = Some(x);
        before = std::mem::replace(&mut row, next);
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_are_counted() {
        let cases = [("", "", 0), ("", "abc", 3), ("abc", "", 3), ("lease", "lease", 0), ("laese", "lease", 1)];
        for (a, b, expected) in cases {
            assert_eq!(distance(a, b), expected, "{a} {b}");
        }
        assert_eq!(distance("timout", "timeout"), 1);
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("ca", "abc"), 3);
    }

    #[test]
    fn only_near_words_are_suggested() {
        let known = ["timeout", "lease", "max-attempts", "name"];
        assert_eq!(closest("timout", &known), Some("timeout"));
        assert_eq!(closest("max_attempts", &known), Some("max-attempts"));
        assert_eq!(closest("MaxAttempts", &known), Some("max-attempts"));
        assert_eq!(closest("Name", &known), Some("name"));
        assert_eq!(closest("colour", &known), None);
        assert_eq!(closest("", &known), None);
        assert_eq!(closest(&"x".repeat(10_000), &known), None);
    }

    #[test]
    fn what_is_shown_is_short_and_printable() {
        assert_eq!(quoted("a\u{1b}[31m\n\"b\""), "`a\\u{1b}[31m\\n\"b\"`");
        assert_eq!(quoted(&"ä".repeat(100)).chars().count(), MAX_SHOWN + 3);
        assert_eq!(either(&["a"]), "`a`");
        assert_eq!(either(&["a", "b", "c"]), "`a`, `b` or `c`");
    }
}
