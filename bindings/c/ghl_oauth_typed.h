/*
 * Typed structs over ghl_oauth.h, so that a C program needs no JSON parser.
 *
 * Compile ghl_oauth_typed.c into the program. It needs C99 and nothing else.
 *
 * Ownership.  A function fills *out on success, and *error otherwise; the other one is zeroed. error may be NULL. What
 *     was filled belongs to the caller: give it to the function that ends in _clear, which frees and wipes it, and
 *     zeroes it. Clearing a zeroed struct, or one twice, does nothing. The texts inside belong to the struct; a text is
 *     NULL where the API says nothing. Texts that go in are read during the call only; optional ones may be NULL.
 *
 * Threads.  As ghl_oauth.h: any thread, any number of them. A struct belongs to one thread at a time.
 *
 * Every function returns GHL_OK or a GHL_ERR_ code, the same as in error->status.
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

/* What went wrong, to which resource, and what to do. */
typedef struct ghl_error {
    int32_t status;          /* a GHL_ERR_ code */
    const char *message;     /* what happened */
    const char *help;        /* what to do, or NULL */
    const char *parameter;   /* the argument or key that is wrong, or NULL */
    bool retryable;          /* whether the same call may succeed later */
    int64_t retry_after_ms;  /* when, in milliseconds from now; 0 where it is not known */
    const char *resource_id; /* the company or location, or NULL */
    int64_t http_status;     /* 0 where there was no answer */
    const char *trace_id;    /* the server's id of the request, or NULL */
    const char *api_code;    /* what the server said, or NULL */
    const char *api_message; /* what the server said, or NULL */
    char *document;          /* owns the texts; leave it alone */
} ghl_error;

/* The link to send a person to. */
typedef struct ghl_authorization_link {
    const char *url;
    const char *state;
    char *document;
} ghl_authorization_link;

/* A stored token, without its secrets. */
typedef struct ghl_token_info {
    const char *resource_id;
    const char *user_type;   /* "Company" or "Location" */
    const char *company_id;
    const char *location_id; /* NULL for a company */
    const char *scope;       /* separated by spaces */
    int64_t expires_at;      /* milliseconds since the epoch */
    bool refreshable;        /* whether it can be renewed without a person */
    const char *state;       /* "ok", "inactive", "reauthorizationRequired", "unsaved", or "unreadable": a deleted record
                                of which only the id is known; later versions of the library may add states */
    char *document;          /* NULL within a page, which owns the texts */
} ghl_token_info;

/* A token that could not be renewed, saved or read, or what kept tokens from being sealed anew. */
typedef struct ghl_maintain_failure {
    const char *resource_id; /* NULL where it is about no single token, such as a key that is not given */
    const char *status;  /* the name of a GHL_ERR_ code */
    const char *message; /* what happened */
    const char *help;    /* what to do, or NULL */
    bool retryable;      /* whether a later pass may succeed */
} ghl_maintain_failure;

/* A page of stored tokens. */
typedef struct ghl_token_info_page {
    ghl_token_info *items;
    size_t count;
    const char *next_page_token; /* NULL on the last page */
    ghl_maintain_failure *failed; /* stored tokens of the page that cannot be read */
    size_t failed_count;
    char *document;
} ghl_token_info_page;

/* A token with its secrets, as the API gives it. */
typedef struct ghl_token {
    const char *access_token;
    const char *refresh_token; /* NULL where the API gave none */
    int64_t expires_at;        /* milliseconds since the epoch */
    const char *user_type;
    const char *company_id;
    const char *location_id;
    const char *scope;
    char *document;            /* NULL within a page, which owns the texts */
} ghl_token;

/* A page of tokens with their secrets. */
typedef struct ghl_token_page {
    ghl_token *items;
    size_t count;
    const char *next_page_token; /* NULL on the last page */
    ghl_maintain_failure *failed; /* stored tokens of the page that cannot be read */
    size_t failed_count;
    char *document;
} ghl_token_page;

/* A token that an import left out. */
typedef struct ghl_skipped_token {
    int64_t index;           /* among those that were given */
    const char *resource_id; /* or NULL */
    const char *reason;
} ghl_skipped_token;

