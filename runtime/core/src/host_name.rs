//! Names that hosts have, told from addresses.

/// The longest name of a host, and the longest part of one.
const MAX_NAME: usize = 253;
const MAX_LABEL: usize = 63;

/// Whether `text` is a name that can be looked up. Its last part has a letter, and is nothing that resolvers take for a part of
/// an IPv4 address: `127.1`, `2130706433` and `0x7f000001` are no names.
pub(crate) fn is_host_name(text: &str) -> bool {
    let is_label = |label: &str| {
        (1..=MAX_LABEL).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    let last = text.rsplit('.').next().unwrap_or_default();
    let has_letter = last.bytes().any(|b| b.is_ascii_alphabetic());
    text.len() <= MAX_NAME && text.split('.').all(is_label) && has_letter && !is_hexadecimal(last)
}

fn is_hexadecimal(label: &str) -> bool {
    let digits = label.strip_prefix("0x").or_else(|| label.strip_prefix("0X"));
    digits.is_some_and(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_looked_up() {
        let longest = "a.".repeat(126) + "a";
        for name in ["localhost", "API.example.com", "my_host", "a-b.c", "1.2.3.4a", "0xg", &longest] {
            assert!(is_host_name(name), "{name}");
        }
        let (long, label) = (longest + ".a", "a".repeat(MAX_LABEL + 1));
        for wrong in ["", ".", "a.", ".a", "a..b", "a b", "ä.de", "a%2e", "*.a", "a/8", "::1", &long, &label] {
            assert!(!is_host_name(wrong), "{wrong}");
        }
    }

    #[test]
    fn no_spelling_of_an_address_is_a_name() {
        for address in [
            "127.0.0.1",
            "127.1",
            "2130706433",
            "0x7f000001",
            "0X7F000001",
            "0x7f.0.0.1",
            "127.0.0.0x1",
            "256.1.1.1",
            "0x",
        ] {
            assert!(!is_host_name(address), "{address}");
        }
        assert!(!is_host_name("a.-") && !is_host_name("_"), "no letter at the end");
    }
}
