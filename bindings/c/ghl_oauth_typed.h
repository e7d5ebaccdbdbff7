/*
 * Typed structs for ghl_oauth.h, so that a C program needs no JSON parser.
 *
 * Compile ghl_oauth_typed.c into the program. It is C99 without dependencies.
 *
 * Ownership.  On success, a function fills *out; otherwise it fills *error. The other struct is
 *     zeroed. error may be NULL. The caller owns the filled struct and releases it with its _clear
 *     function, which frees, wipes and zeroes it. Clearing a struct twice or a zeroed struct does
 *     nothing. Strings belong to their struct; a string is NULL if the API does not send it.
 *     String arguments are read only during the call; optional ones may be NULL.
 *
 * Threads.  The functions are thread-safe. A struct must be used by one thread at a time.
 *
 * Every function returns GHL_OK or a GHL_ERR_ code, the same as error->status.
 */
#ifndef GHL_OAUTH_TYPED_H
#define GHL_OAUTH_TYPED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ghl_oauth.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Whether the server may have acted on the request of a call. */
typedef enum ghl_sent {
    GHL_SENT_NOTHING = 0, /* no request is involved */
    GHL_SENT_NO = 1,      /* it certainly did not: the request never left, or was refused */
    GHL_SENT_YES = 2      /* it may have */
} ghl_sent;

/* An error: the cause, the resource, and what to do. */
typedef struct ghl_error {
    int32_t status;          /* a GHL_ERR_ code */
    const char *message;     /* the cause */
    const char *help;        /* what to do, or NULL */
    const char *parameter;   /* the wrong argument or key, or NULL */
    bool retryable;          /* the same call may succeed later, and may be repeated */
    ghl_sent sent;           /* whether the server may have acted */
    int64_t retry_after_ms;  /* how long to wait before a retry; 0: unknown */
    const char *resource_id; /* the company or location, or NULL */
    int64_t http_status;     /* 0: no response */
    const char *trace_id;    /* the API's request ID, or NULL */
    const char *api_code;    /* from the API's response, or NULL */
    const char *api_message; /* from the API's response, or NULL */
    char *document;          /* owns the strings; private */
} ghl_error;

/* The link to the consent page. */
typedef struct ghl_authorization_link {
    const char *url;
    const char *state;
    char *document;
} ghl_authorization_link;

/* The last failed renewal of a token. Times are milliseconds since the epoch. */
typedef struct ghl_last_failure {
    int64_t first_at;        /* the first failure since the last success */
    int64_t at;              /* the newest failure; 0: the last renewal succeeded */
    int64_t attempts;        /* failed attempts since the last success */
    const char *status;      /* the name of a GHL_ERR_ code */
    const char *message;     /* the server's message, or the error's; at most 200 bytes */
    int64_t http_status;     /* 0: no response */
    const char *trace_id;    /* of the server's response, for support, or NULL */
    int64_t next_attempt_at; /* the earliest next attempt; 0: only a consent or an import helps */
} ghl_last_failure;

/* A stored token without its secrets. */
typedef struct ghl_token_info {
    const char *resource_id;
    const char *user_type;   /* "Company" or "Location" */
    const char *company_id;
    const char *location_id; /* NULL for a company */
    const char *scope;       /* separated by spaces */
    int64_t expires_at;      /* milliseconds since the epoch */
    bool refreshable;        /* renewable without user consent */
    /*
     * "ok", "inactive", "reauthorizationRequired", "unsaved", or "unreadable" (a deleted record of
     * which only the ID is known). Later versions of the library may add states.
     */
    const char *state;
    int64_t last_success_at; /* milliseconds since the epoch; 0: unknown, as after an import */
    ghl_last_failure last_failure;
    char *document;          /* NULL within a page, which owns the strings */
} ghl_token_info;

/* A token that could not be refreshed, saved or read, or a failure to re-encrypt tokens. */
typedef struct ghl_maintain_failure {
    const char *resource_id; /* NULL: not about a single token */
    const char *status;  /* the name of a GHL_ERR_ code */
    const char *message; /* the cause */
    const char *help;    /* what to do, or NULL */
    bool retryable;      /* whether a later pass may succeed */
    ghl_sent sent;       /* whether the server may have acted */
} ghl_maintain_failure;

