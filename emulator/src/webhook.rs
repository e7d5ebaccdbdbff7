//! The webhooks that tell where the app was installed and taken off: their bodies, signatures, and their way out.

use crate::clock::{Clock, iso8601};
use crate::directory::Directory;
use crate::postman::{Parcel, Postman};
use crate::random::{Seeded, unpredictable_hex};
use crate::retry::RetryRule;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::atomic::AtomicU16;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

/// How many webhooks are kept; the oldest go.
const KEPT: usize = 10_000;

/// How many attempts to deliver them are kept.
const DELIVERIES_KEPT: usize = 100;

/// How long the receiver may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// An RSA key for tests, and for nothing else: whoever reads this repository has its private half. ring signs with RSA,
/// but does not make such keys.
const TEST_ONLY_RSA_KEY: &[u8] = include_bytes!("../keys/test-only-rsa-4096.pk8");

/// What stands before an Ed25519 key, and before a PKCS#1 key of 4,096 bits, in their SubjectPublicKeyInfo.
const ED25519_INFO: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
const RSA_4096_INFO: [u8; 24] = [
    0x30, 0x82, 0x02, 0x22, 0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01,
    0x05, 0x00, 0x03, 0x82, 0x02, 0x0f, 0x00,
];

/// What a webhook tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// A person installed the app on this company or location.
    Install(String),
    /// The app came to this location by itself, as to one that was made later: no person and no company is named.
    AutomaticInstall(String),
    /// The app was taken off this company or location.
    Uninstall(String),
    /// A person installed the app on several locations of a company at once: one webhook with `locationIds`.
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

/// How a webhook is signed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Signature {
    /// `x-ghl-signature` (Ed25519) and `x-wh-signature` (RSA), as at present.
    #[default]
    Both,
    /// `x-ghl-signature` alone.
    Ed25519,
    /// `x-wh-signature`, with `N/A` in the other's place.
    Legacy,
    /// `N/A` in both places.
    NotAvailable,
    /// Both, over another body.
    Wrong,
}

/// The keys that webhooks are signed with, as PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebhookPublicKeys {
    /// Of `x-ghl-signature`. It comes from the seed, as ids do.
    pub ed25519: String,
    /// Of `x-wh-signature`. Its private half is in the emulator's repository.
    pub rsa: String,
}

/// The private halves.
pub(crate) struct Keys {
    ed25519: Ed25519KeyPair,
}

/// Read once: that takes longer than all the rest of a start.
static RSA: LazyLock<RsaKeyPair> =
    LazyLock::new(|| RsaKeyPair::from_pkcs8(TEST_ONLY_RSA_KEY).expect("the key in this repository is one"));

impl std::fmt::Debug for Keys {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Keys")
    }
}

impl Keys {
    pub(crate) fn new(seed: u64) -> Self {
        // A sequence of its own, so that ids stay what they are.
        let mut seeded = Seeded::new(seed ^ 0x0077_6562_686f_6f6b);
        let secret: Vec<u8> = (0..4).flat_map(|_| seeded.next_u64().to_le_bytes()).collect();
        Self { ed25519: Ed25519KeyPair::from_seed_unchecked(&secret).expect("32 bytes are an Ed25519 key") }
    }

    pub(crate) fn public(&self) -> WebhookPublicKeys {
        WebhookPublicKeys {
            ed25519: pem(&ED25519_INFO, self.ed25519.public_key().as_ref()),
            rsa: pem(&RSA_4096_INFO, RSA.public().as_ref()),
        }
    }

    /// The signature headers for a body.
    pub(crate) fn sign(&self, body: &[u8], signature: Signature) -> Vec<(String, String)> {
        let ed25519 = |body: &[u8]| STANDARD.encode(self.ed25519.sign(body));
        let rsa = |body: &[u8]| {
            let mut signature = vec![0; RSA.public().modulus_len()];
            RSA.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), body, &mut signature)
                .expect("the buffer has the modulus's length");
            STANDARD.encode(signature)
        };
        let absent = || "N/A".to_owned();
        let (newer, older) = match signature {
            Signature::Both => (ed25519(body), Some(rsa(body))),
            Signature::Ed25519 => (ed25519(body), None),
            Signature::Legacy => (absent(), Some(rsa(body))),
            Signature::NotAvailable => (absent(), Some(absent())),
            Signature::Wrong => (ed25519(b"another body"), Some(rsa(b"another body"))),
        };
        let older = older.map(|older| ("x-wh-signature".to_owned(), older));
        [("x-ghl-signature".to_owned(), newer)].into_iter().chain(older).collect()
    }
}

