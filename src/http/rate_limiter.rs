//! A sliding-window rate limiter with a bucket per company or location, and a quota per day.
//!
//! The server may count a request at any time between its departure and its response. A request
//! therefore occupies its place in the window from departure until one window after the response.
//! The server then never counts more requests in a window than the limit allows, however long the
//! network delays are.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};

use super::retry::{daily_remaining, daily_reset, is_day_spent, number};
use super::{Response, requested_delay};
use crate::clock::Clock;
use crate::config::RateLimit;
use crate::deadline::Deadline;
use crate::error::{Error, Result, Status};

const DAY: Duration = Duration::from_secs(86_400);

/// Maximum time for which a 429 blocks a bucket. A wrong header must not block a resource for good.
const MAX_BLOCK: Duration = Duration::from_secs(3600);

/// The pause before a request checks again whether an exhausted daily quota was renewed, if the
/// server does not say when.
const DAILY_QUOTA_RECHECK: Duration = Duration::from_secs(300);

/// A larger reported reset cannot be in seconds, because a day has 86,400 of them.
const MAX_RESET_IN_SECONDS: Duration = Duration::from_millis(86_400);

/// Above this number of buckets, inactive ones are removed.
const MAX_BUCKETS: usize = 4096;

/// Maximum number of other clients' requests that one response adds. A wrong header must not cost
/// memory.
const MAX_FOREIGN_REQUESTS: usize = 1000;

/// Maximum number of resources in the figures.
const MAX_REPORTED: usize = 20;

/// Minimum wait before a request checks the limit again.
const MIN_WAIT: Duration = Duration::from_millis(1);

/// The rate limit that a request counts against.
#[derive(Debug, Clone, Copy)]
pub enum Bucket<'a> {
    /// The documented limit of a company or location.
    Resource(&'a str),
    /// The token endpoint, whose limit is undocumented. Only a 429 pauses it, for the requests of
    /// this resource.
    TokenEndpoint(&'a str),
}

pub struct RateLimiter {
    clock: Arc<dyn Clock>,
    limit: Limit,
    per_day: u64,
    resources: Mutex<Buckets>,
    token_endpoint: Mutex<Buckets>,
}

/// Buckets by resource ID.
#[derive(Default)]
struct Buckets {
    by_resource: HashMap<String, BucketState>,
    /// Number of buckets above which inactive ones are removed.
    prune_above: usize,
}

/// A limit: `requests` in any window of length `per`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Limit {
    requests: usize,
    per: Duration,
}

struct BucketState {
    /// The configured limit, and the server's limit if a response reported one. All of them apply.
    /// Empty for the token endpoint.
    limits: Vec<Limit>,
    per_day: u64,
    /// When the latest requests were answered, in ascending order.
    answered: VecDeque<Duration>,
    /// The number of unanswered requests.
    in_flight: usize,
    /// Tickets of the waiting requests, in order of arrival.
    queue: VecDeque<u64>,
    next_ticket: u64,
    /// The server asked for a pause until this time (429).
    blocked_until: Option<Duration>,
    /// The daily quota is exhausted until this time.
    quota_spent_until: Option<Duration>,
    /// The last reported time until the daily reset, and when it was reported.
    reported_reset: Option<(Duration, Duration)>,
    day_ends: Duration,
    today: u64,
}

/// A request's place in the window, from departure to response.
#[must_use]
pub struct Permit<'a> {
    rate_limiter: &'a RateLimiter,
    bucket: Bucket<'a>,
    sent_at: Duration,
}

/// A place in the queue, given up when the request proceeds or fails.
struct Ticket<'a> {
    rate_limiter: &'a RateLimiter,
    bucket: Bucket<'a>,
    number: u64,
}

impl RateLimiter {
    pub fn new(limit: &RateLimit, clock: Arc<dyn Clock>) -> RateLimiter {
        RateLimiter {
            clock,
            limit: Limit {
                requests: limit.requests as usize,
                per: Duration::from_millis(limit.per_ms),
            },
            per_day: limit.per_day,
            resources: Mutex::default(),
            token_endpoint: Mutex::default(),
        }
    }

