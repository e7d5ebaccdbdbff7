/*
 * Annotations for ThreadSanitizer: the Rust standard library is compiled without it. The inlined
 * parts of its locks are instrumented, the blocking parts are not. The linker therefore wraps each
 * blocking function, and the wrapper reports acquire and release to the sanitizer. The macros
 * contain the symbol names of this build.
 * Every argument fits into a register, and there are at most six.
 */
#define WRAPPED(name) name(void *self, long b, long c, long d, long e, long f)

void __tsan_acquire(void *address);
void __tsan_release(void *address);

/* A function that returns with the lock held. */
#define TAKES(wrap, real)                                                                       \
    long WRAPPED(real);                                                                         \
    long WRAPPED(wrap) {                                                                        \
        long result = real(self, b, c, d, e, f);                                                \
        __tsan_acquire(self);                                                                   \
        return result;                                                                          \
    }

/* A function that releases the lock in its second argument while it waits. */
#define WAITS(wrap, real)                                                                       \
    long WRAPPED(real);                                                                         \
    long WRAPPED(wrap) {                                                                        \
        __tsan_release((void *)b);                                                              \
        long result = real(self, b, c, d, e, f);                                                \
        __tsan_acquire((void *)b);                                                              \
        return result;                                                                          \
    }

/*
 * A function that runs a closure once. The release must happen before the waiters wake, so inside
 * the closure, a `&mut dyn FnMut`. Its data is the third argument, and its vtable the fourth:
 * destructor, size, alignment and the two call entries. The last one is used.
 */
enum { CALL = 4, ENTRIES };

struct done_once {
    long data;
    const long *table;
    void *once;
};

static void call_and_release(struct done_once *closure, void *state) {
    ((void (*)(long, void *))closure->table[CALL])(closure->data, state);
    __tsan_release(closure->once);
}

#define DOES_ONCE(wrap, real)                                                                   \
    long WRAPPED(real);                                                                         \
    long WRAPPED(wrap) {                                                                        \
        struct done_once closure = {c, (const long *)d, self};                                  \
        const long table[ENTRIES] = {0, sizeof closure, sizeof(long), 0, (long)call_and_release}; \
        long result = real(self, b, (long)&closure, (long)table, e, f);                         \
        __tsan_acquire(self);                                                                   \
        return result;                                                                          \
    }

TAKES(WRAP_MUTEX_LOCK, REAL_MUTEX_LOCK)
TAKES(WRAP_RWLOCK_READ, REAL_RWLOCK_READ)
TAKES(WRAP_RWLOCK_WRITE, REAL_RWLOCK_WRITE)
WAITS(WRAP_CONDVAR_WAIT, REAL_CONDVAR_WAIT)
WAITS(WRAP_CONDVAR_WAIT_TIMEOUT, REAL_CONDVAR_WAIT_TIMEOUT)
DOES_ONCE(WRAP_ONCE_CALL, REAL_ONCE_CALL)

/*
 * Arc releases its reference with a release, and only the last owner acquires, with a fence. The
 * sanitizer does not support fences, so here every release also acquires.
 */
enum { RELEASE = 3, ACQUIRE_AND_RELEASE = 4 };

long __real___tsan_atomic64_fetch_sub(volatile long *number, long less, int order);

long __wrap___tsan_atomic64_fetch_sub(volatile long *number, long less, int order) {
    return __real___tsan_atomic64_fetch_sub(number, less,
                                            order == RELEASE ? ACQUIRE_AND_RELEASE : order);
}
