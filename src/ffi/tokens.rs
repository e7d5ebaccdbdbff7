//! C functions for access tokens and for managing stored tokens.

use std::ffi::{CString, c_char, c_void};

use zeroize::Zeroizing;

use super::boundary::{self, blocking, guarded, render, set_null};
use super::client::{self, ghl_client};
use super::{cancellation, string};
use crate::client::{Client, OPTION_KEYS};
use crate::error::{Error, Result, Status};
use crate::secret::Secret;

/// Returns a valid access token for a company or location: from memory while it is fresh; otherwise
/// refreshed, or minted if the resource is a location whose company's token is held. One caller
/// renews the token while the others wait.
///
/// Any thread; waits at most timeouts.totalMs, and only when the token is due for renewal. A failed
/// renewal is hidden from callers while the old access token is still valid.
///
/// @param client       a client
/// @param resource_id  a company ID or a location ID
/// @param out_token    the access token; free with ghl_string_free, which wipes it; NULL on error;
///                     may be NULL
/// @param out_error    NULL, or the error; free with ghl_string_free; may be NULL
/// @return GHL_OK; GHL_ERR_INVALID_ARGUMENT, GHL_ERR_NOT_FOUND, GHL_ERR_REAUTHORIZATION_REQUIRED,
///         GHL_ERR_LOCATION_INACTIVE, GHL_ERR_UNAUTHORIZED, GHL_ERR_FORBIDDEN,
///         GHL_ERR_INVALID_REQUEST, GHL_ERR_RATE_LIMITED, GHL_ERR_NETWORK, GHL_ERR_TIMEOUT,
///         GHL_ERR_SERVER, GHL_ERR_PROTOCOL, GHL_ERR_STORE, GHL_ERR_CANCELLED
///
/// Example:
///
/// ```c
/// char *token, *error;
/// if (ghl_access_token(client, "a company ID or location ID", &token, &error) == GHL_OK) {
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
    // SAFETY: the header requires a valid client and valid pointers, or NULL.
    unsafe {
        set_null(out_token);
        hand_out(
            out_token,
            token(client, resource_id, out_error, |token| string::allocate(token.expose())),
        )
    }
}

/// Writes a token to its out-pointer.
///
/// # Safety
/// `out_token` is NULL or valid for a write; a token came from `string::allocate`.
unsafe fn hand_out(out_token: *mut *mut c_char, token: Result<*mut c_char, i32>) -> i32 {
    match token {
        // SAFETY: by the contract.
        Ok(token) if out_token.is_null() => unsafe { string::release(token) },
        // SAFETY: not NULL, so valid by the contract.
        Ok(token) => unsafe { out_token.write(token) },
        Err(code) => return code,
    }
    0
}

/// Like ghl_access_token, with options: for an upload that takes longer than the usual reserve of
/// refresh.marginSeconds, for a call with its own time limit, and for a call that can be cancelled.
///
/// A token with less than "minValidSeconds" left is renewed. If the renewal fails, its error is
/// returned, even if the old token is still valid for a shorter time. A token that was granted
/// within the last minute is returned although its whole life may be shorter, because a renewal
/// would not help.
///
/// Any thread; waits at most "timeoutMs" or timeouts.totalMs, and only if the token is renewed.
///
/// @param client       a client
/// @param params_json  {"resourceId", "minValidSeconds"?, "timeoutMs"?, "callId"?}: a company ID or
///                     a location ID; the number of seconds for which the token must be valid, by
///                     default until its next renewal; the call options
/// @param out_token    the access token; free with ghl_string_free, which wipes it; NULL on error;
///                     may be NULL
/// @param out_error    NULL, or the error; free with ghl_string_free; may be NULL
/// @return GHL_OK; the errors of ghl_access_token
///
/// Example:
///
/// ```c
/// char *token;
/// const char *params = "{\"resourceId\": \"a location ID\", \"minValidSeconds\": 7200}";
/// if (ghl_access_token_with(client, params, &token, NULL) == GHL_OK) {
///     printf("Authorization: Bearer %s\n", token); // valid for two hours
/// }
/// ghl_string_free(token);
/// ```
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ghl_access_token_with(
    client: *mut ghl_client,
    params_json: *const c_char,
    out_token: *mut *mut c_char,
    out_error: *mut *mut c_char,
) -> i32 {
    // SAFETY: the header requires a valid client and valid pointers, or NULL.
    unsafe {
        set_null(out_token);
        set_null(out_error);
        let found = blocking(|| {
            let argument = ("params_json", params_json);
            let (client, params) = client::with_options(client, argument, &OPTION_KEYS)?;
            let token = client.access_token_with(&params)?;
            Ok(string::allocate(token.expose()))
        });
        let token = found.map_err(|error| boundary::call(out_error, || Err(error)));
        hand_out(out_token, token)
    }
}