/* What came of an import. */
typedef struct ghl_import_report {
    int64_t imported;
    ghl_skipped_token *skipped;
    size_t skipped_count;
    char *document;
} ghl_import_report;

/* A location of a company. Its id is never NULL: what the API lists without one is passed over. */
typedef struct ghl_location {
    const char *id;
    const char *name;
    const char *address;
    const char *version_id;   /* the installed version of the app, or NULL */
    const char *installed_at; /* an ISO 8601 time, or NULL */
    bool is_installed;
} ghl_location;

/* A page of locations. */
typedef struct ghl_location_page {
    ghl_location *items;
    size_t count;
    int64_t total;               /* of all pages; 0 where the API does not say */
    const char *next_page_token; /* NULL on the last page */
    char *document;
} ghl_location_page;

/* A header of a request or an answer. Both texts are required. */
typedef struct ghl_header {
    const char *name;
    const char *value;
} ghl_header;

/* A location whose token could not be minted. */
typedef struct ghl_mint_failure {
    const char *location_id;
    const char *status;  /* the name of a GHL_ERR_ code */
    const char *message; /* what happened */
    const char *help;    /* what to do, or NULL */
    bool retryable;      /* whether another run may succeed */
} ghl_mint_failure;

/* What came of minting for many locations. */
typedef struct ghl_mint_report {
    int64_t total;
    int64_t minted;
    int64_t fresh; /* left alone: their tokens are not due */
    ghl_mint_failure *failed;
    size_t failed_count;
    char *document;
} ghl_mint_report;

/* What a pass over the tokens that are due did. */
typedef struct ghl_maintain_report {
    int64_t checked;     /* how many were due */
    int64_t refreshed;
    int64_t resealed;    /* sealed with the first of store.encryptionKeys, which they were not before */
    int64_t unsealed;    /* should have been, but cannot be opened, or changed meanwhile */
    int64_t next_due_at; /* milliseconds since the epoch; 0 where nothing is held that can be renewed */
    ghl_maintain_failure *failed;
    size_t failed_count;
    char *document;
} ghl_maintain_report;

/* What a webhook did. */
typedef struct ghl_webhook_outcome {
    const char *type;        /* "INSTALL", "UNINSTALL" or another, or NULL */
    const char *resource_id; /* the company or location, or NULL */
    bool applied;
    const char *reason;      /* why it was not applied, or what is still to come, or NULL */
    char *document;
} ghl_webhook_outcome;

/* An answer of the API, whatever its status. */
typedef struct ghl_api_response {
    int64_t status;            /* such as 200 or 404 */
    ghl_header *headers;       /* names in lower case */
    size_t header_count;
    const char *body;          /* "json": the JSON's text; "text": the text; "base64": that of the bytes */
    const char *body_encoding; /* "json", "text" or "base64" */
    char *document;
} ghl_api_response;

/* What a consent is asked for with; zero it, then set what is wanted. */
typedef struct ghl_authorization_options {
    const char *scopes;       /* separated by spaces; NULL: the configured ones */
    const char *redirect_uri; /* NULL: the configured one */
    const char *version_id;   /* the app's version; a private app may need it */
    const char *state;        /* of the host's own; NULL: 256 random bits */
    bool login_in_same_tab;   /* whether the login stays in the same browser tab */
} ghl_authorization_options;

/* How what came back from the consent page is checked and used; zero it, then set what is wanted. */
typedef struct ghl_completion_options {
    const char *state;        /* the one that the host kept for this browser session; NULL: any that this client made */
    bool allow_missing_state; /* as an installation that was started inside the marketplace sends it */
    const char *redirect_uri; /* that of the link, where another process made it with one that is not configured */
    const char *user_type;    /* "Company" or "Location"; NULL: what the installation gives */
} ghl_completion_options;

/* How a browser is waited for; zero it, then set what is wanted. */
typedef struct ghl_listen_options {
    int32_t port;             /* 1 to 65535; 0: that of the redirect URI, where it leads to this machine */
    int64_t timeout_ms;       /* 1 to 3600000; 0: 300000 */
    const char *state;        /* this one and the next as in ghl_completion_options */
    bool allow_missing_state;
    const char *redirect_uri; /* that of the link; NULL: the configured one */
    const char *user_type;    /* "Company" or "Location"; NULL: what the installation gives */
} ghl_listen_options;

