/*
 * A gateway for many tenants: tells a proxy which access token to add to a request, as nginx's
 * auth_request and Envoy's ext_authz ask for it, and receives the webhooks.
 *
 *     cc -std=c99 -D_POSIX_C_SOURCE=200809L examples/c/gateway.c bindings/c/ghl_oauth_typed.c \
 *         -Iinclude -Ibindings/c -Ltarget/release -Wl,-rpath,$PWD/target/release \
 *         -lghl_oauth -lpthread -o gateway
 *     ./gateway config.json 8090 [seconds until a shutdown cancels the requests in progress]
 *
 *     GET /token, X-Tenant: ID    200 with "Authorization: Bearer ..." in its head;
 *                                 400: no X-Tenant;
 *                                 403 and 404: the app has no access to this tenant (any more);
 *                                 503: try again
 *     POST /webhooks              a delivery, with its X-GHL-Signature
 *
 * nginx's auth_request turns every answer but 2xx, 401 and 403 into a 500. To tell the client more,
 * read this gateway's status and map it in the location that asks for the token:
 *
 *     auth_request /token;
 *     auth_request_set $bearer $upstream_http_authorization;
 *     auth_request_set $token_status $upstream_status;
 *     proxy_set_header Authorization $bearer;
 *     error_page 500 = @no_token;
 *     location @no_token {
 *         if ($token_status = 400) { return 400; }
 *         if ($token_status = 404) { return 404; }
 *         if ($token_status = 503) { return 503; }
 *         return 502;
 *     }
 *
 * Envoy's ext_authz passes each status on.
 *
 * One thread serves all connections in an event loop. It never waits for a token: one in memory is
 * copied at once, and everything that may wait runs on worker threads. SIGTERM or SIGINT ends the
 * program after the requests in progress, which get five seconds.
 *
 * The gateway listens on this machine only, because it hands out tokens. Run `ghl-oauth maintain`
 * from a timer, so that tokens are refreshed before a request has to wait for it. A real gateway
 * also limits how long a client may take to send its request.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "ghl_oauth_typed.h"

enum { CONNECTIONS = 64, WORKERS = 4, LONGEST_REQUEST = 1 << 16 };

/* A connection has one owner at a time: the event loop, or a worker while it is WAITING. */
typedef struct connection {
    struct connection *next; /* in a queue */
    enum { FREE, READING, WAITING, WRITING } state;
    int socket;
    size_t length; /* of the request so far, or of the response */
    size_t sent;
    size_t body;   /* where the request's body starts */
    char bytes[LONGEST_REQUEST + 1];
} connection;

typedef struct queue {
    connection *first, **last;
} queue;

static ghl_client *client;
static connection connections[CONNECTIONS];
static volatile sig_atomic_t stopping;
static long grace_seconds = 5;
static int wake[2]; /* a pipe that interrupts poll() */

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static queue waiting = {NULL, &waiting.first}, answered = {NULL, &answered.first};
static bool closed; /* the workers exit */

static void put(queue *into, connection *one) {
    pthread_mutex_lock(&mutex);
    one->next = NULL;
    *into->last = one;
    into->last = &one->next;
    pthread_cond_signal(&changed);
    pthread_mutex_unlock(&mutex);
}

/* The next connection. NULL: none, or, for a worker that waits, the end. */
static connection *take(queue *from, bool wait) {
    pthread_mutex_lock(&mutex);
    while (wait && from->first == NULL && !closed) {
        pthread_cond_wait(&changed, &mutex);
    }
    connection *one = from->first;
    if (one != NULL) {
        from->first = one->next;
        from->last = from->first == NULL ? &from->first : from->last;
    }
    pthread_mutex_unlock(&mutex);
    return one;
}

/* Safe in a signal handler. If the pipe is full, poll() wakes up anyway. */
static void wake_up(void) {
    int saved = errno;
    if (write(wake[1], "", 1) < 0) {
        errno = saved;
    }
}

