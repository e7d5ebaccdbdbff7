//! The token manager.

use std::ffi::{CString, c_char, c_void};

use zeroize::Zeroizing;

use super::boundary::{self, guarded, render, set_null};
use super::client::{self, ghl_client};
use super::text;
use crate::client::Client;
use crate::error::{Error, Result, Status};
use crate::secret::Secret;

/// A live access token for a company or location: from memory while it is fresh; else refreshed, or minted for a
/// location of a company that is held, by one caller while the others wait.
///
/// Any thread; waits at most timeouts.totalMs, and only when a token is due. While an old token still lives, a
/// failed refresh does not fail the caller.
///
/// @param client       a client
/// @param resource_id  a company id or a location id
/// @param out_token    the bare token, to be freed with ghl_string_free, which wipes it; NULL on error; may be NULL
/// @param out_error    NULL, or the error; to be freed with ghl_string_free; may be NULL
/// @return GHL_OK; GHL_ERR_INVALID_ARGUMENT, GHL_ERR_NOT_FOUND, GHL_ERR_REAUTHORIZATION_REQUIRED,
///         GHL_ERR_LOCATION_INACTIVE, GHL_ERR_UNAUTHORIZED, GHL_ERR_FORBIDDEN, GHL_ERR_INVALID_REQUEST,
///         GHL_ERR_RATE_LIMITED, GHL_ERR_NETWORK, GHL_ERR_TIMEOUT, GHL_ERR_SERVER, GHL_ERR_PROTOCOL, GHL_ERR_STORE,
///         GHL_ERR_CANCELLED
///
/// Example:
///
/// ```c
/// char *token, *error;
/// if (ghl_access_token(client, "a company id or location id", &token, &error) == GHL_OK) {
///     printf("Authorization: Bearer %s\n", token);
/// } else {
///     fprintf(stderr, "%s\n", error);
/// }
/// ghl_string_free(token);
/// ghl_string_free(error);
/// ```
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ghl_access_token(
    client: *mut ghl_client,
    resource_id: *const c_char,
    out_token: *mut *mut c_char,
    out_error: *mut *mut c_char,
) -> i32 {
    // SAFETY: the header requires a living client and valid pointers, or NULL.
    unsafe {
        set_null(out_token);
        let result = token(client, resource_id, out_error, |secret| text::hand_out(secret.expose()));
        match result {
            Ok(handed_out) if out_token.is_null() => text::take_back(handed_out),
            Ok(handed_out) => out_token.write(handed_out),
            Err(code) => return code,
        }
        0
    }
}

/// ghl_access_token into a buffer of the caller's own: no allocation while the token is fresh.
///
/// The buffer holds an empty text on error, and is the caller's to wipe.
///
/// @param client       a client
/// @param resource_id  a company id or a location id
/// @param buffer       where the token goes, NUL-terminated; may be NULL where *length is 0
/// @param length       in: the buffer's size in bytes; out: the bytes needed, NUL included, 0 on other errors than
///                     GHL_ERR_BUFFER_TOO_SMALL
/// @param out_error    NULL, or the error; to be freed with ghl_string_free; may be NULL
/// @return GHL_OK; GHL_ERR_BUFFER_TOO_SMALL; and what ghl_access_token returns
///
/// Example:
///
/// ```c
/// char token[2048];
/// size_t length = sizeof token;
/// if (ghl_access_token_into(client, "a company id or location id", token, &length, NULL) == GHL_OK) {
///     printf("Authorization: Bearer %s\n", token);
/// }
/// ```
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ghl_access_token_into(
    client: *mut ghl_client,
    resource_id: *const c_char,
    buffer: *mut c_char,
    length: *mut usize,
    out_error: *mut *mut c_char,
) -> i32 {
    // SAFETY: the header requires a living client and valid pointers, or NULL; a buffer is as long as *length says.
    unsafe {
        let size = if length.is_null() { 0 } else { length.replace(0) };
        if !buffer.is_null() && size > 0 {
            buffer.write(0);
        }
        let wrong = match () {
            () if length.is_null() => Some("length"),
            () if buffer.is_null() && size > 0 => Some("buffer"),
            () => None,
        };
        if let Some(parameter) = wrong {
            let refused = || Err(Error::invalid_argument(parameter, format!("{parameter} is NULL")));
            return boundary::call(out_error, refused);
        }
        let copied = token(client, resource_id, out_error, |secret| {
            let token = secret.expose().as_bytes();
            let needed = token.len() + 1;
            if needed <= size {
                std::ptr::copy_nonoverlapping(token.as_ptr(), buffer.cast(), token.len());
                buffer.add(token.len()).write(0);
            }
            needed
        });
        match copied {
            Ok(needed) => {
                length.write(needed);
                if needed <= size { 0 } else { boundary::call(out_error, || Err(too_small(size, needed))) }
            }
            Err(code) => code,
        }
    }
}

