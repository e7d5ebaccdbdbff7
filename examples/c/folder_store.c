/*
 * A custom store: tokens in plain files, one per record, shared by any number of processes.
 *
 *     cc examples/c/folder_store.c bindings/c/ghl_oauth_typed.c -Iinclude -Ibindings/c \
 *         -Ltarget/release -Wl,-rpath,$PWD/target/release -lghl_oauth
 *     ./a.out CONFIG FOLDER connect             prints a link, reads the redirect URL
 *     ./a.out CONFIG FOLDER token RESOURCE      prints a valid token
 *     ./a.out CONFIG FOLDER list | delete RESOURCE | maintain
 *
 * The configuration is JSON; with {"store": {"kind": "callbacks", "encryptionKeys": ["..."]}} the
 * files are sealed. Each file starts with the version of the record on its own line, so that the
 * store needs no JSON parser.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "ghl_oauth_typed.h"

#define LONGEST_PATH 4096
#define FAILED 1000 /* any number that is not a GHL_ code */

/* A refresh lock held by this process: unlocking needs its descriptor. */
typedef struct held_lock {
    struct held_lock *next;
    int descriptor;
    char id[];
} held_lock;

typedef struct {
    const char *folder;
    pthread_mutex_t mutex;
    held_lock *locks;
} folder_store;

/* FOLDER/PREFIX<id in hex>SUFFIX: IDs are external input, and hex is always a valid file name. Ids
 * of the API have 20 bytes; more than 120 bytes are too long for a file name. */
static bool path_of(const folder_store *store, const char *prefix, const char *id,
                    const char *suffix, char *path) {
    int length = snprintf(path, LONGEST_PATH, "%s/%s", store->folder, prefix);
    for (const unsigned char *byte = (const unsigned char *)id;
         *byte != '\0' && length < LONGEST_PATH; byte++) {
        length += snprintf(path + length, LONGEST_PATH - (size_t)length, "%02x", *byte);
    }
    if (length < LONGEST_PATH) {
        length += snprintf(path + length, LONGEST_PATH - (size_t)length, "%s", suffix);
    }
    return length < LONGEST_PATH;
}

/* The whole file as a text, or NULL; errno is ENOENT if it does not exist. */
static char *read_file(const char *path) {
    FILE *file = fopen(path, "rb");
    if (file == NULL) {
        return NULL;
    }
    char *text = NULL;
    struct stat status;
    if (fstat(fileno(file), &status) == 0 &&
        (text = calloc(1, (size_t)status.st_size + 1)) != NULL &&
        fread(text, 1, (size_t)status.st_size, file) != (size_t)status.st_size) {
        free(text);
        text = NULL;
        errno = EIO;
    }
    fclose(file);
    return text;
}

/* A descriptor of a lock file that is never removed: a process that waits for an unlinked file
 * would wait for another lock. */
static int open_lock(const char *path) {
    return open(path, O_CREAT | O_RDWR | O_CLOEXEC, 0600);
}

/* Excludes other saves between the version check and the write. */
static int lock_saves(const folder_store *store) {
    char path[LONGEST_PATH];
    int lock = path_of(store, "saves", "", ".lock", path) ? open_lock(path) : -1;
    if (lock >= 0 && flock(lock, LOCK_EX) != 0) {
        close(lock);
        lock = -1;
    }
    return lock;
}

static int32_t store_load(void *context, const char *id, char **out_record) {
    char path[LONGEST_PATH];
    if (!path_of(context, "", id, ".record", path)) {
        return FAILED;
    }
    char *text = read_file(path);
    if (text == NULL && errno != ENOENT) {
        *out_record = strdup(strerror(errno));
        return FAILED;
    }
    if (text != NULL) {
        const char *record = strchr(text, '\n');
        *out_record = record == NULL ? NULL : strdup(record + 1);
        free(text);
        return *out_record == NULL ? FAILED : GHL_OK;
    }
    return GHL_OK;
}