static void stop(int number) {
    stopping = number;
    wake_up();
}

/* ---- Requests and responses ---- */

/* Not memset: a compiler may remove it if the memory is not read afterwards. */
static void wipe(char *secret, size_t length) {
    for (volatile char *at = secret; length > 0; length--) {
        *at++ = '\0';
    }
}

static void answer(connection *one, const char *status, const char *name, const char *value) {
    int length = snprintf(one->bytes, sizeof one->bytes,
                          "HTTP/1.1 %s\r\n%s: %s\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
                          status, name, value);
    one->length = length > 0 ? (size_t)length : 0;
}

static void answer_error(connection *one, ghl_error *error) {
    /* A 429 makes the vendor repeat a delivery under each of its published rules. */
    bool is_webhook = one->body != 0;
    const char *status = is_webhook ? "400 Bad Request" : "502 Bad Gateway";
    if (error->status == GHL_ERR_NOT_FOUND) {
        status = "404 Not Found";
    } else if (error->status == GHL_ERR_REAUTHORIZATION_REQUIRED ||
               error->status == GHL_ERR_FORBIDDEN) {
        status = "403 Forbidden";
    } else if (error->status == GHL_ERR_SIGNATURE_INVALID) {
        status = "401 Unauthorized";
    } else if (error->retryable || error->status == GHL_ERR_CANCELLED) {
        status = is_webhook ? "429 Too Many Requests" : "503 Service Unavailable";
    }
    fprintf(stderr, "%s: %s%s%s\n", ghl_status_name(error->status), error->message,
            error->help != NULL ? "; " : "", error->help != NULL ? error->help : "");
    answer(one, status, "X-Error", ghl_status_name(error->status));
    ghl_typed_error_clear(error);
}

static void answer_token(connection *one, char *token, size_t size) {
    char value[4200];
    snprintf(value, sizeof value, "Bearer %s", token);
    answer(one, "200 OK", "Authorization", value);
    wipe(value, sizeof value);
    wipe(token, size);
}

/* The value of a header, NUL-terminated; "" without it. The head has been read completely. */
static void header(const connection *one, const char *name, char *value, size_t size) {
    size_t length = strlen(name);
    const char *line = strstr(one->bytes, "\r\n");
    value[0] = '\0';
    for (; line != NULL && strncmp(line, "\r\n\r\n", 4) != 0; line = strstr(line + 2, "\r\n")) {
        if (strncasecmp(line + 2, name, length) == 0 && line[2 + length] == ':') {
            const char *start = line + 3 + length;
            start += strspn(start, " \t");
            snprintf(value, size, "%.*s", (int)strcspn(start, "\r\n"), start);
            return;
        }
    }
}

/* Whether the request has been read completely. Sets the start of its body. */
static bool is_whole(connection *one) {
    char length[16];
    one->bytes[one->length] = '\0';
    const char *end = strstr(one->bytes, "\r\n\r\n");
    if (end == NULL) {
        return false;
    }
    header(one, "Content-Length", length, sizeof length);
    one->body = (size_t)(end - one->bytes) + 4;
    return one->length - one->body >= strtoul(length, NULL, 10);
}

/* On the event loop: answers at once if that is possible, else leaves the rest to a worker. */
static void begin(connection *one) {
    char tenant[128], token[4096];
    size_t length = sizeof token;
    bool is_webhook = strncmp(one->bytes, "POST /webhooks ", 15) == 0;
    one->state = WRITING;
    if (!is_webhook && strncmp(one->bytes, "GET /token ", 11) != 0) {
        answer(one, "404 Not Found", "X-Error", "unknown path");
        return;
    }
    header(one, "X-Tenant", tenant, sizeof tenant);
    if (!is_webhook && tenant[0] == '\0') {
        answer(one, "400 Bad Request", "X-Error", "X-Tenant is missing");
        return;
    }
    if (!is_webhook &&
        ghl_access_token_try_into(client, tenant, token, &length) == GHL_OK) {
        answer_token(one, token, sizeof token);
        return;
    }
    one->body = is_webhook ? one->body : 0;
    one->state = WAITING;
    put(&waiting, one);
}

