/*
 * ghl-oauth: OAuth 2.0 access to GoHighLevel that survives crashes, races and lost responses.
 *
 * Generated from src/ffi by cbindgen; change the documentation there.
 *
 *     ghl_client *client;
 *     char *out;
 *     const char *config = "{\"clientId\": \"…\", \"clientSecret\": \"…\"}";
 *     int32_t status = ghl_client_new(config, &client, &out);
 *     if (status != GHL_OK) {
 *         fprintf(stderr, "%s: %s\n", ghl_status_name(status), out);
 *     }
 *     ghl_string_free(out);
 *
 *     char *token, *error;
 *     if (ghl_access_token(client, "a company ID or location ID", &token, &error) == GHL_OK) {
 *         // Authorization: Bearer <token>
 *     }
 *     ghl_string_free(token);
 *     ghl_string_free(error);
 *     ghl_client_free(client);
 *
 * Results.  A function that can fail returns GHL_OK (0) or a GHL_ERR_ code. If it has an out_json
 *     (or out_error) parameter, it writes one JSON document there: the result, or {"error":
 *     {"status", "message", "help", "parameter", "retryable", "sent", "retryAfterMs",
 *     "resourceId", "httpStatus", "traceId", "api"}}. "message" says what happened, "help" what to
 *     do. "parameter" names the wrong argument or key, "retryable" says whether the same call,
 *     unchanged, may succeed later and may be repeated without harm. "sent" says whether the server
 *     may have acted on the call's request: false if it certainly did not, null without a request.
 *     "api" holds the server's error details. Pass NULL if only the code matters.
 *
 * Ownership.  Every out-pointer that is not NULL is set to NULL or 0 on entry. The caller owns
 *     every char * that the library returns and frees it with ghl_string_free, which accepts NULL
 *     and wipes the string. Input strings are NUL-terminated UTF-8 and are read during the call
 *     only. NULL and invalid UTF-8 are refused with the name of the parameter, unknown and mistyped
 *     JSON keys with the name of the key.
 *
 * Call options.  Every JSON object of parameters also accepts "timeoutMs" (1 to 86400000) and
 *     "callId" (1 to 256 bytes). "timeoutMs" ends the call after that time, shorter or longer,
 *     instead of timeouts.totalMs. It limits a call over many tokens altogether, which otherwise
 *     has no time limit. ghl_call_cancel ends the calls with a "callId". Neither ends a refresh or
 *     a code exchange that was sent: the call returns when the response is saved.
 *
 * Threads.  Any number of threads may use a client at once. Free it after the last call on it has
 *     returned. The library keeps no background threads: name lookups run on a short-lived thread,
 *     ghl_tokens_mint and ghl_tokens_maintain on worker threads that end before the call returns.
 *     Callbacks must not unwind. Event, progress and log callbacks run on a thread that is inside a
 *     call, while the library holds no lock, and may call the library, except ghl_client_free. The
 *     callbacks of a store must not call their client: see ghl_store_callbacks.
 *
 * Host.  Every function may be called while a thread or the process ends: from atexit, and from
 *     destructors of static and thread-local objects. A thread that is cancelled (pthread_cancel)
 *     completes its call first. A signal handler may call only ghl_abi_version, ghl_version and
 *     ghl_status_name. Calls need a stack of 64 KiB. docs/abi.md has the complete table.
 *
 * Side effects.  The library installs no signal handler, writes to neither stdout nor stderr
 *     (except Rust's message before the process aborts for lack of memory), and reads no
 *     environment variable, except SSL_CERT_FILE and SSL_CERT_DIR on platforms that keep trusted
 *     certificates in files. No descriptor of the library has the number of a standard stream.
 */

#ifndef GHL_OAUTH_H
#define GHL_OAUTH_H

#include <stddef.h>
#include <stdint.h>

/** The version of this header; ghl_version() gives the library's. */
#define GHL_OAUTH_VERSION "0.1.0"
#define GHL_OAUTH_VERSION_MAJOR 0
#define GHL_OAUTH_VERSION_MINOR 1
#define GHL_OAUTH_VERSION_PATCH 0


/**
 * The result of a call: `GHL_OK`, or the reason for its failure.
 *
 * A number never changes its meaning. Functions return `int32_t`, because a newer
 * library may return a code that an older header does not name: treat an unknown code
 * as a failure and read `retryable` in the error. Every other number up to 63 is
 * reserved.
 */
enum ghl_status
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * Success.
     */
    GHL_OK = 0,
    /**
     * An argument is NULL, malformed, unknown or out of range; the error's `parameter`
     * names it.
     */
    GHL_ERR_INVALID_ARGUMENT = 1,
    /**
     * The configuration cannot be used; the error's `parameter` names the key.
     */
    GHL_ERR_CONFIG = 2,
    /**
     * No token is held for the resource and none can be minted, or the API does not know
     * the resource.
     */
    GHL_ERR_NOT_FOUND = 3,
    /**
     * The connection is lost: a user must consent again.
     */
    GHL_ERR_REAUTHORIZATION_REQUIRED = 4,
    /**
     * The location is paused or its subscription ended. Its token is kept: try again
     * later.
     */
    GHL_ERR_LOCATION_INACTIVE = 5,
    /**
     * The API returned 401 although the token is fresh, or rejected the client
     * credentials.
     */
    GHL_ERR_UNAUTHORIZED = 6,
    /**
     * The token lacks the scope, or access to the location.
     */
    GHL_ERR_FORBIDDEN = 7,
    /**
     * The API rejected the request as invalid (400, 422) and says why.
     */
    GHL_ERR_INVALID_REQUEST = 8,
    /**
     * Too many requests; `retryAfterMs` says when to try again.
     */
    GHL_ERR_RATE_LIMITED = 9,
    /**
     * The request could not be sent, or no response arrived.
     */
    GHL_ERR_NETWORK = 10,
    /**
     * The deadline passed.
     */
    GHL_ERR_TIMEOUT = 11,
    /**
     * The API failed (5xx).
     */
    GHL_ERR_SERVER = 12,
    /**
     * The response does not have the documented form.
     */
    GHL_ERR_PROTOCOL = 13,
    /**
     * The token store failed.
     */
    GHL_ERR_STORE = 14,
    /**
     * The call was cancelled.
     */
    GHL_ERR_CANCELLED = 15,
    /**
     * The `state` of a consent is missing, unknown, expired or already used.
     */
    GHL_ERR_STATE_MISMATCH = 16,
    /**
     * The user, or the marketplace, refused consent.
     */
    GHL_ERR_CONSENT_DENIED = 17,
    /**
     * The signature of a webhook is invalid.
     */
    GHL_ERR_SIGNATURE_INVALID = 18,
    /**
     * A defect of the library; the client remains usable.
     */
    GHL_ERR_INTERNAL = 19,
    /**
     * The buffer is too small; `length` is set to the size that is needed.
     */
    GHL_ERR_BUFFER_TOO_SMALL = 20,
    /**
     * A record in the store has another version than expected.
     */
    GHL_ERR_CONFLICT = 21,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum ghl_status ghl_status;
#else
typedef int32_t ghl_status;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * A client: one app, its tokens, and its connections to the API.
 *
 * Created by ghl_client_new and freed by ghl_client_free. Any number of threads may use it at
 * once.
 */
typedef struct ghl_client ghl_client;

/**
 * Receives the library's log messages.
 *
 * Called on a thread that is inside a library call, while the library holds no lock. The callback
 * may call the library, except ghl_set_log_callback; messages that the library logs on this thread
 * meanwhile are dropped. It must not unwind (no C++ exception, no longjmp).
 *
 * @param level    1 error, 2 warning, 3 information, 4 debug, 5 trace
 * @param message  NUL-terminated UTF-8, valid until the callback returns; never contains a secret.
 *                 A sentence with fields at its end: key=value, or key="..." with a JSON string
 * @param context  the context passed to ghl_set_log_callback
 */
