/* Records every change below a folder in the order in which the disk sees it. Loaded by LD_PRELOAD.
 *
 * RECORDER_ROOT is the folder, RECORDER_LOG the log, and RECORDER_MARKS a file outside of the
 * folder: data written to it appears in the log between the changes. A record is a line, followed
 * by the number of bytes given in the line:
 *
 *   create INODE PATH    write INODE OFFSET LENGTH    truncate INODE LENGTH    sync INODE
 *   rename FROM TO       unlink PATH                  mkdir PATH               syncdir PATH
 *   mark LENGTH
 *
 * Paths are relative to the folder and contain no blanks. An operation and its record are one step
 * under a mutex. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum { MOST_FILES = 4096, MOST_PATH = 4096 };

enum kind { OTHER, FILE_BELOW, FOLDER_BELOW, MARKS };

static struct {
    enum kind kind;
    unsigned long inode;
    char *path;
} table[MOST_FILES];

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static const char *root, *marks;
static int log_file = -1;

#define NEXT(name) __typeof__(&name) next = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

__attribute__((constructor)) static void begin(void) {
    int (*plain_open)(const char *, int, ...) =
        (int (*)(const char *, int, ...))dlsym(RTLD_NEXT, "open");
    root = getenv("RECORDER_ROOT");
    marks = getenv("RECORDER_MARKS");
    const char *name = getenv("RECORDER_LOG");
    if (root == NULL || marks == NULL || name == NULL)
        abort();
    log_file = plain_open(name, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (log_file < 0)
        abort();
}

static void record(const void *data, size_t length, const char *format, ...) {
    char line[2 * MOST_PATH + 64];
    va_list arguments;
    va_start(arguments, format);
    int size = vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    struct iovec parts[2] = {{line, (size_t)size}, {(void *)data, length}};
    if (writev(log_file, parts, 2) != (ssize_t)((size_t)size + length))
        abort();
}

/* The path relative to the folder, or NULL for a path outside of it. */
static const char *below(const char *path) {
    if (root == NULL || path == NULL)
        return NULL;
    size_t length = strlen(root);
    if (strncmp(path, root, length) != 0 || (path[length] != '/' && path[length] != '\0'))
        return NULL;
    return path[length] == '/' ? path + length + 1 : path + length;
}

static int opened(const char *path, int flags, int was_there, int file) {
    if (file < 0 || file >= MOST_FILES)
        return file;
    const char *inside = below(path);
    struct stat about;
    if (marks != NULL && path != NULL && strcmp(path, marks) == 0) {
        table[file].kind = MARKS;
    } else if (inside != NULL && fstat(file, &about) == 0) {
        table[file].kind = S_ISDIR(about.st_mode) ? FOLDER_BELOW : FILE_BELOW;
        table[file].inode = about.st_ino;
        free(table[file].path);
        table[file].path = strdup(inside);
        if (table[file].kind == FILE_BELOW && (flags & O_CREAT) != 0 && !was_there)
            record(NULL, 0, "create %lu %s\n", table[file].inode, inside);
        else if (table[file].kind == FILE_BELOW && (flags & O_TRUNC) != 0)
            record(NULL, 0, "truncate %lu 0\n", table[file].inode);
    }
    return file;
}

#define OPENS(name, parameters, call)                         \
    int name parameters {                                     \
        NEXT(name);                                           \
        mode_t mode = 0;                                      \
        if ((flags & O_CREAT) != 0) {                         \
            va_list arguments;                                \
            va_start(arguments, flags);                       \
            mode = va_arg(arguments, mode_t);                 \
            va_end(arguments);                                \
        }                                                     \
        pthread_mutex_lock(&mutex);                           \
        int was_there = access(path, F_OK) == 0;              \
        int file = opened(path, flags, was_there, next call); \
        int error = errno;                                    \
        pthread_mutex_unlock(&mutex);                         \
        errno = error;                                        \
        return file;                                          \
    }

OPENS(open, (const char *path, int flags, ...), (path, flags, mode))
OPENS(open64, (const char *path, int flags, ...), (path, flags, mode))
OPENS(openat, (int folder, const char *path, int flags, ...), (folder, path, flags, mode))
OPENS(openat64, (int folder, const char *path, int flags, ...), (folder, path, flags, mode))

