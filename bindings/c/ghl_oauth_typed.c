/*
 * Parses the library's JSON documents in place: strings are unescaped within the document, and the
 * structs point into it. No secret is copied, and ghl_string_free wipes the whole document.
 */
#include "ghl_oauth_typed.h"

#include <stdlib.h>
#include <string.h>

/* ---- Reading ------------------------------------------------------------------------------- */

enum kind { TEXT, INTEGER, FLAG, SENT, ANY, OBJECT, LIST, MAP, COUNTS, TEXTS, END };

/*
 * Maps a JSON member to a struct field. `size`: the size of a list's items; `count`: the offset of
 * the list's count. A MAP is a list of ghl_header, COUNTS one of ghl_status_count, TEXTS one of
 * strings. ANY is a string, or the JSON of another value; unless 0, `size` is the offset of its
 * length, and `count` that of whether it is a string.
 */
typedef struct json_member {
    const char *name;
    enum kind kind;
    size_t offset;
    const struct json_member *inner;
    size_t size;
    size_t count;
} json_member;

#define FIELD(type, kind, name, field) {name, kind, offsetof(type, field), NULL, 0, 0}
#define LAST {NULL, END, 0, NULL, 0, 0}

static char *read_object(char *at, const json_member *members, void *target);

static char *skip_space(char *at) {
    while (*at == ' ' || *at == '\t' || *at == '\n' || *at == '\r') {
        at++;
    }
    return at;
}

static int hex(char digit) {
    if (digit >= '0' && digit <= '9') {
        return digit - '0';
    }
    if (digit >= 'a' && digit <= 'f') {
        return digit - 'a' + 10;
    }
    return digit >= 'A' && digit <= 'F' ? digit - 'A' + 10 : -1;
}

/* Parses four hex digits; returns a value beyond 16 bits if they are invalid. */
static uint32_t code_unit(const char *at) {
    uint32_t unit = 0;
    for (int i = 0; i < 4; i++) {
        int digit = hex(at[i]);
        if (digit < 0) {
            return UINT32_MAX;
        }
        unit = unit << 4 | (uint32_t)digit;
    }
    return unit;
}

static char *write_utf8(char *to, uint32_t point) {
    if (point < 0x80) {
        *to++ = (char)point;
    } else if (point < 0x800) {
        *to++ = (char)(0xC0 | point >> 6);
        *to++ = (char)(0x80 | (point & 0x3F));
    } else if (point < 0x10000) {
        *to++ = (char)(0xE0 | point >> 12);
        *to++ = (char)(0x80 | (point >> 6 & 0x3F));
        *to++ = (char)(0x80 | (point & 0x3F));
    } else {
        *to++ = (char)(0xF0 | point >> 18);
        *to++ = (char)(0x80 | (point >> 12 & 0x3F));
        *to++ = (char)(0x80 | (point >> 6 & 0x3F));
        *to++ = (char)(0x80 | (point & 0x3F));
    }
    return to;
}

/*
 * Unescapes the string at the quote in place and NUL-terminates it. Returns the end of the string,
 * or NULL.
 */
static char *read_text(char *at, char **text) {
    char *to = *text = ++at;
    while (*at != '"') {
        if (*at == '\0') {
            return NULL;
        }
        if (*at != '\\') {
            *to++ = *at++;
            continue;
        }
        switch (*++at) {
        case 'b': *to++ = '\b'; break;
        case 'f': *to++ = '\f'; break;
        case 'n': *to++ = '\n'; break;
        case 'r': *to++ = '\r'; break;
        case 't': *to++ = '\t'; break;
        case '"': case '\\': case '/': *to++ = *at; break;
        case 'u': {
            uint32_t point = code_unit(at + 1);
            if (point == UINT32_MAX) {
                return NULL;
            }
            at += 4;
            if (point >= 0xD800 && point < 0xDC00 && at[1] == '\\' && at[2] == 'u') {
                uint32_t low = code_unit(at + 3);
                if (low >= 0xDC00 && low < 0xE000) {
                    point = 0x10000 + ((point - 0xD800) << 10 | (low - 0xDC00));
                    at += 6;
                }
            }
            /* A NUL would truncate the C string; a lone surrogate is not a character. */
            to = write_utf8(to, point == 0 || (point >= 0xD800 && point < 0xE000) ? 0xFFFD : point);
            break;
        }
        default: return NULL;
        }
        at++;
    }
    *to = '\0';
    return at + 1;
}

/* Returns the end of the value at `at`, or NULL. Iterative, so nesting uses no stack. */
static char *skip_value(char *at) {
    size_t depth = 0;
    do {
        at = skip_space(at);
        switch (*at) {
        case '\0': return NULL;
        case '{': case '[': depth++; at++; break;
        case '}': case ']':
            if (depth == 0) {
                return NULL;
            }
            depth--;
            at++;
            break;
        case '"':
            for (at++; *at != '"'; at++) {
                if (*at == '\0' || (*at == '\\' && *++at == '\0')) {
                    return NULL;
                }
            }
            at++;
            break;
        case ',': case ':': at++; break;
        default: at += strcspn(at, ",:]} \t\n\r"); break;
        }
    } while (depth > 0);
    return at;
}

/* Reads a name and its value. If the value is not a string, the header's value stays NULL. */
static char *read_header(char *at, ghl_header *header) {
    char *name, *value = NULL;
    at = read_text(at, &name);
    if (at == NULL || *(at = skip_space(at)) != ':') {
        return NULL;
    }
    at = skip_space(at + 1);
    at = *at == '"' ? read_text(at, &value) : skip_value(at);
    header->name = name;
    header->value = value;
    return at;
}

/* Reads a name and its number. */
static char *read_count(char *at, ghl_status_count *count) {
    char *name;
    at = read_text(at, &name);
    if (at == NULL || *(at = skip_space(at)) != ':') {
        return NULL;
    }
    at = skip_space(at + 1);
    count->status = name;
    count->count = strtoll(at, NULL, 10);
    return skip_value(at);
}

/* Moves JSON one byte to the left, over the preceding colon or space, to make room for a NUL. */
static char *read_json(char *at, char **text) {
    char *rest = skip_value(at);
    if (rest != NULL) {
        *text = memmove(at - 1, at, (size_t)(rest - at));
        rest[-1] = '\0';
    }
    return rest;
}