typedef void (*ghl_log_callback)(int32_t level,
                                 const char *message,
                                 void *context);

/**
 * Receives events as JSON: {"type", "resourceId", "at", "expiresAt"[, "error"]}. Times are
 * milliseconds since the epoch; an event never contains a secret. The types are token.saved,
 * token.refreshed, token.minted, token.deleted, token.reauthorizationRequired, token.refreshFailed
 * and token.unsaved.
 *
 * Called on a thread that is inside a library call, while the library holds no lock. The callback
 * may call the library, except ghl_client_free. It must not unwind (no C++ exception, no longjmp).
 *
 * @param event_json  NUL-terminated UTF-8, valid until the callback returns
 * @param context     the context passed to ghl_client_on_event
 */
typedef void (*ghl_event_callback)(const char *event_json,
                                   void *context);

/**
 * A custom store: the host's functions that keep the tokens of a client made by
 * ghl_client_new_with_store.
 *
 * The library reads and writes single records by ID, and encrypts them if store.encryptionKeys is
 * set. A record is one JSON object, which the store must return unchanged. The record of a token
 * is {"kind": "token", "resourceId", "version": 1 and up, "userType": "Company" or "Location",
 * "companyId" (or null), "renewAt" (milliseconds since the epoch), "sealedWith", "document"}. The
 * record of a note, whose ID begins with "~note/", is {"kind": "note", "resourceId", "version",
 * "list", "expiresAt" (milliseconds since the epoch), "document"}.
 *
 * The "document" of a token contains its secrets, in clear text unless it is encrypted; a note
 * contains no secret. The other fields serve for queries. Ids are up to 300 bytes of UTF-8 without
 * control characters and come from outside: never insert one into a path or an SQL statement
 * without escaping.
 *
 * Each callback returns GHL_OK or a failure code. GHL_ERR_CONFLICT from save and GHL_ERR_TIMEOUT
 * from lock have their own meaning, given below; every other code is a failure that the caller of
 * the library receives as GHL_ERR_STORE with the number in the message. A token that could not be
 * saved is kept in memory, and the save is retried.
 *
 * Threads: the library may call several callbacks at once, from any thread that is inside a call
 * on the client and from the worker threads of ghl_tokens_mint and ghl_tokens_maintain. It holds
 * no lock meanwhile except the refresh lock of the resource. A callback must not unwind. It must
 * not call its own client: such calls fail with GHL_ERR_INVALID_ARGUMENT, and ghl_client_free of
 * that client is not allowed. ghl_client_cancel, calls on other clients, and functions without a
 * client are allowed.
 *
 * Strings passed to a callback are valid until it returns. A forked child keeps using the same
 * callbacks, so the host's own handles must survive a fork; destroy is not called in the child.
 */
typedef struct ghl_store_callbacks {
    /**
     * sizeof(ghl_store_callbacks), so that the struct can grow.
     */
    size_t size;
    /**
     * Passed to each callback unchanged; may be NULL.
     */
    void *context;
    /**
     * Writes a copy of the record to *out_record_json, or NULL if there is no such record. On
     * failure, *out_record_json may be an explanation, which becomes part of the error message
     * unless it begins like JSON. Required.
     */
    int32_t (*load)(void *context,
                    const char *resource_id,
                    char **out_record_json);
    /**
     * Saves a record if the "version" of the stored record equals expected_version (0: no record
     * exists); otherwise returns GHL_ERR_CONFLICT. Compare and save in one atomic step across
     * processes, and return only when the record would survive a crash: the token that it replaces
     * is already invalid. Required.
     */
    int32_t (*save)(void *context,
                    const char *resource_id,
                    const char *record_json,
                    uint64_t expected_version);
    /**
     * Removes a record; returns GHL_OK if there is no such record. Required.
     */
    int32_t (*remove)(void *context,
                      const char *resource_id);
    /**
     * Writes a page to *out_page_json: {"items": [records…], "nextPageToken": the "resourceId" of
     * the last item, or null on the last page}. A small store may answer every query with all its
     * records and null.
     *
     * A large store evaluates the query: it returns the records whose IDs come after "pageToken"
     * (if given) in byte order, at most "pageSize" of them. Every other field is a filter: "kind",
     * "companyId", "userType" and "list" equal the record's field; "renewBy": the record's renewAt
     * is not later; "expiredBy": its expiresAt is not later; "notSealedWith": its sealedWith
     * differs. Filters only save work, because the library skips records that do not match; ignore
     * a filter that you do not know. If "withoutDocuments" is true, the items need no "document".
     * A failure may be explained as in load. Required.
     */
    int32_t (*list)(void *context,
                    const char *query_json,
                    char **out_page_json);
    /**
     * Takes the lock of an ID, across all processes that share the store, and waits for at most
     * timeout_ms milliseconds; returns GHL_ERR_TIMEOUT if the lock is still taken then. The lock
     * must be released when its holder dies. The library itself keeps the threads of this process
     * apart. One thread may hold the locks of several IDs. May be NULL together with unlock: then
     * only the threads of this process are kept apart, and two processes that refresh the same
     * token can lose it.
     */
    int32_t (*lock)(void *context,
                    const char *resource_id,
                    uint64_t timeout_ms);
    /**
     * Releases the lock, on the thread that took it.
     */
    void (*unlock)(void *context,
                   const char *resource_id);
    /**
     * Frees a string that load or list returned. May be NULL: then the host frees the string
     * itself, but not before the next callback on the same thread.
     */
    void (*free_string)(void *context,
                        char *string);
    /**
     * Called once, when the client is freed or could not be created: the context is no longer
     * used. May be NULL.
     */
    void (*destroy)(void *context);
} ghl_store_callbacks;

/**
 * Reports the progress of a long call and decides whether it continues.
 *
 * Called on the thread that made the call, while the library holds no lock. The callback may call
 * the library, except ghl_client_free. It must not unwind (no C++ exception, no longjmp).
 *
 * @param progress_json  NUL-terminated UTF-8, valid until the callback returns
 * @param context        the context passed with the callback
 * @return 0 to continue; any other value ends the call with GHL_ERR_CANCELLED
 */
typedef int32_t (*ghl_progress_callback)(const char *progress_json,
                                         void *context);

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * The version of this ABI. It is raised when something is added; existing items never change their
 * meaning.
 *
 * Any thread; never fails.
 */
uint32_t ghl_abi_version(void);

/**
 * The version of the library, such as "0.1.0".
 *
 * Any thread; never fails. The string is static: do not free it.
 */
const char *ghl_version(void);

/**
 * Describes the library: for logs, and to check a library before use.
 *
 * Any thread; does not wait.
 *
 * @param out_json  {"version", "abiVersion", "stores": ["memory", "callbacks", "sqlite"?,
 *                  "postgres"?], "features": the Cargo features it was built with, "tls":
 *                  "rustls"}, or the error; free with ghl_string_free; may be NULL
 * @return GHL_OK
 *
 * Example:
 *
 * ```c
 * char *info;
 * if (ghl_library_info(&info) == GHL_OK) {
 *     printf("%s\n", info);
 * }
 * ghl_string_free(info);
 * ```
 */
int32_t ghl_library_info(char **out_json);

/**
 * The name of a status, such as "GHL_ERR_RATE_LIMITED", or "GHL_ERR_UNKNOWN" for an unknown
 * number.
 *
 * Any thread; never fails. The string is static: do not free it.
 *
 * @param status  the return value of a call
 */
const char *ghl_status_name(int32_t status);

/**
 * Wipes and frees a string that the library returned.
 *
 * Any thread; never fails. The caller may have modified the string: its length is stored
 * separately.
 *
 * @param string  a string from this library, or NULL
 */
void ghl_string_free(char *string);

