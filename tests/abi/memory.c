/*
 * A program that makes the calls requested by its input, one per line, and keeps nothing, so that
 * its parent can search its memory for remains of the library. Its own copies are wiped and never
 * pass through stdio. A line is "new CONFIGURATION", "free", "keep SECRET", which keeps the secret,
 * or a name from the table with its arguments; the response is the document of the call.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ghl_oauth.h"

typedef int32_t (*call)(ghl_client *, const char *, char **);

static int32_t access_token(ghl_client *client, const char *resource_id, char **out_json) {
    char *error = NULL;
    int32_t status = ghl_access_token(client, resource_id, out_json, &error);
    if (status != GHL_OK) {
        *out_json = error;
    }
    return status;
}

static int32_t maintain(ghl_client *client, const char *params, char **out_json) {
    return ghl_tokens_maintain(client, params, NULL, NULL, out_json);
}

static int32_t stats(ghl_client *client, const char *params, char **out_json) {
    (void)params;
    return ghl_client_stats(client, out_json);
}

static const struct {
    const char *name;
    call function;
} calls[] = {
    {"access_token", access_token},
    {"authorization_complete", ghl_authorization_complete},
    {"authorization_url", ghl_authorization_url},
    {"installed_locations", ghl_oauth_installed_locations},
    {"location_token", ghl_oauth_location_token},
    {"maintain", maintain},
    {"oauth_token", ghl_oauth_token},
    {"stats", stats},
    {"token_delete", ghl_token_delete},
    {"token_refresh", ghl_token_refresh},
    {"tokens_export", ghl_tokens_export},
    {"tokens_import", ghl_tokens_import},
    {"tokens_list", ghl_tokens_list},
};

/* The input. */
static char line[1 << 16];

static void wipe(char *bytes, size_t length) {
    for (volatile char *at = bytes; length > 0; length--) {
        *at++ = '\0';
    }
}

/* Read directly: the parent sends one line at a time. */
static size_t next_line(void) {
    size_t length = 0;
    do {
        ssize_t got = read(STDIN_FILENO, line + length, sizeof line - length);
        if (got <= 0) {
            return 0;
        }
        length += (size_t)got;
    } while (line[length - 1] != '\n');
    line[length - 1] = '\0';
    return length;
}

static void say(const char *text) {
    size_t length = strlen(text);
    while (length > 0) {
        ssize_t written = write(STDOUT_FILENO, text, length);
        if (written <= 0) {
            exit(1);
        }
        text += written;
        length -= (size_t)written;
    }
}

int main(void) {
    ghl_client *client = NULL;
    say("ready\n");
    for (size_t used; (used = next_line()) > 0;) {
        char *document = NULL;
        char *parameters = strchr(line, ' ');
        if (parameters != NULL) {
            *parameters++ = '\0';
        }
        if (strcmp(line, "keep") == 0) {
            say("kept\n");
            continue;
        }
        if (strcmp(line, "new") == 0) {
            ghl_client_new(parameters, &client, &document);
        } else if (strcmp(line, "free") == 0) {
            ghl_client_free(client);
            client = NULL;
        }
        for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) {
            if (strcmp(line, calls[i].name) == 0) {
                calls[i].function(client, parameters, &document);
            }
        }
        wipe(line, used);
        say(document == NULL ? "{}" : document);
        say("\n");
        ghl_string_free(document);
    }
    return 0;
}
