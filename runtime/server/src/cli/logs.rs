//! What `--log` asks for.

use anyhow::{anyhow, bail};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

/// The filter that `text` stands for.
///
/// # Errors
/// When it is none, or only a word that is no level: as the name of a target it would hide everything else, errors too.
pub fn filter(text: &str) -> anyhow::Result<EnvFilter> {
    let word = text.trim();
    let is_word = !word.is_empty() && word.chars().all(|c| c.is_ascii_alphabetic());
    if is_word && word.parse::<LevelFilter>().is_err() {
        bail!(
            "`--log {text}`: `{word}` is no level: off, error, warn, info, debug or trace; \
             what one target logs is `{word}=debug`"
        );
    }
    EnvFilter::builder().parse(text).map_err(|error| anyhow!("`--log {text}`: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_filters_are_understood() {
        for text in ["info", "WARN", "off", "info,gristmill=debug", "handler=trace", "gristmill_host::cache", ""] {
            assert!(filter(text).is_ok(), "{text}");
        }
    }

    #[test]
    fn a_word_that_is_no_level_would_log_nothing() {
        for text in ["warning", "verbose", "a=b=c"] {
            let error = format!("{:#}", filter(text).unwrap_err());
            assert!(error.contains(&format!("`--log {text}`")) && error.contains("debug"), "{error}");
        }
    }
}
