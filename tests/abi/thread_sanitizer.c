/*
 * What ThreadSanitizer cannot see by itself: Rust's standard library comes compiled without it. The parts of its locks
 * that are inlined into the library are seen; those that wait are not. So each function that waits is wrapped by the
 * linker, and tells the sanitizer what it has taken or given. The macros hold the functions' names in this build.
 *
 * Each argument fits into a register, whatever it is, and so do all six.
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

/* One that gives the lock, its second argument, away for a while. */
#define WAITS(wrap, real)                                                                       \
    long WRAPPED(real);                                                                         \
    long WRAPPED(wrap) {                                                                        \
        __tsan_release((void *)b);                                                              \
        long result = real(self, b, c, d, e, f);                                                \
        __tsan_acquire((void *)b);                                                              \
        return result;                                                                          \
    }

/*
 * One that has something done once. What was done must be given away before the others are told, so by the closure
 * itself, a `&mut dyn FnMut`: it comes as its data, the third argument, and its table, the fourth, whose entries are the
 * destructor, the size, the alignment and the two ways to call it. The last one is the way taken.
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
 * Arc gives its share away by a release, and only the last owner acquires, by a fence. The sanitizer knows no fences, so
 * here each share that is given away acquires.
 */
enum { RELEASE = 3, ACQUIRE_AND_RELEASE = 4 };

long __real___tsan_atomic64_fetch_sub(volatile long *number, long less, int order);

long __wrap___tsan_atomic64_fetch_sub(volatile long *number, long less, int order) {
    return __real___tsan_atomic64_fetch_sub(number, less, order == RELEASE ? ACQUIRE_AND_RELEASE : order);
}
