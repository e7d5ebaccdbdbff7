/*
 * ghl-oauth: OAuth 2.0 access to the GoHighLevel API that is never lost.
 *
 * Generated from src/ffi by cbindgen; change the documentation there.
 *
 *     ghl_client *client;
 *     char *out;
 *     int32_t status = ghl_client_new("{\"clientId\": \"…\", \"clientSecret\": \"…\"}", &client, &out);
 *     if (status != GHL_OK) {
 *         fprintf(stderr, "%s: %s\n", ghl_status_name(status), out);
 *     }
 *     ghl_string_free(out);
 *
 *     char *token, *error;
 *     if (ghl_access_token(client, "a company id or location id", &token, &error) == GHL_OK) {
 *         // Authorization: Bearer <token>
 *     }
 *     ghl_string_free(token);
 *     ghl_string_free(error);
 *     ghl_client_free(client);
 *
 * Results.  A function that can fail returns GHL_OK (0) or a GHL_ERR_ code, and writes one JSON document to out_json
 *     (out_error), where it has one: the result, or {"error": {"status", "message", "help", "parameter", "retryable", "retryAfterMs",
 *     "resourceId", "httpStatus", "traceId", "api"}}. "message" says what happened, "help" what to do, "parameter" which
 *     argument or key is wrong, "retryable" whether the same call may succeed later, "api" what the server said. Where
 *     only the code matters, that parameter may be NULL.
 *
 * Ownership.  Every out-pointer that is not NULL is set to NULL or 0 on entry. Every char * that is handed out is the
 *     caller's, to be freed with ghl_string_free, which accepts NULL and wipes the text. Texts that go in are read
 *     during the call only. They are NUL-terminated UTF-8; NULL and bad UTF-8 are refused with the parameter's name,
 *     and JSON with an unknown or mistyped key with the key's name.
 *
 * Threads.  A client may be used from any number of threads at once. Free it after the last call on it has returned.
 *     The library keeps no threads: a short one looks a host name up, and ghl_tokens_mint and ghl_tokens_maintain take
 *     some along while they last. Callbacks must not unwind. Those for events, progress and the log run on a thread that
 *     is inside a call, with no lock of the library held, and may call the library, except ghl_client_free; those of a
 *     store must not call their client: see ghl_store_callbacks.
 *
 * Quiet.  The library installs no signal handler, writes to neither stdout nor stderr, and reads no environment
 *     variable, save SSL_CERT_FILE and SSL_CERT_DIR where the platform's certificates are found through them.
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
     * The API answered 401 although the token is fresh, or it refused the client
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
     * The request could not be sent, or no answer arrived.
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
     * The answer does not have the documented form.
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
 * Made by ghl_client_new, freed by ghl_client_free, usable from any number of threads at once.
 */
typedef struct ghl_client ghl_client;

/**
 * Receives the library's log.
 *
 * Runs on any thread that is inside a call, with no lock of the library held. It may call the library, but not
 * ghl_set_log_callback; what the library logs meanwhile on this thread is dropped. It must not unwind (no C++
 * exception, no longjmp).
 *
 * @param level    1 error, 2 warning, 3 information, 4 debug, 5 trace
 * @param message  NUL-terminated UTF-8, valid until the callback returns; never holds a secret
 * @param context  what was given to ghl_set_log_callback
 */
typedef void (*ghl_log_callback)(int32_t level,
                                 const char *message,
                                 void *context);

/**
 * Receives events as JSON: {"type", "resourceId", "at", "expiresAt"[, "error"]}, times in milliseconds since the
 * epoch, never a secret. The types are token.saved, token.refreshed, token.minted, token.deleted,
 * token.reauthorizationRequired, token.refreshFailed and token.unsaved.
 *
 * Runs on a thread that is inside a call, with no lock of the library held. It may call the library, but not
 * ghl_client_free; it must not unwind (no C++ exception, no longjmp).
 *
 * @param event_json  NUL-terminated UTF-8, valid until the callback returns
 * @param context     what was given to ghl_client_on_event
 */
typedef void (*ghl_event_callback)(const char *event_json,
                                   void *context);

/**
 * A store of the host's own: where a client made by ghl_client_new_with_store keeps its tokens.
 *
 * The library asks for single records by id, and seals them where store.encryptionKeys are given. A record is one JSON
 * object, to be kept as it is and given back as it was. That of a token is
 * {"kind": "token", "resourceId", "version": 1 and up, "userType": "Company" or "Location", "companyId" (or null),
 * "renewAt" (milliseconds since the epoch), "sealedWith", "document"}, and that of a note, whose id begins with "~note/",
 * {"kind": "note", "resourceId", "version", "list", "expiresAt" (milliseconds since the epoch), "document"}.
 *
 * "document" of a token holds its secrets, in clear unless it is sealed; a note holds none. The other fields are there to
 * look records up by. Ids are up to 300 bytes of UTF-8 without control characters, and come from outside: never build a
 * path or a statement from one as it is.
 *
 * What each callback returns: GHL_OK; from save GHL_ERR_CONFLICT, from lock GHL_ERR_TIMEOUT; anything else is a failure,
 * which the caller of the library gets as GHL_ERR_STORE with the number in its message. Tokens that could not be saved are
 * kept in memory and offered again.
 *
 * Threads: callbacks may be called from any thread, several at once: from those that are inside a call on the client,
 * and from those that ghl_tokens_mint and ghl_tokens_maintain take along while they last. None of the library's locks is held meanwhile but the
 * refresh lock of the resource. A callback must not unwind, and must not call the client that it serves, which refuses it
 * with GHL_ERR_INVALID_ARGUMENT; ghl_client_cancel, other clients, and functions without a client are allowed, and
 * ghl_client_free of that client is not.
 *
 * Texts given to a callback live until it returns. In a forked child the same callbacks go on serving the client, so the
 * host's own handles must be fit for that; destroy is not called there.
 */
