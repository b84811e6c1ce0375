//! `Retry-After` (RFC 9110, section 10.2.3): seconds, or a date.

use std::time::Duration;

use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use crate::time::Timestamp;

/// Whoever asks for more gets this much.
pub const MAX_RETRY_AFTER: Duration = Duration::from_hours(30 * 24);

/// The formats of an HTTP date: the one that is sent, and the two that have to be understood.
const DATES: [&str; 3] = ["%a, %d %b %Y %H:%M:%S GMT", "%A, %d-%b-%y %H:%M:%S GMT", "%a %b %e %H:%M:%S %Y"];

/// How long after `now` the value of a `Retry-After` header means; zero for a date in the past, and at most
/// [`MAX_RETRY_AFTER`]. `None`: it means nothing.
#[must_use]
pub fn retry_after(value: &str, now: Timestamp) -> Option<Duration> {
    let value = value.trim();
    let is_number = !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit());
    let after = if is_number {
        // More digits than fit mean more than anybody gets.
        Duration::from_secs(value.parse().unwrap_or(u64::MAX))
    } else {
        date(value)?.since(now)
    };
    Some(after.min(MAX_RETRY_AFTER))
}

fn date(value: &str) -> Option<Timestamp> {
    let date = DATES.iter().find_map(|format| DateTime::strptime(format, value).ok())?;
    // Later than any instant that there is: the last one.
    let instant = date.to_zoned(TimeZone::UTC).map_or(jiff::Timestamp::MAX, |date| date.timestamp());
    Some(Timestamp::from_micros(u64::try_from(instant.as_microsecond()).unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sun, 06 Nov 1994 08:49:07 GMT.
    const NOW: Timestamp = Timestamp::from_micros(784_111_747_000_000);

    #[test]
    fn seconds_and_dates_of_all_forms() {
        for value in [
            "30",
            " 30 ",
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
        ] {
            assert_eq!(retry_after(value, NOW), Some(Duration::from_secs(30)), "{value}");
        }
        assert_eq!(retry_after("Sun, 06 Nov 1994 08:49:00 GMT", NOW), Some(Duration::ZERO), "in the past");
        assert_eq!(retry_after("Thu, 01 Jan 1950 00:00:00 GMT", NOW), None, "a Sunday");
        assert_eq!(retry_after("Sun, 01 Jan 1950 00:00:00 GMT", NOW), Some(Duration::ZERO), "before the epoch");
        for long in ["99999999999", "99999999999999999999999", "Fri, 31 Dec 9999 23:59:59 GMT"] {
            assert_eq!(retry_after(long, NOW), Some(MAX_RETRY_AFTER), "{long}");
        }
    }

    #[test]
    fn anything_else_means_nothing() {
        for value in ["", "-1", "1.5", "soon", "30s", "Sun, 06 Nov 1994 08:49:37", "1994-11-06T08:49:37Z", "\u{663}"] {
            assert_eq!(retry_after(value, NOW), None, "{value}");
        }
    }
}
