//! Timestamps of webhook deliveries: RFC 3339 and similar forms of ISO 8601, RFC 2822, or the Unix
//! time in any unit. A time without a zone is UTC.

use serde_json::Value;

const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// The end of the year 9999, in milliseconds since the epoch.
const END_MS: f64 = 253_402_300_800_000.0;

/// Parses a timestamp, such as the vendor's `2025-06-25T06:57:06.225Z`. Returns milliseconds since
/// the epoch.
pub fn read(timestamp: &Value) -> Option<i64> {
    match timestamp {
        Value::String(text) => {
            from_text(text.trim()).or_else(|| from_number(text.trim().parse().ok()?))
        }
        Value::Number(number) => from_number(number.as_f64()?),
        _ => None,
    }
}

/// Each limit is the year 5138 in one unit and 1973 in the next smaller one.
fn from_number(number: f64) -> Option<i64> {
    let ms = match number {
        ..1e11 => number * 1e3,
        ..1e14 => number,
        ..1e17 => number / 1e3,
        _ => number / 1e6,
    };
    (number > 0.0 && ms < END_MS).then_some(ms.round() as i64)
}

fn from_text(text: &str) -> Option<i64> {
    let ([year, month, day], time) = iso_date(text).or_else(|| mail_date(text))?;
    let is_zone = |letter: char| !letter.is_ascii_digit() && !matches!(letter, ':' | '.');
    let (time, zone) = time.split_at(time.find(is_zone).unwrap_or(time.len()));
    let offset = offset(zone.trim())?;
    let (time, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let without_seconds = || numbers(time, ':').map(|[hour, minute]| [hour, minute, 0]);
    let [hour, minute, second] = numbers(time, ':').or_else(without_seconds)?;
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

/// `2025-06-25T…`: year, month and day, and the rest.
fn iso_date(text: &str) -> Option<([i64; 3], &str)> {
    let (date, time) = text.split_once(['T', 't', ' '])?;
    Some((numbers(date, '-')?, time))
}

/// `Wed, 25 Jun 2025 …`, with an optional weekday.
fn mail_date(text: &str) -> Option<([i64; 3], &str)> {
    let text = text.split_once(',').map_or(text, |(_, date)| date.trim_start());
    let mut parts = text.splitn(4, ' ');
    let [day] = numbers(parts.next()?, ' ')?;
    let name = parts.next()?;
    let month = MONTHS.iter().position(|month| month.eq_ignore_ascii_case(name))?;
    let [year] = numbers(parts.next()?, ' ')?;
    Some(([year, i64::try_from(month).ok()? + 1, day], parts.next()?))
}

/// The minutes that a zone is ahead of UTC: `+02:00`, `+0200`, `+02`, `Z`, or none.
fn offset(zone: &str) -> Option<i64> {
    if ["", "Z", "UTC", "GMT", "UT"].iter().any(|utc| utc.eq_ignore_ascii_case(zone)) {
        return Some(0);
    }
    let (sign, digits) = zone.split_at_checked(1)?;
    let (hours, minutes) = digits.split_once(':').or_else(|| digits.split_at_checked(2))?;
    let [hours] = numbers(hours, ':')?;
    let [minutes] = if minutes.is_empty() { [0] } else { numbers(minutes, ':')? };
    let minutes = (hours * 60 + minutes).min(24 * 60);
    match sign {
        "+" => Some(minutes),
        "-" => Some(-minutes),
        _ => None,
    }
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
            (json!("2025-06-25T06:57:06"), Some(1_750_834_626_000)),
            (json!("2025-06-25 06:57:06.225999"), Some(1_750_834_626_225)),
            (json!("2025-06-25T06:57:06.225+0000"), Some(1_750_834_626_225)),
            (json!("2025-06-25T01:27:06.225-0530"), Some(1_750_834_626_225)),
            (json!("2025-06-25T08:57:06.225+02"), Some(1_750_834_626_225)),
            (json!("2025-06-25T06:57Z"), Some(1_750_834_620_000)),
            (json!("2025-06-25 06:57"), Some(1_750_834_620_000)),
            (json!("2025-06-25 06:57:06 UTC"), Some(1_750_834_626_000)),
            (json!("Wed, 25 Jun 2025 06:57:06 GMT"), Some(1_750_834_626_000)),
            (json!("Wed, 25 Jun 2025 08:57:06 +0200"), Some(1_750_834_626_000)),
            (json!("5 Jan 2025 06:57 -0000"), Some(1_736_060_220_000)),
            (json!(1_750_834_626.225), Some(1_750_834_626_225)),
            (json!(1_750_834_626_225.0), Some(1_750_834_626_225)),
            (json!("1750834626.225"), Some(1_750_834_626_225)),
            (json!(1_750_834_626_225_999_i64), Some(1_750_834_626_226)),
            (json!(1_750_834_626_225_000_000_i64), Some(1_750_834_626_225)),
            (json!("25 Jux 2025 06:57:06 GMT"), None),
            (json!("Wed, 25 Jun 2025 06:57:06 ABC"), None),
            (json!("2025-06-25T06:57:06+2"), None),
            (json!("2025-06-25T06:57:06 +é000"), None),
            (json!("inf"), None),
            (json!("NaN"), None),
            (json!(1e300), None),
            (json!(-1.5), None),
            (json!(true), None),
            (json!("yesterday"), None),
            (json!("2025-06-25"), None),
            (json!("2025-13-25T06:57:06Z"), None),
            (json!("2025-06-25T25:57:06Z"), None),
            (json!("2025-06-25T06:57:06.é9Z"), None),
            (json!("2025-06-25T06:57:+6Z"), None),
            (json!("2025-06-25T06:57:06Z+"), None),
            (json!(0), None),
            (json!(null), None),
            (json!(["2025"]), None),
        ] {
            assert_eq!(read(&timestamp), expected, "{timestamp}");
        }
    }
}