typedef struct ghl_store_callbacks {
    /**
     * sizeof(ghl_store_callbacks), so that the struct can grow.
     */
    size_t size;
    /**
     * Passed to each callback as it is; may be NULL.
     */
    void *context;
    /**
     * Writes a copy of the record to *out_record_json, or NULL when there is none. With a failure, *out_record_json may
     * be a text that says why, which the caller gets to read, unless it begins as JSON does. Required.
     */
    int32_t (*load)(void *context,
                    const char *resource_id,
                    char **out_record_json);
    /**
     * Saves a record, provided that the "version" of the stored one is expected_version (0: there is none yet); else
     * GHL_ERR_CONFLICT. Look and save in one step that no other process can come between, and return only when the
     * record would survive a crash: the token that it replaces is worthless already. Required.
     */
    int32_t (*save)(void *context,
                    const char *resource_id,
                    const char *record_json,
                    uint64_t expected_version);
    /**
     * Removes a record; GHL_OK also where there is none. Required.
     */
    int32_t (*remove)(void *context,
                      const char *resource_id);
    /**
     * Writes a page to *out_page_json: {"items": [records…], "nextPageToken": the last item's "resourceId", or null on
     * the last page}. A small store may answer every query with all its records and null.
     *
     * A large one looks at the query: it answers with the records whose ids come after "pageToken" (if given) in the order
     * of their bytes, and with "pageSize" of them at most. Every other field is a condition: "kind", "companyId", "userType"
     * and "list" equal that of the record; "renewBy": its renewAt is at most that; "expiredBy": its expiresAt is at most
     * that; "notSealedWith": its sealedWith is another. Conditions are there to save work, since the library passes over
     * what does not fulfil them; one that is not known must be left out of account. With "withoutDocuments": true the items
     * need no "document". A failure may be explained as that of load. Required.
     */
    int32_t (*list)(void *context,
                    const char *query_json,
                    char **out_page_json);
    /**
     * Takes the lock of an id, against all who share the store, waiting for at most timeout_ms milliseconds; GHL_ERR_TIMEOUT
     * when it is not free by then. The lock must come free when its holder dies. Threads of this process are kept apart by
     * the library. A thread may hold the locks of several ids. NULL, and unlock as well: then only the threads of this
     * process are kept apart, and two processes that refresh the same token can lose it.
     */
    int32_t (*lock)(void *context,
                    const char *resource_id,
                    uint64_t timeout_ms);
    /**
     * Gives the lock back, on the thread that took it.
     */
    void (*unlock)(void *context,
                   const char *resource_id);
    /**
     * Frees what load and list handed out. NULL: the host frees it itself, no sooner than at the next callback on the same
     * thread.
     */
    void (*free_string)(void *context,
                        char *string);
    /**
     * Called once, when the client is freed, or could not be made: then the context is no longer used. May be NULL.
     */
    void (*destroy)(void *context);
} ghl_store_callbacks;

/**
 * Told how far a long work is; answers whether to go on.
 *
 * Runs on the thread that made the call, with no lock of the library held. It may call the library, but not
 * ghl_client_free; it must not unwind (no C++ exception, no longjmp).
 *
 * @param progress_json  NUL-terminated UTF-8, valid until the callback returns
 * @param context        what was given with the callback
 * @return 0 to go on; anything else ends the work with GHL_ERR_CANCELLED
 */
typedef int32_t (*ghl_progress_callback)(const char *progress_json,
                                         void *context);

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * The version of this ABI: 1. It rises when something is added; what exists never changes its meaning.
 *
 * Any thread; never fails.
 */
uint32_t ghl_abi_version(void);

/**
 * The version of the library, such as "0.1.0".
 *
 * Any thread; never fails. The text is static: do not free it.
 */
const char *ghl_version(void);

/**
 * The name of a status, such as "GHL_ERR_RATE_LIMITED"; "GHL_ERR_UNKNOWN" for a number that is none.
 *
 * Any thread; never fails. The text is static: do not free it.
 *
 * @param status  what a call returned
 */
const char *ghl_status_name(int32_t status);

/**
 * Frees a text that the library handed out, after wiping it.
 *
 * Any thread; never fails. The text may have been changed by its owner before: it carries its own length.
 *
 * @param string  a text from this library, or NULL
 */
void ghl_string_free(char *string);

/**
 * Sets, or with NULL takes away, the receiver of the library's log, for the whole process.
 *
 * Returns once the receiver that was set before no longer runs, so that its context may then be freed. Any
 * thread, but not from inside the callback. Without a receiver nothing is logged anywhere.
 *
 * @param callback   the receiver, or NULL
 * @param context    passed to the callback as it is; may be NULL
 * @param max_level  0 nothing, 1 errors, 2 and warnings, 3 and information, 4 and debug, 5 everything
 * @return GHL_OK; GHL_ERR_INVALID_ARGUMENT for another max_level, from inside the callback, or where a Rust host
 *         has set a logger of its own
 */