fn too_small(size: usize, needed: usize) -> Error {
    Error::new(Status::BufferTooSmall, format!("the buffer has {size} bytes, the token needs {needed}"))
        .with_parameter("buffer")
        .with_help("call again with a buffer of the size that *length now says")
}

/// Gives the token to `take`: from memory, or by the longer way.
///
/// # Safety
/// As the exported functions.
unsafe fn token<T>(
    client: *const ghl_client,
    resource_id: *const c_char,
    out_error: *mut *mut c_char,
    take: impl Fn(&Secret) -> T,
) -> Result<T, i32> {
    // SAFETY: by the contract.
    unsafe {
        set_null(out_error);
        let found = guarded(|| {
            let client = client::core(client)?;
            let resource_id = text::read("resource_id", resource_id)?;
            match client.with_fresh_token(resource_id, &take) {
                Some(taken) => Ok(taken),
                None => client.access_token(resource_id).map(|secret| take(&secret)),
            }
        });
        found.map_err(|error| boundary::call(out_error, || Err(error)))
    }
}

/// Refreshes, or mints, now, whatever the clock says.
///
/// Callers at the same moment share one refresh. The server is asked even while an inactive location, or a resource whose
/// last refreshes failed, is left alone. Any thread; waits at most timeouts.totalMs.
///
/// @param client       a client
/// @param resource_id  a company id or a location id
/// @param out_json     the new token's metadata, as ghl_authorization_complete gives it, or the error; to be freed with
///                     ghl_string_free; may be NULL
/// @return GHL_OK; what ghl_access_token returns. An old token that still lives does not hide a failure here
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ghl_token_refresh(
    client: *mut ghl_client,
    resource_id: *const c_char,
    out_json: *mut *mut c_char,
) -> i32 {
    // SAFETY: the header requires a living client and valid pointers, or NULL.
    unsafe { about(client, resource_id, out_json, Client::token_refresh) }
}

/// Deletes a token here, in memory and in the store. The API does not learn of it: the app stays installed.
///
/// A refresh or mint of it that is under way does not bring it back. A record that cannot be read is deleted as well. Any
/// thread; waits for a refresh of the same resource, at most 5 s.
///
/// @param client       a client
/// @param resource_id  a company id or a location id
/// @param out_json     the deleted token's metadata, or {"resourceId", "state": "unreadable"}, or the error; to be freed
///                     with ghl_string_free; may be NULL
/// @return GHL_OK; GHL_ERR_INVALID_ARGUMENT, GHL_ERR_NOT_FOUND, GHL_ERR_STORE, GHL_ERR_TIMEOUT, GHL_ERR_CANCELLED
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ghl_token_delete(
    client: *mut ghl_client,
    resource_id: *const c_char,
    out_json: *mut *mut c_char,
) -> i32 {
    // SAFETY: the header requires a living client and valid pointers, or NULL.
    unsafe { about(client, resource_id, out_json, Client::token_delete) }
}

/// Lists the tokens held, page by page: metadata, never a secret.
///
/// Tokens that the store did not take are offered to it again first; those that it still does not take are listed as
/// "unsaved", as long as it can be read. Any thread; waits for the API only where such a token is being refreshed, at most 3 s.
///
/// @param client       a client
/// @param params_json  {"companyId"?, "userType"? ("Company" | "Location"), "pageSize"? (1 to 1000, default 100),
///                     "pageToken"?}; "companyId" lists the company and its locations
/// @param out_json     {"items": [{metadata}], "nextPageToken", "failed"?: [{"resourceId", "error"}]}, "nextPageToken" null
///                     on the last page, or the error; to be freed with ghl_string_free; may be NULL. A metadata's
///                     "state" is "ok", "inactive", "reauthorizationRequired" or "unsaved". "failed" names the records of
///                     the page that cannot be read: damaged, or sealed with a key that is not given
/// @return GHL_OK; GHL_ERR_INVALID_ARGUMENT, GHL_ERR_STORE, GHL_ERR_TIMEOUT, GHL_ERR_CANCELLED
///
/// Example:
///
/// ```c
/// char *page;
/// if (ghl_tokens_list(client, "{\"pageSize\": 100}", &page) == GHL_OK) {
///     printf("%s\n", page); // "nextPageToken" is the "pageToken" of the next call
/// }
/// ghl_string_free(page);
/// ```
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ghl_tokens_list(
    client: *mut ghl_client,
    params_json: *const c_char,
    out_json: *mut *mut c_char,
) -> i32 {
    // SAFETY: the header requires a living client and valid pointers, or NULL.
    unsafe {
        client::call_with(client, ("params_json", params_json), out_json, |client, params| {
            client.tokens_list(&params)
        })
    }
}