/// Like ghl_access_token, but writes into the caller's buffer: no allocation while the token is
/// fresh.
///
/// On error the buffer contains an empty string. The caller wipes the buffer.
///
/// @param client       a client
/// @param resource_id  a company ID or a location ID
/// @param buffer       receives the token, NUL-terminated; may be NULL if *length is 0
/// @param length       in: the size of the buffer in bytes; out: the bytes needed, including the
///                     NUL; 0 on errors other than GHL_ERR_BUFFER_TOO_SMALL
/// @param out_error    NULL, or the error; free with ghl_string_free; may be NULL
/// @return GHL_OK; GHL_ERR_BUFFER_TOO_SMALL; the errors of ghl_access_token
///
/// Example:
///
/// ```c
/// char token[2048];
/// size_t length = sizeof token;
/// if (ghl_access_token_into(client, "a resource ID", token, &length, NULL) == GHL_OK) {
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
    // SAFETY: the header requires a valid client and valid pointers, or NULL; a buffer is as long
    // as *length says.
    unsafe {
        let size = match prepare(buffer, length) {
            Ok(size) => size,
            Err(parameter) => {
                let refused =
                    || Err(Error::invalid_argument(parameter, format!("{parameter} is NULL")));
                return boundary::call(out_error, refused);
            }
        };
        let copied = token(client, resource_id, out_error, |token| copy(token, buffer, size));
        match copied {
            Ok(needed) => {
                length.write(needed);
                if needed <= size {
                    0
                } else {
                    boundary::call(out_error, || Err(too_small(size, needed)))
                }
            }
            Err(code) => code,
        }
    }
}

/// Copies a fresh access token from memory into the caller's buffer, like ghl_access_token_into,
/// but never waits: for event loops.
///
/// Sends nothing, reads no store and allocates nothing. If memory holds no fresh token, call a
/// function that may wait, on another thread. Any thread; does not wait.
///
/// @param client       a client
/// @param resource_id  a company ID or a location ID
/// @param buffer       receives the token, NUL-terminated; may be NULL if *length is 0
/// @param length       in: the size of the buffer in bytes; out: the bytes needed, including the
///                     NUL; 0 on errors other than GHL_ERR_BUFFER_TOO_SMALL
/// @return GHL_OK; GHL_ERR_BUFFER_TOO_SMALL; GHL_ERR_TIMEOUT if memory holds no fresh token, also
///         for an unknown ID; GHL_ERR_INVALID_ARGUMENT
///
/// Example:
///
/// ```c
/// char token[2048];
/// size_t length = sizeof token;
/// if (ghl_access_token_try_into(client, "a location ID", token, &length) == GHL_OK) {
///     printf("Authorization: Bearer %s\n", token);
/// } // GHL_ERR_TIMEOUT: let a worker thread call ghl_access_token_into
/// ```
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ghl_access_token_try_into(
    client: *mut ghl_client,
    resource_id: *const c_char,
    buffer: *mut c_char,
    length: *mut usize,
) -> i32 {
    // SAFETY: the header requires a valid client and valid pointers, or NULL; a buffer is as long
    // as *length says.
    unsafe {
        let Ok(size) = prepare(buffer, length) else { return Status::InvalidArgument.code() };
        let found = guarded(|| {
            let resource_id = string::read("resource_id", resource_id)?;
            Ok(client::core(client)?
                .try_fresh_token(resource_id, |token| copy(token, buffer, size)))
        });
        match found {
            Ok(Some(needed)) => {
                length.write(needed);
                if needed <= size { 0 } else { Status::BufferTooSmall.code() }
            }
            Ok(None) => Status::Timeout.code(),
            Err(error) => error.status().code(),
        }
    }
}