/* A page of stored tokens. */
typedef struct ghl_token_info_page {
    ghl_token_info *items;
    size_t count;
    const char *next_page_token; /* NULL on the last page */
    ghl_maintain_failure *failed; /* unreadable stored tokens of this page */
    size_t failed_count;
    char *document;
} ghl_token_info_page;

/* A token with its secrets, as issued by the API. */
typedef struct ghl_token {
    const char *access_token;
    const char *refresh_token; /* NULL if the API issued none */
    int64_t expires_at;        /* milliseconds since the epoch */
    const char *user_type;
    const char *company_id;
    const char *location_id;
    const char *scope;
    char *document;            /* NULL within a page, which owns the strings */
    bool own_consent;          /* a location that consented separately, not with its company */
} ghl_token;

/* A page of tokens with their secrets. */
typedef struct ghl_token_page {
    ghl_token *items;
    size_t count;
    const char *next_page_token; /* NULL on the last page */
    ghl_maintain_failure *failed; /* unreadable stored tokens of this page */
    size_t failed_count;
    char *document;
} ghl_token_page;

/* A token that an import skipped. */
typedef struct ghl_skipped_token {
    int64_t index;           /* index in the input */
    const char *resource_id; /* or NULL */
    const char *reason;
} ghl_skipped_token;

/* A token that an import would store. */
typedef struct ghl_accepted_token {
    int64_t index; /* index in the input */
    const char *resource_id;
    bool replaces; /* a token is stored already */
} ghl_accepted_token;

/* The result of an import. */
typedef struct ghl_import_report {
    int64_t imported;
    ghl_skipped_token *skipped;
    size_t skipped_count;
    char *document;
    ghl_accepted_token *accepted; /* of a dry run; otherwise NULL */
    size_t accepted_count;
} ghl_import_report;

/* Another client ID that has tokens in the same database. */
typedef struct ghl_other_client {
    const char *client_id;
    int64_t tokens; /* the number of its tokens */
} ghl_other_client;

/* The report of an adoption. */
typedef struct ghl_adopt_report {
    int64_t adopted;
    ghl_skipped_token *skipped; /* identified by resource_id; index is unused */
    size_t skipped_count;
    ghl_maintain_failure *failed; /* stored tokens that cannot be read */
    size_t failed_count;
    ghl_other_client *clients; /* client ids that have tokens now */
    size_t client_count;
    char *document;
} ghl_adopt_report;

/* A location of a company. The ID is never NULL: items without an ID are skipped. */
typedef struct ghl_location {
    const char *id;
    const char *name;
    const char *address;
    const char *version_id;   /* the app's installed version, or NULL */
    const char *installed_at; /* an ISO 8601 time, or NULL */
    bool is_installed;
} ghl_location;

/* A page of locations. */
typedef struct ghl_location_page {
    ghl_location *items;
    size_t count;
    int64_t total;               /* of all pages; 0: unknown */
    const char *next_page_token; /* NULL on the last page */
    char *document;
} ghl_location_page;

/* An HTTP header. Both strings are required. */
typedef struct ghl_header {
    const char *name;
    const char *value;
} ghl_header;

/* A location whose token could not be minted. */
typedef struct ghl_mint_failure {
    const char *location_id;
    const char *status;  /* the name of a GHL_ERR_ code */
    const char *message; /* the cause */
    const char *help;    /* what to do, or NULL */
    bool retryable;      /* whether another run may succeed */
    ghl_sent sent;       /* whether the server may have acted */
} ghl_mint_failure;

/* The result of ghl_typed_tokens_mint. */
typedef struct ghl_mint_report {
    int64_t total;
    int64_t minted;
    int64_t fresh; /* skipped: tokens that are not due */
    ghl_mint_failure *failed;
    size_t failed_count;
    char *document;
} ghl_mint_report;

/* The result of ghl_typed_tokens_maintain. */
typedef struct ghl_maintain_report {
    int64_t checked;     /* number of tokens that were due */
    int64_t refreshed;
    int64_t resealed;    /* re-encrypted with the first of store.encryptionKeys */
    int64_t unsealed;    /* not re-encrypted: undecryptable or changed concurrently */
    int64_t next_due_at; /* milliseconds since the epoch; 0: no refreshable token */
    ghl_maintain_failure *failed;
    size_t failed_count;
    char *document;
} ghl_maintain_report;