/* Skips items of an unexpected type: some lists contain unvalidated data from the API. */
static char *read_list(char *at, const json_member *list, void *target) {
    char *items = NULL;
    size_t count = 0, room = 0;
    bool is_object = list->kind == MAP || list->kind == COUNTS;
    char first = list->kind == LIST ? '{' : '"', end = is_object ? '}' : ']';
    at = skip_space(at + 1);
    while (*at != end) {
        bool fits = *at == first;
        if (fits && count == room) {
            room = room == 0 ? 16 : room * 2;
            char *more = room <= SIZE_MAX / list->size ? realloc(items, room * list->size) : NULL;
            if (more == NULL) {
                free(items);
                return NULL;
            }
            items = more;
        }
        if (fits) {
            char *item = memset(items + count * list->size, 0, list->size);
            if (list->kind == TEXTS) {
                char *text;
                at = read_text(at, &text);
                memcpy(item, &text, sizeof text);
            } else if (list->kind == COUNTS) {
                at = read_count(at, (ghl_status_count *)(void *)item);
            } else {
                at = list->kind == MAP ? read_header(at, (ghl_header *)(void *)item)
                                       : read_object(at, list->inner, item);
            }
            count++;
        } else {
            at = skip_value(at);
        }
        if (at != NULL) {
            at = skip_space(at);
        }
        if (at == NULL || (*at != ',' && *at != end)) {
            free(items);
            return NULL;
        }
        at = *at == ',' ? skip_space(at + 1) : at;
    }
    memcpy((char *)target + list->offset, &items, sizeof items);
    memcpy((char *)target + list->count, &count, sizeof count);
    return at + 1;
}

/*
 * Reads a value into its field. A value of an unexpected type, such as null, leaves the field zero.
 */
static char *read_value(char *at, const json_member *member, void *target) {
    char *field = (char *)target + member->offset;
    if (member->kind == ANY || (*at == '"' && member->kind == TEXT)) {
        char *text = NULL;
        const bool is_string = *at == '"';
        char *rest = is_string ? read_text(at, &text) : read_json(at, &text);
        memcpy(field, &text, sizeof text);
        if (rest != NULL && member->kind == ANY && member->count != 0) {
            const size_t length = strlen(text);
            memcpy((char *)target + member->size, &length, sizeof length);
            memcpy((char *)target + member->count, &is_string, sizeof is_string);
        }
        return rest;
    }
    if (*at == '{' && member->kind == OBJECT) {
        return read_object(at, member->inner, target);
    }
    if ((*at == '[' && (member->kind == LIST || member->kind == TEXTS)) ||
        (*at == '{' && (member->kind == MAP || member->kind == COUNTS))) {
        return read_list(at, member, target);
    }
    if (member->kind == INTEGER && (*at == '-' || (*at >= '0' && *at <= '9'))) {
        int64_t number = strtoll(at, NULL, 10);
        memcpy(field, &number, sizeof number);
    } else if (member->kind == FLAG) {
        /* The API sends some booleans as strings. */
        bool flag = *at == 't' || strncmp(at, "\"true\"", 6) == 0;
        memcpy(field, &flag, sizeof flag);
    } else if (member->kind == SENT && (*at == 't' || *at == 'f')) {
        ghl_sent sent = *at == 't' ? GHL_SENT_YES : GHL_SENT_NO;
        memcpy(field, &sent, sizeof sent);
    }
    return skip_value(at);
}

/* Reads the object at `at` into the struct. Returns the end of the object, or NULL. */
static char *read_object(char *at, const json_member *members, void *target) {
    at = skip_space(at);
    if (*at != '{') {
        return NULL;
    }
    at = skip_space(at + 1);
    while (*at == '"') {
        char *name;
        at = read_text(at, &name);
        if (at == NULL || *(at = skip_space(at)) != ':') {
            return NULL;
        }
        at = skip_space(at + 1);
        const json_member *member = members;
        while (member->kind != END && strcmp(member->name, name) != 0) {
            member++;
        }
        at = member->kind == END ? skip_value(at) : read_value(at, member, target);
        if (at == NULL) {
            return NULL;
        }
        at = skip_space(at);
        if (*at == ',') {
            at = skip_space(at + 1);
        }
    }
    return *at == '}' ? at + 1 : NULL;
}

static const json_member API_MEMBERS[] = {
    FIELD(ghl_error, TEXT, "code", api_code),
    FIELD(ghl_error, TEXT, "message", api_message),
    LAST,
};

static const json_member ERROR_MEMBERS[] = {
    FIELD(ghl_error, TEXT, "message", message),
    FIELD(ghl_error, TEXT, "help", help),
    FIELD(ghl_error, TEXT, "parameter", parameter),
    FIELD(ghl_error, FLAG, "retryable", retryable),
    FIELD(ghl_error, SENT, "sent", sent),
    FIELD(ghl_error, INTEGER, "retryAfterMs", retry_after_ms),
    FIELD(ghl_error, TEXT, "resourceId", resource_id),
    FIELD(ghl_error, INTEGER, "httpStatus", http_status),
    FIELD(ghl_error, TEXT, "traceId", trace_id),
    {"api", OBJECT, 0, API_MEMBERS, 0, 0},
    LAST,
};

static const json_member ERROR_DOCUMENT[] = {{"error", OBJECT, 0, ERROR_MEMBERS, 0, 0}, LAST};

static const json_member LINK_DOCUMENT[] = {
    FIELD(ghl_authorization_link, TEXT, "url", url),
    FIELD(ghl_authorization_link, TEXT, "state", state),
    LAST,
};

static const json_member LAST_FAILURE_MEMBERS[] = {
    FIELD(ghl_token_info, INTEGER, "firstAt", last_failure.first_at),
    FIELD(ghl_token_info, INTEGER, "at", last_failure.at),
    FIELD(ghl_token_info, INTEGER, "attempts", last_failure.attempts),
    FIELD(ghl_token_info, TEXT, "status", last_failure.status),
    FIELD(ghl_token_info, TEXT, "message", last_failure.message),
    FIELD(ghl_token_info, INTEGER, "httpStatus", last_failure.http_status),
    FIELD(ghl_token_info, TEXT, "traceId", last_failure.trace_id),
    FIELD(ghl_token_info, INTEGER, "nextAttemptAt", last_failure.next_attempt_at),
    LAST,
};

static const json_member TOKEN_INFO_DOCUMENT[] = {
    FIELD(ghl_token_info, TEXT, "resourceId", resource_id),
    FIELD(ghl_token_info, TEXT, "userType", user_type),
    FIELD(ghl_token_info, TEXT, "companyId", company_id),
    FIELD(ghl_token_info, TEXT, "locationId", location_id),
    FIELD(ghl_token_info, TEXT, "scope", scope),
    FIELD(ghl_token_info, INTEGER, "expiresAt", expires_at),
    FIELD(ghl_token_info, FLAG, "refreshable", refreshable),
    FIELD(ghl_token_info, TEXT, "state", state),
    FIELD(ghl_token_info, INTEGER, "lastSuccessAt", last_success_at),
    {"lastFailure", OBJECT, 0, LAST_FAILURE_MEMBERS, 0, 0},
    LAST,
};

static const json_member MAINTAIN_ERROR_MEMBERS[] = {
    FIELD(ghl_maintain_failure, TEXT, "status", status),
    FIELD(ghl_maintain_failure, TEXT, "message", message),
    FIELD(ghl_maintain_failure, TEXT, "help", help),
    FIELD(ghl_maintain_failure, FLAG, "retryable", retryable),
    FIELD(ghl_maintain_failure, SENT, "sent", sent),
    LAST,
};

