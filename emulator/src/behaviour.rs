//! Observed behaviours of the real API that its description does not mention. Each is opt-in, has
//! one name, and can be changed at run time.

use crate::retry::RetryRule;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// API behaviour for the cases in which observations differ from the API description. The default
/// follows the description.
///
/// ```
/// use ghl_oauth_emulator::{Behaviour, Emulator, Options};
///
/// let behaviour = Behaviour { list_delay_seconds: 5, ..Behaviour::default() };
/// let emulator = Emulator::start(Options { behaviour, ..Options::default() })?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Behaviour {
    /// Whether a wrong client ID or secret gets 401 `Invalid client credentials` instead of
    /// the error for a wrong code.
    pub name_wrong_credentials: bool,
    /// The status of the error `Location is not active`: 400 or 401.
    pub inactive_status: u16,
    /// Whether the list of locations ignores `isInstalled` and includes rows without the app.
    pub ignore_installed_filter: bool,
    /// How long the list of locations omits a new installation, in seconds on the emulator's clock.
    pub list_delay_seconds: u64,
    /// Whether a company's consent triggers one INSTALL with `locationIds` instead of one per
    /// location.
    pub bulk_install_webhooks: bool,
    /// The retry rule for failed webhook deliveries.
    pub webhook_retries: RetryRule,
    /// The unit of `X-RateLimit-Daily-Reset`, a header of every second response and of every 429
    /// after the daily quota is used up.
    pub daily_reset: DailyReset,
    /// The field names that the token endpoints accept.
    pub field_names: FieldNames,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self {
            name_wrong_credentials: false,
            inactive_status: 400,
            ignore_installed_filter: false,
            list_delay_seconds: 0,
            bulk_install_webhooks: false,
            webhook_retries: RetryRule::default(),
            daily_reset: DailyReset::default(),
            field_names: FieldNames::default(),
        }
    }
}

impl Behaviour {
    /// Sets a behaviour by its name in the settings, from a value in command-line syntax.
    ///
    /// # Errors
    ///
    /// If the behaviour does not exist or does not accept the value.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        fn read<T: DeserializeOwned>(value: &str, place: &mut T) -> Result<(), String> {
            // Numbers and switches are JSON; names are strings.
            let json = serde_json::from_str(value).unwrap_or_else(|_| Value::from(value));
            *place = serde_json::from_value(json).map_err(|error| error.to_string())?;
            Ok(())
        }
        let mut changed = self.clone();
        match name {
            "nameWrongCredentials" => read(value, &mut changed.name_wrong_credentials)?,
            "inactiveStatus" => read(value, &mut changed.inactive_status)?,
            "ignoreInstalledFilter" => read(value, &mut changed.ignore_installed_filter)?,
            "listDelaySeconds" => read(value, &mut changed.list_delay_seconds)?,
            "bulkInstallWebhooks" => read(value, &mut changed.bulk_install_webhooks)?,
            "webhookRetries" => read(value, &mut changed.webhook_retries)?,
            "dailyReset" => read(value, &mut changed.daily_reset)?,
            "fieldNames" => read(value, &mut changed.field_names)?,
            _ => return Err(format!("there is no behaviour {name}")),
        }
        changed.check()?;
        *self = changed;
        Ok(())
    }

    pub(crate) fn check(&self) -> Result<(), &'static str> {
        match self.inactive_status {
            400 | 401 => Ok(()),
            _ => Err("the status of an inactive location is 400 or 401"),
        }
    }
}

/// The unit of `X-RateLimit-Daily-Reset`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum DailyReset {
    /// The header is not sent.
    #[default]
    Absent,
    /// Milliseconds until the quota resets.
    Milliseconds,
    /// Seconds until the quota resets.
    Seconds,
}

/// The field names that `POST /oauth/token` and `POST /oauth/location-token` accept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum FieldNames {
    /// Only `clientId`: a request with any other name is refused with 422.
    #[default]
    #[serde(rename = "camelCase")]
    CamelCase,
    /// Only `client_id`: a request with any other name is refused with 422.
    #[serde(rename = "snake_case")]
    SnakeCase,
    /// `client_id`. Other names are ignored, so `clientId` leads to `Missing parameter: client_id`.
    #[serde(rename = "snake_case-lenient")]
    SnakeCaseLenient,
}

/// The description of a behaviour, for the help, the dashboard and the documentation.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BehaviourInfo {
    /// Its name in the settings.
    pub name: &'static str,
    /// Its option on the command line.
    pub option: &'static str,
    /// The accepted values; empty for switches and numbers.
    pub values: &'static [&'static str],
    /// Its value by default.
    pub default: &'static str,
    /// Its effect.
    pub what: &'static str,
}

