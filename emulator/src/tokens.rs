//! Codes, access tokens and refresh token rotation with a replay window.

use crate::directory::App;
use crate::grant::{Grant, UserType};
use crate::jwt;
use crate::ledger::{Ended, EntryId, Kind, Ledger};
use crate::random::unpredictable_hex;
use serde::Serialize;
use std::collections::HashMap;
use std::sync::Arc;

/// The prefix of private integration tokens.
pub(crate) const PRIVATE_PREFIX: &str = "pit-";
const CODE_LIFE_MS: i64 = 10 * 60 * 1_000;
const REFRESH_TOKEN_LIFE_MS: i64 = 365 * DAY_MS;
const DAY_MS: i64 = 24 * 60 * 60 * 1_000;
/// The fewest tokens that are issued between two purges of expired ones.
const CLEARANCE: u64 = 1_024;

/// A refresh token that is valid now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LiveToken {
    /// The company or location that it belongs to.
    pub resource_id: String,
    /// Whether it is a company or a location.
    pub user_type: UserType,
    /// The token.
    pub refresh_token: String,
}

/// An access token with its refresh token.
#[derive(Debug, Clone)]
pub(crate) struct Pair {
    pub(crate) grant: Arc<Grant>,
    pub(crate) access_token: Arc<str>,
    pub(crate) access_expires_at_ms: i64,
    pub(crate) refresh: Option<IssuedRefresh>,
}

#[derive(Debug, Clone)]
pub(crate) struct IssuedRefresh {
    pub(crate) id: String,
    pub(crate) token: Arc<str>,
}

#[derive(Debug)]
struct Code {
    grant: Arc<Grant>,
    redirect_uri: String,
    expires_at_ms: i64,
    entry: EntryId,
}

#[derive(Debug)]
struct AccessToken {
    grant: Arc<Grant>,
    expires_at_ms: i64,
    entry: EntryId,
}

#[derive(Debug)]
struct RefreshToken {
    grant: Arc<Grant>,
    sequence: u64,
    expires_at_ms: i64,
    spent: Option<Spent>,
    entry: EntryId,
}

/// When a refresh token was used, and the tokens that replaced it.
#[derive(Debug)]
struct Spent {
    at_ms: i64,
    successor: Pair,
}

/// Why a code is refused.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum CodeRefusal {
    Unknown,
    RedirectUriDiffers,
}

/// The validity of a refresh token at a given time.
pub(crate) enum RefreshTokenState {
    /// Unknown, expired, or used too long ago to be replayed: the server does not distinguish them.
    Invalid,
    /// Unused.
    Fresh(Arc<Grant>),
    /// Used within the replay window; the pair replaced it.
    JustSpent(Pair),
}

impl RefreshTokenState {
    pub(crate) fn grant(&self) -> Option<&Arc<Grant>> {
        match self {
            Self::Invalid => None,
            Self::Fresh(grant) => Some(grant),
            Self::JustSpent(pair) => Some(&pair.grant),
        }
    }
}

/// The issue time and lifetime of new tokens.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Issue {
    pub(crate) now_ms: i64,
    pub(crate) access_token_seconds: i64,
    pub(crate) with_refresh_token: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Tokens {
    codes: HashMap<String, Code>,
    access: HashMap<Arc<str>, AccessToken>,
    refresh: HashMap<Arc<str>, RefreshToken>,
    private: HashMap<String, Arc<Grant>>,
    issued: u64,
    /// The value of `issued` at which expired tokens are purged next.
    next_purge: u64,
    rotations: u64,
    ledger: Ledger,
}

impl Tokens {
    /// Issues an authorization code.
    pub(crate) fn issue_code(&mut self, grant: Grant, redirect_uri: &str, now_ms: i64) -> String {
        self.codes.retain(|_, code| code.expires_at_ms > now_ms);
        let code = unpredictable_hex::<20>();
        let (grant, expires_at_ms) = (Arc::new(grant), now_ms + CODE_LIFE_MS);
        let entry = self.ledger.enter(Kind::Code, &code, &grant, now_ms, expires_at_ms);
        let redirect_uri = redirect_uri.to_owned();
        self.codes.insert(code.clone(), Code { grant, redirect_uri, expires_at_ms, entry });
        code
    }