fn pem(info: &[u8], key: &[u8]) -> String {
    let text = STANDARD.encode([info, key].concat());
    let lines: Vec<_> = text.as_bytes().chunks(64).map(String::from_utf8_lossy).collect();
    format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----", lines.join("\n"))
}

/// The body of a webhook. `None`: there is no such place.
pub(crate) fn body(directory: &Directory, notice: &Notice, now_ms: i64) -> Option<String> {
    let id = notice.place();
    let location = directory.location(id);
    let company = directory.company(location.map_or(id, |location| &location.company_id))?;
    let app = &directory.app;
    let mut body = Map::new();
    let mut put = |name: &str, value: Value| body.insert(name.to_owned(), value);
    put("type", json!(if matches!(notice, Notice::Uninstall(_)) { "UNINSTALL" } else { "INSTALL" }));
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

/// A webhook that something caused.
#[derive(Debug)]
pub(crate) struct Caused {
    pub(crate) id: u64,
    pub(crate) body: String,
    /// What the receiver last answered; 0 stands for none.
    pub(crate) status: AtomicU16,
}

/// An attempt to deliver a webhook.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Delivery {
    pub(crate) at_ms: i64,
    pub(crate) url: String,
    pub(crate) body: String,
    /// What the receiver answered.
    pub(crate) status: Option<u16>,
    /// Why it did not.
    pub(crate) error: Option<String>,
}

/// The latest attempts, the oldest first.
#[derive(Debug, Clone)]
pub(crate) struct Deliveries {
    clock: Clock,
    kept: Arc<Mutex<VecDeque<Delivery>>>,
}

impl Deliveries {
    /// Sends a webhook, and keeps what came of it; answers with the receiver's status.
    pub(crate) fn post(&self, url: &str, headers: &[(String, String)], body: &[u8]) -> io::Result<u16> {
        let result = post(url, headers, body);
        let delivery = Delivery {
            at_ms: self.clock.now_ms(),
            url: url.to_owned(),
            body: String::from_utf8_lossy(body).into_owned(),
            status: result.as_ref().ok().copied(),
            error: result.as_ref().err().map(ToString::to_string),
        };
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() == DELIVERIES_KEPT {
            kept.pop_front();
        }
        kept.push_back(delivery);
        result
    }

    pub(crate) fn latest(&self) -> Vec<Delivery> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }
}

/// The webhooks so far, and the way to the receiver.
#[derive(Debug)]
pub(crate) struct Webhooks {
    pub(crate) keys: Arc<Keys>,
    pub(crate) deliveries: Deliveries,
    caused: VecDeque<Arc<Caused>>,
    last_id: u64,
    clock: Clock,
    postman: Option<Postman>,
}

impl Webhooks {
    pub(crate) fn new(seed: u64, clock: Clock) -> Self {
        Self {
            keys: Arc::new(Keys::new(seed)),
            deliveries: Deliveries { clock: clock.clone(), kept: Arc::default() },
            clock,
            caused: VecDeque::new(),
            last_id: 0,
            postman: None,
        }
    }

    /// Keeps a webhook, and answers with its id.
    pub(crate) fn cause(&mut self, body: String) -> u64 {
        self.last_id += 1;
        let caused = Arc::new(Caused { id: self.last_id, body, status: AtomicU16::new(0) });
        if self.caused.len() == KEPT {
            self.caused.pop_front();
        }
        self.caused.push_back(caused);
        self.last_id
    }

    /// Sends a webhook that was caused, in the background, and repeats that by `rule`.
    pub(crate) fn send(&mut self, id: u64, url: &str, rule: RetryRule) {
        let Some(caused) = self.caused.iter().find(|caused| caused.id == id) else {
            return;
        };
        let parcel = Parcel { url: url.to_owned(), caused: Arc::clone(caused), rule };
        let (keys, deliveries, clock) = (&self.keys, &self.deliveries, &self.clock);
        let postman = self
            .postman
            .get_or_insert_with(|| Postman::start(Arc::clone(keys), deliveries.clone(), clock.clone()));
        postman.take(parcel);
    }

    /// The id of the webhook that was caused last; 0 stands for none.
    pub(crate) fn last_id(&self) -> u64 {
        self.last_id
    }

    pub(crate) fn caused(&self) -> impl Iterator<Item = &Arc<Caused>> {
        self.caused.iter()
    }
}

