/* A list of locations in which only "l1" and "l2" are valid, from the configuration argv[1]: the
 * typed structs contain no others. */
#include "typed.h"

int main(int argc, char **argv) {
    CHECK(argc == 2);
    ghl_client *client;
    CHECK(ghl_client_new(argv[1], &client, NULL) == GHL_OK);
    ghl_token company = {.access_token = "a",
                         .refresh_token = "r",
                         .expires_at = 4000000000000,
                         .user_type = "Company",
                         .company_id = "c"};
    ghl_import_report imported;
    OK(ghl_typed_tokens_import(client, &company, 1, false, &imported, &error));
    CHECK(imported.imported == 1);
    ghl_typed_import_report_clear(&imported);

    for (int all = 0; all < 2; all++) {
        ghl_location_query query = {.company_id = "c", .all = all == 1};
        ghl_location_page page;
        OK(ghl_typed_installed_locations(client, &query, &page, &error));
        CHECK(page.count == 2 && strcmp(page.items[0].id, "l1") == 0 &&
              strcmp(page.items[1].id, "l2") == 0);
        CHECK(strcmp(page.items[0].name, "One") == 0 && page.items[0].is_installed);
        CHECK(page.items[1].name == NULL && !page.items[1].is_installed);
        /* A token for the next page is ignored if there is no next page. */
        CHECK(page.next_page_token == NULL);
        ghl_typed_location_page_clear(&page);
    }
    ghl_client_free(client);
    puts("passed");
    return 0;
}
