/* Helpers of the programs with typed structs. */
#ifndef GHL_TESTS_TYPED_H
#define GHL_TESTS_TYPED_H

#include "checks.h"
#include "ghl_oauth_typed.h"

static ghl_error error;

#define OK(call)                                                                         \
    do {                                                                                 \
        int32_t got = (call);                                                            \
        if (got != GHL_OK) {                                                             \
            fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__, ghl_status_name(got), \
                    error.message);                                                      \
            exit(1);                                                                     \
        }                                                                                \
    } while (0)

/* Passes the consent link to the program that simulates the person; redirect_url receives the
 * redirect URL. */
static inline void consent(const char *person, const char *url, char *redirect_url, size_t size) {
    char command[4096];
    CHECK(strchr(url, '\'') == NULL);
#ifdef _WIN32
    const char *quoted = "%s \"%s\"";
#else
    const char *quoted = "%s '%s'";
#endif
    CHECK((size_t)snprintf(command, sizeof command, quoted, person, url) < sizeof command);
    FILE *answer = popen(command, "r");
    CHECK(answer != NULL && fgets(redirect_url, (int)size, answer) != NULL);
    CHECK(pclose(answer) == 0);
    redirect_url[strcspn(redirect_url, "\r\n")] = '\0';
}

#endif
