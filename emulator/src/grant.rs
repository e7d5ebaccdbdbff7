//! An authorization grant: the resource, the scope and the type of token that a user consented to.

use serde::{Deserialize, Serialize};

/// The class of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum UserType {
    /// An agency.
    Company,
    /// A sub-account.
    Location,
}

impl UserType {
    /// The name that the API uses.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Company => "Company",
            Self::Location => "Location",
        }
    }
}

/// The consent that all tokens of one authorization share.
#[derive(Debug)]
pub(crate) struct Grant {
    pub(crate) user_type: UserType,
    pub(crate) company_id: String,
    pub(crate) location_id: Option<String>,
    pub(crate) scope: String,
    pub(crate) user_id: String,
    pub(crate) plan_id: Option<String>,
    /// The individually selected locations; `None` if all were selected.
    pub(crate) approved_locations: Option<Vec<String>>,
    pub(crate) install_to_future_locations: bool,
    /// Whether this is a private integration, whose token never expires and is not accepted by
    /// OAuth endpoints.
    pub(crate) private: bool,
}

impl Grant {
    /// The ID for tokens, limits and error responses: the location's, or the company's.
    pub(crate) fn resource_id(&self) -> &str {
        self.location_id.as_deref().unwrap_or(&self.company_id)
    }

    pub(crate) fn has_scope(&self, wanted: &str) -> bool {
        self.scope.split(' ').any(|scope| scope == wanted)
    }
}