int32_t ghl_set_log_callback(ghl_log_callback callback,
                             void *context,
                             int32_t max_level);

/**
 * Makes a client. Nothing is sent to the API. The store is opened, which for postgres means a connection; what is read
 * beside it is http.caBundlePath, store.caBundlePath and store.encryptionKeysPath.
 *
 * Where the platform keeps its certificates in files, the first request through TLS reads the environment variables
 * SSL_CERT_FILE and SSL_CERT_DIR. No other is read by any function.
 *
 * @param config_json  the configuration, one JSON object; only "clientId" and "clientSecret" are required. The other
 *                     keys and their defaults: docs/configuration.md
 * @param out_client   the client, to be freed with ghl_client_free; NULL on error
 * @param out_json     "{}", or the error; to be freed with ghl_string_free; may be NULL
 * @return GHL_OK; GHL_ERR_INVALID_ARGUMENT for NULL, bad UTF-8, bad JSON, and an unknown, missing or mistyped key,
 *         which the error's "parameter" names; GHL_ERR_CONFIG for a value that cannot be used; GHL_ERR_STORE when the
 *         store cannot be opened
 *
 * Example:
 *
 * ```c
 * ghl_client *client;
 * char *out;
 * if (ghl_client_new("{\"clientId\": \"…\", \"clientSecret\": \"…\","
 *                    " \"store\": {\"kind\": \"sqlite\", \"path\": \"tokens.db\"}}", &client, &out) != GHL_OK) {
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
 * Frees a client, its connections and what it holds in memory. Tokens that a durable store keeps stay there. A token that
 * the store did not take yet is offered to it for up to 5 s; an error is logged if it is lost.
 *
 * Call it after the last call on the client has returned (ghl_client_cancel hastens that), and not from inside a
 * callback. Any thread.
 *
 * @param client  a client, or NULL
 */
void ghl_client_free(struct ghl_client *client);

/**
 * Ends every call that is waiting at this moment with GHL_ERR_CANCELLED; calls made afterwards work as ever.
 *
 * Any thread; never fails. A refresh whose request was sent runs on, on the thread that sent it, until its answer is
 * saved: that is the price of single-use tokens. Waiting callers of that refresh return at once.
 *
 * @param client  a client, or NULL
 */
void ghl_client_cancel(struct ghl_client *client);

/**
 * Figures for an operator: requests sent, repeated and unanswered; tokens in memory, refreshed, minted, failed, and
 * those that the store did not take yet; and how the pace of the busiest companies and locations stands: requests in
 * the present window and today, the limits that hold now, how many calls wait, and how long the server wants to be left
 * in peace. Never a secret.
 *
 * Any thread; does not wait.
 *
 * @param client    a client
 * @param out_json  {"version", "requests": {"sent", "repeated", "unanswered"}, "tokens": {"inMemory", "unsaved",
 *                  "refreshed", "minted", "failed"}, "pace": {"resources", "waiting", "held", "busiest": [{"resourceId",
 *                  "inWindow", "requests", "perMs", "today", "perDay", "waiting", "heldForMs" (null where it is not
 *                  held)}, …]}}, or the error; to be freed with ghl_string_free; may be NULL
 * @return GHL_OK; GHL_ERR_INVALID_ARGUMENT for a NULL client
 */
int32_t ghl_client_stats(const struct ghl_client *client,
                         char **out_json);

/**
 * Sets, or with NULL takes away, the receiver of this client's events.
 *
 * Returns once the receiver that was set before no longer runs, so that its context may then be freed. Any thread,
 * but not from inside the callback.
 *
 * @param client    a client
 * @param callback  the receiver, or NULL
 * @param context   passed to the callback as it is; may be NULL
 * @return GHL_OK; GHL_ERR_INVALID_ARGUMENT for a NULL client, or from inside the callback
 */
int32_t ghl_client_on_event(struct ghl_client *client,
                            ghl_event_callback callback,
                            void *context);

/**
 * Makes a client whose tokens are kept by a store of the host's own.
 *
 * As ghl_client_new in everything else. "store" may be left out of the configuration; where it is given, its kind is
 * "callbacks" ("memory" counts as left out), and it may name encryptionKeys, encryptionKeysPath and sealedOnly. Without a lock among the callbacks the log gets a warning, since tokens are
 * safe only as long as no other process uses them.
 *
 * @param config_json  as for ghl_client_new
 * @param store        the callbacks; copied, so the struct need not outlive the call. What is behind its size must be
 *                     zero. Its destroy is called also when this function fails, unless store is NULL or its size too small
 * @param out_client   the client, to be freed with ghl_client_free; NULL on error
 * @param out_json     {"lock": "host"}, or "process" where the callbacks have no lock; or the error; to be freed with
 *                     ghl_string_free; may be NULL
 * @return what ghl_client_new returns; GHL_ERR_INVALID_ARGUMENT also for a callback that is missing, which the error's
 *         "parameter" names ("store.load"), and for lock without unlock or the other way round
 */
int32_t ghl_client_new_with_store(const char *config_json,
                                  const struct ghl_store_callbacks *store,
                                  struct ghl_client **out_client,
                                  char **out_json);