/**
 * Sets the log callback of the whole process, or removes it if NULL.
 *
 * Returns once the previous callback is no longer running, so its context may then be freed. Any
 * thread, but not from inside the callback. Without a callback nothing is logged.
 *
 * @param callback   the callback, or NULL
 * @param context    passed to the callback unchanged; may be NULL
 * @param max_level  the most detailed level that is reported: 0 nothing, 1 errors, 2 warnings, 3
 *                   information, 4 debug, 5 trace
 * @return GHL_OK; GHL_ERR_INVALID_ARGUMENT for another max_level, when called from inside the
 *         callback, or if a Rust host has installed its own logger
 */
int32_t ghl_set_log_callback(ghl_log_callback callback,
                             void *context,
                             int32_t max_level);

/**
 * Creates a client. Sends nothing to the API. Opens the store, which for postgres means a
 * connection, and reads the files named by clientSecretFile, http.caBundlePath,
 * store.caBundlePath and store.encryptionKeysPath.
 *
 * On platforms that keep trusted certificates in files, the first TLS request reads the
 * environment variables SSL_CERT_FILE and SSL_CERT_DIR. No function reads any other environment
 * variable.
 *
 * @param config_json  the configuration, one JSON object; only "clientId" and "clientSecret" (or
 *                     "clientSecretFile") are required. The other keys and their defaults:
 *                     docs/configuration.md
 * @param out_client   the client, to be freed with ghl_client_free; NULL on error
 * @param out_json     "{}", or the error; free with ghl_string_free; may be NULL
 * @return GHL_OK; GHL_ERR_INVALID_ARGUMENT for NULL, invalid UTF-8 or JSON, and an unknown,
 *         missing or mistyped key, named by the error's "parameter"; GHL_ERR_CONFIG for a value
 *         that cannot be used; GHL_ERR_STORE if the store cannot be opened; GHL_ERR_TIMEOUT if
 *         another program blocks the database until timeouts.totalMs
 *
 * Example:
 *
 * ```c
 * ghl_client *client;
 * char *out;
 * if (ghl_client_new("{\"clientId\": \"…\", \"clientSecret\": \"…\","
 *                    " \"store\": {\"kind\": \"sqlite\", \"path\": \"tokens.db\"}}",
 *                    &client, &out) != GHL_OK) {
 *     fprintf(stderr, "%s\n", out);
 * }
 * ghl_string_free(out);
 * ghl_client_free(client);
 * ```
 */
int32_t ghl_client_new(const char *config_json,
                       struct ghl_client **out_client,
                       char **out_json);

/**
 * Frees a client, its connections and its memory. Tokens in a durable store stay there. If a token
 * could not be saved so far, the save is retried for up to 5 s; if it still fails, the loss is
 * logged as an error.
 *
 * Call it after the last call on the client has returned (ghl_client_cancel ends running calls
 * early), and never from a callback. Any thread.
 *
 * @param client  a client, or NULL
 */
void ghl_client_free(struct ghl_client *client);

/**
 * Ends every call that is in progress on the client with GHL_ERR_CANCELLED; later calls are not
 * affected.
 *
 * Any thread; never fails. Exception: a refresh whose request was sent continues, on the thread
 * that sent it, until its response is saved, because its refresh token is spent. Other callers
 * that wait for this refresh return at once.
 *
 * @param client  a client, or NULL
 */
void ghl_client_cancel(struct ghl_client *client);

/**
 * Ends the calls in progress that have this ID with GHL_ERR_CANCELLED, like ghl_client_cancel. The
 * ID of a call is the "callId" among its parameters; several calls may share one. Later calls with
 * the same ID are not affected.
 *
 * Any thread, also inside a callback; does not wait. A refresh that was sent continues until its
 * response is saved, as for ghl_client_cancel.
 *
 * @param client   a client
 * @param call_id  the ID, 1 to 256 bytes
 * @return GHL_OK, also if no call has the ID, since it may have ended just now;
 *         GHL_ERR_INVALID_ARGUMENT for a NULL client, or an ID that no call can have
 *
 * Example:
 *
 * ```c
 * // On another thread: ghl_request(client, "{…, \"callId\": \"job 17\"}", &response)
 * ghl_call_cancel(client, "job 17");
 * ```
 */
int32_t ghl_call_cancel(struct ghl_client *client,
                        const char *call_id);

/**
 * Statistics of this client in this process, for monitoring: counters of requests and tokens since
 * the client was created, and the state of the rate limiter for the companies and locations with
 * the most requests. Never contains a secret. For figures about all stored tokens:
 * ghl_client_metrics.
 *
 * "version" is the library's. All other values are integers, or null where noted:
 *
 * - "requests": "sent" counts attempts, including repetitions; "repeated" the repetitions among
 *   them; "unanswered" attempts without a response; "rateLimited" responses with status 429.
 * - "tokens": "inMemory" is the number of access tokens in memory; "unsaved" the number of new
 *   tokens that the store has not accepted yet; "refreshed" and "minted" count successes, "failed"
 *   failed refreshes and mints; "failedByStatus" divides "failed" by the name of the status, such
 *   as "GHL_ERR_NETWORK", and omits zeros.
 * - "pace": "resources" is the number of companies and locations that the rate limiter tracks;
 *   "waiting" the number of calls that wait for it now; "held" the number of resources that a 429
 *   blocks now; "busiest" lists up to 20 resources: blocked ones first, then those with the most
 *   waiting calls, then those with the most requests.
 * - an item of "busiest": "resourceId"; "inWindow" requests of the "requests" allowed per "perMs"
 *   milliseconds, and "today" of the "perDay" allowed per day, are used; "waiting" calls wait;
 *   "heldForMs" is how many milliseconds the last 429 still blocks requests, or null.
 *
 * Any thread; does not wait.
 *
 * @param client    a client
 * @param out_json  {"version", "requests": {"sent", "repeated", "unanswered", "rateLimited"},
 *                  "tokens": {"inMemory", "unsaved", "refreshed", "minted", "failed",
 *                  "failedByStatus": {…}}, "pace": {"resources", "waiting", "held", "busiest":
 *                  [{"resourceId", "inWindow", "requests", "perMs", "today", "perDay", "waiting",
 *                  "heldForMs"}, …]}}, or the error; free with ghl_string_free; may be NULL
 * @return GHL_OK; GHL_ERR_INVALID_ARGUMENT for a NULL client
 */
int32_t ghl_client_stats(const struct ghl_client *client,
                         char **out_json);

/**
 * Metrics in Prometheus' text format (version 0.0.4), for a host's own endpoint: serve the text
 * with the content type "text/plain; version=0.0.4; charset=utf-8". Never contains a secret or the
 * ID of a company or location.
 *
 * The metrics of stored tokens (their number by state, failures by status, expiry, maintenance)
 * come from the store and are the same in every process that shares it. The call reads every
 * record, but writes nothing and sends nothing; 100,000 tokens take about a second. The other
 * metrics are counters of this client in this process, as for ghl_client_stats. If the store
 * cannot be read in time, ghl_oauth_store_up is 0 and only the counters follow. docs/monitoring.md
 * lists the metrics.
 *
 * Any thread; waits for the store, at most "timeoutMs" or timeouts.totalMs.
 *
 * @param client       a client
 * @param params_json  the call options; {} for none
 * @param out_text     the text, which ends with a line feed, or the error as JSON; free with
 *                     ghl_string_free; may be NULL
 * @return GHL_OK, even if the store failed; GHL_ERR_INVALID_ARGUMENT, GHL_ERR_CANCELLED
 *
 * Example:
 *
 * ```c
 * char *text;
 * if (ghl_client_metrics(client, "{\"timeoutMs\": 5000}", &text) == GHL_OK) {
 *     fputs(text, stdout);
 * }
 * ghl_string_free(text);
 * ```
 */
int32_t ghl_client_metrics(struct ghl_client *client,
                           const char *params_json,
                           char **out_text);

/**
 * Sets the event callback of this client, or removes it if NULL.
 *
 * Returns once the previous callback is no longer running, so its context may then be freed. Any
 * thread, but not from inside the callback.
 *
 * @param client    a client
 * @param callback  the callback, or NULL
 * @param context   passed to the callback unchanged; may be NULL
 * @return GHL_OK; GHL_ERR_INVALID_ARGUMENT for a NULL client, or when called from inside the
 *         callback
 */
