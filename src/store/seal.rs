//! Encryption at rest (AEAD) and key rotation: seals a record's document with ChaCha20-Poly1305
//! (RFC 8439) and a random nonce. The cipher is fast even without AES instructions, and runs under
//! valgrind.
//!
//! The associated data binds a document to its app, resource and version. Opening therefore detects
//! a row that was copied to another resource, and an old document under a newer version. Format:
//! the byte 1, key ID (8 bytes), nonce (12), ciphertext, tag (16). A plain document is JSON, which
//! never starts with the byte 1.

use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA256, KeyType, Salt};
use zeroize::Zeroizing;

use super::row::{Resealing, Row, StoredRow};
use super::{Record, Resealed};
use crate::error::{Error, Result, Status};
use crate::random;
use crate::secret::Secret;

/// First byte of a sealed document.
const SEALED: u8 = 1;

/// Length of a key ID in bytes.
const ID_LENGTH: usize = 8;

/// Length of the header before the ciphertext.
const HEAD: usize = 1 + ID_LENGTH + NONCE_LEN;

/// Seals and opens the records of one app. Without keys, documents stay plain.
#[derive(Clone)]
pub struct Seal(Arc<Inner>);

struct Inner {
    client_id: String,
    keys: Arc<[Key]>,
    plain_is_refused: bool,
}

/// A key and its ID. Both are derived from the configured key, so the ID reveals nothing about it.
struct Key {
    id: [u8; ID_LENGTH],
    key: LessSafeKey,
}

impl Seal {
    /// A seal without keys: records stay plain.
    pub fn none(client_id: &str) -> Seal {
        Seal(Arc::new(Inner {
            client_id: client_id.to_owned(),
            keys: Arc::new([]),
            plain_is_refused: false,
        }))
    }

    /// A seal with keys, each 32 bytes in base64. The first key seals, every key opens. With
    /// `plain_is_refused`, opening a plain document fails.
    pub fn new(
        client_id: &str,
        keys: &[Secret],
        plain_is_refused: bool,
        named: &str,
    ) -> Result<Seal> {
        let read = |(index, text): (usize, &Secret)| {
            Key::read(text).ok_or_else(|| {
                Error::new(
                    Status::Config,
                    format!("key {} of {named} is not the base64 of 32 bytes", index + 1),
                )
                .with_help("create a key with: head -c 32 /dev/urandom | base64")
                .with_parameter(named)
            })
        };
        let keys = keys.iter().enumerate().map(read).collect::<Result<Arc<[Key]>>>()?;
        Ok(Seal(Arc::new(Inner { client_id: client_id.to_owned(), keys, plain_is_refused })))
    }

    /// The seal of another app, with the same keys.
    pub fn of_client(&self, client_id: &str) -> Seal {
        let (keys, plain_is_refused) = (Arc::clone(&self.0.keys), self.0.plain_is_refused);
        Seal(Arc::new(Inner { client_id: client_id.to_owned(), keys, plain_is_refused }))
    }

    /// The app that the records belong to.
    pub fn client_id(&self) -> &str {
        &self.0.client_id
    }

    /// The ID of the key that seals; empty without keys.
    pub fn key_id(&self) -> String {
        self.0.keys.first().map(|key| hex(&key.id)).unwrap_or_default()
    }

    pub fn row(&self, record: &Record) -> Result<Row> {
        self.row_of_version(record, record.next_version())
    }

    /// Whether the key with this ID is configured; an empty ID stands for plain records.
    pub fn can_open(&self, key_id: &str) -> bool {
        key_id.is_empty() || self.0.keys.iter().any(|key| hex(&key.id) == key_id)
    }

    /// Checks the IDs of all keys that the records of a store are sealed with. Logs a warning for
    /// each key that is missing.
    pub fn check_keys(&self, key_ids: &[String]) -> Result<()> {
        let (known, unknown): (Vec<&String>, Vec<&String>) =
            key_ids.iter().partition(|id| self.can_open(id));
        let Some(first) = unknown.first() else { return Ok(()) };
        if known.is_empty() {
            return Err(self
                .missing_key(first)
                .with_help(
                    "add that key to store.encryptionKeys; if the keys of this store are lost, no \
                     token can be read: use a new store, and let all users consent again",
                )
                .with_parameter("store.encryptionKeys"));
        }
        for id in unknown {
            let error = self.missing_key(id);
            log::warn!("a key of the store is missing{}", error.fields(""));
        }
        Ok(())
    }

    /// Reseals a page of rows. `put` writes the rows that are unchanged in the store and returns
    /// their number. Documents that cannot be opened are added to `resealed.failures`.
    pub fn reseal(
        &self,
        page: Vec<StoredRow>,
        resealed: &mut Resealed,
        put: impl FnOnce(&[Resealing]) -> Result<u64>,
    ) -> Result<()> {
        let attempted = page.len() as u64;
        let mut rows = Vec::new();
        for stored in page {
            let was = stored.document.clone();
            let row =
                self.record(stored).and_then(|record| self.row_of_version(&record, record.version));
            match row {
                Ok(row) => rows.push(Resealing { row, was }),
                Err(error) => resealed.fail(error),
            }
        }
        let sealed = if rows.is_empty() { 0 } else { put(&rows)? };
        resealed.sealed += sealed;
        resealed.left += attempted - sealed;
        Ok(())
    }

