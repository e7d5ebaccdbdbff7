/*
 * Every function, called while the process and its threads end: from a destructor of
 * thread-specific data, from atexit, and from a destructor of the program. argv[1] is a
 * configuration, argv[2] one without a store, argv[3] tokens to import, argv[4] a company, argv[5]
 * a location; argv[6] is "callbacks" or "none".
 */
#include <stdbool.h>
#include <sys/wait.h>
#include <unistd.h>

#include "checks.h"

static ghl_client *client;
static const char *config, *host_store, *tokens, *company, *location;
static bool has_callbacks;
static pthread_key_t key;
static int rounds;
static ghl_test_count heard = GHL_TEST_COUNT, logged = GHL_TEST_COUNT;

static void hear(const char *event, void *context) {
    CHECK(event[0] == '{' && context == NULL);
    add(&heard, 1);
}

static void line(int32_t level, const char *message, void *context) {
    CHECK(level >= 1 && message[0] != '\0' && context == NULL);
    add(&logged, 1);
}

/* Every call is answered: it works, or it fails for a reason outside the library. */
static void answers(int32_t status, char **document) {
    if (status == GHL_ERR_INTERNAL) {
        fprintf(stderr, "%s\n", *document == NULL ? "without a document" : *document);
    }
    CHECK(status != GHL_ERR_INTERNAL);
    ghl_string_free(*document);
    *document = NULL;
}

static void works(int32_t status, char **document) {
    if (status != GHL_OK) {
        fprintf(stderr, "%s\n", *document == NULL ? "without a document" : *document);
    }
    CHECK(status == GHL_OK);
    ghl_string_free(*document);
    *document = NULL;
}

static int32_t go_on(const char *progress, void *context) {
    CHECK(progress[0] == '{' && context == NULL);
    return 0;
}

static int32_t loads_nothing(void *context, const char *id, char **out) {
    CHECK(context == NULL && id[0] != '\0' && *out == NULL);
    return GHL_OK;
}

static int32_t saves_nothing(void *context, const char *id, const char *record, uint64_t version) {
    CHECK(context == NULL && id[0] != '\0' && record[0] == '{' && version == 0);
    return GHL_OK;
}

static int32_t removes_nothing(void *context, const char *id) {
    CHECK(context == NULL && id[0] != '\0');
    return GHL_OK;
}

static int32_t lists_nothing(void *context, const char *query, char **out) {
    static char empty[] = "{\"items\": [], \"nextPageToken\": null}";
    CHECK(context == NULL && query[0] == '{');
    *out = empty;
    return GHL_OK;
}

static const ghl_store_callbacks STORE = {
    sizeof STORE,  NULL, loads_nothing, saves_nothing, removes_nothing,
    lists_nothing, NULL, NULL,          NULL,          NULL};

