//! Durations and sizes as people write them: a number and its unit, and never a bare number.

use std::time::Duration;

/// The units of a duration, for error messages.
pub const DURATION_UNITS: &str = "ms, s, m, h, d";
/// The units of a size, for error messages.
pub const SIZE_UNITS: &str = "B, KiB, MiB, GiB";

/// Why a string is not a duration or a size.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// There is no number at the beginning.
    #[error("expected a number and a unit ({units}), such as \"{example}\"")]
    NoNumber {
        /// What is allowed.
        units: &'static str,
        /// A value that would do.
        example: &'static str,
    },
    /// A number without a unit.
    #[error("a unit is missing: write \"{number}{suggestion}\" (one of {units})")]
    NoUnit {
        /// The number as written.
        number: String,
        /// The unit that is most likely meant.
        suggestion: &'static str,
        /// What is allowed.
        units: &'static str,
    },
    /// A unit that does not exist here.
    #[error("unknown unit `{}`: use one of {units}", .unit.escape_debug())]
    UnknownUnit {
        /// The unit as written.
        unit: String,
        /// What is allowed.
        units: &'static str,
    },
    /// The value does not fit.
    #[error("too large")]
    TooLarge,
}

/// Parses `"250ms"`, `"30s"`, `"1.5h"`. Units: `ms`, `s`, `m`, `h`, `d`.
///
/// # Errors
/// When the number or the unit is missing, or the unit is another.
pub fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    let (number, unit) = split(text, DURATION_UNITS, "30s", "s")?;
    let seconds = match unit {
        "ms" => 0.001,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3_600.0,
        "d" => 86_400.0,
        _ => return Err(UnitError::UnknownUnit { unit: unit.to_owned(), units: DURATION_UNITS }),
    };
    Duration::try_from_secs_f64(number * seconds).map_err(|_| UnitError::TooLarge)
}

/// Parses `"64MiB"` into bytes. Units: `B`, `KiB`, `MiB`, `GiB`.
///
/// # Errors
/// When the number or the unit is missing, or the unit is another.
pub fn parse_size(text: &str) -> Result<u64, UnitError> {
    let (number, unit) = split(text, SIZE_UNITS, "64MiB", "MiB")?;
    let bytes = match unit {
        "B" => 1u64,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err(UnitError::UnknownUnit { unit: unit.to_owned(), units: SIZE_UNITS }),
    };
    #[allow(clippy::cast_precision_loss, reason = "units are powers of two")]
    let value = number * bytes as f64;
    #[allow(clippy::cast_precision_loss, reason = "only a bound")]
    if value > (1u64 << 53) as f64 {
        return Err(UnitError::TooLarge);
    }
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked: 0 to 2^53")]
    Ok(value as u64)
}

/// The shortest exact form of a duration: `1.5s`, `250ms`, `2h`.
#[must_use]
pub fn format_duration(duration: Duration) -> String {
    let millis = duration.as_millis();
    for (unit, size) in [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)] {
        if millis >= size && millis.is_multiple_of(size) {
            return format!("{}{unit}", millis / size);
        }
    }
    if millis >= 1_000 {
        return format!("{}s", duration.as_secs_f64());
    }
    format!("{}ms", f64::from(duration.subsec_nanos()) / 1e6)
}

/// The shortest exact form of a size: `64MiB`, `1536KiB`, `100B`.
#[must_use]
pub fn format_size(bytes: u64) -> String {
    for (unit, size) in [("GiB", 1u64 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)] {
        if bytes >= size && bytes.is_multiple_of(size) {
            return format!("{}{unit}", bytes / size);
        }
    }
    format!("{bytes}B")
}

fn split<'a>(
    text: &'a str,
    units: &'static str,
    example: &'static str,
    suggestion: &'static str,
) -> Result<(f64, &'a str), UnitError> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    let number: f64 = digits.parse().map_err(|_| UnitError::NoNumber { units, example })?;
    match unit.trim_start() {
        "" => Err(UnitError::NoUnit { number: digits.to_owned(), suggestion, units }),
        unit => Ok((number, unit)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_carry_a_unit() {
        assert_eq!(parse_duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(parse_duration("1.5h"), Ok(Duration::from_secs(5_400)));
        assert_eq!(parse_duration("30 s"), Ok(Duration::from_secs(30)));
        assert_eq!(
            parse_duration("30").unwrap_err().to_string(),
            "a unit is missing: write \"30s\" (one of ms, s, m, h, d)"
        );
        assert_eq!(parse_duration("5 sec").unwrap_err().to_string(), "unknown unit `sec`: use one of ms, s, m, h, d");
        assert!(parse_duration("").is_err());
        assert!(parse_duration("-1s").is_err());
        assert!(parse_duration("1.2.3s").is_err());
        assert_eq!(parse_duration(&format!("{}d", "9".repeat(300))), Err(UnitError::TooLarge));
    }

    #[test]
    fn sizes_carry_a_binary_unit() {
        assert_eq!(parse_size("64MiB"), Ok(64 << 20));
        assert_eq!(parse_size("0.5KiB"), Ok(512));
        assert_eq!(parse_size("64MB").unwrap_err().to_string(), "unknown unit `MB`: use one of B, KiB, MiB, GiB");
        assert_eq!(parse_size(&format!("{}GiB", "9".repeat(300))), Err(UnitError::TooLarge));
    }

    #[test]
    fn formatting_is_exact() {
        for text in ["250ms", "0ms", "0.5ms", "123.456ms", "1.5s", "2h", "90s", "3m", "1d"] {
            let parsed = parse_duration(text).unwrap();
            assert_eq!(parse_duration(&format_duration(parsed)), Ok(parsed), "{text}");
        }
        assert_eq!(format_duration(Duration::from_secs(120)), "2m");
        assert_eq!(format_size(64 << 20), "64MiB");
        assert_eq!(format_size(1000), "1000B");
    }
}
