//! C functions for the authorization code flow.

use std::ffi::c_char;

use super::boundary::{self, render};
use super::client::{self, ghl_client};

/// Builds the URL of the consent page (RFC 6749, section 4.1.1). Sends nothing.
///
/// The URL is valid for one consent within one hour. Any thread; does not wait.
///
/// @param client       a client
/// @param params_json  {"scopes"?, "redirectUri"?, "versionId"?, "loginInSameTab"?, "state"?} and
///                     the call options; scopes and redirect URI default to the configured ones,
///                     "state" to 256 random bits
/// @param out_json     {"url", "state"}, or the error; free with ghl_string_free; may be NULL
/// @return GHL_OK; GHL_ERR_INVALID_ARGUMENT
///
/// Example:
///
/// ```c
/// char *link;
/// const char *scopes = "{\"scopes\": [\"oauth.readonly\", \"oauth.write\"]}";
/// if (ghl_authorization_url(client, scopes, &link) == GHL_OK) {
///     printf("%s\n", link); // send the user to its "url"
/// }
/// ghl_string_free(link);
/// ```
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ghl_authorization_url(
    client: *mut ghl_client,
    params_json: *const c_char,
    out_json: *mut *mut c_char,
) -> i32 {
    // SAFETY: the header requires a valid client and valid pointers, or NULL.
    unsafe {
        client::call_with(client, ("params_json", params_json), out_json, |client, params| {
            client.authorization_url(params)
        })
    }
}

/// Checks the redirect from the consent page, exchanges its code for a token and stores the token
/// (RFC 6749, sections 4.1.2 and 4.1.3).
///
/// The API's response decides who owns the token: a company can install an app that is made for
/// locations. If the API has not rejected the code, the same redirect may be passed again after an
/// error; if the response was lost, the code has already been sent twice. Any thread; waits for the
/// response, at most timeouts.totalMs.
///
/// @param client       a client
/// @param params_json  {"redirectUrl": the full URL to which the browser was redirected, "state"?,
///                     "allowMissingState"?, "redirectUri"?, "userType"? ("Company" | "Location")}
///                     and the call options. Pass "state", as kept in the browser session, if
///                     another process built the URL. "allowMissingState": true accepts an
///                     installation that was started inside the marketplace, which has no state.
///                     Pass "redirectUri" if another process built the URL with a redirect URI that
///                     is not the configured one
/// @param out_json     the metadata of the stored token {"resourceId", "userType", "companyId",
///                     "locationId", "scope", "expiresAt", "refreshable", "state"}, or the error;
///                     free with ghl_string_free; may be NULL
/// @return GHL_OK; GHL_ERR_INVALID_ARGUMENT for a URL that is not the app's redirect,
///         GHL_ERR_CONSENT_DENIED, GHL_ERR_STATE_MISMATCH, GHL_ERR_REAUTHORIZATION_REQUIRED for a
///         refused code, GHL_ERR_UNAUTHORIZED for refused client credentials, GHL_ERR_FORBIDDEN,
///         GHL_ERR_NOT_FOUND, GHL_ERR_LOCATION_INACTIVE, GHL_ERR_INVALID_REQUEST,
///         GHL_ERR_RATE_LIMITED, GHL_ERR_NETWORK, GHL_ERR_TIMEOUT, GHL_ERR_SERVER,
///         GHL_ERR_PROTOCOL, GHL_ERR_STORE, GHL_ERR_CANCELLED
///
/// Example:
///
/// ```c
/// const char *params = "{\"redirectUrl\": \"https://app.example/oauth/callback?code=…&state=…\"}";
/// char *stored;
/// if (ghl_authorization_complete(client, params, &stored) == GHL_OK) {
///     printf("connected: %s\n", stored);
/// }
/// ghl_string_free(stored);
/// ```
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ghl_authorization_complete(
    client: *mut ghl_client,
    params_json: *const c_char,
    out_json: *mut *mut c_char,
) -> i32 {
    // SAFETY: the header requires a valid client and valid pointers, or NULL.
    unsafe {
        client::call_with(client, ("params_json", params_json), out_json, |client, params| {
            client.authorization_complete(&params)
        })
    }
}

/// Waits for the redirect on a loopback port, then completes the consent like
/// ghl_authorization_complete.
///
/// For development and for programs without a web server: point an HTTPS tunnel from the redirect
/// URI to the port, show the user the URL of ghl_authorization_url, and call this function. It
/// listens on 127.0.0.1 only. The first redirect with the expected "state" ends the wait: the
/// browser shows the page of consentPage (docs/configuration.md), and the port is closed. Requests
/// with another path, method, host or state, and idle connections, are refused without ending the
/// wait. Several threads may listen at once on different ports.
///
/// Any thread; waits at most "timeoutMs" for the browser, then at most timeouts.totalMs for the
/// exchange. ghl_client_cancel and ghl_call_cancel end the wait at once.
///
/// @param client       a client
/// @param params_json  {"port"?, "timeoutMs"?, "state"?, "allowMissingState"?, "redirectUri"?,
///                     "userType"?, "callId"?}. "port": 1 to 65535; by default the port of the
///                     redirect URI, if that is http on localhost or 127.0.0.1. "timeoutMs": 1 to
///                     3600000, by default 300000. "redirectUri": by default the configured one.
///                     The others are as for ghl_authorization_complete; with "allowMissingState"
///                     any page in the user's browser can end the wait and inject its own code
/// @param out_json     the metadata of the stored token, as for ghl_authorization_complete, or the
///                     error; free with ghl_string_free; may be NULL
/// @return GHL_OK; GHL_ERR_INVALID_ARGUMENT, also for a port that is in use; GHL_ERR_TIMEOUT if no
///         redirect arrived; GHL_ERR_CANCELLED; after the redirect, the errors of
///         ghl_authorization_complete
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ghl_authorization_listen(
    client: *mut ghl_client,
    params_json: *const c_char,
    out_json: *mut *mut c_char,
) -> i32 {
    // SAFETY: the header requires a valid client and valid pointers, or NULL.
    unsafe {
        boundary::call(out_json, || {
            // "timeoutMs" is a parameter of its own.
            let argument = ("params_json", params_json);
            let (client, params) = client::with_options(client, argument, &["callId"])?;
            render(client.authorization_listen(&params)?)
        })
    }
}
