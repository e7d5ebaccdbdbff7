/* Calls through the library: one client for all threads, live tokens in memory, each result as
 * JSON. */
#include "call.h"
#include "ghl_oauth.h"

static ghl_client *client;

struct caller {
    const char *location_id;
    char *parameters;
    void (*call)(struct caller *);
};

static void check(const char *what, int32_t status, char *json) {
    if (status != GHL_OK) {
        die(what, json);
    }
    ghl_string_free(json);
}

static void send_request(struct caller *caller) {
    char *json;
    int32_t status = ghl_request(client, caller->parameters, &json);
    if (status == GHL_OK && strstr(json, "\"status\":200") == NULL) {
        die("ghl_request", json);
    }
    check("ghl_request", status, json);
}

/* Refreshes; if the token of the location has no refresh token, mints and stores. */
static void refresh(struct caller *caller) {
    char *json;
    int32_t status = ghl_token_refresh(client, caller->location_id, &json);
    check("ghl_token_refresh", status, json);
}

static void mint(struct caller *caller) {
    char *json;
    int32_t status = ghl_oauth_location_token(client, caller->parameters, &json);
    check("ghl_oauth_location_token", status, json);
}

static struct caller *caller_new(const struct task *task, int number) {
    struct caller *caller = calloc(1, sizeof *caller);
    if (caller == NULL || (caller->parameters = malloc(512)) == NULL) {
        die("memory", NULL);
    }
    caller->location_id = task->location_ids[number];
    if (strcmp(task->call, "request") == 0) {
        caller->call = send_request;
        snprintf(caller->parameters, 512,
                 "{\"method\":\"GET\",\"path\":\"/locations/%s\",\"resourceId\":\"%s\"}",
                 caller->location_id, caller->location_id);
    } else if (strcmp(task->call, "mint") == 0) {
        caller->call = mint;
        snprintf(caller->parameters, 512, "{\"companyId\":\"%s\",\"locationId\":\"%s\"}",
                 task->company_id, caller->location_id);
    } else {
        caller->call = refresh;
    }
    return caller;
}

static void caller_call(struct caller *caller) { caller->call(caller); }

static void caller_free(struct caller *caller) {
    free(caller->parameters);
    free(caller);
}

/* ghl_tokens_mint of many locations. Prints like the other calls, without a median. */
static void mint_many(const struct task *task) {
    size_t room = 256 + (size_t)task->locations * 64;
    char *json, *parameters = malloc(room);
    if (parameters == NULL || task->calls > task->locations) {
        die("usage", "a location for each mint");
    }
    int length =
        snprintf(parameters, room,
                 "{\"companyId\":\"%s\",\"concurrency\":%d,\"force\":true,\"locationIds\":[",
                 task->company_id, task->threads);
    for (long i = 0; i < task->calls; i++) {
        length += snprintf(parameters + length, room - (size_t)length, "%s\"%s\"",
                           i == 0 ? "" : ",", task->location_ids[i]);
    }
    snprintf(parameters + length, room - (size_t)length, "]}");
    double began = microseconds(CLOCK_MONOTONIC), worked = microseconds(CLOCK_PROCESS_CPUTIME_ID);
    int32_t status = ghl_tokens_mint(client, parameters, NULL, NULL, &json);
    double took = microseconds(CLOCK_MONOTONIC) - began;
    worked = microseconds(CLOCK_PROCESS_CPUTIME_ID) - worked;
    if (status == GHL_OK && strstr(json, "\"failed\":[]") == NULL) {
        die("ghl_tokens_mint", json);
    }
    check("ghl_tokens_mint", status, json);
    double calls = (double)task->calls;
    printf("%.2f %.2f %.2f\n", took / calls, took / calls, worked / calls);
    free(parameters);
}

int main(int count, char **words) {
    struct task now = task(count, words);
    char *json;
    int32_t status = ghl_client_new(now.config, &client, &json);
    check("ghl_client_new", status, json);
    status = ghl_tokens_import(client, now.tokens, &json);
    check("ghl_tokens_import", status, json);
    if (strcmp(now.call, "mint-many") == 0) {
        mint_many(&now);
    } else {
        repeat(&now);
    }
    ghl_client_free(client);
    return 0;
}