int32_t ghl_client_on_event(struct ghl_client *client,
                            ghl_event_callback callback,
                            void *context);

/**
 * Creates a client whose tokens are kept by a custom store. In all other respects it works like
 * ghl_client_new.
 *
 * "store" may be omitted from the configuration. If present, its kind is "callbacks" ("memory" is
 * treated as omitted), and it may contain encryptionKeys, encryptionKeysPath and sealedOnly.
 * Without lock callbacks the library logs a warning, because tokens are then safe only while no
 * other process uses them.
 *
 * @param config_json  as for ghl_client_new
 * @param store        the callbacks; copied, so the struct need not outlive the call. Bytes beyond
 *                     the fields that this version knows must be zero. destroy is called even if
 *                     this function fails, unless store is NULL or its size is too small
 * @param out_client   the client, to be freed with ghl_client_free; NULL on error
 * @param out_json     {"lock": "host"}, or {"lock": "process"} without lock callbacks; or the
 *                     error; free with ghl_string_free; may be NULL
 * @return the results of ghl_client_new; also GHL_ERR_INVALID_ARGUMENT for a missing callback,
 *         named by the error's "parameter" ("store.load"), and for lock without unlock or unlock
 *         without lock
 */
int32_t ghl_client_new_with_store(const char *config_json,
                                  const struct ghl_store_callbacks *store,
                                  struct ghl_client **out_client,
                                  char **out_json);

/**
 * Builds the URL of the consent page (RFC 6749, section 4.1.1). Sends nothing.
 *
 * The URL is valid for one consent within one hour. Any thread; does not wait.
 *
 * @param client       a client
 * @param params_json  {"scopes"?, "redirectUri"?, "versionId"?, "loginInSameTab"?, "state"?} and
 *                     the call options; scopes and redirect URI default to the configured ones,
 *                     "state" to 256 random bits
 * @param out_json     {"url", "state"}, or the error; free with ghl_string_free; may be NULL
 * @return GHL_OK; GHL_ERR_INVALID_ARGUMENT
 *
 * Example:
 *
 * ```c
 * char *link;
 * const char *scopes = "{\"scopes\": [\"oauth.readonly\", \"oauth.write\"]}";
 * if (ghl_authorization_url(client, scopes, &link) == GHL_OK) {
 *     printf("%s\n", link); // send the user to its "url"
 * }
 * ghl_string_free(link);
 * ```
 */
int32_t ghl_authorization_url(struct ghl_client *client,
                              const char *params_json,
                              char **out_json);

/**
 * Checks the redirect from the consent page, exchanges its code for a token and stores the token
 * (RFC 6749, sections 4.1.2 and 4.1.3).
 *
 * The API's response decides who owns the token: a company can install an app that is made for
 * locations. If the API has not rejected the code, the same redirect may be passed again after an
 * error; if the response was lost, the code has already been sent twice. Any thread; waits for the
 * response, at most timeouts.totalMs.
 *
 * @param client       a client
 * @param params_json  {"redirectUrl": the full URL to which the browser was redirected, "state"?,
 *                     "allowMissingState"?, "redirectUri"?, "userType"? ("Company" | "Location")}
 *                     and the call options. Pass "state", as kept in the browser session, if
 *                     another process built the URL. "allowMissingState": true accepts an
 *                     installation that was started inside the marketplace, which has no state.
 *                     Pass "redirectUri" if another process built the URL with a redirect URI that
 *                     is not the configured one
 * @param out_json     the metadata of the stored token {"resourceId", "userType", "companyId",
 *                     "locationId", "scope", "expiresAt", "refreshable", "state"}, or the error;
 *                     free with ghl_string_free; may be NULL
 * @return GHL_OK; GHL_ERR_INVALID_ARGUMENT for a URL that is not the app's redirect,
 *         GHL_ERR_CONSENT_DENIED, GHL_ERR_STATE_MISMATCH, GHL_ERR_REAUTHORIZATION_REQUIRED for a
 *         refused code, GHL_ERR_UNAUTHORIZED for refused client credentials, GHL_ERR_FORBIDDEN,
 *         GHL_ERR_NOT_FOUND, GHL_ERR_LOCATION_INACTIVE, GHL_ERR_INVALID_REQUEST,
 *         GHL_ERR_RATE_LIMITED, GHL_ERR_NETWORK, GHL_ERR_TIMEOUT, GHL_ERR_SERVER,
 *         GHL_ERR_PROTOCOL, GHL_ERR_STORE, GHL_ERR_CANCELLED
 *
 * Example:
 *
 * ```c
 * const char *params = "{\"redirectUrl\": \"https://app.example/oauth/callback?code=…&state=…\"}";
 * char *stored;
 * if (ghl_authorization_complete(client, params, &stored) == GHL_OK) {
 *     printf("connected: %s\n", stored);
 * }
 * ghl_string_free(stored);
 * ```
 */
int32_t ghl_authorization_complete(struct ghl_client *client,
                                   const char *params_json,
                                   char **out_json);

/**
 * Waits for the redirect on a loopback port, then completes the consent like
 * ghl_authorization_complete.
 *
 * For development and for programs without a web server: point an HTTPS tunnel from the redirect
 * URI to the port, show the user the URL of ghl_authorization_url, and call this function. It
 * listens on 127.0.0.1 only. The first redirect with the expected "state" ends the wait: the
 * browser shows the page of consentPage (docs/configuration.md), and the port is closed. Requests
 * with another path, method, host or state, and idle connections, are refused without ending the
 * wait. Several threads may listen at once on different ports.
 *
 * Any thread; waits at most "timeoutMs" for the browser, then at most timeouts.totalMs for the
 * exchange. ghl_client_cancel and ghl_call_cancel end the wait at once.
 *
 * @param client       a client
 * @param params_json  {"port"?, "timeoutMs"?, "state"?, "allowMissingState"?, "redirectUri"?,
 *                     "userType"?, "callId"?}. "port": 1 to 65535; by default the port of the
 *                     redirect URI, if that is http on localhost or 127.0.0.1. "timeoutMs": 1 to
 *                     3600000, by default 300000. "redirectUri": by default the configured one.
 *                     The others are as for ghl_authorization_complete; with "allowMissingState"
 *                     any page in the user's browser can end the wait and inject its own code
 * @param out_json     the metadata of the stored token, as for ghl_authorization_complete, or the
 *                     error; free with ghl_string_free; may be NULL
 * @return GHL_OK; GHL_ERR_INVALID_ARGUMENT, also for a port that is in use; GHL_ERR_TIMEOUT if no
 *         redirect arrived; GHL_ERR_CANCELLED; after the redirect, the errors of
 *         ghl_authorization_complete
 */
int32_t ghl_authorization_listen(struct ghl_client *client,
                                 const char *params_json,
                                 char **out_json);

/**
 * Returns a valid access token for a company or location: from memory while it is fresh; otherwise
 * refreshed, or minted if the resource is a location whose company's token is held. One caller
 * renews the token while the others wait.
 *
 * Any thread; waits at most timeouts.totalMs, and only when the token is due for renewal. A failed
 * renewal is hidden from callers while the old access token is still valid.
 *
 * @param client       a client
 * @param resource_id  a company ID or a location ID
 * @param out_token    the access token; free with ghl_string_free, which wipes it; NULL on error;
 *                     may be NULL
 * @param out_error    NULL, or the error; free with ghl_string_free; may be NULL
 * @return GHL_OK; GHL_ERR_INVALID_ARGUMENT, GHL_ERR_NOT_FOUND, GHL_ERR_REAUTHORIZATION_REQUIRED,
 *         GHL_ERR_LOCATION_INACTIVE, GHL_ERR_UNAUTHORIZED, GHL_ERR_FORBIDDEN,
 *         GHL_ERR_INVALID_REQUEST, GHL_ERR_RATE_LIMITED, GHL_ERR_NETWORK, GHL_ERR_TIMEOUT,
 *         GHL_ERR_SERVER, GHL_ERR_PROTOCOL, GHL_ERR_STORE, GHL_ERR_CANCELLED
 *
 * Example:
 *
 * ```c
 * char *token, *error;
 * if (ghl_access_token(client, "a company ID or location ID", &token, &error) == GHL_OK) {
 *     printf("Authorization: Bearer %s\n", token);
 * } else {
 *     fprintf(stderr, "%s\n", error);
 * }
 * ghl_string_free(token);
 * ghl_string_free(error);
 * ```
 */
