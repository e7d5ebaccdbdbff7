/* The measured calls, repeated: calls KIND CALLS CONFIGURATION RESOURCE_ID TOKEN */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ghl_oauth.h"

static ghl_client *client;
static const char *resource_id;
/* The document of the last call. */
static char *json;

static void check(const char *what, int32_t status) {
    if (status != GHL_OK) {
        fprintf(stderr, "%s: %s\n", what, json);
        exit(1);
    }
    ghl_string_free(json);
}

static void into(void) {
    char buffer[2048];
    size_t length = sizeof buffer;
    check("ghl_access_token_into",
          ghl_access_token_into(client, resource_id, buffer, &length, &json));
}

static void owned(void) {
    char *token;
    check("ghl_access_token", ghl_access_token(client, resource_id, &token, &json));
    ghl_string_free(token);
}

static void refresh(void) {
    check("ghl_token_refresh", ghl_token_refresh(client, resource_id, &json));
}

static const struct {
    const char *name;
    void (*call)(void);
} KINDS[] = {{"into", into}, {"owned", owned}, {"refresh", refresh}};

int main(int count, char **words) {
    char tokens[8192];
    if (count != 6) {
        fprintf(stderr, "usage: calls into|owned|refresh CALLS CONFIGURATION RESOURCE_ID TOKEN\n");
        return 1;
    }
    check("ghl_client_new", ghl_client_new(words[3], &client, &json));
    resource_id = words[4];
    snprintf(tokens, sizeof tokens, "{\"tokens\":[%s]}", words[5]);
    check("ghl_tokens_import", ghl_tokens_import(client, tokens, &json));
    for (size_t kind = 0; kind < sizeof KINDS / sizeof *KINDS; kind++) {
        for (long calls = strcmp(KINDS[kind].name, words[1]) == 0 ? atol(words[2]) : 0; calls > 0;
             calls--) {
            KINDS[kind].call();
        }
    }
    ghl_client_free(client);
    return 0;
}
