/*
 * The library's calls next to the least that the same work takes on the same system, as ratios:
 * floor CONFIG SQLITE_CONFIG TOKENS ID PORT FORM REFRESH_TOKEN FILE, as floor.py calls it.
 */
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#ifdef _WIN32
#include <winsock2.h>
#include <windows.h>
#include <io.h>
#define fsync _commit /* FlushFileBuffers */
typedef SRWLOCK mutex;
#define lock AcquireSRWLockExclusive
#define unlock ReleaseSRWLockExclusive
#else
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>
#define O_BINARY 0
typedef pthread_mutex_t mutex;
#define lock pthread_mutex_lock
#define unlock pthread_mutex_unlock
#endif

#include "ghl_oauth.h"

enum { TOKEN = 900, CALLS = 100000, REFRESHES = 100, RUNS = 15, THREADS = 2 };

struct slot {
    char id[16];
    mutex guard;
    char token[TOKEN + 1];
};

/* Zero is the initial state of both kinds of mutexes. */
static struct slot slots[THREADS];
static ghl_client *client;
static const char *resource_id, *form;
static char refresh_token[512], response[16384];
static int connection, file;

static void check(const char *what, int is_good, const char *why) {
    if (!is_good) {
        fprintf(stderr, "%s failed: %s\n", what, why == NULL ? "" : why);
        exit(1);
    }
}

static void done(const char *what, int32_t status, char *json) {
    check(what, status == GHL_OK, json);
    ghl_string_free(json);
}

static double seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void open_client(const char *config, const char *tokens) {
    char *json = NULL;
    int32_t status = ghl_client_new(config, &client, &json);
    done("ghl_client_new", status, json);
    status = ghl_tokens_import(client, tokens, &json);
    done("ghl_tokens_import", status, json);
}

/* ---- The measured calls ---- */

static void into(struct slot *slot) {
    char buffer[1024];
    size_t length = sizeof buffer;
    check("ghl_access_token_into",
          ghl_access_token_into(client, slot->id, buffer, &length, NULL) == GHL_OK, NULL);
}

static void locked_copy(struct slot *slot) {
    char buffer[1024];
    lock(&slot->guard);
    memcpy(buffer, slot->token, sizeof slot->token);
    unlock(&slot->guard);
    /* The copy must not be optimised away. */
    __asm__ volatile("" : : "r"(buffer) : "memory");
}

/* The clock that the library reads in each call. */
static void read_clock(struct slot *slot) {
    (void)slot;
#ifdef _WIN32
    ULONGLONG now = GetTickCount64();
#else
    struct timespec now;
    clock_gettime(CLOCK_BOOTTIME, &now);
#endif
    __asm__ volatile("" : : "r"(&now) : "memory");
}

static void refresh(struct slot *slot) {
    char *json;
    (void)slot;
    int32_t status = ghl_token_refresh(client, resource_id, &json);
    done("ghl_token_refresh", status, json);
}

/* The same request by hand, in one packet over a connection that stays open. */
static void exchange(struct slot *slot) {
    char request[4096];
    size_t filled = 0, body = 0, length = 0;
    (void)slot;
    int size = snprintf(request, sizeof request,
                        "POST /oauth/token HTTP/1.1\r\nHost: localhost\r\nVersion: v3\r\n"
                        "Content-Type: application/x-www-form-urlencoded\r\n"
                        "Content-Length: %zu\r\n\r\n%s&refreshToken=%s",
                        strlen(form) + strlen("&refreshToken=") + strlen(refresh_token), form,
                        refresh_token);
    check("send", send(connection, request, (size_t)size, 0) == size, NULL);
    while (body == 0 || filled < body + length) {
        int got = (int)recv(connection, response + filled, sizeof response - 1 - filled, 0);
        check("recv", got > 0, response);
        filled += (size_t)got;
        response[filled] = '\0';
        const char *end = strstr(response, "\r\n\r\n");
        if (body == 0 && end != NULL) {
            const char *header = strstr(response, "ontent-length: ");
            check("the response", strncmp(response, "HTTP/1.1 200", 12) == 0 && header != NULL,
                  response);
            length = strtoul(header + strlen("ontent-length: "), NULL, 10);
            body = (size_t)(end - response) + 4;
        }
    }
    const char *token = strstr(response + body, "\"refreshToken\":\"");
    check("the search for the refresh token", token != NULL, response);
    token += strlen("\"refreshToken\":\"");
    snprintf(refresh_token, sizeof refresh_token, "%.*s", (int)strcspn(token, "\""), token);
}