/* The effect of a webhook. */
typedef struct ghl_webhook_outcome {
    const char *type;        /* "INSTALL", "UNINSTALL" or another, or NULL */
    const char *resource_id; /* the company or location, or NULL */
    bool applied;
    const char *reason;      /* why it was not applied, or what is pending, or NULL */
    char *document;
} ghl_webhook_outcome;

/* A response of the API with any status. */
typedef struct ghl_api_response {
    int64_t status;            /* such as 200 or 404 */
    ghl_header *headers;       /* names in lower case */
    size_t header_count;
    const char **set_cookies;  /* each Set-Cookie by itself; the headers join them */
    size_t set_cookie_count;
    const char *body;          /* the JSON, the text, or the bytes in base64 */
    const char *body_encoding; /* "json", "text" or "base64" */
    char *document;
    size_t body_length;        /* of body, in bytes, without its NUL */
    bool body_is_string;       /* body is a text; false: the JSON of another value, such as 42 */
} ghl_api_response;

/* How often something happened with a status. */
typedef struct ghl_status_count {
    const char *status; /* the name of a GHL_ERR_ code */
    int64_t count;
} ghl_status_count;

/* The rate limiter's state for a company or location. */
typedef struct ghl_busy_resource {
    const char *resource_id;
    int64_t in_window;   /* requests in the current window */
    int64_t requests;    /* requests allowed per window */
    int64_t per_ms;      /* the length of the window, in milliseconds */
    int64_t today;       /* requests today */
    int64_t per_day;     /* requests allowed per day */
    int64_t waiting;     /* calls that wait */
    int64_t held_for_ms; /* how long the last 429 still blocks requests; 0: not blocked */
} ghl_busy_resource;

/* Statistics of a client in this process, since it was created. */
typedef struct ghl_statistics {
    const char *version;           /* of the library */
    int64_t requests_sent;         /* attempts, including repetitions */
    int64_t requests_repeated;     /* attempts that were repetitions */
    int64_t requests_unanswered;   /* attempts without a response */
    int64_t requests_rate_limited; /* responses with status 429 */
    int64_t tokens_in_memory;      /* access tokens in memory now */
    int64_t tokens_unsaved;        /* new tokens that the store has not accepted yet */
    int64_t tokens_refreshed;      /* successful refreshes */
    int64_t tokens_minted;         /* location tokens minted */
    int64_t tokens_failed;         /* failed refreshes and mints */
    ghl_status_count *failed_by_status; /* the same by status, without zeros */
    size_t failed_by_status_count;
    int64_t pace_resources;        /* companies and locations that the rate limiter tracks */
    int64_t pace_waiting;          /* calls that wait for it now */
    int64_t pace_held;             /* companies and locations that a 429 blocks now */
    ghl_busy_resource *busiest;    /* at most 20: blocked ones first, then the busiest */
    size_t busiest_count;
    char *document;
} ghl_statistics;

/*
 * Options of a call. Zero-initialize it, then set fields as needed. A refresh that was sent is
 * completed even after the timeout or a cancellation.
 */
typedef struct ghl_call_options {
    int64_t timeout_ms;  /* 1 to 86400000; 0: timeouts.totalMs */
    const char *call_id; /* for ghl_call_cancel, at most 256 bytes; NULL: none */
} ghl_call_options;

/* Which access token is wanted. Zero-initialize it, then set fields as needed. */
typedef struct ghl_access_token_request {
    const char *resource_id;   /* required */
    int64_t min_valid_seconds; /* how long it must be valid; 0: until its next renewal */
    ghl_call_options call;
} ghl_access_token_request;

/* Options of the authorization URL. Zero-initialize it, then set fields as needed. */
typedef struct ghl_authorization_options {
    const char *scopes;       /* separated by spaces; NULL: the configured ones */
    const char *redirect_uri; /* NULL: the configured one */
    const char *version_id;   /* the app's version; a private app may need it */
    const char *state;        /* a custom state; NULL: 256 random bits */
    bool login_in_same_tab;   /* keep the login in the same browser tab */
} ghl_authorization_options;

/* How a redirect is checked and processed. Zero-initialize it, then set fields as needed. */
typedef struct ghl_completion_options {
    const char *state;        /* the browser session's state; NULL: any that this client made */
    bool allow_missing_state; /* for installations that start in the marketplace */
    const char *redirect_uri; /* the link's, if it is not the configured one */
    const char *user_type;    /* "Company" or "Location"; NULL: as installed */
    ghl_call_options call;
} ghl_completion_options;

