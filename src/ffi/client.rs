//! The client handle in C: create, free, cancel, statistics and events.

use std::ffi::{CString, c_char, c_void};
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::boundary::{self, blocking, guarded, render, set_null};
use super::callback::{Callback, Context, Slot};
use super::reentrancy::Owner;
use super::{fork, string};
use crate::client::{CallOptions, Client, OPTION_KEYS};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::json;

/// A client: one app, its tokens, and its connections to the API.
///
/// Created by ghl_client_new and freed by ghl_client_free. Any number of threads may use it at
/// once.
pub struct ghl_client {
    core: Client,
    events: Arc<Slot<EventFunction>>,
    /// The client's custom store, if it has one.
    store: Option<Owner>,
}

impl ghl_client {
    /// Records the custom store that serves this client.
    pub(super) fn is_served_by(&mut self, store: Owner) {
        self.store = Some(store);
    }
}

/// Receives events as JSON: {"type", "resourceId", "at", "expiresAt"[, "error"]}. Times are
/// milliseconds since the epoch; an event never contains a secret. The types are token.saved,
/// token.refreshed, token.minted, token.deleted, token.reauthorizationRequired, token.refreshFailed
/// and token.unsaved.
///
/// Called on a thread that is inside a library call, while the library holds no lock. The callback
/// may call the library, except ghl_client_free. It must not unwind (no C++ exception, no longjmp).
///
/// @param event_json  NUL-terminated UTF-8, valid until the callback returns
/// @param context     the context passed to ghl_client_on_event
pub type ghl_event_callback =
    Option<unsafe extern "C" fn(event_json: *const c_char, context: *mut c_void)>;

type EventFunction = unsafe extern "C" fn(*const c_char, *mut c_void);

/// A handle for a client that was created in Rust, for example with another clock. Free it with
/// [`ghl_client_free`].
pub fn client_from(core: Client) -> *mut ghl_client {
    fork::register_handlers();
    Box::into_raw(Box::new(ghl_client { core, events: Arc::new(Slot::new()), store: None }))
}

/// The client behind a handle.
///
/// # Safety
/// `client` is NULL or came from `ghl_client_new`, and is not freed before the call returns.
pub unsafe fn core<'a>(client: *const ghl_client) -> Result<&'a Client> {
    // SAFETY: by the contract.
    Ok(&unsafe { handle(client) }?.core)
}

/// The handle, unless this call comes from inside a callback of the client's custom store.
///
/// # Safety
/// As [`core`].
unsafe fn handle<'a>(client: *const ghl_client) -> Result<&'a ghl_client> {
    // SAFETY: by the contract, a pointer that is not NULL is valid.
    match unsafe { client.as_ref() } {
        Some(client) if client.store.is_some_and(Owner::is_running) => {
            let message = "a store callback must not call the client that it serves";
            Err(Error::invalid_argument("client", message)
                .with_help("call it after the callback has returned"))
        }
        Some(client) => Ok(client),
        None => Err(Error::invalid_argument("client", "client is NULL")),
    }
}

/// Runs one call of a client with the options and parameters from a JSON argument.
///
/// # Safety
/// As [`boundary::call`], [`core`] and [`boundary::params`].
pub unsafe fn call_with<P: DeserializeOwned, R: Serialize>(
    client: *const ghl_client,
    argument: (&str, *const c_char),
    out: *mut *mut c_char,
    work: impl FnOnce(&Client, P) -> Result<R>,
) -> i32 {
    // SAFETY: by the contract.
    unsafe {
        boundary::call(out, || {
            let (client, params) = with_options(client, argument, &OPTION_KEYS)?;
            render(work(&client, params)?)
        })
    }
}

/// The client with the options of the call, and the parameters. `keys` are the options that the
/// call accepts.
///
/// # Safety
/// As [`core`] and [`string::read`].
pub unsafe fn with_options<P: DeserializeOwned>(
    client: *const ghl_client,
    (parameter, document): (&str, *const c_char),
    keys: &[&str],
) -> Result<(Client, P)> {
    // SAFETY: by the contract.
    let (client, text) = unsafe { (core(client)?, string::read(parameter, document)?) };
    let (options, rest) = CallOptions::split(parameter, text, keys)?;
    let params = json::read(parameter, rest.as_deref().map_or(text, String::as_str))?;
    Ok((client.with(options), params))
}

