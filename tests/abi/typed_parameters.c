/*
 * Every parameter of the typed calls that no other program sets: argv[1] is the configuration,
 * argv[2] a program that simulates the person, argv[3] another redirect URI than the configured
 * one, argv[4] one with a local port, argv[5] the version of the app. Prints the links and the URL
 * for the waiting listener.
 */
#include "typed.h"

int main(int argc, char **argv) {
    CHECK(argc == 6);
    ghl_client *client, *other;
    CHECK(ghl_client_new(argv[1], &client, NULL) == GHL_OK);
    CHECK(ghl_client_new(argv[1], &other, NULL) == GHL_OK);
    char redirect_url[4096];

    /* A link of another process, completed here. */
    ghl_authorization_options asked = {.redirect_uri = argv[3],
                                       .version_id = argv[5],
                                       .state = "kept by the host",
                                       .login_in_same_tab = true};
    ghl_authorization_link link;
    OK(ghl_typed_authorization_url(other, &asked, &link, &error));
    CHECK(strcmp(link.state, "kept by the host") == 0);
    puts(link.url);
    consent(argv[2], link.url, redirect_url, sizeof redirect_url);
    ghl_token_info company;
    CHECK(ghl_typed_authorization_complete(client, redirect_url, NULL, &company, &error) ==
          GHL_ERR_STATE_MISMATCH);
    ghl_typed_error_clear(&error);
    ghl_completion_options session = {
        .state = "kept by the host", .redirect_uri = argv[3], .user_type = "Company"};
    OK(ghl_typed_authorization_complete(client, redirect_url, &session, &company, &error));
    ghl_typed_link_clear(&link);

    asked = (ghl_authorization_options){.redirect_uri = argv[4], .version_id = argv[5]};
    OK(ghl_typed_authorization_url(client, &asked, &link, &error));
    puts(link.url);
    consent(argv[2], link.url, redirect_url, sizeof redirect_url);
    puts(redirect_url);
    fflush(stdout);
    ghl_listen_options listen = {
        .timeout_ms = 60000, .state = link.state, .redirect_uri = argv[4], .user_type = "Company"};
    ghl_token_info again;
    OK(ghl_typed_authorization_listen(client, &listen, &again, &error));
    CHECK(strcmp(again.resource_id, company.resource_id) == 0);
    ghl_typed_token_info_clear(&again);
    ghl_typed_link_clear(&link);

    ghl_location_query query = {
        .company_id = company.resource_id,
        .app_id = "an app",
        .query = "a name",
        .location_id = "a location",
        .version_id = "a version",
        .plan_id = "a plan",
        .is_installed = GHL_ONLY_TRUE,
        .on_trial = GHL_ONLY_FALSE,
        .restrict_to_user_locations = true,
        .access_token = "given",
    };
    ghl_location_page page;
    CHECK(ghl_typed_installed_locations(client, &query, &page, &error) == GHL_ERR_UNAUTHORIZED);
    ghl_typed_error_clear(&error);
    query = (ghl_location_query){.company_id = company.resource_id,
                                 .is_installed = GHL_ONLY_FALSE,
                                 .on_trial = GHL_ONLY_TRUE};
    OK(ghl_typed_installed_locations(client, &query, &page, &error));
    ghl_typed_location_page_clear(&page);

    ghl_token token;
    CHECK(ghl_typed_oauth_location_token(client, company.resource_id, "a location", "given", &token,
                                         &error) == GHL_ERR_UNAUTHORIZED);
    ghl_typed_error_clear(&error);
    ghl_token_request request = {
        .grant_type = "client_credentials", .client_id = "an id", .client_secret = "a secret"};
    CHECK(ghl_typed_oauth_token(client, &request, &token, &error) != GHL_OK);
    ghl_typed_error_clear(&error);

    /* Bodies of every length modulo 3, with every base64 digit that needs a distinction, and a byte
     * that is invalid in text. */
    static const unsigned char bytes[] = {0, '?', '?', '?', '>', '>', '>', 0xC3, 0xA9};
    ghl_query_parameter parameters[] = {{"a b", "1"}, {"c", "&"}, {"a b", "\"2\""}, {"c", ""}};
    for (size_t count = 0; count <= sizeof bytes; count++) {
        ghl_api_request post = {.method = "POST",
                                .path = "/nowhere?first=0",
                                .query = parameters,
                                .query_count = 4,
                                .bytes = bytes + sizeof bytes - count,
                                .byte_count = count};
        ghl_api_response response;
        OK(ghl_typed_request(client, &post, &response, &error));
        CHECK(response.status == 404);
        ghl_typed_api_response_clear(&response);
        post.body = "a text, too";
        CHECK(ghl_typed_request(client, &post, &response, &error) == GHL_ERR_INVALID_ARGUMENT);
        CHECK(strcmp(error.parameter, "bodyBase64") == 0);
        ghl_typed_error_clear(&error);
    }

    /* Sent once, although the answer is a 429; its cookies stay apart. */
    ghl_api_request get = {
        .method = "GET", .path = "/locations/x", .idempotent = -1, .no_retry = true};
    ghl_api_response response;
    OK(ghl_typed_request(client, &get, &response, &error));
    CHECK(response.status == 429 && response.set_cookie_count == 2);
    CHECK(strcmp(response.set_cookies[0], "a=1, 2") == 0);
    CHECK(strcmp(response.set_cookies[1], "b=\"3\"") == 0);
    CHECK(strcmp(response.body, "[1e400,{\"b\":1.0,\"a\":2}]") == 0);
    ghl_typed_api_response_clear(&response);

    /* A location's own consent survives an export and an import. */
    ghl_token own = {.access_token = "a", .location_id = "own", .own_consent = true};
    ghl_import_report imported;
    OK(ghl_typed_tokens_import(client, &own, 1, false, &imported, &error));
    CHECK(imported.imported == 1);
    ghl_typed_import_report_clear(&imported);
    ghl_token_page tokens;
    OK(ghl_typed_tokens_export(client, NULL, &tokens, &error));
    size_t consents = 0;
    for (size_t i = 0; i < tokens.count; i++) {
        const char *location_id = tokens.items[i].location_id;
        bool is_own = location_id != NULL && strcmp(location_id, "own") == 0;
        CHECK(tokens.items[i].own_consent == is_own);
        consents += is_own;
    }
    CHECK(consents == 1);
    ghl_typed_token_page_clear(&tokens);

    ghl_typed_token_info_clear(&company);
    ghl_client_free(other);
    ghl_client_free(client);
    puts("passed");
    return 0;
}
