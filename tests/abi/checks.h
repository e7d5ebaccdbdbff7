/* Helpers of the C tests. */
#ifndef GHL_TESTS_CHECKS_H
#define GHL_TESTS_CHECKS_H

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ghl_oauth.h"

#define CHECK(condition)                                                                        \
    do {                                                                                        \
        if (!(condition)) {                                                                     \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition);             \
            abort();                                                                            \
        }                                                                                       \
    } while (0)

/* Runs a function on several threads at once, each with its own number. */
typedef struct {
    void (*work)(int number);
    int number;
} ghl_test_thread;

static inline void *ghl_test_run(void *context) {
    ghl_test_thread *thread = context;
    thread->work(thread->number);
    return NULL;
}

#define MOST_THREADS 16

/* Runs `meanwhile`, if any, on this thread at the same time. */
static inline void in_parallel(int count, void (*work)(int number), void (*meanwhile)(void)) {
    pthread_t handles[MOST_THREADS];
    ghl_test_thread threads[MOST_THREADS];
    CHECK(count <= MOST_THREADS);
    for (int i = 0; i < count; i++) {
        threads[i].work = work;
        threads[i].number = i;
        CHECK(pthread_create(&handles[i], NULL, ghl_test_run, &threads[i]) == 0);
    }
    if (meanwhile != NULL) {
        meanwhile();
    }
    for (int i = 0; i < count; i++) {
        CHECK(pthread_join(handles[i], NULL) == 0);
    }
}

/* A counter shared by several threads. */
typedef struct {
    pthread_mutex_t mutex;
    int value;
} ghl_test_count;

#define GHL_TEST_COUNT {PTHREAD_MUTEX_INITIALIZER, 0}

static inline int add(ghl_test_count *count, int more) {
    CHECK(pthread_mutex_lock(&count->mutex) == 0);
    int value = count->value += more;
    CHECK(pthread_mutex_unlock(&count->mutex) == 0);
    return value;
}

#endif
