/*
 * An agency's server in C: agency CONFIG-FILE PORT.
 *
 * Receives webhooks on 127.0.0.1:PORT. Each line of stdin is the redirect URL of a consent. At the
 * end of stdin the program makes a last call for every location and exits.
 */
#include <arpa/inet.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "ghl_oauth_typed.h"

enum { MOST_HEADERS = 64, LONGEST_REQUEST = 1 << 20 };

static ghl_client *client;
static int listener;

static void complain(const char *what, ghl_error *error) {
    fprintf(stderr, "%s: %s: %s\n", what, ghl_status_name(error->status), error->message);
    ghl_typed_error_clear(error);
}

/* ---- Webhooks ---- */

/* Reads one request. Returns its body, or NULL if the connection ends early. */
static char *read_request(int connection, char *text, ghl_header *headers, size_t *header_count,
                          size_t *body_length) {
    size_t size = 0;
    char *body = NULL;
    *header_count = *body_length = 0;
    while (body == NULL || (size_t)(text + size - body) < *body_length) {
        ssize_t count =
            size < LONGEST_REQUEST ? recv(connection, text + size, LONGEST_REQUEST - size, 0) : 0;
        if (count <= 0) {
            return NULL;
        }
        size += (size_t)count;
        text[size] = '\0';
        char *end = body == NULL ? strstr(text, "\r\n\r\n") : NULL;
        if (end == NULL) {
            continue;
        }
        body = end + 4;
        *end = '\0';
        for (char *line = strstr(text, "\r\n"); line != NULL && *header_count < MOST_HEADERS;) {
            char *name = line + 2, *colon = strchr(name, ':');
            line = strstr(name, "\r\n");
            if (line != NULL) {
                *line = '\0';
            }
            if (colon == NULL) {
                continue;
            }
            *colon = '\0';
            char *value = colon + 1 + strspn(colon + 1, " ");
            if (strcasecmp(name, "content-length") == 0) {
                *body_length = strtoul(value, NULL, 10);
            }
            headers[*header_count].name = name;
            headers[*header_count].value = value;
            ++*header_count;
        }
    }
    return body;
}

static int answer(const char *body, size_t length, const ghl_header *headers, size_t header_count) {
    ghl_webhook_outcome outcome;
    ghl_error error;
    if (ghl_typed_webhook_apply(client, body, length, headers, header_count, &outcome, &error) ==
        GHL_OK) {
        ghl_typed_webhook_outcome_clear(&outcome);
        return 200;
    }
    int status = error.status == GHL_ERR_SIGNATURE_INVALID ? 401 : error.retryable ? 429 : 400;
    ghl_typed_error_clear(&error);
    return status;
}

static void *receive(void *context) {
    char *text = malloc(LONGEST_REQUEST + 1);
    ghl_header headers[MOST_HEADERS];
    int connection;
    while (text != NULL && (connection = accept(listener, NULL, NULL)) >= 0) {
        size_t header_count, length;
        char *body = read_request(connection, text, headers, &header_count, &length);
        if (body != NULL) {
            char reply[128];
            int size = snprintf(reply, sizeof reply,
                                "HTTP/1.1 %d -\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
                                answer(body, length, headers, header_count));
            if (send(connection, reply, (size_t)size, 0) < 0) {
                fprintf(stderr, "an answer was not sent\n");
            }
        }
        close(connection);
    }
    free(text);
    return context;
}

/* ---- Calls ---- */

static bool maintain(void) {
    ghl_maintain_report report;
    ghl_error error;
    if (ghl_typed_tokens_maintain(client, NULL, 0, NULL, NULL, &report, &error) != GHL_OK) {
        complain("maintenance", &error);
        return false;
    }
    ghl_typed_maintain_report_clear(&report);
    return true;
}

