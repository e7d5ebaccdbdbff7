//! The parameters of the calls. Optional fields have defaults: use `..Default::default()`, or
//! assign the fields after calling a constructor.

pub use crate::api::InstalledLocationsParams;
pub use crate::authorization::{CompleteParams, ListenParams, UrlParams};
pub use crate::request::RequestParams;
pub use crate::tokens::{ListParams, ListedState, MaintainParams, MintParams};
pub use crate::webhook::WebhookParams;

impl CompleteParams {
    /// Completes a consent that this client began and that was redirected to this URL.
    pub fn new(redirect_url: impl Into<String>) -> CompleteParams {
        CompleteParams {
            redirect_url: redirect_url.into().into(),
            state: None,
            allow_missing_state: false,
            redirect_uri: None,
            user_type: None,
        }
    }
}

impl MintParams {
    /// All locations of the company with the app installed.
    pub fn installed(company_id: impl Into<String>) -> MintParams {
        MintParams {
            company_id: company_id.into(),
            location_ids: None,
            installed: true,
            app_id: None,
            force: false,
            concurrency: None,
        }
    }

    /// These locations of the company.
    pub fn locations(company_id: impl Into<String>, location_ids: Vec<String>) -> MintParams {
        MintParams {
            location_ids: Some(location_ids),
            installed: false,
            ..MintParams::installed(company_id)
        }
    }
}

impl RequestParams {
    /// A request without a query, headers or body, and without a token.
    pub fn new(method: impl Into<String>, path: impl Into<String>) -> RequestParams {
        RequestParams {
            method: method.into(),
            path: path.into(),
            query: Default::default(),
            headers: Default::default(),
            body: None,
            body_base64: None,
            resource_id: None,
            idempotent: None,
            retry: None,
        }
    }
}
