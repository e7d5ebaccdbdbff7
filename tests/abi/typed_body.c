/*
 * The body of a response and what it is. argv[1] is a configuration; then follow, for one GET each,
 * the expected body, and "string" or "value".
 */
#include "checks.h"
#include "ghl_oauth_typed.h"

int main(int argc, char **argv) {
    CHECK(argc > 3);
    ghl_client *client;
    CHECK(ghl_client_new(argv[1], &client, NULL) == GHL_OK);
    for (int i = 2; i + 1 < argc; i += 2) {
        ghl_api_request get = {.method = "GET", .path = "/somewhere"};
        ghl_api_response response;
        CHECK(ghl_typed_request(client, &get, &response, NULL) == GHL_OK);
        CHECK(strcmp(response.body, argv[i]) == 0);
        CHECK(response.body_length == strlen(argv[i]));
        CHECK(response.body_is_string == (strcmp(argv[i + 1], "string") == 0));
        ghl_typed_api_response_clear(&response);
        CHECK(response.body_length == 0 && !response.body_is_string);
    }
    ghl_client_free(client);
    puts("passed");
    return 0;
}