    /// Redeems a single-use code.
    pub(crate) fn redeem_code(
        &mut self,
        code: &str,
        redirect_uri: Option<&str>,
        now_ms: i64,
    ) -> Result<Arc<Grant>, CodeRefusal> {
        let known = self
            .codes
            .get(code)
            .filter(|known| known.expires_at_ms > now_ms)
            .ok_or(CodeRefusal::Unknown)?;
        if redirect_uri.is_some_and(|uri| uri != known.redirect_uri) {
            return Err(CodeRefusal::RedirectUriDiffers);
        }
        let (grant, entry) = (Arc::clone(&known.grant), known.entry);
        self.codes.remove(code);
        self.ledger.end(entry, Ended::Spent { at_ms: now_ms });
        Ok(grant)
    }

    /// Issues tokens for a grant.
    pub(crate) fn issue(&mut self, app: &App, grant: Arc<Grant>, how: Issue) -> Pair {
        self.issued += 1;
        if self.issued > self.next_purge {
            self.clear_out(how.now_ms);
            // A purge reads every token, so its cost is spread over as many new ones.
            self.next_purge = self.issued + CLEARANCE.max(self.access.len() as u64 / 4);
        }
        let access_expires_at_ms =
            how.now_ms.saturating_add(how.access_token_seconds.saturating_mul(1_000));
        let access_token: Arc<str> =
            jwt::access_token(app, &grant, how.now_ms, access_expires_at_ms).into();
        let entry = self.ledger.enter(
            Kind::Access,
            &access_token,
            &grant,
            how.now_ms,
            access_expires_at_ms,
        );
        self.access.insert(
            Arc::clone(&access_token),
            AccessToken { grant: Arc::clone(&grant), expires_at_ms: access_expires_at_ms, entry },
        );
        let refresh = how.with_refresh_token.then(|| self.issue_refresh(app, &grant, how.now_ms));
        Pair { grant, access_token, access_expires_at_ms, refresh }
    }

    fn issue_refresh(&mut self, app: &App, grant: &Arc<Grant>, now_ms: i64) -> IssuedRefresh {
        let expires_at_ms = now_ms + REFRESH_TOKEN_LIFE_MS;
        let token: Arc<str> = jwt::refresh_token(app, grant, now_ms, expires_at_ms).into();
        let entry = self.ledger.enter(Kind::Refresh, &token, grant, now_ms, expires_at_ms);
        self.refresh.insert(
            Arc::clone(&token),
            RefreshToken {
                grant: Arc::clone(grant),
                sequence: self.issued,
                expires_at_ms,
                spent: None,
                entry,
            },
        );
        IssuedRefresh { id: unpredictable_hex::<12>(), token }
    }

    pub(crate) fn refresh_token_state(
        &self,
        token: &str,
        now_ms: i64,
        window_ms: i64,
    ) -> RefreshTokenState {
        let Some(known) = self.refresh.get(token).filter(|known| known.expires_at_ms > now_ms)
        else {
            return RefreshTokenState::Invalid;
        };
        match &known.spent {
            None => RefreshTokenState::Fresh(Arc::clone(&known.grant)),
            Some(spent) if now_ms.saturating_sub(spent.at_ms) < window_ms => {
                RefreshTokenState::JustSpent(spent.successor.clone())
            }
            Some(_) => RefreshTokenState::Invalid,
        }
    }

    /// The owner of a refresh token, even after it was used.
    pub(crate) fn owner_of_refresh_token(&self, token: &str) -> Option<Arc<Grant>> {
        self.refresh.get(token).map(|known| Arc::clone(&known.grant))
    }

    /// The owner of a valid code.
    pub(crate) fn owner_of_code(&self, code: &str) -> Option<&Grant> {
        self.codes.get(code).map(|known| &*known.grant)
    }

    /// Marks a refresh token as used, and issues the pair that replaces it.
    pub(crate) fn rotate(&mut self, app: &App, token: &str, grant: Arc<Grant>, how: Issue) -> Pair {
        let successor = self.issue(app, grant, how);
        if let Some(known) = self.refresh.get_mut(token) {
            known.spent = Some(Spent { at_ms: how.now_ms, successor: successor.clone() });
            self.ledger.end(known.entry, Ended::Spent { at_ms: how.now_ms });
        }
        self.rotations += 1;
        successor
    }

