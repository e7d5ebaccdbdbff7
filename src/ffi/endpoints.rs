//! C functions for the three OAuth endpoints.

use std::ffi::c_char;

use super::client::{self, ghl_client};

/// Sends POST /oauth/token (operation get-access-token; RFC 6749, sections 4.1.3, 4.4 and 6) and
/// returns its response. Stores nothing: the caller keeps the token. ghl_authorization_complete and
/// ghl_access_token are the managed way.
///
/// A refresh whose response is lost is not repeated: call again at once with the same token.
/// Any thread; waits for the response, at most timeouts.totalMs.
///
/// @param client       a client
/// @param params_json  {"grantType": "authorization_code" | "refresh_token" | "client_credentials",
///                     "code"?, "refreshToken"?, "userType"? ("Company" | "Location"),
///                     "redirectUri"?, "clientId"?, "clientSecret"?} and the call options; client
///                     ID and secret default to the configured ones
/// @param out_json     the API's response in camelCase with "expiresAt" (milliseconds since the
///                     epoch) added, or the error; free with ghl_string_free; may be NULL
/// @return GHL_OK; GHL_ERR_INVALID_ARGUMENT, GHL_ERR_REAUTHORIZATION_REQUIRED for a refused code or
///         refresh token, GHL_ERR_UNAUTHORIZED for refused client credentials, GHL_ERR_FORBIDDEN,
///         GHL_ERR_NOT_FOUND, GHL_ERR_LOCATION_INACTIVE, GHL_ERR_INVALID_REQUEST,
///         GHL_ERR_RATE_LIMITED, GHL_ERR_NETWORK, GHL_ERR_TIMEOUT, GHL_ERR_SERVER,
///         GHL_ERR_PROTOCOL, GHL_ERR_CANCELLED
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ghl_oauth_token(
    client: *mut ghl_client,
    params_json: *const c_char,
    out_json: *mut *mut c_char,
) -> i32 {
    // SAFETY: the header requires a valid client and valid pointers, or NULL.
    unsafe {
        client::call_with(client, ("params_json", params_json), out_json, |client, params| {
            Ok(client.oauth_token(&params)?.to_json())
        })
    }
}

/// Sends POST /oauth/location-token (operation get-location-access-token) and returns its response:
/// mints a location's token from its company's. Stores nothing; ghl_access_token is the managed
/// way.
///
/// Any thread; waits for the response, at most timeouts.totalMs.
///
/// @param client       a client
/// @param params_json  {"companyId", "locationId", "accessToken"?} and the call options;
///                     "accessToken" defaults to the stored token of the company, refreshed if
///                     necessary
/// @param out_json     the API's response in camelCase with "expiresAt", "userType" and "companyId"
///                     added, or the error; free with ghl_string_free; may be NULL
/// @return GHL_OK; GHL_ERR_INVALID_ARGUMENT, GHL_ERR_NOT_FOUND for a company without a token,
///         GHL_ERR_FORBIDDEN, GHL_ERR_UNAUTHORIZED, the errors of ghl_access_token
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ghl_oauth_location_token(
    client: *mut ghl_client,
    params_json: *const c_char,
    out_json: *mut *mut c_char,
) -> i32 {
    // SAFETY: the header requires a valid client and valid pointers, or NULL.
    unsafe {
        client::call_with(client, ("params_json", params_json), out_json, |client, params| {
            Ok(client.oauth_location_token(&params)?.to_json())
        })
    }
}

/// Sends GET /oauth/installed-locations (operation get-installed-location) and returns one page of
/// a company's locations, or all of them.
///
/// Any thread; waits for the response, at most timeouts.totalMs for all pages together.
///
/// @param client       a client
/// @param params_json  {"companyId", "appId"?, "pageSize"? (1 to 100), "pageToken"?, "query"?,
///                     "isInstalled"?, "restrictToUserLocations"?, "versionId"?, "onTrial"?,
///                     "planId"?, "locationId"?, "all"?, "accessToken"?} and the call options.
///                     "appId" defaults to the part of the client ID before its first "-",
///                     "accessToken" to the stored token of the company; "all": true fetches all
///                     pages
/// @param out_json     {"items": [{"_id", "name", "address", …}], "pagination": {"nextPageToken",
///                     …}, …}, or the error; free with ghl_string_free; may be NULL. The items are
///                     unchanged from the API. ghl_tokens_mint and the typed bindings skip an item
///                     that is not an object or whose "_id" is not a non-empty string
/// @return GHL_OK; GHL_ERR_INVALID_ARGUMENT, GHL_ERR_NOT_FOUND for a company without a token,
///         GHL_ERR_FORBIDDEN, GHL_ERR_UNAUTHORIZED, GHL_ERR_PROTOCOL for pages that form a cycle,
///         the errors of ghl_access_token
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ghl_oauth_installed_locations(
    client: *mut ghl_client,
    params_json: *const c_char,
    out_json: *mut *mut c_char,
) -> i32 {
    // SAFETY: the header requires a valid client and valid pointers, or NULL.
    unsafe {
        client::call_with(client, ("params_json", params_json), out_json, |client, params| {
            client.oauth_installed_locations(&params)
        })
    }
}
