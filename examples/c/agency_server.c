/*
 * The core of an agency's server: webhooks keep the stored tokens in step with the installations,
 * sixteen threads make API calls, and a signal shuts the program down in an orderly way.
 *
 *     cc -std=c99 -D_POSIX_C_SOURCE=200809L examples/c/agency_server.c \
 *         bindings/c/ghl_oauth_typed.c -Iinclude -Ibindings/c -Ltarget/release -lghl_oauth \
 *         -lpthread -o agency_server
 *     ./agency_server config.json
 *
 * config.json: {"clientId": "...", "clientSecret": "...", "store": {"kind": "sqlite", "path":
 * "tokens.db"}}. The agency must have consented before with the same store; quickstart.c shows how.
 *
 * The input that a web framework and a scheduler would provide comes from stdin, so the example
 * needs no HTTP library:
 *
 *     webhook 312 Zs9fQ0...        a delivery: the length of its body, and its x-ghl-signature
 *     {"type": "INSTALL", ...      the body, unchanged, starting on the next line
 *     visit ve9EPM428h8vShlRW1KT   a job: a call for this location
 *     visit all                    a job for each location with a stored token
 *
 * One line on stdout gives the HTTP response for each delivery and the result of each job. At the
 * end of the input the program finishes its jobs and exits; SIGTERM or SIGINT ends it at once. A
 * real server would also call ghl_tokens_maintain every few minutes.
 */
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "ghl_oauth_typed.h"

enum { WORKERS = 16, LONGEST_LINE = 1024, LONGEST_BODY = 1 << 20 };

/* One client for all threads: it owns the tokens, the connections and the rate limiter. */
static ghl_client *client;

/* ---- State shared by the threads, protected by one mutex ---- */

typedef struct job {
    struct job *next;
    void (*work)(const char *resource_id);
    char resource_id[];
} job;

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static job *first, **last = &first;
static bool closed;   /* no job will be added: the workers exit when the queue is empty */
static bool stopping; /* no further job may start */
static bool finished; /* the workers have exited */
static int visited, failed, cancelled, events, consents_needed;

static void set(bool *flag) {
    pthread_mutex_lock(&mutex);
    *flag = true;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&mutex);
}

static bool is(const bool *flag) {
    pthread_mutex_lock(&mutex);
    bool value = *flag;
    pthread_mutex_unlock(&mutex);
    return value;
}

static void count(int *number) {
    pthread_mutex_lock(&mutex);
    ++*number;
    pthread_mutex_unlock(&mutex);
}

static void add_job(void (*work)(const char *resource_id), const char *resource_id) {
    job *added = malloc(sizeof *added + strlen(resource_id) + 1);
    if (added == NULL) {
        count(&failed);
        return;
    }
    added->next = NULL;
    added->work = work;
    strcpy(added->resource_id, resource_id);
    pthread_mutex_lock(&mutex);
    *last = added;
    last = &added->next;
    pthread_cond_signal(&changed);
    pthread_mutex_unlock(&mutex);
}

/* Waits for the next job; NULL if there will be no more. */
static job *take_job(void) {
    pthread_mutex_lock(&mutex);
    while (first == NULL && !closed) {
        pthread_cond_wait(&changed, &mutex);
    }
    job *taken = first;
    if (taken != NULL) {
        first = taken->next;
        last = first == NULL ? &first : last;
    }
    pthread_mutex_unlock(&mutex);
    return taken;
}

/* ---- Jobs ---- */

static void report(const char *what, const char *which, ghl_error *error) {
    count(error->status == GHL_ERR_CANCELLED ? &cancelled : &failed);
    if (error->status != GHL_ERR_CANCELLED) {
        fprintf(stderr, "%s %s: %s: %s\n", what, which, ghl_status_name(error->status),
                error->message);
        if (error->help != NULL) {
            fprintf(stderr, "what to do: %s\n", error->help);
        }
    }
    ghl_typed_error_clear(error);
}

/* Not memset: a compiler may remove it if the memory is not read afterwards. */
static void wipe(char *secret, size_t length) {
    for (volatile char *at = secret; length > 0; length--) {
        *at++ = '\0';
    }
}

