//! The webhooks that create and end tokens.

use std::ffi::c_char;
use std::slice;

use super::boundary::{self, render};
use super::client::{self, ghl_client};
use crate::error::{Error, Result};

/// Checks that a webhook is the vendor's, and parses it. Changes nothing.
///
/// The signature is that of the body byte for byte: pass what came over the wire, never JSON that was parsed and written
/// again. x-ghl-signature (Ed25519) counts where it is there; x-wh-signature (RSA) only without it, and only where
/// webhook.rsaPublicKeys has keys. "N/A" means absent. Any thread; does not wait.
///
/// @param client        a client
/// @param body          the raw body; may be NULL where body_len is 0
/// @param body_len      its length in bytes
/// @param headers_json  an object of the request's header names, in any case, to their values: texts, or lists of texts;
///                      other headers than the two are ignored
/// @param out_json      {"type", "webhookId", "timestampMs", "scheme": "ed25519" | "rsa-sha256", "keyIndex", "payload"}:
///                      the first three null where the delivery does not say, the key's place in its list, and the parsed
///                      body; or the error; to be freed with ghl_string_free; may be NULL
/// @return GHL_OK; GHL_ERR_SIGNATURE_INVALID for a delivery that no configured key signed, or one older than
///         webhook.maxAgeSeconds; GHL_ERR_INVALID_ARGUMENT, also for a signed body that is no JSON object
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ghl_webhook_verify(
    client: *mut ghl_client,
    body: *const u8,
    body_len: usize,
    headers_json: *const c_char,
    out_json: *mut *mut c_char,
) -> i32 {
    // SAFETY: the header requires a living client and valid pointers, or NULL.
    unsafe {
        boundary::call(out_json, || {
            let client = client::core(client)?;
            let body = bytes(body, body_len)?;
            render(client.webhook_verify(body, &boundary::params("headers_json", headers_json)?)?)
        })
    }
}

/// Checks a webhook as ghl_webhook_verify does, and does to the tokens what it says.
///
/// INSTALL of a location, or of several ("locationIds"): its token is minted in this call if its company's token is here;
/// otherwise, and if the mint fails, the location is remembered, and minted for when the company's token comes, by
/// ghl_tokens_maintain, or at its first use. A token of an earlier installation, or of another company, is replaced.
/// UNINSTALL: the location's token is deleted, or the company's with the tokens of its locations, unless their
/// installation began later; locations that consented by themselves stay. Every other delivery, and one for another app,
/// is left alone.
///
/// Deliveries may come in any order and any number of times. Answer the vendor with a success for GHL_OK, whatever
/// "applied" says; for an error that is retryable with a failure, so that the delivery is repeated. Any thread; waits at
/// most timeouts.totalMs.
///
/// @param client        a client
/// @param body          the raw body; may be NULL where body_len is 0
/// @param body_len      its length in bytes
/// @param headers_json  as for ghl_webhook_verify
/// @param out_json      {"type", "resourceId", "applied", "reason"?}: the location's or the company's id, or null; "reason"
///                      says why it was not applied, or what is still to come; or the error; to be freed with
///                      ghl_string_free; may be NULL
/// @return as ghl_webhook_verify; GHL_ERR_STORE, GHL_ERR_TIMEOUT, GHL_ERR_CANCELLED
///
/// Example:
///
/// ```c
/// const char *body = "{\"type\": \"INSTALL\"}";
/// const char *headers = "{\"x-ghl-signature\": \"…\"}";
/// int32_t status = ghl_webhook_apply(client, (const uint8_t *)body, strlen(body), headers, NULL);
/// int answer = status == GHL_OK ? 200 : status == GHL_ERR_SIGNATURE_INVALID ? 401 : 503;
/// printf("HTTP %d\n", answer);
/// ```
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ghl_webhook_apply(
    client: *mut ghl_client,
    body: *const u8,
    body_len: usize,
    headers_json: *const c_char,
    out_json: *mut *mut c_char,
) -> i32 {
    // SAFETY: the header requires a living client and valid pointers, or NULL.
    unsafe {
        boundary::call(out_json, || {
            let client = client::core(client)?;
            let body = bytes(body, body_len)?;
            render(client.webhook_apply(body, &boundary::params("headers_json", headers_json)?)?)
        })
    }
}

/// The bytes of a body.
///
/// # Safety
/// `body` is NULL, or valid for reads of `length` bytes that stay as they are while the result is in use.
unsafe fn bytes<'a>(body: *const u8, length: usize) -> Result<&'a [u8]> {
    match (body.is_null(), length) {
        (_, 0) => Ok(&[]),
        (true, _) => Err(Error::invalid_argument("body", "body is NULL, and body_len is not 0")),
        (false, _) if isize::try_from(length).is_err() => {
            Err(Error::invalid_argument("body_len", "body_len is more than memory can hold"))
        }
        // SAFETY: not NULL, so valid by the contract; and no longer than a slice can be.
        (false, _) => Ok(unsafe { slice::from_raw_parts(body, length) }),
    }
}
