/* Adopts the tokens of another client ID by the typed calls.
 *
 *   adopt CONFIGURATION OTHER-CLIENT-ID RESOURCE-ID */
#include <stdio.h>
#include <string.h>

#include "ghl_oauth_typed.h"

#define CHECK(condition)                                                    \
    do {                                                                    \
        if (!(condition)) {                                                 \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition); \
            return 1;                                                       \
        }                                                                   \
    } while (0)

int main(int argc, char **argv) {
    CHECK(argc == 4);
    ghl_client *client;
    ghl_error error;
    ghl_adopt_report report;
    CHECK(ghl_client_new(argv[1], &client, NULL) == GHL_OK);

    CHECK(ghl_typed_tokens_adopt(client, NULL, NULL, false, &report, &error) == GHL_OK);
    CHECK(report.adopted == 0 && report.skipped_count == 0 && report.failed_count == 0 &&
          report.client_count == 1);
    CHECK(strcmp(report.clients[0].client_id, argv[2]) == 0 && report.clients[0].tokens == 2);
    ghl_typed_adopt_report_clear(&report);
    ghl_typed_adopt_report_clear(&report);

    CHECK(ghl_typed_tokens_adopt(client, argv[2], NULL, true, &report, &error) == GHL_OK);
    CHECK(report.adopted == 2 && report.clients[0].tokens == 2);
    ghl_typed_adopt_report_clear(&report);

    CHECK(ghl_typed_tokens_adopt(client, argv[2], argv[3], false, &report, &error) == GHL_OK);
    CHECK(report.adopted == 1 && report.clients[0].tokens == 1);
    ghl_typed_adopt_report_clear(&report);
    CHECK(ghl_typed_tokens_adopt(client, argv[2], argv[3], false, &report, &error) == GHL_OK);
    CHECK(report.adopted == 0 && report.skipped_count == 1 &&
          strcmp(report.skipped[0].resource_id, argv[3]) == 0);
    CHECK(report.skipped[0].reason != NULL);
    ghl_typed_adopt_report_clear(&report);

    CHECK(ghl_typed_tokens_adopt(client, argv[2], NULL, false, &report, &error) == GHL_OK);
    CHECK(report.adopted == 1 && report.client_count == 0);
    ghl_typed_adopt_report_clear(&report);
    CHECK(ghl_typed_tokens_adopt(client, "", NULL, false, &report, &error) ==
          GHL_ERR_INVALID_ARGUMENT);
    CHECK(strcmp(error.parameter, "clientId") == 0);
    ghl_typed_error_clear(&error);
    ghl_client_free(client);
    return 0;
}
