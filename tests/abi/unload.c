/*
 * A program that loads the library while it runs, and unloads it. argv[1] is the library, argv[2] a
 * configuration, argv[3] tokens to import, argv[4] a company.
 */
#include <dlfcn.h>
#include <sys/wait.h>
#include <unistd.h>

#include "checks.h"

static void *library;
static ghl_client *client;
static const char *company;

/* ISO C has no conversion from an object pointer to a function pointer. */
#define FUNCTION(name) \
    do { \
        void *symbol = dlsym(library, #name); \
        CHECK(symbol != NULL); \
        memcpy(&name##_, &symbol, sizeof symbol); \
    } while (0)

static int32_t (*ghl_client_new_)(const char *, ghl_client **, char **);
static void (*ghl_client_free_)(ghl_client *);
static int32_t (*ghl_set_log_callback_)(ghl_log_callback, void *, int32_t);
static int32_t (*ghl_tokens_import_)(ghl_client *, const char *, char **);
static int32_t (*ghl_token_refresh_)(ghl_client *, const char *, char **);

static void line(int32_t level, const char *message, void *context) {
    CHECK(level >= 1 && message[0] != '\0' && context == NULL);
}

static void load(const char *path) {
    library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    CHECK(library != NULL);
    FUNCTION(ghl_client_new);
    FUNCTION(ghl_client_free);
    FUNCTION(ghl_set_log_callback);
    FUNCTION(ghl_tokens_import);
    FUNCTION(ghl_token_refresh);
}

static pthread_barrier_t both;

/* Ends after the library was unloaded. */
static void *uses_and_ends_later(void *context) {
    CHECK(context == NULL && ghl_token_refresh_(client, company, NULL) == GHL_OK);
    pthread_barrier_wait(&both);
    pthread_barrier_wait(&both);
    return NULL;
}

int main(int argc, char **argv) {
    CHECK(argc == 5);
    company = argv[4];
    for (int round = 0; round < 3; round++) {
        load(argv[1]);
        CHECK(ghl_set_log_callback_(line, NULL, 5) == GHL_OK);
        CHECK(ghl_client_new_(argv[2], &client, NULL) == GHL_OK);
        CHECK(round > 0 || ghl_tokens_import_(client, argv[3], NULL) == GHL_OK);
        pthread_t thread;
        CHECK(pthread_barrier_init(&both, NULL, 2) == 0);
        CHECK(pthread_create(&thread, NULL, uses_and_ends_later, NULL) == 0);
        pthread_barrier_wait(&both);
        ghl_client_free_(client);
        CHECK(ghl_set_log_callback_(NULL, NULL, 0) == GHL_OK);
        CHECK(dlclose(library) == 0);
        pid_t child = fork();
        if (child == 0) {
            _exit(0);
        }
        int status;
        CHECK(waitpid(child, &status, 0) == child && status == 0);
        pthread_barrier_wait(&both);
        CHECK(pthread_join(thread, NULL) == 0 && pthread_barrier_destroy(&both) == 0);
    }
    puts("passed");
    return 0;
}