/* The entries of the folder survive a power cut only after an fsync of the folder itself. */
static bool sync_folder(const folder_store *store) {
    int folder = open(store->folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    bool durable = folder >= 0 && fsync(folder) == 0;
    if (folder >= 0) {
        close(folder);
    }
    return durable;
}

/* Writes a new file and renames it over the old one: after a power cut one of them is complete. */
static bool replace_file(const folder_store *store, const char *path, uint64_t version,
                         const char *record) {
    char beside[LONGEST_PATH];
    if (!path_of(store, "new", "", ".tmp", beside)) {
        return false;
    }
    int file = open(beside, O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0600);
    FILE *stream = file < 0 ? NULL : fdopen(file, "wb");
    if (stream == NULL) {
        return false;
    }
    bool written = fprintf(stream, "%llu\n%s", (unsigned long long)version, record) > 0 &&
                   fflush(stream) == 0 && fsync(file) == 0;
    written = fclose(stream) == 0 && written;
    return written && rename(beside, path) == 0 && sync_folder(store);
}

static int32_t store_save(void *context, const char *id, const char *record,
                          uint64_t expected_version) {
    char path[LONGEST_PATH];
    int lock = path_of(context, "", id, ".record", path) ? lock_saves(context) : -1;
    if (lock < 0) {
        return FAILED;
    }
    int32_t outcome = FAILED;
    char *stored = read_file(path);
    if (stored != NULL || errno == ENOENT) {
        uint64_t version = stored == NULL ? 0 : strtoull(stored, NULL, 10);
        if (version != expected_version) {
            outcome = GHL_ERR_CONFLICT;
        } else if (replace_file(context, path, expected_version + 1, record)) {
            outcome = GHL_OK;
        }
    }
    free(stored);
    close(lock); /* also unlocks */
    return outcome;
}

static int32_t store_remove(void *context, const char *id) {
    char path[LONGEST_PATH];
    int lock = path_of(context, "", id, ".record", path) ? lock_saves(context) : -1;
    if (lock < 0) {
        return FAILED;
    }
    bool removed = unlink(path) == 0 ? sync_folder(context) : errno == ENOENT;
    close(lock);
    return removed ? GHL_OK : FAILED;
}

/* Returns every record for any query: the library filters them. */
static int32_t store_list(void *context, const char *query, char **out_page) {
    const folder_store *store = context;
    (void)query;
    size_t length;
    FILE *page = open_memstream(out_page, &length);
    DIR *folder = opendir(store->folder);
    int32_t outcome = page != NULL && folder != NULL ? GHL_OK : FAILED;
    const char *separator = "{\"items\":[";
    for (struct dirent *entry; outcome == GHL_OK && (errno = 0, entry = readdir(folder)) != NULL;) {
        const char *ending = strrchr(entry->d_name, '.');
        if (ending == NULL || strcmp(ending, ".record") != 0) {
            continue;
        }
        char path[LONGEST_PATH];
        snprintf(path, sizeof path, "%s/%s", store->folder, entry->d_name);
        char *text = read_file(path);
        const char *record = text == NULL ? NULL : strchr(text, '\n');
        if (record != NULL) {
            fprintf(page, "%s%s", separator, record + 1);
            separator = ",";
        } else if (text != NULL || errno != ENOENT) { /* unless it was removed meanwhile */
            outcome = FAILED;
        }
        free(text);
    }
    if (outcome == GHL_OK && errno != 0) { /* readdir failed */
        outcome = FAILED;
    }
    if (folder != NULL) {
        closedir(folder);
    }
    if (page != NULL) {
        fprintf(page, "%s],\"nextPageToken\":null}", *separator == ',' ? "" : separator);
        outcome = fclose(page) == 0 ? outcome : FAILED;
    }
    if (outcome != GHL_OK) { /* a partial page is not an error text */
        free(*out_page);
        *out_page = NULL;
    }
    return outcome;
}

static int32_t store_lock(void *context, const char *id, uint64_t timeout_ms) {
    folder_store *store = context;
    char path[LONGEST_PATH];
    held_lock *held = malloc(sizeof *held + strlen(id) + 1);
    int lock = held != NULL && path_of(store, "", id, ".lock", path) ? open_lock(path) : -1;
    if (lock < 0) {
        free(held);
        return FAILED;
    }
    while (flock(lock, LOCK_EX | LOCK_NB) != 0) {
        int32_t outcome = errno == EWOULDBLOCK || errno == EINTR ? GHL_OK : FAILED;
        if (outcome == GHL_OK && timeout_ms == 0) {
            outcome = GHL_ERR_TIMEOUT;
        }
        if (outcome != GHL_OK) {
            close(lock);
            free(held);
            return outcome;
        }
        const struct timespec pause = {.tv_nsec = 1000000};
        nanosleep(&pause, NULL);
        timeout_ms--;
    }
    held->descriptor = lock;
    strcpy(held->id, id);
    pthread_mutex_lock(&store->mutex);
    held->next = store->locks;
    store->locks = held;
    pthread_mutex_unlock(&store->mutex);
    return GHL_OK;
}

static void store_unlock(void *context, const char *id) {
    folder_store *store = context;
    pthread_mutex_lock(&store->mutex);
    held_lock **place = &store->locks;
    while (*place != NULL && strcmp((*place)->id, id) != 0) {
        place = &(*place)->next;
    }
    held_lock *held = *place;
    if (held != NULL) {
        *place = held->next;
    }
    pthread_mutex_unlock(&store->mutex);
    if (held != NULL) {
        close(held->descriptor);
        free(held);
    }
}

static void store_free_string(void *context, char *text) {
    (void)context;
    free(text);
}

static void store_destroy(void *context) {
    folder_store *store = context;
    pthread_mutex_destroy(&store->mutex);
    free(store);
}

/* A client whose tokens are files in a folder, which must exist and should be accessible to this
 * user only. */
static int32_t client_on_folder(const char *config, const char *path, ghl_client **client,
                                char **out) {
    folder_store *store = calloc(1, sizeof *store);
    if (store == NULL) {
        abort();
    }
    store->folder = path;
    pthread_mutex_init(&store->mutex, NULL);
    const ghl_store_callbacks callbacks = {
        .size = sizeof callbacks,
        .context = store,
        .load = store_load,
        .save = store_save,
        .remove = store_remove,
        .list = store_list,
        .lock = store_lock,
        .unlock = store_unlock,
        .free_string = store_free_string,
        .destroy = store_destroy,
    };
    return ghl_client_new_with_store(config, &callbacks, client, out);
}

/* Sends a person to the consent page, and stores the token of the consent. */
static int32_t connect_company(ghl_client *client, char **out) {
    ghl_authorization_options options = {.scopes = "oauth.readonly oauth.write"};
    ghl_authorization_link link;
    ghl_token_info info;
    ghl_error error;
    int32_t status = ghl_typed_authorization_url(client, &options, &link, &error);
    if (status == GHL_OK) {
        printf("Open this link: %s\n", link.url);
        fflush(stdout);
        char redirect_url[LONGEST_PATH];
        if (fgets(redirect_url, sizeof redirect_url, stdin) == NULL) {
            redirect_url[0] = '\0';
        }
        redirect_url[strcspn(redirect_url, "\r\n")] = '\0';
        ghl_completion_options session = {.state = link.state};
        status = ghl_typed_authorization_complete(client, redirect_url, &session, &info, &error);
        ghl_typed_link_clear(&link);
    }
    if (status != GHL_OK) {
        fprintf(stderr, "%s\n", error.message);
        ghl_typed_error_clear(&error);
        return status;
    }
    ghl_typed_token_info_clear(&info);
    return ghl_tokens_list(client, "{}", out);
}

int main(int argc, char **argv) {
    if (argc < 4) {
        fprintf(stderr,
                "usage: %s CONFIG FOLDER connect | list | maintain | token RESOURCE | delete "
                "RESOURCE\n",
                argv[0]);
        return 2;
    }
    ghl_client *client;
    char *out = NULL;
    int32_t status = client_on_folder(argv[1], argv[2], &client, &out);
    if (status == GHL_OK) {
        const char *command = argv[3], *resource = argc > 4 ? argv[4] : "";
        ghl_string_free(out);
        out = NULL;
        if (strcmp(command, "connect") == 0) {
            status = connect_company(client, &out);
        } else if (strcmp(command, "list") == 0) {
            status = ghl_tokens_list(client, "{}", &out);
        } else if (strcmp(command, "maintain") == 0) {
            status = ghl_tokens_maintain(client, "{}", NULL, NULL, &out);
        } else if (strcmp(command, "delete") == 0) {
            status = ghl_token_delete(client, resource, &out);
        } else {
            char *error = NULL;
            status = ghl_access_token(client, resource, &out, &error);
            out = out == NULL ? error : out;
        }
    }
    fprintf(status == GHL_OK ? stdout : stderr, "%s\n", out == NULL ? "" : out);
    ghl_string_free(out);
    ghl_client_free(client);
    return status == GHL_OK ? 0 : 1;
}