/**
 * Makes the link to send a person to (RFC 6749, 4.1.1). Nothing is sent.
 *
 * The link is good for one consent within an hour. Any thread; does not wait.
 *
 * @param client       a client
 * @param params_json  {"scopes"?, "redirectUri"?, "versionId"?, "loginInSameTab"?, "state"?}; scopes and redirect URI
 *                     default to the configured ones, "state" to 256 random bits
 * @param out_json     {"url", "state"}, or the error; to be freed with ghl_string_free; may be NULL
 * @return GHL_OK; GHL_ERR_INVALID_ARGUMENT
 *
 * Example:
 *
 * ```c
 * char *link;
 * if (ghl_authorization_url(client, "{\"scopes\": [\"oauth.readonly\", \"oauth.write\"]}", &link) == GHL_OK) {
 *     printf("%s\n", link); // send the user to its "url"
 * }
 * ghl_string_free(link);
 * ```
 */
int32_t ghl_authorization_url(struct ghl_client *client,
                              const char *params_json,
                              char **out_json);

/**
 * Checks what the consent page sent back, exchanges the code and stores the token (RFC 6749, 4.1.2 and 4.1.3).
 *
 * The answer decides whose token it is: an app made for locations can be installed by a company. After an error that is
 * retryable the same redirect may be given again. Any thread; waits for the answer, at most timeouts.totalMs.
 *
 * @param client       a client
 * @param params_json  {"redirectUrl": the whole URL that the browser was sent to, "state"?, "allowMissingState"?,
 *                     "redirectUri"?, "userType"? ("Company" | "Location")}; "state" is the one that the host keeps
 *                     for this browser session, needed where another process made the link; "allowMissingState": true
 *                     accepts an installation that was started inside the marketplace, which comes without one;
 *                     "redirectUri" is that of the link, where another process made it with one that is not configured
 * @param out_json     the stored token's metadata {"resourceId", "userType", "companyId", "locationId", "scope",
 *                     "expiresAt", "refreshable", "state"}, or the error; to be freed with ghl_string_free; may be NULL
 * @return GHL_OK; GHL_ERR_INVALID_ARGUMENT for a URL that is not the app's redirect, GHL_ERR_CONSENT_DENIED,
 *         GHL_ERR_STATE_MISMATCH, GHL_ERR_REAUTHORIZATION_REQUIRED for a refused code, GHL_ERR_UNAUTHORIZED for refused
 *         client credentials, GHL_ERR_FORBIDDEN, GHL_ERR_NOT_FOUND, GHL_ERR_LOCATION_INACTIVE, GHL_ERR_INVALID_REQUEST,
 *         GHL_ERR_RATE_LIMITED, GHL_ERR_NETWORK, GHL_ERR_TIMEOUT, GHL_ERR_SERVER, GHL_ERR_PROTOCOL, GHL_ERR_STORE,
 *         GHL_ERR_CANCELLED
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
 * Waits for the browser on a port of this machine, and completes the consent as ghl_authorization_complete does.
 *
 * For development, and for programs without a web server of their own: let an HTTPS tunnel lead from the redirect URI
 * to the port, show the person the link of ghl_authorization_url, and call this. It listens on 127.0.0.1 alone. The
 * first redirect with the right "state" ends the wait; the browser gets a plain page that says whether it worked, and
 * the port is closed. Whatever else comes (other paths, methods and hosts, other states, connections that say
 * nothing) is refused, and waited past. Several threads may listen at once, on ports of their own.
 *
 * Any thread; waits for the browser at most "timeoutMs", then for the exchange at most timeouts.totalMs.
 * ghl_client_cancel ends the wait at once.
 *
 * @param client       a client
 * @param params_json  {"port"?, "timeoutMs"?, "state"?, "allowMissingState"?, "redirectUri"?, "userType"?}; "port" is
 *                     1 to 65535, and defaults to that of the redirect URI where it is http on localhost or 127.0.0.1;
 *                     "timeoutMs" is 1 to 3600000, by default 300000; "redirectUri" is that of the link, by default
 *                     the configured one; the others as in ghl_authorization_complete: with "allowMissingState", any
 *                     page in the person's browser can end the wait, and slip in a code of its own
 * @param out_json     the stored token's metadata, as ghl_authorization_complete gives it, or the error; to be freed
 *                     with ghl_string_free; may be NULL
 * @return GHL_OK; GHL_ERR_INVALID_ARGUMENT, for a port that is taken, too; GHL_ERR_TIMEOUT when nobody came back;
 *         GHL_ERR_CANCELLED; after the redirect, the errors of ghl_authorization_complete
 */
int32_t ghl_authorization_listen(struct ghl_client *client,
                                 const char *params_json,
                                 char **out_json);