static const json_member MAINTAIN_FAILURE_MEMBERS[] = {
    FIELD(ghl_maintain_failure, TEXT, "resourceId", resource_id),
    {"error", OBJECT, 0, MAINTAIN_ERROR_MEMBERS, 0, 0},
    LAST,
};

static const json_member TOKEN_INFO_PAGE_DOCUMENT[] = {
    {"items", LIST, offsetof(ghl_token_info_page, items), TOKEN_INFO_DOCUMENT,
     sizeof(ghl_token_info), offsetof(ghl_token_info_page, count)},
    FIELD(ghl_token_info_page, TEXT, "nextPageToken", next_page_token),
    {"failed", LIST, offsetof(ghl_token_info_page, failed), MAINTAIN_FAILURE_MEMBERS,
     sizeof(ghl_maintain_failure), offsetof(ghl_token_info_page, failed_count)},
    LAST,
};

static const json_member TOKEN_DOCUMENT[] = {
    FIELD(ghl_token, TEXT, "accessToken", access_token),
    FIELD(ghl_token, TEXT, "refreshToken", refresh_token),
    FIELD(ghl_token, INTEGER, "expiresAt", expires_at),
    FIELD(ghl_token, TEXT, "userType", user_type),
    FIELD(ghl_token, TEXT, "companyId", company_id),
    FIELD(ghl_token, TEXT, "locationId", location_id),
    FIELD(ghl_token, TEXT, "scope", scope),
    FIELD(ghl_token, FLAG, "ownConsent", own_consent),
    LAST,
};

static const json_member TOKEN_PAGE_DOCUMENT[] = {
    {"tokens", LIST, offsetof(ghl_token_page, items), TOKEN_DOCUMENT, sizeof(ghl_token),
     offsetof(ghl_token_page, count)},
    FIELD(ghl_token_page, TEXT, "nextPageToken", next_page_token),
    {"failed", LIST, offsetof(ghl_token_page, failed), MAINTAIN_FAILURE_MEMBERS,
     sizeof(ghl_maintain_failure), offsetof(ghl_token_page, failed_count)},
    LAST,
};

static const json_member SKIPPED_MEMBERS[] = {
    FIELD(ghl_skipped_token, INTEGER, "index", index),
    FIELD(ghl_skipped_token, TEXT, "resourceId", resource_id),
    FIELD(ghl_skipped_token, TEXT, "reason", reason),
    LAST,
};

static const json_member ACCEPTED_MEMBERS[] = {
    FIELD(ghl_accepted_token, INTEGER, "index", index),
    FIELD(ghl_accepted_token, TEXT, "resourceId", resource_id),
    FIELD(ghl_accepted_token, FLAG, "replaces", replaces),
    LAST,
};

static const json_member IMPORT_REPORT_DOCUMENT[] = {
    FIELD(ghl_import_report, INTEGER, "imported", imported),
    {"skipped", LIST, offsetof(ghl_import_report, skipped), SKIPPED_MEMBERS,
     sizeof(ghl_skipped_token), offsetof(ghl_import_report, skipped_count)},
    {"accepted", LIST, offsetof(ghl_import_report, accepted), ACCEPTED_MEMBERS,
     sizeof(ghl_accepted_token), offsetof(ghl_import_report, accepted_count)},
    LAST,
};

static const json_member OTHER_CLIENT_MEMBERS[] = {
    FIELD(ghl_other_client, TEXT, "clientId", client_id),
    FIELD(ghl_other_client, INTEGER, "tokens", tokens),
    LAST,
};

static const json_member ADOPT_REPORT_DOCUMENT[] = {
    FIELD(ghl_adopt_report, INTEGER, "adopted", adopted),
    {"skipped", LIST, offsetof(ghl_adopt_report, skipped), SKIPPED_MEMBERS,
     sizeof(ghl_skipped_token), offsetof(ghl_adopt_report, skipped_count)},
    {"failed", LIST, offsetof(ghl_adopt_report, failed), MAINTAIN_FAILURE_MEMBERS,
     sizeof(ghl_maintain_failure), offsetof(ghl_adopt_report, failed_count)},
    {"clients", LIST, offsetof(ghl_adopt_report, clients), OTHER_CLIENT_MEMBERS,
     sizeof(ghl_other_client), offsetof(ghl_adopt_report, client_count)},
    LAST,
};

static const json_member MAINTAIN_REPORT_DOCUMENT[] = {
    FIELD(ghl_maintain_report, INTEGER, "checked", checked),
    FIELD(ghl_maintain_report, INTEGER, "refreshed", refreshed),
    FIELD(ghl_maintain_report, INTEGER, "resealed", resealed),
    FIELD(ghl_maintain_report, INTEGER, "unsealed", unsealed),
    FIELD(ghl_maintain_report, INTEGER, "nextDueAt", next_due_at),
    {"failed", LIST, offsetof(ghl_maintain_report, failed), MAINTAIN_FAILURE_MEMBERS,
     sizeof(ghl_maintain_failure), offsetof(ghl_maintain_report, failed_count)},
    LAST,
};

static const json_member LOCATION_MEMBERS[] = {
    FIELD(ghl_location, TEXT, "_id", id),
    FIELD(ghl_location, TEXT, "name", name),
    FIELD(ghl_location, TEXT, "address", address),
    FIELD(ghl_location, TEXT, "versionId", version_id),
    FIELD(ghl_location, TEXT, "installedAt", installed_at),
    FIELD(ghl_location, FLAG, "isInstalled", is_installed),
    LAST,
};

/* A page, and the fields that tell whether it is the last one. */
typedef struct location_list {
    ghl_location_page page;
    const char *has_next_page;
} location_list;

static const json_member PAGINATION_MEMBERS[] = {
    FIELD(location_list, INTEGER, "totalRecords", page.total),
    FIELD(location_list, TEXT, "nextPageToken", page.next_page_token),
    FIELD(location_list, ANY, "hasNextPage", has_next_page),
    LAST,
};

static const json_member LOCATION_LIST_DOCUMENT[] = {
    {"items", LIST, offsetof(location_list, page.items), LOCATION_MEMBERS, sizeof(ghl_location),
     offsetof(location_list, page.count)},
    {"pagination", OBJECT, 0, PAGINATION_MEMBERS, 0, 0},
    LAST,
};

static const json_member MINT_ERROR_MEMBERS[] = {
    FIELD(ghl_mint_failure, TEXT, "status", status),
    FIELD(ghl_mint_failure, TEXT, "message", message),
    FIELD(ghl_mint_failure, TEXT, "help", help),
    FIELD(ghl_mint_failure, FLAG, "retryable", retryable),
    FIELD(ghl_mint_failure, SENT, "sent", sent),
    LAST,
};

static const json_member MINT_FAILURE_MEMBERS[] = {
    FIELD(ghl_mint_failure, TEXT, "locationId", location_id),
    {"error", OBJECT, 0, MINT_ERROR_MEMBERS, 0, 0},
    LAST,
};

