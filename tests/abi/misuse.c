/*
 * All misuse that a host can commit, and all unusual but allowed calls. argv[1] is a configuration,
 * argv[2] tokens to import, and the further arguments their resources, starting with a company.
 */
#include <sched.h>
#include <stdbool.h>

#include "checks.h"

#define THREADS 4

static ghl_client *client;
static const char *tokens;
static char *const *resources;
static int resource_count;

typedef int32_t with_text(ghl_client *, const char *, char **);

static with_text *const TEXT_FUNCTIONS[] = {
    ghl_oauth_token,       ghl_oauth_location_token,   ghl_oauth_installed_locations,
    ghl_authorization_url, ghl_authorization_complete, ghl_token_refresh,
    ghl_token_delete,      ghl_tokens_list,            ghl_tokens_import,
    ghl_tokens_export,     ghl_authorization_listen,   ghl_request,
    ghl_tokens_adopt,      ghl_token_refresh_with,     ghl_client_metrics,
};

/* Functions with a progress callback. */
typedef int32_t long_work(ghl_client *, const char *, ghl_progress_callback, void *, char **);
static long_work *const LONG_FUNCTIONS[] = {ghl_tokens_maintain, ghl_tokens_mint};

/* Functions that take a body. */
typedef int32_t with_body(ghl_client *, const uint8_t *, size_t, const char *, char **);
static with_body *const BODY_FUNCTIONS[] = {ghl_webhook_verify, ghl_webhook_apply};

#define BODY_FUNCTION_COUNT (sizeof BODY_FUNCTIONS / sizeof *BODY_FUNCTIONS)
#define LONG_FUNCTION_COUNT (sizeof LONG_FUNCTIONS / sizeof *LONG_FUNCTIONS)
#define TEXT_FUNCTION_COUNT (sizeof TEXT_FUNCTIONS / sizeof *TEXT_FUNCTIONS)

/* The value of a pointer before the call. */
#define UNSET ((char *)&tokens)

/* An error that names this parameter; frees the document. */
static void refused(int32_t status, char **document, const char *parameter) {
    char expected[64];
    CHECK(status == GHL_ERR_INVALID_ARGUMENT);
    CHECK(*document != NULL && *document != UNSET);
    CHECK(snprintf(expected, sizeof expected, "\"parameter\":\"%s\"", parameter) > 0);
    CHECK(strstr(*document, expected) != NULL);
    ghl_string_free(*document);
    *document = UNSET;
}

static void import(ghl_client *into) {
    char *report = UNSET;
    CHECK(ghl_tokens_import(into, tokens, &report) == GHL_OK);
    CHECK(strstr(report, "\"skipped\":[]") != NULL);
    ghl_string_free(report);
}

static ghl_client *another(const char *config) {
    ghl_client *made = (ghl_client *)&tokens;
    CHECK(ghl_client_new(config, &made, NULL) == GHL_OK);
    CHECK(made != NULL);
    return made;
}