/// Creates a client. Sends nothing to the API. Opens the store, which for postgres means a
/// connection, and reads the files named by clientSecretFile, http.caBundlePath,
/// store.caBundlePath and store.encryptionKeysPath.
///
/// On platforms that keep trusted certificates in files, the first TLS request reads the
/// environment variables SSL_CERT_FILE and SSL_CERT_DIR. No function reads any other environment
/// variable.
///
/// @param config_json  the configuration, one JSON object; only "clientId" and "clientSecret" (or
///                     "clientSecretFile") are required. The other keys and their defaults:
///                     docs/configuration.md
/// @param out_client   the client, to be freed with ghl_client_free; NULL on error
/// @param out_json     "{}", or the error; free with ghl_string_free; may be NULL
/// @return GHL_OK; GHL_ERR_INVALID_ARGUMENT for NULL, invalid UTF-8 or JSON, and an unknown,
///         missing or mistyped key, named by the error's "parameter"; GHL_ERR_CONFIG for a value
///         that cannot be used; GHL_ERR_STORE if the store cannot be opened; GHL_ERR_TIMEOUT if
///         another program blocks the database until timeouts.totalMs
///
/// Example:
///
/// ```c
/// ghl_client *client;
/// char *out;
/// if (ghl_client_new("{\"clientId\": \"…\", \"clientSecret\": \"…\","
///                    " \"store\": {\"kind\": \"sqlite\", \"path\": \"tokens.db\"}}",
///                    &client, &out) != GHL_OK) {
///     fprintf(stderr, "%s\n", out);
/// }
/// ghl_string_free(out);
/// ghl_client_free(client);
/// ```
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ghl_client_new(
    config_json: *const c_char,
    out_client: *mut *mut ghl_client,
    out_json: *mut *mut c_char,
) -> i32 {
    // SAFETY: the header requires valid pointers, or NULL.
    unsafe {
        set_null(out_client);
        boundary::call(out_json, || {
            if out_client.is_null() {
                return Err(Error::invalid_argument("out_client", "out_client is NULL"));
            }
            let config = Config::from_json(string::read("config_json", config_json)?)?;
            out_client.write(client_from(Client::new(&config)?));
            render(serde_json::json!({}))
        })
    }
}

/// Frees a client, its connections and its memory. Tokens in a durable store stay there. If a token
/// could not be saved so far, the save is retried for up to 5 s; if it still fails, the loss is
/// logged as an error.
///
/// Call it after the last call on the client has returned (ghl_client_cancel ends running calls
/// early), and never from a callback. Any thread.
///
/// @param client  a client, or NULL
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ghl_client_free(client: *mut ghl_client) {
    if client.is_null() {
        return;
    }
    // SAFETY: the header requires a client of this library, freed once, without running calls.
    let client = unsafe { Box::from_raw(client) };
    let _ = blocking(|| {
        drop(client);
        Ok(())
    });
}

/// Ends every call that is in progress on the client with GHL_ERR_CANCELLED; later calls are not
/// affected.
///
/// Any thread; never fails. Exception: a refresh whose request was sent continues, on the thread
/// that sent it, until its response is saved, because its refresh token is spent. Other callers
/// that wait for this refresh return at once.
///
/// @param client  a client, or NULL
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ghl_client_cancel(client: *mut ghl_client) {
    let _ = guarded(|| {
        // SAFETY: the header requires a valid client, or NULL.
        if let Some(client) = unsafe { client.as_ref() } {
            client.core.cancel();
        }
        Ok(())
    });
}

/// Ends the calls in progress that have this ID with GHL_ERR_CANCELLED, like ghl_client_cancel. The
/// ID of a call is the "callId" among its parameters; several calls may share one. Later calls with
/// the same ID are not affected.
///
/// Any thread, also inside a callback; does not wait. A refresh that was sent continues until its
/// response is saved, as for ghl_client_cancel.
///
/// @param client   a client
/// @param call_id  the ID, 1 to 256 bytes
/// @return GHL_OK, also if no call has the ID, since it may have ended just now;
///         GHL_ERR_INVALID_ARGUMENT for a NULL client, or an ID that no call can have
///
/// Example:
///
/// ```c
/// // On another thread: ghl_request(client, "{…, \"callId\": \"job 17\"}", &response)
/// ghl_call_cancel(client, "job 17");
/// ```
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ghl_call_cancel(client: *mut ghl_client, call_id: *const c_char) -> i32 {
    let outcome = guarded(|| {
        // SAFETY: the header requires a valid client and a valid string, or NULL.
        let (client, call_id) = unsafe { (client.as_ref(), string::read("call_id", call_id)) };
        match client {
            Some(client) => client.core.cancel_call(call_id?),
            None => Err(Error::invalid_argument("client", "client is NULL")),
        }
    });
    outcome.map_or_else(|error| error.status().code(), |()| 0)
}