    /// Waits for a permit, in order of arrival. A free permit is taken without a ticket, since a
    /// descheduled thread with a ticket would block the threads behind it.
    pub fn acquire<'a>(&'a self, bucket: Bucket<'a>, deadline: &Deadline) -> Result<Permit<'a>> {
        let mut ticket: Option<Ticket> = None;
        loop {
            let wait = self.with(bucket, self.clock.monotonic(), |state, now| {
                let number = ticket.as_ref().map(|ticket| ticket.number);
                state.wait(number, now, deadline.remaining()).map_err(|wait| {
                    let resource = bucket.resource();
                    let error = Error::new(
                        Status::RateLimited,
                        format!(
                            "the rate limit of {resource} allows no request before the deadline"
                        ),
                    )
                    .with_help("try again after retryAfterMs")
                    .with_resource(resource)
                    .with_retry_after(Some(wait));
                    if deadline.cuts_short(wait) { error.into_cut_short() } else { error }
                })
            })?;
            match wait {
                None => {
                    return Ok(Permit {
                        rate_limiter: self,
                        bucket,
                        sent_at: self.clock.monotonic(),
                    });
                }
                Some(wait) => {
                    ticket.get_or_insert_with(|| self.take_ticket(bucket, self.clock.monotonic()));
                    deadline.sleep(wait.max(MIN_WAIT))?;
                }
            }
        }
    }

    /// The state of the busiest buckets, as JSON.
    pub fn figures(&self) -> Value {
        let now = self.clock.monotonic();
        let mut buckets = self.buckets(Bucket::Resource(""));
        let resources = buckets.by_resource.len();
        let mut busiest: Vec<_> = buckets.by_resource.iter_mut().collect();
        let (mut waiting, mut blocked) = (0, 0);
        for (_, state) in &mut busiest {
            state.drop_expired(now);
            waiting += state.queue.len();
            blocked += usize::from(state.blocked_for(now).is_some());
        }
        busiest.sort_by_key(|(_, state)| {
            std::cmp::Reverse((
                state.blocked_for(now),
                state.queue.len(),
                state.answered.len(),
                state.today,
            ))
        });
        let shown = busiest.iter().take(MAX_REPORTED).map(|(resource_id, state)| {
            let (limit, used) = state.tightest(now).unwrap_or((self.limit, 0));
            json!({
                "resourceId": resource_id,
                "inWindow": used,
                "requests": limit.requests,
                "perMs": milliseconds(limit.per),
                "today": state.today,
                "perDay": state.per_day,
                "waiting": state.queue.len(),
                "heldForMs": state.blocked_for(now).map(milliseconds),
            })
        });
        json!({
            "resources": resources, "waiting": waiting, "held": blocked,
            "busiest": shown.collect::<Value>(),
        })
    }

    fn take_ticket<'a>(&'a self, bucket: Bucket<'a>, now: Duration) -> Ticket<'a> {
        let number = self.with(bucket, now, |state, _| state.enqueue());
        Ticket { rate_limiter: self, bucket, number }
    }

    /// Runs `work` on a bucket, which is created if it does not exist.
    fn with<T>(
        &self,
        bucket: Bucket,
        now: Duration,
        work: impl FnOnce(&mut BucketState, Duration) -> T,
    ) -> T {
        let mut buckets = self.buckets(bucket);
        if let Some(state) = buckets.by_resource.get_mut(bucket.resource()) {
            return work(state, now);
        }
        buckets.prune(now);
        let new = match bucket {
            Bucket::Resource(_) => BucketState::new(vec![self.limit], self.per_day, now),
            Bucket::TokenEndpoint(_) => BucketState::new(Vec::new(), u64::MAX, now),
        };
        work(buckets.by_resource.entry(bucket.resource().to_owned()).or_insert(new), now)
    }

    fn buckets(&self, bucket: Bucket) -> MutexGuard<'_, Buckets> {
        let buckets = match bucket {
            Bucket::Resource(_) => &self.resources,
            Bucket::TokenEndpoint(_) => &self.token_endpoint,
        };
        buckets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Buckets {
    fn prune(&mut self, now: Duration) {
        if self.by_resource.len() > self.prune_above.max(MAX_BUCKETS) {
            self.by_resource.retain(|_, state| state.is_active(now));
            self.prune_above = 2 * self.by_resource.len();
        }
    }
}

impl<'a> Bucket<'a> {
    fn resource(self) -> &'a str {
        match self {
            Bucket::Resource(resource) | Bucket::TokenEndpoint(resource) => resource,
        }
    }
}

