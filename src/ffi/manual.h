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
