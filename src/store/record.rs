//! What is kept of a resource: its token, how it stands, and whether a refresh is under way.

use serde_json::{Value, json};

use crate::token::{Token, UserType};

/// What is kept of one company or location.
#[derive(Debug, Clone)]
pub struct Record {
    /// The company or location.
    pub resource_id: String,
    /// Raised by one at each save; 0 for a record that was never saved.
    pub version: u64,
    /// The newest token.
    pub token: Token,
    /// Whether the API still honours it.
    pub standing: Standing,
    /// Set before a refresh is sent, cleared when its end is known.
    pub intent: Option<Intent>,
}

/// Whether the API still honours a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// As far as is known.
    Good,
    /// The location is paused; the refresh token stays good.
    Inactive {
        /// When the API last said so, in milliseconds since the epoch.
        since_ms: i64,
    },
    /// Only a person's consent can help.
    ReauthorizationRequired {
        /// When that was found, in milliseconds since the epoch.
        since_ms: i64,
        /// What the API said.
        reason: String,
    },
}

/// A refresh that was sent and whose end is not known: its refresh token may be spent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Intent {
    /// When it was first sent, in milliseconds since the epoch.
    pub since_ms: i64,
}

impl Record {
    /// A record that no store has seen yet.
    pub fn new(resource_id: String, token: Token) -> Record {
        Record {
            resource_id,
            version: 0,
            token,
            standing: Standing::Good,
            intent: None,
        }
    }

    /// Whether it can be renewed without a person.
    pub fn is_refreshable(&self) -> bool {
        let minted = self.token.kind() == UserType::Location && self.token.company_id.is_some();
        match self.standing {
            Standing::ReauthorizationRequired { .. } => false,
            _ => self.token.refresh_token.is_some() || minted,
        }
    }

    /// What may be shown: never a secret.
    pub fn metadata(&self) -> Value {
        let state = match self.standing {
            Standing::Good => "ok",
            Standing::Inactive { .. } => "inactive",
            Standing::ReauthorizationRequired { .. } => "reauthorizationRequired",
        };
        json!({
            "resourceId": self.resource_id,
            "userType": self.token.kind().name(),
            "companyId": self.token.company_id,
            "locationId": self.token.location_id,
            "scope": self.token.scope,
            "expiresAt": self.token.expires_at,
            "refreshable": self.is_refreshable(),
            "state": state,
        })
    }
}