/// Empties the caller's buffer and `*length`. Returns the buffer's size, or the name of the
/// parameter that is NULL.
///
/// # Safety
/// As the exported functions.
unsafe fn prepare(buffer: *mut c_char, length: *mut usize) -> Result<usize, &'static str> {
    // SAFETY: by the contract.
    unsafe {
        let size = if length.is_null() { 0 } else { length.replace(0) };
        if !buffer.is_null() && size > 0 {
            buffer.write(0);
        }
        match () {
            () if length.is_null() => Err("length"),
            () if buffer.is_null() && size > 0 => Err("buffer"),
            () => Ok(size),
        }
    }
}

/// Copies a token into a buffer if there is room. Returns the bytes needed, including the NUL.
///
/// # Safety
/// `buffer` is valid for writes of `size` bytes.
unsafe fn copy(token: &Secret, buffer: *mut c_char, size: usize) -> usize {
    let token = token.expose();
    let needed = token.len() + 1;
    if needed <= size {
        // SAFETY: by the contract, and since the token and its NUL fit.
        unsafe {
            std::ptr::copy_nonoverlapping(token.as_ptr(), buffer.cast(), token.len());
            buffer.add(token.len()).write(0);
        }
    }
    needed
}

fn too_small(size: usize, needed: usize) -> Error {
    Error::new(
        Status::BufferTooSmall,
        format!("the buffer has {size} bytes, but the token needs {needed}"),
    )
    .with_parameter("buffer")
    .with_help("call again with a buffer of *length bytes")
}

/// Passes the token to `take`, from the cache if it is fresh.
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
            let resource_id = string::read("resource_id", resource_id)?;
            match client.with_fresh_token(resource_id, &take) {
                Some(taken) => Ok(taken),
                None => {
                    let _delayed = cancellation::Delayed::new();
                    client.access_token(resource_id).map(|token| take(&token))
                }
            }
        });
        found.map_err(|error| boundary::call(out_error, || Err(error)))
    }
}

/// Refreshes or mints the token now, even if it is still fresh.
///
/// Concurrent callers share one refresh. The server is asked even during the backoff after failed
/// refreshes and while the location is known to be inactive. Any thread; waits at most
/// timeouts.totalMs.
///
/// @param client       a client
/// @param resource_id  a company ID or a location ID
/// @param out_json     the metadata of the new token, as for ghl_authorization_complete, or the
///                     error; free with ghl_string_free; may be NULL
/// @return GHL_OK; the errors of ghl_access_token. A valid old token does not hide a failure here
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ghl_token_refresh(
    client: *mut ghl_client,
    resource_id: *const c_char,
    out_json: *mut *mut c_char,
) -> i32 {
    // SAFETY: the header requires a valid client and valid pointers, or NULL.
    unsafe { call_for_resource(client, resource_id, out_json, Client::token_refresh) }
}