static const json_member MINT_REPORT_DOCUMENT[] = {
    FIELD(ghl_mint_report, INTEGER, "total", total),
    FIELD(ghl_mint_report, INTEGER, "minted", minted),
    FIELD(ghl_mint_report, INTEGER, "fresh", fresh),
    {"failed", LIST, offsetof(ghl_mint_report, failed), MINT_FAILURE_MEMBERS,
     sizeof(ghl_mint_failure), offsetof(ghl_mint_report, failed_count)},
    LAST,
};

static const json_member RESPONSE_DOCUMENT[] = {
    FIELD(ghl_api_response, INTEGER, "status", status),
    {"headers", MAP, offsetof(ghl_api_response, headers), NULL, sizeof(ghl_header),
     offsetof(ghl_api_response, header_count)},
    {"setCookies", TEXTS, offsetof(ghl_api_response, set_cookies), NULL, sizeof(const char *),
     offsetof(ghl_api_response, set_cookie_count)},
    {"body", ANY, offsetof(ghl_api_response, body), NULL, offsetof(ghl_api_response, body_length),
     offsetof(ghl_api_response, body_is_string)},
    FIELD(ghl_api_response, TEXT, "bodyEncoding", body_encoding),
    LAST,
};

static const json_member WEBHOOK_OUTCOME_DOCUMENT[] = {
    FIELD(ghl_webhook_outcome, TEXT, "type", type),
    FIELD(ghl_webhook_outcome, TEXT, "resourceId", resource_id),
    FIELD(ghl_webhook_outcome, FLAG, "applied", applied),
    FIELD(ghl_webhook_outcome, TEXT, "reason", reason),
    LAST,
};

static const json_member REQUEST_STATISTICS_MEMBERS[] = {
    FIELD(ghl_statistics, INTEGER, "sent", requests_sent),
    FIELD(ghl_statistics, INTEGER, "repeated", requests_repeated),
    FIELD(ghl_statistics, INTEGER, "unanswered", requests_unanswered),
    FIELD(ghl_statistics, INTEGER, "rateLimited", requests_rate_limited),
    LAST,
};

static const json_member TOKEN_STATISTICS_MEMBERS[] = {
    FIELD(ghl_statistics, INTEGER, "inMemory", tokens_in_memory),
    FIELD(ghl_statistics, INTEGER, "unsaved", tokens_unsaved),
    FIELD(ghl_statistics, INTEGER, "refreshed", tokens_refreshed),
    FIELD(ghl_statistics, INTEGER, "minted", tokens_minted),
    FIELD(ghl_statistics, INTEGER, "failed", tokens_failed),
    {"failedByStatus", COUNTS, offsetof(ghl_statistics, failed_by_status), NULL,
     sizeof(ghl_status_count), offsetof(ghl_statistics, failed_by_status_count)},
    LAST,
};

static const json_member BUSY_RESOURCE_MEMBERS[] = {
    FIELD(ghl_busy_resource, TEXT, "resourceId", resource_id),
    FIELD(ghl_busy_resource, INTEGER, "inWindow", in_window),
    FIELD(ghl_busy_resource, INTEGER, "requests", requests),
    FIELD(ghl_busy_resource, INTEGER, "perMs", per_ms),
    FIELD(ghl_busy_resource, INTEGER, "today", today),
    FIELD(ghl_busy_resource, INTEGER, "perDay", per_day),
    FIELD(ghl_busy_resource, INTEGER, "waiting", waiting),
    FIELD(ghl_busy_resource, INTEGER, "heldForMs", held_for_ms),
    LAST,
};

static const json_member PACE_MEMBERS[] = {
    FIELD(ghl_statistics, INTEGER, "resources", pace_resources),
    FIELD(ghl_statistics, INTEGER, "waiting", pace_waiting),
    FIELD(ghl_statistics, INTEGER, "held", pace_held),
    {"busiest", LIST, offsetof(ghl_statistics, busiest), BUSY_RESOURCE_MEMBERS,
     sizeof(ghl_busy_resource), offsetof(ghl_statistics, busiest_count)},
    LAST,
};

static const json_member STATISTICS_DOCUMENT[] = {
    FIELD(ghl_statistics, TEXT, "version", version),
    {"requests", OBJECT, 0, REQUEST_STATISTICS_MEMBERS, 0, 0},
    {"tokens", OBJECT, 0, TOKEN_STATISTICS_MEMBERS, 0, 0},
    {"pace", OBJECT, 0, PACE_MEMBERS, 0, 0},
    LAST,
};

/* ---- Writing ------------------------------------------------------------------------------- */

/* A growing string; `text` is NULL after an allocation failed. */
typedef struct writer {
    char *text;
    size_t length, room;
    bool failed;
} writer;

/* Overwrites a possible secret; the compiler must not optimize this away. */
static void wipe(char *text, size_t length) {
    volatile char *at = text;
    while (length-- > 0) {
        *at++ = '\0';
    }
}

static void put(writer *out, const char *bytes, size_t length) {
    if (out->failed) {
        return;
    }
    if (out->room - out->length <= length) {
        size_t room = (out->length + length + 1) * 2;
        char *more = malloc(room);
        if (more == NULL) {
            out->failed = true;
            return;
        }
        if (out->text != NULL) {
            /* Not realloc, which would leave the old bytes in memory. */
            memcpy(more, out->text, out->length);
            wipe(out->text, out->length);
            free(out->text);
        }
        out->text = more;
        out->room = room;
    }
    memcpy(out->text + out->length, bytes, length);
    out->length += length;
    out->text[out->length] = '\0';
}

/*
 * Writes a comma or the opening brace, then the name. The first name of a nested object follows its
 * brace.
 */
static void put_name(writer *out, const char *name) {
    bool inner = out->length > 0 && !out->failed && out->text[out->length - 1] == '{';
    put(out, inner ? "\"" : out->length == 0 ? "{\"" : ",\"", inner ? 1 : 2);
    put(out, name, strlen(name));
    put(out, "\":", 2);
}

static void put_quoted(writer *out, const char *text, size_t length) {
    static const char DIGITS[] = "0123456789abcdef";
    put(out, "\"", 1);
    for (size_t i = 0; i < length; i++) {
        unsigned char byte = (unsigned char)text[i];
        if (byte == '"' || byte == '\\') {
            char escape[2] = {'\\', text[i]};
            put(out, escape, 2);
        } else if (byte < 0x20) {
            char escape[6] = {'\\', 'u', '0', '0', DIGITS[byte >> 4], DIGITS[byte & 15]};
            put(out, escape, 6);
        } else {
            put(out, text + i, 1);
        }
    }
    put(out, "\"", 1);
}

/* Writes a string, unless it is NULL. */
static void put_text(writer *out, const char *name, const char *text) {
    if (text != NULL) {
        put_name(out, name);
        put_quoted(out, text, strlen(text));
    }
}

/* Writes a number, unless it is 0, the default of all numbers. */
static void put_number(writer *out, const char *name, int64_t number) {
    if (number == 0) {
        return;
    }
    char digits[24];
    size_t at = sizeof digits;
    uint64_t left = number < 0 ? 0 - (uint64_t)number : (uint64_t)number;
    do {
        digits[--at] = (char)('0' + left % 10);
        left /= 10;
    } while (left > 0);
    if (number < 0) {
        digits[--at] = '-';
    }
    put_name(out, name);
    put(out, digits + at, sizeof digits - at);
}

