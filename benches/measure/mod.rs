//! Measuring: statistics over many runs, and resource usage of this process.
#![allow(dead_code)] // Each bench uses only a part.

use std::fs;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub fn median<T: Ord + Copy>(figures: &mut [T]) -> T {
    percentile(figures, 50.0)
}

/// The given percentile; sorts the figures.
pub fn percentile<T: Ord + Copy>(figures: &mut [T], percent: f64) -> T {
    figures.sort_unstable();
    let place = (percent / 100.0 * (figures.len() - 1) as f64).round() as usize;
    figures[place]
}

/// The CPU time of this process, over all threads.
#[cfg(unix)]
pub fn processor_time() -> Duration {
    use rustix::time::{ClockId, clock_gettime};
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}

/// Not available on this system.
#[cfg(not(unix))]
pub fn processor_time() -> Duration {
    Duration::ZERO
}

/// The resident memory of this process in KiB; 0 if unknown.
pub fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// The system time in milliseconds since the epoch.
pub fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(since.as_millis()).unwrap()
}