static void null_for_every_parameter(const char *config) {
    char *document = UNSET, *token;
    ghl_client *made = (ghl_client *)&tokens;

    CHECK(ghl_abi_version() == 1 && ghl_version() != NULL && ghl_status_name(-1) != NULL);
    ghl_string_free(NULL);
    ghl_client_free(NULL);
    ghl_client_cancel(NULL);

    refused(ghl_client_new(NULL, &made, &document), &document, "config_json");
    CHECK(made == NULL);
    refused(ghl_client_new(config, NULL, &document), &document, "out_client");
    refused(ghl_client_new(NULL, NULL, &document), &document, "out_client");
    CHECK(ghl_client_new(NULL, NULL, NULL) == GHL_ERR_INVALID_ARGUMENT);
    refused(ghl_client_stats(NULL, &document), &document, "client");
    CHECK(ghl_client_stats(NULL, NULL) == GHL_ERR_INVALID_ARGUMENT);
    CHECK(ghl_client_on_event(NULL, NULL, NULL) == GHL_ERR_INVALID_ARGUMENT);
    CHECK(ghl_set_log_callback(NULL, NULL, 6) == GHL_ERR_INVALID_ARGUMENT);
    CHECK(ghl_set_log_callback(NULL, NULL, -1) == GHL_ERR_INVALID_ARGUMENT);
    CHECK(ghl_set_log_callback(NULL, NULL, 5) == GHL_OK);

    for (size_t i = 0; i < TEXT_FUNCTION_COUNT; i++) {
        refused(TEXT_FUNCTIONS[i](NULL, "{}", &document), &document, "client");
        CHECK(TEXT_FUNCTIONS[i](client, NULL, &document) == GHL_ERR_INVALID_ARGUMENT);
        CHECK(strstr(document, " is NULL") != NULL);
        ghl_string_free(document);
        document = UNSET;
        CHECK(TEXT_FUNCTIONS[i](NULL, NULL, NULL) == GHL_ERR_INVALID_ARGUMENT);
    }
    for (size_t i = 0; i < LONG_FUNCTION_COUNT; i++) {
        refused(LONG_FUNCTIONS[i](NULL, "{}", NULL, NULL, &document), &document, "client");
        refused(LONG_FUNCTIONS[i](client, NULL, NULL, NULL, &document), &document, "params_json");
        CHECK(LONG_FUNCTIONS[i](NULL, NULL, NULL, NULL, NULL) == GHL_ERR_INVALID_ARGUMENT);
    }

    const uint8_t *const body = (const uint8_t *)"{}";
    for (size_t i = 0; i < BODY_FUNCTION_COUNT; i++) {
        refused(BODY_FUNCTIONS[i](NULL, body, 2, "{}", &document), &document, "client");
        refused(BODY_FUNCTIONS[i](client, NULL, 2, "{}", &document), &document, "body");
        refused(BODY_FUNCTIONS[i](client, body, 2, NULL, &document), &document, "headers_json");
        CHECK(BODY_FUNCTIONS[i](client, NULL, 0, "{}", NULL) == GHL_ERR_SIGNATURE_INVALID);
        CHECK(BODY_FUNCTIONS[i](NULL, NULL, 1, NULL, NULL) == GHL_ERR_INVALID_ARGUMENT);
    }

    refused(ghl_webhook_apply_with(NULL, body, 2, "{}", "{}", &document), &document, "client");
    refused(ghl_webhook_apply_with(client, NULL, 2, "{}", "{}", &document), &document, "body");
    refused(ghl_webhook_apply_with(client, body, 2, NULL, "{}", &document), &document,
            "headers_json");
    refused(ghl_webhook_apply_with(client, body, 2, "{}", NULL, &document), &document,
            "params_json");
    CHECK(ghl_webhook_apply_with(client, NULL, 0, "{}", "{}", NULL) == GHL_ERR_SIGNATURE_INVALID);

    token = UNSET;
    refused(ghl_access_token(NULL, "a", &token, &document), &document, "client");
    CHECK(token == NULL);
    refused(ghl_access_token(client, NULL, &token, &document), &document, "resource_id");
    CHECK(token == NULL);
    CHECK(ghl_access_token(NULL, NULL, NULL, NULL) == GHL_ERR_INVALID_ARGUMENT);

    char buffer[4] = "abc";
    size_t length = sizeof buffer;
    refused(ghl_access_token_into(NULL, "a", buffer, &length, &document), &document, "client");
    CHECK(length == 0 && buffer[0] == '\0');
    length = sizeof buffer;
    refused(ghl_access_token_into(client, NULL, buffer, &length, &document), &document,
            "resource_id");
    length = sizeof buffer;
    refused(ghl_access_token_into(client, "a", NULL, &length, &document), &document, "buffer");
    CHECK(length == 0);
    refused(ghl_access_token_into(client, "a", buffer, NULL, &document), &document, "length");
    CHECK(ghl_access_token_into(NULL, NULL, NULL, NULL, NULL) == GHL_ERR_INVALID_ARGUMENT);

    memcpy(buffer, "abc", 4);
    length = sizeof buffer;
    CHECK(ghl_access_token_try_into(NULL, "a", buffer, &length) == GHL_ERR_INVALID_ARGUMENT);
    CHECK(length == 0 && buffer[0] == '\0');
    length = sizeof buffer;
    CHECK(ghl_access_token_try_into(client, NULL, buffer, &length) == GHL_ERR_INVALID_ARGUMENT);
    length = sizeof buffer;
    CHECK(ghl_access_token_try_into(client, "\xff", buffer, &length) == GHL_ERR_INVALID_ARGUMENT);
    length = sizeof buffer;
    CHECK(ghl_access_token_try_into(client, "a", NULL, &length) == GHL_ERR_INVALID_ARGUMENT);
    CHECK(ghl_access_token_try_into(client, "a", buffer, NULL) == GHL_ERR_INVALID_ARGUMENT);
    CHECK(ghl_access_token_try_into(NULL, NULL, NULL, NULL) == GHL_ERR_INVALID_ARGUMENT);

    const char *wanted = "{\"resourceId\": \"a\"}";
    token = UNSET;
    refused(ghl_access_token_with(NULL, wanted, &token, &document), &document, "client");
    CHECK(token == NULL);
    refused(ghl_access_token_with(client, NULL, &token, &document), &document, "params_json");
    refused(ghl_access_token_with(client, "\xff", &token, &document), &document, "params_json");
    refused(ghl_access_token_with(client, "{}", &token, &document), &document, "resourceId");
    CHECK(ghl_access_token_with(NULL, NULL, NULL, NULL) == GHL_ERR_INVALID_ARGUMENT);

    CHECK(ghl_call_cancel(NULL, "a") == GHL_ERR_INVALID_ARGUMENT);
    CHECK(ghl_call_cancel(client, NULL) == GHL_ERR_INVALID_ARGUMENT);
    CHECK(ghl_call_cancel(client, "") == GHL_ERR_INVALID_ARGUMENT);
    CHECK(ghl_call_cancel(client, "\xff") == GHL_ERR_INVALID_ARGUMENT);
    CHECK(ghl_call_cancel(NULL, NULL) == GHL_ERR_INVALID_ARGUMENT);
    CHECK(ghl_library_info(NULL) == GHL_OK);
}

