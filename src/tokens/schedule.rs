//! The refresh schedule: when a token is due, when maintenance refreshes it, and how much clock
//! skew is tolerated.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::Clock;
use crate::config::Refresh;
use crate::store::{Record, Standing};
use crate::token::{NEVER, Token, USUAL_LIFETIME_MS};

/// The pause between token requests for a location that the API calls inactive.
pub const INACTIVE_HOLD_MS: i64 = 60_000;

/// The greatest age of a token that counts as just granted.
const JUST_GRANTED_MS: i64 = 60_000;

/// A renewal time further ahead than this comes from a wrong clock or an unusually long lifetime:
/// maintenance checks the record.
pub const MAX_RENEWAL_AHEAD_MS: i64 = 2 * USUAL_LIFETIME_MS;

/// The refresh policy and its clock.
pub struct Schedule {
    clock: Arc<dyn Clock>,
    policy: Refresh,
}

impl Schedule {
    pub fn new(clock: Arc<dyn Clock>, policy: Refresh) -> Schedule {
        Schedule { clock, policy }
    }

    /// How long before its expiry a token is due.
    pub fn margin(&self, token: &Token) -> Duration {
        token.margin(self.policy.margin())
    }

    /// Whether the token was granted so recently that a new one would hardly live longer.
    pub fn is_just_granted(&self, record: &Record) -> bool {
        let age = record.token.issued_at.map(|at| self.clock.wall_ms().saturating_sub(at));
        age.is_some_and(|age| age < JUST_GRANTED_MS)
    }

    /// When maintenance renews a token: when less than its runway is left; now if the outcome of a
    /// refresh is unknown; never if only a consent helps.
    pub fn renewal(&self, record: &Record) -> i64 {
        let token = &record.token;
        match record.standing {
            Standing::ReauthorizationRequired { .. } => i64::MAX,
            _ if !record.is_refreshable() || token.expires_at >= NEVER => i64::MAX,
            Standing::Inactive { since_ms } => since_ms.saturating_add(INACTIVE_HOLD_MS),
            Standing::Good if record.intent.is_some() => self.clock.wall_ms(),
            Standing::Good => {
                let lifetime = token.lifetime().map_or(USUAL_LIFETIME_MS, milliseconds);
                let runway = lifetime / 100 * i64::from(self.policy.runway_percent);
                token.expires_at.saturating_sub(runway.max(milliseconds(self.margin(token))))
            }
        }
    }

    /// Whether a token has more than its runway left; false for a token that was issued in the
    /// future, whose age is unknown.
    pub fn has_runway(&self, record: &Record) -> bool {
        let now = self.clock.wall_ms();
        let renewal = self.renewal(record);
        renewal > now && (renewal == i64::MAX || !record.token.is_issued_in_future(now))
    }
}

fn milliseconds(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}
