/* Calls through the library: the token is live in memory, the answer comes back as JSON. */
#include <string.h>

#include "call.h"
#include "ghl_oauth.h"

static ghl_client *client;
static const char *resource_id;
static char request[512];

static void check(const char *what, int32_t status, char *json) {
    if (status != GHL_OK) {
        die(what, json);
    }
    ghl_string_free(json);
}

static void send_request(void) {
    char *json;
    int32_t status = ghl_request(client, request, &json);
    if (status == GHL_OK && strstr(json, "\"status\":200") == NULL) {
        die("ghl_request", json);
    }
    check("ghl_request", status, json);
}

static void refresh(void) {
    char *json;
    int32_t status = ghl_token_refresh(client, resource_id, &json);
    check("ghl_token_refresh", status, json);
}

int main(int count, char **words) {
    struct task now = task(count, words);
    char *json, tokens[8192];
    resource_id = now.resource_id;
    int32_t status = ghl_client_new(now.config, &client, &json);
    check("ghl_client_new", status, json);
    snprintf(tokens, sizeof tokens, "{\"tokens\":[%s]}", now.token);
    status = ghl_tokens_import(client, tokens, &json);
    check("ghl_tokens_import", status, json);
    snprintf(request, sizeof request, "{\"method\":\"GET\",\"path\":\"/locations/%s\",\"resourceId\":\"%s\"}",
             resource_id, resource_id);
    repeat(&now, now.refreshes ? refresh : send_request);
    ghl_client_free(client);
    return 0;
}