/// Statistics of this client in this process, for monitoring: counters of requests and tokens since
/// the client was created, and the state of the rate limiter for the companies and locations with
/// the most requests. Never contains a secret. For figures about all stored tokens:
/// ghl_client_metrics.
///
/// "version" is the library's. All other values are integers, or null where noted:
///
/// - "requests": "sent" counts attempts, including repetitions; "repeated" the repetitions among
///   them; "unanswered" attempts without a response; "rateLimited" responses with status 429.
/// - "tokens": "inMemory" is the number of access tokens in memory; "unsaved" the number of new
///   tokens that the store has not accepted yet; "refreshed" and "minted" count successes, "failed"
///   failed refreshes and mints; "failedByStatus" divides "failed" by the name of the status, such
///   as "GHL_ERR_NETWORK", and omits zeros.
/// - "pace": "resources" is the number of companies and locations that the rate limiter tracks;
///   "waiting" the number of calls that wait for it now; "held" the number of resources that a 429
///   blocks now; "busiest" lists up to 20 resources: blocked ones first, then those with the most
///   waiting calls, then those with the most requests.
/// - an item of "busiest": "resourceId"; "inWindow" requests of the "requests" allowed per "perMs"
///   milliseconds, and "today" of the "perDay" allowed per day, are used; "waiting" calls wait;
///   "heldForMs" is how many milliseconds the last 429 still blocks requests, or null.
///
/// Any thread; does not wait.
///
/// @param client    a client
/// @param out_json  {"version", "requests": {"sent", "repeated", "unanswered", "rateLimited"},
///                  "tokens": {"inMemory", "unsaved", "refreshed", "minted", "failed",
///                  "failedByStatus": {…}}, "pace": {"resources", "waiting", "held", "busiest":
///                  [{"resourceId", "inWindow", "requests", "perMs", "today", "perDay", "waiting",
///                  "heldForMs"}, …]}}, or the error; free with ghl_string_free; may be NULL
/// @return GHL_OK; GHL_ERR_INVALID_ARGUMENT for a NULL client
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ghl_client_stats(
    client: *const ghl_client,
    out_json: *mut *mut c_char,
) -> i32 {
    // SAFETY: the header requires a valid client and a valid pointer, or NULL.
    unsafe { boundary::call(out_json, || render(core(client)?.stats()?)) }
}

/// Metrics in Prometheus' text format (version 0.0.4), for a host's own endpoint: serve the text
/// with the content type "text/plain; version=0.0.4; charset=utf-8". Never contains a secret or the
/// ID of a company or location.
///
/// The metrics of stored tokens (their number by state, failures by status, expiry, maintenance)
/// come from the store and are the same in every process that shares it. The call reads every
/// record, but writes nothing and sends nothing; 100,000 tokens take about a second. The other
/// metrics are counters of this client in this process, as for ghl_client_stats. If the store
/// cannot be read in time, ghl_oauth_store_up is 0 and only the counters follow. docs/monitoring.md
/// lists the metrics.
///
/// Any thread; waits for the store, at most "timeoutMs" or timeouts.totalMs.
///
/// @param client       a client
/// @param params_json  the call options; {} for none
/// @param out_text     the text, which ends with a line feed, or the error as JSON; free with
///                     ghl_string_free; may be NULL
/// @return GHL_OK, even if the store failed; GHL_ERR_INVALID_ARGUMENT, GHL_ERR_CANCELLED
///
/// Example:
///
/// ```c
/// char *text;
/// if (ghl_client_metrics(client, "{\"timeoutMs\": 5000}", &text) == GHL_OK) {
///     fputs(text, stdout);
/// }
/// ghl_string_free(text);
/// ```
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ghl_client_metrics(
    client: *mut ghl_client,
    params_json: *const c_char,
    out_text: *mut *mut c_char,
) -> i32 {
    // SAFETY: the header requires a valid client and valid pointers, or NULL.
    unsafe {
        boundary::call(out_text, || {
            let argument = ("params_json", params_json);
            let (client, params) = with_options(client, argument, &OPTION_KEYS)?;
            Ok(client.metrics(&params)?.into())
        })
    }
}

/// Sets the event callback of this client, or removes it if NULL.
///
/// Returns once the previous callback is no longer running, so its context may then be freed. Any
/// thread, but not from inside the callback.
///
/// @param client    a client
/// @param callback  the callback, or NULL
/// @param context   passed to the callback unchanged; may be NULL
/// @return GHL_OK; GHL_ERR_INVALID_ARGUMENT for a NULL client, or when called from inside the
///         callback
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ghl_client_on_event(
    client: *mut ghl_client,
    callback: ghl_event_callback,
    context: *mut c_void,
) -> i32 {
    let outcome = blocking(|| {
        // SAFETY: the header requires a valid client, or NULL.
        let client = unsafe { handle(client) }?;
        if callback.is_some() {
            let events = Arc::clone(&client.events);
            // Never removed again: the slot decides whether the event is delivered.
            client.core.on_event(Some(Arc::new(move |event| {
                let Ok(event) = CString::new(event.to_string()) else {
                    return;
                };
                // SAFETY: the header requires a function of this type that is safe to call from any
                // thread.
                events.run(|function, context| unsafe { function(event.as_ptr(), context) });
            })));
        }
        let callback = callback.map(|function| Callback { function, context: Context(context) });
        client.events.replace(callback, || {})
    });
    outcome.map_or_else(|error| error.status().code(), |()| 0)
}