static void visit(const char *location_id) {
    /* Request the token for each call instead of keeping it: it comes from memory, and has never
     * expired. */
    char token[4096], *document;
    size_t length = sizeof token;
    ghl_error error;
    int32_t status = ghl_access_token_into(client, location_id, token, &length, &document);
    if (status != GHL_OK) {
        ghl_typed_error(status, document, &error);
        report("the token of", location_id, &error);
        return;
    }
    /* An HTTP library of the host would send "Authorization: Bearer <token>" here. */
    wipe(token, sizeof token);

    /* Or let the library make the request: it is then rate-limited and retried, also if a token was
     * revoked early. */
    char path[LONGEST_LINE + sizeof "/locations/"];
    snprintf(path, sizeof path, "/locations/%s", location_id);
    ghl_api_request request = {.method = "GET", .path = path, .resource_id = location_id};
    ghl_api_response response;
    if (ghl_typed_request(client, &request, &response, &error) != GHL_OK) {
        report("the visit of", location_id, &error);
        return;
    }
    /* GHL_OK for every HTTP status, including 404: only the caller knows its meaning. */
    count(response.status == 200 ? &visited : &failed);
    printf("visited %s: %d\n", location_id, (int)response.status);
    ghl_typed_api_response_clear(&response);
}

/* Called a few times a second on the thread that mints; any result but 0 ends the minting. */
static int32_t on_progress(const char *progress, void *context) {
    fprintf(stderr, "%s: %s\n", (const char *)context, progress);
    return is(&stopping);
}

/* Mints tokens for all locations of a company in advance, so that no first call waits. */
static void mint(const char *company_id) {
    ghl_mint_request request = {.company_id = company_id, .installed = true};
    ghl_mint_report minted;
    ghl_error error;
    if (ghl_typed_tokens_mint(client, &request, on_progress, "minting", &minted, &error) !=
        GHL_OK) {
        report("minting for", company_id, &error);
        return;
    }
    for (size_t i = 0; i < minted.failed_count; i++) {
        const ghl_mint_failure *failure = &minted.failed[i];
        fprintf(stderr, "%s: %s: %s\n", failure->location_id, failure->status, failure->message);
    }
    printf("minted for %s: %d of %d\n", company_id, (int)(minted.minted + minted.fresh),
           (int)minted.total);
    ghl_typed_mint_report_clear(&minted);
}

/* Adds a job for each stored token of this type. */
static void add_jobs(void (*work)(const char *resource_id), const char *user_type) {
    ghl_token_query query = {.user_type = user_type, .page_size = 1000};
    ghl_token_info_page page;
    ghl_error error;
    char next[512];
    do {
        if (ghl_typed_tokens_list(client, &query, &page, &error) != GHL_OK) {
            report("the tokens of type", user_type, &error);
            return;
        }
        for (size_t i = 0; i < page.count; i++) {
            add_job(work, page.items[i].resource_id);
        }
        bool more = page.next_page_token != NULL;
        snprintf(next, sizeof next, "%s", more ? page.next_page_token : "");
        query.page_token = more ? next : NULL;
        ghl_typed_token_info_page_clear(&page);
    } while (query.page_token != NULL);
}

static void apply_webhook(const char *body, size_t length, const char *signature) {
    ghl_header header = {"x-ghl-signature", signature};
    ghl_webhook_outcome outcome;
    ghl_error error;
    if (ghl_typed_webhook_apply(client, body, length, &header, 1, &outcome, &error) == GHL_OK) {
        printf("200 %s %s\n", outcome.type != NULL ? outcome.type : "-",
               outcome.applied ? "applied" : "left alone");
        ghl_typed_webhook_outcome_clear(&outcome);
        return;
    }
    /* A 429 makes the vendor repeat the delivery under each of its published rules; under one of
     * them a 5xx is final. */
    int answer = error.status == GHL_ERR_SIGNATURE_INVALID ? 401 : error.retryable ? 429 : 400;
    printf("%d %s\n", answer, ghl_status_name(error.status));
    report("the delivery", "of a webhook", &error);
}

/* Runs on the thread of a call, which waits for it, so it only counts. */
static void on_event(const char *event, void *context) {
    (void)context;
    count(&events);
    if (strstr(event, "\"token.reauthorizationRequired\"") != NULL) {
        count(&consents_needed); /* a real server would notify a person */
    }
}

/* ---- Threads ---- */

