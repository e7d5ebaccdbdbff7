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