int32_t ghl_access_token(struct ghl_client *client,
                         const char *resource_id,
                         char **out_token,
                         char **out_error);

/**
 * Like ghl_access_token, with options: for an upload that takes longer than the usual reserve of
 * refresh.marginSeconds, for a call with its own time limit, and for a call that can be cancelled.
 *
 * A token with less than "minValidSeconds" left is renewed. If the renewal fails, its error is
 * returned, even if the old token is still valid for a shorter time. A token that was granted
 * within the last minute is returned although its whole life may be shorter, because a renewal
 * would not help.
 *
 * Any thread; waits at most "timeoutMs" or timeouts.totalMs, and only if the token is renewed.
 *
 * @param client       a client
 * @param params_json  {"resourceId", "minValidSeconds"?, "timeoutMs"?, "callId"?}: a company ID or
 *                     a location ID; the number of seconds for which the token must be valid, by
 *                     default until its next renewal; the call options
 * @param out_token    the access token; free with ghl_string_free, which wipes it; NULL on error;
 *                     may be NULL
 * @param out_error    NULL, or the error; free with ghl_string_free; may be NULL
 * @return GHL_OK; the errors of ghl_access_token
 *
 * Example:
 *
 * ```c
 * char *token;
 * const char *params = "{\"resourceId\": \"a location ID\", \"minValidSeconds\": 7200}";
 * if (ghl_access_token_with(client, params, &token, NULL) == GHL_OK) {
 *     printf("Authorization: Bearer %s\n", token); // valid for two hours
 * }
 * ghl_string_free(token);
 * ```
 */
int32_t ghl_access_token_with(struct ghl_client *client,
                              const char *params_json,
                              char **out_token,
                              char **out_error);

/**
 * Like ghl_access_token, but writes into the caller's buffer: no allocation while the token is
 * fresh.
 *
 * On error the buffer contains an empty string. The caller wipes the buffer.
 *
 * @param client       a client
 * @param resource_id  a company ID or a location ID
 * @param buffer       receives the token, NUL-terminated; may be NULL if *length is 0
 * @param length       in: the size of the buffer in bytes; out: the bytes needed, including the
 *                     NUL; 0 on errors other than GHL_ERR_BUFFER_TOO_SMALL
 * @param out_error    NULL, or the error; free with ghl_string_free; may be NULL
 * @return GHL_OK; GHL_ERR_BUFFER_TOO_SMALL; the errors of ghl_access_token
 *
 * Example:
 *
 * ```c
 * char token[2048];
 * size_t length = sizeof token;
 * if (ghl_access_token_into(client, "a resource ID", token, &length, NULL) == GHL_OK) {
 *     printf("Authorization: Bearer %s\n", token);
 * }
 * ```
 */
int32_t ghl_access_token_into(struct ghl_client *client,
                              const char *resource_id,
                              char *buffer,
                              size_t *length,
                              char **out_error);

/**
 * Copies a fresh access token from memory into the caller's buffer, like ghl_access_token_into,
 * but never waits: for event loops.
 *
 * Sends nothing, reads no store and allocates nothing. If memory holds no fresh token, call a
 * function that may wait, on another thread. Any thread; does not wait.
 *
 * @param client       a client
 * @param resource_id  a company ID or a location ID
 * @param buffer       receives the token, NUL-terminated; may be NULL if *length is 0
 * @param length       in: the size of the buffer in bytes; out: the bytes needed, including the
 *                     NUL; 0 on errors other than GHL_ERR_BUFFER_TOO_SMALL
 * @return GHL_OK; GHL_ERR_BUFFER_TOO_SMALL; GHL_ERR_TIMEOUT if memory holds no fresh token, also
 *         for an unknown ID; GHL_ERR_INVALID_ARGUMENT
 *
 * Example:
 *
 * ```c
 * char token[2048];
 * size_t length = sizeof token;
 * if (ghl_access_token_try_into(client, "a location ID", token, &length) == GHL_OK) {
 *     printf("Authorization: Bearer %s\n", token);
 * } // GHL_ERR_TIMEOUT: let a worker thread call ghl_access_token_into
 * ```
 */
int32_t ghl_access_token_try_into(struct ghl_client *client,
                                  const char *resource_id,
                                  char *buffer,
                                  size_t *length);

/**
 * Refreshes or mints the token now, even if it is still fresh.
 *
 * Concurrent callers share one refresh. The server is asked even during the backoff after failed
 * refreshes and while the location is known to be inactive. Any thread; waits at most
 * timeouts.totalMs.
 *
 * @param client       a client
 * @param resource_id  a company ID or a location ID
 * @param out_json     the metadata of the new token, as for ghl_authorization_complete, or the
 *                     error; free with ghl_string_free; may be NULL
 * @return GHL_OK; the errors of ghl_access_token. A valid old token does not hide a failure here
 */
int32_t ghl_token_refresh(struct ghl_client *client,
                          const char *resource_id,
                          char **out_json);

/**
 * Like ghl_token_refresh, with the call options.
 *
 * Any thread; waits at most "timeoutMs" or timeouts.totalMs.
 *
 * @param client       a client
 * @param params_json  {"resourceId", "timeoutMs"?, "callId"?}: a company ID or a location ID; the
 *                     call options
 * @param out_json     the metadata of the new token, as for ghl_authorization_complete, or the
 *                     error; free with ghl_string_free; may be NULL
 * @return GHL_OK; the errors of ghl_token_refresh
 */
int32_t ghl_token_refresh_with(struct ghl_client *client,
                               const char *params_json,
                               char **out_json);

/**
 * Deletes a token from memory and from the store. The API is not told: the app stays installed.
 *
 * A refresh or mint in progress does not bring the token back. An unreadable record is deleted as
 * well. Any thread; waits for a refresh of the same resource, at most 5 s.
 *
 * @param client       a client
 * @param resource_id  a company ID or a location ID
 * @param out_json     the metadata of the deleted token, or {"resourceId", "state": "unreadable"},
 *                     or the error; free with ghl_string_free; may be NULL
 * @return GHL_OK; GHL_ERR_INVALID_ARGUMENT, GHL_ERR_NOT_FOUND, GHL_ERR_STORE, GHL_ERR_TIMEOUT,
 *         GHL_ERR_CANCELLED
 */
int32_t ghl_token_delete(struct ghl_client *client,
                         const char *resource_id,
                         char **out_json);

