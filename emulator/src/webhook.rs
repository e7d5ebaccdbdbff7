//! Webhooks for installations and uninstallations: their bodies, and a list of the latest.

use crate::clock::{Clock, iso8601};
use crate::directory::Directory;
use crate::random::unpredictable_hex;
use crate::retry::RetryRule;
use crate::webhook_delivery::Deliveries;
use crate::webhook_sender::{Caused, QueuedWebhook, WebhookSender};
use crate::webhook_signing::Keys;
use serde_json::{Map, Value, json};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::AtomicU16;

/// How many webhooks are kept; the oldest are dropped.
const KEPT: usize = 10_000;

/// The content of a webhook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// A user installed the app on this company or location.
    Install(String),
    /// The app was installed on this location automatically, because the location was created
    /// later: the webhook names no user and no company.
    AutomaticInstall(String),
    /// The app was uninstalled from this company or location.
    Uninstall(String),
    /// A user installed the app on several locations of a company at once: one webhook with
    /// `locationIds`.
    BulkInstall {
        /// The company.
        company_id: String,
        /// Its locations.
        location_ids: Vec<String>,
    },
}

impl Notice {
    /// The company or location that it is about.
    fn place(&self) -> &str {
        match self {
            Self::Install(id) | Self::AutomaticInstall(id) | Self::Uninstall(id) => id,
            Self::BulkInstall { company_id, .. } => company_id,
        }
    }
}

/// The body of a webhook; `None` if the company or location does not exist.
pub(crate) fn body(directory: &Directory, notice: &Notice, now_ms: i64) -> Option<String> {
    let id = notice.place();
    let location = directory.location(id);
    let company = directory.company(location.map_or(id, |location| &location.company_id))?;
    let app = &directory.app;
    let mut body = Map::new();
    let mut put = |name: &str, value: Value| body.insert(name.to_owned(), value);
    put(
        "type",
        json!(if matches!(notice, Notice::Uninstall(_)) { "UNINSTALL" } else { "INSTALL" }),
    );
    put("appId", json!(app.id));
    put("versionId", json!(app.version_id));
    if let Notice::Uninstall(_) = notice {
        put(if location.is_some() { "locationId" } else { "companyId" }, json!(id));
    } else {
        let of_locations = location.is_some() || matches!(notice, Notice::BulkInstall { .. });
        put("installType", json!(if of_locations { "Location" } else { "Company" }));
        if let Some(location) = location {
            put("locationId", json!(location.id));
            put("planId", json!(location.plan_id));
            put("trial", json!({"onTrial": location.on_trial}));
        }
        if let Notice::BulkInstall { location_ids, .. } = notice {
            put("locationIds", json!(location_ids));
        }
        if !matches!(notice, Notice::AutomaticInstall(_)) {
            put("companyId", json!(company.id));
            put("userId", json!(company.user_id));
        }
        put("companyName", json!(company.name));
        put("isWhitelabelCompany", json!(false));
        put("whitelabelDetails", json!({}));
    }
    put("timestamp", json!(iso8601(now_ms)));
    let id = unpredictable_hex::<16>();
    put("webhookId", json!([&id[..8], &id[8..12], &id[12..16], &id[16..20], &id[20..]].join("-")));
    Some(Value::Object(body).to_string())
}

/// The webhooks so far, and their delivery.
#[derive(Debug)]
pub(crate) struct Webhooks {
    pub(crate) keys: Arc<Keys>,
    pub(crate) deliveries: Deliveries,
    caused: VecDeque<Arc<Caused>>,
    last_id: u64,
    clock: Clock,
    webhook_sender: Option<WebhookSender>,
}

impl Webhooks {
    pub(crate) fn new(seed: u64, clock: Clock) -> Self {
        Self {
            keys: Arc::new(Keys::new(seed)),
            deliveries: Deliveries::new(clock.clone()),
            clock,
            caused: VecDeque::new(),
            last_id: 0,
            webhook_sender: None,
        }
    }

    /// Records a webhook and returns its ID.
    pub(crate) fn cause(&mut self, body: String) -> u64 {
        self.last_id += 1;
        let caused = Arc::new(Caused { id: self.last_id, body, status: AtomicU16::new(0) });
        if self.caused.len() == KEPT {
            self.caused.pop_front();
        }
        self.caused.push_back(caused);
        self.last_id
    }

    /// Sends a recorded webhook in the background, with retries by `rule`.
    pub(crate) fn send(&mut self, id: u64, url: &str, rule: RetryRule) {
        let Some(caused) = self.caused.iter().find(|caused| caused.id == id) else {
            return;
        };
        let queued = QueuedWebhook { url: url.to_owned(), caused: Arc::clone(caused), rule };
        let (keys, deliveries, clock) = (&self.keys, &self.deliveries, &self.clock);
        let webhook_sender = self.webhook_sender.get_or_insert_with(|| {
            WebhookSender::start(Arc::clone(keys), deliveries.clone(), clock.clone())
        });
        webhook_sender.take(queued);
    }

    /// The ID of the latest webhook, or 0.
    pub(crate) fn last_id(&self) -> u64 {
        self.last_id
    }

    pub(crate) fn caused(&self) -> impl Iterator<Item = &Arc<Caused>> {
        self.caused.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Options;

    #[test]
    fn bodies_have_the_field_names_of_the_vendor() {
        let directory = Directory::new(&Options::default());
        let (company, location) = (&directory.companies[0], &directory.locations[0]);
        let of = |notice: Notice| -> Value {
            serde_json::from_str(&body(&directory, &notice, 0).unwrap()).unwrap()
        };
        let names = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
        let installed = of(Notice::Install(location.id.clone()));
        assert_eq!(installed["installType"], "Location");
        assert_eq!(
            (&installed["locationId"], &installed["companyId"]),
            (&json!(location.id), &json!(company.id))
        );
        assert_eq!(installed["timestamp"], "1970-01-01T00:00:00.000Z");
        let by_itself = of(Notice::AutomaticInstall(location.id.clone()));
        assert!(by_itself.get("companyId").is_none() && by_itself.get("userId").is_none());
        let company_wide = of(Notice::Install(company.id.clone()));
        assert_eq!(company_wide["installType"], "Company");
        assert!(company_wide.get("locationId").is_none());
        for (id, name) in [(&location.id, "locationId"), (&company.id, "companyId")] {
            let gone = of(Notice::Uninstall(id.clone()));
            let mut expected = ["appId", "timestamp", "type", "versionId", "webhookId", name];
            expected.sort_unstable();
            let mut found = names(&gone);
            found.sort_unstable();
            assert_eq!((found, &gone[name]), (expected.map(str::to_owned).to_vec(), &json!(id)));
        }
        let location_ids = vec![location.id.clone(), directory.locations[1].id.clone()];
        let bulk = of(Notice::BulkInstall {
            company_id: company.id.clone(),
            location_ids: location_ids.clone(),
        });
        assert_eq!(
            (&bulk["locationIds"], &bulk["companyId"]),
            (&json!(location_ids), &json!(company.id))
        );
        assert!(bulk.get("locationId").is_none());
        assert_eq!(body(&directory, &Notice::Uninstall("nowhere".to_owned()), 0), None);
        assert_ne!(of(Notice::Install(company.id.clone()))["webhookId"], company_wide["webhookId"]);
    }
}
