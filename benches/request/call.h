/* What both programs share: their command line, and the time that their calls took. */
#ifndef CALL_H
#define CALL_H

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

/* PROGRAM request|refresh CALLS CONFIGURATION RESOURCE_ID TOKEN */
struct task {
    int refreshes;
    long calls;
    const char *config, *resource_id, *token;
};

static inline void die(const char *what, const char *why) {
    fprintf(stderr, "%s: %s\n", what, why == NULL ? "" : why);
    exit(1);
}

static inline struct task task(int count, char **words) {
    if (count != 6) {
        die("usage", "PROGRAM request|refresh CALLS CONFIGURATION RESOURCE_ID TOKEN");
    }
    return (struct task){words[1][2] == 'f', atol(words[2]), words[3], words[4], words[5]};
}

static inline double microseconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e6 + (double)now.tv_nsec / 1e3;
}

static inline int ascending(const void *left, const void *right) {
    double a = *(const double *)left, b = *(const double *)right;
    return (a > b) - (a < b);
}

/* Makes the calls one after the other, and prints the median of their times. */
static inline void repeat(const struct task *task, void (*call)(void)) {
    double *times = calloc((size_t)task->calls, sizeof *times);
    if (times == NULL) {
        die("memory", NULL);
    }
    for (long i = 0; i < task->calls; i++) {
        double before = microseconds();
        call();
        times[i] = microseconds() - before;
    }
    qsort(times, (size_t)task->calls, sizeof *times, ascending);
    printf("%.2f\n", times[task->calls / 2]);
    free(times);
}

#endif
