/* Shared code of the C programs: command line, concurrent callers, and JSON of the result. */
#ifndef CALLERS_H
#define CALLERS_H

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cjson/cJSON.h>

#define TOKEN_SIZE 4096

static const cJSON *task;

static inline void die(const char *what, const char *why) {
    fprintf(stderr, "%s: %s\n", what, why == NULL ? "" : why);
    exit(1);
}

static inline const char *text(const cJSON *object, const char *name) {
    const char *value = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(object, name));
    if (value == NULL) {
        die("missing", name);
    }
    return value;
}

static inline long number(const char *name) {
    return (long)cJSON_GetNumberValue(cJSON_GetObjectItemCaseSensitive(task, name));
}

static inline double seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static inline int ascending(const void *left, const void *right) {
    double a = *(const double *)left, b = *(const double *)right;
    return (a > b) - (a < b);
}

static inline void print_median(double *times, size_t count) {
    qsort(times, count, sizeof *times, ascending);
    printf("{\"us\": %.4f}\n", times[count / 2] * 1e6);
}

/* The median of 11 runs of the calls. */
static inline void live(void (*call)(void)) {
    double runs[11];
    long calls = number("calls");
    for (int run = 0; run < 11; run++) {
        double began = seconds();
        for (long i = 0; i < calls; i++) {
            call();
        }
        runs[run] = (seconds() - began) / (double)calls;
    }
    print_median(runs, 11);
}

static inline void repeat(void (*call)(void)) {
    long calls = number("calls");
    double *times = calloc((size_t)calls, sizeof *times);
    if (times == NULL) {
        die("memory", NULL);
    }
    for (long i = 0; i < calls; i++) {
        double began = seconds();
        call();
        times[i] = seconds() - began;
    }
    print_median(times, (size_t)calls);
    free(times);
}

struct caller {
    pthread_t thread;
    int (*get)(char *token);
    int has_token;
    char token[TOKEN_SIZE];
};

static inline void *run_caller(void *place) {
    struct caller *caller = place;
    caller->has_token = caller->get(caller->token);
    return NULL;
}

/* Starts concurrent callers for each line of the input. `get` writes a token and returns whether it
 * succeeded. */
static inline void ask(int (*get)(char *token)) {
    long count = number("callers");
    char line[16];
    printf("ready\n");
    fflush(stdout);
    while (fgets(line, sizeof line, stdin) != NULL) {
        struct caller *callers = calloc((size_t)count, sizeof *callers);
        if (callers == NULL) {
            die("memory", NULL);
        }
        double began = seconds();
        for (long i = 0; i < count; i++) {
            callers[i].get = get;
            pthread_create(&callers[i].thread, NULL, run_caller, &callers[i]);
        }
        for (long i = 0; i < count; i++) {
            pthread_join(callers[i].thread, NULL);
        }
        double took = seconds() - began;
        const char *comma = "";
        printf("{\"ms\": %.3f, \"tokens\": [", took * 1e3);
        for (long i = 0; i < count; i++) {
            if (callers[i].has_token) {
                printf("%s\"%s\"", comma, callers[i].token);
                comma = ", ";
            }
        }
        printf("]}\n");
        fflush(stdout);
        free(callers);
    }
}

static inline const char *read_task(int count, char **words) {
    if (count != 3 || (task = cJSON_Parse(words[2])) == NULL) {
        die("usage", "PROGRAM QUESTION TASK");
    }
    return words[1];
}

#endif