static void *serve(void *context) {
    for (job *taken = take_job(); taken != NULL; taken = take_job()) {
        if (!is(&stopping)) {
            taken->work(taken->resource_id);
        }
        free(taken);
    }
    return context;
}

/* All threads block the signals, and this one waits for them: hardly any function may be called in
 * a signal handler. */
static sigset_t signals;

static void *await_signal(void *context) {
    const pthread_t *reader = context;
    int number;
    sigwait(&signals, &number);
    set(&stopping);
    /* A cancellation ends only the calls in progress, and a signal only a read in progress. Repeat
       both until the calls have ended. A refresh that was sent continues until its token is
       saved. */
    while (!is(&finished)) {
        ghl_client_cancel(client);
        pthread_kill(*reader, SIGUSR1);
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
    return NULL;
}

static void interrupt(int number) {
    (void)number; /* Installed without SA_RESTART, only to interrupt a blocking read. */
}

static bool read_webhook(char *rest) {
    char *signature;
    size_t length = strtoul(rest, &signature, 10);
    signature[strcspn(signature, "\r\n")] = '\0';
    char *body = length <= LONGEST_BODY ? malloc(length + 1) : NULL;
    bool whole = body != NULL && fread(body, 1, length, stdin) == length;
    if (whole) {
        apply_webhook(body, length, signature);
    }
    free(body);
    return whole;
}

/* Until the end of the input, an interrupt, or invalid input. */
static void read_input(void) {
    char line[LONGEST_LINE];
    while (!is(&stopping) && fgets(line, sizeof line, stdin) != NULL) {
        if (strncmp(line, "webhook ", 8) == 0) {
            if (!read_webhook(line + 8)) {
                return;
            }
            continue;
        }
        line[strcspn(line, "\r\n")] = '\0';
        if (strcmp(line, "visit all") == 0) {
            add_jobs(visit, "Location");
        } else if (strncmp(line, "visit ", 6) == 0) {
            add_job(visit, line + 6);
        } else if (line[0] != '\0') {
            fprintf(stderr, "not understood: %s\n", line);
            return;
        }
    }
}

int main(int argc, char **argv) {
    /* Read from a file: command lines are visible to all users of the machine, and the
     * configuration contains the client secret. */
    static char config[16384];
    FILE *file = argc == 2 ? fopen(argv[1], "r") : NULL;
    if (file == NULL) {
        fprintf(stderr, "usage: %s CONFIGURATION-FILE\n", argv[0]);
        return 2;
    }
    config[fread(config, 1, sizeof config - 1, file)] = '\0';
    fclose(file);
    char *document;
    ghl_error error;
    int32_t status = ghl_client_new(config, &client, &document);
    wipe(config, sizeof config);
    if (status != GHL_OK) {
        ghl_typed_error(status, document, &error);
        report("the configuration", argv[1], &error);
        return 1;
    }
    ghl_string_free(document);
    ghl_client_on_event(client, on_event, NULL);

    setvbuf(stdout, NULL, _IOLBF, BUFSIZ);
    sigaction(SIGUSR1, &(struct sigaction){.sa_handler = interrupt}, NULL);
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    pthread_sigmask(SIG_BLOCK, &signals, NULL); /* inherited by all threads created from here on */
    pthread_t reader = pthread_self(), awaiter, workers[WORKERS];
    bool started = pthread_create(&awaiter, NULL, await_signal, &reader) == 0;
    for (int i = 0; i < WORKERS; i++) {
        started = started && pthread_create(&workers[i], NULL, serve, NULL) == 0;
    }
    if (!started) {
        fprintf(stderr, "no threads\n");
        return 1;
    }
    add_jobs(mint, "Company"); /* regular jobs, so deliveries are handled at the same time */
    read_input();

    /* The workers finish the queue, or await_signal() stops them. Afterwards no thread uses the
     * client. */
    set(&closed);
    for (int i = 0; i < WORKERS; i++) {
        pthread_join(workers[i], NULL);
    }
    set(&finished);
    pthread_kill(awaiter, SIGTERM); /* it may still wait for a signal */
    pthread_join(awaiter, NULL);
    ghl_client_free(client);
    printf("visited %d, failed %d, cancelled %d; events %d, consents needed %d\n", visited, failed,
           cancelled, events, consents_needed);
    return 0;
}
