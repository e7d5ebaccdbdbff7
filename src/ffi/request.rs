//! Any endpoint of the API.

use std::ffi::c_char;

use super::client::{self, ghl_client};

/// Sends a request to any endpoint of the API, with a live token and the configured Version, and gives the answer back
/// whole.
///
/// Paced by the rate limit of the company or location. A 401 that says that the access token is dead makes the library
/// refresh it and send the request again, once. Repeated within the deadline: after 429, after 503 with Retry-After, and
/// where it surely was not sent; GET, HEAD and OPTIONS also after a break, any 5xx and "Command timed out". Redirects are
/// not followed. Any thread; waits for the answer, at most timeouts.totalMs; ghl_client_cancel ends it at once, though a
/// request that was sent may have been processed.
///
/// @param client        a client
/// @param request_json  {"method": "GET" | "POST" | "PUT" | "PATCH" | "DELETE" | "HEAD" | "OPTIONS", "path": one that begins
///                      with "/", or a URL below baseUrl, "query"?: {name: text, number, boolean or a list of them},
///                      "headers"?: {name: text}, "body"?, "bodyBase64"?, "resourceId"?: whose token goes along; none
///                      without it}. A "body" that is a text is sent as it is, with the content type text/plain unless
///                      the headers name another; anything else as JSON, or an object as a form where the content type
///                      is application/x-www-form-urlencoded. "bodyBase64" stands for a body of any bytes. Not to be set
///                      among the headers: what belongs to the connection, User-Agent, and Authorization beside
///                      "resourceId"
/// @param out_json      {"status", "headers": {name in lower case: text}, "body", "bodyEncoding": "json" | "text" |
///                      "base64"}, or the error; to be freed with ghl_string_free; may be NULL. "body" is JSON where the
///                      answer calls itself that and is; else a text where it is UTF-8; else base64
/// @return GHL_OK for every answer, also one with status 404, 429 or 500: the caller knows what it means;
///         GHL_ERR_INVALID_ARGUMENT, which the error's "parameter" names; with a resource what ghl_access_token returns;
///         GHL_ERR_RATE_LIMITED where the pace leaves no room before the deadline; GHL_ERR_NETWORK, GHL_ERR_TIMEOUT,
///         GHL_ERR_PROTOCOL for an answer that is no HTTP or longer than limits.responseBytes, GHL_ERR_CANCELLED
///
/// Example:
///
/// ```c
/// const char *request = "{\"method\": \"GET\", \"path\": \"/contacts/\", \"query\": {\"limit\": 20},"
///                       " \"resourceId\": \"a location id\"}";
/// char *response;
/// if (ghl_request(client, request, &response) == GHL_OK) {
///     printf("%s\n", response); // look at its "status"
/// }
/// ghl_string_free(response);
/// ```
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ghl_request(
    client: *mut ghl_client,
    request_json: *const c_char,
    out_json: *mut *mut c_char,
) -> i32 {
    // SAFETY: the header requires a living client and valid pointers, or NULL.
    unsafe {
        client::call_with(client, ("request_json", request_json), out_json, |client, params| {
            client.request(&params)
        })
    }
}