const fn switch(name: &'static str, option: &'static str, what: &'static str) -> BehaviourInfo {
    BehaviourInfo { name, option, values: &[], default: "false", what }
}

const fn choice(
    name: &'static str,
    option: &'static str,
    values: &'static [&'static str],
    what: &'static str,
) -> BehaviourInfo {
    BehaviourInfo { name, option, values, default: values[0], what }
}

/// Every behaviour, in the order of [`Behaviour`]'s fields.
pub const BEHAVIOURS: [BehaviourInfo; 8] = [
    switch(
        "nameWrongCredentials",
        "--name-wrong-credentials",
        "a wrong client ID or secret gets 401 `Invalid client credentials`",
    ),
    choice(
        "inactiveStatus",
        "--inactive-status",
        &["400", "401"],
        "the status of `Location is not active`",
    ),
    switch(
        "ignoreInstalledFilter",
        "--ignore-installed-filter",
        "the list of locations ignores `isInstalled`: rows with `isInstalled: false` are included",
    ),
    BehaviourInfo {
        name: "listDelaySeconds",
        option: "--list-delay-seconds",
        values: &[],
        default: "0",
        what: "the list of locations omits an installation for this time; after a company's \
               installation it is empty",
    },
    switch(
        "bulkInstallWebhooks",
        "--bulk-install-webhooks",
        "a company's consent triggers one INSTALL with `locationIds` instead of one per location",
    ),
    choice(
        "webhookRetries",
        "--webhook-retries",
        &["none", "generation1", "generation2", "generation3"],
        "the failed webhook deliveries that are retried, 10 minutes apart on the emulator's clock",
    ),
    choice(
        "dailyReset",
        "--daily-reset",
        &["absent", "milliseconds", "seconds"],
        "`X-RateLimit-Daily-Reset`, on every second response and on each 429 after the daily \
         quota is used up",
    ),
    choice(
        "fieldNames",
        "--field-names",
        &["camelCase", "snake_case", "snake_case-lenient"],
        "the field names of the token endpoints; others give 422 `property … should not exist`, \
         with `-lenient` `Missing parameter: …`",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn catalogue_lists_every_behaviour_with_its_default() {
        let Value::Object(defaults) = json!(Behaviour::default()) else { panic!("no object") };
        let listed: Vec<_> =
            BEHAVIOURS.iter().map(|info| (info.name.to_owned(), info.default.to_owned())).collect();
        let mut defined: Vec<_> = defaults
            .into_iter()
            .map(|(name, value)| (name, value.as_str().map_or(value.to_string(), str::to_owned)))
            .collect();
        defined.sort_by_key(|(name, _)| listed.iter().position(|(known, _)| known == name));
        assert_eq!(listed, defined);
    }

    #[test]
    fn catalogue_lists_every_value_of_a_choice() {
        fn reads<T: serde::de::DeserializeOwned>(name: &str) {
            let info = BEHAVIOURS.iter().find(|info| info.name == name).unwrap();
            for value in info.values {
                assert!(serde_json::from_value::<T>(json!(value)).is_ok(), "{name} {value}");
            }
            let error = serde_json::from_value::<T>(json!("another")).err().unwrap().to_string();
            assert_eq!(error.split('`').count() / 2 - 1, info.values.len(), "{error}");
        }
        reads::<RetryRule>("webhookRetries");
        reads::<DailyReset>("dailyReset");
        reads::<FieldNames>("fieldNames");
    }

    #[test]
    fn every_behaviour_can_be_set_by_name_to_each_of_its_values() {
        for info in BEHAVIOURS {
            let mut behaviour = Behaviour::default();
            let values = match (info.values, info.default) {
                ([], "false") => &["true", "false"][..],
                ([], _) => &["7", "0"],
                (values, _) => values,
            };
            for value in values {
                behaviour.set(info.name, value).unwrap();
                let set = json!(behaviour)[info.name].clone();
                assert_eq!(
                    set.as_str().map_or(set.to_string(), str::to_owned),
                    **value,
                    "{}",
                    info.name
                );
            }
            assert!(behaviour.set(info.name, "another").is_err(), "{}", info.name);
        }
        assert!(Behaviour::default().set("another", "true").is_err());
    }

    #[test]
    fn inactive_status_is_400_or_401() {
        let with = |inactive_status| Behaviour { inactive_status, ..Behaviour::default() };
        assert!(with(400).check().is_ok() && with(401).check().is_ok());
        assert!(with(403).check().is_err());
    }
}
