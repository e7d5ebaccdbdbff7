/*
 * A process that may not start threads, or sees none of the system's files. argv[1] is "threads" or
 * "files", argv[2] a configuration, argv[3] tokens to import, argv[4] a company, argv[5] for
 * "files" the folder that becomes the root. Prints the status of each call.
 */
#define _DEFAULT_SOURCE

#include <errno.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <linux/filter.h>
#include <linux/seccomp.h>

#include "checks.h"

/* Lets `clone` and `clone3` fail with EPERM, as in a sandbox without threads. */
static void forbid_threads(void) {
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_clone, 1, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_clone3, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {sizeof filter / sizeof *filter, filter};
    CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
    CHECK(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0);
}

static void told(const char *name, int32_t status, char *document) {
    printf("%s %s\n", name, ghl_status_name(status));
    if (status != GHL_OK) {
        printf("%s\n", document);
    }
    ghl_string_free(document);
}

int main(int argc, char **argv) {
    CHECK(argc == 6);
    if (strcmp(argv[1], "threads") == 0) {
        forbid_threads();
    } else {
        CHECK(chroot(argv[5]) == 0 && chdir("/") == 0 && access("/proc", F_OK) != 0);
    }
    char *document, *token, params[256];
    ghl_client *client;
    int32_t status = ghl_client_new(argv[2], &client, &document);
    told("new", status, document);
    CHECK(status == GHL_OK);
    status = ghl_tokens_import(client, argv[3], &document);
    told("import", status, document);
    status = ghl_access_token(client, argv[4], &token, &document);
    ghl_string_free(token);
    told("token", status, document);
    status = ghl_token_refresh(client, argv[4], &document);
    told("refresh", status, document);
    status = ghl_tokens_maintain(client, "{}", NULL, NULL, &document);
    told("maintain", status, document);
    status = ghl_tokens_maintain(client, "{\"concurrency\": 4}", NULL, NULL, &document);
    told("concurrent", status, document);
    CHECK(snprintf(params, sizeof params,
                   "{\"companyId\": \"%s\", \"installed\": true, \"force\": true}", argv[4]) > 0);
    status = ghl_tokens_mint(client, params, NULL, NULL, &document);
    told("mint", status, document);
    ghl_client_free(client);
    return 0;
}
