//! The emulator as a program: for development without an account, and for tests in any language.
#![forbid(unsafe_code)]

use ghl_oauth_emulator::{
    BEHAVIOURS, CONTROL_ENDPOINTS, Certificate, Emulator, InstallationState, Options, RateLimit,
    Scenario, ScenarioPhase,
};
use std::fmt::Display;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

const HELP: &str = "\
A local server that emulates GoHighLevel's OAuth endpoints and consent page.

Usage: ghl-oauth-emulator [OPTIONS]

Options:
      --port PORT                 Port on 127.0.0.1; 0 selects a free one [default: 8080]
      --ipv6                      Listen on ::1 instead of 127.0.0.1
      --tls CERTIFICATE           Serve HTTPS with a certificate of a private CA: good, wrong-name
                                  or expired
      --ca-file FILE              Write the certificate of that CA to this file
      --companies N               Companies (agencies) [default: 1]
      --locations N               Locations of each company [default: 25]
      --access-token-seconds N    Lifetime of an access token [default: 86399]
      --reuse-window-seconds N    Replay window of a used refresh token; 0 is off [default: 30]
      --rate-limit N|off          Requests per company or location in 10 seconds [default: 100]
      --daily-limit N             Requests per company or location in a day [default: 200000]
      --redirect-uri URL          A redirect URI registered for the app; may be repeated
                                  [default: /landing, the emulator's page that shows the URL]
      --allow-loopback-redirects  Accept http://localhost and http://127.0.0.1 unregistered
      --portal-redirect-rules     Refuse redirect URIs that contain ghl or highlevel, as in the
                                  portal
      --scope SCOPE               A scope registered for the app; may be repeated [default:
                                  fifteen, of oauth, locations, contacts, calendars and others]
      --require-version-id        Require version_id in authorization URLs, as for draft and
                                  private apps
      --no-location-refresh-tokens
                                  Mint location tokens without refresh tokens
      --webhook-url URL           Receiver of INSTALL and UNINSTALL webhooks, http://HOST:PORT/PATH
      --name-wrong-credentials    Answer a wrong client ID or secret with 401 Invalid client
                                  credentials
      --inactive-status STATUS    Status of Location is not active, 400 or 401 [default: 400]
      --ignore-installed-filter   Ignore isInstalled: list locations without the app as well
      --list-delay-seconds N      How long the list of locations omits an installation [default: 0]
      --bulk-install-webhooks     Send one INSTALL with locationIds for a company's consent
      --webhook-retries RULE      Failed deliveries to retry: none, generation1 (408, 429, 5xx),
                                  generation2 (only 429) or generation3 (any non-2xx)
                                  [default: none]
      --daily-reset UNIT          X-RateLimit-Daily-Reset: absent, milliseconds or seconds
                                  [default: absent]
      --field-names CASING        Field names of the token endpoints: camelCase, snake_case or
                                  snake_case-lenient [default: camelCase]
      --scenario NAME             Play a scenario once the first company is connected:
                                  agency-day, a day of an agency with 500 locations
      --day-seconds N             Real time that the scenario's day takes [default: 300]
      --seed N                    Seed of the IDs, the client secret, random choices and the
                                  scenario [default: 1]
  -h, --help                      Print this help
  -V, --version                   Print the version

It listens on loopback only and keeps everything in memory. Open /dashboard in a browser to inspect
and control it; GET /_emulator lists the control API for programs. The manual is docs/emulator.md.
";

const VERSION: &str = concat!("ghl-oauth-emulator ", env!("CARGO_PKG_VERSION"), "\n");

fn main() -> ExitCode {
    let (options, play) = match parse(std::env::args().skip(1)) {
        Ok(Wanted::Server(options, play)) => (*options, play),
        Ok(Wanted::Text(text)) => {
            // The reader may have closed the pipe.
            let _ = io::stdout().write_all(text.as_bytes());
            return ExitCode::SUCCESS;
        }
        Err(complaint) => {
            eprintln!("error: {complaint}\n\nTry --help for the options.");
            return ExitCode::from(2);
        }
    };
    let ca_file = options.ca_file.clone();
    let emulator = match Emulator::start(options) {
        Ok(emulator) => emulator,
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
            eprintln!("error: {error}");
            return ExitCode::from(2);
        }
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::FAILURE;
        }
    };
    // The parent process may have closed the pipe; the emulator keeps running.
    let _ = announce(&emulator, ca_file.as_deref());
    if let Some((scenario, day)) = play {
        if let Err(complaint) = emulator.start_scenario(scenario, Some(day)) {
            eprintln!("error: {complaint}");
            return ExitCode::from(2);
        }
        let _ = report(&emulator, scenario);
    }
    loop {
        std::thread::park();
    }
}