impl Permit<'_> {
    /// Evaluates the response: a lower limit of the server applies from now on, and a 429 blocks
    /// the bucket for the requested time, or for `pause`. Dropping the permit frees the place.
    pub fn release(self, response: Option<&Response>, pause: Option<Duration>) {
        let Some(response) = response else { return };
        let configured = self.rate_limiter.limit;
        self.rate_limiter.with(self.bucket, self.rate_limiter.clock.monotonic(), |state, now| {
            let of_resource = matches!(self.bucket, Bucket::Resource(_));
            if of_resource {
                state.apply_headers(configured, response, self.sent_at, now);
            }
            // An exhausted daily quota already blocks the bucket, for longer.
            let is_spent = of_resource && is_day_spent(&response.headers);
            if response.status == 429
                && !is_spent
                && let Some(block) = requested_delay(response).or(pause)
            {
                state.block(block, now);
            }
        });
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.rate_limiter.with(
            self.bucket,
            self.rate_limiter.clock.monotonic(),
            BucketState::release,
        );
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        self.rate_limiter.with(self.bucket, self.rate_limiter.clock.monotonic(), |state, _| {
            state.queue.retain(|number| *number != self.number);
        });
    }
}

impl BucketState {
    fn new(limits: Vec<Limit>, per_day: u64, now: Duration) -> BucketState {
        BucketState {
            limits,
            per_day,
            answered: VecDeque::new(),
            in_flight: 0,
            queue: VecDeque::new(),
            next_ticket: 0,
            blocked_until: None,
            quota_spent_until: None,
            reported_reset: None,
            day_ends: now + DAY,
            today: 0,
        }
    }

    fn enqueue(&mut self) -> u64 {
        self.next_ticket += 1;
        self.queue.push_back(self.next_ticket);
        self.next_ticket
    }

    /// Takes a place in the window for the holder of `ticket`; a request without one comes after
    /// all waiting ones. Otherwise returns the time until the next check, as an error if that is
    /// `max_wait` or more.
    fn wait(
        &mut self,
        ticket: Option<u64>,
        now: Duration,
        max_wait: Duration,
    ) -> Result<Option<Duration>, Duration> {
        self.drop_expired(now);
        let ahead = self.queue.iter().take_while(|number| Some(**number) != ticket).count();
        let wait = self.until_free(ahead, now);
        if wait.is_zero() && ahead == 0 {
            self.queue.pop_front();
            self.in_flight += 1;
            self.today += 1;
            return Ok(None);
        }
        if !wait.is_zero() && wait >= max_wait { Err(wait) } else { Ok(Some(wait)) }
    }

    /// Estimates the time until a request with `ahead` requests before it may be sent.
    fn until_free(&self, ahead: usize, now: Duration) -> Duration {
        let mut free = now;
        for limit in &self.limits {
            let forgotten = self.answered.len() - self.answered_in(limit.per, now);
            if let Some(order) = (self.in_window(*limit, now) + ahead).checked_sub(limit.requests) {
                // Places become free in the order of the responses, and again one window later.
                // Requests in flight count as answered now, which is the earliest possible.
                let answered =
                    self.answered.get(forgotten + order % limit.requests).copied().unwrap_or(now);
                let windows = u32::try_from(1 + order / limit.requests).unwrap_or(u32::MAX);
                free = free.max(answered + limit.per.saturating_mul(windows));
            }
        }
        if self.today.saturating_add(ahead as u64) >= self.per_day {
            free = free.max(self.day_ends);
        }
        for until in [self.blocked_until, self.quota_spent_until].into_iter().flatten() {
            free = free.max(until);
        }
        free - now
    }

    fn release(&mut self, now: Duration) {
        self.in_flight -= 1;
        if !self.limits.is_empty() {
            self.answered.push_back(now);
        }
    }