/* On a worker: may wait for the network and the store. */
static void finish(connection *one) {
    char value[512], token[4096], *document;
    ghl_error error;
    if (one->body == 0) {
        size_t length = sizeof token;
        header(one, "X-Tenant", value, sizeof value);
        int32_t status = ghl_access_token_into(client, value, token, &length, &document);
        if (status == GHL_OK) {
            answer_token(one, token, sizeof token);
        } else {
            ghl_typed_error(status, document, &error);
            answer_error(one, &error);
        }
        return;
    }
    header(one, "X-GHL-Signature", value, sizeof value);
    ghl_header signature = {"x-ghl-signature", value};
    ghl_webhook_outcome outcome;
    if (ghl_typed_webhook_apply(client, one->bytes + one->body, one->length - one->body, &signature,
                                1, &outcome, &error) == GHL_OK) {
        answer(one, "200 OK", "X-Applied", outcome.applied ? "yes" : "no");
        ghl_typed_webhook_outcome_clear(&outcome);
    } else {
        answer_error(one, &error);
    }
}

static void *work(void *context) {
    for (connection *one = take(&waiting, true); one != NULL; one = take(&waiting, true)) {
        finish(one);
        put(&answered, one);
        wake_up();
    }
    return context;
}

/* ---- The event loop ---- */

static void end(connection *one) {
    close(one->socket);
    wipe(one->bytes, sizeof one->bytes); /* it contained a token */
    one->state = FREE;
}

static void advance(connection *one) {
    ssize_t moved = one->state == READING
                        ? recv(one->socket, one->bytes + one->length,
                               LONGEST_REQUEST - one->length, 0)
                        : send(one->socket, one->bytes + one->sent, one->length - one->sent,
                               MSG_NOSIGNAL);
    if (moved <= 0) {
        if (moved == 0 || (errno != EAGAIN && errno != EINTR)) {
            end(one); /* closed by the client, or too long */
        }
    } else if (one->state == READING) {
        one->length += (size_t)moved;
        if (is_whole(one)) {
            begin(one);
        }
    } else if ((one->sent += (size_t)moved) == one->length) {
        end(one);
    }
}

static void accept_one(int listener) {
    connection *one = connections;
    while (one < connections + CONNECTIONS && one->state != FREE) {
        one++;
    }
    int accepted = one < connections + CONNECTIONS ? accept(listener, NULL, NULL) : -1;
    if (accepted >= 0) {
        fcntl(accepted, F_SETFL, O_NONBLOCK);
        one->socket = accepted;
        one->length = one->sent = one->body = 0;
        one->state = READING;
    }
}

