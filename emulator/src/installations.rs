//! Installation status: the companies and locations whose tokens the API would accept now.

use crate::grant::UserType;
use crate::ledger::fingerprint_of;
use crate::state::State;
use serde::Serialize;
use std::collections::HashMap;

/// A company or location, and whether the API accepts its tokens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Installation {
    /// The ID of the company or location.
    pub resource_id: String,
    /// Whether it is a company or a location.
    pub user_type: UserType,
    /// The company's ID, or the ID of the company that the location belongs to now.
    pub company_id: String,
    /// Whether the API accepts its tokens.
    pub state: InstallationState,
    /// Fingerprints of its valid refresh tokens: the first eight hex digits of their SHA-256. A
    /// location without one can still get a token through its company's.
    pub refresh_tokens: Vec<String>,
}

/// Whether the API accepts the tokens of a company or location.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum InstallationState {
    /// The app is installed: tokens can be refreshed or minted.
    Honoured,
    /// The app is installed, but the location is paused: its token is refused now, and must be kept
    /// because it is accepted again later.
    Paused,
    /// The app is not installed.
    NotInstalled,
}

/// All companies with their locations.
pub(crate) fn installations(state: &State) -> Vec<Installation> {
    let mut fingerprints: HashMap<String, Vec<String>> = HashMap::new();
    for live in state.tokens.live(state.clock.now_ms()) {
        fingerprints.entry(live.resource_id).or_default().push(fingerprint_of(&live.refresh_token));
    }
    let mut refresh_tokens = |id: &str| fingerprints.remove(id).unwrap_or_default();
    let mut found =
        Vec::with_capacity(state.directory.companies.len() + state.directory.locations.len());
    for company in &state.directory.companies {
        found.push(Installation {
            resource_id: company.id.clone(),
            user_type: UserType::Company,
            company_id: company.id.clone(),
            state: match company.installed_at_ms {
                Some(_) => InstallationState::Honoured,
                None => InstallationState::NotInstalled,
            },
            refresh_tokens: refresh_tokens(&company.id),
        });
        found.extend(state.directory.locations_of(&company.id).map(|location| Installation {
            resource_id: location.id.clone(),
            user_type: UserType::Location,
            company_id: company.id.clone(),
            state: match (location.installed_at_ms, location.active) {
                (None, _) => InstallationState::NotInstalled,
                (Some(_), true) => InstallationState::Honoured,
                (Some(_), false) => InstallationState::Paused,
            },
            refresh_tokens: refresh_tokens(&location.id),
        }));
    }
    found
}