/// Like ghl_token_refresh, with the call options.
///
/// Any thread; waits at most "timeoutMs" or timeouts.totalMs.
///
/// @param client       a client
/// @param params_json  {"resourceId", "timeoutMs"?, "callId"?}: a company ID or a location ID; the
///                     call options
/// @param out_json     the metadata of the new token, as for ghl_authorization_complete, or the
///                     error; free with ghl_string_free; may be NULL
/// @return GHL_OK; the errors of ghl_token_refresh
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ghl_token_refresh_with(
    client: *mut ghl_client,
    params_json: *const c_char,
    out_json: *mut *mut c_char,
) -> i32 {
    // SAFETY: the header requires a valid client and valid pointers, or NULL.
    unsafe {
        client::call_with(client, ("params_json", params_json), out_json, |client, params| {
            client.token_refresh_with(&params)
        })
    }
}

/// Deletes a token from memory and from the store. The API is not told: the app stays installed.
///
/// A refresh or mint in progress does not bring the token back. An unreadable record is deleted as
/// well. Any thread; waits for a refresh of the same resource, at most 5 s.
///
/// @param client       a client
/// @param resource_id  a company ID or a location ID
/// @param out_json     the metadata of the deleted token, or {"resourceId", "state": "unreadable"},
///                     or the error; free with ghl_string_free; may be NULL
/// @return GHL_OK; GHL_ERR_INVALID_ARGUMENT, GHL_ERR_NOT_FOUND, GHL_ERR_STORE, GHL_ERR_TIMEOUT,
///         GHL_ERR_CANCELLED
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ghl_token_delete(
    client: *mut ghl_client,
    resource_id: *const c_char,
    out_json: *mut *mut c_char,
) -> i32 {
    // SAFETY: the header requires a valid client and valid pointers, or NULL.
    unsafe { call_for_resource(client, resource_id, out_json, Client::token_delete) }
}

/// Lists the stored tokens page by page: metadata without secrets.
///
/// First retries the save of unsaved tokens. Tokens that the store still refuses are listed with
/// the state "unsaved" if the store can be read. Any thread; waits at most 3 s, and only if such a
/// token is being refreshed.
///
/// @param client       a client
/// @param params_json  {"companyId"?, "userType"? ("Company" | "Location"), "state"?, "failing"?,
///                     "expiresBefore"?, "pageSize"? (1 to 1000, default 100), "pageToken"?} and
///                     the call options; "companyId" selects the company and its locations, "state"
///                     the tokens in a state, "failing": true those with a "lastFailure",
///                     "expiresBefore" those whose access token expires before that time
///                     (milliseconds since the epoch). With one of the last three, a call reads
///                     the store until the page is full
/// @param out_json     {"items": [{metadata}], "nextPageToken", "failed"?: [{"resourceId",
///                     "error"}]}, or the error; free with ghl_string_free; may be NULL.
///                     "nextPageToken" is null on the last page. The "state" of an item is "ok",
///                     "inactive", "reauthorizationRequired" or "unsaved". "lastSuccessAt" is when
///                     the API last granted a token, null if unknown. "lastFailure" is null, or the
///                     last failed renewal since then: {"firstAt", "at", "attempts", "status",
///                     "message", "httpStatus", "traceId", "nextAttemptAt"}: the first failure, the
///                     newest, their number, the name of the status, the server's message or ours
///                     (at most 200 bytes), the response if there was one, and the earliest time of
///                     the next attempt, null if only a consent or an import helps. All times are
///                     milliseconds since the epoch. "failed" names the unreadable records of the
///                     page: damaged, or encrypted with a key that is not configured
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
    // SAFETY: the header requires a valid client and valid pointers, or NULL.
    unsafe {
        client::call_with(client, ("params_json", params_json), out_json, |client, params| {
            client.tokens_list(&params)
        })
    }
}

