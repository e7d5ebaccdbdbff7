//! C functions for webhooks.

use std::ffi::c_char;
use std::slice;

use super::boundary::{self, render};
use super::client::{self, ghl_client};
use crate::client::OPTION_KEYS;
use crate::error::{Error, Result};
use crate::webhook::WebhookParams;

/// Verifies the signature of a webhook and parses it. Changes nothing.
///
/// The signature covers the raw body: pass the bytes that were received, never JSON that was parsed
/// and serialized again. x-ghl-signature (Ed25519) takes precedence; x-wh-signature (RSA) is used
/// only without it, and only if webhook.rsaPublicKeys contains keys. The value "N/A" means absent.
/// Any thread; does not wait.
///
/// @param client        a client
/// @param body          the raw body; may be NULL if body_len is 0
/// @param body_len      its length in bytes
/// @param headers_json  an object that maps the request's header names, in any case, to a string or
///                      a list of strings; headers other than these two are ignored
/// @param out_json      {"type", "webhookId", "timestampMs", "scheme": "ed25519" | "rsa-sha256",
///                      "keyIndex", "payload"}, or the error; free with ghl_string_free; may be
///                      NULL. The first three are null if the delivery lacks them; "keyIndex" is
///                      the index of the key in its list; "payload" is the parsed body
/// @return GHL_OK; GHL_ERR_SIGNATURE_INVALID if no configured key made the signature, or the
///         delivery is older than webhook.maxAgeSeconds; GHL_ERR_INVALID_ARGUMENT, also for a
///         signed body that is not a JSON object
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ghl_webhook_verify(
    client: *mut ghl_client,
    body: *const u8,
    body_len: usize,
    headers_json: *const c_char,
    out_json: *mut *mut c_char,
) -> i32 {
    // SAFETY: the header requires a valid client and valid pointers, or NULL.
    unsafe {
        boundary::call(out_json, || {
            let client = client::core(client)?;
            let body = bytes(body, body_len)?;
            render(client.webhook_verify(body, &boundary::params("headers_json", headers_json)?)?)
        })
    }
}

/// Verifies a webhook like ghl_webhook_verify and applies it to the stored tokens.
///
/// INSTALL of one or several locations ("locationIds"): mints their tokens in this call if the
/// company's token is held. If the mint fails or the company's token is missing, the location is
/// remembered and minted later: when the company's token arrives, by ghl_tokens_maintain, or at its
/// first use. A token from an earlier installation, or from another company, is replaced.
/// UNINSTALL: deletes the token of the location, or the tokens of the company and its locations,
/// unless the installation began after the UNINSTALL; locations with a consent of their own stay.
/// All other deliveries, and deliveries for another app, are ignored.
///
/// Deliveries may arrive in any order and repeatedly. Respond to the vendor with success for
/// GHL_OK, even if "applied" is false, and with status 429 for a retryable error, so that the
/// delivery is repeated. Any thread; waits at most timeouts.totalMs.
///
/// @param client        a client
/// @param body          the raw body; may be NULL if body_len is 0
/// @param body_len      its length in bytes
/// @param headers_json  as for ghl_webhook_verify
/// @param out_json      {"type", "resourceId", "applied", "reason"?}, or the error; free with
///                      ghl_string_free; may be NULL. "resourceId" is the location's or the
///                      company's ID, or null; "reason" says why the delivery was not applied, or
///                      what remains to be done
/// @return the results of ghl_webhook_verify; GHL_ERR_INVALID_ARGUMENT also for an INSTALL or
///         UNINSTALL whose "timestamp" cannot be read; GHL_ERR_STORE, GHL_ERR_TIMEOUT,
///         GHL_ERR_CANCELLED
///
/// Example:
///
/// ```c
/// const char *body = "{\"type\": \"INSTALL\"}";
/// const char *headers = "{\"x-ghl-signature\": \"…\"}";
/// int32_t status = ghl_webhook_apply(client, (const uint8_t *)body, strlen(body), headers, NULL);
/// int reply = status == GHL_OK                       ? 200
///             : status == GHL_ERR_SIGNATURE_INVALID  ? 401
///             : status == GHL_ERR_INVALID_ARGUMENT   ? 400
///                                                    : 429;
/// printf("HTTP %d\n", reply);
/// ```
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ghl_webhook_apply(
    client: *mut ghl_client,
    body: *const u8,
    body_len: usize,
    headers_json: *const c_char,
    out_json: *mut *mut c_char,
) -> i32 {
    // SAFETY: the header requires a valid client and valid pointers, or NULL.
    unsafe {
        boundary::call(out_json, || {
            let client = client::core(client)?;
            let body = bytes(body, body_len)?;
            let headers = boundary::params("headers_json", headers_json)?;
            render(client.webhook_apply(body, &headers, &WebhookParams::default())?)
        })
    }
}

/// Like ghl_webhook_apply, with parameters. With "mint": false it sends no request to the API, so a
/// handler of webhooks never waits for the API's rate limit.
///
/// An INSTALL is then only remembered. Its location's token is minted at its first use, for
/// instance by ghl_access_token in a queue's worker, or by ghl_tokens_maintain. A token that is
/// stored from an earlier installation is handed out until ghl_tokens_maintain replaces it. Any
/// thread; waits at most "timeoutMs" or timeouts.totalMs.
///
/// @param client        a client
/// @param body          the raw body; may be NULL if body_len is 0
/// @param body_len      its length in bytes
/// @param headers_json  as for ghl_webhook_verify
/// @param params_json   {"mint"?, "timeoutMs"?, "callId"?}: whether an INSTALL mints tokens in this
///                      call (default true); the call options
/// @param out_json      as for ghl_webhook_apply
/// @return the results of ghl_webhook_apply
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ghl_webhook_apply_with(
    client: *mut ghl_client,
    body: *const u8,
    body_len: usize,
    headers_json: *const c_char,
    params_json: *const c_char,
    out_json: *mut *mut c_char,
) -> i32 {
    // SAFETY: the header requires a valid client and valid pointers, or NULL.
    unsafe {
        boundary::call(out_json, || {
            let params = ("params_json", params_json);
            let (client, params) = client::with_options(client, params, &OPTION_KEYS)?;
            let body = bytes(body, body_len)?;
            let headers = boundary::params("headers_json", headers_json)?;
            render(client.webhook_apply(body, &headers, &params)?)
        })
    }
}

/// The bytes of a body.
///
/// # Safety
/// `body` is NULL, or valid for reads of `length` bytes, which do not change while the result is in
/// use.
unsafe fn bytes<'a>(body: *const u8, length: usize) -> Result<&'a [u8]> {
    match (body.is_null(), length) {
        (_, 0) => Ok(&[]),
        (true, _) => Err(Error::invalid_argument("body", "body is NULL, but body_len is not 0")),
        (false, _) if isize::try_from(length).is_err() => {
            Err(Error::invalid_argument("body_len", "body_len exceeds the address space"))
        }
        // SAFETY: not NULL, so valid by the contract, and not longer than `isize::MAX`.
        (false, _) => Ok(unsafe { slice::from_raw_parts(body, length) }),
    }
}
