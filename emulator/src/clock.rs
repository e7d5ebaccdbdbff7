//! The emulator's clock: the system time plus an adjustable offset.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A handle on the emulator's clock.
///
/// The lifetimes of codes and tokens, the replay window and the daily quota are measured on this
/// clock, so tests move it instead of sleeping. Clones share one clock.
#[derive(Debug, Clone, Default)]
pub struct Clock {
    offset_ms: Arc<AtomicI64>,
}

impl Clock {
    /// The emulator's current time, in milliseconds since 1970.
    pub fn now_ms(&self) -> i64 {
        system_ms().saturating_add(self.offset_ms.load(Ordering::SeqCst))
    }

    /// The offset from the system time; negative if the emulator's clock is behind.
    pub fn offset_ms(&self) -> i64 {
        self.offset_ms.load(Ordering::SeqCst)
    }

    /// Moves the clock forward.
    pub fn advance(&self, by: Duration) {
        let by = i64::try_from(by.as_millis()).unwrap_or(i64::MAX);
        self.offset_ms.fetch_add(by, Ordering::SeqCst);
    }

    /// Sets the clock to a moment in the past or future. It continues from there.
    pub fn set_ms(&self, now_ms: i64) {
        self.offset_ms.store(now_ms.saturating_sub(system_ms()), Ordering::SeqCst);
    }

    /// Resets the clock to the system time.
    pub fn reset(&self) {
        self.offset_ms.store(0, Ordering::SeqCst);
    }
}

fn system_ms() -> i64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX)
}

/// Milliseconds times a ratio, without overflow.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    reason = "days of milliseconds fit"
)]
pub(crate) fn milliseconds(whole: i64, ratio: f64) -> i64 {
    (whole as f64 * ratio) as i64
}

/// The number of the UTC day, for quotas that reset at midnight.
pub(crate) fn day_of(ms: i64) -> i64 {
    ms.div_euclid(86_400_000)
}

/// A time in the API's format: `2024-01-15T10:30:00.000Z`.
pub(crate) fn iso8601(ms: i64) -> String {
    let (year, month, day) = civil_date(day_of(ms));
    let of_day = ms.rem_euclid(86_400_000);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:03}Z",
        of_day / 3_600_000,
        of_day / 60_000 % 60,
        of_day / 1_000 % 60,
        of_day % 1_000
    )
}

/// Year, month and day of a day number. A loop over years is simple, and fast enough for dates
/// within decades of 1970.
fn civil_date(day_number: i64) -> (i64, i64, i64) {
    let leap = |year: i64| (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    // 146,097 days are 400 years, so any date reduces to one within a 400-year cycle.
    let mut year = 1970 + day_number.div_euclid(146_097) * 400;
    let mut rest = day_number.rem_euclid(146_097);
    while rest >= 365 + i64::from(leap(year)) {
        rest -= 365 + i64::from(leap(year));
        year += 1;
    }
    let february = 28 + i64::from(leap(year));
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if rest < length {
            break;
        }
        rest -= length;
        month += 1;
    }
    (year, month, rest + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_written_as_the_api_writes_them() {
        assert_eq!(iso8601(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(iso8601(1_705_314_600_000), "2024-01-15T10:30:00.000Z");
        assert_eq!(iso8601(1_709_164_800_001), "2024-02-29T00:00:00.001Z");
        assert_eq!(iso8601(1_735_689_599_999), "2024-12-31T23:59:59.999Z");
        assert_eq!(iso8601(-1), "1969-12-31T23:59:59.999Z");
        assert_eq!(iso8601(4_107_542_400_000), "2100-03-01T00:00:00.000Z");
    }

    #[test]
    fn clones_share_the_offset() {
        let clock = Clock::default();
        let other = clock.clone();
        clock.set_ms(1_000_000);
        other.advance(Duration::from_secs(10));
        let now = clock.now_ms();
        assert!((1_010_000..1_011_000).contains(&now), "{now}");
    }
}