/// Imports tokens that were granted elsewhere: from an export, or in the form in which the vendor's
/// SDKs store them.
///
/// Unless "replace" is true, a good token is not replaced by an older token, by one without
/// "expiresAt", or, if it has a refresh token, by one without; and a token that was held when its
/// app was uninstalled is skipped, so that an import at each start does not bring it back. A
/// refresh token that this store has spent is always skipped, and so is a second owner of the same
/// refresh token. A token with neither an expiry nor a refresh token never expires. A location
/// without "ownConsent" is deleted by the UNINSTALL webhook of its company, unless its record here
/// says that it consented separately.
///
/// Any thread; waits for refreshes of the same resources, at most timeouts.totalMs for each hundred
/// tokens, and at most "timeoutMs" in all.
///
/// @param client       a client
/// @param tokens_json  {"tokens": [{"accessToken", "refreshToken", "expiresAt" (milliseconds since
///                     the epoch) or "expiresIn" (seconds from now), "userType", "companyId",
///                     "locationId", "scope", "ownConsent" (boolean: the location consented
///                     separately), …}], "replace"?, "dryRun"?} and the call options; snake_case is
///                     accepted as well ("access_token", "expire_at", …); camelCase takes
///                     precedence. With "dryRun": true the call only reports what it would do: it
///                     changes nothing, and another program may change the outcome until the import
/// @param out_json     {"imported", "skipped": [{"index", "resourceId", "reason"}]}, or the error;
///                     free with ghl_string_free; may be NULL. With "dryRun" also "accepted":
///                     [{"index", "resourceId", "replaces" (whether a token is stored already)}]
/// @return GHL_OK, even if all were skipped; GHL_ERR_INVALID_ARGUMENT; GHL_ERR_STORE,
///         GHL_ERR_TIMEOUT and GHL_ERR_CANCELLED, after which some of the tokens are imported and
///         the same import can be repeated
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ghl_tokens_import(
    client: *mut ghl_client,
    tokens_json: *const c_char,
    out_json: *mut *mut c_char,
) -> i32 {
    // SAFETY: the header requires a valid client and valid pointers, or NULL.
    unsafe {
        client::call_with(client, ("tokens_json", tokens_json), out_json, |client, params| {
            client.tokens_import(params)
        })
    }
}

/// Moves the tokens of another client ID in the same database to this client's ID. After a key
/// rotation an app has a new client ID, for which the store looks empty.
///
/// For the stores "sqlite" and "postgres". Stop the programs that use the other client ID first.
/// The tokens do not change; encrypted records need their key in store.encryptionKeys. Each token
/// is saved under this client ID before it is deleted under the other one, so an interrupted call
/// loses nothing and can be repeated. A token that is already held under this client ID stays,
/// unless its state is "reauthorizationRequired". To undo, adopt in the other direction. Only the
/// next refresh shows whether the API accepts the refresh token under the new client ID.
///
/// Any thread; waits for refreshes of the same resources, at most timeouts.totalMs for each.
///
/// @param client       a client
/// @param params_json  {"clientId"?, "resourceId"?, "dryRun"?} and the call options: the other
///                     client ID; a company or location to which the call is limited; whether to
///                     report without changes. Without "clientId" nothing is adopted, and "clients"
///                     names the other client IDs
/// @param out_json     {"adopted", "skipped": [{"resourceId", "reason"}], "failed": [{"resourceId",
///                     "error"}], "clients": [{"clientId", "tokens"}]}, or the error; free with
///                     ghl_string_free; may be NULL. "failed" names unreadable records, "clients"
///                     the other client IDs with tokens in the database, at most 100, with the
///                     number of their tokens
/// @return GHL_OK, even if all were skipped; GHL_ERR_INVALID_ARGUMENT; GHL_ERR_CONFIG for a store
///         that holds the tokens of only one client ID; GHL_ERR_STORE, GHL_ERR_TIMEOUT,
///         GHL_ERR_CANCELLED
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ghl_tokens_adopt(
    client: *mut ghl_client,
    params_json: *const c_char,
    out_json: *mut *mut c_char,
) -> i32 {
    // SAFETY: the header requires a living client and valid pointers, or NULL.
    unsafe {
        client::call_with(client, ("params_json", params_json), out_json, |client, params| {
            client.tokens_adopt(&params)
        })
    }
}

