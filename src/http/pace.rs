//! The pace that the API allows each company or location: at most so many requests in any window.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::{Answer, retry_after};
use crate::config::RateLimit;
use crate::deadline::Deadline;
use crate::error::{Error, Result, Status};

const DAY: Duration = Duration::from_secs(86_400);

/// Above this many resources, those that have been quiet for a window are forgotten.
const PRUNE_ABOVE: usize = 4096;

pub struct Pace {
    requests: usize,
    per: Duration,
    per_day: u64,
    lanes: Mutex<HashMap<String, Lane>>,
}

/// One resource's requests: an exact sliding window.
struct Lane {
    /// When each of the last requests was, or will be, sent; ascending.
    slots: VecDeque<Instant>,
    /// Nothing is sent before this moment: the server said 429.
    held_until: Option<Instant>,
    /// The server's own limit, where it is lower than the configured one.
    requests: usize,
    day_began: Instant,
    today: u64,
}

impl Pace {
    pub fn new(limit: &RateLimit) -> Pace {
        Pace {
            requests: limit.requests as usize,
            per: Duration::from_millis(limit.per_ms),
            per_day: limit.per_day,
            lanes: Mutex::default(),
        }
    }

    /// Waits for this resource's next free slot, in the order of the calls.
    ///
    /// # Errors
    /// `RATE_LIMITED` at once when the slot is beyond the deadline; `CANCELLED`.
    pub fn wait(&self, resource: &str, deadline: &Deadline) -> Result<()> {
        loop {
            let now = Instant::now();
            let slot = self.reserve(resource, now, deadline.remaining())?;
            if slot <= now {
                return Ok(());
            }
            deadline.sleep(slot - now)?;
            // A 429 that came meanwhile holds back those who already had a slot, too.
            let held = self.lanes().get(resource).and_then(|lane| lane.held_until);
            if held.is_none_or(|until| until <= Instant::now()) {
                return Ok(());
            }
        }
    }

    fn reserve(&self, resource: &str, now: Instant, patience: Duration) -> Result<Instant> {
        let mut lanes = self.lanes();
        if lanes.len() > PRUNE_ABOVE {
            lanes.retain(|_, lane| {
                lane.slots.back().is_some_and(|last| now.saturating_duration_since(*last) < self.per)
            });
        }
        let lane = lanes.entry(resource.to_owned()).or_insert_with(|| Lane {
            slots: VecDeque::new(),
            held_until: None,
            requests: self.requests,
            day_began: now,
            today: 0,
        });
        if now.saturating_duration_since(lane.day_began) >= DAY {
            (lane.day_began, lane.today) = (now, 0);
        }
        while lane.slots.front().is_some_and(|slot| *slot + self.per <= now) {
            lane.slots.pop_front();
        }
        let mut slot = now;
        if let Some(oldest) = lane.slots.len().checked_sub(lane.requests) {
            slot = slot.max(lane.slots[oldest] + self.per);
        }
        if let Some(until) = lane.held_until {
            slot = slot.max(until);
        }
        if lane.today >= self.per_day {
            slot = slot.max(lane.day_began + DAY);
        }
        if slot - now >= patience && slot > now {
            let message = format!("the rate limit of {resource} leaves no room before the deadline");
            return Err(Error::new(Status::RateLimited, message)
                .with_help("try again after retryAfterMs")
                .with_resource(resource)
                .with_retry_after(Some(slot - now)));
        }
        lane.slots.push_back(slot);
        lane.today += 1;
        Ok(slot)
    }

    /// Learns from an answer: a 429 holds everyone back, a lower limit is kept to.
    pub fn learn(&self, resource: &str, answer: &Answer) {
        let number = |name: &str| answer.headers.get(name)?.to_str().ok()?.trim().parse::<u64>().ok();
        let mut lanes = self.lanes();
        let Some(lane) = lanes.get_mut(resource) else {
            return;
        };
        if let (Some(most), Some(interval)) =
            (number("x-ratelimit-max"), number("x-ratelimit-interval-milliseconds"))
        {
            // Only a limit over the same window or a longer one can be compared; it never loosens ours.
            if most > 0 && u128::from(interval) >= self.per.as_millis() {
                lane.requests = self.requests.min(usize::try_from(most).unwrap_or(usize::MAX));
            }
        }
        if answer.status == 429 {
            let interval = number("x-ratelimit-interval-milliseconds").map(Duration::from_millis);
            if let Some(hold) = retry_after(&answer.headers).or(interval) {
                let until = Instant::now() + hold;
                lane.held_until = Some(lane.held_until.map_or(until, |held| held.max(until)));
            }
        }
    }

    fn lanes(&self) -> MutexGuard<'_, HashMap<String, Lane>> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_window_holds_more_than_its_limit() {
        let pace = Pace::new(&RateLimit { requests: 3, per_ms: 1000, per_day: 100 });
        let start = Instant::now();
        let slots: Vec<_> =
            (0..10).map(|_| pace.reserve("location", start, Duration::from_secs(60)).unwrap()).collect();
        for window in slots.windows(4) {
            assert!(window[3] - window[0] >= Duration::from_millis(1000));
        }
        assert_eq!(slots[9] - start, Duration::from_secs(3));
        assert_eq!(pace.reserve("other", start, Duration::from_secs(60)).unwrap(), start);
    }

    #[test]
    fn a_slot_beyond_the_deadline_is_refused_and_not_taken() {
        let pace = Pace::new(&RateLimit { requests: 1, per_ms: 10_000, per_day: 2 });
        let start = Instant::now();
        pace.reserve("location", start, Duration::from_secs(1)).unwrap();
        let error = pace.reserve("location", start, Duration::from_secs(1)).unwrap_err();
        assert_eq!(error.status(), Status::RateLimited);
        assert_eq!(error.retry_after(), Some(Duration::from_secs(10)));
        let later = start + Duration::from_secs(10);
        assert_eq!(pace.reserve("location", later, Duration::from_secs(1)).unwrap(), later);
        let tomorrow = pace.reserve("location", later + Duration::from_secs(10), Duration::MAX / 4).unwrap();
        assert_eq!(tomorrow, start + DAY);
    }
}
