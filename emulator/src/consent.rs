//! The authorization request (RFC 6749, section 4.1.1), and the redirect after a person's decision.

use crate::directory::App;
use crate::fields::Fields;
use crate::grant::{Grant, UserType};
use crate::state::{CONSENT_PATHS, State};
use crate::webhook::Notice;
use form_urlencoded::Serializer;

const PARAMETERS: [&str; 7] = [
    "response_type",
    "client_id",
    "redirect_uri",
    "scope",
    "state",
    "loginWindowOpenMode",
    "version_id",
];

/// A user's decision on the consent page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Installs the app on this company and all its locations; the token is a company token.
    Company(String),
    /// Installs the app on this location only; the token is a location token.
    Location(String),
    /// Installs the app on this company and some of its locations; the token is a company token.
    CompanyWithLocations {
        /// The company.
        company: String,
        /// The selected locations, at least one.
        locations: Vec<String>,
    },
    /// Denies consent.
    Deny,
}

/// A validated authorization request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct AuthorizationRequest {
    pub(crate) redirect_uri: String,
    pub(crate) scope: String,
    state: Option<String>,
}

impl AuthorizationRequest {
    /// Validates the query of an authorization URL. The error is a sentence for the developer.
    pub(crate) fn read(query: &str, app: &App) -> Result<Self, String> {
        let fields = Fields::from_form(query.as_bytes()).map_err(|error| format!("{error}."))?;
        if let Some(stranger) = fields.strangers(&PARAMETERS).next() {
            return Err(format!("Unknown parameter: {stranger}."));
        }
        let required = |name: &str| {
            fields
                .get(name)
                .filter(|value| !value.is_empty())
                .ok_or_else(|| format!("{name} is missing."))
        };
        if required("response_type")? != "code" {
            return Err("response_type must be code.".to_owned());
        }
        if required("client_id")? != app.client_id {
            return Err("client_id does not match the app.".to_owned());
        }
        match fields.get("version_id") {
            Some(version_id) if version_id != app.version_id => {
                return Err("version_id does not match the app.".to_owned());
            }
            // The error page for a draft or private app.
            None if app.require_version_id => {
                return Err(format!(
                    "error.noAppVersionIdFound: No integration found with the id: {} (version_id \
                     is missing).",
                    app.client_id
                ));
            }
            _ => {}
        }
        let redirect_uri = required("redirect_uri")?;
        let registered = app.redirect_uris.iter().any(|known| known == redirect_uri);
        let allowed = registered || (app.allow_loopback_redirects && is_loopback(redirect_uri));
        if !allowed {
            return Err(format!("redirect_uri {redirect_uri} is not registered for the app."));
        }
        let scope = required("scope")?;
        let mut scopes: Vec<_> = scope.split(' ').collect();
        if let Some(unknown) =
            scopes.iter().find(|wanted| !app.scopes.iter().any(|known| known == *wanted))
        {
            return Err(format!("scope '{unknown}' is not registered for the app."));
        }
        scopes.sort_unstable();
        if scopes.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err("scope contains a scope twice.".to_owned());
        }
        if fields.get("loginWindowOpenMode").is_some_and(|mode| mode != "self") {
            return Err("loginWindowOpenMode can only be self.".to_owned());
        }
        Ok(Self {
            redirect_uri: redirect_uri.to_owned(),
            scope: scope.to_owned(),
            state: fields.get("state").map(str::to_owned),
        })
    }

    /// Carries out a decision and returns the redirect URL. An error says what is wrong with the
    /// decision.
    pub(crate) fn decide(&self, state: &mut State, decision: Decision) -> Result<String, String> {
        let (company_id, chosen) = match decision {
            Decision::Deny => return Ok(self.redirect("error", "access_denied")),
            Decision::Location(id) => return self.grant_location(state, &id),
            Decision::Company(id) => (id, None),
            Decision::CompanyWithLocations { company, locations } => (company, Some(locations)),
        };
        let company = state
            .directory
            .company(&company_id)
            .ok_or_else(|| format!("There is no company {company_id}."))?;
        let grant = Grant {
            user_type: UserType::Company,
            company_id: company_id.clone(),
            location_id: None,
            scope: self.scope.clone(),
            user_id: company.user_id.clone(),
            plan_id: None,
            approved_locations: chosen.clone(),
            install_to_future_locations: company.install_to_future_locations && chosen.is_none(),
            private: false,
        };
        let installed = match chosen {
            None => state
                .directory
                .locations_of(&company_id)
                .map(|location| location.id.clone())
                .collect(),
            Some(chosen) => {
                if chosen.is_empty() {
                    return Err("No location is selected.".to_owned());
                }
                let elsewhere = |id: &&String| {
                    let location = state.directory.location(id);
                    location.is_none_or(|location| location.company_id != company_id)
                };
                if let Some(id) = chosen.iter().find(elsewhere) {
                    return Err(format!("Company {company_id} has no location {id}."));
                }
                chosen
            }
        };
        Ok(self.grant(state, grant, &installed))
    }

    fn grant_location(&self, state: &mut State, location_id: &str) -> Result<String, String> {
        let location = state
            .directory
            .location(location_id)
            .ok_or_else(|| format!("There is no location {location_id}."))?;
        let company = state.directory.company(&location.company_id);
        let grant = Grant {
            user_type: UserType::Location,
            company_id: location.company_id.clone(),
            location_id: Some(location.id.clone()),
            scope: self.scope.clone(),
            user_id: company.map(|company| company.user_id.clone()).unwrap_or_default(),
            plan_id: Some(location.plan_id.clone()),
            approved_locations: None,
            install_to_future_locations: false,
            private: false,
        };
        Ok(self.grant(state, grant, &[location_id.to_owned()]))
    }

    fn grant(&self, state: &mut State, grant: Grant, installed: &[String]) -> String {
        // The real API also sends its webhooks before it redirects the browser.
        if grant.user_type == UserType::Company {
            state.mark_company_installed(&grant.company_id);
            state.tell(&Notice::Install(grant.company_id.clone()));
        }
        let company = (grant.user_type == UserType::Company).then(|| grant.company_id.clone());
        let now_ms = state.clock.now_ms();
        for location_id in installed {
            state.mark_installed_at(location_id, now_ms);
        }
        match company {
            Some(company_id) if state.settings.behaviour.bulk_install_webhooks => {
                state.tell(&Notice::BulkInstall { company_id, location_ids: installed.to_vec() });
            }
            _ => installed.iter().for_each(|id| state.tell(&Notice::Install(id.clone()))),
        }
        let code = state.tokens.issue_code(grant, &self.redirect_uri, now_ms);
        self.redirect("code", &code)
    }

    fn redirect(&self, name: &str, value: &str) -> String {
        let mut query = Serializer::new(String::new());
        query.append_pair(name, value);
        if let Some(state) = &self.state {
            query.append_pair("state", state);
        }
        let joint = if self.redirect_uri.contains('?') { '&' } else { '?' };
        format!("{}{joint}{}", self.redirect_uri, query.finish())
    }
}