    /// Applies the rate limit headers of a response whose request still occupies its place.
    fn apply_headers(
        &mut self,
        configured: Limit,
        response: &Response,
        sent_at: Duration,
        now: Duration,
    ) {
        let number = |name: &str| number(&response.headers, name);
        let most =
            number("x-ratelimit-max").map(|most| usize::try_from(most).unwrap_or(usize::MAX));
        let interval = number("x-ratelimit-interval-milliseconds").map(Duration::from_millis);
        if let (Some(requests @ 1..), Some(per)) = (most, interval)
            && !per.is_zero()
            && per <= MAX_BLOCK
        {
            let server = Limit { requests, per };
            self.limits =
                if server == configured { vec![configured] } else { vec![configured, server] };
            // Counted requests beyond this client's own were made by other clients.
            if let Some(remaining) = number("x-ratelimit-remaining") {
                let counted =
                    requests.saturating_sub(usize::try_from(remaining).unwrap_or(usize::MAX));
                // The server counted when the request arrived, so requests that have left the
                // window since then may be part of its count.
                let others = counted.saturating_sub(self.in_window(server, sent_at));
                self.answered.extend(std::iter::repeat_n(now, others.min(MAX_FOREIGN_REQUESTS)));
            }
        }
        if let Some(remaining) = daily_remaining(&response.headers) {
            self.apply_daily_quota(
                remaining,
                number("x-ratelimit-limit-daily"),
                daily_reset(&response.headers),
                now,
            );
        }
    }

    /// Applies the reported remaining daily quota, and the time until it is renewed.
    fn apply_daily_quota(
        &mut self,
        remaining: u64,
        limit: Option<u64>,
        reset: Option<Duration>,
        now: Duration,
    ) {
        let reset = reset.map(|reset| {
            // Two responses reveal the unit: milliseconds decrease a thousand times faster than
            // seconds.
            let in_seconds = self.reported_reset.is_some_and(|(before, at)| {
                let passed = before.saturating_sub(reset).as_millis();
                let elapsed = now.saturating_sub(at);
                elapsed >= Duration::from_secs(2)
                    && passed <= elapsed.as_millis() / 2
                    && passed.abs_diff(u128::from(elapsed.as_secs())) <= 2
                    && before <= MAX_RESET_IN_SECONDS
            });
            self.reported_reset = Some((reset, now));
            if in_seconds { reset.saturating_mul(1000).min(DAY) } else { reset }
        });
        if remaining == 0 {
            self.quota_spent_until = Some(now + reset.unwrap_or(DAILY_QUOTA_RECHECK));
            return;
        }
        self.quota_spent_until = None;
        // If the server has counted far fewer requests than this client, its day has started over.
        if let Some(used) = limit.and_then(|limit| limit.checked_sub(remaining))
            && used < self.today / 2
        {
            (self.day_ends, self.today) = (now + DAY, used);
        }
        if let Some(reset) = reset.filter(|reset| *reset > MAX_RESET_IN_SECONDS) {
            self.day_ends = now + reset;
        }
    }

    fn block(&mut self, block: Duration, now: Duration) {
        let until = now + block.min(MAX_BLOCK);
        self.blocked_until = Some(self.blocked_until.map_or(until, |blocked| blocked.max(until)));
    }

    fn drop_expired(&mut self, now: Duration) {
        if now >= self.day_ends {
            (self.day_ends, self.today) = (now + DAY, 0);
        }
        let longest = self.limits.iter().map(|limit| limit.per).max().unwrap_or_default();
        // One window more than the limit needs, for `apply_headers` of a slow response.
        let forgotten = self.answered.len() - self.answered_in(longest.saturating_mul(2), now);
        self.answered.drain(..forgotten);
    }

    fn in_window(&self, limit: Limit, now: Duration) -> usize {
        self.answered_in(limit.per, now) + self.in_flight
    }

    fn answered_in(&self, per: Duration, now: Duration) -> usize {
        self.answered.len() - self.answered.partition_point(|answered| *answered + per <= now)
    }

    fn tightest(&self, now: Duration) -> Option<(Limit, usize)> {
        let limits = self.limits.iter().map(|limit| (*limit, self.in_window(*limit, now)));
        limits.min_by_key(|(limit, used)| limit.requests.saturating_sub(*used))
    }

    fn blocked_for(&self, now: Duration) -> Option<Duration> {
        let until = self.blocked_until.max(self.quota_spent_until)?;
        (until > now).then(|| until - now)
    }