/* Writes a flag, unless it is false, the default of all flags. */
static void put_flag(writer *out, const char *name, bool flag) {
    if (flag) {
        put_name(out, name);
        put(out, "true", 4);
    }
}

/* Writes a flag, unless the filter is GHL_EITHER. */
static void put_filter(writer *out, const char *name, ghl_flag_filter filter) {
    if (filter == GHL_ONLY_FALSE) {
        put_name(out, name);
        put(out, "false", 5);
    }
    put_flag(out, name, filter == GHL_ONLY_TRUE);
}

/* Writes a list of space-separated words. */
static void put_words(writer *out, const char *name, const char *words) {
    if (words == NULL) {
        return;
    }
    put_name(out, name);
    put(out, "[", 1);
    for (bool first = true;; first = false) {
        words += strspn(words, " ");
        if (*words == '\0') {
            break;
        }
        if (!first) {
            put(out, ",", 1);
        }
        size_t length = strcspn(words, " ");
        put_quoted(out, words, length);
        words += length;
    }
    put(out, "]", 1);
}

/* Writes headers as members of an object, without braces. */
static void put_headers(writer *out, const ghl_header *headers, size_t count) {
    for (size_t i = 0; i < count; i++) {
        put(out, ",", i > 0 ? 1 : 0);
        put_quoted(out, headers[i].name, strlen(headers[i].name));
        put(out, ":", 1);
        put_quoted(out, headers[i].value, strlen(headers[i].value));
    }
}

/*
 * Writes the values grouped by name: the library accepts the values of a repeated name as a list.
 */
static void put_parameters(writer *out, const ghl_query_parameter *query, size_t count) {
    put_name(out, "query");
    put(out, "{", 1);
    for (size_t i = 0; i < count; i++) {
        size_t first = 0;
        while (strcmp(query[first].name, query[i].name) != 0) {
            first++;
        }
        if (first < i) {
            continue;
        }
        put(out, ",", i > 0 ? 1 : 0);
        put_quoted(out, query[i].name, strlen(query[i].name));
        put(out, ":", 1);
        for (size_t j = i; j < count; j++) {
            if (strcmp(query[j].name, query[i].name) == 0) {
                put(out, j == i ? "[" : ",", 1);
                put_quoted(out, query[j].value, strlen(query[j].value));
            }
        }
        put(out, "]", 1);
    }
    put(out, "}", 1);
}