/**
 * A live access token for a company or location: from memory while it is fresh; else refreshed, or minted for a
 * location of a company that is held, by one caller while the others wait.
 *
 * Any thread; waits at most timeouts.totalMs, and only when a token is due. While an old token still lives, a
 * failed refresh does not fail the caller.
 *
 * @param client       a client
 * @param resource_id  a company id or a location id
 * @param out_token    the bare token, to be freed with ghl_string_free, which wipes it; NULL on error; may be NULL
 * @param out_error    NULL, or the error; to be freed with ghl_string_free; may be NULL
 * @return GHL_OK; GHL_ERR_INVALID_ARGUMENT, GHL_ERR_NOT_FOUND, GHL_ERR_REAUTHORIZATION_REQUIRED,
 *         GHL_ERR_LOCATION_INACTIVE, GHL_ERR_UNAUTHORIZED, GHL_ERR_FORBIDDEN, GHL_ERR_INVALID_REQUEST,
 *         GHL_ERR_RATE_LIMITED, GHL_ERR_NETWORK, GHL_ERR_TIMEOUT, GHL_ERR_SERVER, GHL_ERR_PROTOCOL, GHL_ERR_STORE,
 *         GHL_ERR_CANCELLED
 *
 * Example:
 *
 * ```c
 * char *token, *error;
 * if (ghl_access_token(client, "a company id or location id", &token, &error) == GHL_OK) {
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
 * ghl_access_token into a buffer of the caller's own: no allocation while the token is fresh.
 *
 * The buffer holds an empty text on error, and is the caller's to wipe.
 *
 * @param client       a client
 * @param resource_id  a company id or a location id
 * @param buffer       where the token goes, NUL-terminated; may be NULL where *length is 0
 * @param length       in: the buffer's size in bytes; out: the bytes needed, NUL included, 0 on other errors than
 *                     GHL_ERR_BUFFER_TOO_SMALL
 * @param out_error    NULL, or the error; to be freed with ghl_string_free; may be NULL
 * @return GHL_OK; GHL_ERR_BUFFER_TOO_SMALL; and what ghl_access_token returns
 *
 * Example:
 *
 * ```c
 * char token[2048];
 * size_t length = sizeof token;
 * if (ghl_access_token_into(client, "a company id or location id", token, &length, NULL) == GHL_OK) {
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
 * Refreshes, or mints, now, whatever the clock says.
 *
 * Callers at the same moment share one refresh. The server is asked even while an inactive location, or a resource whose
 * last refreshes failed, is left alone. Any thread; waits at most timeouts.totalMs.
 *
 * @param client       a client
 * @param resource_id  a company id or a location id
 * @param out_json     the new token's metadata, as ghl_authorization_complete gives it, or the error; to be freed with
 *                     ghl_string_free; may be NULL
 * @return GHL_OK; what ghl_access_token returns. An old token that still lives does not hide a failure here
 */
int32_t ghl_token_refresh(struct ghl_client *client,
                          const char *resource_id,
                          char **out_json);

/**
 * Deletes a token here, in memory and in the store. The API does not learn of it: the app stays installed.
 *
 * A refresh or mint of it that is under way does not bring it back. A record that cannot be read is deleted as well. Any
 * thread; waits for a refresh of the same resource, at most 5 s.
 *
 * @param client       a client
 * @param resource_id  a company id or a location id
 * @param out_json     the deleted token's metadata, or {"resourceId", "state": "unreadable"}, or the error; to be freed
 *                     with ghl_string_free; may be NULL
 * @return GHL_OK; GHL_ERR_INVALID_ARGUMENT, GHL_ERR_NOT_FOUND, GHL_ERR_STORE, GHL_ERR_TIMEOUT, GHL_ERR_CANCELLED
 */
int32_t ghl_token_delete(struct ghl_client *client,
                         const char *resource_id,
                         char **out_json);

/**
 * Lists the tokens held, page by page: metadata, never a secret.
 *
 * Tokens that the store did not take are offered to it again first; those that it still does not take are listed as
 * "unsaved", as long as it can be read. Any thread; waits for the API only where such a token is being refreshed, at most 3 s.
 *
 * @param client       a client
 * @param params_json  {"companyId"?, "userType"? ("Company" | "Location"), "pageSize"? (1 to 1000, default 100),
 *                     "pageToken"?}; "companyId" lists the company and its locations
 * @param out_json     {"items": [{metadata}], "nextPageToken", "failed"?: [{"resourceId", "error"}]}, "nextPageToken" null
 *                     on the last page, or the error; to be freed with ghl_string_free; may be NULL. A metadata's
 *                     "state" is "ok", "inactive", "reauthorizationRequired" or "unsaved". "failed" names the records of
 *                     the page that cannot be read: damaged, or sealed with a key that is not given
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
 * Takes over tokens that were granted elsewhere: from an export, or as the vendor's SDKs store them.
 *
 * Any thread; waits for refreshes of the same resources, at most timeouts.totalMs.
 *
 * @param client       a client
 * @param tokens_json  {"tokens": [{"accessToken", "refreshToken", "expiresAt" (milliseconds since the epoch) or
 *                     "expiresIn" (seconds from now), "userType", "companyId", "locationId", "scope", …}], "replace"?};
 *                     snake_case is read as well ("access_token", "expire_at", …), and the camelCase spelling wins. An
 *                     older token, or one without "expiresAt", does not replace a good one unless "replace" is true. A
 *                     refresh token that this store has spent is skipped in any case, and so is a second owner with the
 *                     same refresh token. A token with neither an expiry nor a refresh token never expires
 * @param out_json     {"imported", "skipped": [{"index", "resourceId", "reason"}]}, or the error; to be freed with
 *                     ghl_string_free; may be NULL
 * @return GHL_OK, also where all were skipped; GHL_ERR_INVALID_ARGUMENT, GHL_ERR_STORE, GHL_ERR_TIMEOUT,
 *         GHL_ERR_CANCELLED; after one of the latter three some of the tokens are imported, and the same import again
 *         brings the rest
 */
int32_t ghl_tokens_import(struct ghl_client *client,
                          const char *tokens_json,
                          char **out_json);

