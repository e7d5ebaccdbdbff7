/* A store of three companies, "c1" to "c3", in which "c2" is unreadable, from the configuration
 * argv[1]. */
#include "typed.h"

static void check_failed(const ghl_maintain_failure *failed, size_t count) {
    CHECK(count == 1 && strcmp(failed[0].resource_id, "c2") == 0 && !failed[0].retryable);
    CHECK(strcmp(failed[0].status, "GHL_ERR_STORE") == 0 && failed[0].message != NULL &&
          failed[0].help != NULL);
}

int main(int argc, char **argv) {
    CHECK(argc == 2);
    ghl_client *client;
    CHECK(ghl_client_new(argv[1], &client, NULL) == GHL_OK);

    ghl_token_info_page held;
    OK(ghl_typed_tokens_list(client, NULL, &held, &error));
    CHECK(held.count == 2 && strcmp(held.items[0].resource_id, "c1") == 0 &&
          strcmp(held.items[1].resource_id, "c3") == 0);
    check_failed(held.failed, held.failed_count);
    ghl_typed_token_info_page_clear(&held);
    CHECK(held.failed == NULL && held.failed_count == 0);

    ghl_token_page tokens;
    OK(ghl_typed_tokens_export(client, NULL, &tokens, &error));
    CHECK(tokens.count == 2 && strcmp(tokens.items[1].access_token, "access-c3") == 0);
    check_failed(tokens.failed, tokens.failed_count);
    ghl_typed_token_page_clear(&tokens);

    ghl_token_info info;
    OK(ghl_typed_token_delete(client, "c2", &info, &error));
    CHECK(strcmp(info.resource_id, "c2") == 0 && strcmp(info.state, "unreadable") == 0 &&
          info.company_id == NULL);
    ghl_typed_token_info_clear(&info);
    OK(ghl_typed_tokens_list(client, NULL, &held, &error));
    CHECK(held.count == 2 && held.failed_count == 0);
    ghl_typed_token_info_page_clear(&held);

    ghl_client_free(client);
    puts("passed");
    return 0;
}
