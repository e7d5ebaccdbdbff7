//! The C function for requests to any endpoint of the API.

use std::ffi::c_char;

use super::client::{self, ghl_client};

/// Sends a request to any endpoint of the API with a valid access token and the configured Version
/// header, and returns the response.
///
/// The rate limiter of the company or location applies. If a 401 says that the access token is
/// invalid, the library refreshes it and repeats the request once. Within the deadline it also
/// repeats after 429, after 503 with Retry-After, and if the request certainly was not sent; an
/// idempotent request in addition after a broken connection, any 5xx and "Command timed out".
/// Redirects are not followed. Any thread; waits for the response, at most timeouts.totalMs.
/// ghl_client_cancel ends it at once, but the server may have processed a request that was already
/// sent.
///
/// @param client        a client
/// @param request_json  {"method": "GET" | "POST" | "PUT" | "PATCH" | "DELETE" | "HEAD" |
///                      "OPTIONS", "path": begins with "/", or a URL below baseUrl, "query"?:
///                      {name: string, number, boolean or a list of them}, "headers"?: {name:
///                      string}, "body"?, "bodyBase64"?, "resourceId"?, "idempotent"?: bool,
///                      "retry"?: bool} and the call options. "resourceId" selects the token;
///                      without it the request has no token. A "body" that is a string is sent
///                      unchanged, as text/plain unless the headers name another content type; an
///                      object is sent as a form if the content type is
///                      application/x-www-form-urlencoded; every other body is sent as the JSON
///                      that it is, byte for byte. Without a body or with null nothing is sent.
///                      "bodyBase64" is a binary body. The headers must not contain connection
///                      headers, User-Agent, or Authorization together with "resourceId".
///                      "idempotent" says whether the server may process the request more than
///                      once; by default true for GET, HEAD and OPTIONS. With "retry": false the
///                      request is sent once, even after 429 and 503; only the repetition with a
///                      refreshed token remains, since the server had refused the token
/// @param out_json      {"status", "headers": {lower-case name: string}, "setCookies"?: [string,
///                      …], "body", "bodyEncoding": "json" | "text" | "base64"}, or the error; free
///                      with ghl_string_free; may be NULL. "headers" joins the values of a repeated
///                      header by ", "; "setCookies" has each Set-Cookie by itself. "body" is the
///                      JSON of the response, byte for byte without white space around it, if the
///                      response is declared as JSON and is valid with at most 128 levels;
///                      otherwise a string if it is UTF-8; otherwise base64
/// @return GHL_OK for every HTTP response, including status 404, 429 or 500;
///         GHL_ERR_INVALID_ARGUMENT, named by the error's "parameter"; with a "resourceId" the
///         errors of ghl_access_token; GHL_ERR_RATE_LIMITED if the rate limit leaves no room before
///         the deadline; GHL_ERR_NETWORK, GHL_ERR_TIMEOUT, GHL_ERR_CANCELLED; GHL_ERR_PROTOCOL for
///         a response that is not HTTP or longer than limits.responseBytes
///
/// Example:
///
/// ```c
/// const char *request = "{\"method\": \"GET\", \"path\": \"/contacts/\","
///                       " \"query\": {\"limit\": 20}, \"resourceId\": \"a location ID\"}";
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
    // SAFETY: the header requires a valid client and valid pointers, or NULL.
    unsafe {
        client::call_with(client, ("request_json", request_json), out_json, |client, params| {
            client.request(&params)
        })
    }
}