/// Host with port, and path with query, of a URL that webhooks can be sent to.
pub(crate) fn parts_of(url: &str) -> Option<(&str, &str)> {
    let rest = url.strip_prefix("http://")?;
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let port = authority.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse::<u16>().ok()?)));
    let clean = url.bytes().all(|byte| byte.is_ascii_graphic());
    port.filter(|(host, _)| clean && !host.is_empty())?;
    Some((authority, if path.is_empty() { "/" } else { path }))
}

/// Sends a webhook; answers with the receiver's status.
fn post(url: &str, headers: &[(String, String)], body: &[u8]) -> io::Result<u16> {
    let odd = |why: &str| io::Error::new(io::ErrorKind::InvalidInput, format!("{url}: {why}"));
    let (authority, path) = parts_of(url).ok_or_else(|| odd("it must be http://HOST:PORT/PATH"))?;
    let address = authority.to_socket_addrs()?.next().ok_or_else(|| odd("it has no address"))?;
    let mut socket = TcpStream::connect_timeout(&address, PATIENCE)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_write_timeout(Some(PATIENCE))?;
    let mut head = format!(
        "POST {path} HTTP/1.1\r\nhost: {authority}\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n",
        body.len()
    );
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    socket.write_all(&[head.as_bytes(), body].concat())?;
    let mut line = String::new();
    BufReader::new(socket).read_line(&mut line)?;
    line.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or_else(|| odd("it does not speak HTTP"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Options;
    use ring::signature::{ED25519, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};

    fn of_pem(pem: &str) -> Vec<u8> {
        let lines: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
        STANDARD.decode(lines).unwrap()
    }

    #[test]
    fn signatures_hold_under_the_published_keys() {
        let keys = Keys::new(1);
        let public = keys.public();
        let (ed25519, rsa) = (of_pem(&public.ed25519), of_pem(&public.rsa));
        assert_eq!((ed25519.len(), rsa.len()), (44, 550), "as long as the vendor's");
        let holds = |signature: Signature, body: &[u8]| -> Vec<bool> {
            let check = |(name, value): &(String, String)| {
                let Ok(value) = STANDARD.decode(value) else { return false };
                if name == "x-ghl-signature" {
                    assert_eq!(value.len(), 64);
                    UnparsedPublicKey::new(&ED25519, &ed25519[12..]).verify(body, &value).is_ok()
                } else {
                    assert_eq!(value.len(), 512);
                    let key = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, &rsa[24..]);
                    key.verify(body, &value).is_ok()
                }
            };
            keys.sign(b"body", signature).iter().map(check).collect()
        };
        assert_eq!(holds(Signature::Both, b"body"), [true, true]);
        assert_eq!(holds(Signature::Both, b"bodx"), [false, false]);
        assert_eq!(holds(Signature::Ed25519, b"body"), [true]);
        assert_eq!(holds(Signature::Legacy, b"body"), [false, true]);
        assert_eq!(holds(Signature::NotAvailable, b"body"), [false, false]);
        assert_eq!(holds(Signature::Wrong, b"body"), [false, false]);
        assert_eq!(Keys::new(1).public(), public, "a configuration stays good across restarts");
        assert_ne!(Keys::new(2).public().ed25519, public.ed25519);
    }

    #[test]
    fn bodies_name_what_the_vendors_do() {
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
        let bulk =
            of(Notice::BulkInstall { company_id: company.id.clone(), location_ids: location_ids.clone() });
        assert_eq!((&bulk["locationIds"], &bulk["companyId"]), (&json!(location_ids), &json!(company.id)));
        assert!(bulk.get("locationId").is_none());
        assert_eq!(body(&directory, &Notice::Uninstall("nowhere".to_owned()), 0), None);
        assert_ne!(of(Notice::Install(company.id.clone()))["webhookId"], company_wide["webhookId"]);
    }

    #[test]
    fn a_receiver_is_an_http_url_with_a_port() {
        assert_eq!(parts_of("http://127.0.0.1:80/a?b=c"), Some(("127.0.0.1:80", "/a?b=c")));
        assert_eq!(parts_of("http://localhost:8080"), Some(("localhost:8080", "/")));
        for wrong in ["https://a:1/", "http://a/", "http://:1/", "http://a:x/", "http://a:1/ b", "a:1", ""] {
            assert_eq!(parts_of(wrong), None, "{wrong}");
        }
    }
}
