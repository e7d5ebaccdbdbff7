/*
 * Calls on threads with small stacks. argv[1] is a configuration, argv[2] tokens to import, argv[3]
 * a company, argv[4] a location, argv[5] the size of the stacks in KiB. Prints how much of its
 * stack each call has used.
 */
#include <stdbool.h>
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

#include "checks.h"

static ghl_client *client;
static const char *config, *tokens, *company, *location;

static void ok(int32_t status, char **document) {
    if (status != GHL_OK) {
        fprintf(stderr, "%s\n", *document == NULL ? "without a document" : *document);
    }
    CHECK(status == GHL_OK);
    ghl_string_free(*document);
    *document = NULL;
}

static void create(void) {
    char *document;
    ok(ghl_client_new(config, &client, &document), &document);
}

static void import(void) {
    char *document;
    ok(ghl_tokens_import(client, tokens, &document), &document);
}

static void token(void) {
    char *text, *document;
    ok(ghl_access_token(client, company, &text, &document), &text);
    ghl_string_free(document);
}

static void refresh(void) {
    char *document;
    ok(ghl_token_refresh(client, company, &document), &document);
}

static void mint_one(void) {
    char *document;
    ok(ghl_token_refresh(client, location, &document), &document);
}

static int32_t go_on(const char *progress, void *context) {
    return progress[0] == '{' && context == NULL ? 0 : 1;
}

static void mint(void) {
    char params[256], *document;
    CHECK(snprintf(params, sizeof params,
                   "{\"companyId\": \"%s\", \"installed\": true, \"force\": true}", company) > 0);
    ok(ghl_tokens_mint(client, params, go_on, NULL, &document), &document);
}

static void maintain(void) {
    char *document;
    ok(ghl_tokens_maintain(client, "{}", go_on, NULL, &document), &document);
}

static void export(void) {
    char *document;
    ok(ghl_tokens_export(client, "{}", &document), &document);
}

static void request(void) {
    char *document;
    ok(ghl_request(client, "{\"method\": \"GET\", \"path\": \"/nowhere\"}", &document), &document);
}

static void verify(void) {
    const uint8_t *const body = (const uint8_t *)"{}";
    CHECK(ghl_webhook_verify(client, body, 2, "{}", NULL) == GHL_ERR_SIGNATURE_INVALID);
}

static void release(void) {
    ghl_client_free(client);
}

static const struct {
    const char *name;
    void (*call)(void);
} CALLS[] = {
    {"ghl_client_new", create},
    {"ghl_tokens_import", import},
    {"ghl_access_token", token},
    {"ghl_token_refresh", refresh},
    {"ghl_token_refresh (mint)", mint_one},
    {"ghl_tokens_mint", mint},
    {"ghl_tokens_maintain", maintain},
    {"ghl_tokens_export", export},
    {"ghl_request", request},
    {"ghl_webhook_verify", verify},
    {"ghl_client_free", release},
};

static void *run(void *context) {
    void (*const *call)(void) = context;
    (*call)();
    return NULL;
}

int main(int argc, char **argv) {
    CHECK(argc == 6);
    config = argv[1];
    tokens = argv[2];
    company = argv[3];
    location = argv[4];
    const size_t size = (size_t)strtoul(argv[5], NULL, 10) * 1024;
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    for (size_t i = 0; i < sizeof CALLS / sizeof *CALLS; i++) {
        /* A page that must not be touched lies below the stack. */
        void *memory;
        CHECK(posix_memalign(&memory, page, size + page) == 0);
        CHECK(mprotect(memory, page, PROT_NONE) == 0);
        uint8_t *stack = (uint8_t *)memory + page;
        memset(stack, 0xA5, size);
        pthread_attr_t attributes;
        pthread_t thread;
        void (*call)(void) = CALLS[i].call;
        CHECK(pthread_attr_init(&attributes) == 0 &&
              pthread_attr_setstack(&attributes, stack, size) == 0);
        CHECK(pthread_create(&thread, &attributes, run, &call) == 0);
        CHECK(pthread_join(thread, NULL) == 0 && pthread_attr_destroy(&attributes) == 0);
        size_t unused = 0;
        while (unused < size && stack[unused] == 0xA5) {
            unused++;
        }
        printf("%s %zu\n", CALLS[i].name, (size - unused) / 1024);
        CHECK(mprotect(memory, page, PROT_READ | PROT_WRITE) == 0);
        free(memory);
    }
    puts("passed");
    return 0;
}
