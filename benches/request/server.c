/*
 * Answers every request with the bytes of a file on one thread per connection: a minimal server, so
 * that the client is measured.
 *
 * SERVER ANSWERS plain|kept|resumed|full [CERTIFICATE KEY]
 * ANSWERS is a folder with complete responses: token, location-token, and location for all other
 * paths. "resumed" and "full" are TLS, like "kept", but their responses must contain "connection:
 * close", so that each request needs a handshake. With "full" no session is resumed.
 *
 * Prints its port; then, for each input line, the number of connections, the number of resumed
 * sessions, and its CPU time in microseconds. Ends with its input.
 */
#define _GNU_SOURCE
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/ssl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

struct answer {
    char bytes[16384];
    int length;
};

static struct answer token, location_token, location;
static SSL_CTX *tls;
static bool closes;
static atomic_long connections, resumed;

struct connection {
    int socket;
    SSL *ssl;
};

static void die(const char *what) {
    perror(what);
    exit(1);
}

static void load(struct answer *answer, const char *folder, const char *name) {
    char path[1024];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "rb");
    if (file == NULL) {
        die(path);
    }
    answer->length = (int)fread(answer->bytes, 1, sizeof answer->bytes, file);
    fclose(file);
}

static int receive(struct connection *connection, char *bytes, int room) {
    return connection->ssl == NULL ? (int)recv(connection->socket, bytes, (size_t)room, 0)
                                   : SSL_read(connection->ssl, bytes, room);
}

static bool send_all(struct connection *connection, const struct answer *answer) {
    return connection->ssl == NULL
               ? send(connection->socket, answer->bytes, (size_t)answer->length, MSG_NOSIGNAL) ==
                     answer->length
               : SSL_write(connection->ssl, answer->bytes, answer->length) == answer->length;
}

/* Reads one request including its body; false if the client has disconnected. */
static bool read_request(struct connection *connection, char *request, int room) {
    int length = 0, whole = 0;
    while (whole == 0 || length < whole) {
        int more = length < room - 1 ? receive(connection, request + length, room - 1 - length) : 0;
        if (more <= 0) {
            return false;
        }
        length += more;
        request[length] = '\0';
        const char *end = whole == 0 ? strstr(request, "\r\n\r\n") : NULL;
        if (end != NULL) {
            const char *body = strcasestr(request, "\r\ncontent-length:");
            whole = (int)(end + 4 - request) + (body == NULL || body > end ? 0 : atoi(body + 17));
        }
    }
    return true;
}

static void *serve(void *of) {
    struct connection connection = {(int)(long)of, NULL};
    int yes = 1;
    char request[16384];
    setsockopt(connection.socket, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    bool goes_on = true;
    if (tls != NULL) {
        connection.ssl = SSL_new(tls);
        SSL_set_fd(connection.ssl, connection.socket);
        goes_on = SSL_accept(connection.ssl) == 1;
        resumed += goes_on && SSL_session_reused(connection.ssl);
    }
    while (goes_on && read_request(&connection, request, sizeof request)) {
        const char *path = strchr(request, ' ');
        bool mints = path != NULL && strncmp(path, " /oauth/location-token ", 23) == 0;
        bool grants = path != NULL && strncmp(path, " /oauth/token ", 14) == 0;
        goes_on = send_all(&connection, mints    ? &location_token
                                        : grants ? &token
                                                 : &location) &&
                  !closes;
    }
    if (connection.ssl != NULL) {
        SSL_shutdown(connection.ssl);
        SSL_free(connection.ssl);
    }
    close(connection.socket);
    return NULL;
}

static void *report(void *unused) {
    int character;
    while ((character = getchar()) != EOF) {
        if (character == '\n') {
            struct timespec worked;
            clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &worked);
            printf("%ld %ld %ld\n", connections, resumed,
                   worked.tv_sec * 1000000L + worked.tv_nsec / 1000);
            fflush(stdout);
        }
    }
    exit(0);
    return unused;
}

static SSL_CTX *tls_of(char **words) {
    SSL_CTX *context = SSL_CTX_new(TLS_server_method());
    if (context == NULL || SSL_CTX_use_certificate_chain_file(context, words[3]) != 1 ||
        SSL_CTX_use_PrivateKey_file(context, words[4], SSL_FILETYPE_PEM) != 1) {
        die("certificate");
    }
    SSL_CTX_set_session_id_context(context, (const unsigned char *)"bench", 5);
    if (strcmp(words[2], "full") == 0) {
        SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
        SSL_CTX_set_options(context, SSL_OP_NO_TICKET);
        SSL_CTX_set_num_tickets(context, 0);
    }
    return context;
}

int main(int count, char **words) {
    if (count != 3 && count != 5) {
        die("SERVER ANSWERS plain|kept|resumed|full [CERTIFICATE KEY]");
    }
    load(&token, words[1], "token");
    load(&location_token, words[1], "location-token");
    load(&location, words[1], "location");
    tls = count == 5 ? tls_of(words) : NULL;
    closes = strcmp(words[2], "resumed") == 0 || strcmp(words[2], "full") == 0;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    if (listener < 0 || bind(listener, (struct sockaddr *)&address, size) != 0 ||
        listen(listener, 128) != 0 ||
        getsockname(listener, (struct sockaddr *)&address, &size) != 0) {
        die("socket");
    }
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);
    pthread_attr_t detached;
    pthread_t thread;
    pthread_attr_init(&detached);
    pthread_attr_setdetachstate(&detached, PTHREAD_CREATE_DETACHED);
    pthread_create(&thread, &detached, report, NULL);
    for (;;) {
        int socket = accept(listener, NULL, NULL);
        if (socket >= 0) {
            connections++;
            pthread_create(&thread, &detached, serve, (void *)(long)socket);
        }
    }
}
