/*
 * A hand-written program with libcurl and cJSON, measured by compare.py: libcurl QUESTION TASK. A
 * mutex protects the token, which is stored in a file that is read at the start and replaced after
 * each refresh.
 */
#include <unistd.h>

#include <curl/curl.h>

#include "callers.h"

static CURL *curl;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static const char *store;
static char access_token[TOKEN_SIZE], refresh_token[TOKEN_SIZE];
static double expires_at;

struct answer {
    char *bytes;
    size_t length;
};

static size_t append(char *bytes, size_t size, size_t count, void *to) {
    struct answer *answer = to;
    size_t length = size * count;
    char *grown = realloc(answer->bytes, answer->length + length + 1);
    if (grown == NULL) {
        return 0;
    }
    memcpy(grown + answer->length, bytes, length);
    answer->bytes = grown;
    answer->length += length;
    grown[answer->length] = '\0';
    return length;
}

static void keep(const cJSON *token) {
    snprintf(access_token, sizeof access_token, "%s", text(token, "accessToken"));
    snprintf(refresh_token, sizeof refresh_token, "%s", text(token, "refreshToken"));
}

static void load(void) {
    char bytes[4 * TOKEN_SIZE];
    FILE *file = fopen(store, "r");
    if (file == NULL) {
        die("store", store);
    }
    size_t length = fread(bytes, 1, sizeof bytes, file);
    fclose(file);
    cJSON *token = cJSON_ParseWithLength(bytes, length);
    keep(token);
    expires_at = cJSON_GetNumberValue(cJSON_GetObjectItemCaseSensitive(token, "expiresAt"));
    cJSON_Delete(token);
}

static void save(void) {
    char temporary[512];
    snprintf(temporary, sizeof temporary, "%s.%ld", store, (long)getpid());
    FILE *file = fopen(temporary, "w");
    if (file == NULL) {
        die("store", temporary);
    }
    fprintf(file, "{\"accessToken\": \"%s\", \"refreshToken\": \"%s\", \"expiresAt\": %.0f}",
            access_token, refresh_token, expires_at);
    if (fflush(file) != 0 || fsync(fileno(file)) != 0 || fclose(file) != 0 ||
        rename(temporary, store) != 0) {
        die("store", temporary);
    }
}

static int refresh(void) {
    const char *names[] = {"clientId", "clientSecret", "grantType", "refreshToken"};
    const char *values[] = {text(task, "clientId"), text(task, "clientSecret"), "refresh_token",
                            refresh_token};
    char form[2 * TOKEN_SIZE], url[512];
    struct answer answer = {NULL, 0};
    struct curl_slist *headers = curl_slist_append(NULL, "Version: v3");
    size_t length = 0;
    long status = 0;
    for (int i = 0; i < 4; i++) {
        char *escaped = curl_easy_escape(curl, values[i], 0);
        length += (size_t)snprintf(form + length, sizeof form - length, "%s%s=%s",
                                   i == 0 ? "" : "&", names[i], escaped);
        curl_free(escaped);
    }
    snprintf(url, sizeof url, "%s/oauth/token", text(task, "baseUrl"));
    curl_easy_setopt(curl, CURLOPT_URL, url);
    curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers);
    curl_easy_setopt(curl, CURLOPT_TIMEOUT_MS, 30000L);
    curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(curl, CURLOPT_POSTFIELDS, form);
    curl_easy_setopt(curl, CURLOPT_POSTFIELDSIZE, (long)length);
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, append);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, &answer);
    CURLcode code = curl_easy_perform(curl);
    curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);
    curl_slist_free_all(headers);
    cJSON *token = code == CURLE_OK && status == 200
                       ? cJSON_ParseWithLength(answer.bytes, answer.length)
                       : NULL;
    free(answer.bytes);
    if (token == NULL) {
        return 0;
    }
    keep(token);
    double expires_in = cJSON_GetNumberValue(cJSON_GetObjectItemCaseSensitive(token, "expiresIn"));
    expires_at = ((double)time(NULL) + expires_in) * 1e3;
    cJSON_Delete(token);
    return 1;
}

static void refresh_once(void) {
    if (!refresh()) {
        die("refresh", NULL);
    }
    if (store != NULL) {
        save();
    }
}

static int get(char *token) {
    int live;
    pthread_mutex_lock(&mutex);
    live = (double)time(NULL) * 1e3 < expires_at;
    if (!live && refresh()) {
        save();
        live = 1;
    }
    snprintf(token, TOKEN_SIZE, "%s", live ? access_token : "");
    pthread_mutex_unlock(&mutex);
    return live;
}

int main(int count, char **words) {
    const char *question = read_task(count, words);
    store = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(task, "store"));
    curl_global_init(CURL_GLOBAL_DEFAULT);
    curl = curl_easy_init();
    if (strcmp(question, "refresh") == 0) {
        keep(cJSON_GetObjectItemCaseSensitive(task, "token"));
        repeat(refresh_once);
    } else {
        load();
        if (strcmp(question, "ask") == 0) {
            ask(get);
        } else {
            char token[TOKEN_SIZE];
            printf("%s\n", get(token) ? token : "");
        }
    }
    curl_easy_cleanup(curl);
    curl_global_cleanup();
    return 0;
}
