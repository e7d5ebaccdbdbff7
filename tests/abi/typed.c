/*
 * The typed structs and the C header against an emulator: argv[1] is the configuration, argv[2] a
 * program that simulates the person: it gets the consent link as its argument and prints the
 * redirect URL. argv[3] is the signature of argv[4], an INSTALL webhook, and argv[5] a path for a
 * database.
 */
#include "typed.h"

/* Sets "expiresAt":<number> to a past time in place, so that the document keeps its length. */
static void make_expired(char *document) {
    for (char *at = document; (at = strstr(at, "\"expiresAt\":")) != NULL;) {
        at += strlen("\"expiresAt\":");
        for (int digit = 0; *at >= '0' && *at <= '9'; at++, digit++) {
            *at = digit == 0 ? '1' : '0';
        }
    }
}

#define REFUSED(call)                                    \
    do {                                                 \
        CHECK((call) == GHL_ERR_INVALID_ARGUMENT);       \
        CHECK(strcmp(error.parameter, "timeoutMs") == 0); \
        ghl_typed_error_clear(&error);                   \
    } while (0)

static void *ask(void *context) {
    void **parts = context;
    char *token;
    if (ghl_access_token(parts[0], parts[1], &token, NULL) != GHL_OK) {
        return NULL;
    }
    return token;
}

static int32_t count_calls(const char *progress, void *context) {
    CHECK(strstr(progress, "\"done\"") != NULL);
    ++*(int *)context;
    return 0;
}

static int tokens_checked;

static int32_t count_checked(const char *progress, void *context) {
    CHECK(strstr(progress, "\"checked\"") != NULL);
    ++*(int *)context;
    return 0;
}

/* Each of two tokens is sealed with another key; then the first key is removed. */
static void missing_key_is_not_a_token_failure(const char *database) {
    static const char *const KEYS[] = {
        "\"MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=\"",
        "\"YWJjZGVmMDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODk=\","
        "\"MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=\"",
        "\"YWJjZGVmMDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODk=\"",
    };
    ghl_token held = {.access_token = "a",
                      .refresh_token = "b",
                      .expires_at = 4000000000000,
                      .user_type = "Company"};
    ghl_maintain_report pass;
    remove(database);
    for (int i = 0; i < 3; i++) {
        char config[4096];
        snprintf(config, sizeof config,
                 "{\"clientId\":\"app-1\",\"clientSecret\":\"s\",\"store\":{\"kind\":\"sqlite\","
                 "\"path\":\"%s\",\"encryptionKeys\":[%s]}}",
                 database, KEYS[i]);
        ghl_client *client;
        ghl_import_report imported;
        CHECK(ghl_client_new(config, &client, NULL) == GHL_OK);
        if (i < 2) {
            held.company_id = i == 0 ? "one" : "other";
            OK(ghl_typed_tokens_import(client, &held, 1, false, &imported, &error));
            CHECK(imported.imported == 1);
            ghl_typed_import_report_clear(&imported);
        } else {
            OK(ghl_typed_tokens_maintain(client, NULL, 0, NULL, NULL, &pass, &error));
            CHECK(pass.checked == 0 && pass.resealed == 0 && pass.unsealed == 1 &&
                  pass.failed_count == 1);
            CHECK(pass.failed[0].resource_id == NULL &&
                  strcmp(pass.failed[0].status, "GHL_ERR_STORE") == 0);
            ghl_typed_maintain_report_clear(&pass);
        }
        ghl_client_free(client);
    }
}