/* How to wait for a redirect. Zero-initialize it, then set fields as needed. */
typedef struct ghl_listen_options {
    int32_t port;             /* 1 to 65535; 0: the port of a loopback redirect URI */
    int64_t timeout_ms;       /* 1 to 3600000; 0: 300000 */
    const char *state;        /* this field and the next: see ghl_completion_options */
    bool allow_missing_state;
    const char *redirect_uri; /* the link's; NULL: the configured one */
    const char *user_type;    /* "Company" or "Location"; NULL: as installed */
    const char *call_id;      /* see ghl_call_options */
} ghl_listen_options;

/* A filter on a boolean property. */
typedef enum ghl_flag_filter {
    GHL_EITHER = 0,
    GHL_ONLY_TRUE = 1,
    GHL_ONLY_FALSE = 2
} ghl_flag_filter;

/* A filter for locations. Zero-initialize it, then set fields as needed. */
typedef struct ghl_location_query {
    const char *company_id;          /* required */
    const char *app_id;              /* default: the client ID up to its first '-' */
    int64_t page_size;               /* 1 to 100; 0: the API's default */
    const char *page_token;          /* the last page's next_page_token */
    const char *query;               /* part of the name */
    const char *location_id;
    const char *version_id;          /* with this version of the app */
    const char *plan_id;             /* on this plan */
    ghl_flag_filter is_installed;    /* with or without the app */
    ghl_flag_filter on_trial;        /* on trial or not */
    bool restrict_to_user_locations; /* only those visible to the current user */
    bool all;                        /* fetch all pages */
    const char *access_token;        /* the company's; NULL: the stored one */
    ghl_call_options call;
} ghl_location_query;

/* A filter for stored tokens. Zero-initialize it, then set fields as needed. */
typedef struct ghl_token_query {
    const char *company_id; /* this company and its locations */
    const char *user_type;  /* "Company" or "Location" */
    int64_t page_size;      /* 1 to 1000; 0: 100 */
    const char *page_token; /* the last page's next_page_token */
    const char *state;      /* "ok", "inactive", "reauthorizationRequired" or "unsaved" */
    bool failing;           /* only tokens with a last_failure */
    int64_t expires_before; /* milliseconds since the epoch; 0: any */
    ghl_call_options call;
} ghl_token_query;

/* A token request. Zero-initialize it, then set the fields of the grant type. */
typedef struct ghl_token_request {
    const char *grant_type;    /* required: "authorization_code", "refresh_token" or
                                  "client_credentials" */
    const char *code;          /* for authorization_code */
    const char *refresh_token; /* for refresh_token */
    const char *user_type;     /* "Company" or "Location" */
    const char *redirect_uri;
    const char *client_id;     /* this field and the next: NULL: the configured one */
    const char *client_secret;
    ghl_call_options call;
} ghl_token_request;

/*
 * The tokens to mint. Zero-initialize it, then set company_id, and either location_ids or
 * installed.
 */
typedef struct ghl_mint_request {
    const char *company_id;          /* required */
    const char *const *location_ids; /* these locations */
    size_t location_count;
    bool installed;                  /* all locations with the app */
    const char *app_id;              /* for installed; default: the client ID up to its first '-' */
    bool force;                      /* also tokens that are not due */
    int64_t concurrency;             /* concurrent requests, 1 to 64; 0: 8 */
    ghl_call_options call;           /* timeout_ms limits the whole call; 0: no limit */
} ghl_mint_request;

/* A query parameter, not percent-encoded. Both strings are required. */
typedef struct ghl_query_parameter {
    const char *name;
    const char *value;
} ghl_query_parameter;

/* An API request. Zero-initialize it, then set fields as needed. Set either body or bytes. */
typedef struct ghl_api_request {
    const char *method;               /* "GET", "POST", ...; required */
    const char *path;                 /* begins with '/', may contain a query; required */
    const char *resource_id;          /* the owner of the token to send; NULL: no token */
    const ghl_query_parameter *query; /* added to the path's query; names may repeat */
    size_t query_count;
    const ghl_header *headers;
    size_t header_count;
    const char *body;  /* default type text/plain; NULL: no body */
    const void *bytes; /* default type application/octet-stream; NULL: no body */
    size_t byte_count;
    int idempotent; /* the server may process it twice: 1 yes, -1 no, 0: if GET, HEAD or OPTIONS */
    bool no_retry;  /* sent once, even after a 429 or 503 */
    ghl_call_options call;
} ghl_api_request;