/**
 * Moves the tokens of another client id in the same database to this client's: after a key rotation the app has a new
 * client id, under which the store looks empty.
 *
 * For the stores "sqlite" and "postgres". Stop the programs that use the other client id first. Tokens stay as they are, and
 * records that are sealed need their key among store.encryptionKeys. Each token is saved under this client id before it is
 * deleted under the other one, so that an interrupted call loses nothing, and the same call again brings the rest. A token
 * that is held under this client id stays, unless it is lost ("reauthorizationRequired"). To go back, adopt in the other
 * direction. Whether the API honours a refresh token under the new client id is known after its next refresh. Any thread;
 * waits for refreshes of the same resources, at most timeouts.totalMs for each.
 *
 * @param client       a client
 * @param params_json  {"clientId"?, "resourceId"?, "dryRun"?}: the other client id; only this company or location; and whether
 *                     to report only. Without "clientId" nothing is adopted, and "clients" names the client ids
 * @param out_json     {"adopted", "skipped": [{"resourceId", "reason"}], "failed": [{"resourceId", "error"}], "clients":
 *                     [{"clientId", "tokens"}]}: "failed" names the records that cannot be read, "clients" the other
 *                     client ids that have tokens in the database, 100 at most, with their number; or the error; to be
 *                     freed with ghl_string_free; may be NULL
 * @return GHL_OK, also where all were skipped; GHL_ERR_INVALID_ARGUMENT; GHL_ERR_CONFIG for a store that holds the tokens
 *         of one client id only; GHL_ERR_STORE, GHL_ERR_TIMEOUT, GHL_ERR_CANCELLED
 */
int32_t ghl_tokens_adopt(struct ghl_client *client,
                         const char *params_json,
                         char **out_json);

/**
 * Exports tokens with their secrets, page by page, in the form that ghl_tokens_import reads.
 *
 * Two programs that both refresh an exported token burn it for each other: stop one first. What the store did not take is
 * exported, too, as long as it can be read. Any thread; waits as ghl_tokens_list does.
 *
 * @param client       a client
 * @param params_json  as for ghl_tokens_list
 * @param out_json     {"tokens": […], "nextPageToken", "failed"? as for ghl_tokens_list}, or the error; to be freed with
 *                     ghl_string_free, which wipes it; may be NULL
 * @return GHL_OK; GHL_ERR_INVALID_ARGUMENT, GHL_ERR_STORE, GHL_ERR_TIMEOUT, GHL_ERR_CANCELLED
 */
int32_t ghl_tokens_export(struct ghl_client *client,
                          const char *params_json,
                          char **out_json);

/**
 * One pass over the tokens that are due, for the host's scheduler: refreshes or mints each of which less than
 * refresh.runwayPercent is left, takes up refreshes whose end is unknown, offers to the store what it did not take, and
 * mints for the locations whose INSTALL webhook came when that could not be done. At last, whatever another key than the
 * first of store.encryptionKeys sealed, or none, is sealed with that one.
 *
 * Call it every few minutes; "nextDueAt" says when there will be something to do. One failure does not stop the rest.
 * Several processes may do so at the same time, and share the work. Any thread; waits until all is done, each token at
 * most timeouts.totalMs. With "concurrency" the library works on threads of its own for that time, which end before the
 * call does; the callbacks for progress and events run on the calling thread.
 *
 * @param client       a client
 * @param params_json  {"companyId"?, "concurrency"?}: only that company and its locations, and nothing is sealed; how many tokens are renewed at
 *                     once, 1 to 64, default 1
 * @param progress     called after each token, and each hundred that are sealed, with {"checked", "refreshed", "resealed",
 *                     "failed"}; may be NULL
 * @param context      passed to the callback as it is; may be NULL
 * @param out_json     {"checked", "refreshed", "resealed", "unsealed", "failed": [{"resourceId", "error"}], "nextDueAt"}:
 *                     "unsealed" counts what should have been sealed, but cannot be opened or changed meanwhile; an
 *                     "error" is what ghl_token_refresh returns; "nextDueAt" is in milliseconds since the epoch, or
 *                     null; or the error; to be freed with ghl_string_free; may be NULL. A token that the store still
 *                     refuses is among the "failed"
 * @return GHL_OK, also where some failed; GHL_ERR_INVALID_ARGUMENT, GHL_ERR_STORE, GHL_ERR_TIMEOUT, GHL_ERR_CANCELLED
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
 * Mints tokens for many locations of a company: for a list, or for every location where the app is installed. As fast as
 * the company's rate limit allows; a location whose token is not due costs nothing, so that a second run does what the
 * first one left. One failure does not stop the rest. Right after a consent the API's list of installed locations can be
 * empty for some seconds: "total" is 0 then, and a second run finds them.
 *
 * Any thread; waits until all is done. For that time the library works on threads of its own, which end before the call
 * does; the callbacks for progress and events run on the calling thread.
 *
 * @param client       a client
 * @param params_json  {"companyId", "locationIds": […]} or {"companyId", "installed": true, "appId"?}; and "force"?
 *                     (true: also where a token is not due), "concurrency"? (requests under way at once, 1 to 64,
 *                     default 8)
 * @param progress     called about four times a second, and at the end, with {"done", "failed", "total", "perSecond",
 *                     "secondsLeft"}; "total" and "secondsLeft" are null as long as they are not known; may be NULL
 * @param context      passed to the callback as it is; may be NULL
 * @param out_json     {"total", "minted", "fresh", "failed": [{"locationId", "error"}]}, where an "error" is what
 *                     ghl_token_refresh returns, or the error; to be freed with ghl_string_free; may be NULL
 * @return GHL_OK, also where some failed; GHL_ERR_INVALID_ARGUMENT; what ghl_access_token returns for the company;
 *         GHL_ERR_STORE when new tokens cannot be saved; GHL_ERR_CANCELLED; GHL_ERR_NETWORK, GHL_ERR_TIMEOUT,
 *         GHL_ERR_SERVER, GHL_ERR_PROTOCOL after 25 such failures in a row; GHL_ERR_RATE_LIMITED when the server wants
 *         to be left in peace for more than 15 minutes. What was minted before an error is saved
 *
 * Example:
 *
 * ```c
 * char *report;
 * if (ghl_tokens_mint(client, "{\"companyId\": \"…\", \"installed\": true}", NULL, NULL, &report) == GHL_OK) {
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
 * POST /oauth/token (operation get-access-token; RFC 6749, 4.1.3, 4.4 and 6), as it is. Stores nothing: a program
 * that uses it keeps its own tokens. ghl_authorization_complete and ghl_access_token are the managed way.
 *
 * A refresh whose answer is lost is not repeated here: call again at once with the same refresh token. Any thread;
 * waits for the answer, at most timeouts.totalMs.
 *
 * @param client       a client
 * @param params_json  {"grantType": "authorization_code" | "refresh_token" | "client_credentials", "code"?,
 *                     "refreshToken"?, "userType"? ("Company" | "Location"), "redirectUri"?, "clientId"?,
 *                     "clientSecret"?}; the client's id and secret default to the configured ones
 * @param out_json     the API's answer in camelCase with "expiresAt" (milliseconds since the epoch) added, or the
 *                     error; to be freed with ghl_string_free; may be NULL
 * @return GHL_OK; GHL_ERR_INVALID_ARGUMENT, GHL_ERR_REAUTHORIZATION_REQUIRED for a refused code or refresh token,
 *         GHL_ERR_UNAUTHORIZED for refused client credentials, GHL_ERR_FORBIDDEN, GHL_ERR_NOT_FOUND,
 *         GHL_ERR_LOCATION_INACTIVE, GHL_ERR_INVALID_REQUEST, GHL_ERR_RATE_LIMITED, GHL_ERR_NETWORK, GHL_ERR_TIMEOUT,
 *         GHL_ERR_SERVER, GHL_ERR_PROTOCOL, GHL_ERR_CANCELLED
 */