static void bad_utf8_in_every_text(void) {
    static const char *const TEXTS[] = {"\xff", "{\"a\": \"\xc3\"}", "\xed\xa0\x80", "\xc0\x80",
                                        "a\xf4\x90\x80\x80"};
    for (size_t i = 0; i < sizeof TEXTS / sizeof *TEXTS; i++) {
        char *document = UNSET, *token;
        ghl_client *made;
        refused(ghl_client_new(TEXTS[i], &made, &document), &document, "config_json");
        CHECK(made == NULL);
        for (size_t j = 0; j < TEXT_FUNCTION_COUNT; j++) {
            CHECK(TEXT_FUNCTIONS[j](client, TEXTS[i], &document) == GHL_ERR_INVALID_ARGUMENT);
            CHECK(strstr(document, " is not valid UTF-8") != NULL);
            ghl_string_free(document);
        }
        for (size_t j = 0; j < LONG_FUNCTION_COUNT; j++) {
            refused(LONG_FUNCTIONS[j](client, TEXTS[i], NULL, NULL, &document), &document,
                    "params_json");
        }
        for (size_t j = 0; j < BODY_FUNCTION_COUNT; j++) {
            refused(BODY_FUNCTIONS[j](client, NULL, 0, TEXTS[i], &document), &document,
                    "headers_json");
        }
        refused(ghl_access_token(client, TEXTS[i], &token, &document), &document, "resource_id");
        size_t length = 0;
        refused(ghl_access_token_into(client, TEXTS[i], NULL, &length, &document), &document,
                "resource_id");
    }
}