/**
 * Lists the stored tokens page by page: metadata without secrets.
 *
 * First retries the save of unsaved tokens. Tokens that the store still refuses are listed with
 * the state "unsaved" if the store can be read. Any thread; waits at most 3 s, and only if such a
 * token is being refreshed.
 *
 * @param client       a client
 * @param params_json  {"companyId"?, "userType"? ("Company" | "Location"), "state"?, "failing"?,
 *                     "expiresBefore"?, "pageSize"? (1 to 1000, default 100), "pageToken"?} and
 *                     the call options; "companyId" selects the company and its locations, "state"
 *                     the tokens in a state, "failing": true those with a "lastFailure",
 *                     "expiresBefore" those whose access token expires before that time
 *                     (milliseconds since the epoch). With one of the last three, a call reads
 *                     the store until the page is full
 * @param out_json     {"items": [{metadata}], "nextPageToken", "failed"?: [{"resourceId",
 *                     "error"}]}, or the error; free with ghl_string_free; may be NULL.
 *                     "nextPageToken" is null on the last page. The "state" of an item is "ok",
 *                     "inactive", "reauthorizationRequired" or "unsaved". "lastSuccessAt" is when
 *                     the API last granted a token, null if unknown. "lastFailure" is null, or the
 *                     last failed renewal since then: {"firstAt", "at", "attempts", "status",
 *                     "message", "httpStatus", "traceId", "nextAttemptAt"}: the first failure, the
 *                     newest, their number, the name of the status, the server's message or ours
 *                     (at most 200 bytes), the response if there was one, and the earliest time of
 *                     the next attempt, null if only a consent or an import helps. All times are
 *                     milliseconds since the epoch. "failed" names the unreadable records of the
 *                     page: damaged, or encrypted with a key that is not configured
 * @return GHL_OK; GHL_ERR_INVALID_ARGUMENT, GHL_ERR_STORE, GHL_ERR_TIMEOUT, GHL_ERR_CANCELLED
 *
 * Example:
 *
 * ```c
 * char *page;
 * if (ghl_tokens_list(client, "{\"pageSize\": 100}", &page) == GHL_OK) {
 *     printf("%s\n", page); // "nextPageToken" is the "pageToken" of the next call
 * }
 * ghl_string_free(page);
 * ```
 */
int32_t ghl_tokens_list(struct ghl_client *client,
                        const char *params_json,
                        char **out_json);

/**
 * Imports tokens that were granted elsewhere: from an export, or in the form in which the vendor's
 * SDKs store them.
 *
 * Unless "replace" is true, a good token is not replaced by an older token, by one without
 * "expiresAt", or, if it has a refresh token, by one without; and a token that was held when its
 * app was uninstalled is skipped, so that an import at each start does not bring it back. A
 * refresh token that this store has spent is always skipped, and so is a second owner of the same
 * refresh token. A token with neither an expiry nor a refresh token never expires. A location
 * without "ownConsent" is deleted by the UNINSTALL webhook of its company, unless its record here
 * says that it consented separately.
 *
 * Any thread; waits for refreshes of the same resources, at most timeouts.totalMs for each hundred
 * tokens, and at most "timeoutMs" in all.
 *
 * @param client       a client
 * @param tokens_json  {"tokens": [{"accessToken", "refreshToken", "expiresAt" (milliseconds since
 *                     the epoch) or "expiresIn" (seconds from now), "userType", "companyId",
 *                     "locationId", "scope", "ownConsent" (boolean: the location consented
 *                     separately), …}], "replace"?, "dryRun"?} and the call options; snake_case is
 *                     accepted as well ("access_token", "expire_at", …); camelCase takes
 *                     precedence. With "dryRun": true the call only reports what it would do: it
 *                     changes nothing, and another program may change the outcome until the import
 * @param out_json     {"imported", "skipped": [{"index", "resourceId", "reason"}]}, or the error;
 *                     free with ghl_string_free; may be NULL. With "dryRun" also "accepted":
 *                     [{"index", "resourceId", "replaces" (whether a token is stored already)}]
 * @return GHL_OK, even if all were skipped; GHL_ERR_INVALID_ARGUMENT; GHL_ERR_STORE,
 *         GHL_ERR_TIMEOUT and GHL_ERR_CANCELLED, after which some of the tokens are imported and
 *         the same import can be repeated
 */
int32_t ghl_tokens_import(struct ghl_client *client,
                          const char *tokens_json,
                          char **out_json);

/**
 * Moves the tokens of another client ID in the same database to this client's ID. After a key
 * rotation an app has a new client ID, for which the store looks empty.
 *
 * For the stores "sqlite" and "postgres". Stop the programs that use the other client ID first.
 * The tokens do not change; encrypted records need their key in store.encryptionKeys. Each token
 * is saved under this client ID before it is deleted under the other one, so an interrupted call
 * loses nothing and can be repeated. A token that is already held under this client ID stays,
 * unless its state is "reauthorizationRequired". To undo, adopt in the other direction. Only the
 * next refresh shows whether the API accepts the refresh token under the new client ID.
 *
 * Any thread; waits for refreshes of the same resources, at most timeouts.totalMs for each.
 *
 * @param client       a client
 * @param params_json  {"clientId"?, "resourceId"?, "dryRun"?} and the call options: the other
 *                     client ID; a company or location to which the call is limited; whether to
 *                     report without changes. Without "clientId" nothing is adopted, and "clients"
 *                     names the other client IDs
 * @param out_json     {"adopted", "skipped": [{"resourceId", "reason"}], "failed": [{"resourceId",
 *                     "error"}], "clients": [{"clientId", "tokens"}]}, or the error; free with
 *                     ghl_string_free; may be NULL. "failed" names unreadable records, "clients"
 *                     the other client IDs with tokens in the database, at most 100, with the
 *                     number of their tokens
 * @return GHL_OK, even if all were skipped; GHL_ERR_INVALID_ARGUMENT; GHL_ERR_CONFIG for a store
 *         that holds the tokens of only one client ID; GHL_ERR_STORE, GHL_ERR_TIMEOUT,
 *         GHL_ERR_CANCELLED
 */
int32_t ghl_tokens_adopt(struct ghl_client *client,
                         const char *params_json,
                         char **out_json);

/**
 * Exports tokens with their secrets, page by page, in the form that ghl_tokens_import reads.
 *
 * Two programs that both refresh an exported token invalidate it for each other: stop one of them
 * first. Tokens that the store has not accepted yet are exported as well if the store can be read.
 * Any thread; waits like ghl_tokens_list.
 *
 * @param client       a client
 * @param params_json  as for ghl_tokens_list
 * @param out_json     {"tokens": […], "nextPageToken", "failed"? as for ghl_tokens_list}, or the
 *                     error; free with ghl_string_free, which wipes it; may be NULL. A location
 *                     that consented separately has "ownConsent": true
 * @return GHL_OK; GHL_ERR_INVALID_ARGUMENT, GHL_ERR_STORE, GHL_ERR_TIMEOUT, GHL_ERR_CANCELLED
 */
int32_t ghl_tokens_export(struct ghl_client *client,
                          const char *params_json,
                          char **out_json);

/**
 * Renews every token that is due, in one pass, for the host's scheduler: refreshes or mints each
 * token with less than refresh.runwayPercent of its life left, resolves refreshes whose outcome is
 * unknown, retries saves that the store refused, and mints for locations whose INSTALL webhook
 * could not be served at the time. Finally encrypts all records that are not encrypted with the
 * first of store.encryptionKeys.
 *
 * Call it every few minutes; "nextDueAt" says when the next token is due. One failure does not
 * stop the rest. Several processes may run it at the same time and share the work. Any thread;
 * waits until all is done, at most timeouts.totalMs for each token, or until "timeoutMs": renewed
 * tokens are saved, and the next call continues. With "concurrency" above 1 the
 * call runs worker threads, which end before it returns; progress and event callbacks run on the
 * calling thread.
 *
 * @param client       a client
 * @param params_json  {"companyId"?, "concurrency"?} and the call options; "companyId" restricts
 *                     the pass to that company and its locations, without the encryption;
 *                     "concurrency" is the number of concurrent renewals, 1 to 64, default 1
 * @param progress     called after each token, and after each hundred encrypted records, with
 *                     {"checked", "refreshed", "resealed", "failed"}; may be NULL
 * @param context      passed to the callback unchanged; may be NULL
 * @param out_json     {"checked", "refreshed", "resealed", "unsealed", "failed": [{"resourceId",
 *                     "error"}], "nextDueAt"}, or the error; free with ghl_string_free; may be
 *                     NULL. "unsealed" counts records that could not be encrypted because they are
 *                     unreadable or were changed meanwhile; an "error" is an error of
 *                     ghl_token_refresh; "nextDueAt" is in milliseconds since the epoch, or null.
 *                     A token that the store still refuses is listed in "failed"
 * @return GHL_OK, even if some failed; GHL_ERR_INVALID_ARGUMENT, GHL_ERR_STORE, GHL_ERR_TIMEOUT,
 *         GHL_ERR_CANCELLED
 *
 * Example:
 *
 * ```c
 * char *report;
 * if (ghl_tokens_maintain(client, "{\"concurrency\": 4}", NULL, NULL, &report) != GHL_OK) {
 *     fprintf(stderr, "%s\n", report);
 * }
 * ghl_string_free(report);
 * ```
 */
