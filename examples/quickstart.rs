//! The whole life of a connection, with the embedded emulator: `cargo run --example quickstart`.
//!
//! Each step prints the call, the requests on the wire, and the result. For the real API only the
//! configuration differs: omit `base_url` and `authorize_url`, and use the ID and secret of your
//! app.

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ghl_oauth::internals::{self, clock::Clock};
use ghl_oauth::params::{CompleteParams, InstalledLocationsParams, ListParams, UrlParams};
use ghl_oauth::{Client, Config};
use ghl_oauth_emulator::{Decision, Emulator, Options};

fn main() -> Result<(), Box<dyn Error>> {
    let emulator = Emulator::start(Options { locations: 5, ..Options::default() })?;
    let mut tour = Tour { emulator: &emulator, shown: 0, steps: 0 };

    let mut config = Config::new(emulator.client_id(), emulator.client_secret());
    config.base_url = emulator.base_url();
    config.authorize_url = emulator.authorize_url();
    config.redirect_uri = Some(emulator.redirect_uri().to_owned());
    config.scopes =
        ["oauth.readonly", "oauth.write", "locations.readonly"].map(String::from).to_vec();
    // Your program calls `Client::new(&config)`. Here a day will pass, so the client reads the
    // emulator's clock.
    let clock = Arc::new(EmulatorClock::new(&emulator));
    let client = Client::from(internals::Client::with_clock(&config, clock)?);
    let (company, location) = (emulator.company_id(), emulator.location_ids()[0].clone());

    tour.step("A client for your app");
    tour.came_back(&format!("client id {}, API at {}", config.client_id, config.base_url));

    tour.step("authorization_url: the link to send your user to");
    let link = client.authorization_url(UrlParams::default())?;
    tour.came_back(&format!("url   {}", link.url));
    tour.came_back(&format!("state {}", shortened(link.state.expose())));

    tour.step("The user clicks \"Allow\" for the company, and the browser comes back");
    let redirect_url = emulator.consent(&link.url, Decision::Company(company.clone()))?;
    tour.came_back(&without_secrets(&redirect_url));

    tour.step("authorization_complete: state checked, code exchanged, token stored");
    let stored = client.authorization_complete(&CompleteParams::new(redirect_url.as_str()))?;
    tour.sent();
    tour.came_back(&format!("{} is {:?}", stored.resource_id, stored.state));

    tour.step("access_token: the company's token");
    let token = client.access_token(&company)?;
    tour.sent();
    tour.came_back(&shortened(token.expose()));

    tour.step("oauth_installed_locations: page by page");
    let mut page_token = None;
    loop {
        let page = client.oauth_installed_locations(&InstalledLocationsParams {
            company_id: Some(company.clone()),
            page_size: Some(2),
            page_token: page_token.take(),
            // The other locations have no token.
            is_installed: Some(true),
            ..InstalledLocationsParams::default()
        })?;
        tour.sent();
        for location in &page.items {
            tour.came_back(&format!(
                "{}  {}",
                location.id,
                location.name.as_deref().unwrap_or("?")
            ));
        }
        page_token = page.next_page_token;
        if page_token.is_none() {
            break;
        }
    }

    tour.step("access_token: a location's token, minted from the company's at the first call");
    let minted = client.access_token(&location)?;
    tour.sent();
    tour.came_back(&shortened(minted.expose()));

    tour.step("access_token: the same token again, from memory");
    let began = Instant::now();
    let again = client.access_token(&location)?;
    let took = began.elapsed();
    tour.sent();
    tour.came_back(&format!(
        "{} after {took:?}, the same token: {}",
        shortened(again.expose()),
        again.matches(minted.expose())
    ));

    tour.step("A day passes (the emulator's clock is moved); access_token refreshes by itself");
    emulator.clock().advance(Duration::from_secs(86_400));
    let renewed = client.access_token(&location)?;
    tour.sent();
    tour.came_back(&format!(
        "{}, a new token: {}",
        shortened(renewed.expose()),
        !renewed.matches(minted.expose())
    ));
    tour.came_back(&format!(
        "live at the server: {}",
        emulator.access_token_is_live(renewed.expose())
    ));

    tour.step("tokens_list: what is held now, without secrets");
    for token in client.tokens_list(&ListParams::default())?.items {
        tour.came_back(&format!(
            "{} is {:?}, scopes {:?}",
            token.resource_id, token.state, token.scope
        ));
    }

    tour.step("An error, as you would meet it: the redirect is replayed");
    let replayed = client.authorization_complete(&CompleteParams::new(redirect_url));
    if let Err(error) = replayed {
        tour.came_back(&format!("status  {}", error.status().name()));
        tour.came_back(&format!("message {}", error.message()));
        tour.came_back(&format!("help    {}", error.help().unwrap_or("-")));
    }

    println!("\nDone: {} requests reached the API. Next: README.md.", emulator.requests().len());
    Ok(())
}

struct Tour<'a> {
    emulator: &'a Emulator,
    shown: usize,
    steps: usize,
}

impl Tour<'_> {
    fn step(&mut self, what: &str) {
        self.steps += 1;
        println!("\n{:>2}. {what}", self.steps);
    }

    /// Prints the requests since the last call.
    fn sent(&mut self) {
        let requests = self.emulator.requests();
        for request in &requests[self.shown..] {
            let query = if request.query.is_empty() {
                String::new()
            } else {
                format!("?{}", request.query)
            };
            let body = if request.body.is_empty() {
                String::new()
            } else {
                format!("  {}", without_secrets(&request.body))
            };
            println!(
                "    -> {} {}{query}{body}  ({})",
                request.method, request.path, request.status
            );
        }
        if requests.len() == self.shown {
            println!("    -> no request");
        }
        self.shown = requests.len();
    }

    fn came_back(&self, what: &str) {
        println!("    <- {what}");
    }
}

/// The beginning of a secret, and its length.
fn shortened(secret: &str) -> String {
    let beginning: String = secret.chars().take(12).collect();
    format!("{beginning}… ({} bytes)", secret.len())
}

/// A query or form with shortened secrets.
fn without_secrets(form: &str) -> String {
    let (before, fields) =
        form.split_once('?').map_or(("", form), |(before, fields)| (before, fields));
    let fields: Vec<String> = fields
        .split('&')
        .map(|field| match field.split_once('=') {
            Some((name @ ("clientSecret" | "refreshToken" | "code" | "state"), value)) => {
                format!("{name}={}…", value.chars().take(6).collect::<String>())
            }
            _ => field.to_owned(),
        })
        .collect();
    if before.is_empty() { fields.join("&") } else { format!("{before}?{}", fields.join("&")) }
}

/// Provides the emulator's clock to the library, so that a day can pass for both.
struct EmulatorClock {
    clock: ghl_oauth_emulator::Clock,
    started_ms: i64,
}

impl EmulatorClock {
    fn new(emulator: &Emulator) -> EmulatorClock {
        let clock = emulator.clock();
        EmulatorClock { started_ms: clock.now_ms(), clock }
    }
}

impl Clock for EmulatorClock {
    fn wall_ms(&self) -> i64 {
        self.clock.now_ms()
    }

    fn uptime(&self) -> Duration {
        Duration::from_millis(self.clock.now_ms().saturating_sub(self.started_ms).unsigned_abs())
    }
}