static void everything(void) {
    char params[512], buffer[4096], *document = NULL, *token = NULL;
    const uint8_t *const body = (const uint8_t *)"{}";
    ghl_client *other;

    CHECK(ghl_abi_version() >= 1 && ghl_version() != NULL && ghl_status_name(1) != NULL);
    works(ghl_client_new(config, &other, &document), &document);
    works(ghl_tokens_list(other, "{}", &document), &document);
    ghl_client_free(other);
    works(ghl_client_new_with_store(host_store, &STORE, &other, &document), &document);
    works(ghl_tokens_list(other, "{}", &document), &document);
    ghl_client_free(other);

    works(ghl_client_stats(client, &document), &document);
    works(ghl_client_metrics(client, "{}", &document), &document);
    CHECK(ghl_client_on_event(client, has_callbacks ? hear : NULL, NULL) == GHL_OK);
    CHECK(ghl_set_log_callback(has_callbacks ? line : NULL, NULL, 5) == GHL_OK);
    ghl_client_cancel(client);

    works(ghl_access_token(client, company, &token, &document), &token);
    ghl_string_free(document);
    size_t length = sizeof buffer;
    works(ghl_access_token_into(client, location, buffer, &length, &document), &document);
    works(ghl_library_info(&document), &document);
    CHECK(ghl_call_cancel(client, "no call") == GHL_OK);
    CHECK(snprintf(params, sizeof params, "{\"resourceId\": \"%s\", \"callId\": \"one\"}",
                   company) > 0);
    works(ghl_access_token_with(client, params, &token, &document), &token);
    ghl_string_free(document);
    works(ghl_token_refresh_with(client, params, &document), &document);
    length = sizeof buffer;
    CHECK(ghl_access_token_try_into(client, company, buffer, &length) == GHL_OK);
    works(ghl_token_refresh(client, company, &document), &document);
    works(ghl_tokens_list(client, "{}", &document), &document);
    works(ghl_tokens_export(client, "{}", &document), &document);
    works(ghl_tokens_import(client, "{\"tokens\": []}", &document), &document);
    answers(ghl_tokens_adopt(client, "{}", &document), &document);
    works(ghl_tokens_maintain(client, "{\"concurrency\": 4}", go_on, NULL, &document), &document);
    CHECK(snprintf(
              params, sizeof params,
              "{\"companyId\": \"%s\", \"installed\": true, \"force\": true, \"concurrency\": 2}",
              company) > 0);
    works(ghl_tokens_mint(client, params, go_on, NULL, &document), &document);
    CHECK(snprintf(params, sizeof params, "{\"companyId\": \"%s\"}", company) > 0);
    works(ghl_oauth_installed_locations(client, params, &document), &document);
    CHECK(snprintf(params, sizeof params, "{\"companyId\": \"%s\", \"locationId\": \"%s\"}",
                   company, location) > 0);
    works(ghl_oauth_location_token(client, params, &document), &document);
    CHECK(ghl_oauth_token(client, "{\"grantType\": \"refresh_token\", \"refreshToken\": \"?\"}",
                          &document) == GHL_ERR_REAUTHORIZATION_REQUIRED);
    ghl_string_free(document);
    works(ghl_request(client, "{\"method\": \"GET\", \"path\": \"/nowhere\"}", &document),
          &document);
    works(ghl_authorization_url(client, "{}", &document), &document);
    answers(ghl_authorization_complete(client, "{\"redirectUrl\": \"https://a/?code=a&state=b\"}",
                                       &document),
            &document);
    answers(ghl_authorization_listen(client, "{\"port\": 0}", &document), &document);
    CHECK(ghl_webhook_verify(client, body, 2, "{}", &document) == GHL_ERR_SIGNATURE_INVALID);
    ghl_string_free(document);
    CHECK(ghl_webhook_apply(client, body, 2, "{}", &document) == GHL_ERR_SIGNATURE_INVALID);
    ghl_string_free(document);
    CHECK(ghl_webhook_apply_with(client, body, 2, "{}", "{}", &document)
          == GHL_ERR_SIGNATURE_INVALID);
    ghl_string_free(document);
    CHECK(ghl_token_delete(client, "nobody", &document) == GHL_ERR_NOT_FOUND);
    ghl_string_free(document);
}

/* A forked child can use the client as well. */
static void everything_here_and_in_a_child(void) {
    everything();
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        char *document;
        works(ghl_client_stats(client, &document), &document);
        _exit(0);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
}

/* The destructors of the library's thread-local variables have run before the second round. */
static void at_the_end_of_a_thread(void *value) {
    CHECK(value == &key);
    everything_here_and_in_a_child();
    if (++rounds < 3) {
        CHECK(pthread_setspecific(key, &key) == 0);
    }
}

static void *ends(void *context) {
    CHECK(context == NULL && pthread_setspecific(key, &key) == 0);
    everything();
    return NULL;
}

/* The first call of this thread comes from its end. */
static void *ends_without_a_call(void *context) {
    CHECK(context == NULL && pthread_setspecific(key, &key) == 0);
    return NULL;
}

static void in_a_thread(void *(*work)(void *)) {
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, work, NULL) == 0);
    CHECK(pthread_join(thread, NULL) == 0);
    CHECK(rounds == 3);
    rounds = 0;
}

static void at_exit(void) {
    everything_here_and_in_a_child();
    in_a_thread(ends);
}

__attribute__((destructor)) static void at_the_end_of_the_program(void) {
    everything_here_and_in_a_child();
    ghl_client_free(client);
    CHECK((add(&heard, 0) > 0) == has_callbacks && (add(&logged, 0) > 0) == has_callbacks);
    puts("passed");
}

int main(int argc, char **argv) {
    CHECK(argc == 7);
    config = argv[1];
    host_store = argv[2];
    tokens = argv[3];
    company = argv[4];
    location = argv[5];
    has_callbacks = strcmp(argv[6], "callbacks") == 0;
    /* Registered before the library registers anything, so called last. */
    CHECK(atexit(at_exit) == 0);
    CHECK(pthread_key_create(&key, at_the_end_of_a_thread) == 0);

    char *document;
    works(ghl_client_new(config, &client, &document), &document);
    works(ghl_tokens_import(client, tokens, &document), &document);
    everything();
    in_a_thread(ends);
    in_a_thread(ends_without_a_call);
    return 0;
}