/* How a webhook is applied. Zero-initialize it, then set fields as needed. */
typedef struct ghl_webhook_options {
    bool no_mint; /* an INSTALL is only remembered, and no request is sent */
    ghl_call_options call;
} ghl_webhook_options;

/*
 * Parses the error document of a function of ghl_oauth.h and takes ownership of it. status: the
 * function's return value.
 */
void ghl_typed_error(int32_t status, char *document, ghl_error *out);

/* ghl_authorization_url. options may be NULL. */
int32_t ghl_typed_authorization_url(ghl_client *client, const ghl_authorization_options *options,
                                    ghl_authorization_link *out, ghl_error *error);

/*
 * ghl_authorization_complete. redirect_url: the complete URL that the browser was redirected to.
 * options may be NULL.
 */
int32_t ghl_typed_authorization_complete(ghl_client *client, const char *redirect_url,
                                         const ghl_completion_options *options, ghl_token_info *out,
                                         ghl_error *error);

/* ghl_authorization_listen. options may be NULL. */
int32_t ghl_typed_authorization_listen(ghl_client *client, const ghl_listen_options *options,
                                       ghl_token_info *out, ghl_error *error);

/* ghl_access_token. *out_token: the token, to be freed with ghl_string_free; NULL on error. */
int32_t ghl_typed_access_token(ghl_client *client, const char *resource_id, char **out_token,
                               ghl_error *error);

/* ghl_access_token_with. *out_token as above. */
int32_t ghl_typed_access_token_with(ghl_client *client, const ghl_access_token_request *request,
                                    char **out_token, ghl_error *error);

/*
 * ghl_token_refresh, ghl_token_refresh_with and ghl_token_delete. In the functions whose name ends
 * with _with, options may be NULL.
 */
int32_t ghl_typed_token_refresh(ghl_client *client, const char *resource_id, ghl_token_info *out,
                                ghl_error *error);
int32_t ghl_typed_token_refresh_with(ghl_client *client, const char *resource_id,
                                     const ghl_call_options *options, ghl_token_info *out,
                                     ghl_error *error);
int32_t ghl_typed_token_delete(ghl_client *client, const char *resource_id, ghl_token_info *out,
                               ghl_error *error);

/* ghl_tokens_list. query may be NULL. */
int32_t ghl_typed_tokens_list(ghl_client *client, const ghl_token_query *query,
                              ghl_token_info_page *out, ghl_error *error);

/*
 * ghl_oauth_token and ghl_oauth_location_token, without token management. access_token: the
 * company's; NULL: the stored one.
 */
int32_t ghl_typed_oauth_token(ghl_client *client, const ghl_token_request *request, ghl_token *out,
                              ghl_error *error);
int32_t ghl_typed_oauth_location_token(ghl_client *client, const char *company_id,
                                       const char *location_id, const char *access_token,
                                       ghl_token *out, ghl_error *error);
int32_t ghl_typed_oauth_location_token_with(ghl_client *client, const char *company_id,
                                            const char *location_id, const char *access_token,
                                            const ghl_call_options *options, ghl_token *out,
                                            ghl_error *error);

/*
 * ghl_oauth_installed_locations. Items that are not objects or have no ID are skipped;
 * ghl_oauth_installed_locations itself returns all items.
 */
int32_t ghl_typed_installed_locations(ghl_client *client, const ghl_location_query *query,
                                      ghl_location_page *out, ghl_error *error);

/* ghl_tokens_export. query may be NULL. Clearing the page wipes its secrets. */
int32_t ghl_typed_tokens_export(ghl_client *client, const ghl_token_query *query,
                                ghl_token_page *out, ghl_error *error);

/*
 * ghl_tokens_import. Fields that are NULL or 0 are omitted. replace: allow an older token to
 * replace a newer one. ghl_token lacks some API fields; to keep them, pass the JSON of
 * ghl_tokens_export to ghl_tokens_import.
 */
int32_t ghl_typed_tokens_import(ghl_client *client, const ghl_token *tokens, size_t count,
                                bool replace, ghl_import_report *out, ghl_error *error);
int32_t ghl_typed_tokens_import_with(ghl_client *client, const ghl_token *tokens, size_t count,
                                     bool replace, const ghl_call_options *options,
                                     ghl_import_report *out, ghl_error *error);

