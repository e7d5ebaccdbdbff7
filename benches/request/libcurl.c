/*
 * The same calls by libcurl's easy interface and cJSON, as one writes them by hand: one handle, whose connection stays
 * open; URL, headers and form made for each call, since the token and the resource may be others; the answer parsed.
 */
#include <string.h>

#include <cjson/cJSON.h>
#include <curl/curl.h>

#include "call.h"

static CURL *curl;
static cJSON *config;
static const char *resource_id;
static char access_token[4096], refresh_token[4096];

struct text {
    char *bytes;
    size_t length;
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

/* Sends what is set on the handle to a path, and parses the answer. */
static cJSON *exchange(const char *path, struct curl_slist *headers) {
    char url[512];
    struct text text = {NULL, 0};
    long status = 0;
    snprintf(url, sizeof url, "%s%s", member(config, "baseUrl"), path);
    headers = curl_slist_append(headers, "Version: v3");
    headers = curl_slist_append(headers, "Accept: application/json");
    curl_easy_setopt(curl, CURLOPT_URL, url);
    curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers);
    curl_easy_setopt(curl, CURLOPT_USERAGENT, "ghl-oauth/0.1.0");
    curl_easy_setopt(curl, CURLOPT_TIMEOUT_MS, 30000L);
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, append);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, &text);
    CURLcode code = curl_easy_perform(curl);
    if (code != CURLE_OK) {
        die("libcurl", curl_easy_strerror(code));
    }
    curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);
    cJSON *answer = cJSON_ParseWithLength(text.bytes, text.length);
    if (status != 200 || answer == NULL) {
        die("answer", text.bytes);
    }
    free(text.bytes);
    curl_slist_free_all(headers);
    return answer;
}

static void send_request(void) {
    char path[256], bearer[4200];
    snprintf(path, sizeof path, "/locations/%s", resource_id);
    snprintf(bearer, sizeof bearer, "Authorization: Bearer %s", access_token);
    curl_easy_setopt(curl, CURLOPT_HTTPGET, 1L);
    cJSON_Delete(exchange(path, curl_slist_append(NULL, bearer)));
}

static void keep(const cJSON *token) {
    snprintf(access_token, sizeof access_token, "%s", member(token, "accessToken"));
    snprintf(refresh_token, sizeof refresh_token, "%s", member(token, "refreshToken"));
}

static void refresh(void) {
    const char *names[] = {"clientId", "clientSecret", "grantType", "refreshToken"};
    const char *values[] = {member(config, "clientId"), member(config, "clientSecret"), "refresh_token", refresh_token};
    char form[8192];
    size_t length = 0;
    for (int i = 0; i < 4; i++) {
        char *escaped = curl_easy_escape(curl, values[i], 0);
        length += (size_t)snprintf(form + length, sizeof form - length, "%s%s=%s", i == 0 ? "" : "&", names[i], escaped);
        curl_free(escaped);
    }
    curl_easy_setopt(curl, CURLOPT_POSTFIELDS, form);
    curl_easy_setopt(curl, CURLOPT_POSTFIELDSIZE, (long)length);
    cJSON *token = exchange("/oauth/token", NULL);
    keep(token);
    cJSON_Delete(token);
}

int main(int count, char **words) {
    struct task now = task(count, words);
    resource_id = now.resource_id;
    config = cJSON_Parse(now.config);
    cJSON *token = cJSON_Parse(now.token);
    keep(token);
    cJSON_Delete(token);
    curl_global_init(CURL_GLOBAL_DEFAULT);
    curl = curl_easy_init();
    repeat(&now, now.refreshes ? refresh : send_request);
    curl_easy_cleanup(curl);
    curl_global_cleanup();
    cJSON_Delete(config);
    return 0;
}
