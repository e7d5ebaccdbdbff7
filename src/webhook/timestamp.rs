//! Timestamps of webhook deliveries: RFC 3339, or seconds or milliseconds since the epoch.

use serde_json::Value;

/// Smaller numbers are seconds. This limit is the year 1973 in milliseconds and 5138 in seconds.
const FIRST_MILLISECONDS: i64 = 100_000_000_000;

/// Parses a timestamp: RFC 3339, as the vendor sends it (`2025-06-25T06:57:06.225Z`), or a number.
/// Returns milliseconds since the epoch.
pub fn read(timestamp: &Value) -> Option<i64> {
    match timestamp {
        Value::String(text) => {
            from_rfc3339(text.trim()).or_else(|| from_number(text.trim().parse().ok()?))
        }
        Value::Number(number) => from_number(number.as_i64()?),
        _ => None,
    }
}

fn from_number(number: i64) -> Option<i64> {
    match number {
        ..=0 => None,
        1..FIRST_MILLISECONDS => Some(number * 1000),
        _ => Some(number),
    }
}

fn from_rfc3339(text: &str) -> Option<i64> {
    let (date, time) = text.split_once(['T', 't', ' '])?;
    let [year, month, day] = numbers(date, '-')?;
    let zone = time.find(['Z', 'z', '+', '-'])?;
    let (time, zone) = time.split_at(zone);
    let (time, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let [hour, minute, second] = numbers(time, ':')?;
    let offset = match zone.split_at_checked(1)? {
        ("Z" | "z", "") => 0,
        (sign, zone) => {
            let [hours, minutes] = numbers(zone, ':')?;
            let minutes = (hours * 60 + minutes).min(24 * 60);
            if sign == "-" { -minutes } else { minutes }
        }
    };
    let in_range = (1970..=9999).contains(&year)
        && (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && hour < 24
        && minute < 60
        && second <= 60
        && fraction.bytes().all(|byte| byte.is_ascii_digit());
    // Truncate to milliseconds.
    let thousandths: i64 = format!("{fraction:0<3}").get(..3)?.parse().ok()?;
    let minutes = (days(year, month, day) * 24 + hour) * 60 + minute - offset;
    in_range.then_some((minutes * 60 + second) * 1000 + thousandths)
}

/// Exactly `N` numbers of one to four digits.
fn numbers<const N: usize>(text: &str, separator: char) -> Option<[i64; N]> {
    let mut parts = text.split(separator);
    let mut numbers = [0; N];
    for number in &mut numbers {
        let part = parts.next().filter(|part| (1..=4).contains(&part.len()))?;
        *number = part.bytes().all(|byte| byte.is_ascii_digit()).then(|| part.parse().ok())??;
    }
    parts.next().is_none().then_some(numbers)
}

/// The days from the epoch to a Gregorian date. Years start in March here, so that the leap day is
/// the last day.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days_of_years = year * 365 + year / 4 - year / 100 + year / 400;
    // Five consecutive months have 153 days, from March and from August.
    let days_of_months = (153 * month + 2) / 5;
    days_of_years + days_of_months + day - 719_469
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn timestamps_are_read_in_the_usual_formats() {
        for (timestamp, expected) in [
            (json!("1970-01-01T00:00:00Z"), Some(0)),
            (json!("2025-06-25T06:57:06.225Z"), Some(1_750_834_626_225)),
            (json!("2025-06-25T06:57:06Z"), Some(1_750_834_626_000)),
            (json!("2025-06-25T06:57:06.2Z"), Some(1_750_834_626_200)),
            (json!("2025-06-25T06:57:06.225999999Z"), Some(1_750_834_626_225)),
            (json!("2025-06-25T08:57:06.225+02:00"), Some(1_750_834_626_225)),
            (json!("2025-06-25 01:27:06.225-05:30"), Some(1_750_834_626_225)),
            (json!("2024-02-29T00:00:00.001Z"), Some(1_709_164_800_001)),
            (json!("2000-03-01T00:00:00Z"), Some(951_868_800_000)),
            (json!("2100-03-01T00:00:00Z"), Some(4_107_542_400_000)),
            (json!(1_750_834_626_225_i64), Some(1_750_834_626_225)),
            (json!(1_750_834_626), Some(1_750_834_626_000)),
            (json!("1750834626225"), Some(1_750_834_626_225)),
            (json!("yesterday"), None),
            (json!("2025-06-25"), None),
            (json!("2025-06-25T06:57:06"), None),
            (json!("2025-13-25T06:57:06Z"), None),
            (json!("2025-06-25T25:57:06Z"), None),
            (json!("2025-06-25T06:57:06.é9Z"), None),
            (json!("2025-06-25T06:57:+6Z"), None),
            (json!("2025-06-25T06:57:06Z+"), None),
            (json!(0), None),
            (json!(1.5), None),
            (json!(null), None),
            (json!(["2025"]), None),
        ] {
            assert_eq!(read(&timestamp), expected, "{timestamp}");
        }
    }
}