int32_t ghl_oauth_token(struct ghl_client *client,
                        const char *params_json,
                        char **out_json);

/**
 * POST /oauth/location-token (operation get-location-access-token), as it is: mints a location's token from its
 * company's. Stores nothing; ghl_access_token is the managed way.
 *
 * Any thread; waits for the answer, at most timeouts.totalMs.
 *
 * @param client       a client
 * @param params_json  {"companyId", "locationId", "accessToken"?}; the company's token defaults to the one held here,
 *                     refreshed if need be
 * @param out_json     the API's answer in camelCase with "expiresAt", "userType" and "companyId" added, or the error;
 *                     to be freed with ghl_string_free; may be NULL
 * @return GHL_OK; GHL_ERR_INVALID_ARGUMENT, GHL_ERR_NOT_FOUND for a company without a token, GHL_ERR_FORBIDDEN,
 *         GHL_ERR_UNAUTHORIZED, and what ghl_access_token returns
 */
int32_t ghl_oauth_location_token(struct ghl_client *client,
                                 const char *params_json,
                                 char **out_json);

/**
 * GET /oauth/installed-locations (operation get-installed-location): one page of a company's locations, or all.
 *
 * Any thread; waits for the answer, at most timeouts.totalMs for all pages together.
 *
 * @param client       a client
 * @param params_json  {"companyId", "appId"?, "pageSize"? (1 to 100), "pageToken"?, "query"?, "isInstalled"?,
 *                     "restrictToUserLocations"?, "versionId"?, "onTrial"?, "planId"?, "locationId"?, "all"?,
 *                     "accessToken"?}; "appId" defaults to the part of the client id before its first "-", the token to
 *                     the company's, and "all": true follows the pages to their end
 * @param out_json     {"items": [{"_id", "name", "address", …}], "pagination": {"nextPageToken", …}, …}, or the error;
 *                     to be freed with ghl_string_free; may be NULL. The items are as the API sent them; one that is no
 *                     object, or whose "_id" is no text or an empty one, is passed over by ghl_tokens_mint and by the
 *                     typed bindings
 * @return GHL_OK; GHL_ERR_INVALID_ARGUMENT, GHL_ERR_NOT_FOUND for a company without a token, GHL_ERR_FORBIDDEN,
 *         GHL_ERR_UNAUTHORIZED, GHL_ERR_PROTOCOL for pages that lead in a circle, and what ghl_access_token returns
 */
int32_t ghl_oauth_installed_locations(struct ghl_client *client,
                                      const char *params_json,
                                      char **out_json);