/* What the items of a list are to have in common. */
typedef enum ghl_flag_filter {
    GHL_EITHER = 0,
    GHL_ONLY_TRUE = 1,
    GHL_ONLY_FALSE = 2
} ghl_flag_filter;

/* Which locations; zero it, then set what is wanted. */
typedef struct ghl_location_query {
    const char *company_id;          /* required */
    const char *app_id;              /* default: the part of the client id before its first '-' */
    int64_t page_size;               /* 1 to 100; 0: the API's default */
    const char *page_token;          /* the last page's next_page_token */
    const char *query;               /* part of the name */
    const char *location_id;
    const char *version_id;          /* with this version of the app */
    const char *plan_id;             /* on this plan */
    ghl_flag_filter is_installed;    /* with, or without, the app */
    ghl_flag_filter on_trial;        /* that try the app, or do not */
    bool restrict_to_user_locations; /* only those that the current user may see */
    bool all;                        /* every page at once */
    const char *access_token;        /* the company's; NULL: the one held for it */
} ghl_location_query;

/* Which stored tokens; zero it, then set what is wanted. */
typedef struct ghl_token_query {
    const char *company_id; /* this company and its locations */
    const char *user_type;  /* "Company" or "Location" */
    int64_t page_size;      /* 1 to 1000; 0: 100 */
    const char *page_token; /* the last page's next_page_token */
} ghl_token_query;

/* What a token is asked for with; zero it, then set what the grant needs. */
typedef struct ghl_token_request {
    const char *grant_type;    /* "authorization_code", "refresh_token" or "client_credentials"; required */
    const char *code;          /* for authorization_code */
    const char *refresh_token; /* for refresh_token */
    const char *user_type;     /* "Company" or "Location" */
    const char *redirect_uri;
    const char *client_id;     /* this one and the next: NULL: the configured one */
    const char *client_secret;
} ghl_token_request;

/* Whose tokens are minted; zero it, then set company_id, and either the locations or installed. */
typedef struct ghl_mint_request {
    const char *company_id;          /* required */
    const char *const *location_ids; /* these locations */
    size_t location_count;
    bool installed;                  /* every location where the app is installed */
    const char *app_id;              /* with installed; default: the part of the client id before its first '-' */
    bool force;                      /* also where a token is not due */
    int64_t concurrency;             /* requests under way at once, 1 to 64; 0: 8 */
} ghl_mint_request;

/* A parameter of a query, not encoded. Both texts are required. */
typedef struct ghl_query_parameter {
    const char *name;
    const char *value;
} ghl_query_parameter;

/* What is sent to the API; zero it, then set what is wanted. Give body or bytes, not both. */
typedef struct ghl_api_request {
    const char *method;               /* "GET", "POST", ...; required */
    const char *path;                 /* begins with '/', may end in a query; required */
    const char *resource_id;          /* whose token goes along; NULL: none */
    const ghl_query_parameter *query; /* joins that of the path; a name may come again */
    size_t query_count;
    const ghl_header *headers;
    size_t header_count;
    const char *body;  /* sent as it is, as text/plain unless the headers say otherwise; NULL: none */
    const void *bytes; /* the same for any bytes, as application/octet-stream; NULL: none */
    size_t byte_count;
} ghl_api_request;

/* Reads the error document of any function of ghl_oauth.h, and takes it over. status is what that function returned. */
void ghl_typed_error(int32_t status, char *document, ghl_error *out);

/* ghl_authorization_url. options may be NULL. */
int32_t ghl_typed_authorization_url(ghl_client *client, const ghl_authorization_options *options,
                                    ghl_authorization_link *out, ghl_error *error);

/* ghl_authorization_complete. redirect_url: the whole URL that the browser was sent to. options may be NULL. */
int32_t ghl_typed_authorization_complete(ghl_client *client, const char *redirect_url,
                                         const ghl_completion_options *options, ghl_token_info *out, ghl_error *error);

/* ghl_authorization_listen. options may be NULL. */
int32_t ghl_typed_authorization_listen(ghl_client *client, const ghl_listen_options *options, ghl_token_info *out,
                                       ghl_error *error);