/* No document is requested; only the code is returned. */
static void no_documents(const char *config) {
    ghl_client *made = another(config);
    import(made);
    CHECK(ghl_client_stats(made, NULL) == GHL_OK);
    CHECK(ghl_authorization_url(made, "{\"scopes\": [\"a\"]}", NULL) == GHL_OK);
    CHECK(ghl_authorization_complete(made, "{\"redirectUrl\": \"https://app.example/\"}", NULL) ==
          GHL_ERR_STATE_MISMATCH);
    CHECK(ghl_tokens_list(made, "{}", NULL) == GHL_OK);
    CHECK(ghl_tokens_export(made, "{}", NULL) == GHL_OK);
    CHECK(ghl_access_token(made, resources[0], NULL, NULL) == GHL_OK);
    CHECK(ghl_access_token(made, "", NULL, NULL) == GHL_ERR_INVALID_ARGUMENT);
    CHECK(ghl_token_refresh(made, resources[0], NULL) == GHL_OK);
    CHECK(ghl_tokens_maintain(made, "{}", NULL, NULL, NULL) == GHL_OK);
    CHECK(ghl_request(made, "{\"method\": \"GET\", \"path\": \"/nowhere\"}", NULL) == GHL_OK);
    CHECK(ghl_authorization_listen(made, "{\"port\": 0}", NULL) == GHL_ERR_INVALID_ARGUMENT);
    CHECK(ghl_oauth_token(made, "{\"grantType\": \"refresh_token\", \"refreshToken\": \"?\"}",
                          NULL) == GHL_ERR_REAUTHORIZATION_REQUIRED);
    char params[256];
    CHECK(snprintf(params, sizeof params, "{\"companyId\": \"%s\", \"locationId\": \"%s\"}",
                   resources[0], resources[1]) > 0);
    CHECK(ghl_oauth_location_token(made, params, NULL) == GHL_OK);
    CHECK(snprintf(params, sizeof params, "{\"companyId\": \"%s\"}", resources[0]) > 0);
    CHECK(ghl_oauth_installed_locations(made, params, NULL) == GHL_OK);
    CHECK(snprintf(params, sizeof params, "{\"companyId\": \"%s\", \"installed\": true}",
                   resources[0]) > 0);
    CHECK(ghl_tokens_mint(made, params, NULL, NULL, NULL) == GHL_OK);
    /* A renewed token is also stored for the next client, because a refresh token is valid once. */
    char *exported;
    CHECK(ghl_tokens_export(made, "{}", &exported) == GHL_OK);
    CHECK(ghl_tokens_import(client, exported, NULL) == GHL_OK);
    ghl_string_free(exported);
    CHECK(ghl_token_delete(made, resources[0], NULL) == GHL_OK);
    ghl_client_free(made);
}

static void texts_changed_by_their_owner(void) {
    char *text;
    CHECK(ghl_client_stats(client, &text) == GHL_OK);
    memset(text, 'x', strlen(text) + 1);
    ghl_string_free(text);
    CHECK(ghl_client_stats(client, &text) == GHL_OK);
    text[0] = '\0';
    ghl_string_free(text);
    CHECK(ghl_access_token(client, resources[0], &text, NULL) == GHL_OK);
    text[strlen(text) / 2] = '\0';
    ghl_string_free(text);
}

static void buffers_of_every_size(void) {
    char *token;
    CHECK(ghl_access_token(client, resources[0], &token, NULL) == GHL_OK);
    size_t needed = strlen(token) + 1;
    for (size_t size = 0; size <= needed + 1; size++) {
        char *buffer = malloc(size == 0 ? 1 : size);
        CHECK(buffer != NULL);
        size_t length = size;
        int32_t status =
            ghl_access_token_into(client, resources[0], size == 0 ? NULL : buffer, &length, NULL);
        CHECK(length == needed);
        if (size < needed) {
            CHECK(status == GHL_ERR_BUFFER_TOO_SMALL && (size == 0 || buffer[0] == '\0'));
        } else {
            CHECK(status == GHL_OK && strcmp(buffer, token) == 0);
        }
        free(buffer);
    }
    ghl_string_free(token);
}

/* A callback may do anything except free its client and replace itself. */
static void call_the_library(const char *resource_id) {
    char *text, *error;
    CHECK(ghl_client_stats(client, &text) == GHL_OK);
    ghl_string_free(text);
    CHECK(ghl_tokens_list(client, "{}", &text) == GHL_OK);
    ghl_string_free(text);
    CHECK(ghl_tokens_export(client, "{\"pageSize\": 1}", &text) == GHL_OK);
    ghl_string_free(text);
    CHECK(ghl_authorization_url(client, "{}", &text) == GHL_OK);
    ghl_string_free(text);
    CHECK(ghl_access_token(client, resource_id, &text, &error) == GHL_OK);
    ghl_string_free(text);
    size_t length = 0;
    CHECK(ghl_access_token_into(client, resource_id, NULL, &length, NULL) ==
          GHL_ERR_BUFFER_TOO_SMALL);
    CHECK(ghl_tokens_import(client, "{\"tokens\": []}", NULL) == GHL_OK);
    CHECK(ghl_token_delete(client, "nobody", NULL) == GHL_ERR_NOT_FOUND);
    ghl_client_cancel(client);
}

static ghl_test_count heard = GHL_TEST_COUNT, logged = GHL_TEST_COUNT, told = GHL_TEST_COUNT,
                      minted = GHL_TEST_COUNT;