/// Parses an authorization URL of this emulator.
pub(crate) fn requested(state: &State, url: &str) -> Result<AuthorizationRequest, String> {
    let (page, query) = url.split_once('?').unwrap_or((url, ""));
    let served = CONSENT_PATHS.iter().any(|path| {
        page.strip_suffix(path).is_some_and(|base| {
            let (scheme, _) = state.base_url.split_once(':').unwrap_or_default();
            let (_, port) = state.base_url.rsplit_once(':').unwrap_or_default();
            base == state.base_url || base == format!("{scheme}://localhost:{port}")
        })
    });
    if !served {
        return Err(format!("{page} is not this emulator's consent page."));
    }
    AuthorizationRequest::read(query, &state.directory.app)
}

fn is_loopback(uri: &str) -> bool {
    let Some(rest) = uri.strip_prefix("http://") else {
        return false;
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    };
    ["127.0.0.1", "localhost", "[::1]"].contains(&host)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Options;

    fn state() -> State {
        State::new(&Options::default(), "http://127.0.0.1:1".to_owned())
    }

    fn query(app: &App, rest: &str) -> String {
        format!(
            "response_type=code&client_id={}&redirect_uri=https%3A%2F%2Fapp.example%2Foauth%2Fcallback{rest}",
            app.client_id
        )
    }

    #[test]
    fn authorization_request_is_parsed_strictly() {
        let app = state().directory.app;
        let read = |rest: &str| AuthorizationRequest::read(&query(&app, rest), &app);
        let request =
            read("&scope=contacts.readonly%20contacts.write&state=s&loginWindowOpenMode=self")
                .unwrap();
        assert_eq!(request.scope, "contacts.readonly contacts.write");
        assert!(read(&format!("&scope=oauth.write&version_id={}", app.version_id)).is_ok());
        for (rest, complaint) in [
            ("", "scope is missing"),
            ("&scope=", "scope is missing"),
            ("&scope=nothing.readonly", "scope 'nothing.readonly'"),
            ("&scope=oauth.write%20%20oauth.readonly", "scope ''"),
            ("&scope=oauth.write%20oauth.write", "twice"),
            ("&scope=oauth.write&version_id=0", "version_id"),
            ("&scope=oauth.write&loginWindowOpenMode=tab", "loginWindowOpenMode"),
            ("&scope=oauth.write&code_challenge=x", "Unknown parameter: code_challenge"),
            ("&scope=oauth.write&state=1&state=2", "state is given more than once"),
        ] {
            let error = read(rest).unwrap_err();
            assert!(error.contains(complaint), "{rest}: {error}");
        }
    }

    #[test]
    fn private_app_may_need_its_version() {
        let mut app = state().directory.app;
        app.require_version_id = true;
        let read = |rest: &str| AuthorizationRequest::read(&query(&app, rest), &app);
        let complaint = read("&scope=oauth.write").unwrap_err();
        for words in ["version_id", "noAppVersionIdFound", "No integration found with the id"] {
            assert!(complaint.contains(words), "{complaint}");
        }
        assert!(read(&format!("&scope=oauth.write&version_id={}", app.version_id)).is_ok());
    }

    #[test]
    fn company_installed_at_some_locations_has_the_app_only_there() {
        let mut state = state();
        let request = AuthorizationRequest::read(
            &query(&state.directory.app, "&scope=oauth.write"),
            &state.directory.app,
        )
        .unwrap();
        let company = state.directory.companies[0].id.clone();
        let chosen = state.directory.locations[3].id.clone();
        let decision =
            |locations| Decision::CompanyWithLocations { company: company.clone(), locations };
        assert!(request.decide(&mut state, decision(vec![])).is_err());
        assert!(request.decide(&mut state, decision(vec!["elsewhere".to_owned()])).is_err());
        request.decide(&mut state, decision(vec![chosen.clone()])).unwrap();
        for location in &state.directory.locations {
            assert_eq!(location.installed_at_ms.is_some(), location.id == chosen);
        }
    }

    #[test]
    fn redirect_keeps_the_query_of_its_uri() {
        let request = AuthorizationRequest {
            redirect_uri: "https://a/b?c=d".to_owned(),
            scope: String::new(),
            state: Some("x&y z".to_owned()),
        };
        assert_eq!(request.redirect("code", "1"), "https://a/b?c=d&code=1&state=x%26y+z");
    }

    #[test]
    fn loopback_means_this_machine_only() {
        for uri in ["http://127.0.0.1:80/a", "http://localhost", "http://[::1]:9/", "http://[::1]"]
        {
            assert!(is_loopback(uri), "{uri}");
        }
        for uri in
            ["https://localhost/", "http://localhost.example/", "http://127.0.0.1@evil.example/"]
        {
            assert!(!is_loopback(uri), "{uri}");
        }
    }
}
