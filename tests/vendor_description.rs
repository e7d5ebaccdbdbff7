//! The vendor's own OpenAPI description, served by a strict third-party mock, accepts every request
//! that the library can make.
//!
//! Needs Prism (`npm install @stoplight/prism-cli`) and the description, which the vendor
//! publishes; the variables below say where they are. `.ci/run` sets both.

use std::env;
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ghl_oauth::config::Encoding;
use ghl_oauth::internals::api::{InstalledLocationsParams, LocationTokenParams, TokenParams};
use ghl_oauth::internals::{Client, Config, Status};
use serde_json::{Value, json};

const PRISM: &str = "GHL_PRISM";
const DESCRIPTION: &str = "GHL_VENDOR_DESCRIPTION";

/// The mock server (Prism); stopped when dropped.
struct Mock {
    process: Child,
    base_url: String,
}

impl Mock {
    fn start() -> Option<Mock> {
        let (Some(prism), Some(description)) = (env::var_os(PRISM), env::var_os(DESCRIPTION))
        else {
            println!(
                "skipped: the vendor's description as a mock; npm install @stoplight/prism-cli, \
                 then set {PRISM} to its program and {DESCRIPTION} to oauth-v3.json"
            );
            return None;
        };
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let process = Command::new(prism)
            .args(["mock", "--errors", "--host", "127.0.0.1", "--port", &port.to_string()])
            .arg(description)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let mock = Mock { process, base_url: format!("http://127.0.0.1:{port}") };
        let patience = Instant::now() + Duration::from_secs(60);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < patience, "the mock did not start");
            std::thread::sleep(Duration::from_millis(50));
        }
        Some(mock)
    }

    fn client(&self, encoding: Encoding) -> Client {
        let mut config =
            Config::new("6578278e879ad2646715ba9c-lq1x2y3z", "a secret with spaces & signs +%/=");
        config.base_url = self.base_url.clone();
        config.token_request_encoding = encoding;
        Client::new(&config).unwrap()
    }
}

impl Drop for Mock {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn vendors_description_accepts_every_request() {
    let Some(mock) = Mock::start() else { return };
    for encoding in [Encoding::Form, Encoding::Json] {
        let client = mock.client(encoding);
        for params in [
            json!({
                "grantType": "authorization_code", "code": "c & d+e",
                "redirectUri": "https://app.example/callback?a=b",
            }),
            json!({"grantType": "authorization_code", "code": "c", "userType": "Location"}),
            json!({"grantType": "refresh_token", "refreshToken": "r.s-t_u", "userType": "Company"}),
            json!({"grantType": "refresh_token", "refreshToken": "r"}),
            json!({"grantType": "client_credentials"}),
        ] {
            let answer =
                client.oauth_token(&serde_json::from_value::<TokenParams>(params.clone()).unwrap());
            assert!(answer.is_ok(), "{encoding:?} {params}: {answer:?}");
        }
    }
    let client = mock.client(Encoding::Form);
    let mint = json!({
        "companyId": "tDtDnQdgm2LXpyiqYvZ6", "locationId": "l1C08ntBrFjLS0elLIYU",
        "accessToken": "a",
    });
    let minted =
        client.oauth_location_token(&serde_json::from_value::<LocationTokenParams>(mint).unwrap());
    assert!(minted.is_ok(), "{minted:?}");

    let everything = json!({
        "companyId": "tDtDnQdgm2LXpyiqYvZ6", "appId": "a", "pageSize": 100,
        "pageToken": "eyJza2lwIjoyMH0", "query": "Ö & o",
        "isInstalled": true, "restrictToUserLocations": false, "versionId": "v", "onTrial": true,
        "planId": "p",
        "locationId": "1245", "accessToken": "a"
    });
    for params in [json!({"companyId": "c", "accessToken": "a"}), everything] {
        let page = client.oauth_installed_locations(&read(&params));
        assert!(page.is_ok(), "{params}: {page:?}");
    }
}

#[test]
fn mock_is_strict() {
    let Some(mock) = Mock::start() else { return };
    let mut config = Config::new("app-1", "s");
    config.base_url = mock.base_url.clone();
    config.api_version = "2021-07-28".into();
    let client = Client::new(&config).unwrap();
    let refused =
        client.oauth_installed_locations(&read(&json!({"companyId": "c", "accessToken": "a"})));
    assert_eq!(refused.unwrap_err().status(), Status::InvalidRequest);
}

fn read(params: &Value) -> InstalledLocationsParams {
    serde_json::from_value(params.clone()).unwrap()
}