/// Takes over tokens that were granted elsewhere: from an export, or as the vendor's SDKs store them.
///
/// Any thread; waits for refreshes of the same resources, at most timeouts.totalMs.
///
/// @param client       a client
/// @param tokens_json  {"tokens": [{"accessToken", "refreshToken", "expiresAt" (milliseconds since the epoch) or
///                     "expiresIn" (seconds from now), "userType", "companyId", "locationId", "scope", …}], "replace"?};
///                     snake_case is read as well ("access_token", "expire_at", …), and the camelCase spelling wins. An
///                     older token, or one without "expiresAt", does not replace a good one unless "replace" is true. A
///                     refresh token that this store has spent is skipped in any case, and so is a second owner with the
///                     same refresh token. A token with neither an expiry nor a refresh token never expires
/// @param out_json     {"imported", "skipped": [{"index", "resourceId", "reason"}]}, or the error; to be freed with
///                     ghl_string_free; may be NULL
/// @return GHL_OK, also where all were skipped; GHL_ERR_INVALID_ARGUMENT, GHL_ERR_STORE, GHL_ERR_TIMEOUT,
///         GHL_ERR_CANCELLED; after one of the latter three some of the tokens are imported, and the same import again
///         brings the rest
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ghl_tokens_import(
    client: *mut ghl_client,
    tokens_json: *const c_char,
    out_json: *mut *mut c_char,
) -> i32 {
    // SAFETY: the header requires a living client and valid pointers, or NULL.
    unsafe {
        client::call_with(client, ("tokens_json", tokens_json), out_json, |client, params| {
            client.tokens_import(params)
        })
    }
}

/// Exports tokens with their secrets, page by page, in the form that ghl_tokens_import reads.
///
/// Two programs that both refresh an exported token burn it for each other: stop one first. What the store did not take is
/// exported, too, as long as it can be read. Any thread; waits as ghl_tokens_list does.
///
/// @param client       a client
/// @param params_json  as for ghl_tokens_list
/// @param out_json     {"tokens": […], "nextPageToken", "failed"? as for ghl_tokens_list}, or the error; to be freed with
///                     ghl_string_free, which wipes it; may be NULL
/// @return GHL_OK; GHL_ERR_INVALID_ARGUMENT, GHL_ERR_STORE, GHL_ERR_TIMEOUT, GHL_ERR_CANCELLED
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ghl_tokens_export(
    client: *mut ghl_client,
    params_json: *const c_char,
    out_json: *mut *mut c_char,
) -> i32 {
    // SAFETY: the header requires a living client and valid pointers, or NULL.
    unsafe {
        client::call_with(client, ("params_json", params_json), out_json, |client, params| {
            client.tokens_export(&params)
        })
    }
}

/// Told how far a long work is; answers whether to go on.
///
/// Runs on the thread that made the call, with no lock of the library held. It may call the library, but not
/// ghl_client_free; it must not unwind (no C++ exception, no longjmp).
///
/// @param progress_json  NUL-terminated UTF-8, valid until the callback returns
/// @param context        what was given with the callback
/// @return 0 to go on; anything else ends the work with GHL_ERR_CANCELLED
pub type ghl_progress_callback =
    Option<unsafe extern "C" fn(progress_json: *const c_char, context: *mut c_void) -> i32>;

/// One pass over the tokens that are due, for the host's scheduler: refreshes or mints each of which less than
/// refresh.runwayPercent is left, takes up refreshes whose end is unknown, offers to the store what it did not take, and
/// mints for the locations whose INSTALL webhook came when that could not be done. At last, whatever another key than the
/// first of store.encryptionKeys sealed, or none, is sealed with that one.
///
/// Call it every few minutes; "nextDueAt" says when there will be something to do. One failure does not stop the rest.
/// Several processes may do so at the same time, and share the work. Any thread; waits until all is done, each token at
/// most timeouts.totalMs. With "concurrency" the library works on threads of its own for that time, which end before the
/// call does; the callbacks for progress and events run on the calling thread.
///
/// @param client       a client
/// @param params_json  {"companyId"?, "concurrency"?}: only that company and its locations, and nothing is sealed; how many tokens are renewed at
///                     once, 1 to 64, default 1
/// @param progress     called after each token, and each hundred that are sealed, with {"checked", "refreshed", "resealed",
///                     "failed"}; may be NULL
/// @param context      passed to the callback as it is; may be NULL
/// @param out_json     {"checked", "refreshed", "resealed", "unsealed", "failed": [{"resourceId", "error"}], "nextDueAt"}:
///                     "unsealed" counts what should have been sealed, but cannot be opened or changed meanwhile; an
///                     "error" is what ghl_token_refresh returns; "nextDueAt" is in milliseconds since the epoch, or
///                     null; or the error; to be freed with ghl_string_free; may be NULL. A token that the store still
///                     refuses is among the "failed"
/// @return GHL_OK, also where some failed; GHL_ERR_INVALID_ARGUMENT, GHL_ERR_STORE, GHL_ERR_TIMEOUT, GHL_ERR_CANCELLED
///
/// Example:
///
/// ```c
/// char *report;
/// if (ghl_tokens_maintain(client, "{\"concurrency\": 4}", NULL, NULL, &report) != GHL_OK) {
///     fprintf(stderr, "%s\n", report);
/// }
/// ghl_string_free(report);
/// ```
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ghl_tokens_maintain(
    client: *mut ghl_client,
    params_json: *const c_char,
    progress: ghl_progress_callback,
    context: *mut c_void,
    out_json: *mut *mut c_char,
) -> i32 {
    // SAFETY: the header requires a living client, valid pointers, and a function of this type, or NULL.
    unsafe {
        client::call_with(client, ("params_json", params_json), out_json, |client, params| {
            client.tokens_maintain(&params, &|so_far| go_on(progress, so_far, context))
        })
    }
}

