//! Consent: from a link to a stored token.

use std::ffi::c_char;

use super::client::{self, ghl_client};

/// Makes the link to send a person to (RFC 6749, 4.1.1). Nothing is sent.
///
/// The link is good for one consent within an hour. Any thread; does not wait.
///
/// @param client       a client
/// @param params_json  {"scopes"?, "redirectUri"?, "versionId"?, "loginInSameTab"?, "state"?}; scopes and redirect URI
///                     default to the configured ones, "state" to 256 random bits
/// @param out_json     {"url", "state"}, or the error; to be freed with ghl_string_free; may be NULL
/// @return GHL_OK; GHL_ERR_INVALID_ARGUMENT
///
/// Example:
///
/// ```c
/// char *link;
/// if (ghl_authorization_url(client, "{\"scopes\": [\"oauth.readonly\", \"oauth.write\"]}", &link) == GHL_OK) {
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
    // SAFETY: the header requires a living client and valid pointers, or NULL.
    unsafe {
        client::call_with(client, ("params_json", params_json), out_json, |client, params| {
            client.authorization_url(params)
        })
    }
}

/// Checks what the consent page sent back, exchanges the code and stores the token (RFC 6749, 4.1.2 and 4.1.3).
///
/// The answer decides whose token it is: an app made for locations can be installed by a company. After an error that is
/// retryable the same redirect may be given again. Any thread; waits for the answer, at most timeouts.totalMs.
///
/// @param client       a client
/// @param params_json  {"redirectUrl": the whole URL that the browser was sent to, "state"?, "allowMissingState"?,
///                     "redirectUri"?, "userType"? ("Company" | "Location")}; "state" is the one that the host keeps
///                     for this browser session, needed where another process made the link; "allowMissingState": true
///                     accepts an installation that was started inside the marketplace, which comes without one;
///                     "redirectUri" is that of the link, where another process made it with one that is not configured
/// @param out_json     the stored token's metadata {"resourceId", "userType", "companyId", "locationId", "scope",
///                     "expiresAt", "refreshable", "state"}, or the error; to be freed with ghl_string_free; may be NULL
/// @return GHL_OK; GHL_ERR_INVALID_ARGUMENT for a URL that is not the app's redirect, GHL_ERR_CONSENT_DENIED,
///         GHL_ERR_STATE_MISMATCH, GHL_ERR_REAUTHORIZATION_REQUIRED for a refused code, GHL_ERR_UNAUTHORIZED for refused
///         client credentials, GHL_ERR_FORBIDDEN, GHL_ERR_NOT_FOUND, GHL_ERR_LOCATION_INACTIVE, GHL_ERR_INVALID_REQUEST,
///         GHL_ERR_RATE_LIMITED, GHL_ERR_NETWORK, GHL_ERR_TIMEOUT, GHL_ERR_SERVER, GHL_ERR_PROTOCOL, GHL_ERR_STORE,
///         GHL_ERR_CANCELLED
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
    // SAFETY: the header requires a living client and valid pointers, or NULL.
    unsafe {
        client::call_with(client, ("params_json", params_json), out_json, |client, params| {
            client.authorization_complete(&params)
        })
    }
}

/// Waits for the browser on a port of this machine, and completes the consent as ghl_authorization_complete does.
///
/// For development, and for programs without a web server of their own: let an HTTPS tunnel lead from the redirect URI
/// to the port, show the person the link of ghl_authorization_url, and call this. It listens on 127.0.0.1 alone. The
/// first redirect with the right "state" ends the wait; the browser gets a plain page that says whether it worked, and
/// the port is closed. Whatever else comes (other paths, methods and hosts, other states, connections that say
/// nothing) is refused, and waited past. Several threads may listen at once, on ports of their own.
///
/// Any thread; waits for the browser at most "timeoutMs", then for the exchange at most timeouts.totalMs.
/// ghl_client_cancel ends the wait at once.
///
/// @param client       a client
/// @param params_json  {"port"?, "timeoutMs"?, "state"?, "allowMissingState"?, "redirectUri"?, "userType"?}; "port" is
///                     1 to 65535, and defaults to that of the redirect URI where it is http on localhost or 127.0.0.1;
///                     "timeoutMs" is 1 to 3600000, by default 300000; "redirectUri" is that of the link, by default
///                     the configured one; the others as in ghl_authorization_complete: with "allowMissingState", any
///                     page in the person's browser can end the wait, and slip in a code of its own
/// @param out_json     the stored token's metadata, as ghl_authorization_complete gives it, or the error; to be freed
///                     with ghl_string_free; may be NULL
/// @return GHL_OK; GHL_ERR_INVALID_ARGUMENT, for a port that is taken, too; GHL_ERR_TIMEOUT when nobody came back;
///         GHL_ERR_CANCELLED; after the redirect, the errors of ghl_authorization_complete
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ghl_authorization_listen(
    client: *mut ghl_client,
    params_json: *const c_char,
    out_json: *mut *mut c_char,
) -> i32 {
    // SAFETY: the header requires a living client and valid pointers, or NULL.
    unsafe {
        client::call_with(client, ("params_json", params_json), out_json, |client, params| {
            client.authorization_listen(&params)
        })
    }
}
