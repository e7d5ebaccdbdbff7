//! The emulator as a program: for development without an account, and for tests in any language.
#![forbid(unsafe_code)]

use ghl_oauth_emulator::{CONTROL_ENDPOINTS, Certificate, Emulator, Options, RateLimit};
use std::fmt::Display;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::str::FromStr;

const HELP: &str = "\
A local server that behaves like GoHighLevel's OAuth endpoints and consent page.

Usage: ghl-oauth-emulator [OPTIONS]

Options:
      --port PORT                 Port on 127.0.0.1; 0 takes a free one [default: 8080]
      --ipv6                      Listen on ::1 instead of 127.0.0.1
      --tls CERTIFICATE           Serve https, with a certificate of a CA made at the start:
                                  good, wrong-name or expired
      --ca-file FILE              Where to write the certificate of that CA
      --companies N               Companies (agencies) [default: 1]
      --locations N               Locations of each company [default: 25]
      --access-token-seconds N    Lifetime of an access token [default: 86399]
      --reuse-window-seconds N    How long a spent refresh token is still answered; 0 is off [default: 30]
      --rate-limit N|off          Requests per company or location in 10 seconds [default: 100]
      --redirect-uri URL          A redirect URI registered for the app; may be repeated
                                  [default: https://app.example/oauth/callback]
      --allow-loopback-redirects  Accept http://localhost and http://127.0.0.1 unregistered
      --scope SCOPE               A scope registered for the app; may be repeated [default: fifteen, of
                                  oauth, locations, contacts, calendars and others]
      --require-version-id        Insist on version_id in consent links, as for some private apps
      --no-location-refresh-tokens
                                  Mint location tokens without refresh tokens of their own
      --webhook-url URL           Where INSTALL and UNINSTALL webhooks are sent, http://HOST:PORT/PATH
      --seed N                    What ids and the client secret are derived from [default: 1]
  -h, --help                      Print this help
  -V, --version                   Print the version

It listens on this machine alone and keeps everything in memory. Open /dashboard in a browser to see and
operate it; GET /_emulator lists the same for programs. The manual is docs/emulator.md.
";

const VERSION: &str = concat!("ghl-oauth-emulator ", env!("CARGO_PKG_VERSION"), "\n");

fn main() -> ExitCode {
    let options = match parse(std::env::args().skip(1)) {
        Ok(Wanted::Server(options)) => *options,
        Ok(Wanted::Text(text)) => {
            // Whoever asked may have read enough.
            let _ = io::stdout().write_all(text.as_bytes());
            return ExitCode::SUCCESS;
        }
        Err(complaint) => {
            eprintln!("error: {complaint}\n\nFor the options, try --help.");
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
    // Whoever started this may have closed its end; the emulator serves all the same.
    let _ = announce(&emulator, ca_file.as_deref());
    loop {
        std::thread::park();
    }
}

fn announce(emulator: &Emulator, ca_file: Option<&Path>) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let base_url = emulator.base_url();
    writeln!(out, "GHL OAuth emulator on {base_url}\n")?;
    writeln!(out, "Dashboard:        {}", emulator.dashboard_url())?;
    writeln!(out, "Client id:        {}", emulator.client_id())?;
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

/// What the arguments ask for.
#[derive(Debug)]
enum Wanted {
    Server(Box<Options>),
    Text(&'static str),
}

fn parse(arguments: impl Iterator<Item = String>) -> Result<Wanted, String> {
    let mut options = Options { port: 8080, ..Options::default() };
    let (mut redirect_uris, mut scopes) = (Vec::new(), Vec::new());
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
                | "--require-version-id"
                | "--no-location-refresh-tokens"
        );
        if switch && attached.is_some() {
            return Err(format!("{name} takes no value"));
        }
        let mut value =
            || attached.clone().or_else(|| arguments.next()).ok_or_else(|| format!("{name} needs a value"));
        match name {
            "-h" | "--help" => return Ok(Wanted::Text(HELP)),
            "-V" | "--version" => return Ok(Wanted::Text(VERSION)),
            "--port" => options.port = number(name, &value()?)?,
            "--ipv6" => options.ipv6 = true,
            "--tls" => options.tls = Some(certificate(name, &value()?)?),
            "--ca-file" => options.ca_file = Some(value()?.into()),
            "--companies" => options.companies = number(name, &value()?)?,
            "--locations" => options.locations = number(name, &value()?)?,
            "--access-token-seconds" => options.access_token_seconds = number(name, &value()?)?,
            "--reuse-window-seconds" => options.reuse_window_seconds = number(name, &value()?)?,
            "--seed" => options.seed = number(name, &value()?)?,
            "--webhook-url" => options.webhook_url = Some(value()?),
            "--rate-limit" => options.rate_limit = rate_limit(name, &value()?)?,
            "--redirect-uri" => redirect_uris.push(value()?),
            "--allow-loopback-redirects" => options.allow_loopback_redirects = true,
            "--scope" => scopes.push(value()?),
            "--require-version-id" => options.require_version_id = true,
            "--no-location-refresh-tokens" => options.location_refresh_tokens = false,
            _ => return Err(format!("there is no option {argument}")),
        }
    }
    if !redirect_uris.is_empty() {
        options.redirect_uris = redirect_uris;
    }
    if !scopes.is_empty() {
        options.scopes = scopes;
    }
    Ok(Wanted::Server(Box::new(options)))
}

fn number<T: FromStr<Err: Display>>(name: &str, value: &str) -> Result<T, String> {
    value.parse().map_err(|error| format!("{name} {value}: {error}"))
}

fn certificate(name: &str, value: &str) -> Result<Certificate, String> {
    match value {
        "good" => Ok(Certificate::Good),
        "wrong-name" => Ok(Certificate::WrongName),
        "expired" => Ok(Certificate::Expired),
        _ => Err(format!("{name} {value}: it is good, wrong-name or expired")),
    }
}

fn rate_limit(name: &str, value: &str) -> Result<Option<RateLimit>, String> {
    if value == "off" {
        return Ok(None);
    }
    Ok(Some(RateLimit { requests: number(name, value)?, ..RateLimit::default() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(arguments: &[&str]) -> Result<Wanted, String> {
        parse(arguments.iter().map(|&argument| argument.to_owned()))
    }

    #[test]
    fn options_are_read_in_both_spellings() {
        let with = |arguments: &[&str]| match parsed(arguments) {
            Ok(Wanted::Server(options)) => *options,
            other => panic!("{arguments:?}: {other:?}"),
        };
        let options = with(&["--port", "0", "--locations=3", "--rate-limit", "off"]);
        assert_eq!((options.port, options.locations, options.rate_limit), (0, 3, None));
        let options = with(&["--redirect-uri", "http://a?b=c", "--redirect-uri=https://d"]);
        assert_eq!(options.redirect_uris, ["http://a?b=c", "https://d"]);
        let options = with(&["--ipv6", "--tls=expired", "--ca-file", "ca.pem"]);
        assert_eq!((options.ipv6, options.tls), (true, Some(Certificate::Expired)));
        assert_eq!(options.ca_file, Some("ca.pem".into()));
        let options =
            with(&["--scope", "a.b", "--scope=c.d", "--require-version-id", "--no-location-refresh-tokens"]);
        assert_eq!(options.scopes, ["a.b", "c.d"]);
        assert!(options.require_version_id && !options.location_refresh_tokens);
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
            (&["8080"], "8080"),
        ] {
            let error = parsed(arguments).unwrap_err();
            assert!(error.contains(complaint), "{arguments:?}: {error}");
        }
    }
}