/// Mints tokens for many locations of a company: for a list, or for every location where the app is installed. As fast as
/// the company's rate limit allows; a location whose token is not due costs nothing, so that a second run does what the
/// first one left. One failure does not stop the rest. Right after a consent the API's list of installed locations can be
/// empty for some seconds: "total" is 0 then, and a second run finds them.
///
/// Any thread; waits until all is done. For that time the library works on threads of its own, which end before the call
/// does; the callbacks for progress and events run on the calling thread.
///
/// @param client       a client
/// @param params_json  {"companyId", "locationIds": […]} or {"companyId", "installed": true, "appId"?}; and "force"?
///                     (true: also where a token is not due), "concurrency"? (requests under way at once, 1 to 64,
///                     default 8)
/// @param progress     called about four times a second, and at the end, with {"done", "failed", "total", "perSecond",
///                     "secondsLeft"}; "total" and "secondsLeft" are null as long as they are not known; may be NULL
/// @param context      passed to the callback as it is; may be NULL
/// @param out_json     {"total", "minted", "fresh", "failed": [{"locationId", "error"}]}, where an "error" is what
///                     ghl_token_refresh returns, or the error; to be freed with ghl_string_free; may be NULL
/// @return GHL_OK, also where some failed; GHL_ERR_INVALID_ARGUMENT; what ghl_access_token returns for the company;
///         GHL_ERR_STORE when new tokens cannot be saved; GHL_ERR_CANCELLED; GHL_ERR_NETWORK, GHL_ERR_TIMEOUT,
///         GHL_ERR_SERVER, GHL_ERR_PROTOCOL after 25 such failures in a row; GHL_ERR_RATE_LIMITED when the server wants
///         to be left in peace for more than 15 minutes. What was minted before an error is saved
///
/// Example:
///
/// ```c
/// char *report;
/// if (ghl_tokens_mint(client, "{\"companyId\": \"…\", \"installed\": true}", NULL, NULL, &report) == GHL_OK) {
///     printf("%s\n", report); // "failed" names the locations without a token
/// }
/// ghl_string_free(report);
/// ```
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ghl_tokens_mint(
    client: *mut ghl_client,
    params_json: *const c_char,
    progress: ghl_progress_callback,
    context: *mut c_void,
    out_json: *mut *mut c_char,
) -> i32 {
    // SAFETY: the header requires a living client, valid pointers, and a function of this type, or NULL.
    unsafe {
        client::call_with(client, ("params_json", params_json), out_json, |client, params| {
            client.tokens_mint(params, &|so_far| go_on(progress, so_far, context))
        })
    }
}

/// Tells the host how far the work is; answers whether to go on.
///
/// # Safety
/// `progress` is a function of its type that takes this context, or NULL.
unsafe fn go_on(progress: ghl_progress_callback, so_far: &serde_json::Value, context: *mut c_void) -> bool {
    match (progress, CString::new(so_far.to_string())) {
        // SAFETY: by the contract.
        (Some(progress), Ok(so_far)) => unsafe { progress(so_far.as_ptr(), context) == 0 },
        _ => true,
    }
}

/// A call about one resource that answers with metadata.
///
/// # Safety
/// As the exported functions.
unsafe fn about(
    client: *const ghl_client,
    resource_id: *const c_char,
    out_json: *mut *mut c_char,
    work: impl FnOnce(&Client, &str) -> Result<serde_json::Value>,
) -> i32 {
    // SAFETY: by the contract.
    unsafe {
        boundary::call(out_json, || -> Result<Zeroizing<String>> {
            let client = client::core(client)?;
            render(work(client, text::read("resource_id", resource_id)?)?)
        })
    }
}