    /// Whether removing the bucket could change the result for its next request.
    fn is_active(&mut self, now: Duration) -> bool {
        self.drop_expired(now);
        self.in_flight > 0
            || self.limits.iter().any(|limit| self.answered_in(limit.per, now) > 0)
            || !self.queue.is_empty()
            || self.blocked_for(now).is_some()
            || self.today > self.per_day / 2
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;
    use ureq::http::HeaderName;

    fn rate_limiter(requests: u32, per_ms: u64, per_day: u64) -> RateLimiter {
        RateLimiter::new(&RateLimit { requests, per_ms, per_day }, Arc::new(SystemClock::new()))
    }

    const LOCATION: Bucket = Bucket::Resource("location");

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    impl RateLimiter {
        /// Tries to take a place and keeps it. Returns `None`, or the wait.
        fn ask(&self, bucket: Bucket, now: Duration) -> Option<Duration> {
            self.with(bucket, now, |state, now| state.wait(None, now, DAY * 2)).unwrap()
        }

        fn response(&self, now: Duration) {
            self.with(LOCATION, now, BucketState::release);
        }

        fn apply_headers(&self, now: Duration, headers: &[(&'static str, u64)]) {
            let headers = headers
                .iter()
                .map(|(name, value)| (HeaderName::from_static(name), (*value).into()));
            let response =
                Response { status: 200, headers: headers.collect(), body: Vec::new().into() };
            self.with(LOCATION, now, |state, now| {
                state.apply_headers(self.limit, &response, now, now)
            });
        }
    }

    #[test]
    fn permit_is_free_again_one_window_after_the_response() {
        let rate_limiter = rate_limiter(2, 1000, 100);
        let start = seconds(1_000_000);
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        assert_eq!(
            (rate_limiter.ask(LOCATION, at(0)), rate_limiter.ask(LOCATION, at(0))),
            (None, None)
        );
        assert_eq!(
            rate_limiter.ask(LOCATION, at(5000)),
            Some(seconds(1)),
            "the server may count both at this moment"
        );
        rate_limiter.response(at(5000));
        rate_limiter.response(at(5300));
        assert_eq!(rate_limiter.ask(LOCATION, at(5999)), Some(Duration::from_millis(1)));
        assert_eq!(rate_limiter.ask(LOCATION, at(6000)), None);
        assert_eq!(rate_limiter.ask(LOCATION, at(6000)), Some(Duration::from_millis(300)));
        assert_eq!(rate_limiter.ask(Bucket::Resource("other"), at(6000)), None);
        for _ in 0..1000 {
            assert_eq!(
                rate_limiter.ask(Bucket::TokenEndpoint("location"), at(6000)),
                None,
                "the token endpoint has no known limit"
            );
        }
    }

    #[test]
    fn waiting_requests_are_served_in_order() {
        let rate_limiter = rate_limiter(1, 1000, 100);
        let start = seconds(1_000_000);
        assert_eq!(rate_limiter.ask(LOCATION, start), None);
        rate_limiter.response(start);
        let tickets = [
            rate_limiter.take_ticket(LOCATION, start),
            rate_limiter.take_ticket(LOCATION, start),
            rate_limiter.take_ticket(LOCATION, start),
        ];
        let wait = |ticket: &Ticket, now, max_wait| {
            rate_limiter
                .with(LOCATION, now, |state, now| state.wait(Some(ticket.number), now, max_wait))
        };
        let [first, second, third] = tickets;
        assert_eq!(wait(&third, start, seconds(9)), Ok(Some(seconds(3))));
        assert_eq!(
            wait(&third, start, seconds(3)),
            Err(seconds(3)),
            "longer than its maximum wait"
        );
        let later = start + seconds(1);
        assert_eq!(wait(&second, later, seconds(9)), Ok(Some(seconds(1))), "behind the first");
        let newcomer =
            rate_limiter.with(LOCATION, later, |state, now| state.wait(None, now, seconds(9)));
        assert_eq!(newcomer, Ok(Some(seconds(3))), "behind all tickets");
        assert_eq!(wait(&first, later, seconds(9)), Ok(None));
        rate_limiter.response(later);
        drop(second);
        assert_eq!(
            wait(&third, later + seconds(1), seconds(9)),
            Ok(None),
            "the dropped ticket does not count"
        );
    }

    #[test]
    fn lower_limit_of_server_and_configuration_applies() {
        let (most, interval) = ("x-ratelimit-max", "x-ratelimit-interval-milliseconds");
        for (requests, per_ms, at_once, in_a_minute) in [
            (5, 1000, 5, 300),
            (5, 60_000, 5, 5),
            (40, 60_000, 10, 40),
            (600, 60_000, 10, 600),
            (3, 100, 3, 600),
            // Implausible limits are ignored.
            (0, 1000, 10, 600),
            (5, 0, 10, 600),
            (1, 86_400_000, 10, 600),
            (1, u64::MAX, 10, 600),
        ] {
            let rate_limiter = rate_limiter(10, 1000, 1000);
            let start = seconds(1_000_000);
            let free = |now: Duration| {
                let one = || rate_limiter.ask(LOCATION, now).is_none();
                let count = (0..).take_while(|_| one()).count();
                (0..count).for_each(|_| rate_limiter.response(now));
                count
            };
            rate_limiter.apply_headers(start, &[(most, requests), (interval, per_ms)]);
            let permits: Vec<usize> =
                (0..600).map(|tenth| free(start + Duration::from_millis(100 * tenth))).collect();
            assert_eq!(
                (permits[0], permits.iter().sum()),
                (at_once, in_a_minute),
                "{requests} in {per_ms} ms"
            );
            rate_limiter.apply_headers(start + seconds(60), &[(most, 10), (interval, 1000)]);
            assert_eq!(free(start + seconds(120)), 10, "the server has raised its limit again");
        }
    }

    #[test]
    fn requests_of_other_programs_count_against_the_window() {
        let headers = |remaining| {
            [
                ("x-ratelimit-max", 10),
                ("x-ratelimit-interval-milliseconds", 1000),
                ("x-ratelimit-remaining", remaining),
            ]
        };
        for (remaining, places) in [(9, 9), (4, 4), (0, 0), (99, 9)] {
            let rate_limiter = rate_limiter(10, 1000, 1000);
            let now = seconds(1_000_000);
            assert_eq!(rate_limiter.ask(LOCATION, now), None);
            rate_limiter.apply_headers(now, &headers(remaining));
            rate_limiter.response(now);
            let free =
                |now| (0..).take_while(|_| rate_limiter.ask(LOCATION, now).is_none()).count();
            assert_eq!(free(now), places, "{remaining} left");
            assert_eq!(
                free(now + seconds(1)),
                10 - places,
                "the other clients' requests have left the window"
            );
        }
    }

    #[test]
    fn own_requests_that_left_the_window_are_not_counted_as_foreign() {
        let rate_limiter = rate_limiter(10, 1000, 1000);
        let start = seconds(1_000_000);
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        for _ in 0..5 {
            assert_eq!(rate_limiter.ask(LOCATION, at(0)), None);
            rate_limiter.response(at(0));
        }
        // The server counts six when this request arrives. When its response arrives, five of them
        // have left the window.
        assert_eq!(rate_limiter.ask(LOCATION, at(990)), None);
        let headers = [
            ("x-ratelimit-max", 10),
            ("x-ratelimit-interval-milliseconds", 1000),
            ("x-ratelimit-remaining", 4),
        ];
        let headers = headers.map(|(name, value)| (HeaderName::from_static(name), value.into()));
        let response = Response {
            status: 200,
            headers: headers.into_iter().collect(),
            body: Vec::new().into(),
        };
        rate_limiter.with(LOCATION, at(1010), |state, now| {
            state.apply_headers(rate_limiter.limit, &response, at(990), now)
        });
        assert_eq!((0..).take_while(|_| rate_limiter.ask(LOCATION, at(1010)).is_none()).count(), 9);
    }

    #[test]
    fn refusal_blocks_all_requests_for_a_limited_time() {
        let start = seconds(1_000_000);
        let rate_limiter = rate_limiter(10, 1000, 1000);
        let block = |seconds| {
            rate_limiter
                .with(LOCATION, start, |state, now| state.block(Duration::from_secs(seconds), now));
            rate_limiter.ask(LOCATION, start)
        };
        assert_eq!(block(7), Some(seconds(7)));
        assert_eq!(block(5), Some(seconds(7)), "the longer block applies");
        assert_eq!(block(u64::MAX), Some(MAX_BLOCK));
        assert_eq!(rate_limiter.ask(LOCATION, start + MAX_BLOCK), None);
        rate_limiter.apply_headers(start + MAX_BLOCK, &[("x-ratelimit-daily-remaining", 0)]);
        assert_eq!(
            rate_limiter.ask(LOCATION, start + MAX_BLOCK),
            Some(DAILY_QUOTA_RECHECK),
            "the daily quota is exhausted"
        );
    }

    #[test]
    fn exhausted_daily_quota_blocks_until_its_reset_and_for_a_day_at_most() {
        let [left, limit, reset] =
            ["x-ratelimit-daily-remaining", "x-ratelimit-limit-daily", "x-ratelimit-daily-reset"];
        let start = seconds(1_000_000);
        let blocked = |headers: &[(&'static str, u64)]| {
            let rate_limiter = rate_limiter(10, 1000, 1000);
            rate_limiter.apply_headers(start, headers);
            rate_limiter.ask(LOCATION, start)
        };
        assert_eq!(blocked(&[(left, 0), (reset, 84_322_000)]), Some(seconds(84_322)));
        assert_eq!(blocked(&[(left, 0), (reset, 25_000)]), Some(seconds(25)));
        assert_eq!(
            blocked(&[(left, 0), (reset, 90_000_000)]),
            Some(DAILY_QUOTA_RECHECK),
            "more than a day"
        );
        assert_eq!(blocked(&[(left, 1), (reset, 84_322_000)]), None);

        // A server that reports seconds: the first block is too short, the second is correct.
        let rate_limiter = rate_limiter(10, 1000, 1000);
        rate_limiter.apply_headers(start, &[(left, 0), (reset, 7_200)]);
        assert_eq!(rate_limiter.ask(LOCATION, start), Some(Duration::from_millis(7_200)));
        let later = start + seconds(8);
        rate_limiter.apply_headers(later, &[(left, 0), (reset, 7_192)]);
        assert_eq!(rate_limiter.ask(LOCATION, later), Some(seconds(7_192)));
        rate_limiter.apply_headers(later, &[(left, 900), (limit, 1000)]);
        assert_eq!(
            rate_limiter.ask(LOCATION, later),
            None,
            "a response with a renewed quota ends the block"
        );
    }

    #[test]
    fn daily_count_restarts_with_the_day_of_the_server() {
        let [left, limit, reset] =
            ["x-ratelimit-daily-remaining", "x-ratelimit-limit-daily", "x-ratelimit-daily-reset"];
        let start = seconds(1_000_000);
        let use_five = |rate_limiter: &RateLimiter| {
            for _ in 0..5 {
                assert_eq!(rate_limiter.ask(LOCATION, start), None);
                rate_limiter.response(start);
            }
        };
        let with_reset = rate_limiter(10, 1000, 5);
        with_reset.apply_headers(start, &[(left, 5), (limit, 5), (reset, 3_600_000)]);
        use_five(&with_reset);
        assert_eq!(
            with_reset.ask(LOCATION, start + seconds(60)),
            Some(seconds(3_540)),
            "until the reset"
        );
        let renewed = rate_limiter(10, 1000, 6);
        use_five(&renewed);
        renewed.apply_headers(start, &[(left, 5), (limit, 6)]);
        for _ in 0..5 {
            assert_eq!(
                renewed.ask(LOCATION, start + seconds(60)),
                None,
                "the server has counted one request"
            );
        }
    }

    #[test]
    fn idle_buckets_are_dropped() {
        let rate_limiter = rate_limiter(10, 1000, 4);
        let start = seconds(1_000_000);
        let send = |name: &str, now| {
            assert_eq!(rate_limiter.ask(Bucket::Resource(name), now), None);
            rate_limiter.with(Bucket::Resource(name), now, BucketState::release);
        };
        for _ in 0..3 {
            send("busy", start);
        }
        for number in 0..3 * MAX_BUCKETS {
            send(&number.to_string(), start);
        }
        assert_eq!(
            rate_limiter.buckets(LOCATION).by_resource.len(),
            3 * MAX_BUCKETS + 1,
            "all buckets are active"
        );
        send("late", start + seconds(1));
        for number in 0..5 * MAX_BUCKETS {
            send(&number.to_string(), start + seconds(2 + number as u64));
        }
        assert!(rate_limiter.buckets(LOCATION).by_resource.len() <= 2 * MAX_BUCKETS);
        assert!(
            rate_limiter.buckets(LOCATION).by_resource.contains_key("busy"),
            "more than half of its daily quota is used"
        );
    }

    #[test]
    fn daily_limit_is_counted_separately() {
        let rate_limiter = rate_limiter(10, 1000, 2);
        let start = seconds(1_000_000);
        assert_eq!(
            (rate_limiter.ask(LOCATION, start), rate_limiter.ask(LOCATION, start)),
            (None, None)
        );
        assert_eq!(rate_limiter.ask(LOCATION, start + seconds(60)), Some(DAY - seconds(60)));
        rate_limiter.response(start);
        rate_limiter.response(start);
        assert_eq!(rate_limiter.ask(LOCATION, start + DAY), None);
    }
}