/// Reports the progress of the scenario: waiting, started, and the installation status at its end.
fn report(emulator: &Emulator, scenario: Scenario) -> io::Result<()> {
    let wait_while = |phase: ScenarioPhase| {
        while emulator.scenario().is_some_and(|report| report.phase == phase) {
            std::thread::sleep(Duration::from_millis(200));
        }
    };
    let name = scenario.name();
    writeln!(
        io::stdout(),
        "\nScenario {name} starts when company {} is connected.",
        emulator.company_id()
    )?;
    wait_while(ScenarioPhase::Waiting);
    writeln!(io::stdout(), "Scenario {name} is running.")?;
    wait_while(ScenarioPhase::Running);
    let ledger = emulator.installations();
    let count = |state| ledger.iter().filter(|one| one.state == state).count();
    writeln!(
        io::stdout(),
        "Scenario {name} has finished. {} connections are valid, {} are paused. \
         GET /_emulator/installations lists them.",
        count(InstallationState::Honoured),
        count(InstallationState::Paused),
    )
}

fn announce(emulator: &Emulator, ca_file: Option<&Path>) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let base_url = emulator.base_url();
    writeln!(out, "GHL OAuth emulator on {base_url}\n")?;
    writeln!(out, "Dashboard:        {}", emulator.dashboard_url())?;
    writeln!(out, "Client ID:        {}", emulator.client_id())?;
    writeln!(out, "Client secret:    {}", emulator.client_secret())?;
    writeln!(out, "Company:          {}", emulator.company_id())?;
    let locations = emulator.location_ids();
    writeln!(out, "First location:   {}", locations.first().map_or("none", String::as_str))?;
    writeln!(out, "Start a consent:  {}\n", emulator.authorization_link("try"))?;
    writeln!(out, "Configuration for ghl-oauth:\n{}\n", emulator.configuration())?;
    writeln!(out, "Control:")?;
    for (endpoint, what) in CONTROL_ENDPOINTS {
        writeln!(out, "  {endpoint:<37} {what}")?;
    }
    let trusting = ca_file.map(|file| format!("--cacert {} ", file.display())).unwrap_or_default();
    writeln!(out, "\nTry: curl {trusting}{base_url}/_emulator\nStop with Ctrl-C.")?;
    out.flush()
}