/* Writes bytes in base64, unless the pointer is NULL. */
static void put_base64(writer *out, const char *name, const void *bytes, size_t count) {
    static const char DIGITS[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    if (bytes == NULL) {
        return;
    }
    const unsigned char *byte = bytes;
    put_name(out, name);
    put(out, "\"", 1);
    for (size_t at = 0; at < count; at += 3) {
        size_t left = count - at;
        uint32_t group = (uint32_t)byte[at] << 16 | (left > 1 ? (uint32_t)byte[at + 1] << 8 : 0) |
                         (left > 2 ? byte[at + 2] : 0);
        char digits[4] = {DIGITS[group >> 18], DIGITS[group >> 12 & 63],
                          left > 1 ? DIGITS[group >> 6 & 63] : '=',
                          left > 2 ? DIGITS[group & 63] : '='};
        put(out, digits, 4);
    }
    put(out, "\"", 1);
}

/* Closes the object; false if memory was exhausted. */
static bool end(writer *out) {
    put(out, out->length == 0 ? "{}" : "}", out->length == 0 ? 2 : 1);
    return !out->failed;
}

/* Wipes and frees the string. */
static void discard(writer *out) {
    if (out->text != NULL) {
        wipe(out->text, out->length);
        free(out->text);
    }
}

/* ---- Calling ------------------------------------------------------------------------------- */

void ghl_typed_error(int32_t status, char *document, ghl_error *out) {
    if (out == NULL) {
        ghl_string_free(document);
        return;
    }
    memset(out, 0, sizeof *out);
    if (document != NULL) {
        read_object(document, ERROR_DOCUMENT, out);
    }
    out->status = status;
    out->document = document;
    if (out->message == NULL) {
        out->message = ghl_status_name(status);
    }
}

static int32_t out_of_memory(ghl_error *error) {
    if (error != NULL) {
        memset(error, 0, sizeof *error);
        error->status = GHL_ERR_INTERNAL;
        error->message = "out of memory";
        error->retryable = true;
    }
    return GHL_ERR_INTERNAL;
}

/* The struct to fill from a result document, and the field that owns the document. */
typedef struct destination {
    const json_member *members;
    void *out;
    size_t size;
    char **owner;
} destination;

#define INTO(members, out) ((destination){members, out, sizeof *(out), &(out)->document})

/* Frees the lists of a struct and of the objects that are read into it. */
static void free_lists(const json_member *members, void *target) {
    for (const json_member *member = members; member->kind != END; member++) {
        if (member->kind == OBJECT) {
            free_lists(member->inner, target);
        } else if (member->kind == LIST || member->kind == MAP || member->kind == COUNTS ||
                   member->kind == TEXTS) {
            void *items;
            memcpy(&items, (char *)target + member->offset, sizeof items);
            free(items);
        }
    }
}

/* Passes a document to the result struct or, after a failure, to *error. */
static int32_t settle(int32_t status, char *document, destination into, ghl_error *error) {
    if (status != GHL_OK) {
        ghl_typed_error(status, document, error);
        return status;
    }
    if (read_object(document, into.members, into.out) == NULL) {
        /*
         * The library writes valid documents, and unexpected API data inside them is skipped, so
         * the only cause is a failed allocation for a list. Other lists of the document may be
         * allocated already.
         */
        free_lists(into.members, into.out);
        memset(into.out, 0, into.size);
        ghl_string_free(document);
        return out_of_memory(error);
    }
    *into.owner = document;
    return GHL_OK;
}

typedef int32_t (*with_params)(ghl_client *client, const char *params_json, char **out_json);
typedef int32_t (*with_progress)(ghl_client *client, const char *params_json,
                                 ghl_progress_callback progress, void *context, char **out_json);
typedef int32_t (*about_resource)(ghl_client *client, const char *resource_id, char **out_json);

/* Closes the parameters, makes the call and wipes them. */
static int32_t call(with_params function, ghl_client *client, writer *params, destination into,
                    ghl_error *error) {
    int32_t status;
    if (end(params)) {
        char *document;
        status = function(client, params->text, &document);
        status = settle(status, document, into, error);
    } else {
        status = out_of_memory(error);
    }
    discard(params);
    return status;
}

/* Writes the options of a call, which may be NULL. */
static void put_options(writer *params, const ghl_call_options *options) {
    if (options != NULL) {
        put_number(params, "timeoutMs", options->timeout_ms);
        put_text(params, "callId", options->call_id);
    }
}

/* Zeroes the output structs of a call. */
static void begin(void *out, size_t size, ghl_error *error) {
    memset(out, 0, size);
    if (error != NULL) {
        memset(error, 0, sizeof *error);
    }
}

int32_t ghl_typed_authorization_url(ghl_client *client, const ghl_authorization_options *options,
                                    ghl_authorization_link *out, ghl_error *error) {
    writer params = {NULL, 0, 0, false};
    begin(out, sizeof *out, error);
    if (options != NULL) {
        put_words(&params, "scopes", options->scopes);
        put_text(&params, "redirectUri", options->redirect_uri);
        put_text(&params, "versionId", options->version_id);
        put_text(&params, "state", options->state);
        put_flag(&params, "loginInSameTab", options->login_in_same_tab);
    }
    return call(ghl_authorization_url, client, &params, INTO(LINK_DOCUMENT, out), error);
}

int32_t ghl_typed_authorization_complete(ghl_client *client, const char *redirect_url,
                                         const ghl_completion_options *options, ghl_token_info *out,
                                         ghl_error *error) {
    writer params = {NULL, 0, 0, false};
    begin(out, sizeof *out, error);
    put_text(&params, "redirectUrl", redirect_url);
    if (options != NULL) {
        put_text(&params, "state", options->state);
        put_flag(&params, "allowMissingState", options->allow_missing_state);
        put_text(&params, "redirectUri", options->redirect_uri);
        put_text(&params, "userType", options->user_type);
        put_options(&params, &options->call);
    }
    return call(ghl_authorization_complete, client, &params, INTO(TOKEN_INFO_DOCUMENT, out), error);
}

int32_t ghl_typed_authorization_listen(ghl_client *client, const ghl_listen_options *options,
                                       ghl_token_info *out, ghl_error *error) {
    writer params = {NULL, 0, 0, false};
    begin(out, sizeof *out, error);
    if (options != NULL) {
        put_number(&params, "port", options->port);
        put_number(&params, "timeoutMs", options->timeout_ms);
        put_text(&params, "state", options->state);
        put_flag(&params, "allowMissingState", options->allow_missing_state);
        put_text(&params, "redirectUri", options->redirect_uri);
        put_text(&params, "userType", options->user_type);
        put_text(&params, "callId", options->call_id);
    }
    return call(ghl_authorization_listen, client, &params, INTO(TOKEN_INFO_DOCUMENT, out), error);
}

int32_t ghl_typed_access_token(ghl_client *client, const char *resource_id, char **out_token,
                               ghl_error *error) {
    char *document;
    begin(out_token, sizeof *out_token, error);
    int32_t status = ghl_access_token(client, resource_id, out_token, &document);
    if (status != GHL_OK) {
        ghl_typed_error(status, document, error);
    }
    return status;
}

int32_t ghl_typed_access_token_with(ghl_client *client, const ghl_access_token_request *request,
                                    char **out_token, ghl_error *error) {
    writer params = {NULL, 0, 0, false};
    begin(out_token, sizeof *out_token, error);
    put_text(&params, "resourceId", request->resource_id);
    put_number(&params, "minValidSeconds", request->min_valid_seconds);
    put_options(&params, &request->call);
    int32_t status;
    if (end(&params)) {
        char *document;
        status = ghl_access_token_with(client, params.text, out_token, &document);
        if (status != GHL_OK) {
            ghl_typed_error(status, document, error);
        }
    } else {
        status = out_of_memory(error);
    }
    discard(&params);
    return status;
}

static int32_t about(about_resource function, ghl_client *client, const char *resource_id,
                     ghl_token_info *out, ghl_error *error) {
    char *document;
    begin(out, sizeof *out, error);
    int32_t status = function(client, resource_id, &document);
    return settle(status, document, INTO(TOKEN_INFO_DOCUMENT, out), error);
}

int32_t ghl_typed_token_refresh(ghl_client *client, const char *resource_id, ghl_token_info *out,
                                ghl_error *error) {
    return about(ghl_token_refresh, client, resource_id, out, error);
}

int32_t ghl_typed_token_refresh_with(ghl_client *client, const char *resource_id,
                                     const ghl_call_options *options, ghl_token_info *out,
                                     ghl_error *error) {
    writer params = {NULL, 0, 0, false};
    begin(out, sizeof *out, error);
    put_text(&params, "resourceId", resource_id);
    put_options(&params, options);
    return call(ghl_token_refresh_with, client, &params, INTO(TOKEN_INFO_DOCUMENT, out), error);
}

int32_t ghl_typed_token_delete(ghl_client *client, const char *resource_id, ghl_token_info *out,
                               ghl_error *error) {
    return about(ghl_token_delete, client, resource_id, out, error);
}

/* Writes the parameters of a token query. */
static void put_query(writer *params, const ghl_token_query *query) {
    if (query != NULL) {
        put_text(params, "companyId", query->company_id);
        put_text(params, "userType", query->user_type);
        put_text(params, "pageToken", query->page_token);
        put_number(params, "pageSize", query->page_size);
        put_text(params, "state", query->state);
        put_flag(params, "failing", query->failing);
        put_number(params, "expiresBefore", query->expires_before);
        put_options(params, &query->call);
    }
}

int32_t ghl_typed_tokens_list(ghl_client *client, const ghl_token_query *query,
                              ghl_token_info_page *out, ghl_error *error) {
    writer params = {NULL, 0, 0, false};
    begin(out, sizeof *out, error);
    put_query(&params, query);
    return call(ghl_tokens_list, client, &params, INTO(TOKEN_INFO_PAGE_DOCUMENT, out), error);
}

int32_t ghl_typed_tokens_export(ghl_client *client, const ghl_token_query *query,
                                ghl_token_page *out, ghl_error *error) {
    writer params = {NULL, 0, 0, false};
    begin(out, sizeof *out, error);
    put_query(&params, query);
    return call(ghl_tokens_export, client, &params, INTO(TOKEN_PAGE_DOCUMENT, out), error);
}

int32_t ghl_typed_tokens_import(ghl_client *client, const ghl_token *tokens, size_t count,
                                bool replace, ghl_import_report *out, ghl_error *error) {
    return ghl_typed_tokens_import_with(client, tokens, count, replace, NULL, out, error);
}

static int32_t import(ghl_client *client, const ghl_token *tokens, size_t count, bool replace,
                      bool dry_run, const ghl_call_options *options, ghl_import_report *out,
                      ghl_error *error) {
    writer params = {NULL, 0, 0, false};
    begin(out, sizeof *out, error);
    put_options(&params, options);
    put_flag(&params, "replace", replace);
    if (dry_run) {
        put_flag(&params, "dryRun", true);
    }
    put_name(&params, "tokens");
    put(&params, "[", 1);
    for (size_t i = 0; i < count; i++) {
        put(&params, ",{", i > 0 ? 2 : 0);
        put(&params, "{", i > 0 ? 0 : 1);
        put_text(&params, "accessToken", tokens[i].access_token);
        put_text(&params, "refreshToken", tokens[i].refresh_token);
        put_number(&params, "expiresAt", tokens[i].expires_at);
        put_text(&params, "userType", tokens[i].user_type);
        put_text(&params, "companyId", tokens[i].company_id);
        put_text(&params, "locationId", tokens[i].location_id);
        put_text(&params, "scope", tokens[i].scope);
        put_flag(&params, "ownConsent", tokens[i].own_consent);
        put(&params, "}", 1);
    }
    put(&params, "]", 1);
    return call(ghl_tokens_import, client, &params, INTO(IMPORT_REPORT_DOCUMENT, out), error);
}

int32_t ghl_typed_tokens_import_with(ghl_client *client, const ghl_token *tokens, size_t count,
                                     bool replace, const ghl_call_options *options,
                                     ghl_import_report *out, ghl_error *error) {
    return import(client, tokens, count, replace, false, options, out, error);
}

int32_t ghl_typed_tokens_import_dry_run(ghl_client *client, const ghl_token *tokens, size_t count,
                                        bool replace, const ghl_call_options *options,
                                        ghl_import_report *out, ghl_error *error) {
    return import(client, tokens, count, replace, true, options, out, error);
}

int32_t ghl_typed_tokens_adopt(ghl_client *client, const char *client_id, const char *resource_id,
                               bool dry_run, ghl_adopt_report *out, ghl_error *error) {
    return ghl_typed_tokens_adopt_with(client, client_id, resource_id, dry_run, NULL, out, error);
}

int32_t ghl_typed_tokens_adopt_with(ghl_client *client, const char *client_id,
                                    const char *resource_id, bool dry_run,
                                    const ghl_call_options *options, ghl_adopt_report *out,
                                    ghl_error *error) {
    writer params = {NULL, 0, 0, false};
    begin(out, sizeof *out, error);
    put_options(&params, options);
    put_text(&params, "clientId", client_id);
    put_text(&params, "resourceId", resource_id);
    put_flag(&params, "dryRun", dry_run);
    return call(ghl_tokens_adopt, client, &params, INTO(ADOPT_REPORT_DOCUMENT, out), error);
}

/* As call, for a function that reports progress. */
static int32_t call_long(with_progress function, ghl_client *client, writer *params,
                         ghl_progress_callback progress, void *context, destination into,
                         ghl_error *error) {
    int32_t status;
    if (end(params)) {
        char *document;
        status = function(client, params->text, progress, context, &document);
        status = settle(status, document, into, error);
    } else {
        status = out_of_memory(error);
    }
    discard(params);
    return status;
}

int32_t ghl_typed_tokens_maintain(ghl_client *client, const char *company_id, int64_t concurrency,
                                  ghl_progress_callback progress, void *context,
                                  ghl_maintain_report *out, ghl_error *error) {
    return ghl_typed_tokens_maintain_with(client, company_id, concurrency, NULL, progress, context,
                                          out, error);
}

int32_t ghl_typed_tokens_maintain_with(ghl_client *client, const char *company_id,
                                       int64_t concurrency, const ghl_call_options *options,
                                       ghl_progress_callback progress, void *context,
                                       ghl_maintain_report *out, ghl_error *error) {
    writer params = {NULL, 0, 0, false};
    begin(out, sizeof *out, error);
    put_options(&params, options);
    put_text(&params, "companyId", company_id);
    put_number(&params, "concurrency", concurrency);
    return call_long(ghl_tokens_maintain, client, &params, progress, context,
                     INTO(MAINTAIN_REPORT_DOCUMENT, out), error);
}

int32_t ghl_typed_oauth_token(ghl_client *client, const ghl_token_request *request, ghl_token *out,
                              ghl_error *error) {
    writer params = {NULL, 0, 0, false};
    begin(out, sizeof *out, error);
    put_text(&params, "grantType", request->grant_type);
    put_text(&params, "code", request->code);
    put_text(&params, "refreshToken", request->refresh_token);
    put_text(&params, "userType", request->user_type);
    put_text(&params, "redirectUri", request->redirect_uri);
    put_text(&params, "clientId", request->client_id);
    put_text(&params, "clientSecret", request->client_secret);
    put_options(&params, &request->call);
    return call(ghl_oauth_token, client, &params, INTO(TOKEN_DOCUMENT, out), error);
}

int32_t ghl_typed_oauth_location_token(ghl_client *client, const char *company_id,
                                       const char *location_id, const char *access_token,
                                       ghl_token *out, ghl_error *error) {
    return ghl_typed_oauth_location_token_with(client, company_id, location_id, access_token, NULL,
                                               out, error);
}

int32_t ghl_typed_oauth_location_token_with(ghl_client *client, const char *company_id,
                                            const char *location_id, const char *access_token,
                                            const ghl_call_options *options, ghl_token *out,
                                            ghl_error *error) {
    writer params = {NULL, 0, 0, false};
    begin(out, sizeof *out, error);
    put_options(&params, options);
    put_text(&params, "companyId", company_id);
    put_text(&params, "locationId", location_id);
    put_text(&params, "accessToken", access_token);
    return call(ghl_oauth_location_token, client, &params, INTO(TOKEN_DOCUMENT, out), error);
}

int32_t ghl_typed_installed_locations(ghl_client *client, const ghl_location_query *query,
                                      ghl_location_page *out, ghl_error *error) {
    writer params = {NULL, 0, 0, false};
    begin(out, sizeof *out, error);
    put_text(&params, "companyId", query->company_id);
    put_text(&params, "appId", query->app_id);
    put_text(&params, "pageToken", query->page_token);
    put_text(&params, "query", query->query);
    put_text(&params, "locationId", query->location_id);
    put_text(&params, "versionId", query->version_id);
    put_text(&params, "planId", query->plan_id);
    put_filter(&params, "isInstalled", query->is_installed);
    put_filter(&params, "onTrial", query->on_trial);
    put_flag(&params, "restrictToUserLocations", query->restrict_to_user_locations);
    put_flag(&params, "all", query->all);
    put_text(&params, "accessToken", query->access_token);
    put_number(&params, "pageSize", query->page_size);
    put_options(&params, &query->call);
    location_list list;
    memset(&list, 0, sizeof list);
    destination into = {LOCATION_LIST_DOCUMENT, &list, sizeof list, &list.page.document};
    int32_t status = call(ghl_oauth_installed_locations, client, &params, into, error);
    const char *next = list.page.next_page_token;
    bool is_last = list.has_next_page != NULL && strcmp(list.has_next_page, "false") == 0;
    if (is_last || (next != NULL && next[0] == '\0')) {
        list.page.next_page_token = NULL;
    }
    *out = list.page;
    out->count = 0;
    for (size_t i = 0; i < list.page.count; i++) {
        /* No call accepts a location without an ID. */
        if (list.page.items[i].id != NULL && list.page.items[i].id[0] != '\0') {
            out->items[out->count++] = list.page.items[i];
        }
    }
    return status;
}

int32_t ghl_typed_tokens_mint(ghl_client *client, const ghl_mint_request *request,
                              ghl_progress_callback progress, void *context, ghl_mint_report *out,
                              ghl_error *error) {
    writer params = {NULL, 0, 0, false};
    begin(out, sizeof *out, error);
    put_text(&params, "companyId", request->company_id);
    if (request->location_ids != NULL) {
        put_name(&params, "locationIds");
        put(&params, "[", 1);
        for (size_t i = 0; i < request->location_count; i++) {
            put(&params, ",", i > 0 ? 1 : 0);
            put_quoted(&params, request->location_ids[i], strlen(request->location_ids[i]));
        }
        put(&params, "]", 1);
    }
    put_flag(&params, "installed", request->installed);
    put_text(&params, "appId", request->app_id);
    put_flag(&params, "force", request->force);
    put_number(&params, "concurrency", request->concurrency);
    put_options(&params, &request->call);
    return call_long(ghl_tokens_mint, client, &params, progress, context,
                     INTO(MINT_REPORT_DOCUMENT, out), error);
}

int32_t ghl_typed_request(ghl_client *client, const ghl_api_request *request, ghl_api_response *out,
                          ghl_error *error) {
    writer params = {NULL, 0, 0, false};
    begin(out, sizeof *out, error);
    put_text(&params, "method", request->method);
    put_text(&params, "path", request->path);
    put_text(&params, "resourceId", request->resource_id);
    put_parameters(&params, request->query, request->query_count);
    put_name(&params, "headers");
    put(&params, "{", 1);
    put_headers(&params, request->headers, request->header_count);
    put(&params, "}", 1);
    if (request->idempotent != 0) {
        put_name(&params, "idempotent");
        put(&params, request->idempotent > 0 ? "true" : "false", request->idempotent > 0 ? 4 : 5);
    }
    if (request->no_retry) {
        put_name(&params, "retry");
        put(&params, "false", 5);
    }
    put_text(&params, "body", request->body);
    put_base64(&params, "bodyBase64", request->bytes, request->byte_count);
    put_options(&params, &request->call);
    return call(ghl_request, client, &params, INTO(RESPONSE_DOCUMENT, out), error);
}

int32_t ghl_typed_webhook_apply(ghl_client *client, const void *body, size_t body_length,
                                const ghl_header *headers, size_t header_count,
                                ghl_webhook_outcome *out, ghl_error *error) {
    return ghl_typed_webhook_apply_with(client, body, body_length, headers, header_count, NULL, out,
                                        error);
}

int32_t ghl_typed_webhook_apply_with(ghl_client *client, const void *body, size_t body_length,
                                     const ghl_header *headers, size_t header_count,
                                     const ghl_webhook_options *options, ghl_webhook_outcome *out,
                                     ghl_error *error) {
    writer given = {NULL, 0, 0, false}, params = {NULL, 0, 0, false};
    begin(out, sizeof *out, error);
    put(&given, "{", header_count > 0 ? 1 : 0);
    put_headers(&given, headers, header_count);
    if (options != NULL) {
        if (options->no_mint) {
            put_name(&params, "mint");
            put(&params, "false", 5);
        }
        put_options(&params, &options->call);
    }
    int32_t status;
    bool is_whole = end(&given);
    if (end(&params) && is_whole) {
        char *document;
        status = ghl_webhook_apply_with(client, body, body_length, given.text, params.text,
                                        &document);
        status = settle(status, document, INTO(WEBHOOK_OUTCOME_DOCUMENT, out), error);
    } else {
        status = out_of_memory(error);
    }
    discard(&given);
    discard(&params);
    return status;
}

int32_t ghl_typed_client_stats(ghl_client *client, ghl_statistics *out, ghl_error *error) {
    char *document;
    begin(out, sizeof *out, error);
    int32_t status = ghl_client_stats(client, &document);
    return settle(status, document, INTO(STATISTICS_DOCUMENT, out), error);
}

int32_t ghl_typed_client_metrics(ghl_client *client, const ghl_call_options *options,
                                 char **out_text, ghl_error *error) {
    writer params = {NULL, 0, 0, false};
    begin(out_text, sizeof *out_text, error);
    put_options(&params, options);
    int32_t status;
    if (end(&params)) {
        status = ghl_client_metrics(client, params.text, out_text);
        if (status != GHL_OK) {
            ghl_typed_error(status, *out_text, error);
            *out_text = NULL;
        }
    } else {
        status = out_of_memory(error);
    }
    discard(&params);
    return status;
}

/* ---- Clearing ------------------------------------------------------------------------------ */

void ghl_typed_error_clear(ghl_error *error) {
    ghl_string_free(error->document);
    memset(error, 0, sizeof *error);
}

void ghl_typed_link_clear(ghl_authorization_link *link) {
    ghl_string_free(link->document);
    memset(link, 0, sizeof *link);
}

void ghl_typed_token_info_clear(ghl_token_info *info) {
    ghl_string_free(info->document);
    memset(info, 0, sizeof *info);
}

void ghl_typed_token_info_page_clear(ghl_token_info_page *page) {
    free(page->items);
    free(page->failed);
    ghl_string_free(page->document);
    memset(page, 0, sizeof *page);
}

void ghl_typed_token_clear(ghl_token *token) {
    ghl_string_free(token->document);
    memset(token, 0, sizeof *token);
}

void ghl_typed_token_page_clear(ghl_token_page *page) {
    free(page->items);
    free(page->failed);
    ghl_string_free(page->document);
    memset(page, 0, sizeof *page);
}

void ghl_typed_import_report_clear(ghl_import_report *report) {
    free(report->skipped);
    free(report->accepted);
    ghl_string_free(report->document);
    memset(report, 0, sizeof *report);
}

void ghl_typed_adopt_report_clear(ghl_adopt_report *report) {
    free(report->skipped);
    free(report->failed);
    free(report->clients);
    ghl_string_free(report->document);
    memset(report, 0, sizeof *report);
}

void ghl_typed_maintain_report_clear(ghl_maintain_report *report) {
    free(report->failed);
    ghl_string_free(report->document);
    memset(report, 0, sizeof *report);
}

void ghl_typed_location_page_clear(ghl_location_page *page) {
    free(page->items);
    ghl_string_free(page->document);
    memset(page, 0, sizeof *page);
}

void ghl_typed_mint_report_clear(ghl_mint_report *report) {
    free(report->failed);
    ghl_string_free(report->document);
    memset(report, 0, sizeof *report);
}

void ghl_typed_api_response_clear(ghl_api_response *response) {
    free(response->headers);
    free(response->set_cookies);
    ghl_string_free(response->document);
    memset(response, 0, sizeof *response);
}

void ghl_typed_webhook_outcome_clear(ghl_webhook_outcome *outcome) {
    ghl_string_free(outcome->document);
    memset(outcome, 0, sizeof *outcome);
}

void ghl_typed_statistics_clear(ghl_statistics *statistics) {
    free(statistics->failed_by_status);
    free(statistics->busiest);
    ghl_string_free(statistics->document);
    memset(statistics, 0, sizeof *statistics);
}