/**
 * Sends a request to any endpoint of the API, with a live token and the configured Version, and gives the answer back
 * whole.
 *
 * Paced by the rate limit of the company or location. A 401 that says that the access token is dead makes the library
 * refresh it and send the request again, once. Repeated within the deadline: after 429, after 503 with Retry-After, and
 * where it surely was not sent; GET, HEAD and OPTIONS also after a break, any 5xx and "Command timed out". Redirects are
 * not followed. Any thread; waits for the answer, at most timeouts.totalMs; ghl_client_cancel ends it at once, though a
 * request that was sent may have been processed.
 *
 * @param client        a client
 * @param request_json  {"method": "GET" | "POST" | "PUT" | "PATCH" | "DELETE" | "HEAD" | "OPTIONS", "path": one that begins
 *                      with "/", or a URL below baseUrl, "query"?: {name: text, number, boolean or a list of them},
 *                      "headers"?: {name: text}, "body"?, "bodyBase64"?, "resourceId"?: whose token goes along; none
 *                      without it}. A "body" that is a text is sent as it is, with the content type text/plain unless
 *                      the headers name another; anything else as JSON, or an object as a form where the content type
 *                      is application/x-www-form-urlencoded. "bodyBase64" stands for a body of any bytes. Not to be set
 *                      among the headers: what belongs to the connection, User-Agent, and Authorization beside
 *                      "resourceId"
 * @param out_json      {"status", "headers": {name in lower case: text}, "body", "bodyEncoding": "json" | "text" |
 *                      "base64"}, or the error; to be freed with ghl_string_free; may be NULL. "body" is JSON where the
 *                      answer calls itself that and is; else a text where it is UTF-8; else base64
 * @return GHL_OK for every answer, also one with status 404, 429 or 500: the caller knows what it means;
 *         GHL_ERR_INVALID_ARGUMENT, which the error's "parameter" names; with a resource what ghl_access_token returns;
 *         GHL_ERR_RATE_LIMITED where the pace leaves no room before the deadline; GHL_ERR_NETWORK, GHL_ERR_TIMEOUT,
 *         GHL_ERR_PROTOCOL for an answer that is no HTTP or longer than limits.responseBytes, GHL_ERR_CANCELLED
 *
 * Example:
 *
 * ```c
 * const char *request = "{\"method\": \"GET\", \"path\": \"/contacts/\", \"query\": {\"limit\": 20},"
 *                       " \"resourceId\": \"a location id\"}";
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
 * Checks that a webhook is the vendor's, and parses it. Changes nothing.
 *
 * The signature is that of the body byte for byte: pass what came over the wire, never JSON that was parsed and written
 * again. x-ghl-signature (Ed25519) counts where it is there; x-wh-signature (RSA) only without it, and only where
 * webhook.rsaPublicKeys has keys. "N/A" means absent. Any thread; does not wait.
 *
 * @param client        a client
 * @param body          the raw body; may be NULL where body_len is 0
 * @param body_len      its length in bytes
 * @param headers_json  an object of the request's header names, in any case, to their values: texts, or lists of texts;
 *                      other headers than the two are ignored
 * @param out_json      {"type", "webhookId", "timestampMs", "scheme": "ed25519" | "rsa-sha256", "keyIndex", "payload"}:
 *                      the first three null where the delivery does not say, the key's place in its list, and the parsed
 *                      body; or the error; to be freed with ghl_string_free; may be NULL
 * @return GHL_OK; GHL_ERR_SIGNATURE_INVALID for a delivery that no configured key signed, or one older than
 *         webhook.maxAgeSeconds; GHL_ERR_INVALID_ARGUMENT, also for a signed body that is no JSON object
 */
int32_t ghl_webhook_verify(struct ghl_client *client,
                           const uint8_t *body,
                           size_t body_len,
                           const char *headers_json,
                           char **out_json);

/**
 * Checks a webhook as ghl_webhook_verify does, and does to the tokens what it says.
 *
 * INSTALL of a location, or of several ("locationIds"): its token is minted in this call if its company's token is here;
 * otherwise, and if the mint fails, the location is remembered, and minted for when the company's token comes, by
 * ghl_tokens_maintain, or at its first use. A token of an earlier installation, or of another company, is replaced.
 * UNINSTALL: the location's token is deleted, or the company's with the tokens of its locations, unless their
 * installation began later; locations that consented by themselves stay. Every other delivery, and one for another app,
 * is left alone.
 *
 * Deliveries may come in any order and any number of times. Answer the vendor with a success for GHL_OK, whatever
 * "applied" says; for an error that is retryable with 429, so that the delivery is repeated. Any thread; waits at
 * most timeouts.totalMs.
 *
 * @param client        a client
 * @param body          the raw body; may be NULL where body_len is 0
 * @param body_len      its length in bytes
 * @param headers_json  as for ghl_webhook_verify
 * @param out_json      {"type", "resourceId", "applied", "reason"?}: the location's or the company's id, or null; "reason"
 *                      says why it was not applied, or what is still to come; or the error; to be freed with
 *                      ghl_string_free; may be NULL
 * @return as ghl_webhook_verify; GHL_ERR_STORE, GHL_ERR_TIMEOUT, GHL_ERR_CANCELLED
 *
 * Example:
 *
 * ```c
 * const char *body = "{\"type\": \"INSTALL\"}";
 * const char *headers = "{\"x-ghl-signature\": \"…\"}";
 * int32_t status = ghl_webhook_apply(client, (const uint8_t *)body, strlen(body), headers, NULL);
 * int answer = status == GHL_OK ? 200 : status == GHL_ERR_SIGNATURE_INVALID ? 401 : 503;
 * printf("HTTP %d\n", answer);
 * ```
 */
int32_t ghl_webhook_apply(struct ghl_client *client,
                          const uint8_t *body,
                          size_t body_len,
                          const char *headers_json,
                          char **out_json);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* GHL_OAUTH_H */