int32_t ghl_tokens_maintain(struct ghl_client *client,
                            const char *params_json,
                            ghl_progress_callback progress,
                            void *context,
                            char **out_json);

/**
 * Mints tokens for many locations of a company: for a list of locations, or for all that have the
 * app installed.
 *
 * Runs as fast as the company's rate limit allows. A location whose token is not due is skipped,
 * so a second run continues where the first one stopped. A location with its own consent is
 * refreshed, not minted, unless "force" is set, and counts as "fresh". One failure does not stop
 * the rest. For some seconds after a consent the API may list no installed locations: "total" is
 * 0 then, and a later run finds them.
 *
 * Any thread; waits until all is done, or until "timeoutMs". The call runs worker threads, which
 * end before it returns; progress and event callbacks run on the calling thread.
 *
 * @param client       a client
 * @param params_json  {"companyId", "locationIds": […]} or {"companyId", "installed": true,
 *                     "appId"?}; also "force"? (true: mint tokens that are not due as well),
 *                     "concurrency"? (concurrent requests, 1 to 64, default 8) and the call
 *                     options
 * @param progress     called about four times a second, and at the end, with {"done", "failed",
 *                     "total", "perSecond", "secondsLeft"}; "total" and "secondsLeft" are null
 *                     while unknown; may be NULL
 * @param context      passed to the callback unchanged; may be NULL
 * @param out_json     {"total", "minted", "fresh", "failed": [{"locationId", "error"}]}, or the
 *                     error; free with ghl_string_free; may be NULL. An "error" is an error of
 *                     ghl_token_refresh
 * @return GHL_OK, even if some failed; GHL_ERR_INVALID_ARGUMENT; the errors of ghl_access_token
 *         for the company; GHL_ERR_STORE if new tokens cannot be saved; GHL_ERR_CANCELLED;
 *         GHL_ERR_TIMEOUT after "timeoutMs"; GHL_ERR_NETWORK, GHL_ERR_TIMEOUT, GHL_ERR_SERVER or
 *         GHL_ERR_PROTOCOL after 25 such failures in a row; GHL_ERR_RATE_LIMITED if the server
 *         demands a pause of more than 15 minutes. Tokens minted before an error are saved
 *
 * Example:
 *
 * ```c
 * char *report;
 * const char *params = "{\"companyId\": \"…\", \"installed\": true}";
 * if (ghl_tokens_mint(client, params, NULL, NULL, &report) == GHL_OK) {
 *     printf("%s\n", report); // "failed" names the locations without a token
 * }
 * ghl_string_free(report);
 * ```
 */
int32_t ghl_tokens_mint(struct ghl_client *client,
                        const char *params_json,
                        ghl_progress_callback progress,
                        void *context,
                        char **out_json);

/**
 * Sends POST /oauth/token (operation get-access-token; RFC 6749, sections 4.1.3, 4.4 and 6) and
 * returns its response. Stores nothing: the caller keeps the token. ghl_authorization_complete and
 * ghl_access_token are the managed way.
 *
 * A refresh whose response is lost is not repeated: call again at once with the same token.
 * Any thread; waits for the response, at most timeouts.totalMs.
 *
 * @param client       a client
 * @param params_json  {"grantType": "authorization_code" | "refresh_token" | "client_credentials",
 *                     "code"?, "refreshToken"?, "userType"? ("Company" | "Location"),
 *                     "redirectUri"?, "clientId"?, "clientSecret"?} and the call options; client
 *                     ID and secret default to the configured ones
 * @param out_json     the API's response in camelCase with "expiresAt" (milliseconds since the
 *                     epoch) added, or the error; free with ghl_string_free; may be NULL
 * @return GHL_OK; GHL_ERR_INVALID_ARGUMENT, GHL_ERR_REAUTHORIZATION_REQUIRED for a refused code or
 *         refresh token, GHL_ERR_UNAUTHORIZED for refused client credentials, GHL_ERR_FORBIDDEN,
 *         GHL_ERR_NOT_FOUND, GHL_ERR_LOCATION_INACTIVE, GHL_ERR_INVALID_REQUEST,
 *         GHL_ERR_RATE_LIMITED, GHL_ERR_NETWORK, GHL_ERR_TIMEOUT, GHL_ERR_SERVER,
 *         GHL_ERR_PROTOCOL, GHL_ERR_CANCELLED
 */
int32_t ghl_oauth_token(struct ghl_client *client,
                        const char *params_json,
                        char **out_json);

/**
 * Sends POST /oauth/location-token (operation get-location-access-token) and returns its response:
 * mints a location's token from its company's. Stores nothing; ghl_access_token is the managed
 * way.
 *
 * Any thread; waits for the response, at most timeouts.totalMs.
 *
 * @param client       a client
 * @param params_json  {"companyId", "locationId", "accessToken"?} and the call options;
 *                     "accessToken" defaults to the stored token of the company, refreshed if
 *                     necessary
 * @param out_json     the API's response in camelCase with "expiresAt", "userType" and "companyId"
 *                     added, or the error; free with ghl_string_free; may be NULL
 * @return GHL_OK; GHL_ERR_INVALID_ARGUMENT, GHL_ERR_NOT_FOUND for a company without a token,
 *         GHL_ERR_FORBIDDEN, GHL_ERR_UNAUTHORIZED, the errors of ghl_access_token
 */
int32_t ghl_oauth_location_token(struct ghl_client *client,
                                 const char *params_json,
                                 char **out_json);

/**
 * Sends GET /oauth/installed-locations (operation get-installed-location) and returns one page of
 * a company's locations, or all of them.
 *
 * Any thread; waits for the response, at most timeouts.totalMs for all pages together.
 *
 * @param client       a client
 * @param params_json  {"companyId", "appId"?, "pageSize"? (1 to 100), "pageToken"?, "query"?,
 *                     "isInstalled"?, "restrictToUserLocations"?, "versionId"?, "onTrial"?,
 *                     "planId"?, "locationId"?, "all"?, "accessToken"?} and the call options.
 *                     "appId" defaults to the part of the client ID before its first "-",
 *                     "accessToken" to the stored token of the company; "all": true fetches all
 *                     pages
 * @param out_json     {"items": [{"_id", "name", "address", …}], "pagination": {"nextPageToken",
 *                     …}, …}, or the error; free with ghl_string_free; may be NULL. The items are
 *                     unchanged from the API. ghl_tokens_mint and the typed bindings skip an item
 *                     that is not an object or whose "_id" is not a non-empty string
 * @return GHL_OK; GHL_ERR_INVALID_ARGUMENT, GHL_ERR_NOT_FOUND for a company without a token,
 *         GHL_ERR_FORBIDDEN, GHL_ERR_UNAUTHORIZED, GHL_ERR_PROTOCOL for pages that form a cycle,
 *         the errors of ghl_access_token
 */
int32_t ghl_oauth_installed_locations(struct ghl_client *client,
                                      const char *params_json,
                                      char **out_json);

