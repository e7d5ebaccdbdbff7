/*
 * Calls during a storm of signals whose handler does not restart system calls, and programs that
 * are started meanwhile. argv[1] is a configuration, argv[2] tokens to import, argv[3] a company.
 */
#include <signal.h>
#include <spawn.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include "checks.h"

#define ROUNDS 40

extern char **environ;

/* In POSIX until 2001; headers hide it from later programs. */
pid_t vfork(void);

static ghl_client *client;
static const char *company;
static ghl_test_count refreshed = GHL_TEST_COUNT;
static volatile sig_atomic_t signals;

static void count_signal(int number) {
    (void)number;
    /* Functions without a client that only read constants may be called here. */
    signals += ghl_abi_version() >= 1 && ghl_version()[0] != '\0' && ghl_status_name(0)[0] != '\0';
}

static void refresh(int number) {
    CHECK(number == 0);
    for (int i = 0; i < ROUNDS; i++) {
        CHECK(ghl_token_refresh(client, company, NULL) == GHL_OK);
        CHECK(ghl_tokens_list(client, "{}", NULL) == GHL_OK);
        add(&refreshed, 1);
    }
}

static void succeeded(pid_t child) {
    int status;
    while (waitpid(child, &status, 0) != child) {
    }
    CHECK(child > 0 && status == 0);
}

/* The arguments of a program that fails if it has inherited more than three descriptors. */
static char *const PROGRAM[] = {"/bin/sh", "-c", "test \"$(ls /proc/self/fd | wc -l)\" -le 4",
                                NULL};

static void start_programs(void) {
    while (add(&refreshed, 0) < ROUNDS) {
        pid_t child;
        CHECK(posix_spawn(&child, PROGRAM[0], NULL, NULL, PROGRAM, environ) == 0);
        succeeded(child);
        child = vfork();
        if (child == 0) {
            execv(PROGRAM[0], PROGRAM);
            _exit(127);
        }
        succeeded(child);
    }
}

int main(int argc, char **argv) {
    CHECK(argc == 4);
    company = argv[3];
    for (int i = 3; i < 1024; i++) {
        close(i);
    }
    CHECK(ghl_client_new(argv[1], &client, NULL) == GHL_OK);
    CHECK(ghl_tokens_import(client, argv[2], NULL) == GHL_OK);
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = count_signal;
    CHECK(sigaction(SIGALRM, &action, NULL) == 0);
    const struct itimerval every = {{0, 2000}, {0, 2000}};
    CHECK(setitimer(ITIMER_REAL, &every, NULL) == 0);
    in_parallel(1, refresh, start_programs);
    const struct itimerval never = {{0, 0}, {0, 0}};
    CHECK(setitimer(ITIMER_REAL, &never, NULL) == 0);
    CHECK(signals > 0);
    ghl_client_free(client);
    puts("passed");
    return 0;
}