/* Reports what ghl_typed_tokens_import would do, and changes nothing. options may be NULL. */
int32_t ghl_typed_tokens_import_dry_run(ghl_client *client, const ghl_token *tokens, size_t count,
                                        bool replace, const ghl_call_options *options,
                                        ghl_import_report *out, ghl_error *error);

/*
 * ghl_tokens_adopt. client_id: the other client ID; NULL: adopts nothing, and reports the client
 * IDs that have tokens. resource_id: only this company or location; NULL: all. dry_run: only
 * report.
 */
int32_t ghl_typed_tokens_adopt(ghl_client *client, const char *client_id, const char *resource_id,
                               bool dry_run, ghl_adopt_report *out, ghl_error *error);
int32_t ghl_typed_tokens_adopt_with(ghl_client *client, const char *client_id,
                                    const char *resource_id, bool dry_run,
                                    const ghl_call_options *options, ghl_adopt_report *out,
                                    ghl_error *error);

/*
 * ghl_tokens_maintain. company_id: only this company; NULL: all. concurrency: concurrent refreshes,
 * 1 to 64; 0: 1. progress receives the JSON described in ghl_oauth.h; it may be NULL. The timeout
 * of the options limits the whole call; 0: no limit.
 */
int32_t ghl_typed_tokens_maintain(ghl_client *client, const char *company_id, int64_t concurrency,
                                  ghl_progress_callback progress, void *context,
                                  ghl_maintain_report *out, ghl_error *error);
int32_t ghl_typed_tokens_maintain_with(ghl_client *client, const char *company_id,
                                       int64_t concurrency, const ghl_call_options *options,
                                       ghl_progress_callback progress, void *context,
                                       ghl_maintain_report *out, ghl_error *error);

/* ghl_tokens_mint. progress receives the JSON described in ghl_oauth.h; it may be NULL. */
int32_t ghl_typed_tokens_mint(ghl_client *client, const ghl_mint_request *request,
                              ghl_progress_callback progress, void *context, ghl_mint_report *out,
                              ghl_error *error);

/* ghl_request. */
int32_t ghl_typed_request(ghl_client *client, const ghl_api_request *request, ghl_api_response *out,
                          ghl_error *error);

/*
 * ghl_webhook_apply and ghl_webhook_apply_with. body: the raw bytes; may be NULL if body_length is
 * 0. headers: all headers as received. options may be NULL.
 */
int32_t ghl_typed_webhook_apply(ghl_client *client, const void *body, size_t body_length,
                                const ghl_header *headers, size_t header_count,
                                ghl_webhook_outcome *out, ghl_error *error);
int32_t ghl_typed_webhook_apply_with(ghl_client *client, const void *body, size_t body_length,
                                     const ghl_header *headers, size_t header_count,
                                     const ghl_webhook_options *options, ghl_webhook_outcome *out,
                                     ghl_error *error);

/* ghl_client_stats. */
int32_t ghl_typed_client_stats(ghl_client *client, ghl_statistics *out, ghl_error *error);

/*
 * ghl_client_metrics. options may be NULL. *out_text: the text, to be freed with ghl_string_free;
 * NULL on error.
 */
int32_t ghl_typed_client_metrics(ghl_client *client, const ghl_call_options *options,
                                 char **out_text, ghl_error *error);

void ghl_typed_error_clear(ghl_error *error);
void ghl_typed_link_clear(ghl_authorization_link *link);
void ghl_typed_token_info_clear(ghl_token_info *info);
void ghl_typed_token_info_page_clear(ghl_token_info_page *page);
void ghl_typed_token_clear(ghl_token *token);
void ghl_typed_token_page_clear(ghl_token_page *page);
void ghl_typed_import_report_clear(ghl_import_report *report);
void ghl_typed_adopt_report_clear(ghl_adopt_report *report);
void ghl_typed_maintain_report_clear(ghl_maintain_report *report);
void ghl_typed_location_page_clear(ghl_location_page *page);
void ghl_typed_mint_report_clear(ghl_mint_report *report);
void ghl_typed_api_response_clear(ghl_api_response *response);
void ghl_typed_webhook_outcome_clear(ghl_webhook_outcome *outcome);
void ghl_typed_statistics_clear(ghl_statistics *statistics);

#ifdef __cplusplus
}
#endif

#endif