static void ignore_line(int32_t level, const char *message, void *context) {
    CHECK(level >= 1 && level <= 5 && message != NULL && context == NULL);
}

static void ignore_event(const char *event, void *context) {
    CHECK(event != NULL && context == NULL);
}

static void event_that_calls(const char *event, void *context) {
    CHECK(event[0] == '{' && context == (void *)&heard);
    if (add(&heard, 1) > 1) {
        return; /* A nested event. */
    }
    call_the_library(resources[0]);
    CHECK(ghl_token_refresh(client, resources[1], NULL) == GHL_OK);
    CHECK(ghl_tokens_maintain(client, "{}", NULL, NULL, NULL) == GHL_OK);
    /* Replacing itself is refused at once; replacing the log callback is allowed. */
    CHECK(ghl_client_on_event(client, ignore_event, NULL) == GHL_ERR_INVALID_ARGUMENT);
    CHECK(ghl_client_on_event(client, NULL, NULL) == GHL_ERR_INVALID_ARGUMENT);
    CHECK(ghl_set_log_callback(ignore_line, NULL, 5) == GHL_OK);
    CHECK(ghl_set_log_callback(NULL, NULL, 0) == GHL_OK);
}

static void line_that_calls(int32_t level, const char *message, void *context) {
    CHECK(level >= 1 && level <= 5 && message[0] != '\0' && context == (void *)&logged);
    if (add(&logged, 1) == 1) {
        call_the_library(resources[0]);
        CHECK(ghl_token_refresh(client, resources[1], NULL) == GHL_OK);
        CHECK(ghl_client_on_event(client, NULL, NULL) == GHL_OK);
        CHECK(ghl_set_log_callback(NULL, NULL, 0) == GHL_ERR_INVALID_ARGUMENT);
    }
}

static int32_t minting_that_calls(const char *progress, void *context) {
    CHECK(strstr(progress, "\"secondsLeft\":") != NULL && context == (void *)&minted);
    if (add(&minted, 1) == 1) {
        CHECK(ghl_token_refresh(client, resources[0], NULL) == GHL_OK);
        CHECK(ghl_client_on_event(client, NULL, NULL) == GHL_OK);
        CHECK(ghl_set_log_callback(NULL, NULL, 0) == GHL_OK);
    }
    return 0;
}

static int32_t progress_that_calls(const char *progress, void *context) {
    CHECK(strstr(progress, "\"checked\":") != NULL && context == (void *)&told);
    if (add(&told, 1) == 1) {
        char *text;
        CHECK(ghl_access_token(client, resources[0], &text, NULL) == GHL_OK);
        ghl_string_free(text);
        CHECK(ghl_client_on_event(client, NULL, NULL) == GHL_OK);
        CHECK(ghl_set_log_callback(NULL, NULL, 0) == GHL_OK);
        CHECK(ghl_tokens_maintain(client, "{}", NULL, NULL, NULL) == GHL_OK);
    }
    return 0;
}

static void callbacks_that_call_back(const char *config) {
    CHECK(ghl_client_on_event(client, event_that_calls, &heard) == GHL_OK);
    CHECK(ghl_token_refresh(client, resources[0], NULL) == GHL_OK);
    CHECK(ghl_client_on_event(client, NULL, NULL) == GHL_OK);
    CHECK(add(&heard, 0) >= 2); /* Its own event, and the one of the nested refresh. */

    CHECK(ghl_client_on_event(client, ignore_event, NULL) == GHL_OK);
    CHECK(ghl_set_log_callback(line_that_calls, &logged, 5) == GHL_OK);
    CHECK(ghl_token_refresh(client, resources[0], NULL) == GHL_OK);
    CHECK(ghl_set_log_callback(NULL, NULL, 0) == GHL_OK);
    CHECK(add(&logged, 0) >= 1);

    /* The expiry of the tokens is long past, so they are due. */
    ghl_client *usual = client;
    client = another(config);
    char *exported;
    CHECK(ghl_tokens_export(usual, "{}", &exported) == GHL_OK);
    for (char *at = exported; (at = strstr(at, "\"expiresAt\":")) != NULL;) {
        at += strlen("\"expiresAt\":");
        for (int digit = 0; *at >= '0' && *at <= '9'; at++, digit++) {
            *at = digit == 0 ? '1' : '0';
        }
    }
    CHECK(ghl_tokens_import(client, exported, NULL) == GHL_OK);
    ghl_string_free(exported);
    CHECK(ghl_tokens_maintain(client, "{}", progress_that_calls, &told, NULL) == GHL_OK);
    CHECK(add(&told, 0) == resource_count);

    char params[128];
    const char *const all = "{\"companyId\": \"%s\", \"installed\": true, \"force\": true}";
    CHECK(snprintf(params, sizeof params, all, resources[0]) > 0);
    CHECK(ghl_client_on_event(client, ignore_event, NULL) == GHL_OK);
    CHECK(ghl_set_log_callback(ignore_line, NULL, 5) == GHL_OK);
    CHECK(ghl_tokens_mint(client, params, minting_that_calls, &minted, NULL) == GHL_OK);
    CHECK(add(&minted, 0) >= 1);
    ghl_client_free(usual);
}

