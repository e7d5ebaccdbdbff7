//! The number of webhooks that one core verifies: `cargo bench --bench webhook`. Uses the C ABI
//! with a real INSTALL of the emulator, including the JSON of headers and result; medians of thread
//! CPU time, which other programs affect less.

use std::ffi::CString;
use std::hint::black_box;
use std::ptr::null_mut;
use std::time::Duration;

use ghl_oauth::internals::ffi::{
    client_from, ghl_client_free, ghl_string_free, ghl_webhook_apply, ghl_webhook_verify,
};
use ghl_oauth::internals::{Client, Config};
use ghl_oauth_emulator::{Emulator, Notice, Options, Signature};
use ring::signature::{ED25519, UnparsedPublicKey};
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Map, Value};

const CALLS: u32 = 2_000;
const RUNS: usize = 11;

fn main() {
    let emulator = Emulator::start(Options::default()).unwrap();
    let mut config = Config::new(emulator.client_id(), emulator.client_secret());
    let keys = emulator.webhook_public_keys();
    config.webhook.ed25519_public_keys = vec![keys.ed25519];
    config.webhook.rsa_public_keys = vec![keys.rsa];
    let client = client_from(Client::new(&config).unwrap());

    let install = emulator.webhook(&Notice::Install(emulator.location_ids()[0].clone()));
    let contact = install.replace("INSTALL", "ContactCreate");
    floor(install.as_bytes());
    type Function = unsafe extern "C" fn(
        *mut ghl_oauth::internals::ffi::ghl_client,
        *const u8,
        usize,
        *const std::ffi::c_char,
        *mut *mut std::ffi::c_char,
    ) -> i32;
    for (what, function, body, signature) in [
        (
            "ghl_webhook_verify, Ed25519",
            ghl_webhook_verify as Function,
            &install,
            Signature::Ed25519,
        ),
        ("ghl_webhook_verify, RSA of 4,096 bits", ghl_webhook_verify, &install, Signature::Legacy),
        (
            "ghl_webhook_apply of an ignored type, Ed25519",
            ghl_webhook_apply,
            &contact,
            Signature::Ed25519,
        ),
    ] {
        let headers = emulator.sign_webhook(body.as_bytes(), signature).into_iter();
        let headers: Map<String, Value> =
            headers.map(|(name, value)| (name, value.into())).collect();
        let headers = CString::new(Value::from(headers).to_string()).unwrap();
        report(what, || {
            let mut document = null_mut();
            // SAFETY: a valid client, a body of the given length, and valid pointers; the document
            // is freed once.
            unsafe {
                let code =
                    function(client, body.as_ptr(), body.len(), headers.as_ptr(), &mut document);
                assert_eq!(code, 0);
                ghl_string_free(document);
            }
        });
    }
    // SAFETY: created by `client_from`, freed once.
    unsafe { ghl_client_free(client) };
}

/// The minimum: only the signature check by the crypto library.
fn floor(body: &[u8]) {
    use ring::signature::{Ed25519KeyPair, KeyPair};
    let pair = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
    let signature = pair.sign(body);
    let key = UnparsedPublicKey::new(&ED25519, pair.public_key().as_ref());
    report("minimum: ring's Ed25519 over the same body", || {
        assert!(black_box(&key).verify(black_box(body), signature.as_ref()).is_ok());
    });
}

fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap())
}

fn report(what: &str, mut call: impl FnMut()) {
    let mut runs: Vec<f64> = (0..RUNS)
        .map(|_| {
            let began = processor_time();
            for _ in 0..CALLS {
                call();
            }
            f64::from(CALLS) / (processor_time() - began).as_secs_f64()
        })
        .collect();
    runs.sort_by(f64::total_cmp);
    println!("{what}: {:.0} per second", runs[RUNS / 2]);
}
