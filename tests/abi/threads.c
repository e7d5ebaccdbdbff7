/*
 * Eight threads on one client, for dynamic analysis tools. The arguments are the ones of misuse.c.
 * With -DGHL_TEST_RACE the program contains a data race that such a tool must report.
 */
#include <stdbool.h>

#include "checks.h"

#define THREADS 8
#define ROUNDS 12

static ghl_client *client;
static char *const *resources;
static int resource_count;

static ghl_test_count heard = GHL_TEST_COUNT, logged = GHL_TEST_COUNT, tokens_got = GHL_TEST_COUNT;

#ifdef GHL_TEST_RACE
static long unsynchronised;
#endif

static void hear(const char *event, void *context) {
    CHECK(event[0] == '{');
    add(context, 1);
}

static void line(int32_t level, const char *message, void *context) {
    CHECK(level >= 1 && message[0] != '\0');
    add(context, 1);
}

/* Accepts only success and cancellation. */
static bool ended(int32_t status) {
    CHECK(status == GHL_OK || status == GHL_ERR_CANCELLED);
    return status == GHL_OK;
}

static void use_the_client(int number) {
    for (int round = 0; round < ROUNDS; round++) {
        const char *resource_id = resources[(number + round) % resource_count];
        char *text, *error, buffer[4096];
        if (ended(ghl_access_token(client, resource_id, &text, &error))) {
            CHECK(text[0] != '\0' && error == NULL);
            add(&tokens_got, 1);
        }
        ghl_string_free(text);
        ghl_string_free(error);
        size_t length = sizeof buffer;
        if (ended(ghl_access_token_into(client, resource_id, buffer, &length, NULL))) {
            CHECK(strlen(buffer) + 1 == length);
        }
        if (round % 4 == number % 4) {
            ended(ghl_token_refresh(client, resource_id, NULL));
        }
        ended(ghl_tokens_list(client, "{}", &text));
        ghl_string_free(text);
        CHECK(ghl_client_stats(client, &text) == GHL_OK);
        ghl_string_free(text);
        ended(ghl_client_metrics(client, "{}", &text));
        ghl_string_free(text);
        CHECK(ghl_authorization_url(client, "{}", NULL) == GHL_OK);
        switch (number) {
        case 0:
            ghl_client_cancel(client);
            break;
        case 1:
            CHECK(ghl_client_on_event(client, round % 2 == 0 ? hear : NULL, &heard) == GHL_OK);
            break;
        case 2:
            CHECK(ghl_set_log_callback(round % 2 == 0 ? line : NULL, &logged, 5) == GHL_OK);
            break;
        case 3:
            ended(ghl_tokens_maintain(client, "{}", NULL, NULL, NULL));
            break;
        default:
            break;
        }
#ifdef GHL_TEST_RACE
        unsynchronised++;
#endif
    }
}

int main(int argc, char **argv) {
    CHECK(argc >= 5);
    resources = argv + 3;
    resource_count = argc - 3;
    /* Initializes the process-wide state first. */
    CHECK(ghl_client_new(argv[1], &client, NULL) == GHL_OK);
    CHECK(ghl_oauth_token(client, "{\"grantType\": \"refresh_token\", \"refreshToken\": \"none\"}",
                          NULL) == GHL_ERR_REAUTHORIZATION_REQUIRED);
    ghl_client_free(client);

    CHECK(ghl_client_new(argv[1], &client, NULL) == GHL_OK);
    CHECK(ghl_tokens_import(client, argv[2], NULL) == GHL_OK);
    CHECK(ghl_client_on_event(client, hear, &heard) == GHL_OK);
    CHECK(ghl_set_log_callback(line, &logged, 5) == GHL_OK);

    in_parallel(THREADS, use_the_client, NULL);

    CHECK(ghl_set_log_callback(NULL, NULL, 0) == GHL_OK);
    CHECK(ghl_client_on_event(client, NULL, NULL) == GHL_OK);
    /* No token was lost. */
    for (int i = 0; i < resource_count; i++) {
        CHECK(ghl_token_refresh(client, resources[i], NULL) == GHL_OK);
    }
    ghl_client_free(client);
    CHECK(add(&heard, 0) > 0 && add(&logged, 0) > 0 && add(&tokens_got, 0) > 0);
    puts("passed");
    return 0;
}
