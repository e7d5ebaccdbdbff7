//! The configuration as code that can be pasted into a program.

use crate::state::State;
use serde_json::Value;

/// The languages: their names in URLs, and for people.
pub(crate) const LANGUAGES: [(&str, &str); 5] = [
    ("json", "JSON"),
    ("c", "C"),
    ("cpp", "C++"),
    ("python", "Python"),
    ("environment", "Environment"),
];

/// The configuration in a language; `None` for an unknown one.
pub(crate) fn snippet(state: &State, language: &str) -> Option<String> {
    let configuration = state.configuration();
    match language {
        "json" => Some(format!("{configuration:#}\n")),
        "c" => Some(c(&configuration)),
        "cpp" => Some(cpp(&configuration)),
        "python" => Some(python(&configuration)),
        "environment" => Some(environment(state, &configuration)),
        _ => None,
    }
}

/// Each line of the document as a string literal. JSON and C have the same escapes.
fn c(configuration: &Value) -> String {
    let document = format!("{configuration:#}");
    let lines: Vec<_> = document.lines().map(|line| format!("    {}", Value::from(line))).collect();
    format!("const char *config =\n{};\n", lines.join("\n"))
}

fn cpp(configuration: &Value) -> String {
    let of = |name: &str| configuration[name].to_string();
    let braces = |list: &Value| list.to_string().replace('[', "{").replace(']', "}");
    let mut text = format!(
        "ghl::config config({}, {});\n\
         config.redirect_uri = {};\n\
         config.scopes = {};\n\
         config.base_url = {};\n\
         config.authorize_url = {};\n\
         config.webhook.ed25519_public_keys = {};\n",
        of("clientId"),
        of("clientSecret"),
        of("redirectUri"),
        braces(&configuration["scopes"]),
        of("baseUrl"),
        of("authorizeUrl"),
        braces(&configuration["webhook"]["ed25519PublicKeys"]),
    );
    if let Some(path) = configuration["http"]["caBundlePath"].as_str() {
        text += &format!("config.http.ca_bundle_path = {};\n", Value::from(path));
    }
    text
}

fn python(configuration: &Value) -> String {
    let mut text = "client = ghl_oauth.Client(\n".to_owned();
    for (name, key) in [
        ("client_id", "clientId"),
        ("client_secret", "clientSecret"),
        ("redirect_uri", "redirectUri"),
        ("scopes", "scopes"),
        ("base_url", "baseUrl"),
        ("authorize_url", "authorizeUrl"),
    ] {
        text += &format!("    {name}={},\n", configuration[key]);
    }
    let keys = &configuration["webhook"]["ed25519PublicKeys"];
    text += &format!("    webhook={{\"ed25519_public_keys\": {keys}}},\n");
    if let Some(path) = configuration["http"]["caBundlePath"].as_str() {
        text += &format!("    http={{\"ca_bundle_path\": {}}},\n", Value::from(path));
    }
    text + ")\n"
}

/// For a shell. The command line of ghl-oauth reads the secret from its variable and the rest from
/// the file, which this creates.
fn environment(state: &State, configuration: &Value) -> String {
    let mut document = configuration.clone();
    if let Some(members) = document.as_object_mut() {
        members.remove("clientSecret");
    }
    let document = format!("{document:#}");
    format!(
        "export GHL_OAUTH_CLIENT_SECRET={}\n\
         export GHL_OAUTH_CONFIG=\"$PWD/emulator.json\"\n\
         cat >\"$GHL_OAUTH_CONFIG\" <<'END'\n{document}\nEND\n",
        state.directory.app.client_secret,
    )
}