    /// The grant of a valid access token.
    pub(crate) fn authenticate(&self, access_token: &str, now_ms: i64) -> Option<Arc<Grant>> {
        self.access
            .get(access_token)
            .filter(|known| known.expires_at_ms > now_ms)
            .map(|known| Arc::clone(&known.grant))
    }

    /// Issues a private integration token.
    pub(crate) fn issue_private(&mut self, grant: Grant) -> String {
        let hex = unpredictable_hex::<16>();
        let id = [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-");
        let token = format!("{PRIVATE_PREFIX}{id}");
        self.private.insert(token.clone(), Arc::new(grant));
        token
    }

    /// The grant of a private integration token.
    pub(crate) fn authenticate_private(&self, token: &str) -> Option<Arc<Grant>> {
        self.private.get(token).map(Arc::clone)
    }

    /// The number of refresh token rotations.
    pub(crate) fn rotations(&self) -> u64 {
        self.rotations
    }

    /// The valid refresh tokens, by resource and age.
    pub(crate) fn live(&self, now_ms: i64) -> Vec<LiveToken> {
        let mut live: Vec<_> = self
            .refresh
            .iter()
            .filter(|(_, known)| known.spent.is_none() && known.expires_at_ms > now_ms)
            .collect();
        live.sort_by_key(|(_, known)| (known.grant.resource_id(), known.sequence));
        live.into_iter()
            .map(|(token, known)| LiveToken {
                resource_id: known.grant.resource_id().to_owned(),
                user_type: known.grant.user_type,
                refresh_token: token.to_string(),
            })
            .collect()
    }

    /// The history of every code and token.
    pub(crate) fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Expires every access token.
    pub(crate) fn expire_access_tokens(&mut self) {
        for (_, known) in self.access.drain() {
            self.ledger.end(known.entry, Ended::Expired);
        }
    }

    /// Revokes the refresh tokens of a company or location; its access tokens stay valid.
    pub(crate) fn revoke_refresh_tokens(&mut self, resource_id: &str) -> usize {
        let ended = self.refresh.extract_if(|_, known| known.grant.resource_id() == resource_id);
        ended.map(|(_, known)| self.ledger.end(known.entry, Ended::Revoked)).count()
    }

    /// Ends all tokens of the grants for which `ended` is true.
    pub(crate) fn end_grants(&mut self, ended: impl Fn(&Grant) -> bool) {
        let codes = self.codes.extract_if(|_, code| ended(&code.grant)).map(|(_, code)| code.entry);
        let access =
            self.access.extract_if(|_, known| ended(&known.grant)).map(|(_, known)| known.entry);
        let refresh =
            self.refresh.extract_if(|_, known| ended(&known.grant)).map(|(_, known)| known.entry);
        for entry in codes.chain(access).chain(refresh) {
            self.ledger.end(entry, Ended::Revoked);
        }
    }

    /// Purges tokens that expired more than a day ago: the response for them is the same as for
    /// unknown ones.
    fn clear_out(&mut self, now_ms: i64) {
        let bygone = now_ms - DAY_MS;
        self.access.retain(|_, known| known.expires_at_ms > bygone);
        self.refresh.retain(|_, known| {
            known.expires_at_ms > bygone
                && known.spent.as_ref().is_none_or(|spent| spent.at_ms > bygone)
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::directory::Directory;
    use crate::ledger::EntryState;
    use crate::options::Options;

    const HOW: Issue = Issue { now_ms: 0, access_token_seconds: 100, with_refresh_token: true };

    fn grant() -> Grant {
        Grant {
            user_type: UserType::Company,
            company_id: "company".to_owned(),
            location_id: None,
            scope: "oauth.readonly oauth.write locations.readonly".to_owned(),
            user_id: "user".to_owned(),
            plan_id: None,
            approved_locations: None,
            install_to_future_locations: true,
            private: false,
        }
    }

    #[test]
    fn tokens_have_realistic_sizes() {
        let app = Directory::new(&Options::default()).app;
        let pair = Tokens::default().issue(&app, Arc::new(grant()), HOW);
        let sizes = (pair.access_token.len(), pair.refresh.unwrap().token.len());
        assert!((800..1_000).contains(&sizes.0), "{sizes:?}");
        assert!((350..450).contains(&sizes.1), "{sizes:?}");
    }

    #[test]
    fn code_is_valid_once_and_for_ten_minutes() {
        let mut tokens = Tokens::default();
        let code = tokens.issue_code(grant(), "https://a", 0);
        let refused = tokens.redeem_code(&code, Some("https://b"), 1);
        assert_eq!(refused.unwrap_err(), CodeRefusal::RedirectUriDiffers);
        assert!(tokens.redeem_code(&code, Some("https://a"), 1).is_ok());
        assert_eq!(tokens.redeem_code(&code, None, 1).unwrap_err(), CodeRefusal::Unknown);

        let late = tokens.issue_code(grant(), "https://a", 0);
        assert!(tokens.redeem_code(&late, None, CODE_LIFE_MS).is_err());
    }

    #[test]
    fn spent_token_is_valid_only_during_the_replay_window() {
        let app = Directory::new(&Options::default()).app;
        let mut tokens = Tokens::default();
        let first = tokens.issue(&app, Arc::new(grant()), HOW);
        let old = first.refresh.unwrap().token;
        let next = tokens.rotate(&app, &old, first.grant, HOW);

        match tokens.refresh_token_state(&old, 29_999, 30_000) {
            RefreshTokenState::JustSpent(pair) => assert_eq!(pair.access_token, next.access_token),
            _ => panic!("inside the window"),
        }
        assert!(tokens.refresh_token_state(&old, 30_000, 30_000).grant().is_none());
        assert!(tokens.refresh_token_state(&old, 0, 0).grant().is_none());
        assert_eq!(tokens.live(0).len(), 1);
        assert_eq!(tokens.rotations(), 1);
    }

    #[test]
    fn ledger_reports_the_state_of_every_token_and_contains_none() {
        let app = Directory::new(&Options::default()).app;
        let mut tokens = Tokens::default();
        let code = tokens.issue_code(grant(), "https://a", 0);
        let first = {
            let grant = tokens.redeem_code(&code, None, 0).unwrap();
            tokens.issue(&app, grant, HOW)
        };
        let old = first.refresh.unwrap().token;
        let next = tokens.rotate(&app, &old, first.grant, HOW);
        let told = |tokens: &Tokens, now_ms| -> Vec<_> {
            tokens.ledger().entries().map(|entry| (entry.kind, entry.state(now_ms))).collect()
        };
        let (access, refresh) = (Kind::Access, Kind::Refresh);
        assert_eq!(
            told(&tokens, 1),
            [
                (refresh, EntryState::Live),
                (access, EntryState::Live),
                (refresh, EntryState::Spent),
                (access, EntryState::Live),
                (Kind::Code, EntryState::Spent),
            ]
        );
        let expiring = tokens.ledger().next_expiry(1).unwrap();
        assert_eq!((expiring.kind, expiring.expires_at_ms), (access, 100_000));
        assert_eq!(told(&tokens, 100_000)[1].1, EntryState::Expired);
        assert_eq!(tokens.revoke_refresh_tokens("company"), 2);
        assert_eq!(told(&tokens, 1)[0].1, EntryState::Revoked);
        assert_eq!(told(&tokens, 1)[2].1, EntryState::Spent, "it was before");
        tokens.expire_access_tokens();
        assert_eq!(told(&tokens, 1)[3].1, EntryState::Expired);
        assert!(tokens.ledger().next_expiry(1).is_none());
        let written = format!("{:?}", tokens.ledger());
        for secret in [&*code, &old, &first.access_token, &next.access_token] {
            assert!(!written.contains(secret));
        }
    }

    #[test]
    fn unused_refresh_token_expires_after_a_year() {
        let app = Directory::new(&Options::default()).app;
        let mut tokens = Tokens::default();
        let token = tokens.issue(&app, Arc::new(grant()), HOW).refresh.unwrap().token;
        let standing = |at| tokens.refresh_token_state(&token, at, 30_000).grant().is_some();
        assert!(standing(REFRESH_TOKEN_LIFE_MS - 1));
        assert!(!standing(REFRESH_TOKEN_LIFE_MS));
    }
}
