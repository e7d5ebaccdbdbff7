/*
 * The same calls with libcurl's easy interface and cJSON, as written by hand: one handle per
 * thread, whose connection stays open and whose TLS sessions are resumed. Constant options are set
 * once; URL, headers and form are built for each call, because the token and the resource may
 * differ. The response is parsed, and a new token kept.
 */
#include <stdbool.h>

#include <cjson/cJSON.h>
#include <curl/curl.h>

#include "call.h"

struct text {
    char *bytes;
    size_t length;
};

struct caller {
    CURL *curl;
    cJSON *config;
    const char *company_id, *location_id;
    char access_token[4096], refresh_token[4096];
    struct text answer;
    bool escapes;
    void (*call)(struct caller *);
};

static size_t append(char *bytes, size_t size, size_t count, void *to) {
    struct text *text = to;
    size_t length = size * count;
    char *grown = realloc(text->bytes, text->length + length + 1);
    if (grown == NULL) {
        return 0;
    }
    memcpy(grown + text->length, bytes, length);
    text->bytes = grown;
    text->length += length;
    grown[text->length] = '\0';
    return length;
}

static const char *member(const cJSON *object, const char *name) {
    const char *text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(object, name));
    if (text == NULL) {
        die("missing", name);
    }
    return text;
}

/* Sends the prepared request to a path and parses the response. */
static cJSON *exchange(struct caller *caller, const char *path, struct curl_slist *headers) {
    char url[512];
    long status = 0;
    snprintf(url, sizeof url, "%s%s", member(caller->config, "baseUrl"), path);
    headers = curl_slist_append(headers, "Version: v3");
    headers = curl_slist_append(headers, "Accept: application/json");
    curl_easy_setopt(caller->curl, CURLOPT_URL, url);
    curl_easy_setopt(caller->curl, CURLOPT_HTTPHEADER, headers);
    caller->answer = (struct text){NULL, 0};
    CURLcode code = curl_easy_perform(caller->curl);
    if (code != CURLE_OK) {
        die("libcurl", curl_easy_strerror(code));
    }
    curl_easy_getinfo(caller->curl, CURLINFO_RESPONSE_CODE, &status);
    cJSON *answer = cJSON_ParseWithLength(caller->answer.bytes, caller->answer.length);
    if (status != 200 || answer == NULL) {
        die("answer", caller->answer.bytes);
    }
    free(caller->answer.bytes);
    curl_slist_free_all(headers);
    return answer;
}

static struct curl_slist *bearer(const struct caller *caller) {
    char header[4200];
    snprintf(header, sizeof header, "Authorization: Bearer %s", caller->access_token);
    return curl_slist_append(NULL, header);
}

/* Writes a form with `count` fields. The handle does not copy it. */
static void set_form(const struct caller *caller, char form[8192], int fields, const char **names,
                     const char **values) {
    size_t length = 0;
    for (int i = 0; i < fields; i++) {
        char *escaped = caller->escapes ? curl_easy_escape(caller->curl, values[i], 0) : NULL;
        const char *value = caller->escapes ? escaped : values[i];
        length += (size_t)snprintf(form + length, 8192 - length, "%s%s=%s", i == 0 ? "" : "&",
                                   names[i], value);
        curl_free(escaped);
    }
    curl_easy_setopt(caller->curl, CURLOPT_POSTFIELDS, form);
    curl_easy_setopt(caller->curl, CURLOPT_POSTFIELDSIZE, (long)length);
}

static void send_request(struct caller *caller) {
    char path[256];
    snprintf(path, sizeof path, "/locations/%s", caller->location_id);
    curl_easy_setopt(caller->curl, CURLOPT_HTTPGET, 1L);
    cJSON_Delete(exchange(caller, path, bearer(caller)));
}

static void keep(struct caller *caller, const cJSON *token) {
    snprintf(caller->access_token, sizeof caller->access_token, "%s", member(token, "accessToken"));
    const char *refresh_token =
        cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(token, "refreshToken"));
    if (refresh_token != NULL) {
        snprintf(caller->refresh_token, sizeof caller->refresh_token, "%s", refresh_token);
    }
}

static void refresh(struct caller *caller) {
    const char *names[] = {"clientId", "clientSecret", "grantType", "refreshToken", "userType"};
    const char *values[] = {member(caller->config, "clientId"),
                            member(caller->config, "clientSecret"), "refresh_token",
                            caller->refresh_token, "Location"};
    char form[8192];
    set_form(caller, form, 5, names, values);
    cJSON *token = exchange(caller, "/oauth/token", NULL);
    keep(caller, token);
    cJSON_Delete(token);
}

static void mint(struct caller *caller) {
    const char *names[] = {"companyId", "locationId"};
    const char *values[] = {caller->company_id, caller->location_id};
    char form[8192], minted[4096];
    set_form(caller, form, 2, names, values);
    cJSON *token = exchange(caller, "/oauth/location-token", bearer(caller));
    snprintf(minted, sizeof minted, "%s", member(token, "accessToken"));
    cJSON_Delete(token);
}

static struct caller *caller_new(const struct task *task, int number) {
    struct caller *caller = calloc(1, sizeof *caller);
    if (caller == NULL || (caller->curl = curl_easy_init()) == NULL) {
        die("memory", NULL);
    }
    caller->config = cJSON_Parse(task->config);
    caller->company_id = task->company_id;
    caller->location_id = task->location_ids[number];
    caller->escapes = strcmp(task->call, "refresh-unescaped") != 0;
    bool mints = strncmp(task->call, "mint", 4) == 0;
    caller->call = mints ? mint : strncmp(task->call, "refresh", 7) == 0 ? refresh : send_request;
    cJSON *tokens = cJSON_Parse(task->tokens);
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(tokens, "tokens");
    keep(caller, cJSON_GetArrayItem(list, mints ? 0 : number + 1));
    cJSON_Delete(tokens);
    curl_easy_setopt(caller->curl, CURLOPT_USERAGENT, "ghl-oauth/0.1.0");
    curl_easy_setopt(caller->curl, CURLOPT_TIMEOUT_MS, 30000L);
    curl_easy_setopt(caller->curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(caller->curl, CURLOPT_WRITEFUNCTION, append);
    curl_easy_setopt(caller->curl, CURLOPT_WRITEDATA, &caller->answer);
    const cJSON *http = cJSON_GetObjectItemCaseSensitive(caller->config, "http");
    if (http != NULL) {
        curl_easy_setopt(caller->curl, CURLOPT_CAINFO, member(http, "caBundlePath"));
    }
    return caller;
}

static void caller_call(struct caller *caller) { caller->call(caller); }

static void caller_free(struct caller *caller) {
    curl_easy_cleanup(caller->curl);
    cJSON_Delete(caller->config);
    free(caller);
}

int main(int count, char **words) {
    struct task now = task(count, words);
    curl_global_init(CURL_GLOBAL_DEFAULT);
    repeat(&now);
    curl_global_cleanup();
    return 0;
}