/// The parsed command line.
#[derive(Debug)]
enum Wanted {
    /// With the scenario to play, and the real time that its day takes.
    Server(Box<Options>, Option<(Scenario, Duration)>),
    Text(&'static str),
}

fn parse(arguments: impl Iterator<Item = String>) -> Result<Wanted, String> {
    let mut options = Options { port: 8080, ..Options::default() };
    let (mut redirect_uris, mut scopes) = (Vec::new(), Vec::new());
    let (mut scenario, mut day, mut companies, mut locations) = (None, None, None, None);
    let mut behaviours = Vec::new();
    let (mut rate_limit, mut daily_limit) = (options.rate_limit, None);
    let mut arguments = arguments;
    while let Some(argument) = arguments.next() {
        let (name, attached) = match argument.split_once('=') {
            Some((name, value)) if name.starts_with("--") => (name, Some(value.to_owned())),
            _ => (argument.as_str(), None),
        };
        let switch = matches!(
            name,
            "-h" | "--help"
                | "-V"
                | "--version"
                | "--ipv6"
                | "--allow-loopback-redirects"
                | "--portal-redirect-rules"
                | "--require-version-id"
                | "--no-location-refresh-tokens"
        );
        let behaviour = BEHAVIOURS.iter().find(|info| info.option == name);
        let switch = switch || behaviour.is_some_and(|info| info.default == "false");
        if switch && attached.is_some() {
            return Err(format!("{name} takes no value"));
        }
        let mut value = || {
            attached
                .clone()
                .or_else(|| arguments.next())
                .ok_or_else(|| format!("{name} needs a value"))
        };
        if let Some(info) = behaviour {
            let value = if switch { "true".to_owned() } else { value()? };
            behaviours.push((info, value));
            continue;
        }
        match name {
            "-h" | "--help" => return Ok(Wanted::Text(HELP)),
            "-V" | "--version" => return Ok(Wanted::Text(VERSION)),
            "--port" => options.port = number(name, &value()?)?,
            "--ipv6" => options.ipv6 = true,
            "--tls" => options.tls = Some(certificate(name, &value()?)?),
            "--ca-file" => options.ca_file = Some(value()?.into()),
            "--companies" => companies = Some(number(name, &value()?)?),
            "--locations" => locations = Some(number(name, &value()?)?),
            "--scenario" => scenario = Some(chosen_scenario(name, &value()?)?),
            "--day-seconds" => day = Some(number(name, &value()?)?),
            "--access-token-seconds" => options.access_token_seconds = number(name, &value()?)?,
            "--reuse-window-seconds" => options.reuse_window_seconds = number(name, &value()?)?,
            "--seed" => options.seed = number(name, &value()?)?,
            "--webhook-url" => options.webhook_url = Some(value()?),
            "--rate-limit" => rate_limit = limited(name, &value()?)?,
            "--daily-limit" => daily_limit = Some(number(name, &value()?)?),
            "--portal-redirect-rules" => options.portal_redirect_rules = true,
            "--redirect-uri" => redirect_uris.push(value()?),
            "--allow-loopback-redirects" => options.allow_loopback_redirects = true,
            "--scope" => scopes.push(value()?),
            "--require-version-id" => options.require_version_id = true,
            "--no-location-refresh-tokens" => options.location_refresh_tokens = false,
            _ => return Err(format!("unknown option {argument}")),
        }
    }
    options.rate_limit = match (rate_limit, daily_limit) {
        (Some(limit), Some(per_day)) => Some(RateLimit { per_day, ..limit }),
        (None, Some(_)) => return Err("--daily-limit needs a rate limit".to_owned()),
        (limit, None) => limit,
    };
    options.redirect_uris = redirect_uris;
    if !scopes.is_empty() {
        options.scopes = scopes;
    }
    let fitting = scenario.map_or_else(Options::default, Scenario::options);
    options.companies = companies.unwrap_or(fitting.companies);
    options.locations = locations.unwrap_or(fitting.locations);
    options.behaviour = fitting.behaviour;
    for (info, value) in behaviours {
        let set = options.behaviour.set(info.name, &value);
        set.map_err(|complaint| format!("{} {value}: {complaint}", info.option))?;
    }
    let play = match (scenario, day) {
        (None, None) => None,
        (None, Some(_)) => return Err("--day-seconds needs a scenario".to_owned()),
        (Some(_), Some(0)) => {
            return Err("--day-seconds 0: the day must be longer than zero".to_owned());
        }
        (Some(scenario), day) => Some((scenario, Duration::from_secs(day.unwrap_or(300)))),
    };
    Ok(Wanted::Server(Box::new(options), play))
}

fn number<T: FromStr<Err: Display>>(name: &str, value: &str) -> Result<T, String> {
    value.parse().map_err(|error| format!("{name} {value}: {error}"))
}

fn certificate(name: &str, value: &str) -> Result<Certificate, String> {
    match value {
        "good" => Ok(Certificate::Good),
        "wrong-name" => Ok(Certificate::WrongName),
        "expired" => Ok(Certificate::Expired),
        _ => Err(format!("{name} {value}: expected good, wrong-name or expired")),
    }
}

fn chosen_scenario(name: &str, value: &str) -> Result<Scenario, String> {
    let found = Scenario::ALL.into_iter().find(|scenario| scenario.name() == value);
    found.ok_or_else(|| {
        format!("{name} {value}: expected {}", Scenario::ALL.map(Scenario::name).join(" or "))
    })
}

fn limited(name: &str, value: &str) -> Result<Option<RateLimit>, String> {
    if value == "off" {
        return Ok(None);
    }
    Ok(Some(RateLimit { requests: number(name, value)?, ..RateLimit::default() }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ghl_oauth_emulator::RetryRule;

    fn parsed(arguments: &[&str]) -> Result<Wanted, String> {
        parse(arguments.iter().map(|&argument| argument.to_owned()))
    }

    #[test]
    fn options_are_accepted_in_both_spellings() {
        let with = |arguments: &[&str]| match parsed(arguments) {
            Ok(Wanted::Server(options, None)) => *options,
            other => panic!("{arguments:?}: {other:?}"),
        };
        let options = with(&["--port", "0", "--locations=3", "--rate-limit", "off"]);
        assert_eq!((options.port, options.locations, options.rate_limit), (0, 3, None));
        let options = with(&["--redirect-uri", "http://a?b=c", "--redirect-uri=https://d"]);
        assert_eq!(options.redirect_uris, ["http://a?b=c", "https://d"]);
        let options = with(&["--ipv6", "--tls=expired", "--ca-file", "ca.pem"]);
        assert_eq!((options.ipv6, options.tls), (true, Some(Certificate::Expired)));
        assert_eq!(options.ca_file, Some("ca.pem".into()));
        let options = with(&[
            "--scope",
            "a.b",
            "--scope=c.d",
            "--require-version-id",
            "--no-location-refresh-tokens",
        ]);
        assert_eq!(options.scopes, ["a.b", "c.d"]);
        assert!(options.require_version_id && !options.location_refresh_tokens);
        let options = with(&["--daily-limit", "7", "--rate-limit=3", "--portal-redirect-rules"]);
        assert_eq!(options.rate_limit, Some(RateLimit { requests: 3, per_ms: 10_000, per_day: 7 }));
        assert!(options.portal_redirect_rules);
        let options = with(&["--inactive-status=401", "--webhook-retries", "generation2"]);
        assert_eq!(options.behaviour.inactive_status, 401);
        assert_eq!(options.behaviour.webhook_retries, RetryRule::Generation2);
        assert!(with(&["--bulk-install-webhooks"]).behaviour.bulk_install_webhooks);
        let Ok(Wanted::Server(options, play)) =
            parsed(&["--locations=7", "--scenario", "agency-day"])
        else {
            panic!("a scenario is an option");
        };
        assert_eq!((options.companies, options.locations), (2, 7));
        assert_eq!(play, Some((Scenario::AgencyDay, Duration::from_secs(300))));
        assert!(matches!(parsed(&["--help"]), Ok(Wanted::Text(HELP))));
        assert!(matches!(parsed(&["--version"]), Ok(Wanted::Text(VERSION))));
    }

    #[test]
    fn bad_arguments_are_named() {
        for (arguments, complaint) in [
            (&["--prot", "1"][..], "--prot"),
            (&["--port"], "--port needs a value"),
            (&["--port", "70000"], "70000"),
            (&["--rate-limit", "none"], "none"),
            (&["--tls", "bad"], "wrong-name"),
            (&["--ipv6=yes"], "takes no value"),
            (&["--allow-loopback-redirects=yes"], "takes no value"),
            (&["--inactive-status", "403"], "400 or 401"),
            (&["--field-names", "kebab-case"], "snake_case"),
            (&["--bulk-install-webhooks=yes"], "takes no value"),
            (&["--rate-limit", "off", "--daily-limit", "1"], "needs a rate limit"),
            (&["--scenario", "night"], "agency-day"),
            (&["--day-seconds", "9"], "needs a scenario"),
            (&["8080"], "8080"),
        ] {
            let error = parsed(arguments).unwrap_err();
            assert!(error.contains(complaint), "{arguments:?}: {error}");
        }
    }
}
