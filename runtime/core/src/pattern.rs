//! Subscriptions: which events go to which queue.

use std::fmt;
use std::sync::Arc;

use crate::event::Event;

/// A pattern over an attribute's value: `*` stands for any run of characters (also an empty one, also dots and
/// slashes); everything else stands for itself, case included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(Arc<str>);

impl Pattern {
    /// Every string is a pattern.
    #[must_use]
    pub fn new(pattern: &str) -> Self {
        Self(Arc::from(pattern))
    }

    /// The pattern as written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether `value` matches. Linear in practice, never exponential.
    #[must_use]
    pub fn matches(&self, value: &str) -> bool {
        let mut parts = self.0.split('*');
        let first = parts.next().unwrap_or_default();
        let Some(mut rest) = value.strip_prefix(first) else { return false };
        let mut parts = parts.peekable();
        if parts.peek().is_none() {
            return rest.is_empty();
        }
        while let Some(part) = parts.next() {
            if parts.peek().is_none() {
                return rest.ends_with(part);
            }
            match rest.find(part) {
                Some(at) => rest = rest.get(at + part.len()..).unwrap_or_default(),
                None => return false,
            }
        }
        true
    }

    /// Whether every value that matches `other` matches this pattern too. Exact.
    ///
    /// The stars of `other` are read as characters of their own, which no character of this pattern stands for: only its
    /// stars take them. Where they do, they take whatever else may stand there; where they do not, a value with a
    /// character there that this pattern does not have matches `other` alone.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        self.matches(&other.0)
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// What one line of `subscribe` asks for: an event that matches every pattern given. No pattern at all matches every
/// event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subscription {
    /// Over `type`.
    pub ty: Option<Pattern>,
    /// Over `source`.
    pub source: Option<Pattern>,
    /// Over `subject`; an event without a subject does not match.
    pub subject: Option<Pattern>,
}

impl Subscription {
    /// Whether `event` is wanted.
    #[must_use]
    pub fn matches(&self, event: &Event) -> bool {
        let wants = |pattern: &Option<Pattern>, value: Option<&str>| match pattern {
            None => true,
            Some(pattern) => value.is_some_and(|value| pattern.matches(value)),
        };
        wants(&self.ty, Some(&event.ty))
            && wants(&self.source, Some(&event.source))
            && wants(&self.subject, event.subject.as_deref())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Every string of `letters` that has at most `longest` of them.
    fn strings(letters: &[char], longest: usize) -> Vec<String> {
        let mut all = vec![String::new()];
        let mut begun = 0;
        for _ in 0..longest {
            let end = all.len();
            for at in begun..end {
                let longer = letters.iter().map(|letter| format!("{}{letter}", all[at])).collect::<Vec<_>>();
                all.extend(longer);
            }
            begun = end;
        }
        all
    }

    #[test]
    fn a_pattern_covers_what_lies_within_it() {
        let cases = [
            ("*", "*", true),
            ("*", "", true),
            ("**", "*", true),
            ("com.acme.*", "com.acme.order.*", true),
            ("com.acme.*", "com.acme.order", true),
            ("com.acme.*", "com.acme.*", true),
            ("com.acme.*", "com.acme*", false),
            ("com.acme.*", "*", false),
            ("com.acme.*", "com.*", false),
            ("com.acme.*", "*com.acme.x", false),
            ("com.acme.order", "com.acme.*", false),
            ("*.paid", "com.*.paid", true),
            ("*.paid", "com.*", false),
            ("a*b*c", "a*c", false),
            ("a*c", "a*b*c", true),
            ("a*a", "a", false),
            ("a*a", "a*", false),
            ("", "*", false),
            ("", "", true),
        ];
        for (pattern, other, expected) in cases {
            assert_eq!(Pattern::new(pattern).covers(&Pattern::new(other)), expected, "{pattern} covers {other}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        /// All values up to a length are tried. `c` is in no pattern; a value that tells two patterns of five characters
        /// apart has at most five.
        #[test]
        fn coverage_is_exact(pattern in "[ab*]{0,5}", other in "[ab*]{0,5}") {
            let (pattern, other) = (Pattern::new(&pattern), Pattern::new(&other));
            let is_within =
                strings(&['a', 'b', 'c'], 5).iter().all(|value| !other.matches(value) || pattern.matches(value));
            prop_assert_eq!(pattern.covers(&other), is_within, "{} covers {}", pattern, other);
        }
    }

    #[test]
    fn a_star_stands_for_any_run_of_characters() {
        let cases = [
            ("com.acme.*", "com.acme.order.paid", true),
            ("com.acme.*", "com.acme.", true),
            ("com.acme.*", "com.acme", false),
            ("com.acme", "com.acme", true),
            ("com.acme", "com.acmes", false),
            ("*", "", true),
            ("*.paid", "a.paid", true),
            ("*.paid", "a.paid.x", false),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-c-b", false),
            ("a*a", "a", false),
            ("", "", true),
            ("", "x", false),
            ("ä*", "äö", true),
        ];
        for (pattern, value, expected) in cases {
            assert_eq!(Pattern::new(pattern).matches(value), expected, "{pattern} ~ {value}");
        }
    }

    #[test]
    fn every_pattern_given_must_match() {
        let mut event = Event::new("1", "/shop", "order.paid");
        let both = Subscription {
            ty: Some(Pattern::new("order.*")),
            subject: Some(Pattern::new("vip/*")),
            ..Subscription::default()
        };
        assert!(!both.matches(&event), "no subject");
        event.subject = Some("vip/7".into());
        assert!(both.matches(&event));
        event.ty = "refund".into();
        assert!(!both.matches(&event));
        assert!(Subscription::default().matches(&event));
    }
}