int close(int file) {
    NEXT(close);
    if (file >= 0 && file < MOST_FILES && table[file].kind != OTHER) {
        pthread_mutex_lock(&mutex);
        table[file].kind = OTHER;
        pthread_mutex_unlock(&mutex);
    }
    return next(file);
}

static int is_known(int file) {
    return file >= 0 && file < MOST_FILES && table[file].kind != OTHER;
}

static void wrote(int file, long long offset, const void *data, ssize_t length) {
    if (length <= 0)
        return;
    if (table[file].kind == MARKS)
        record(data, (size_t)length, "mark %zd\n", length);
    else
        record(data, (size_t)length, "write %lu %lld %zd\n", table[file].inode, offset, length);
}

ssize_t write(int file, const void *data, size_t length) {
    NEXT(write);
    if (!is_known(file))
        return next(file, data, length);
    pthread_mutex_lock(&mutex);
    int flags = fcntl(file, F_GETFL);
    off_t offset = lseek(file, 0, (flags & O_APPEND) != 0 ? SEEK_END : SEEK_CUR);
    ssize_t written = next(file, data, length);
    wrote(file, offset, data, written);
    pthread_mutex_unlock(&mutex);
    return written;
}

#define PWRITES(name, type)                                                \
    ssize_t name(int file, const void *data, size_t length, type offset) { \
        NEXT(name);                                                        \
        if (!is_known(file))                                               \
            return next(file, data, length, offset);                       \
        pthread_mutex_lock(&mutex);                                        \
        ssize_t written = next(file, data, length, offset);                \
        wrote(file, offset, data, written);                                \
        pthread_mutex_unlock(&mutex);                                      \
        return written;                                                    \
    }

PWRITES(pwrite, off_t)
PWRITES(pwrite64, off64_t)

#define TRUNCATES(name, type)                                                             \
    int name(int file, type length) {                                                     \
        NEXT(name);                                                                       \
        if (!is_known(file))                                                              \
            return next(file, length);                                                    \
        pthread_mutex_lock(&mutex);                                                       \
        int result = next(file, length);                                                  \
        if (result == 0)                                                                  \
            record(NULL, 0, "truncate %lu %lld\n", table[file].inode, (long long)length); \
        pthread_mutex_unlock(&mutex);                                                     \
        return result;                                                                    \
    }

TRUNCATES(ftruncate, off_t)
TRUNCATES(ftruncate64, off64_t)

#define SYNCS(name)                                            \
    int name(int file) {                                       \
        NEXT(name);                                            \
        if (!is_known(file))                                   \
            return next(file);                                 \
        pthread_mutex_lock(&mutex);                            \
        int result = next(file);                               \
        if (result == 0 && table[file].kind == FOLDER_BELOW)   \
            record(NULL, 0, "syncdir %s\n", table[file].path); \
        else if (result == 0)                                  \
            record(NULL, 0, "sync %lu\n", table[file].inode);  \
        pthread_mutex_unlock(&mutex);                          \
        return result;                                         \
    }

SYNCS(fsync)
SYNCS(fdatasync)

int rename(const char *from, const char *to) {
    NEXT(rename);
    pthread_mutex_lock(&mutex);
    int result = next(from, to);
    int error = errno;
    if (result == 0 && below(from) != NULL && below(to) != NULL)
        record(NULL, 0, "rename %s %s\n", below(from), below(to));
    pthread_mutex_unlock(&mutex);
    errno = error;
    return result;
}

int unlink(const char *path) {
    NEXT(unlink);
    pthread_mutex_lock(&mutex);
    int result = next(path);
    int error = errno;
    if (result == 0 && below(path) != NULL)
        record(NULL, 0, "unlink %s\n", below(path));
    pthread_mutex_unlock(&mutex);
    errno = error;
    return result;
}

int mkdir(const char *path, mode_t mode) {
    NEXT(mkdir);
    pthread_mutex_lock(&mutex);
    int result = next(path, mode);
    int error = errno;
    if (result == 0 && below(path) != NULL)
        record(NULL, 0, "mkdir %s\n", below(path));
    pthread_mutex_unlock(&mutex);
    errno = error;
    return result;
}