/* Makes a call for each location, and prints the results if `tell`. Returns whether to retry. */
static bool visit_all(bool tell) {
    ghl_token_query query = {.user_type = "Location", .page_size = 1000};
    ghl_token_info_page page;
    ghl_error error;
    if (ghl_typed_tokens_list(client, &query, &page, &error) != GHL_OK) {
        complain("the list", &error);
        return true;
    }
    bool again = false;
    for (size_t i = 0; i < page.count; i++) {
        const char *id = page.items[i].resource_id;
        char path[256];
        snprintf(path, sizeof path, "/locations/%s", id);
        ghl_api_request request = {.method = "GET", .path = path, .resource_id = id};
        ghl_api_response response;
        if (ghl_typed_request(client, &request, &response, &error) == GHL_OK) {
            again =
                again || response.status == 401 || response.status == 429 || response.status >= 500;
            if (tell) {
                printf("visited %s %d\n", id, (int)response.status);
            }
            ghl_typed_api_response_clear(&response);
        } else if (error.status == GHL_ERR_LOCATION_INACTIVE) {
            ghl_typed_error_clear(&error); /* paused by its agency; its token is kept */
        } else {
            again = again || error.retryable;
            complain(id, &error);
        }
    }
    ghl_typed_token_info_page_clear(&page);
    return again;
}

static bool show_link(void) {
    ghl_authorization_link link;
    ghl_error error;
    if (ghl_typed_authorization_url(client, NULL, &link, &error) != GHL_OK) {
        complain("the link", &error);
        return false;
    }
    printf("link %s\n", link.url);
    fflush(stdout);
    ghl_typed_link_clear(&link);
    return true;
}

static bool connect_company(const char *redirect_url) {
    ghl_token_info company;
    ghl_error error;
    if (ghl_typed_authorization_complete(client, redirect_url, NULL, &company, &error) != GHL_OK) {
        complain("the consent", &error);
        return false;
    }
    ghl_mint_request request = {.company_id = company.resource_id, .installed = true};
    ghl_mint_report minted;
    if (ghl_typed_tokens_mint(client, &request, NULL, NULL, &minted, &error) == GHL_OK) {
        ghl_typed_mint_report_clear(&minted);
    } else {
        complain("minting", &error);
    }
    printf("connected %s\n", company.resource_id);
    ghl_typed_token_info_clear(&company);
    return show_link();
}

static bool serve(void) {
    char line[4096];
    size_t size = 0;
    if (!show_link()) {
        return false;
    }
    for (;;) {
        struct pollfd input = {0, POLLIN, 0};
        if (poll(&input, 1, 500) == 0) {
            maintain();
            visit_all(false);
            continue;
        }
        ssize_t count = size < sizeof line - 1 ? read(0, line + size, sizeof line - 1 - size) : 0;
        if (count <= 0) {
            break;
        }
        size += (size_t)count;
        line[size] = '\0';
        char *end = strchr(line, '\n');
        if (end != NULL) {
            *end = '\0';
            size = 0;
            if (!connect_company(line)) {
                return false;
            }
        }
    }
    time_t end = time(NULL) + 90;
    while (!maintain() || (visit_all(false) && time(NULL) < end)) {
        nanosleep(&(struct timespec){.tv_sec = 1}, NULL);
    }
    visit_all(true);
    return true;
}

int main(int argc, char **argv) {
    static char config[16384];
    FILE *file = argc == 3 ? fopen(argv[1], "r") : NULL;
    if (file == NULL) {
        fprintf(stderr, "usage: %s CONFIG-FILE PORT\n", argv[0]);
        return 2;
    }
    config[fread(config, 1, sizeof config - 1, file)] = '\0';
    fclose(file);
    char *document;
    ghl_error error;
    int32_t status = ghl_client_new(config, &client, &document);
    if (status != GHL_OK) {
        ghl_typed_error(status, document, &error);
        complain("the configuration", &error);
        return 1;
    }
    ghl_string_free(document);

    struct sockaddr_in address = {.sin_family = AF_INET};
    address.sin_port = htons((uint16_t)atoi(argv[2]));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    listener = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &(int){1}, sizeof(int));
    pthread_t receiver;
    if (bind(listener, (struct sockaddr *)&address, sizeof address) != 0 ||
        listen(listener, 64) != 0 || pthread_create(&receiver, NULL, receive, NULL) != 0) {
        fprintf(stderr, "the port cannot be listened on\n");
        return 1;
    }
    bool done = serve();
    shutdown(listener, SHUT_RDWR);
    pthread_join(receiver, NULL);
    ghl_client_free(client);
    return done ? 0 : 1;
}
