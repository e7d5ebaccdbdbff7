/*
 * A thread that is cancelled (pthread_cancel) during a refresh. argv[1] is a configuration, argv[2]
 * tokens to import, argv[3] a company. The test writes a line to stdin when the request has
 * arrived.
 */
#include "checks.h"

static ghl_client *client;
static const char *company;
static int32_t status = -1;

static void *refresh(void *context) {
    CHECK(context == NULL);
    status = ghl_token_refresh(client, company, NULL);
    /* The cancellation is still pending. */
    pthread_testcancel();
    CHECK(!"the thread was not cancelled");
    return NULL;
}

int main(int argc, char **argv) {
    CHECK(argc == 4);
    company = argv[3];
    CHECK(ghl_client_new(argv[1], &client, NULL) == GHL_OK);
    CHECK(ghl_tokens_import(client, argv[2], NULL) == GHL_OK);
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, refresh, NULL) == 0);
    CHECK(getchar() == '\n');
    CHECK(pthread_cancel(thread) == 0);
    puts("cancelled");
    CHECK(fflush(stdout) == 0);
    void *result;
    CHECK(pthread_join(thread, &result) == 0 && result == PTHREAD_CANCELED);
    CHECK(status == GHL_OK);
    char *token;
    CHECK(ghl_access_token(client, company, &token, NULL) == GHL_OK);
    puts(token);
    ghl_string_free(token);
    ghl_client_free(client);
    return 0;
}