/**
 * Sends a request to any endpoint of the API with a valid access token and the configured Version
 * header, and returns the response.
 *
 * The rate limiter of the company or location applies. If a 401 says that the access token is
 * invalid, the library refreshes it and repeats the request once. Within the deadline it also
 * repeats after 429, after 503 with Retry-After, and if the request certainly was not sent; an
 * idempotent request in addition after a broken connection, any 5xx and "Command timed out".
 * Redirects are not followed. Any thread; waits for the response, at most timeouts.totalMs.
 * ghl_client_cancel ends it at once, but the server may have processed a request that was already
 * sent.
 *
 * @param client        a client
 * @param request_json  {"method": "GET" | "POST" | "PUT" | "PATCH" | "DELETE" | "HEAD" |
 *                      "OPTIONS", "path": begins with "/", or a URL below baseUrl, "query"?:
 *                      {name: string, number, boolean or a list of them}, "headers"?: {name:
 *                      string}, "body"?, "bodyBase64"?, "resourceId"?, "idempotent"?: bool,
 *                      "retry"?: bool} and the call options. "resourceId" selects the token;
 *                      without it the request has no token. A "body" that is a string is sent
 *                      unchanged, as text/plain unless the headers name another content type; an
 *                      object is sent as a form if the content type is
 *                      application/x-www-form-urlencoded; every other body is sent as the JSON
 *                      that it is, byte for byte. Without a body or with null nothing is sent.
 *                      "bodyBase64" is a binary body. The headers must not contain connection
 *                      headers, User-Agent, or Authorization together with "resourceId".
 *                      "idempotent" says whether the server may process the request more than
 *                      once; by default true for GET, HEAD and OPTIONS. With "retry": false the
 *                      request is sent once, even after 429 and 503; only the repetition with a
 *                      refreshed token remains, since the server had refused the token
 * @param out_json      {"status", "headers": {lower-case name: string}, "setCookies"?: [string,
 *                      …], "body", "bodyEncoding": "json" | "text" | "base64"}, or the error; free
 *                      with ghl_string_free; may be NULL. "headers" joins the values of a repeated
 *                      header by ", "; "setCookies" has each Set-Cookie by itself. "body" is the
 *                      JSON of the response, byte for byte without white space around it, if the
 *                      response is declared as JSON and is valid with at most 128 levels;
 *                      otherwise a string if it is UTF-8; otherwise base64
 * @return GHL_OK for every HTTP response, including status 404, 429 or 500;
 *         GHL_ERR_INVALID_ARGUMENT, named by the error's "parameter"; with a "resourceId" the
 *         errors of ghl_access_token; GHL_ERR_RATE_LIMITED if the rate limit leaves no room before
 *         the deadline; GHL_ERR_NETWORK, GHL_ERR_TIMEOUT, GHL_ERR_CANCELLED; GHL_ERR_PROTOCOL for
 *         a response that is not HTTP or longer than limits.responseBytes
 *
 * Example:
 *
 * ```c
 * const char *request = "{\"method\": \"GET\", \"path\": \"/contacts/\","
 *                       " \"query\": {\"limit\": 20}, \"resourceId\": \"a location ID\"}";
 * char *response;
 * if (ghl_request(client, request, &response) == GHL_OK) {
 *     printf("%s\n", response); // look at its "status"
 * }
 * ghl_string_free(response);
 * ```
 */
int32_t ghl_request(struct ghl_client *client,
                    const char *request_json,
                    char **out_json);

/**
 * Verifies the signature of a webhook and parses it. Changes nothing.
 *
 * The signature covers the raw body: pass the bytes that were received, never JSON that was parsed
 * and serialized again. x-ghl-signature (Ed25519) takes precedence; x-wh-signature (RSA) is used
 * only without it, and only if webhook.rsaPublicKeys contains keys. The value "N/A" means absent.
 * Any thread; does not wait.
 *
 * @param client        a client
 * @param body          the raw body; may be NULL if body_len is 0
 * @param body_len      its length in bytes
 * @param headers_json  an object that maps the request's header names, in any case, to a string or
 *                      a list of strings; headers other than these two are ignored
 * @param out_json      {"type", "webhookId", "timestampMs", "scheme": "ed25519" | "rsa-sha256",
 *                      "keyIndex", "payload"}, or the error; free with ghl_string_free; may be
 *                      NULL. The first three are null if the delivery lacks them; "keyIndex" is
 *                      the index of the key in its list; "payload" is the parsed body
 * @return GHL_OK; GHL_ERR_SIGNATURE_INVALID if no configured key made the signature, or the
 *         delivery is older than webhook.maxAgeSeconds; GHL_ERR_INVALID_ARGUMENT, also for a
 *         signed body that is not a JSON object
 */
int32_t ghl_webhook_verify(struct ghl_client *client,
                           const uint8_t *body,
                           size_t body_len,
                           const char *headers_json,
                           char **out_json);

/**
 * Verifies a webhook like ghl_webhook_verify and applies it to the stored tokens.
 *
 * INSTALL of one or several locations ("locationIds"): mints their tokens in this call if the
 * company's token is held. If the mint fails or the company's token is missing, the location is
 * remembered and minted later: when the company's token arrives, by ghl_tokens_maintain, or at its
 * first use. A token from an earlier installation, or from another company, is replaced.
 * UNINSTALL: deletes the token of the location, or the tokens of the company and its locations,
 * unless the installation began after the UNINSTALL; locations with a consent of their own stay.
 * All other deliveries, and deliveries for another app, are ignored.
 *
 * Deliveries may arrive in any order and repeatedly. Respond to the vendor with success for
 * GHL_OK, even if "applied" is false, and with status 429 for a retryable error, so that the
 * delivery is repeated. Any thread; waits at most timeouts.totalMs.
 *
 * @param client        a client
 * @param body          the raw body; may be NULL if body_len is 0
 * @param body_len      its length in bytes
 * @param headers_json  as for ghl_webhook_verify
 * @param out_json      {"type", "resourceId", "applied", "reason"?}, or the error; free with
 *                      ghl_string_free; may be NULL. "resourceId" is the location's or the
 *                      company's ID, or null; "reason" says why the delivery was not applied, or
 *                      what remains to be done
 * @return the results of ghl_webhook_verify; GHL_ERR_INVALID_ARGUMENT also for an INSTALL or
 *         UNINSTALL whose "timestamp" cannot be read; GHL_ERR_STORE, GHL_ERR_TIMEOUT,
 *         GHL_ERR_CANCELLED
 *
 * Example:
 *
 * ```c
 * const char *body = "{\"type\": \"INSTALL\"}";
 * const char *headers = "{\"x-ghl-signature\": \"…\"}";
 * int32_t status = ghl_webhook_apply(client, (const uint8_t *)body, strlen(body), headers, NULL);
 * int reply = status == GHL_OK                       ? 200
 *             : status == GHL_ERR_SIGNATURE_INVALID  ? 401
 *             : status == GHL_ERR_INVALID_ARGUMENT   ? 400
 *                                                    : 429;
 * printf("HTTP %d\n", reply);
 * ```
 */
int32_t ghl_webhook_apply(struct ghl_client *client,
                          const uint8_t *body,
                          size_t body_len,
                          const char *headers_json,
                          char **out_json);

/**
 * Like ghl_webhook_apply, with parameters. With "mint": false it sends no request to the API, so a
 * handler of webhooks never waits for the API's rate limit.
 *
 * An INSTALL is then only remembered. Its location's token is minted at its first use, for
 * instance by ghl_access_token in a queue's worker, or by ghl_tokens_maintain. A token that is
 * stored from an earlier installation is handed out until ghl_tokens_maintain replaces it. Any
 * thread; waits at most "timeoutMs" or timeouts.totalMs.
 *
 * @param client        a client
 * @param body          the raw body; may be NULL if body_len is 0
 * @param body_len      its length in bytes
 * @param headers_json  as for ghl_webhook_verify
 * @param params_json   {"mint"?, "timeoutMs"?, "callId"?}: whether an INSTALL mints tokens in this
 *                      call (default true); the call options
 * @param out_json      as for ghl_webhook_apply
 * @return the results of ghl_webhook_apply
 */
int32_t ghl_webhook_apply_with(struct ghl_client *client,
                               const uint8_t *body,
                               size_t body_len,
                               const char *headers_json,
                               const char *params_json,
                               char **out_json);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* GHL_OAUTH_H */