static ghl_test_count at_work = GHL_TEST_COUNT;

static void refresh_and_list(int number) {
    char params[128];
    CHECK(snprintf(params, sizeof params, "{\"companyId\": \"%s\"}", resources[0]) > 0);
    for (int round = 0; round < 4; round++) {
        char *document;
        int32_t status =
            number % 2 == 0
                ? ghl_token_refresh(client, resources[number % resource_count], &document)
                : ghl_oauth_installed_locations(client, params, &document);
        CHECK(status == GHL_OK || status == GHL_ERR_CANCELLED);
        CHECK((status == GHL_OK) == (strstr(document, "\"error\"") == NULL));
        ghl_string_free(document);
    }
    add(&at_work, -1);
}

static void cancel_until_done(void) {
    while (add(&at_work, 0) > 0) {
        ghl_client_cancel(client);
        sched_yield();
    }
}

static void calls_while_cancelled(void) {
    add(&at_work, THREADS);
    in_parallel(THREADS, refresh_and_list, cancel_until_done);
    /* No token is lost, and later calls are not cancelled. */
    for (int i = 0; i < resource_count; i++) {
        CHECK(ghl_token_refresh(client, resources[i], NULL) == GHL_OK);
    }
}

/* A log callback, which must not be used after its replacement. */
typedef struct {
    ghl_test_count entered, left, leaving;
} receiver;

static receiver *first_receiver;

static receiver *new_receiver(void) {
    receiver *made = malloc(sizeof *made);
    CHECK(made != NULL);
    *made = (receiver){GHL_TEST_COUNT, GHL_TEST_COUNT, GHL_TEST_COUNT};
    return made;
}

/* Returns some time after its replacement has begun. */
static void linger(int32_t level, const char *message, void *context) {
    receiver *own = context;
    CHECK(level == 3 && message[0] != '\0');
    add(&own->entered, 1);
    while (add(&own->leaving, 0) == 0) {
        sched_yield();
    }
    for (int i = 0; i < 100; i++) {
        sched_yield();
    }
    add(&own->left, 1);
}

static void write_to_the_log(int number) {
    char document[160];
    CHECK(snprintf(document, sizeof document,
                   "{\"replace\": true, \"tokens\": [{\"accessToken\": \"a\", \"companyId\": "
                   "\"other-%d\"}]}",
                   number) > 0);
    for (int round = 0; round < 50; round++) {
        CHECK(ghl_tokens_import(client, document, NULL) == GHL_OK);
    }
    add(&at_work, -1);
}

static void replace_callback_until_done(void) {
    int lines = 0;
    receiver *last = first_receiver;
    while (add(&at_work, 0) > 0) {
        if (add(&last->entered, 0) == 0) {
            sched_yield();
            continue;
        }
        receiver *next = new_receiver();
        add(&last->leaving, 1);
        CHECK(ghl_set_log_callback(linger, next, 3) == GHL_OK);
        CHECK(last->entered.value == last->left.value);
        lines += last->left.value;
        free(last);
        last = next;
    }
    CHECK(ghl_set_log_callback(NULL, NULL, 0) == GHL_OK);
    CHECK(last->entered.value == last->left.value);
    free(last);
    CHECK(lines > 0);
}

static void a_log_callback_replaced_while_others_log(void) {
    first_receiver = new_receiver();
    CHECK(ghl_set_log_callback(linger, first_receiver, 3) == GHL_OK);
    add(&at_work, THREADS);
    in_parallel(THREADS, write_to_the_log, replace_callback_until_done);
}

