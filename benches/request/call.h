/* What both programs share: their command line, their threads, and the time that their calls took. */
#ifndef CALL_H
#define CALL_H

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/*
 * PROGRAM CALL CALLS THREADS CONFIGURATION TOKENS COMPANY_ID LOCATION_ID...
 * TOKENS as ghl_tokens_import takes them: the company's first, then those of the locations, in their order. Thread n
 * works for location n alone.
 */
struct task {
    const char *call;
    long calls;
    int threads;
    const char *config, *tokens, *company_id;
    char **location_ids;
    int locations;
};

/* What one thread works with; each program has its own. */
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
    return (struct task){words[1], atol(words[2]), atoi(words[3]), words[4], words[5], words[6], words + 7, count - 7};
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
    /* The first opens the connection. */
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
 * Makes the calls, each thread its own, and prints in microseconds: the median of a call, how long all of them took by
 * the number of calls, and the processor's time for a call.
 */
static inline void repeat(const struct task *task) {
    long all = task->threads * task->calls;
    double *times = calloc((size_t)all, sizeof *times);
    struct thread *threads = calloc((size_t)task->threads, sizeof *threads);
    pthread_barrier_t ready;
    if (times == NULL || threads == NULL || pthread_barrier_init(&ready, NULL, (unsigned)task->threads + 1) != 0) {
        die("memory", NULL);
    }
    for (int i = 0; i < task->threads; i++) {
        threads[i] = (struct thread){.task = task, .number = i, .times = times + i * task->calls, .ready = &ready};
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
