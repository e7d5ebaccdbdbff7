/* Shared code of both programs: command line, threads, and timing of the calls. */
#ifndef CALL_H
#define CALL_H

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/*
 * PROGRAM CALL CALLS THREADS CONFIGURATION TOKENS COMPANY_ID LOCATION_ID...
 * TOKENS in the format of ghl_tokens_import: the token of the company first, then the tokens of the
 * locations in order. Thread n uses only location n.
 */
struct task {
    const char *call;
    long calls;
    int threads;
    const char *config, *tokens, *company_id;
    char **location_ids;
    int locations;
};

/* The state of one thread; each program defines its own. */
struct caller;
static struct caller *caller_new(const struct task *task, int number);
static void caller_call(struct caller *caller);
static void caller_free(struct caller *caller);

static inline void die(const char *what, const char *why) {
    fprintf(stderr, "%s: %s\n", what, why == NULL ? "" : why);
    exit(1);
}

static inline struct task task(int count, char **words) {
    if (count < 8 || atoi(words[3]) < 1 || atoi(words[3]) > count - 7) {
        die("usage", "PROGRAM CALL CALLS THREADS CONFIGURATION TOKENS COMPANY_ID LOCATION_ID...");
    }
    return (struct task){words[1], atol(words[2]), atoi(words[3]), words[4],
                         words[5], words[6],       words + 7,      count - 7};
}

static inline double microseconds(clockid_t clock) {
    struct timespec now;
    clock_gettime(clock, &now);
    return (double)now.tv_sec * 1e6 + (double)now.tv_nsec / 1e3;
}

static inline int ascending(const void *left, const void *right) {
    double a = *(const double *)left, b = *(const double *)right;
    return (a > b) - (a < b);
}

struct thread {
    pthread_t id;
    const struct task *task;
    int number;
    double *times;
    pthread_barrier_t *ready;
};

static inline void *make_calls(void *of) {
    struct thread *thread = of;
    struct caller *caller = caller_new(thread->task, thread->number);
    /* The first call opens the connection. */
    caller_call(caller);
    pthread_barrier_wait(thread->ready);
    for (long i = 0; i < thread->task->calls; i++) {
        double before = microseconds(CLOCK_MONOTONIC);
        caller_call(caller);
        thread->times[i] = microseconds(CLOCK_MONOTONIC) - before;
    }
    pthread_barrier_wait(thread->ready);
    caller_free(caller);
    return NULL;
}

/*
 * Makes the calls on all threads and prints in microseconds: the median of a call, the total time
 * divided by the number of calls, and the CPU time per call.
 */
static inline void repeat(const struct task *task) {
    long all = task->threads * task->calls;
    double *times = calloc((size_t)all, sizeof *times);
    struct thread *threads = calloc((size_t)task->threads, sizeof *threads);
    pthread_barrier_t ready;
    if (times == NULL || threads == NULL ||
        pthread_barrier_init(&ready, NULL, (unsigned)task->threads + 1) != 0) {
        die("memory", NULL);
    }
    for (int i = 0; i < task->threads; i++) {
        threads[i] = (struct thread){
            .task = task, .number = i, .times = times + i * task->calls, .ready = &ready};
        if (pthread_create(&threads[i].id, NULL, make_calls, &threads[i]) != 0) {
            die("pthread_create", NULL);
        }
    }
    pthread_barrier_wait(&ready);
    double began = microseconds(CLOCK_MONOTONIC), worked = microseconds(CLOCK_PROCESS_CPUTIME_ID);
    pthread_barrier_wait(&ready);
    double took = microseconds(CLOCK_MONOTONIC) - began;
    worked = microseconds(CLOCK_PROCESS_CPUTIME_ID) - worked;
    for (int i = 0; i < task->threads; i++) {
        pthread_join(threads[i].id, NULL);
    }
    qsort(times, (size_t)all, sizeof *times, ascending);
    printf("%.2f %.2f %.2f\n", times[all / 2], took / (double)all, worked / (double)all);
    pthread_barrier_destroy(&ready);
    free(threads);
    free(times);
}

#endif