/* An empty store that accepts nothing: every callback exists and returns the same value. */
static int32_t loads_nothing(void *context, const char *id, char **out) {
    (void)id;
    CHECK(*out == NULL);
    *out = *(int32_t *)context == GHL_OK ? NULL : strdup("no words for it");
    return *(int32_t *)context;
}

static int32_t saves_nothing(void *context, const char *id, const char *record, uint64_t version) {
    CHECK(*id != '\0' && *record == '{' && version == 0);
    return *(int32_t *)context == GHL_OK ? GHL_ERR_INTERNAL : *(int32_t *)context;
}

static int32_t removes_nothing(void *context, const char *id) {
    CHECK(*id != '\0');
    return *(int32_t *)context;
}

static int32_t lists_nothing(void *context, const char *query, char **out) {
    CHECK(*query == '{');
    *out = strdup("{\"items\": [], \"nextPageToken\": null}");
    return *(int32_t *)context;
}

static void frees(void *context, char *text) {
    (void)context;
    free(text);
}

static void counts_down(void *context) {
    --*(int32_t *)context;
}

static void host_stores(const char *config) {
    int32_t answer = GHL_OK;
    ghl_store_callbacks store = {sizeof store,    &answer,       loads_nothing, saves_nothing,
                                 removes_nothing, lists_nothing, NULL,          NULL,
                                 frees,           NULL};
    char *document = UNSET;
    ghl_client *made = (ghl_client *)&tokens;
    refused(ghl_client_new_with_store(config, NULL, &made, &document), &document, "store");
    CHECK(made == NULL);
    refused(ghl_client_new_with_store(NULL, &store, &made, &document), &document, "config_json");
    refused(ghl_client_new_with_store(config, &store, NULL, &document), &document, "out_client");
    CHECK(ghl_client_new_with_store(NULL, NULL, NULL, NULL) == GHL_ERR_INVALID_ARGUMENT);
    for (size_t i = 0; i < sizeof store; i++) {
        store.size = i;
        refused(ghl_client_new_with_store(config, &store, &made, &document), &document,
                "store.size");
    }
    store.size = sizeof store;

    /* Every code other than GHL_OK is a failure; GHL_OK with an empty list is one as well. */
    const int32_t answers[] = {GHL_OK, GHL_ERR_STORE, GHL_ERR_CONFLICT, GHL_ERR_TIMEOUT, -1,
                               63,     INT32_MAX,     INT32_MIN};
    for (size_t i = 0; i < sizeof answers / sizeof *answers; i++) {
        CHECK(ghl_client_new_with_store(config, &store, &made, &document) == GHL_OK);
        ghl_string_free(document);
        answer = answers[i];
        int32_t status = ghl_tokens_list(made, "{}", &document);
        CHECK(status == (answer == GHL_OK ? GHL_OK : GHL_ERR_STORE));
        ghl_string_free(document);
        status = ghl_tokens_import(
            made, "{\"tokens\": [{\"accessToken\": \"a\", \"companyId\": \"c\"}]}", &document);
        CHECK(status == GHL_ERR_STORE);
        ghl_string_free(document);
        ghl_client_free(made);
        document = UNSET;
        answer = GHL_OK;
    }
    store.destroy = counts_down;
    answer = 7;
    CHECK(ghl_client_new_with_store("{}", &store, &made, NULL) == GHL_ERR_INVALID_ARGUMENT &&
          answer == 6);
    CHECK(ghl_client_new_with_store(config, &store, &made, NULL) == GHL_OK && answer == 6);
    ghl_client_free(made);
    CHECK(answer == 5);
}

static void free_the_client(int number) {
    CHECK(number == 0);
    ghl_client_free(client);
}

int main(int argc, char **argv) {
    CHECK(argc >= 5);
    tokens = argv[2];
    resources = argv + 3;
    resource_count = argc - 3;
    client = another(argv[1]);

    null_for_every_parameter(argv[1]);
    bad_utf8_in_every_text();
    no_documents(argv[1]);
    texts_changed_by_their_owner();
    buffers_of_every_size();
    callbacks_that_call_back(argv[1]);
    calls_while_cancelled();
    host_stores(argv[1]);
    a_log_callback_replaced_while_others_log();
    in_parallel(1, free_the_client, NULL);
    puts("passed");
    return 0;
}