/* ghl_access_token: *out_token is the bare token, to be freed with ghl_string_free; NULL on error. */
int32_t ghl_typed_access_token(ghl_client *client, const char *resource_id, char **out_token, ghl_error *error);

/* ghl_token_refresh and ghl_token_delete. */
int32_t ghl_typed_token_refresh(ghl_client *client, const char *resource_id, ghl_token_info *out, ghl_error *error);
int32_t ghl_typed_token_delete(ghl_client *client, const char *resource_id, ghl_token_info *out, ghl_error *error);

/* ghl_tokens_list. query may be NULL. */
int32_t ghl_typed_tokens_list(ghl_client *client, const ghl_token_query *query, ghl_token_info_page *out,
                              ghl_error *error);

/* ghl_oauth_token and ghl_oauth_location_token: the endpoints as they are. access_token: the company's; NULL: the one held. */
int32_t ghl_typed_oauth_token(ghl_client *client, const ghl_token_request *request, ghl_token *out, ghl_error *error);
int32_t ghl_typed_oauth_location_token(ghl_client *client, const char *company_id, const char *location_id,
                                       const char *access_token, ghl_token *out, ghl_error *error);
/*
 * ghl_oauth_installed_locations. An item that is no object, or whose "_id" is no text or an empty one, is passed over;
 * ghl_oauth_installed_locations itself gives all of them as the API sent them.
 */
int32_t ghl_typed_installed_locations(ghl_client *client, const ghl_location_query *query, ghl_location_page *out,
                                      ghl_error *error);

/* ghl_tokens_export. query may be NULL. Clearing the page wipes it. */
int32_t ghl_typed_tokens_export(ghl_client *client, const ghl_token_query *query, ghl_token_page *out,
                                ghl_error *error);

/*
 * ghl_tokens_import: of the tokens' fields; those that are NULL or 0 are left out. replace: also where the one that is held
 * is newer. What else the API said of a token is known to an export's JSON alone: to carry everything over, hand that from
 * ghl_tokens_export to ghl_tokens_import.
 */
int32_t ghl_typed_tokens_import(ghl_client *client, const ghl_token *tokens, size_t count, bool replace,
                                ghl_import_report *out, ghl_error *error);

/*
 * ghl_tokens_maintain. company_id: NULL: all of them. concurrency: how many are renewed at once, 1 to 64; 0: 1. progress
 * gets JSON, as ghl_oauth.h says; it may be NULL.
 */
int32_t ghl_typed_tokens_maintain(ghl_client *client, const char *company_id, int64_t concurrency,
                                  ghl_progress_callback progress, void *context, ghl_maintain_report *out,
                                  ghl_error *error);

/* ghl_tokens_mint. progress gets JSON, as ghl_oauth.h says; it may be NULL. */
int32_t ghl_typed_tokens_mint(ghl_client *client, const ghl_mint_request *request, ghl_progress_callback progress,
                              void *context, ghl_mint_report *out, ghl_error *error);

/* ghl_request. */
int32_t ghl_typed_request(ghl_client *client, const ghl_api_request *request, ghl_api_response *out, ghl_error *error);

/* ghl_webhook_apply. body: the raw one; may be NULL where its length is 0. headers: as they came, repeated ones too. */
int32_t ghl_typed_webhook_apply(ghl_client *client, const void *body, size_t body_length, const ghl_header *headers,
                                size_t header_count, ghl_webhook_outcome *out, ghl_error *error);

void ghl_typed_error_clear(ghl_error *error);
void ghl_typed_link_clear(ghl_authorization_link *link);
void ghl_typed_token_info_clear(ghl_token_info *info);
void ghl_typed_token_info_page_clear(ghl_token_info_page *page);
void ghl_typed_token_clear(ghl_token *token);
void ghl_typed_token_page_clear(ghl_token_page *page);
void ghl_typed_import_report_clear(ghl_import_report *report);
void ghl_typed_maintain_report_clear(ghl_maintain_report *report);
void ghl_typed_location_page_clear(ghl_location_page *page);
void ghl_typed_mint_report_clear(ghl_mint_report *report);
void ghl_typed_api_response_clear(ghl_api_response *response);
void ghl_typed_webhook_outcome_clear(ghl_webhook_outcome *outcome);

#ifdef __cplusplus
}
#endif

#endif