int main(int argc, char **argv) {
    CHECK(argc == 6);
    CHECK(ghl_abi_version() == 1);
    CHECK(strcmp(ghl_version(), GHL_OAUTH_VERSION) == 0);
    CHECK(strcmp(ghl_status_name(GHL_ERR_RATE_LIMITED), "GHL_ERR_RATE_LIMITED") == 0);
    CHECK(strcmp(ghl_status_name(-7), "GHL_ERR_UNKNOWN") == 0);
    ghl_string_free(NULL);
    ghl_client_free(NULL);
    ghl_client_cancel(NULL);

    /* A refused configuration names its key. */
    ghl_client *client = (ghl_client *)&error;
    char *document;
    int32_t status = ghl_client_new(
        "{\"clientId\": \"app-1\", \"clientSecret\": \"s\", \"colour\": 1}", &client, &document);
    CHECK(status == GHL_ERR_INVALID_ARGUMENT && client == NULL);
    ghl_typed_error(status, document, &error);
    CHECK(strcmp(error.parameter, "colour") == 0 && !error.retryable && error.help != NULL);
    CHECK(error.sent == GHL_SENT_NOTHING);
    ghl_typed_error_clear(&error);
    ghl_typed_error_clear(&error);

    status = ghl_client_new(argv[1], &client, NULL);
    CHECK(status == GHL_OK);

    /* Consent. */
    ghl_authorization_options asked = {.scopes =
                                           " oauth.readonly  oauth.write locations.readonly "};
    ghl_authorization_link link;
    OK(ghl_typed_authorization_url(client, &asked, &link, &error));
    CHECK(strlen(link.state) == 43 && strstr(link.url, link.state) != NULL);
    char redirect_url[4096];
    consent(argv[2], link.url, redirect_url, sizeof redirect_url);
    ghl_token_info company;
    ghl_completion_options session = {.state = "another state"};
    CHECK(ghl_typed_authorization_complete(client, redirect_url, &session, &company, &error) ==
          GHL_ERR_STATE_MISMATCH);
    CHECK(error.status == GHL_ERR_STATE_MISMATCH && company.resource_id == NULL);
    ghl_typed_error_clear(&error);
    session.state = link.state;
    OK(ghl_typed_authorization_complete(client, redirect_url, &session, &company, &error));
    CHECK(strcmp(company.user_type, "Company") == 0 && strcmp(company.state, "ok") == 0);
    CHECK(company.refreshable && company.location_id == NULL && company.expires_at > 1700000000000);
    ghl_typed_link_clear(&link);
    ghl_token_info nobody;
    CHECK(ghl_typed_authorization_listen(client, NULL, &nobody, &error) ==
          GHL_ERR_INVALID_ARGUMENT);
    CHECK(strcmp(error.parameter, "port") == 0 && nobody.resource_id == NULL);
    ghl_typed_error_clear(&error);
    ghl_listen_options listen = {.port = 8080, .timeout_ms = -1};
    CHECK(ghl_typed_authorization_listen(client, &listen, &nobody, &error) ==
          GHL_ERR_INVALID_ARGUMENT);
    CHECK(strcmp(error.parameter, "timeoutMs") == 0);
    ghl_typed_error_clear(&error);
    listen = (ghl_listen_options){
        .port = 8080, .timeout_ms = 1, .state = " ", .allow_missing_state = true};
    CHECK(ghl_typed_authorization_listen(client, &listen, &nobody, &error) ==
          GHL_ERR_INVALID_ARGUMENT);
    CHECK(strcmp(error.parameter, "state") == 0);
    ghl_typed_error_clear(&error);

    /* Its locations, page by page and all at once. */
    ghl_location_query query = {.company_id = company.resource_id, .page_size = 2};
    ghl_location_page page;
    char location_id[64] = "", next[512];
    size_t listed = 0;
    do {
        OK(ghl_typed_installed_locations(client, &query, &page, &error));
        CHECK(page.count > 0 && page.count <= 2 && page.items[0].id != NULL &&
              page.items[0].is_installed);
        listed += page.count;
        snprintf(location_id, sizeof location_id, "%s", page.items[0].id);
        query.page_token = page.next_page_token == NULL ? NULL : strcpy(next, page.next_page_token);
        ghl_typed_location_page_clear(&page);
    } while (query.page_token != NULL);
    query = (ghl_location_query){.company_id = company.resource_id, .all = true};
    OK(ghl_typed_installed_locations(client, &query, &page, &error));
    CHECK(page.count == listed && (size_t)page.total == listed);
    /* A name with escaped JSON characters is returned unescaped. */
    bool quoted = false;
    for (size_t i = 0; i < page.count; i++) {
        quoted = quoted || strchr(page.items[i].name, '&') != NULL ||
                 strchr(page.items[i].name, '\'') != NULL;
    }
    CHECK(quoted);
    ghl_typed_location_page_clear(&page);
    query.page_size = 101;
    CHECK(ghl_typed_installed_locations(client, &query, &page, &error) == GHL_ERR_INVALID_ARGUMENT);
    CHECK(strcmp(error.parameter, "pageSize") == 0 && page.items == NULL);
    ghl_typed_error_clear(&error);

    /* A location token: minted, then from memory, then into a buffer. */
    char *token, *again;
    OK(ghl_typed_access_token(client, location_id, &token, &error));
    OK(ghl_typed_access_token(client, location_id, &again, &error));
    CHECK(strcmp(token, again) == 0);
    size_t length = 10;
    char buffer[4096];
    CHECK(ghl_access_token_into(client, location_id, buffer, &length, NULL) ==
          GHL_ERR_BUFFER_TOO_SMALL);
    CHECK(length == strlen(token) + 1 && buffer[0] == '\0');
    length = sizeof buffer;
    CHECK(ghl_access_token_into(client, location_id, buffer, &length, NULL) == GHL_OK);
    CHECK(strcmp(buffer, token) == 0 && length == strlen(token) + 1);
    /* The caller may modify a text before freeing it, including its length. */
    memset(again, 0, strlen(again));
    ghl_string_free(again);

    /* An expired token, 16 threads, one new token. */
    CHECK(ghl_tokens_export(client, "{}", &document) == GHL_OK);
    make_expired(document);
    char *import = malloc(strlen(document) + 64);
    CHECK(import != NULL);
    strcpy(import, "{\"replace\":true,");
    strcat(import, document + 1);
    ghl_string_free(document);
    status = ghl_tokens_import(client, import, &document);
    if (status != GHL_OK) {
        fprintf(stderr, "%s\n", document);
    }
    CHECK(status == GHL_OK);
    CHECK(strstr(document, "\"imported\":2") != NULL);
    ghl_string_free(document);
    memset(import, 0, strlen(import));
    free(import);
    pthread_t threads[16];
    void *parts[2] = {client, location_id};
    for (int i = 0; i < 16; i++) {
        CHECK(pthread_create(&threads[i], NULL, ask, parts) == 0);
    }
    char *renewed = NULL;
    for (int i = 0; i < 16; i++) {
        void *theirs;
        CHECK(pthread_join(threads[i], &theirs) == 0 && theirs != NULL);
        CHECK(renewed == NULL || strcmp(renewed, theirs) == 0);
        ghl_string_free(renewed);
        renewed = theirs;
    }
    CHECK(strcmp(renewed, token) != 0);
    ghl_string_free(renewed);
    ghl_string_free(token);
    ghl_statistics statistics;
    OK(ghl_typed_client_stats(client, &statistics, &error));
    CHECK(strcmp(statistics.version, ghl_version()) == 0 && statistics.tokens_refreshed == 1);
    CHECK(statistics.requests_sent > 0 && statistics.requests_rate_limited == 0);
    CHECK(statistics.busiest_count > 0 && statistics.busiest[0].requests > 0);
    ghl_typed_statistics_clear(&statistics);
    ghl_typed_statistics_clear(&statistics);
    CHECK(ghl_typed_client_stats(NULL, &statistics, &error) == GHL_ERR_INVALID_ARGUMENT);
    CHECK(strcmp(error.parameter, "client") == 0 && statistics.busiest == NULL);
    ghl_typed_error_clear(&error);
    char *metrics;
    OK(ghl_typed_client_metrics(client, NULL, &metrics, &error));
    CHECK(strstr(metrics, "\nghl_oauth_token_refreshes_total 1\n") != NULL);
    ghl_string_free(metrics);
    const ghl_call_options never = {.timeout_ms = -1};
    CHECK(ghl_typed_client_metrics(client, &never, &metrics, &error) == GHL_ERR_INVALID_ARGUMENT);
    CHECK(metrics == NULL && strcmp(error.parameter, "timeoutMs") == 0);
    ghl_typed_error_clear(&error);

    /* Export and import of all fields; then the tokens are due and maintained. */
    ghl_token_page tokens;
    ghl_import_report imported;
    ghl_maintain_report pass;
    OK(ghl_typed_tokens_export(client, &(ghl_token_query){.page_size = 1}, &tokens, &error));
    CHECK(tokens.count == 1 && tokens.next_page_token != NULL && tokens.items[0].document == NULL);
    ghl_typed_token_page_clear(&tokens);
    OK(ghl_typed_tokens_export(client, NULL, &tokens, &error));
    CHECK(tokens.count == 2 && tokens.next_page_token == NULL);
    for (size_t i = 0; i < tokens.count; i++) {
        CHECK(tokens.items[i].access_token != NULL && tokens.items[i].refresh_token != NULL);
        tokens.items[i].expires_at = (int64_t)i + 1;
    }
    OK(ghl_typed_tokens_import(client, tokens.items, tokens.count, false, &imported, &error));
    CHECK(imported.imported == 0 && imported.skipped_count == 2 && imported.skipped[1].index == 1);
    CHECK(imported.skipped[0].resource_id != NULL && imported.skipped[0].reason != NULL);
    ghl_typed_import_report_clear(&imported);
    ghl_typed_import_report_clear(&imported);
    OK(ghl_typed_tokens_import_dry_run(client, tokens.items, tokens.count, true, NULL, &imported,
                                       &error));
    CHECK(imported.imported == 2 && imported.skipped == NULL && imported.accepted_count == 2);
    CHECK(imported.accepted[1].index == 1 && imported.accepted[1].replaces);
    CHECK(strcmp(imported.accepted[1].resource_id, tokens.items[1].user_type[0] == 'C'
                                                       ? tokens.items[1].company_id
                                                       : tokens.items[1].location_id) == 0);
    ghl_typed_import_report_clear(&imported);
    /* Nothing was imported: without "replace" the older token is still refused. */
    OK(ghl_typed_tokens_import_dry_run(client, tokens.items, tokens.count, false, NULL, &imported,
                                       &error));
    CHECK(imported.imported == 0 && imported.skipped_count == 2 && imported.accepted == NULL);
    ghl_typed_import_report_clear(&imported);
    OK(ghl_typed_tokens_import(client, tokens.items, tokens.count, true, &imported, &error));
    CHECK(imported.imported == 2 && imported.skipped == NULL && imported.accepted == NULL);
    ghl_typed_import_report_clear(&imported);
    ghl_typed_token_page_clear(&tokens);
    OK(ghl_typed_tokens_import(client, NULL, 0, false, &imported, &error));
    CHECK(imported.imported == 0 && imported.skipped_count == 0);
    ghl_typed_import_report_clear(&imported);
    tokens_checked = 0;
    OK(ghl_typed_tokens_maintain(client, NULL, 2, count_checked, &tokens_checked, &pass, &error));
    CHECK(pass.checked == 2 && pass.refreshed == 2 && pass.failed == NULL && tokens_checked == 2);
    CHECK(pass.next_due_at > 1700000000000 && pass.resealed == 0 && pass.unsealed == 0);
    ghl_typed_maintain_report_clear(&pass);
    CHECK(ghl_typed_tokens_maintain(client, NULL, 65, NULL, NULL, &pass, &error) ==
          GHL_ERR_INVALID_ARGUMENT);
    CHECK(strcmp(error.parameter, "concurrency") == 0);
    ghl_typed_error_clear(&error);
    OK(ghl_typed_tokens_maintain(client, company.resource_id, 0, NULL, NULL, &pass, &error));
    CHECK(pass.checked == 0);
    ghl_typed_maintain_report_clear(&pass);
    /* A refresh token that the server never issued: one failure, which names its owner. */
    ghl_token forged = {.access_token = "forged",
                        .refresh_token = "forged \"too\"",
                        .expires_at = 1,
                        .user_type = "Company",
                        .company_id = "nobody"};
    OK(ghl_typed_tokens_import(client, &forged, 1, false, &imported, &error));
    CHECK(imported.imported == 1);
    ghl_typed_import_report_clear(&imported);
    OK(ghl_typed_tokens_maintain(client, "nobody", 0, NULL, NULL, &pass, &error));
    CHECK(pass.checked == 1 && pass.failed_count == 1 &&
          strcmp(pass.failed[0].resource_id, "nobody") == 0);
    CHECK(strcmp(pass.failed[0].status, "GHL_ERR_REAUTHORIZATION_REQUIRED") == 0 &&
          pass.failed[0].message != NULL);
    ghl_typed_maintain_report_clear(&pass);
    OK(ghl_typed_client_stats(client, &statistics, &error));
    CHECK(statistics.tokens_failed == 1 && statistics.failed_by_status_count == 1);
    CHECK(strcmp(statistics.failed_by_status[0].status, "GHL_ERR_REAUTHORIZATION_REQUIRED") == 0 &&
          statistics.failed_by_status[0].count == 1);
    ghl_typed_statistics_clear(&statistics);
    OK(ghl_typed_token_delete(client, "nobody", &nobody, &error));
    ghl_typed_token_info_clear(&nobody);
    missing_key_is_not_a_token_failure(argv[5]);

    /* The raw endpoints. */
    ghl_token minted;
    OK(ghl_typed_oauth_location_token(client, company.resource_id, location_id, NULL, &minted,
                                      &error));
    CHECK(strcmp(minted.user_type, "Location") == 0 &&
          strcmp(minted.company_id, company.resource_id) == 0);
    CHECK(minted.access_token != NULL && minted.refresh_token != NULL &&
          minted.expires_at > company.expires_at - 86400000);
    ghl_token_request request = {.grant_type = "refresh_token",
                                 .refresh_token = minted.refresh_token,
                                 .user_type = "Location"};
    ghl_token refreshed;
    OK(ghl_typed_oauth_token(client, &request, &refreshed, &error));
    CHECK(strcmp(refreshed.access_token, minted.access_token) != 0);
    ghl_typed_token_clear(&refreshed);
    ghl_typed_token_clear(&minted);

    /* Tokens for many locations: from a list with an invalid ID, and for all locations. */
    const char *const list[] = {location_id, "nobody's \"location\""};
    ghl_mint_request mint = {
        .company_id = company.resource_id, .location_ids = list, .location_count = 2};
    ghl_mint_report report;
    int calls = 0;
    OK(ghl_typed_tokens_mint(client, &mint, count_calls, &calls, &report, &error));
    CHECK(report.total == 2 && report.minted == 0 && report.fresh == 1 &&
          report.failed_count == 1 && calls > 0);
    CHECK(strcmp(report.failed[0].location_id, list[1]) == 0 &&
          strncmp(report.failed[0].status, "GHL_ERR_", 8) == 0);
    CHECK(report.failed[0].message != NULL && !report.failed[0].retryable);
    ghl_typed_mint_report_clear(&report);
    mint = (ghl_mint_request){
        .company_id = company.resource_id, .installed = true, .force = true, .concurrency = 2};
    OK(ghl_typed_tokens_mint(client, &mint, NULL, NULL, &report, &error));
    CHECK((size_t)report.total == listed && report.minted == report.total && report.failed == NULL);
    ghl_typed_mint_report_clear(&report);
    mint.concurrency = 65;
    CHECK(ghl_typed_tokens_mint(client, &mint, NULL, NULL, &report, &error) ==
          GHL_ERR_INVALID_ARGUMENT);
    CHECK(strcmp(error.parameter, "concurrency") == 0);
    ghl_typed_error_clear(&error);

    /* Any request: JSON is returned as text, and headers by name. */
    char path[128];
    snprintf(path, sizeof path, "/locations/%s", location_id);
    ghl_header headers[] = {{"Content-Type", "application/json"}, {"X-Own", "a \"b\""}};
    ghl_api_request get = {.method = "GET", .path = path, .resource_id = location_id};
    ghl_api_response response;
    OK(ghl_typed_request(client, &get, &response, &error));
    CHECK(response.status == 200 && strcmp(response.body_encoding, "json") == 0);
    size_t size = strlen(response.body);
    CHECK(response.body[0] == '{' && response.body[size - 1] == '}' &&
          strstr(response.body, location_id) != NULL);
    bool typed = false;
    for (size_t i = 0; i < response.header_count; i++) {
        typed = typed || (strcmp(response.headers[i].name, "content-type") == 0 &&
                          strncmp(response.headers[i].value, "application/json", 16) == 0);
    }
    CHECK(typed);
    ghl_typed_api_response_clear(&response);
    ghl_typed_api_response_clear(&response);
    ghl_api_request post = {
        .method = "POST", .path = "/nowhere", .headers = headers, .header_count = 2, .body = "{}"};
    OK(ghl_typed_request(client, &post, &response, &error));
    CHECK(response.status == 404 && response.body != NULL && response.body_encoding != NULL);
    ghl_typed_api_response_clear(&response);
    post.path = "nowhere";
    CHECK(ghl_typed_request(client, &post, &response, &error) == GHL_ERR_INVALID_ARGUMENT);
    CHECK(strcmp(error.parameter, "path") == 0 && response.body == NULL);
    ghl_typed_error_clear(&error);

    /* Options: a timeout that the library refuses shows that they reach each function. */
    ghl_call_options refused = {.timeout_ms = 86400001};
    ghl_access_token_request wanted = {.resource_id = location_id, .min_valid_seconds = 60};
    ghl_token_info info;
    ghl_token_info_page infos;
    ghl_adopt_report adopted;
    OK(ghl_typed_access_token_with(client, &wanted, &token, &error));
    CHECK(strlen(token) > 20);
    ghl_string_free(token);
    wanted.call.call_id = "";
    CHECK(ghl_typed_access_token_with(client, &wanted, &token, &error) ==
          GHL_ERR_INVALID_ARGUMENT);
    CHECK(token == NULL && strcmp(error.parameter, "callId") == 0);
    ghl_typed_error_clear(&error);
    wanted.call = refused;
    REFUSED(ghl_typed_access_token_with(client, &wanted, &token, &error));
    REFUSED(ghl_typed_token_refresh_with(client, location_id, &refused, &info, &error));
    OK(ghl_typed_token_refresh_with(client, location_id, NULL, &info, &error));
    ghl_typed_token_info_clear(&info);
    REFUSED(ghl_typed_tokens_list(client, &(ghl_token_query){.call = refused}, &infos, &error));
    REFUSED(ghl_typed_tokens_export(client, &(ghl_token_query){.call = refused}, &tokens, &error));
    REFUSED(ghl_typed_tokens_import_with(client, NULL, 0, false, &refused, &imported, &error));
    REFUSED(ghl_typed_tokens_adopt_with(client, NULL, NULL, false, &refused, &adopted, &error));
    REFUSED(ghl_typed_tokens_maintain_with(client, NULL, 0, &refused, NULL, NULL, &pass, &error));
    REFUSED(ghl_typed_oauth_location_token_with(client, company.resource_id, location_id, NULL,
                                                &refused, &minted, &error));
    mint.call = refused;
    REFUSED(ghl_typed_tokens_mint(client, &mint, NULL, NULL, &report, &error));
    get.call = refused;
    REFUSED(ghl_typed_request(client, &get, &response, &error));
    ghl_token_request unasked = {.grant_type = "refresh_token", .call = refused};
    REFUSED(ghl_typed_oauth_token(client, &unasked, &refreshed, &error));
    ghl_completion_options completion = {.call = refused};
    REFUSED(ghl_typed_authorization_complete(client, "https://app.example/?code=a", &completion,
                                             &info, &error));
    ghl_listen_options named = {.port = 1, .call_id = ""};
    CHECK(ghl_typed_authorization_listen(client, &named, &info, &error) ==
          GHL_ERR_INVALID_ARGUMENT);
    CHECK(strcmp(error.parameter, "callId") == 0);
    ghl_typed_error_clear(&error);
    CHECK(ghl_call_cancel(client, "unknown") == GHL_OK);

    /* A webhook signed by argv[3] over argv[4], with an unusual header spelling and other headers;
     * then with another body. */
    ghl_header delivered[] = {
        {"Host", "app.example"}, {"X-GHL-Signature", argv[3]}, {"Host", "again \\"}};
    ghl_webhook_outcome outcome;
    OK(ghl_typed_webhook_apply(client, argv[4], strlen(argv[4]), delivered, 3, &outcome, &error));
    CHECK(strcmp(outcome.type, "INSTALL") == 0 && outcome.resource_id != NULL);
    CHECK(outcome.applied || outcome.reason != NULL);
    ghl_typed_webhook_outcome_clear(&outcome);
    ghl_webhook_options remembered = {.no_mint = true, .call = {.timeout_ms = 60000}};
    OK(ghl_typed_webhook_apply_with(client, argv[4], strlen(argv[4]), delivered, 3, &remembered,
                                    &outcome, &error));
    CHECK(strcmp(outcome.type, "INSTALL") == 0);
    ghl_typed_webhook_outcome_clear(&outcome);
    OK(ghl_typed_webhook_apply_with(client, argv[4], strlen(argv[4]), delivered, 3, NULL, &outcome,
                                    &error));
    ghl_typed_webhook_outcome_clear(&outcome);
    remembered.call.timeout_ms = -1;
    CHECK(ghl_typed_webhook_apply_with(client, argv[4], strlen(argv[4]), delivered, 3, &remembered,
                                       &outcome, &error) == GHL_ERR_INVALID_ARGUMENT);
    CHECK(strcmp(error.parameter, "timeoutMs") == 0);
    ghl_typed_error_clear(&error);
    CHECK(ghl_typed_webhook_apply(client, argv[4], strlen(argv[4]) - 1, delivered, 3, &outcome,
                                  &error) == GHL_ERR_SIGNATURE_INVALID);
    CHECK(outcome.type == NULL && !outcome.applied);
    ghl_typed_error_clear(&error);
    CHECK(ghl_typed_webhook_apply(client, NULL, 0, NULL, 0, &outcome, &error) ==
          GHL_ERR_SIGNATURE_INVALID);
    ghl_typed_error_clear(&error);

    /* Stored tokens; a forced refresh; a deletion; and a missing token. */
    ghl_token_query locations = {.user_type = "Location", .page_size = 10};
    ghl_token_info_page held;
    OK(ghl_typed_tokens_list(client, &locations, &held, &error));
    CHECK(held.count == listed && held.next_page_token == NULL);
    ghl_typed_token_info_page_clear(&held);
    OK(ghl_typed_token_refresh(client, company.resource_id, &info, &error));
    CHECK(strcmp(info.resource_id, company.resource_id) == 0);
    CHECK(info.last_success_at > 0 && info.last_failure.at == 0);
    ghl_typed_token_info_clear(&info);

    /* The last failure of a token, and the filters. */
    ghl_token dead = {.access_token = "access", .refresh_token = "dead", .location_id = "dead",
                      .user_type = "Location", .expires_at = 4000000000000};
    OK(ghl_typed_tokens_import(client, &dead, 1, false, &imported, &error));
    ghl_typed_import_report_clear(&imported);
    CHECK(ghl_typed_token_refresh(client, "dead", &info, &error) != GHL_OK);
    ghl_typed_error_clear(&error);
    ghl_token_query failing = {.failing = true, .state = "reauthorizationRequired",
                               .expires_before = 4000000000001};
    OK(ghl_typed_tokens_list(client, &failing, &held, &error));
    CHECK(held.count == 1 && held.items[0].last_success_at == 0);
    const ghl_last_failure *failure = &held.items[0].last_failure;
    CHECK(strcmp(failure->status, "GHL_ERR_REAUTHORIZATION_REQUIRED") == 0);
    CHECK(failure->first_at > 0 && failure->at == failure->first_at && failure->attempts == 1);
    CHECK(failure->message[0] != 0 && failure->http_status >= 400);
    CHECK(failure->next_attempt_at == 0);
    ghl_typed_token_info_page_clear(&held);
    failing.expires_before = 4000000000000;
    OK(ghl_typed_tokens_list(client, &failing, &held, &error));
    CHECK(held.count == 0);
    ghl_typed_token_info_page_clear(&held);
    OK(ghl_typed_token_delete(client, company.resource_id, &info, &error));
    ghl_typed_token_info_clear(&info);
    CHECK(ghl_typed_token_delete(client, company.resource_id, &info, &error) == GHL_ERR_NOT_FOUND);
    CHECK(strcmp(error.resource_id, company.resource_id) == 0);
    ghl_typed_error_clear(&error);

    ghl_typed_token_info_clear(&company);
    ghl_client_free(client);
    puts("passed");
    return 0;
}