/// Exports tokens with their secrets, page by page, in the form that ghl_tokens_import reads.
///
/// Two programs that both refresh an exported token invalidate it for each other: stop one of them
/// first. Tokens that the store has not accepted yet are exported as well if the store can be read.
/// Any thread; waits like ghl_tokens_list.
///
/// @param client       a client
/// @param params_json  as for ghl_tokens_list
/// @param out_json     {"tokens": […], "nextPageToken", "failed"? as for ghl_tokens_list}, or the
///                     error; free with ghl_string_free, which wipes it; may be NULL. A location
///                     that consented separately has "ownConsent": true
/// @return GHL_OK; GHL_ERR_INVALID_ARGUMENT, GHL_ERR_STORE, GHL_ERR_TIMEOUT, GHL_ERR_CANCELLED
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ghl_tokens_export(
    client: *mut ghl_client,
    params_json: *const c_char,
    out_json: *mut *mut c_char,
) -> i32 {
    // SAFETY: the header requires a valid client and valid pointers, or NULL.
    unsafe {
        client::call_with(client, ("params_json", params_json), out_json, |client, params| {
            client.tokens_export(&params)
        })
    }
}

/// Reports the progress of a long call and decides whether it continues.
///
/// Called on the thread that made the call, while the library holds no lock. The callback may call
/// the library, except ghl_client_free. It must not unwind (no C++ exception, no longjmp).
///
/// @param progress_json  NUL-terminated UTF-8, valid until the callback returns
/// @param context        the context passed with the callback
/// @return 0 to continue; any other value ends the call with GHL_ERR_CANCELLED
pub type ghl_progress_callback =
    Option<unsafe extern "C" fn(progress_json: *const c_char, context: *mut c_void) -> i32>;

/// Renews every token that is due, in one pass, for the host's scheduler: refreshes or mints each
/// token with less than refresh.runwayPercent of its life left, resolves refreshes whose outcome is
/// unknown, retries saves that the store refused, and mints for locations whose INSTALL webhook
/// could not be served at the time. Finally encrypts all records that are not encrypted with the
/// first of store.encryptionKeys.
///
/// Call it every few minutes; "nextDueAt" says when the next token is due. One failure does not
/// stop the rest. Several processes may run it at the same time and share the work. Any thread;
/// waits until all is done, at most timeouts.totalMs for each token, or until "timeoutMs": renewed
/// tokens are saved, and the next call continues. With "concurrency" above 1 the
/// call runs worker threads, which end before it returns; progress and event callbacks run on the
/// calling thread.
///
/// @param client       a client
/// @param params_json  {"companyId"?, "concurrency"?} and the call options; "companyId" restricts
///                     the pass to that company and its locations, without the encryption;
///                     "concurrency" is the number of concurrent renewals, 1 to 64, default 1
/// @param progress     called after each token, and after each hundred encrypted records, with
///                     {"checked", "refreshed", "resealed", "failed"}; may be NULL
/// @param context      passed to the callback unchanged; may be NULL
/// @param out_json     {"checked", "refreshed", "resealed", "unsealed", "failed": [{"resourceId",
///                     "error"}], "nextDueAt"}, or the error; free with ghl_string_free; may be
///                     NULL. "unsealed" counts records that could not be encrypted because they are
///                     unreadable or were changed meanwhile; an "error" is an error of
///                     ghl_token_refresh; "nextDueAt" is in milliseconds since the epoch, or null.
///                     A token that the store still refuses is listed in "failed"
/// @return GHL_OK, even if some failed; GHL_ERR_INVALID_ARGUMENT, GHL_ERR_STORE, GHL_ERR_TIMEOUT,
///         GHL_ERR_CANCELLED
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
    // SAFETY: the header requires a valid client, valid pointers, and a function of this type, or
    // NULL.
    unsafe {
        client::call_with(client, ("params_json", params_json), out_json, |client, params| {
            client.tokens_maintain(&params, &|so_far| should_continue(progress, so_far, context))
        })
    }
}