static void durable_exchange(struct slot *slot) {
    exchange(slot);
    size_t size = strlen(response);
    check("a write", lseek(file, 0, SEEK_SET) == 0 && write(file, response, size) == (int)size,
          NULL);
    check("a sync", fsync(file) == 0, NULL);
}

/* ---- Measuring ---- */

struct work {
    void (*call)(struct slot *);
    struct slot *slot;
    double took;
};

static void *repeat(void *place) {
    struct work *work = place;
    int calls = work->call == into || work->call == locked_copy || work->call == read_clock
                    ? CALLS
                    : REFRESHES;
    double began = seconds();
    for (int i = 0; i < calls; i++) {
        work->call(work->slot);
    }
    work->took = seconds() - began;
    return NULL;
}

/* The time of the slowest thread. */
static double measure(void (*call)(struct slot *), int threads, int slots_used) {
    struct work works[THREADS];
    pthread_t others[THREADS];
    double slowest = 0;
    for (int i = 0; i < threads; i++) {
        works[i] = (struct work){call, &slots[i % slots_used], 0};
    }
    for (int i = 1; i < threads; i++) {
        check("a thread", pthread_create(&others[i], NULL, repeat, &works[i]) == 0, NULL);
    }
    repeat(&works[0]);
    for (int i = 0; i < threads; i++) {
        if (i > 0) {
            pthread_join(others[i], NULL);
        }
        slowest = works[i].took > slowest ? works[i].took : slowest;
    }
    return slowest;
}

static int ascending(const void *left, const void *right) {
    double a = *(const double *)left, b = *(const double *)right;
    return (a > b) - (a < b);
}

/* Prints the median ratio of alternating runs. */
static void ratio(const char *name, void (*call)(struct slot *), void (*least)(struct slot *),
                  int threads, int slots_used) {
    double ratios[RUNS];
    for (int run = 0; run < RUNS; run++) {
        double took = measure(call, threads, slots_used);
        ratios[run] = took / measure(least, threads, slots_used);
    }
    qsort(ratios, RUNS, sizeof *ratios, ascending);
    printf("%s: %.3f\n", name, ratios[RUNS / 2]);
    fflush(stdout);
}

static void cached_token(const char *config) {
    char tokens[4096], token[TOKEN + 1];
    memset(token, 't', TOKEN);
    token[TOKEN] = '\0';
    int size = snprintf(tokens, sizeof tokens, "{\"tokens\":[");
    for (int i = 0; i < THREADS; i++) {
        snprintf(slots[i].id, sizeof slots[i].id, "location%d", i);
        memcpy(slots[i].token, token, sizeof token);
        size += snprintf(tokens + size, sizeof tokens - (size_t)size,
                         "%s{\"locationId\":\"%s\",\"accessToken\":\"%s\",\"expiresIn\":86399}",
                         i == 0 ? "" : ",", slots[i].id, token);
    }
    snprintf(tokens + size, sizeof tokens - (size_t)size, "]}");
    open_client(config, tokens);
    ratio("cached token", into, locked_copy, 1, 1);
    ratio("the clock that it reads", read_clock, locked_copy, 1, 1);
    ratio("two threads, a token each", into, locked_copy, 2, 2);
    ratio("two threads, one token", into, locked_copy, 2, 1);
    ghl_client_free(client);
}

int main(int count, char **words) {
    check("usage", count == 9, "floor.py has the arguments");
    resource_id = words[4];
    form = words[6];
    snprintf(refresh_token, sizeof refresh_token, "%s", words[7]);
#ifdef _WIN32
    WSADATA data;
    check("WSAStartup", WSAStartup(MAKEWORD(2, 2), &data) == 0, NULL);
#endif
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons((unsigned short)atoi(words[5])),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int yes = 1;
    connection = (int)socket(AF_INET, SOCK_STREAM, 0);
    check("connect", connect(connection, (struct sockaddr *)&address, sizeof address) == 0, NULL);
    setsockopt(connection, IPPROTO_TCP, TCP_NODELAY, (const char *)&yes, sizeof yes);
    file = open(words[8], O_CREAT | O_WRONLY | O_BINARY, 0600);
    check("open", file >= 0, words[8]);

    cached_token(words[1]);
    open_client(words[1], words[3]);
    ratio("refresh", refresh, exchange, 1, 1);
    /* Its newest token is the only valid one, so the next client takes it from this one. */
    char *tokens;
    int32_t status = ghl_tokens_export(client, "{}", &tokens);
    check("ghl_tokens_export", status == GHL_OK, tokens);
    ghl_client_free(client);
    open_client(words[2], tokens);
    ghl_string_free(tokens);
    ratio("durable refresh", refresh, durable_exchange, 1, 1);
    ghl_client_free(client);
    return 0;
}
