/* This library from C, measured by compare.py: ours QUESTION TASK. */
#include "callers.h"
#include "ghl_oauth.h"

static ghl_client *client;
static const char *company_id;
static char token_text[TOKEN_SIZE];

static void check(const char *what, int32_t status, char *json) {
    if (status != GHL_OK) {
        die(what, json);
    }
    ghl_string_free(json);
}

static int get(char *token) {
    size_t length = TOKEN_SIZE;
    return ghl_access_token_into(client, company_id, token, &length, NULL) == GHL_OK;
}

static void get_once(void) {
    if (!get(token_text)) {
        die("ghl_access_token_into", NULL);
    }
}

static void refresh(void) {
    char *json;
    int32_t status = ghl_token_refresh(client, company_id, &json);
    check("ghl_token_refresh", status, json);
}

static void import_token(void) {
    char *json, *token = cJSON_PrintUnformatted(cJSON_GetObjectItemCaseSensitive(task, "token"));
    char tokens[2 * TOKEN_SIZE];
    snprintf(tokens, sizeof tokens, "{\"tokens\":[%s],\"replace\":true}", token);
    int32_t status = ghl_tokens_import(client, tokens, &json);
    check("ghl_tokens_import", status, json);
    cJSON_free(token);
}

static void list(void) {
    char *json;
    int32_t status = ghl_tokens_list(client, "{\"pageSize\":100}", &json);
    check("ghl_tokens_list", status, json);
}

static void mint(void) {
    char *json, params[256];
    snprintf(params, sizeof params, "{\"companyId\":\"%s\",\"installed\":true,\"concurrency\":4}",
             company_id);
    double began = seconds();
    int32_t status = ghl_tokens_mint(client, params, NULL, NULL, &json);
    double took = seconds() - began;
    if (status != GHL_OK) {
        die("ghl_tokens_mint", json);
    }
    cJSON *report = cJSON_Parse(json);
    double minted = cJSON_GetNumberValue(cJSON_GetObjectItemCaseSensitive(report, "minted"));
    printf("{\"minted\": %.0f, \"seconds\": %.4f}\n", minted, took);
    cJSON_Delete(report);
    ghl_string_free(json);
}

int main(int count, char **words) {
    const char *question = read_task(count, words);
    char *json, *config = cJSON_PrintUnformatted(cJSON_GetObjectItemCaseSensitive(task, "config"));
    company_id = text(task, "companyId");
    int32_t status = ghl_client_new(config, &client, &json);
    check("ghl_client_new", status, json);
    cJSON_free(config);
    if (strcmp(question, "ask") == 0) {
        ask(get);
    } else if (strcmp(question, "live") == 0) {
        import_token();
        live(get_once);
    } else if (strcmp(question, "refresh") == 0) {
        import_token();
        repeat(refresh);
    } else if (strcmp(question, "save") == 0) {
        repeat(import_token);
    } else if (strcmp(question, "list") == 0) {
        repeat(list);
    } else if (strcmp(question, "mint") == 0) {
        import_token();
        mint();
    } else {
        get_once();
        printf("%s\n", token_text);
    }
    ghl_client_free(client);
    return 0;
}