/// Mints tokens for many locations of a company: for a list of locations, or for all that have the
/// app installed.
///
/// Runs as fast as the company's rate limit allows. A location whose token is not due is skipped,
/// so a second run continues where the first one stopped. A location with its own consent is
/// refreshed, not minted, unless "force" is set, and counts as "fresh". One failure does not stop
/// the rest. For some seconds after a consent the API may list no installed locations: "total" is
/// 0 then, and a later run finds them.
///
/// Any thread; waits until all is done, or until "timeoutMs". The call runs worker threads, which
/// end before it returns; progress and event callbacks run on the calling thread.
///
/// @param client       a client
/// @param params_json  {"companyId", "locationIds": […]} or {"companyId", "installed": true,
///                     "appId"?}; also "force"? (true: mint tokens that are not due as well),
///                     "concurrency"? (concurrent requests, 1 to 64, default 8) and the call
///                     options
/// @param progress     called about four times a second, and at the end, with {"done", "failed",
///                     "total", "perSecond", "secondsLeft"}; "total" and "secondsLeft" are null
///                     while unknown; may be NULL
/// @param context      passed to the callback unchanged; may be NULL
/// @param out_json     {"total", "minted", "fresh", "failed": [{"locationId", "error"}]}, or the
///                     error; free with ghl_string_free; may be NULL. An "error" is an error of
///                     ghl_token_refresh
/// @return GHL_OK, even if some failed; GHL_ERR_INVALID_ARGUMENT; the errors of ghl_access_token
///         for the company; GHL_ERR_STORE if new tokens cannot be saved; GHL_ERR_CANCELLED;
///         GHL_ERR_TIMEOUT after "timeoutMs"; GHL_ERR_NETWORK, GHL_ERR_TIMEOUT, GHL_ERR_SERVER or
///         GHL_ERR_PROTOCOL after 25 such failures in a row; GHL_ERR_RATE_LIMITED if the server
///         demands a pause of more than 15 minutes. Tokens minted before an error are saved
///
/// Example:
///
/// ```c
/// char *report;
/// const char *params = "{\"companyId\": \"…\", \"installed\": true}";
/// if (ghl_tokens_mint(client, params, NULL, NULL, &report) == GHL_OK) {
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
    // SAFETY: the header requires a valid client, valid pointers, and a function of this type, or
    // NULL.
    unsafe {
        client::call_with(client, ("params_json", params_json), out_json, |client, params| {
            client.tokens_mint(params, &|so_far| should_continue(progress, so_far, context))
        })
    }
}

/// Reports the progress to the host. Returns whether to continue.
///
/// # Safety
/// `progress` is a function of its type that takes this context, or NULL.
unsafe fn should_continue(
    progress: ghl_progress_callback,
    so_far: &serde_json::Value,
    context: *mut c_void,
) -> bool {
    match (progress, CString::new(so_far.to_string())) {
        // SAFETY: by the contract.
        (Some(progress), Ok(so_far)) => unsafe { progress(so_far.as_ptr(), context) == 0 },
        _ => true,
    }
}

/// Runs a call about one resource that returns metadata.
///
/// # Safety
/// As the exported functions.
unsafe fn call_for_resource(
    client: *const ghl_client,
    resource_id: *const c_char,
    out_json: *mut *mut c_char,
    work: impl FnOnce(&Client, &str) -> Result<serde_json::Value>,
) -> i32 {
    // SAFETY: by the contract.
    unsafe {
        boundary::call(out_json, || -> Result<Zeroizing<String>> {
            let client = client::core(client)?;
            render(work(client, string::read("resource_id", resource_id)?)?)
        })
    }
}