    pub fn missing_key(&self, key_id: &str) -> Error {
        let missing = match self.0.keys.is_empty() {
            true => "but store.encryptionKeys is not set",
            false => "which is not among store.encryptionKeys",
        };
        let message = format!("a stored token is sealed with the key {key_id}, {missing}");
        Error::new(Status::Store, message)
            .with_help(
                "add that key after the first; if it is lost, delete the token, or start with an \
                 empty store, and let the user consent again",
            )
            .with_retryable(false)
    }

    /// Like [`Seal::row`], with another version after the write.
    pub fn row_of_version(&self, record: &Record, version: u64) -> Result<Row> {
        let mut document = record.to_document()?;
        if let Some(key) = self.0.keys.first() {
            document = key.seal(&document, &self.bound_to(&record.resource_id, version))?;
        }
        Ok(Row {
            resource_id: record.resource_id.clone(),
            version,
            is_new: record.version == 0,
            user_type: record.token.kind(),
            company_id: record.token.company_id.clone(),
            renew_at: record.renew_at,
            sealed_with: self.key_id(),
            document,
        })
    }

    pub fn record(&self, stored: StoredRow) -> Result<Record> {
        self.read(stored).map_err(Error::into_unreadable)
    }

    fn read(&self, mut stored: StoredRow) -> Result<Record> {
        let named = |error: Error| error.with_resource(&stored.resource_id);
        if stored.document.first() == Some(&SEALED) {
            let bound_to = self.bound_to(&stored.resource_id, stored.version);
            stored.document = self.open(&stored.document, &bound_to).map_err(named)?;
        } else if self.0.plain_is_refused {
            return Err(named(
                Error::new(
                    Status::Store,
                    "a stored token is not sealed, but store.sealedOnly is set",
                )
                .with_help(
                    "delete it if another program wrote it; to seal an existing store, call \
                     ghl_tokens_maintain without store.sealedOnly",
                ),
            ));
        }
        Record::from_document(stored.resource_id, stored.version, &stored.document)
    }

    fn open(&self, sealed: &[u8], bound_to: &[u8]) -> Result<Zeroizing<Vec<u8>>> {
        let Some((head, ciphertext)) = sealed.split_at_checked(HEAD) else {
            return Err(changed());
        };
        let (id, nonce) = head[1..].split_at(ID_LENGTH);
        let key = self.0.keys.iter().find(|key| key.id == *id);
        let key = key.ok_or_else(|| self.missing_key(&hex(id)))?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| changed())?;
        let mut document = Zeroizing::new(ciphertext.to_vec());
        let length = key
            .key
            .open_in_place(nonce, Aad::from(bound_to), &mut document)
            .map_err(|_| changed())?
            .len();
        document.truncate(length);
        Ok(document)
    }

    /// The associated data of a document. Each string is preceded by its length, so that the
    /// encoding is unambiguous.
    fn bound_to(&self, resource_id: &str, version: u64) -> Vec<u8> {
        let mut bound = b"ghl-oauth record 1".to_vec();
        for text in [&self.0.client_id, resource_id] {
            bound.extend_from_slice(&(text.len() as u64).to_le_bytes());
            bound.extend_from_slice(text.as_bytes());
        }
        bound.extend_from_slice(&version.to_le_bytes());
        bound
    }
}

impl Key {
    fn read(text: &Secret) -> Option<Key> {
        let bytes = Zeroizing::new(BASE64_STANDARD.decode(text.expose().trim()).ok()?);
        if bytes.len() != CHACHA20_POLY1305.key_len() {
            return None;
        }
        let derived = Salt::new(HKDF_SHA256, b"ghl-oauth at rest").extract(&bytes);
        let mut id = [0; ID_LENGTH];
        derived.expand(&[b"key id"], IdLength).ok()?.fill(&mut id).ok()?;
        let key = UnboundKey::from(derived.expand(&[b"seal"], &CHACHA20_POLY1305).ok()?);
        Some(Key { id, key: LessSafeKey::new(key) })
    }

    fn seal(&self, document: &[u8], bound_to: &[u8]) -> Result<Zeroizing<Vec<u8>>> {
        let nonce: [u8; NONCE_LEN] = random::bytes()?;
        let mut sealed =
            Zeroizing::new(Vec::with_capacity(HEAD + document.len() + CHACHA20_POLY1305.tag_len()));
        sealed.push(SEALED);
        sealed.extend_from_slice(&self.id);
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(document);
        let tag = self
            .key
            .seal_in_place_separate_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(bound_to),
                &mut sealed[HEAD..],
            )
            .map_err(|_| Error::new(Status::Internal, "a record is too long to seal"))?;
        sealed.extend_from_slice(tag.as_ref());
        Ok(sealed)
    }
}

/// The length of a key ID, as a parameter of HKDF.
struct IdLength;

impl KeyType for IdLength {
    fn len(&self) -> usize {
        ID_LENGTH
    }
}

fn changed() -> Error {
    Error::new(
        Status::Store,
        "a stored token was modified, moved or rolled back by another program",
    )
    .with_help(
        "delete the row and let the user consent again, or restore the store from a backup, whose \
         refresh tokens may have been used since; for SQLite, stop all processes and remove -wal \
         and -shm together with the old file",
    )
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
