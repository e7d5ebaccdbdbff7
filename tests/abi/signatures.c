/*
 * The promised ABI: the exact type of each function and the value of each constant. Only compiled.
 */
#include "ghl_oauth.h"

#define NUMBER(name, number) typedef char name##_is_##number[(name) == (number) ? 1 : -1]

NUMBER(GHL_OK, 0);
NUMBER(GHL_ERR_INVALID_ARGUMENT, 1);
NUMBER(GHL_ERR_CONFIG, 2);
NUMBER(GHL_ERR_NOT_FOUND, 3);
NUMBER(GHL_ERR_REAUTHORIZATION_REQUIRED, 4);
NUMBER(GHL_ERR_LOCATION_INACTIVE, 5);
NUMBER(GHL_ERR_UNAUTHORIZED, 6);
NUMBER(GHL_ERR_FORBIDDEN, 7);
NUMBER(GHL_ERR_INVALID_REQUEST, 8);
NUMBER(GHL_ERR_RATE_LIMITED, 9);
NUMBER(GHL_ERR_NETWORK, 10);
NUMBER(GHL_ERR_TIMEOUT, 11);
NUMBER(GHL_ERR_SERVER, 12);
NUMBER(GHL_ERR_PROTOCOL, 13);
NUMBER(GHL_ERR_STORE, 14);
NUMBER(GHL_ERR_CANCELLED, 15);
NUMBER(GHL_ERR_STATE_MISMATCH, 16);
NUMBER(GHL_ERR_CONSENT_DENIED, 17);
NUMBER(GHL_ERR_SIGNATURE_INVALID, 18);
NUMBER(GHL_ERR_INTERNAL, 19);
NUMBER(GHL_ERR_BUFFER_TOO_SMALL, 20);
NUMBER(GHL_ERR_CONFLICT, 21);

typedef int32_t with_params(ghl_client *, const char *, char **);

uint32_t (*const abi_version)(void) = ghl_abi_version;
const char *(*const version)(void) = ghl_version;
const char *(*const status_name)(int32_t) = ghl_status_name;
int32_t (*const library_info)(char **) = ghl_library_info;
void (*const string_free)(char *) = ghl_string_free;
int32_t (*const client_new)(const char *, ghl_client **, char **) = ghl_client_new;
int32_t (*const client_new_with_store)(const char *, const ghl_store_callbacks *, ghl_client **,
                                       char **) = ghl_client_new_with_store;
void (*const client_free)(ghl_client *) = ghl_client_free;
void (*const client_cancel)(ghl_client *) = ghl_client_cancel;
int32_t (*const call_cancel)(ghl_client *, const char *) = ghl_call_cancel;
int32_t (*const client_stats)(const ghl_client *, char **) = ghl_client_stats;
int32_t (*const client_on_event)(ghl_client *, ghl_event_callback, void *) = ghl_client_on_event;
int32_t (*const set_log_callback)(ghl_log_callback, void *, int32_t) = ghl_set_log_callback;
with_params *const oauth_token = ghl_oauth_token;
with_params *const oauth_location_token = ghl_oauth_location_token;
with_params *const oauth_installed_locations = ghl_oauth_installed_locations;
with_params *const authorization_url = ghl_authorization_url;
with_params *const authorization_complete = ghl_authorization_complete;
with_params *const authorization_listen = ghl_authorization_listen;
int32_t (*const access_token)(ghl_client *, const char *, char **, char **) = ghl_access_token;
int32_t (*const access_token_into)(ghl_client *, const char *, char *, size_t *,
                                   char **) = ghl_access_token_into;
int32_t (*const access_token_with)(ghl_client *, const char *, char **,
                                   char **) = ghl_access_token_with;
int32_t (*const access_token_try_into)(ghl_client *, const char *, char *,
                                       size_t *) = ghl_access_token_try_into;
with_params *const token_refresh_with = ghl_token_refresh_with;
with_params *const token_refresh = ghl_token_refresh;
with_params *const token_delete = ghl_token_delete;
with_params *const tokens_list = ghl_tokens_list;
with_params *const tokens_import = ghl_tokens_import;
with_params *const tokens_export = ghl_tokens_export;
with_params *const tokens_adopt = ghl_tokens_adopt;
int32_t (*const tokens_maintain)(ghl_client *, const char *, ghl_progress_callback, void *,
                                 char **) = ghl_tokens_maintain;
int32_t (*const tokens_mint)(ghl_client *, const char *, ghl_progress_callback, void *,
                             char **) = ghl_tokens_mint;
typedef int32_t with_body(ghl_client *, const uint8_t *, size_t, const char *, char **);
with_body *const webhook_verify = ghl_webhook_verify;
with_body *const webhook_apply = ghl_webhook_apply;

void (*const log_callback)(int32_t, const char *, void *) = (ghl_log_callback)0;
void (*const event_callback)(const char *, void *) = (ghl_event_callback)0;
int32_t (*const progress_callback)(const char *, void *) = (ghl_progress_callback)0;
int32_t (*const request)(ghl_client *, const char *, char **) = ghl_request;
