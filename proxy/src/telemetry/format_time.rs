//! `START_TIME` formats: strftime with Envoy's subsecond extensions, in UTC.

use std::{
    cell::Cell,
    fmt::Write,
    time::{SystemTime, UNIX_EPOCH},
};

use time::OffsetDateTime;

/// Envoy's default, ISO 8601 with milliseconds.
pub(super) const DEFAULT: &str = "%Y-%m-%dT%H:%M:%E3SZ";

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];

thread_local! {
    /// The last second that the default format was asked for, and its text up to the point.
    static SECOND: Cell<(u64, [u8; SECOND_LENGTH])> = const { Cell::new((u64::MAX, [0; SECOND_LENGTH])) };
}

const SECOND_LENGTH: usize = "2000-01-01T00:00:00".len();

/// Appends `at` in the default format. Requests of one second share what the second looks like.
pub(super) fn push_default(at: SystemTime, out: &mut String) {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (known, mut text) = SECOND.get();
    if known != since.as_secs() {
        let whole = format(DEFAULT, at);
        // A year of five digits has no room.
        let Some(second) = whole.as_bytes().first_chunk().filter(|_| whole.len() == SECOND_LENGTH + 5) else {
            return out.push_str(&whole);
        };
        text = *second;
        SECOND.set((since.as_secs(), text));
    }
    out.push_str(std::str::from_utf8(&text).unwrap_or_default());
    let millis = since.subsec_millis();
    out.push('.');
    for place in [100, 10, 1] {
        out.push(char::from(b'0' + (millis / place % 10) as u8));
    }
    out.push('Z');
}

/// Formats `at`; an unknown specifier is copied as it stands.
pub(super) fn format(pattern: &str, at: SystemTime) -> String {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let seconds = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
    let date = OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let nanos = since.subsec_nanos();
    let mut out = String::with_capacity(32);
    let mut rest = pattern;
    while let Some(start) = rest.find('%') {
        out.push_str(&rest[..start]);
        let spec = &rest[start + 1..];
        let used = specifier(spec, date, nanos, &mut out);
        if used == 0 {
            out.push('%');
        }
        rest = &spec[used..];
    }
    out.push_str(rest);
    out
}

/// Writes one specifier (without its `%`) and returns its length, 0 when it is not known.
fn specifier(spec: &str, date: OffsetDateTime, nanos: u32, out: &mut String) -> usize {
    let bytes = spec.as_bytes();
    let digit = |index: usize| bytes.get(index).filter(|b| (b'1'..=b'9').contains(b)).map(|b| usize::from(b - b'0'));
    let subsecond = |digits: usize, out: &mut String| out.push_str(&format!("{nanos:09}")[..digits]);
    match (bytes.first(), digit(0), bytes.get(1)) {
        (Some(_), Some(digits), Some(b'f')) => {
            subsecond(digits, out);
            return 2;
        }
        (Some(b'E'), _, _) => {
            if let (Some(digits), Some(kind @ (b'S' | b'f'))) = (digit(1), bytes.get(2)) {
                if *kind == b'S' {
                    let _ = write!(out, "{:02}.", date.second());
                }
                subsecond(digits, out);
                return 3;
            }
            return 0;
        }
        _ => {}
    }
    let (hour, minute, second) = (date.hour(), date.minute(), date.second());
    let (year, month, day) = (date.year(), u8::from(date.month()), date.day());
    let weekday = DAYS[usize::from(date.weekday().number_days_from_monday())];
    let month_name = MONTHS[usize::from(month) - 1];
    let hour12 = (hour + 11) % 12 + 1;
    let half = if hour < 12 { "AM" } else { "PM" };
    let _ = match bytes.first() {
        Some(b'Y') => write!(out, "{year:04}"),
        Some(b'y') => write!(out, "{:02}", year.rem_euclid(100)),
        Some(b'm') => write!(out, "{month:02}"),
        Some(b'd') => write!(out, "{day:02}"),
        Some(b'e') => write!(out, "{day:2}"),
        Some(b'H') => write!(out, "{hour:02}"),
        Some(b'I') => write!(out, "{hour12:02}"),
        Some(b'p') => write!(out, "{half}"),
        Some(b'M') => write!(out, "{minute:02}"),
        Some(b'S') => write!(out, "{second:02}"),
        Some(b'F') => write!(out, "{year:04}-{month:02}-{day:02}"),
        Some(b'D') => write!(out, "{month:02}/{day:02}/{:02}", year.rem_euclid(100)),
        Some(b'T') => write!(out, "{hour:02}:{minute:02}:{second:02}"),
        Some(b'R') => write!(out, "{hour:02}:{minute:02}"),
        Some(b'a') => write!(out, "{}", &weekday[..3]),
        Some(b'A') => write!(out, "{weekday}"),
        Some(b'b' | b'h') => write!(out, "{}", &month_name[..3]),
        Some(b'B') => write!(out, "{month_name}"),
        Some(b'j') => write!(out, "{:03}", date.ordinal()),
        Some(b's') => write!(out, "{}", date.unix_timestamp()),
        Some(b'f') => write!(out, "{nanos:09}"),
        Some(b'z') => write!(out, "+0000"),
        Some(b'Z') => write!(out, "UTC"),
        Some(b'n') => writeln!(out),
        Some(b't') => write!(out, "\t"),
        Some(b'%') => write!(out, "%"),
        _ => return 0,
    };
    1
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn formats_as_envoy_does() {
        let at = UNIX_EPOCH + Duration::new(1_700_000_000, 123_456_789);
        for (pattern, expected) in [
            (DEFAULT, "2023-11-14T22:13:20.123Z"),
            ("%s.%3f", "1700000000.123"),
            ("%s.%6f|%9f", "1700000000.123456|123456789"),
            ("%F %T %a %b %e %j %I%p", "2023-11-14 22:13:20 Tue Nov 14 318 10PM"),
            ("100%% %Q %", "100% %Q %"),
            ("%E6S é", "20.123456 é"),
        ] {
            assert_eq!(format(pattern, at), expected, "{pattern}");
        }
    }
}
