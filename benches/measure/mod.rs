//! How the benchmarks measure: a figure out of many runs, and what the system says of this process.
#![allow(dead_code)] // Each bench uses a part of its own.

use std::fs;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The one in the middle.
pub fn median<T: Ord + Copy>(figures: &mut [T]) -> T {
    percentile(figures, 50.0)
}

/// The one that so many percent are not above; sorts them.
pub fn percentile<T: Ord + Copy>(figures: &mut [T], percent: f64) -> T {
    figures.sort_unstable();
    let place = (percent / 100.0 * (figures.len() - 1) as f64).round() as usize;
    figures[place]
}

/// How long the processors worked for this process, all its threads together.
#[cfg(unix)]
pub fn processor_time() -> Duration {
    use rustix::time::{ClockId, clock_gettime};
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}

/// Not known here.
#[cfg(not(unix))]
pub fn processor_time() -> Duration {
    Duration::ZERO
}

/// The resident memory of this process in KiB; 0 where the system does not tell.
pub fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// The system's time, in milliseconds since the epoch.
pub fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(since.as_millis()).unwrap()
}