/* Until a signal, and then until the requests in progress are answered. */
static void serve(int listener) {
    time_t deadline = 0;
    for (;;) {
        struct pollfd watched[CONNECTIONS + 2];
        connection *of[CONNECTIONS + 2];
        nfds_t count = 0;
        bool busy = false, room = false;
        if (stopping && deadline == 0) {
            deadline = time(NULL) + grace_seconds;
            close(listener);
        }
        for (connection *one = connections; one < connections + CONNECTIONS; one++) {
            if (stopping && one->state == READING) {
                end(one);
            }
            busy = busy || one->state == WAITING || one->state == WRITING;
            room = room || one->state == FREE;
            if (one->state == READING || one->state == WRITING) {
                short events = one->state == READING ? POLLIN : POLLOUT;
                of[count] = one;
                watched[count++] = (struct pollfd){.fd = one->socket, .events = events};
            }
        }
        if (stopping && !busy) {
            return;
        }
        if (stopping && time(NULL) >= deadline) {
            /* Ends only the calls in progress, so it is repeated. A refresh that was sent still
             * continues until its token is saved. */
            ghl_client_cancel(client);
        }
        of[count] = NULL;
        watched[count++] = (struct pollfd){.fd = wake[0], .events = POLLIN};
        if (room && !stopping) {
            of[count] = NULL;
            watched[count++] = (struct pollfd){.fd = listener, .events = POLLIN};
        }
        if (poll(watched, count, stopping ? 50 : -1) < 0) {
            continue;
        }
        for (nfds_t i = 0; i < count; i++) {
            char drained[64];
            if (watched[i].revents == 0) {
                continue;
            }
            if (of[i] != NULL) {
                advance(of[i]);
            } else if (watched[i].fd == listener) {
                accept_one(listener);
            } else {
                while (read(wake[0], drained, sizeof drained) > 0) {
                }
            }
        }
        for (connection *one = take(&answered, false); one != NULL; one = take(&answered, false)) {
            one->state = WRITING;
        }
    }
}

static int listen_on(unsigned port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    socklen_t size = sizeof address;
    int on = 1, listener = socket(AF_INET, SOCK_STREAM, 0);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (listener < 0 || setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) != 0 ||
        bind(listener, (struct sockaddr *)&address, size) != 0 || listen(listener, 64) != 0 ||
        fcntl(listener, F_SETFL, O_NONBLOCK) != 0 ||
        getsockname(listener, (struct sockaddr *)&address, &size) != 0) {
        perror("the port");
        return -1;
    }
    printf("listening on 127.0.0.1:%u\n", (unsigned)ntohs(address.sin_port));
    fflush(stdout);
    return listener;
}

int main(int argc, char **argv) {
    static char config[16384];
    FILE *file = argc == 3 || argc == 4 ? fopen(argv[1], "r") : NULL;
    if (file == NULL) {
        fprintf(stderr, "usage: %s CONFIGURATION-FILE PORT [SECONDS]\n", argv[0]);
        return 2;
    }
    grace_seconds = argc == 4 ? strtol(argv[3], NULL, 10) : grace_seconds;
    config[fread(config, 1, sizeof config - 1, file)] = '\0';
    fclose(file);
    char *document;
    int32_t status = ghl_client_new(config, &client, &document);
    wipe(config, sizeof config);
    if (status != GHL_OK) {
        ghl_error error;
        ghl_typed_error(status, document, &error);
        fprintf(stderr, "%s: %s\n", argv[1], error.message);
        ghl_typed_error_clear(&error);
        return 1;
    }
    ghl_string_free(document);

    pthread_t workers[WORKERS];
    int listener = listen_on((unsigned)strtoul(argv[2], NULL, 10));
    bool started = listener >= 0 && pipe(wake) == 0;
    for (int i = 0; started && i < 2; i++) {
        started = fcntl(wake[i], F_SETFL, O_NONBLOCK) == 0;
    }
    struct sigaction on_signal = {.sa_handler = stop};
    sigaction(SIGTERM, &on_signal, NULL);
    sigaction(SIGINT, &on_signal, NULL);
    /* The workers inherit the mask: signals arrive on this thread. */
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    pthread_sigmask(SIG_BLOCK, &signals, NULL);
    int running = 0;
    while (started && running < WORKERS) {
        started = pthread_create(&workers[running], NULL, work, NULL) == 0;
        running += started;
    }
    pthread_sigmask(SIG_UNBLOCK, &signals, NULL);
    if (started) {
        serve(listener);
    }

    /* The workers have no work left. Afterwards no thread uses the client, and freeing it saves a
     * token that the store has refused so far. */
    pthread_mutex_lock(&mutex);
    closed = true;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&mutex);
    while (running > 0) {
        pthread_join(workers[--running], NULL);
    }
    ghl_client_free(client);
    return started ? 0 : 1;
}
