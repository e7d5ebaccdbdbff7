/*
 * ghl-oauth for C++17 and later: a header-only wrapper of ghl_oauth.h.
 *
 *     ghl::config config("<client id>", "<client secret>");
 *     config.store = ghl::sqlite_store("tokens.db");
 *     ghl::client client(config);
 *     ghl::secret token = client.access_token("<a company ID or location ID>");
 *     send("Authorization: Bearer ", token.view());
 *
 * Errors.  Functions of ghl::client throw a ghl::error; each status has its own class, such as
 *     ghl::rate_limited. The functions of client.checked() and of ghl::checked_client return a
 *     ghl::result instead of throwing ghl::error. With -fno-exceptions, only these exist.
 *
 * Strings.  Arguments are read only during the call. Results own their memory: std::string, and
 *     ghl::secret, which wipes it. A std::optional is empty if the API or the library gives no
 *     value. `raw` is the complete JSON of a result, for a JSON library of your choice.
 *
 * Threads.  A client is thread-safe; destroy it or move from it only while no call runs. Results
 *     are plain values. A range over pages must be used by one thread, within its client's
 *     lifetime.
 *
 * Callbacks.  Listeners run on a thread that is inside a call, with no lock held. They may use the
 *     client, but not destroy it. An exception from a progress listener stops the operation and
 *     propagates to the caller. An exception from an event or log listener goes to the error
 *     handler registered with the listener, or is ignored; it does not affect the call.
 *
 * Stores.  A class derived from ghl::store keeps the tokens elsewhere:
 *     ghl::client client(config, std::make_unique<my_store>());
 *
 * ghl_oauth.h documents each call (parameters, defaults, blocking, errors) at the function of the
 * same name.
 */
#ifndef GHL_OAUTH_HPP
#define GHL_OAUTH_HPP

#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <functional>
#include <initializer_list>
#include <iosfwd>
#include <iterator>
#include <limits>
#include <map>
#include <memory>
#include <mutex>
#include <new>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "ghl_oauth.h"

#if defined(__cpp_exceptions) || defined(_CPPUNWIND)
#define GHL_OAUTH_EXCEPTIONS 1
#else
#define GHL_OAUTH_EXCEPTIONS 0
#endif

// The inline namespace depends on the header version and on exceptions, so that translation units
// with different settings can be linked into one program.
#define GHL_OAUTH_JOIN_(major, minor, patch, kind) v##major##_##minor##_##patch##kind
#define GHL_OAUTH_JOIN(major, minor, patch, kind) GHL_OAUTH_JOIN_(major, minor, patch, kind)
#if GHL_OAUTH_EXCEPTIONS
#define GHL_OAUTH_NAMESPACE \
    GHL_OAUTH_JOIN(GHL_OAUTH_VERSION_MAJOR, GHL_OAUTH_VERSION_MINOR, GHL_OAUTH_VERSION_PATCH, )
#else
#define GHL_OAUTH_NAMESPACE                                                                   \
    GHL_OAUTH_JOIN(GHL_OAUTH_VERSION_MAJOR, GHL_OAUTH_VERSION_MINOR, GHL_OAUTH_VERSION_PATCH, \
                   _unthrown)
#endif

namespace ghl {
inline namespace GHL_OAUTH_NAMESPACE {

// ---- Secrets ------------------------------------------------------------------------------------

namespace detail {

// Overwrites the bytes; the compiler must not optimize this away.
inline void wipe(char *bytes, std::size_t size) noexcept {
#if defined(__GNUC__) || defined(__clang__)
    if (size > 0) {
        std::memset(bytes, 0, size);
        __asm__ __volatile__("" : : "r"(bytes) : "memory");
    }
#else
    for (volatile char *at = bytes; size > 0; --size) {
        *at++ = '\0';
    }
#endif
}

// A string that wipes its memory when it grows and when it is destroyed. Always NUL-terminated.
class wiped_text {
public:
    wiped_text() noexcept = default;
    wiped_text(const wiped_text &other) { append(other.view()); }
    wiped_text(wiped_text &&other) noexcept
        : bytes_(std::move(other.bytes_)), size_(std::exchange(other.size_, 0)),
          room_(std::exchange(other.room_, 0)) {}
    wiped_text &operator=(wiped_text other) noexcept {
        std::swap(bytes_, other.bytes_);
        std::swap(size_, other.size_);
        std::swap(room_, other.room_);
        return *this;
    }
    ~wiped_text() { wipe(bytes_.get(), size_); }

    std::string_view view() const noexcept { return {c_str(), size_}; }
    const char *c_str() const noexcept { return bytes_ ? bytes_.get() : ""; }
    std::size_t size() const noexcept { return size_; }

    // Reserves capacity in bytes, including the NUL.
    void reserve(std::size_t room) {
        if (room <= room_) {
            return;
        }
        std::unique_ptr<char[]> more(new char[room]);
        if (size_ > 0) {
            std::memcpy(more.get(), bytes_.get(), size_);
            wipe(bytes_.get(), size_);
        }
        bytes_ = std::move(more);
        bytes_[size_] = '\0';
        room_ = room;
    }
    void append(std::string_view text) {
        if (room_ - size_ <= text.size()) {
            reserve((size_ + text.size() + 1) * 2);
        }
        if (!text.empty()) {
            std::memcpy(bytes_.get() + size_, text.data(), text.size());
        }
        size_ += text.size();
        bytes_[size_] = '\0';
    }
    void push_back(char byte) { append({&byte, 1}); }
    void clear() noexcept {
        wipe(bytes_.get(), size_);
        size_ = 0;
    }

    // The buffer for an external writer, which must call written() with the new size.
    char *buffer() noexcept { return bytes_.get(); }
    std::size_t room() const noexcept { return room_; }
    void written(std::size_t size) noexcept {
        if (size < size_) {
            wipe(bytes_.get() + size, size_ - size);
        }
        size_ = size;
    }

private:
    std::unique_ptr<char[]> bytes_;
    std::size_t size_ = 0, room_ = 0;
};

struct access;

} // namespace detail

// A token or another secret. The string is overwritten before its memory is freed, and so is each
// copy. It cannot be printed by accident: call view() to read it.
class secret {
public:
    secret() noexcept = default;
    explicit secret(std::string_view text) { text_.append(text); }
    secret &operator=(std::string_view text) {
        text_ = secret(text).text_;
        return *this;
    }

    // The string, valid until this object changes or is destroyed. Deleted for temporaries.
    std::string_view view() const & noexcept { return text_.view(); }
    std::string_view view() const && = delete;
    const char *c_str() const & noexcept { return text_.c_str(); }
    const char *c_str() const && = delete;
    operator std::string_view() const & noexcept { return text_.view(); }
    operator std::string_view() const && = delete;

    std::size_t size() const noexcept { return text_.size(); }
    bool empty() const noexcept { return text_.size() == 0; }
    friend std::ostream &operator<<(std::ostream &, const secret &) = delete;

private:
    friend struct detail::access;
    detail::wiped_text text_;
};

// ---- Errors -------------------------------------------------------------------------------------

// The status codes, equal to GHL_OK and GHL_ERR_*. A newer library may return other values.
enum class status : std::int32_t {
    ok = GHL_OK,
    invalid_argument = GHL_ERR_INVALID_ARGUMENT,
    config = GHL_ERR_CONFIG,
    not_found = GHL_ERR_NOT_FOUND,
    reauthorization_required = GHL_ERR_REAUTHORIZATION_REQUIRED,
    location_inactive = GHL_ERR_LOCATION_INACTIVE,
    unauthorized = GHL_ERR_UNAUTHORIZED,
    forbidden = GHL_ERR_FORBIDDEN,
    invalid_request = GHL_ERR_INVALID_REQUEST,
    rate_limited = GHL_ERR_RATE_LIMITED,
    network = GHL_ERR_NETWORK,
    timeout = GHL_ERR_TIMEOUT,
    server = GHL_ERR_SERVER,
    protocol = GHL_ERR_PROTOCOL,
    store = GHL_ERR_STORE,
    cancelled = GHL_ERR_CANCELLED,
    state_mismatch = GHL_ERR_STATE_MISMATCH,
    consent_denied = GHL_ERR_CONSENT_DENIED,
    signature_invalid = GHL_ERR_SIGNATURE_INVALID,
    internal = GHL_ERR_INTERNAL,
    buffer_too_small = GHL_ERR_BUFFER_TOO_SMALL,
    conflict = GHL_ERR_CONFLICT,
};

// The name of a status, such as "GHL_ERR_RATE_LIMITED".
inline const char *status_name(status code) noexcept {
    return ghl_status_name(static_cast<std::int32_t>(code));
}

// The error details from the API's response.
struct api_failure {
    std::optional<std::string> code;
    std::optional<std::string> message;
    std::optional<std::string> details; // JSON
    std::optional<std::string> resolution;
};

// An error: the cause, the resource, and what to do. Never contains a secret.
struct failure {
    ghl::status status = ghl::status::internal;
    std::string message;                                  // the cause
    std::optional<std::string> help;                      // what to do
    std::optional<std::string> parameter;                 // the wrong argument or key
    bool retryable = false;   // the same call may succeed later, and may be repeated
    std::optional<bool> sent; // whether the server may have acted; empty: no request is involved
    std::optional<std::chrono::milliseconds> retry_after; // how long to wait
    std::optional<std::string> resource_id;               // the company or location
    std::optional<int> http_status;                       // of the API's response
    std::optional<std::string> trace_id;                  // the API's request ID, for support
    std::optional<api_failure> api;                       // the API's error details
    std::string raw;                                      // JSON

    // A one-line summary for logs.
    std::string text() const {
        std::string line = std::string(status_name(status)) + ": " + message;
        if (resource_id) {
            line += " [resource " + *resource_id + "]";
        }
        if (help) {
            line += " (" + *help + ")";
        }
        return line;
    }
};

// The base class of all exceptions that the library throws; each status has its own class below.
// what() returns failure::text().
class error : public std::exception {
public:
    explicit error(ghl::failure what) : held_(std::make_shared<const held>(std::move(what))) {}
    const char *what() const noexcept override { return held_->text.c_str(); }
    const ghl::failure &failure() const noexcept { return held_->failure; }

    ghl::status code() const noexcept { return failure().status; }
    const std::string &message() const noexcept { return failure().message; }
    const std::optional<std::string> &help() const noexcept { return failure().help; }
    const std::optional<std::string> &parameter() const noexcept { return failure().parameter; }
    bool retryable() const noexcept { return failure().retryable; }
    std::optional<bool> sent() const noexcept { return failure().sent; }
    std::optional<std::chrono::milliseconds> retry_after() const noexcept {
        return failure().retry_after;
    }
    const std::optional<std::string> &resource_id() const noexcept { return failure().resource_id; }
    std::optional<int> http_status() const noexcept { return failure().http_status; }
    const std::optional<std::string> &trace_id() const noexcept { return failure().trace_id; }
    const std::optional<api_failure> &api() const noexcept { return failure().api; }

private:
    struct held {
        explicit held(ghl::failure what) : failure(std::move(what)), text(failure.text()) {}
        ghl::failure failure;
        std::string text;
    };
    std::shared_ptr<const held> held_; // copying an exception must not fail
};

template <status Status> class error_of : public error {
public:
    using error::error;
};

using invalid_argument = error_of<status::invalid_argument>;
using config_error = error_of<status::config>;
using not_found = error_of<status::not_found>;
using reauthorization_required = error_of<status::reauthorization_required>;
using location_inactive = error_of<status::location_inactive>;
using unauthorized = error_of<status::unauthorized>;
using forbidden = error_of<status::forbidden>;
using invalid_request = error_of<status::invalid_request>;
using rate_limited = error_of<status::rate_limited>;
using network_error = error_of<status::network>;
using timeout = error_of<status::timeout>;
using server_error = error_of<status::server>;
using protocol_error = error_of<status::protocol>;
using store_error = error_of<status::store>;
using cancelled = error_of<status::cancelled>;
using state_mismatch = error_of<status::state_mismatch>;
using consent_denied = error_of<status::consent_denied>;
using signature_invalid = error_of<status::signature_invalid>;
using internal_error = error_of<status::internal>;
using buffer_too_small = error_of<status::buffer_too_small>;
using conflict = error_of<status::conflict>;

namespace detail {

#if GHL_OAUTH_EXCEPTIONS
template <std::int32_t... Codes>
[[noreturn]] void raise_as(failure what, std::integer_sequence<std::int32_t, Codes...>) {
    const auto code = static_cast<std::int32_t>(what.status);
    ((code == Codes ? throw error_of<static_cast<status>(Codes)>(std::move(what)) : void()), ...);
    throw error(std::move(what));
}

[[noreturn]] inline void raise(failure what) {
    raise_as(std::move(what), std::make_integer_sequence<std::int32_t, GHL_ERR_CONFLICT + 1>());
}
#else
[[noreturn]] inline void raise(const failure &) { std::abort(); }
#endif

} // namespace detail

// A value or a failure. value() throws the failure; without exceptions it calls std::abort().
template <class T> class [[nodiscard]] result {
public:
    using value_type = T;
    result(T value) : either_(std::in_place_index<0>, std::move(value)) {}
    result(failure why) : either_(std::in_place_index<1>, std::move(why)) {}
    // Converts from types that convert to T, such as a string or std::nullopt for
    // result<std::optional<std::string>>.
    template <class From, class = std::enable_if_t<std::is_convertible_v<From, T> &&
                                                   !std::is_convertible_v<From, failure> &&
                                                   !std::is_same_v<std::decay_t<From>, result>>>
    result(From &&value) : either_(std::in_place_index<0>, std::forward<From>(value)) {}

    bool has_value() const noexcept { return either_.index() == 0; }
    explicit operator bool() const noexcept { return has_value(); }

    // Requires a value.
    T &operator*() & noexcept { return *std::get_if<0>(&either_); }
    const T &operator*() const & noexcept { return *std::get_if<0>(&either_); }
    T &&operator*() && noexcept { return std::move(*std::get_if<0>(&either_)); }
    T *operator->() noexcept { return std::get_if<0>(&either_); }
    const T *operator->() const noexcept { return std::get_if<0>(&either_); }

    // Requires a failure.
    const failure &error() const & noexcept { return *std::get_if<1>(&either_); }
    failure &&error() && noexcept { return std::move(*std::get_if<1>(&either_)); }

    T &value() & {
        check();
        return **this;
    }
    const T &value() const & {
        check();
        return **this;
    }
    T value() && {
        check();
        return std::move(**this);
    }
    T value_or(T other) && { return has_value() ? std::move(**this) : std::move(other); }

private:
    void check() const {
        if (!has_value()) {
            detail::raise(error());
        }
    }
    std::variant<T, failure> either_;
};

template <> class [[nodiscard]] result<void> {
public:
    using value_type = void;
    result() noexcept = default;
    result(failure why) : why_(std::move(why)) {}
    bool has_value() const noexcept { return !why_; }
    explicit operator bool() const noexcept { return has_value(); }
    const failure &error() const & noexcept { return *why_; }
    failure &&error() && noexcept { return *std::move(why_); }
    void value() const {
        if (why_) {
            detail::raise(*why_);
        }
    }

private:
    std::optional<failure> why_;
};

// ---- Custom stores ------------------------------------------------------------------------------

// The failure that a function of a ghl::store returns. If load or list returns it, the caller's
// error contains this message, so the message must not contain a secret.
inline failure store_failure(std::string words) {
    failure why;
    why.status = status::store;
    why.message = std::move(words);
    return why;
}

// The failure that ghl::store::save returns if the stored version is not the expected one.
inline failure store_conflict() {
    failure why;
    why.status = status::conflict;
    why.message = "the stored record has another version";
    return why;
}

// A custom token store. ghl_store_callbacks in ghl_oauth.h describes the records and queries; a
// store needs to read only the "version" of a record.
//
// Errors. Return a failure or throw any exception; exceptions do not pass through the library. The
// client's call then fails with status::store. Its message contains the message from load or list,
// unless that looks like JSON; for save, remove and lock it contains only the status. Tokens that
// could not be saved stay in memory, and saving is retried.
//
// Threads. The functions may be called concurrently, from threads that call the client and from
// worker threads of tokens_mint and tokens_maintain. They must not call the client that they serve,
// except cancel(); other calls are refused. They must not destroy it. Other clients may be used.
// String arguments are valid until the function returns.
//
// Ownership. The client owns its store. It destroys the store once, on the thread that destroys the
// client or fails to create it, while no function runs. In a forked child, the store keeps serving
// the client but is not destroyed.
class store {
public:
    store() = default;
    store(const store &) = delete;
    store &operator=(const store &) = delete;
    virtual ~store() = default;

    // Returns the record of an ID, or std::nullopt if it does not exist. The header wipes the
    // returned string.
    virtual result<std::optional<std::string>> load(std::string_view id) = 0;

    // Compare-and-swap: saves a record if the stored version equals the expected one (0: no
    // record), otherwise returns store_conflict(). The comparison and the write must be atomic
    // across threads and processes, and the record must be durable when the function returns,
    // because the token that it replaces is no longer valid.
    virtual result<void> save(std::string_view id, std::string_view record,
                              std::uint64_t expected_version) = 0;

    // Removes a record; succeeds even if it does not exist.
    virtual result<void> remove(std::string_view id) = 0;

    // Returns a page of records: {"items": [records…], "nextPageToken": …}. A small store may
    // ignore the query and return all records and null. The header wipes the returned string.
    virtual result<std::string> list(std::string_view query_json) = 0;

    // Whether the store has a lock that all its users share. Called once, when the client is
    // created. Without a lock, only threads of this process are synchronized: two processes that
    // refresh the same token can lose it.
    virtual bool has_lock() const { return false; }

    // Acquires the lock of an ID; returns false on timeout. The lock must be released if its owner
    // dies.
    virtual result<bool> lock(std::string_view id, std::chrono::milliseconds longest) {
        (void)id, (void)longest;
        return store_failure("this store has no lock");
    }

    // Releases the lock, on the thread that acquired it.
    virtual void unlock(std::string_view id) { (void)id; }
};

namespace detail {

// Adapts a ghl::store to ghl_store_callbacks; the context of its callbacks.
struct store_frame {
    static ghl_store_callbacks callbacks(store &of) {
        ghl_store_callbacks table{};
        table.size = sizeof table;
        table.load = load;
        table.save = save;
        table.remove = remove;
        table.list = list;
        if (of.has_lock()) {
            table.lock = lock;
            table.unlock = unlock;
        }
        table.free_string = free_string;
        table.destroy = destroy;
        table.context = &of;
        return table;
    }

private:
    static store &own(void *context) noexcept { return *static_cast<store *>(context); }

    // Copies a string for the library, which frees it with free_string. Strings with a NUL are
    // refused.
    static std::int32_t hand_out(std::string_view text, char **out) noexcept {
        char *const copy = text.find('\0') == std::string_view::npos
                               ? new (std::nothrow) char[text.size() + 1]
                               : nullptr;
        if (copy == nullptr) {
            return GHL_ERR_STORE;
        }
        if (!text.empty()) {
            std::memcpy(copy, text.data(), text.size());
        }
        copy[text.size()] = '\0';
        *out = copy;
        return GHL_OK;
    }
    static std::int32_t hand_out(std::string &&text, char **out) noexcept {
        const std::int32_t code = hand_out(std::string_view(text), out);
        wipe(text.data(), text.size());
        return code;
    }
    static void explain(std::string_view words, char **out) noexcept {
        if (out != nullptr) {
            hand_out(words, out);
        }
    }
    static std::int32_t failed(const failure &why, char **out) noexcept {
        explain(why.message, out);
        return why.status == status::ok ? GHL_ERR_STORE : static_cast<std::int32_t>(why.status);
    }

    // Runs a store function without letting an exception out. Returns a status, and a message in
    // `out` if given.
    template <class Work> static std::int32_t guarded(char **out, Work work) noexcept {
        if (out != nullptr) {
            *out = nullptr;
        }
#if GHL_OAUTH_EXCEPTIONS
        try {
            return work();
        } catch (const std::exception &thrown) {
            explain(thrown.what(), out);
        } catch (...) {
            explain("it threw an exception that is not a std::exception", out);
        }
        return GHL_ERR_STORE;
#else
        return work();
#endif
    }

    static std::int32_t load(void *context, const char *id, char **out) noexcept {
        return guarded(out, [&]() -> std::int32_t {
            result<std::optional<std::string>> record = own(context).load(id);
            if (!record) {
                return failed(record.error(), out);
            }
            return *record ? hand_out(std::move(**record), out) : GHL_OK;
        });
    }
    static std::int32_t save(void *context, const char *id, const char *record,
                             std::uint64_t expected_version) noexcept {
        return guarded(nullptr, [&]() -> std::int32_t {
            const result<void> saved = own(context).save(id, record, expected_version);
            return saved ? GHL_OK : failed(saved.error(), nullptr);
        });
    }
    static std::int32_t remove(void *context, const char *id) noexcept {
        return guarded(nullptr, [&]() -> std::int32_t {
            const result<void> removed = own(context).remove(id);
            return removed ? GHL_OK : failed(removed.error(), nullptr);
        });
    }
    static std::int32_t list(void *context, const char *query, char **out) noexcept {
        return guarded(out, [&]() -> std::int32_t {
            result<std::string> page = own(context).list(query);
            return page ? hand_out(std::move(*page), out) : failed(page.error(), out);
        });
    }
    static std::int32_t lock(void *context, const char *id, std::uint64_t timeout_ms) noexcept {
        return guarded(nullptr, [&]() -> std::int32_t {
            // Upper limit, so that no deadline overflows.
            constexpr std::uint64_t longest = 1000ULL * 60 * 60 * 24 * 365;
            const auto timeout = static_cast<std::int64_t>((std::min)(timeout_ms, longest));
            const result<bool> locked = own(context).lock(id, std::chrono::milliseconds(timeout));
            if (!locked) {
                return failed(locked.error(), nullptr);
            }
            return *locked ? GHL_OK : GHL_ERR_TIMEOUT;
        });
    }
    static void unlock(void *context, const char *id) noexcept {
        guarded(nullptr, [&]() -> std::int32_t {
            own(context).unlock(id);
            return GHL_OK;
        });
    }
    static void free_string(void *, char *text) noexcept {
        wipe(text, std::strlen(text));
        delete[] text;
    }
    static void destroy(void *context) noexcept { delete &own(context); }
};

} // namespace detail

// ---- Results ------------------------------------------------------------------------------------

// A time of the system clock. Times outside its range are clamped.
using time_point = std::chrono::time_point<std::chrono::system_clock, std::chrono::milliseconds>;

// The link to the consent page.
struct authorization_link {
    std::string url;
    std::string state; // the redirect's state parameter
    std::string raw;
};

// The last failed renewal of a token.
struct last_failure {
    std::optional<time_point> first_at; // the first failure since the last success
    std::optional<time_point> at;       // the newest failure
    std::int64_t attempts = 0;          // failed attempts since the last success
    ghl::status status = ghl::status::internal;
    std::string message; // the server's message, or the error's; at most 200 bytes
    std::optional<int> http_status;
    std::optional<std::string> trace_id;       // of the server's response, for support
    std::optional<time_point> next_attempt_at; // empty: only a consent or an import helps
};

// A stored token without its secrets.
struct token_info {
    std::string resource_id; // the ID for access_token
    std::string user_type;   // "Company" or "Location"
    std::optional<std::string> company_id;
    std::optional<std::string> location_id;
    std::optional<std::string> scope; // separated by spaces
    std::optional<time_point> expires_at;
    bool refreshable = false; // renewable without user consent
    // "ok", "inactive", "reauthorizationRequired", "unsaved", or "unreadable" (a deleted record of
    // which only the ID is known). Later versions of the library may add states.
    std::string state;
    std::string raw;
    std::optional<time_point> last_success_at = {}; // empty: unknown, as after an import
    std::optional<ghl::last_failure> last_failure = {}; // empty: the last renewal succeeded
};

// A token with its secrets.
struct token {
    secret access_token;
    std::optional<secret> refresh_token; // single-use
    std::optional<time_point> expires_at;
    std::optional<std::string> user_type;
    std::optional<std::string> company_id;
    std::optional<std::string> location_id;
    std::optional<std::string> scope;
    secret raw;
};

// A location of a company.
struct location {
    std::string id;
    std::optional<std::string> name;
    std::optional<std::string> address;
    std::optional<std::string> version_id;   // the app's installed version
    std::optional<std::string> installed_at; // an ISO 8601 time
    std::optional<bool> is_installed;
    std::string raw;
};

// A location whose token could not be minted, or a stored token that could not be read.
struct failed_token {
    std::string resource_id;
    failure error;
};

// One page of a list.
template <class T> struct page {
    std::vector<T> items;
    std::optional<std::string> next_page_token; // empty on the last page
    std::optional<std::int64_t> total;          // of all pages, if the API reports it
    std::conditional_t<std::is_same_v<T, token>, secret, std::string> raw;
    std::vector<failed_token> failed = {}; // unreadable stored tokens of this page
};

// A token that an import skipped.
struct skipped_token {
    std::int64_t index = 0; // index in the input
    std::optional<std::string> resource_id;
    std::string reason;
};

// A token that an import would store.
struct accepted_token {
    std::int64_t index = 0; // index in the input
    std::string resource_id;
    bool replaces = false; // a token is stored already
};

struct import_report {
    std::int64_t imported = 0;
    std::vector<skipped_token> skipped;
    std::string raw;
    std::vector<accepted_token> accepted = {}; // of a dry run
};

// Another client ID that has tokens in the same database.
struct other_client {
    std::string client_id;
    std::int64_t tokens = 0; // the number of its tokens
};

// A token that an adoption skipped.
struct unadopted_token {
    std::string resource_id;
    std::string reason;
};

struct adoption_report {
    std::int64_t adopted = 0;
    std::vector<unadopted_token> skipped;
    std::vector<failed_token> failed;  // stored tokens that cannot be read
    std::vector<other_client> clients; // client ids that have tokens now
    std::string raw;
};

// A token that could not be refreshed, or a failure to re-encrypt tokens.
struct maintenance_failure {
    std::optional<std::string> resource_id; // empty: not about a single token
    failure error;
};

struct maintenance_progress {
    std::int64_t checked = 0; // processed
    std::int64_t refreshed = 0;
    std::int64_t resealed = 0;
    std::int64_t failed = 0;
    std::string raw;
};

struct maintenance_report {
    std::int64_t checked = 0; // number of tokens that were due
    std::int64_t refreshed = 0;
    std::int64_t resealed = 0; // re-encrypted with the first encryption key
    std::int64_t unsealed = 0; // not re-encrypted: undecryptable or changed concurrently
    std::vector<maintenance_failure> failed;
    std::optional<time_point> next_due_at; // when the next token is due
    std::string raw;
};

struct mint_progress {
    std::int64_t done = 0;
    std::int64_t failed = 0;
    std::optional<std::int64_t> total;
    double per_second = 0;
    std::optional<std::chrono::seconds> time_left;
    std::string raw;
};

struct mint_report {
    std::int64_t total = 0;
    std::int64_t minted = 0;
    std::int64_t fresh = 0; // skipped because not due
    std::vector<failed_token> failed;
    std::string raw;
};

// Headers or query parameters: names with values, in order; names may repeat. Names are
// case-insensitive.
class headers {
public:
    using pair = std::pair<std::string, std::string>;
    headers() = default;
    headers(std::initializer_list<pair> pairs) : pairs_(pairs) {}
    // From a map, a multimap, or another range of string pairs.
    template <class Pairs,
              class = decltype(std::string(std::begin(std::declval<const Pairs &>())->second))>
    headers(const Pairs &pairs) {
        for (const auto &[name, value] : pairs) {
            add(std::string(name), std::string(value));
        }
    }

    void add(std::string name, std::string value) {
        pairs_.emplace_back(std::move(name), std::move(value));
    }
    // The first value of a name.
    std::optional<std::string> find(std::string_view name) const {
        for (const pair &header : pairs_) {
            if (same(header.first, name)) {
                return header.second;
            }
        }
        return std::nullopt;
    }
    auto begin() const noexcept { return pairs_.begin(); }
    auto end() const noexcept { return pairs_.end(); }
    std::size_t size() const noexcept { return pairs_.size(); }

    static bool same(std::string_view one, std::string_view other) noexcept {
        const auto lower = [](char byte) {
            return byte >= 'A' && byte <= 'Z' ? static_cast<char>(byte + 32) : byte;
        };
        return std::equal(one.begin(), one.end(), other.begin(), other.end(),
                          [&](char a, char b) { return lower(a) == lower(b); });
    }

private:
    std::vector<pair> pairs_;
};

// A response of the API with any status.
struct api_response {
    enum class encoding { json, text, bytes };
    int status = 0;
    ghl::headers headers; // names in lower case
    std::string body;     // JSON, text or bytes
    encoding body_encoding = encoding::text;
    std::vector<std::string> set_cookies; // each Set-Cookie by itself; `headers` joins them
    std::string raw;

    bool ok() const noexcept { return status >= 200 && status < 300; }
};

// A webhook with a valid signature.
struct webhook {
    std::optional<std::string> type; // "INSTALL", "ContactCreate" and so on
    std::optional<std::string> webhook_id;
    std::optional<time_point> timestamp;
    std::string scheme;     // "ed25519" or "rsa-sha256"
    int key_index = 0;      // index among the configured keys of that scheme
    std::string payload;    // JSON
    std::string raw;
};

// The effect of a webhook.
struct webhook_outcome {
    std::optional<std::string> type;
    std::optional<std::string> resource_id;
    bool applied = false;
    std::optional<std::string> reason; // why not, or what is pending
    std::string raw;
};

// An event of a token.
struct event {
    std::string type; // e.g. "token.refreshed"; listed at ghl_event_callback
    std::string resource_id;
    std::optional<time_point> at;
    std::optional<time_point> expires_at;
    std::optional<failure> error;
    std::string raw;
    // For "token.refreshFailed" and "token.reauthorizationRequired".
    std::optional<ghl::last_failure> last_failure = {};
};

// Statistics of a client in this process, since it was created.
struct statistics {
    struct busy_resource {
        std::string resource_id;
        std::int64_t in_window = 0, requests = 0; // sent in the current window; its limit
        std::chrono::milliseconds window{0};
        std::int64_t today = 0, per_day = 0;               // sent today; the limit
        std::int64_t waiting = 0;                          // waiting calls
        std::optional<std::chrono::milliseconds> held_for; // how long a 429 still blocks
    };
    std::string version; // of the library
    struct {
        std::int64_t sent = 0;         // attempts, including repetitions
        std::int64_t repeated = 0;     // attempts that were repetitions
        std::int64_t unanswered = 0;   // attempts without a response
        std::int64_t rate_limited = 0; // responses with status 429
    } requests;
    struct {
        std::int64_t in_memory = 0; // access tokens in memory now
        std::int64_t unsaved = 0;   // new tokens that the store has not accepted yet
        std::int64_t refreshed = 0; // successful refreshes
        std::int64_t minted = 0;    // location tokens minted
        std::int64_t failed = 0;    // failed refreshes and mints
        std::map<std::string, std::int64_t> failed_by_status; // GHL_ERR_…; without zeros
    } tokens;
    struct {
        std::int64_t resources = 0; // companies and locations that the rate limiter tracks
        std::int64_t waiting = 0;   // calls that wait for it now
        std::int64_t held = 0;      // companies and locations that a 429 blocks now
        std::vector<busy_resource> busiest; // at most 20: blocked ones first, then the busiest
    } pace;
    std::string raw;
};

// ---- Parameters: empty fields select the library's defaults ------------------------------------

// The token store.
struct store_options {
    std::string kind;
    std::string path;
    secret url; // may hold a password
    std::string ca_bundle_path;
    std::vector<secret> encryption_keys; // base64; the first encrypts, all decrypt
    std::string encryption_keys_path;    // a file with such keys, instead
    bool sealed_only = false;
};

// In memory: tokens are lost when the client is destroyed. The default.
inline store_options memory_store() {
    store_options options;
    options.kind = "memory";
    return options;
}
// In an SQLite file.
inline store_options sqlite_store(std::string path) {
    store_options options;
    options.kind = "sqlite";
    options.path = std::move(path);
    return options;
}
// In a PostgreSQL database, if the library was built with PostgreSQL.
inline store_options postgres_store(std::string_view url) {
    store_options options;
    options.kind = "postgres";
    options.url = url;
    return options;
}

// The configuration; docs/configuration.md describes each key.
struct config {
    config() = default;
    config(std::string_view id, std::string_view its_secret)
        : client_id(id), client_secret(its_secret) {}

    std::string client_id;
    secret client_secret;
    std::string client_secret_file; // instead of client_secret
    std::string redirect_uri;
    std::vector<std::string> scopes;
    std::string base_url;
    std::string authorize_url;
    std::string api_version;
    std::string token_request_encoding; // "form" or "json"
    std::optional<store_options> store;
    struct {
        std::optional<std::chrono::milliseconds> connect, answer, total;
    } timeouts;
    struct {
        std::optional<int> max_attempts;
        std::optional<std::chrono::milliseconds> base_delay, max_delay;
    } retry;
    struct {
        std::optional<std::int64_t> requests;
        std::optional<std::chrono::milliseconds> per;
        std::optional<std::int64_t> per_day;
    } rate_limit;
    struct {
        std::optional<std::chrono::seconds> margin;
        std::optional<int> runway_percent;
    } refresh;
    struct {
        std::optional<std::int64_t> response_bytes;
    } limits;
    struct {
        secret proxy; // its URL may hold a password
        std::string ca_bundle_path;
        std::string user_agent_suffix;
        bool allow_insecure_http = false;
        std::vector<std::string> no_proxy; // hosts, ".suffixes", addresses, networks, or "*"
    } http;
    struct {
        std::vector<std::string> ed25519_public_keys, rsa_public_keys;
        std::optional<std::chrono::seconds> max_age;
    } webhook;
    // The page that authorization_listen shows in the browser: plain text, not HTML.
    struct {
        std::string language; // "en" or "es"
        std::string title, message;
        std::string failure_title, failure_message;
        std::string color; // "#rrggbb"
    } consent_page;

    // The JSON for ghl_client_new.
    secret json() const;
};

// Options of any call; see basic_calls::with.
struct call_options {
    // Ends the call after this time, 1 ms to 24 hours, instead of timeouts.totalMs. Not for
    // authorization_listen, which has its own.
    std::optional<std::chrono::milliseconds> timeout;
    std::string call_id; // for cancel; at most 256 bytes, shared by any number of calls
};

// Options of authorization_url.
struct authorization_options {
    std::vector<std::string> scopes;
    std::string redirect_uri;
    std::string version_id;
    bool login_in_same_tab = false;
    std::string state;
};

// Options of authorization_complete.
struct completion_options {
    std::string state; // the state stored for this browser session
    bool allow_missing_state = false;
    std::string redirect_uri;
    std::string user_type;
};

// Options of authorization_listen.
struct listen_options : completion_options {
    std::optional<int> port;
    std::optional<std::chrono::milliseconds> timeout;
};

// A filter for stored tokens.
struct token_filter {
    std::string company_id; // this company and its locations
    std::string user_type;  // "Company" or "Location"
    std::optional<int> page_size;
    std::string page_token; // start of the page
    std::string state = {}; // "ok", "inactive", "reauthorizationRequired" or "unsaved"
    bool failing = false;   // only tokens with a last_failure
    std::optional<time_point> expires_before = {};
};

// A filter for locations.
struct location_filter {
    std::string app_id;
    std::optional<int> page_size;
    std::string page_token; // start of the page
    std::string query;      // part of the name
    std::optional<bool> is_installed;
    std::optional<bool> restrict_to_user_locations;
    std::string version_id;
    std::optional<bool> on_trial;
    std::string plan_id;
    std::string location_id;
    secret access_token;    // of the company; default: the stored one
    bool installed = false; // only with the app, even if the server ignores is_installed
};

// A token request.
struct token_request {
    std::string grant_type; // "authorization_code", "refresh_token" or "client_credentials"
    secret code;
    secret refresh_token;
    std::string user_type;
    std::string redirect_uri;
    std::string client_id;
    secret client_secret;
};

// Options of webhook_apply.
struct webhook_options {
    bool mint = true; // false: an INSTALL is only remembered, and no request is sent
};

// Options of tokens_maintain.
struct maintenance_options {
    std::optional<int> concurrency; // concurrent refreshes
};

// Options of tokens_mint.
struct mint_options {
    std::optional<std::vector<std::string>> location_ids; // default: all locations with the app
    std::string app_id;
    bool force = false; // mint tokens that are not due as well
    std::optional<int> concurrency;
};

// An API request.
struct api_request {
    api_request() = default;
    api_request(std::string its_method, std::string its_path, std::string whose_token = {})
        : method(std::move(its_method)), path(std::move(its_path)),
          resource_id(std::move(whose_token)) {}

    std::string method; // "GET", "POST", …
    std::string path;   // begins with '/'
    std::string resource_id;
    std::vector<std::pair<std::string, std::string>> query; // unencoded; names may repeat
    ghl::headers headers;
    // Whether the server may process it more than once. Default: GET, HEAD and OPTIONS.
    std::optional<bool> idempotent;
    bool retry = true; // false: sent once, even after a 429 or 503

    // The body: JSON; text, sent as text/plain unless the headers set a type; or bytes.
    api_request &json(std::string_view text) { return with(kind::json, text); }
    api_request &text(std::string_view text) { return with(kind::text, text); }
    api_request &bytes(std::string_view bytes) { return with(kind::bytes, bytes); }

private:
    friend struct detail::access;
    enum class kind { none, json, text, bytes };
    api_request &with(kind what, std::string_view body) {
        body_kind_ = what;
        body_ = body;
        return *this;
    }
    kind body_kind_ = kind::none;
    secret body_;
};

// ---- JSON ---------------------------------------------------------------------------------------

namespace detail {

// Maximum nesting depth of a document.
constexpr std::size_t depth_limit = 256;

inline void skip_space(std::string_view &rest) noexcept {
    while (!rest.empty() &&
           (rest[0] == ' ' || rest[0] == '\t' || rest[0] == '\n' || rest[0] == '\r')) {
        rest.remove_prefix(1);
    }
}

// Consumes a string; `inside` is its content, still escaped.
inline bool take_text(std::string_view &rest, std::string_view &inside) noexcept {
    if (rest.empty() || rest[0] != '"') {
        return false;
    }
    for (std::size_t at = 1; at < rest.size(); ++at) {
        if (rest[at] == '"') {
            inside = rest.substr(1, at - 1);
            rest.remove_prefix(at + 1);
            return true;
        }
        if (rest[at] == '\\') {
            ++at;
        } else if (static_cast<unsigned char>(rest[at]) < 0x20) {
            return false;
        }
    }
    return false;
}

// Consumes a value. Iterative, so nesting uses no stack.
inline bool take_value(std::string_view &rest, std::string_view &value) noexcept {
    skip_space(rest);
    const std::string_view from = rest;
    std::array<char, depth_limit> ends{};
    std::size_t depth = 0;
    do {
        skip_space(rest);
        if (rest.empty()) {
            return false;
        }
        const char first = rest[0];
        std::string_view inside;
        if (first == '"') {
            if (!take_text(rest, inside)) {
                return false;
            }
        } else if (first == '{' || first == '[') {
            if (depth == depth_limit) {
                return false;
            }
            ends[depth++] = first == '{' ? '}' : ']';
            rest.remove_prefix(1);
        } else if (first == '}' || first == ']') {
            if (depth == 0 || ends[--depth] != first) {
                return false;
            }
            rest.remove_prefix(1);
        } else if (first == ',' || first == ':') {
            if (depth == 0) {
                return false;
            }
            rest.remove_prefix(1);
        } else {
            rest.remove_prefix((std::min)(rest.find_first_of(",:[]{}\" \t\n\r"), rest.size()));
        }
    } while (depth > 0);
    value = from.substr(0, from.size() - rest.size());
    return true;
}

// Consumes four hex digits.
inline bool take_unit(std::string_view &rest, std::uint32_t &unit) noexcept {
    if (rest.size() < 4) {
        return false;
    }
    unit = 0;
    for (const char digit : rest.substr(0, 4)) {
        const int worth = digit >= '0' && digit <= '9'   ? digit - '0'
                          : digit >= 'a' && digit <= 'f' ? digit - 'a' + 10
                          : digit >= 'A' && digit <= 'F' ? digit - 'A' + 10
                                                         : -1;
        if (worth < 0) {
            return false;
        }
        unit = unit << 4 | static_cast<std::uint32_t>(worth);
    }
    rest.remove_prefix(4);
    return true;
}

template <class Text> void append_utf8(Text &out, std::uint32_t point) {
    const auto put = [&](std::uint32_t byte) { out.push_back(static_cast<char>(byte)); };
    if (point < 0x80) {
        put(point);
    } else if (point < 0x800) {
        put(0xC0 | point >> 6);
        put(0x80 | (point & 0x3F));
    } else if (point < 0x10000) {
        put(0xE0 | point >> 12);
        put(0x80 | (point >> 6 & 0x3F));
        put(0x80 | (point & 0x3F));
    } else {
        put(0xF0 | point >> 18);
        put(0x80 | (point >> 12 & 0x3F));
        put(0x80 | (point >> 6 & 0x3F));
        put(0x80 | (point & 0x3F));
    }
}

// Appends the unescaped string. A lone surrogate becomes U+FFFD.
template <class Text> bool unescape(std::string_view inside, Text &out) {
    while (!inside.empty()) {
        const std::size_t plain = (std::min)(inside.find('\\'), inside.size());
        out.append(inside.substr(0, plain));
        inside.remove_prefix(plain);
        if (inside.empty()) {
            break;
        }
        if (inside.size() < 2) {
            return false;
        }
        const char escape = inside[1];
        inside.remove_prefix(2);
        switch (escape) {
        case 'b': out.push_back('\b'); break;
        case 'f': out.push_back('\f'); break;
        case 'n': out.push_back('\n'); break;
        case 'r': out.push_back('\r'); break;
        case 't': out.push_back('\t'); break;
        case '"': case '\\': case '/': out.push_back(escape); break;
        case 'u': {
            std::uint32_t point = 0, low = 0;
            if (!take_unit(inside, point)) {
                return false;
            }
            if (point >= 0xD800 && point < 0xDC00 && inside.substr(0, 2) == "\\u") {
                std::string_view behind = inside.substr(2);
                if (take_unit(behind, low) && low >= 0xDC00 && low < 0xE000) {
                    point = 0x10000 + ((point - 0xD800) << 10 | (low - 0xDC00));
                    inside = behind;
                }
            }
            append_utf8(out, point >= 0xD800 && point < 0xE000 ? 0xFFFD : point);
            break;
        }
        default: return false;
        }
    }
    return true;
}

// A view of a value in a document that is stored elsewhere.
class value {
public:
    explicit value(std::string_view text) noexcept : text_(text) {}

    // Parses a whole document: one value without trailing data.
    static std::optional<value> document(std::string_view text) noexcept {
        std::string_view whole;
        if (!take_value(text, whole)) {
            return std::nullopt;
        }
        skip_space(text);
        return text.empty() ? std::optional<value>(value(whole)) : std::nullopt;
    }

    std::string_view raw() const noexcept { return text_; }
    bool begins(char first) const noexcept { return !text_.empty() && text_[0] == first; }
    bool is_null() const noexcept { return text_ == "null"; }

    // Appends the unescaped string; false if it is malformed.
    template <class Text> bool text(Text &out) const {
        std::string_view rest = text_, inside;
        return take_text(rest, inside) && unescape(inside, out);
    }

    // Empty if the value is not an integer of 64 bits.
    std::optional<std::int64_t> integer() const noexcept {
        constexpr auto most =
            static_cast<std::uint64_t>((std::numeric_limits<std::int64_t>::max)());
        const bool negative = begins('-');
        const std::string_view digits = text_.substr(negative ? 1 : 0);
        std::uint64_t number = 0;
        for (const char digit : digits) {
            const auto worth = static_cast<std::uint64_t>(digit - '0');
            if (digit < '0' || digit > '9' || number > (most + 1 - worth) / 10) {
                return std::nullopt;
            }
            number = number * 10 + worth;
        }
        if (digits.empty() || (!negative && number > most)) {
            return std::nullopt;
        }
        return negative ? -static_cast<std::int64_t>(number - (number > most ? 1 : 0)) -
                              (number > most ? 1 : 0)
                        : static_cast<std::int64_t>(number);
    }

    // Parses a number, precise enough for a rate and independent of the locale.
    std::optional<double> number() const noexcept {
        std::string_view rest = text_.substr(begins('-') ? 1 : 0);
        if (rest.empty() || rest[0] < '0' || rest[0] > '9') {
            return std::nullopt;
        }
        double sum = 0;
        int exponent = 0;
        bool fraction = false;
        for (; !rest.empty() && ((rest[0] >= '0' && rest[0] <= '9') || rest[0] == '.');
             rest.remove_prefix(1)) {
            if (rest[0] == '.') {
                fraction = true;
            } else {
                sum = sum * 10 + (rest[0] - '0');
                exponent -= fraction ? 1 : 0;
            }
        }
        if (!rest.empty()) {
            const std::string_view shift =
                rest.substr(1, 1) == "+" ? rest.substr(2) : rest.substr(1);
            exponent += static_cast<int>(
                std::clamp<std::int64_t>(value(shift).integer().value_or(0), -400, 400));
        }
        for (; exponent > 0; --exponent) {
            sum *= 10;
        }
        for (; exponent < 0; ++exponent) {
            sum /= 10;
        }
        return begins('-') ? -sum : sum;
    }

    // Calls `each(name, value)` for each member until it returns false. Returns false if `each` did
    // or if the JSON is malformed.
    template <class Each> bool members(Each each) const {
        return elements('{', '}', [&](std::string_view &rest) {
            std::string_view escaped, inside;
            if (!take_text(rest, escaped)) {
                return false;
            }
            skip_space(rest);
            if (rest.empty() || rest[0] != ':') {
                return false;
            }
            rest.remove_prefix(1);
            if (!take_value(rest, inside)) {
                return false;
            }
            if (escaped.find('\\') == std::string_view::npos) {
                return each(escaped, value(inside));
            }
            std::string name;
            return unescape(escaped, name) && each(std::string_view(name), value(inside));
        });
    }

    // Calls `each(value)` for each item until it returns false.
    template <class Each> bool items(Each each) const {
        return elements('[', ']', [&](std::string_view &rest) {
            std::string_view inside;
            return take_value(rest, inside) && each(value(inside));
        });
    }

private:
    template <class Take> bool elements(char first, char last, Take take) const {
        if (!begins(first)) {
            return false;
        }
        std::string_view rest = text_.substr(1);
        skip_space(rest);
        if (!rest.empty() && rest[0] == last) {
            return true;
        }
        for (;; rest.remove_prefix(1)) {
            skip_space(rest);
            if (!take(rest)) {
                return false;
            }
            skip_space(rest);
            if (rest.empty() || (rest[0] != ',' && rest[0] != last)) {
                return false;
            }
            if (rest[0] == last) {
                return true;
            }
        }
    }

    std::string_view text_;
};

// Writes JSON. The buffer is wiped, because parameters may contain secrets.
class writer {
public:
    std::string_view view() const noexcept { return out_.view(); }
    const char *c_str() const noexcept { return out_.c_str(); }
    wiped_text take() noexcept { return std::move(out_); }

    writer &open(char bracket) {
        separate();
        out_.push_back(bracket);
        return *this;
    }
    writer &close(char bracket) {
        out_.push_back(bracket);
        return *this;
    }
    writer &name(std::string_view name) {
        text(name);
        out_.push_back(':');
        return *this;
    }
    writer &raw(std::string_view json) {
        separate();
        out_.append(json);
        return *this;
    }
    writer &text(std::string_view text) {
        static constexpr char digits[] = "0123456789abcdef";
        separate();
        out_.push_back('"');
        while (!text.empty()) {
            std::size_t plain = 0;
            while (plain < text.size() && text[plain] != '"' && text[plain] != '\\' &&
                   static_cast<unsigned char>(text[plain]) >= 0x20) {
                ++plain;
            }
            out_.append(text.substr(0, plain));
            text.remove_prefix(plain);
            if (!text.empty()) {
                const auto byte = static_cast<unsigned char>(text[0]);
                const char escape[] = {'\\', 'u', '0', '0', digits[byte >> 4], digits[byte & 15]};
                const char mark[] = {'\\', text[0]};
                out_.append(byte < 0x20 ? std::string_view(escape, 6) : std::string_view(mark, 2));
                text.remove_prefix(1);
            }
        }
        out_.push_back('"');
        return *this;
    }

    // Object members; empty values are omitted.
    writer &member(std::string_view key, std::string_view value) {
        return value.empty() ? *this : name(key).text(value);
    }
    writer &member(std::string_view key, const secret &value) { return member(key, value.view()); }
    writer &member(std::string_view key, const std::string &value) {
        return member(key, std::string_view(value));
    }
    writer &member(std::string_view key, const char *value) {
        return member(key, std::string_view(value));
    }
    writer &member(std::string_view key, bool value) {
        return name(key).raw(value ? "true" : "false");
    }
    writer &member(std::string_view key, std::int64_t value) {
        return name(key).raw(std::to_string(value));
    }
    writer &member(std::string_view key, int value) { return member(key, std::int64_t{value}); }
    template <class Period>
    writer &member(std::string_view key, std::chrono::duration<std::int64_t, Period> value) {
        return member(key, std::int64_t{value.count()});
    }
    template <class T> writer &member(std::string_view key, const std::optional<T> &value) {
        return value ? member(key, *value) : *this;
    }
    writer &flag(std::string_view key, bool value) { return value ? member(key, true) : *this; }
    template <class Text = std::string>
    writer &list(std::string_view key, const std::vector<Text> &texts) {
        name(key).open('[');
        for (const Text &one : texts) {
            text(one);
        }
        return close(']');
    }
    template <class Text = std::string>
    writer &words(std::string_view key, const std::vector<Text> &texts) {
        return texts.empty() ? *this : list(key, texts);
    }

    // An object of strings; repeated names become a list.
    template <class Pairs, class Same> writer &grouped(const Pairs &pairs, Same same) {
        open('{');
        for (auto at = pairs.begin(); at != pairs.end(); ++at) {
            const auto is_same = [&](const auto &other) { return same(other.first, at->first); };
            if (std::any_of(pairs.begin(), at, is_same)) {
                continue;
            }
            name(at->first);
            if (std::none_of(std::next(at), pairs.end(), is_same)) {
                text(at->second);
                continue;
            }
            open('[');
            for (const auto &[key, value] : pairs) {
                if (same(key, at->first)) {
                    text(value);
                }
            }
            close(']');
        }
        return close('}');
    }

private:
    // Writes a comma if needed. Strings end with a quote, so the last byte shows whether a value
    // precedes.
    void separate() {
        const std::string_view so_far = out_.view();
        if (!so_far.empty() && so_far.back() != '{' && so_far.back() != '[' &&
            so_far.back() != ':') {
            out_.push_back(',');
        }
    }
    wiped_text out_;
};

template <class Text> void write_base64(std::string_view bytes, Text &out) {
    static constexpr char digits[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (std::size_t at = 0; at < bytes.size(); at += 3) {
        std::uint32_t group = 0;
        for (std::size_t i = 0; i < 3; ++i) {
            group = group << 8 |
                    (at + i < bytes.size() ? static_cast<unsigned char>(bytes[at + i]) : 0U);
        }
        for (std::size_t i = 0; i < 4; ++i) {
            out.push_back(at + i > bytes.size() ? '=' : digits[group >> (18 - 6 * i) & 63]);
        }
    }
}

inline bool read_base64(std::string_view text, std::string &out) {
    std::uint32_t group = 0;
    int bits = 0;
    for (const char digit : text.substr(0, (std::min)(text.find('='), text.size()))) {
        const int worth = digit >= 'A' && digit <= 'Z'   ? digit - 'A'
                          : digit >= 'a' && digit <= 'z' ? digit - 'a' + 26
                          : digit >= '0' && digit <= '9' ? digit - '0' + 52
                          : digit == '+'                 ? 62
                          : digit == '/'                 ? 63
                                                         : -1;
        if (worth < 0) {
            return false;
        }
        group = (group << 6 | static_cast<std::uint32_t>(worth)) & 0xFFFFFF;
        bits += 6;
        if (bits >= 8) {
            bits -= 8;
            out.push_back(static_cast<char>(group >> bits & 0xFF));
        }
    }
    return true;
}

// ---- Result parsing: fields of an unexpected type are left unchanged; false: malformed JSON -----

// Accesses private members of the public types.
struct access {
    static wiped_text &text(secret &of) noexcept { return of.text_; }
    static secret own(wiped_text text) noexcept {
        secret made;
        made.text_ = std::move(text);
        return made;
    }
    static void write_body(writer &out, const api_request &request) {
        using kind = api_request::kind;
        if (request.body_kind_ == kind::bytes) {
            wiped_text encoded;
            write_base64(request.body_, encoded);
            out.name("bodyBase64").text(encoded.view());
        } else if (request.body_kind_ != kind::none) {
            out.name("body").text(request.body_);
        }
    }
    static bool is_json(const api_request &request) noexcept {
        return request.body_kind_ == api_request::kind::json;
    }
};

inline bool read(value from, std::string &to) {
    if (!from.begins('"')) {
        return true;
    }
    to.clear();
    return from.text(to);
}

inline bool read(value from, secret &to) {
    if (!from.begins('"')) {
        return true;
    }
    access::text(to).clear();
    return from.text(access::text(to));
}

inline bool read(value from, std::int64_t &to) noexcept {
    to = from.integer().value_or(to);
    return true;
}

inline bool read(value from, int &to) noexcept {
    const std::int64_t number = from.integer().value_or(to);
    to = static_cast<int>(std::clamp<std::int64_t>(number, (std::numeric_limits<int>::min)(),
                                                   (std::numeric_limits<int>::max)()));
    return true;
}

inline bool read(value from, double &to) noexcept {
    to = from.number().value_or(to);
    return true;
}

// The API sends some numbers as strings.
inline bool read(value from, bool &to) noexcept {
    to = from.raw() == "true" || from.raw() == "\"true\"";
    return true;
}

template <class Period>
bool read(value from, std::chrono::duration<std::int64_t, Period> &to) noexcept {
    to = std::chrono::duration<std::int64_t, Period>(from.integer().value_or(to.count()));
    return true;
}

inline bool read(value from, time_point &to) noexcept {
    using limits = std::numeric_limits<std::chrono::system_clock::rep>;
    using clock = std::chrono::system_clock::duration;
    const auto first =
        std::chrono::duration_cast<std::chrono::milliseconds>(clock((limits::min)()));
    const auto last = std::chrono::duration_cast<std::chrono::milliseconds>(clock((limits::max)()));
    if (const auto number = from.integer()) {
        to = time_point(std::clamp(std::chrono::milliseconds(*number), first, last));
    }
    return true;
}

template <class T> bool read(value from, std::optional<T> &to) {
    if constexpr (std::is_same_v<T, std::string> || std::is_same_v<T, secret>) {
        if (!from.begins('"')) {
            return true;
        }
    }
    if constexpr (std::is_same_v<T, int> || std::is_same_v<T, std::int64_t> ||
                  std::is_same_v<T, time_point> || std::is_same_v<T, std::chrono::milliseconds> ||
                  std::is_same_v<T, std::chrono::seconds>) {
        if (!from.integer()) {
            return true;
        }
    }
    return from.is_null() || read(from, to.emplace());
}

template <class T> bool read(value from, std::vector<T> &to) {
    return !from.begins('[') ||
           from.items([&](value item) { return read(item, to.emplace_back()); });
}

// JSON, unparsed.
struct as_json {
    std::string &text;
};
inline bool read(value from, as_json to) {
    to.text = from.raw();
    return true;
}

// A string, or the JSON of any other value.
struct as_any {
    std::optional<std::string> &text;
};
inline bool read(value from, as_any to) {
    if (from.begins('"')) {
        return read(from, to.text);
    }
    if (!from.is_null()) {
        to.text = std::string(from.raw());
    }
    return true;
}

inline bool match(std::string_view, value) noexcept { return true; }

// Reads a member into the field that follows its name in the arguments.
template <class Field, class... Others>
bool match(std::string_view name, value from, const char *key, Field &&field, Others &&...others) {
    return name == key ? read(from, std::forward<Field>(field))
                       : match(name, from, std::forward<Others>(others)...);
}

template <class... Fields> bool read_object(value from, Fields &&...fields) {
    return !from.begins('{') || from.members([&](std::string_view name, value member) {
        return match(name, member, std::forward<Fields>(fields)...);
    });
}

inline status status_of(std::string_view name) noexcept {
    for (std::int32_t code = 0; code < 64; ++code) {
        if (name == ghl_status_name(code)) {
            return static_cast<status>(code);
        }
    }
    return status::internal;
}

inline bool read(value from, api_failure &to) {
    return read_object(from, "code", as_any{to.code}, "message", as_any{to.message}, "details",
                       as_any{to.details}, "resolution", as_any{to.resolution});
}

inline bool read(value from, failure &to) {
    std::string status;
    to.raw = from.raw();
    const bool whole = read_object(
        from, "status", status, "message", to.message, "help", to.help, "parameter", to.parameter,
        "retryable", to.retryable, "sent", to.sent, "retryAfterMs", to.retry_after, "resourceId",
        to.resource_id, "httpStatus", to.http_status, "traceId", to.trace_id, "api", to.api);
    to.status = status_of(status);
    return whole;
}

inline bool read(value from, authorization_link &to) {
    to.raw = from.raw();
    return read_object(from, "url", to.url, "state", to.state);
}

inline bool read(value from, last_failure &to) {
    std::string status;
    const bool whole = read_object(
        from, "firstAt", to.first_at, "at", to.at, "attempts", to.attempts, "status", status,
        "message", to.message, "httpStatus", to.http_status, "traceId", to.trace_id,
        "nextAttemptAt", to.next_attempt_at);
    to.status = status_of(status);
    return whole;
}

inline bool read(value from, token_info &to) {
    to.raw = from.raw();
    return read_object(from, "resourceId", to.resource_id, "userType", to.user_type, "companyId",
                       to.company_id, "locationId", to.location_id, "scope", to.scope, "expiresAt",
                       to.expires_at, "refreshable", to.refreshable, "state", to.state,
                       "lastSuccessAt", to.last_success_at, "lastFailure", to.last_failure);
}

inline bool read(value from, token &to) {
    to.raw = from.raw();
    return read_object(from, "accessToken", to.access_token, "refreshToken", to.refresh_token,
                       "expiresAt", to.expires_at, "userType", to.user_type, "companyId",
                       to.company_id, "locationId", to.location_id, "scope", to.scope);
}

inline bool read(value from, location &to) {
    to.raw = from.raw();
    return read_object(from, "_id", to.id, "name", to.name, "address", to.address, "versionId",
                       to.version_id, "installedAt", to.installed_at, "isInstalled",
                       to.is_installed);
}

// Skips items that are not objects or have no ID.
inline bool read(value from, std::vector<location> &to) {
    return !from.begins('[') || from.items([&](value item) {
        const bool whole = read(item, to.emplace_back());
        if (to.back().id.empty()) {
            to.pop_back();
        }
        return whole;
    });
}

struct pagination {
    std::optional<std::string> next_page_token;
    std::optional<std::int64_t> total;
    std::optional<bool> has_next_page;
};
inline bool read(value from, pagination &to) {
    return read_object(from, "nextPageToken", to.next_page_token, "totalRecords", to.total,
                       "hasNextPage", to.has_next_page);
}

template <class T> bool read(value from, page<T> &to) {
    pagination of_locations;
    to.raw = from.raw();
    if (!read_object(from, "items", to.items, "tokens", to.items, "failed", to.failed,
                     "nextPageToken", to.next_page_token, "pagination", of_locations)) {
        return false;
    }
    if (of_locations.next_page_token && of_locations.has_next_page.value_or(true)) {
        to.next_page_token = of_locations.next_page_token;
    }
    to.total = of_locations.total;
    if (to.next_page_token && to.next_page_token->empty()) {
        to.next_page_token.reset();
    }
    return true;
}

inline bool read(value from, skipped_token &to) {
    return read_object(from, "index", to.index, "resourceId", to.resource_id, "reason", to.reason);
}

inline bool read(value from, accepted_token &to) {
    return read_object(from, "index", to.index, "resourceId", to.resource_id, "replaces",
                       to.replaces);
}

inline bool read(value from, import_report &to) {
    to.raw = from.raw();
    return read_object(from, "imported", to.imported, "skipped", to.skipped, "accepted",
                       to.accepted);
}

inline bool read(value from, failed_token &to) {
    return read_object(from, "resourceId", to.resource_id, "locationId", to.resource_id, "error",
                       to.error);
}

inline bool read(value from, other_client &to) {
    return read_object(from, "clientId", to.client_id, "tokens", to.tokens);
}

inline bool read(value from, unadopted_token &to) {
    return read_object(from, "resourceId", to.resource_id, "reason", to.reason);
}

inline bool read(value from, adoption_report &to) {
    to.raw = from.raw();
    return read_object(from, "adopted", to.adopted, "skipped", to.skipped, "failed", to.failed,
                       "clients", to.clients);
}

inline bool read(value from, maintenance_failure &to) {
    return read_object(from, "resourceId", to.resource_id, "error", to.error);
}

inline bool read(value from, maintenance_progress &to) {
    to.raw = from.raw();
    return read_object(from, "checked", to.checked, "refreshed", to.refreshed, "resealed",
                       to.resealed, "failed", to.failed);
}

inline bool read(value from, maintenance_report &to) {
    to.raw = from.raw();
    return read_object(from, "checked", to.checked, "refreshed", to.refreshed, "resealed",
                       to.resealed, "unsealed", to.unsealed, "failed", to.failed, "nextDueAt",
                       to.next_due_at);
}

inline bool read(value from, mint_progress &to) {
    to.raw = from.raw();
    return read_object(from, "done", to.done, "failed", to.failed, "total", to.total, "perSecond",
                       to.per_second, "secondsLeft", to.time_left);
}

inline bool read(value from, mint_report &to) {
    to.raw = from.raw();
    return read_object(from, "total", to.total, "minted", to.minted, "fresh", to.fresh, "failed",
                       to.failed);
}

inline bool read(value from, headers &to) {
    return !from.begins('{') || from.members([&](std::string_view name, value member) {
        std::string text;
        const bool whole = read(member, text);
        to.add(std::string(name), std::move(text));
        return whole;
    });
}

inline bool read(value from, api_response &to) {
    std::optional<std::string> body;
    std::string encoding;
    to.raw = from.raw();
    bool text = false;
    const bool whole = from.members([&](std::string_view name, value member) {
        text = text || (name == "body" && member.begins('"'));
        return match(name, member, "status", to.status, "headers", to.headers, "body", as_any{body},
                     "bodyEncoding", encoding, "setCookies", to.set_cookies);
    });
    if (!whole) {
        return false;
    }
    if (encoding == "base64") {
        to.body_encoding = api_response::encoding::bytes;
        return read_base64(body.value_or(""), to.body);
    }
    to.body_encoding =
        encoding == "json" ? api_response::encoding::json : api_response::encoding::text;
    to.body = body.value_or("");
    if (encoding == "json" && (text || !body)) {
        // A payload that is a JSON string or null keeps its JSON form, including the quotes.
        return from.members([&](std::string_view name, value member) {
            return name != "body" || read(member, as_json{to.body});
        });
    }
    return true;
}

inline bool read(value from, webhook &to) {
    to.raw = from.raw();
    return read_object(from, "type", to.type, "webhookId", to.webhook_id, "timestampMs",
                       to.timestamp, "scheme", to.scheme, "keyIndex", to.key_index, "payload",
                       as_json{to.payload});
}

inline bool read(value from, webhook_outcome &to) {
    to.raw = from.raw();
    return read_object(from, "type", to.type, "resourceId", to.resource_id, "applied", to.applied,
                       "reason", to.reason);
}

inline bool read(value from, event &to) {
    to.raw = from.raw();
    return read_object(from, "type", to.type, "resourceId", to.resource_id, "at", to.at,
                       "expiresAt", to.expires_at, "error", to.error, "lastFailure",
                       to.last_failure);
}

inline bool read(value from, statistics::busy_resource &to) {
    return read_object(from, "resourceId", to.resource_id, "inWindow", to.in_window, "requests",
                       to.requests, "perMs", to.window, "today", to.today, "perDay", to.per_day,
                       "waiting", to.waiting, "heldForMs", to.held_for);
}

inline bool read(value from, std::map<std::string, std::int64_t> &to) {
    return !from.begins('{') || from.members([&](std::string_view name, value member) {
        return read(member, to[std::string(name)]);
    });
}

inline bool read(value from, statistics &to) {
    to.raw = from.raw();
    return from.members([&](std::string_view name, value member) {
        if (name == "requests") {
            return read_object(member, "sent", to.requests.sent, "repeated", to.requests.repeated,
                               "unanswered", to.requests.unanswered, "rateLimited",
                               to.requests.rate_limited);
        }
        if (name == "tokens") {
            return read_object(member, "inMemory", to.tokens.in_memory, "unsaved",
                               to.tokens.unsaved, "refreshed", to.tokens.refreshed, "minted",
                               to.tokens.minted, "failed", to.tokens.failed, "failedByStatus",
                               to.tokens.failed_by_status);
        }
        if (name == "pace") {
            return read_object(member, "resources", to.pace.resources, "waiting", to.pace.waiting,
                               "held", to.pace.held, "busiest", to.pace.busiest);
        }
        return match(name, member, "version", to.version);
    });
}

// ---- Calls --------------------------------------------------------------------------------------

struct free_text {
    void operator()(char *text) const noexcept { ghl_string_free(text); }
};
using owned_text = std::unique_ptr<char, free_text>;

inline failure own_failure(status code, std::string message,
                           std::optional<std::string> parameter = {}) {
    failure why;
    why.status = code;
    why.message = std::move(message);
    why.parameter = std::move(parameter);
    return why;
}

// Parses the error document of a C function.
inline failure failure_from(std::int32_t code, const char *document) {
    failure why;
    const auto whole = document == nullptr ? std::nullopt : value::document(document);
    if (whole) {
        whole->members([&](std::string_view name, value inner) {
            return name != "error" || read(inner, why);
        });
    }
    why.status = static_cast<status>(code);
    if (why.message.empty()) {
        why.message = ghl_status_name(code);
    }
    return why;
}

// Converts the status and output of a C function to a result or a failure.
template <class T> result<T> settle(std::int32_t code, char *out) {
    const owned_text document(out);
    if (code != GHL_OK) {
        return failure_from(code, out);
    }
    T made{};
    const auto whole = out == nullptr ? std::nullopt : value::document(out);
    if (!whole || !read(*whole, made)) {
        return own_failure(status::protocol, "the library returned a malformed document");
    }
    return made;
}

// A NUL-terminated copy of a string; short strings such as IDs need no allocation.
class c_text {
public:
    explicit c_text(std::string_view text) {
        char *to = short_.data();
        if (text.size() >= short_.size()) {
            long_.reset(new char[text.size() + 1]);
            to = long_.get();
        }
        if (!text.empty()) {
            std::memcpy(to, text.data(), text.size());
        }
        to[text.size()] = '\0';
        text_ = to;
        whole_ = text.find('\0') == std::string_view::npos;
    }
    c_text(const c_text &) = delete;
    c_text &operator=(const c_text &) = delete;

    const char *get() const noexcept { return text_; }
    // False if the string contains a NUL, which would truncate it to another ID.
    bool whole() const noexcept { return whole_; }

private:
    std::array<char, 64> short_;
    std::unique_ptr<char[]> long_;
    const char *text_;
    bool whole_;
};

// The listeners that run on this thread, innermost first.
struct running {
    const void *owner;
    const running *outer;
    static const running *&innermost() noexcept {
        thread_local const running *here = nullptr;
        return here;
    }
    explicit running(const void *of) noexcept : owner(of), outer(innermost()) {
        innermost() = this;
    }
    ~running() { innermost() = outer; }
    running(const running &) = delete;
    running &operator=(const running &) = delete;
    static bool here(const void *of) noexcept {
        for (const running *at = innermost(); at != nullptr; at = at->outer) {
            if (at->owner == of) {
                return true;
            }
        }
        return false;
    }
};

using error_handler = std::function<void(std::exception_ptr)>;

// Calls a listener without letting an exception out.
template <class Work> void guarded(const error_handler &on_error, Work work) noexcept {
#if GHL_OAUTH_EXCEPTIONS
    try {
        work();
    } catch (...) {
        try {
            if (on_error) {
                on_error(std::current_exception());
            }
        } catch (...) {
        }
    }
#else
    (void)on_error;
    work();
#endif
}

// A listener that the library may call until it is replaced.
template <class... Arguments> struct listener {
    const void *owner;
    std::function<void(Arguments...)> function;
    error_handler on_error;
};

// Owns a listener. `set(callback, context)` registers it with the library, and returns when the
// previous listener no longer runs.
template <class... Arguments> class listener_slot {
public:
    using function = std::function<void(Arguments...)>;
    template <class Set> result<void> replace(function next, error_handler on_error, Set set) {
        if (running::here(this)) {
            return own_failure(status::invalid_argument,
                               "a listener cannot be replaced from inside itself", "listener");
        }
        using made = listener<Arguments...>;
        std::unique_ptr<made> heir;
        if (next) {
            heir.reset(new made{this, std::move(next), std::move(on_error)});
        }
        const std::lock_guard<std::mutex> one_at_a_time(replacing_);
        const std::int32_t code = set(heir.get());
        if (code != GHL_OK) {
            return own_failure(static_cast<status>(code), "the library refuses the listener",
                               "listener");
        }
        current_ = std::move(heir);
        return {};
    }

private:
    std::mutex replacing_;
    std::unique_ptr<listener<Arguments...>> current_;
};

// The state of a client; its address stays the same when the client is moved.
struct state {
    ghl_client *handle = nullptr;
    listener_slot<const event &> events;
    state() = default;
    state(const state &) = delete;
    state &operator=(const state &) = delete;
    // Frees the client before the listener that it may call.
    ~state() { ghl_client_free(handle); }
};

inline void on_event(const char *document, void *context) noexcept {
    const auto &to = *static_cast<const listener<const event &> *>(context);
    const running mark(to.owner);
    guarded(to.on_error, [&] {
        event happened;
        if (const auto whole = value::document(document)) {
            read(*whole, happened);
        }
        to.function(happened);
    });
}

// Passes progress to a listener, which returns void, or false to stop.
template <class Progress, class Listener> class relay {
public:
    explicit relay(Listener &listener) noexcept : listener_(listener) {}
    static std::int32_t call(const char *document, void *context) noexcept {
        auto &self = *static_cast<relay *>(context);
#if GHL_OAUTH_EXCEPTIONS
        try {
            return self.tell(document);
        } catch (...) {
            self.thrown_ = std::current_exception();
            return 1;
        }
#else
        return self.tell(document);
#endif
    }
    // Rethrows the listener's exception after the call.
    void rethrow() const {
#if GHL_OAUTH_EXCEPTIONS
        if (thrown_) {
            std::rethrow_exception(thrown_);
        }
#endif
    }

private:
    std::int32_t tell(const char *document) {
        Progress progress;
        if (const auto whole = value::document(document)) {
            read(*whole, progress);
        }
        if constexpr (std::is_void_v<std::invoke_result_t<Listener &, const Progress &>>) {
            listener_(std::as_const(progress));
            return 0;
        } else {
            return listener_(std::as_const(progress)) ? 0 : 1;
        }
    }
    Listener &listener_;
    std::exception_ptr thrown_;
};

#if GHL_OAUTH_EXCEPTIONS
// Return policy: values, or exceptions for failures.
struct throwing {
    template <class T> using returns = T;
    template <class T> static T give(result<T> made) { return std::move(made).value(); }
    template <class T> static void fail(std::optional<T> &, failure why) { raise(std::move(why)); }
};
#endif

// Return policy: ghl::result.
struct checked {
    template <class T> using returns = result<T>;
    template <class T> static result<T> give(result<T> made) { return made; }
    template <class T> static void fail(std::optional<T> &item, failure why) {
        item.emplace(std::move(why));
    }
};

} // namespace detail

inline secret config::json() const {
    detail::writer out;
    out.open('{').member("clientId", client_id).member("clientSecret", client_secret);
    out.member("clientSecretFile", client_secret_file);
    out.member("redirectUri", redirect_uri).words("scopes", scopes).member("baseUrl", base_url);
    out.member("authorizeUrl", authorize_url).member("apiVersion", api_version);
    out.member("tokenRequestEncoding", token_request_encoding);
    if (store) {
        out.name("store")
            .open('{')
            .member("kind", store->kind)
            .member("path", store->path)
            .member("url", store->url);
        out.member("caBundlePath", store->ca_bundle_path)
            .words("encryptionKeys", store->encryption_keys);
        out.member("encryptionKeysPath", store->encryption_keys_path)
            .flag("sealedOnly", store->sealed_only)
            .close('}');
    }
    out.name("timeouts")
        .open('{')
        .member("connectMs", timeouts.connect)
        .member("answerMs", timeouts.answer);
    out.member("totalMs", timeouts.total).close('}');
    out.name("retry")
        .open('{')
        .member("maxAttempts", retry.max_attempts)
        .member("baseDelayMs", retry.base_delay);
    out.member("maxDelayMs", retry.max_delay).close('}');
    out.name("rateLimit")
        .open('{')
        .member("requests", rate_limit.requests)
        .member("perMs", rate_limit.per);
    out.member("perDay", rate_limit.per_day).close('}');
    out.name("refresh").open('{').member("marginSeconds", refresh.margin);
    out.member("runwayPercent", refresh.runway_percent).close('}');
    out.name("limits").open('{').member("responseBytes", limits.response_bytes).close('}');
    out.name("http")
        .open('{')
        .member("proxy", http.proxy)
        .member("caBundlePath", http.ca_bundle_path);
    out.member("userAgentSuffix", http.user_agent_suffix)
        .flag("allowInsecureHttp", http.allow_insecure_http)
        .words("noProxy", http.no_proxy)
        .close('}');
    out.name("webhook").open('{').words("ed25519PublicKeys", webhook.ed25519_public_keys);
    out.words("rsaPublicKeys", webhook.rsa_public_keys)
        .member("maxAgeSeconds", webhook.max_age)
        .close('}');
    out.name("consentPage")
        .open('{')
        .member("language", consent_page.language)
        .member("title", consent_page.title)
        .member("message", consent_page.message);
    out.member("failureTitle", consent_page.failure_title)
        .member("failureMessage", consent_page.failure_message)
        .member("color", consent_page.color)
        .close('}');
    out.close('}');
    return detail::access::own(out.take());
}

// ---- Paged ranges -------------------------------------------------------------------------------

// A single-pass range that fetches a list page by page:
//
//     for (ghl::token_info &token : client.tokens_list()) …
//
// Items may be moved from. With exceptions, the loop throws a failure; otherwise the items are of
// type ghl::result, and the range ends after the first failure. Call begin() again to retry the
// page that failed.
template <class Mode, class T> class pages {
public:
    using item = std::conditional_t<std::is_same_v<Mode, detail::checked>, result<T>, T>;

    class iterator {
    public:
        using iterator_category = std::input_iterator_tag;
        using iterator_concept = std::input_iterator_tag;
        using value_type = item;
        using difference_type = std::ptrdiff_t;
        using pointer = item *;
        using reference = item &;

        iterator() noexcept = default;
        reference operator*() const noexcept { return *owner_->current_; }
        pointer operator->() const noexcept { return &*owner_->current_; }
        iterator &operator++() {
            owner_->advance();
            owner_ = owner_->current_ ? owner_ : nullptr;
            return *this;
        }
        // Holds the item that the postfix increment returns.
        struct former {
            item one;
            item &operator*() noexcept { return one; }
        };
        former operator++(int) {
            former before{std::move(**this)};
            ++*this;
            return before;
        }
        friend bool operator==(const iterator &a, const iterator &b) noexcept {
            return a.owner_ == b.owner_;
        }
        friend bool operator!=(const iterator &a, const iterator &b) noexcept {
            return a.owner_ != b.owner_;
        }

    private:
        friend class pages;
        explicit iterator(pages *owner) noexcept : owner_(owner) {}
        pages *owner_ = nullptr;
    };

    using fetch = std::function<result<page<T>>(const std::string &page_token)>;
    pages(fetch from, std::string page_token)
        : fetch_(std::move(from)), next_(std::move(page_token)), seen_{next_} {}

    iterator begin() {
        if (!current_) {
            advance();
        }
        return current_ ? iterator(this) : iterator();
    }
    iterator end() noexcept { return {}; }

    // The token of the page after the current one; empty on the last page.
    std::optional<std::string> next_page_token() const {
        return next_.empty() ? std::nullopt : std::optional<std::string>(next_);
    }

    // Stored tokens that could not be read, from the pages fetched so far; the loop skips them.
    // Always empty for locations.
    const std::vector<failed_token> &failed() const noexcept { return unreadable_; }

    // All remaining items.
    typename Mode::template returns<std::vector<T>> to_vector() { return Mode::give(collect()); }

private:
    result<std::vector<T>> collect() {
        std::vector<T> all;
        if (current_ && !failed_) {
            if constexpr (std::is_same_v<item, T>) {
                all.push_back(std::move(*current_));
            } else {
                all.push_back(*std::move(*current_));
            }
        }
        current_.reset();
        failed_ = false;
        for (;;) {
            std::move(items_.begin() + static_cast<std::ptrdiff_t>(at_), items_.end(),
                      std::back_inserter(all));
            items_.clear();
            at_ = 0;
            if (last_) {
                return all;
            }
            if (auto why = next_page()) {
                return *std::move(why);
            }
        }
    }

    void advance() {
        current_.reset();
        if (std::exchange(failed_, false)) {
            return;
        }
        while (at_ == items_.size()) {
            if (last_) {
                return;
            }
            if (auto why = next_page()) {
                failed_ = std::is_same_v<Mode, detail::checked>;
                Mode::fail(current_, *std::move(why));
                return;
            }
        }
        current_.emplace(std::move(items_[at_++]));
    }

    std::optional<failure> next_page() {
        auto fetched = fetch_(next_);
        if (!fetched) {
            return std::move(fetched).error();
        }
        const std::string following = fetched->next_page_token.value_or("");
        if (!following.empty() && seen_.count(following) > 0) {
            return detail::own_failure(status::protocol,
                                       "the page tokens of the list form a cycle");
        }
        items_ = std::move(fetched->items);
        std::move(fetched->failed.begin(), fetched->failed.end(), std::back_inserter(unreadable_));
        at_ = 0;
        next_ = following;
        seen_.insert(following);
        last_ = next_.empty();
        return std::nullopt;
    }

    fetch fetch_;
    std::string next_;
    std::set<std::string> seen_; // all page tokens so far
    std::vector<T> items_;
    std::vector<failed_token> unreadable_;
    std::size_t at_ = 0;
    bool last_ = false, failed_ = false;
    std::optional<item> current_;
};

// ---- Client -------------------------------------------------------------------------------------

// The calls of a client, without ownership: cheap to copy, valid as long as the client.
template <class Mode> class basic_calls {
public:
    // T or ghl::result<T>.
    template <class T> using returns = typename Mode::template returns<T>;

    // The same calls, returning ghl::result instead of throwing.
    basic_calls<detail::checked> checked() const noexcept {
        return basic_calls<detail::checked>(state_, options_);
    }

    // The same calls with these options: client.with({std::chrono::seconds(2)}).request(…). A
    // refresh that was sent is completed even after the timeout or a cancellation. token_delete
    // ignores them.
    basic_calls with(call_options options) const {
        return basic_calls(state_, std::make_shared<const call_options>(std::move(options)));
    }

    // Authorization code flow.

    returns<authorization_link> authorization_url(const authorization_options &options = {}) const {
        detail::writer params;
        params.open('{')
            .words("scopes", options.scopes)
            .member("redirectUri", options.redirect_uri);
        params.member("versionId", options.version_id)
            .flag("loginInSameTab", options.login_in_same_tab);
        params.member("state", options.state).close('}');
        return call<authorization_link>(ghl_authorization_url, params);
    }

    // redirect_url: the complete URL that the browser was redirected to.
    returns<token_info> authorization_complete(std::string_view redirect_url,
                                               const completion_options &options = {}) const {
        detail::writer params;
        complete(params.open('{').name("redirectUrl").text(redirect_url), options).close('}');
        return call<token_info>(ghl_authorization_complete, params);
    }

    // Waits for the redirect on a loopback port.
    returns<token_info> authorization_listen(const listen_options &options = {}) const {
        detail::writer params;
        complete(params.open('{').member("port", options.port).member("timeoutMs", options.timeout),
                 options);
        if (options_ != nullptr) {
            params.member("callId", options_->call_id);
        }
        params.close('}');
        return Mode::give(made<token_info>(state_, nullptr, ghl_authorization_listen, params));
    }

    // Token manager. resource_id: the ID of a company or location.

    // Returns a valid access token, refreshed if necessary. Call it before each use; do not cache
    // the token.
    returns<secret> access_token(std::string_view resource_id) const {
        secret token;
        result<void> done = fill(resource_id, token);
        return Mode::give(done ? result<secret>(std::move(token))
                               : result<secret>(std::move(done).error()));
    }

    // The same, valid for at least min_valid, for example for a long upload. A token with less time
    // left is refreshed; if that fails, the call fails. A token that was granted within the last
    // minute is returned even if its whole life is shorter.
    returns<secret> access_token(std::string_view resource_id,
                                 std::chrono::seconds min_valid) const {
        return Mode::give(obtain(resource_id, min_valid));
    }

    // The same into an existing secret: no allocation if the token is cached. Empty on error.
    returns<void> access_token(std::string_view resource_id, secret &into) const {
        return Mode::give(fill(resource_id, into));
    }

    // The same into the caller's buffer, NUL-terminated; empty on error. Returns the token's
    // length. The caller wipes the buffer. If it is too small, fails with status::buffer_too_small
    // and stores the required size in *needed, if given.
    returns<std::size_t> access_token_into(std::string_view resource_id, char *buffer,
                                           std::size_t size, std::size_t *needed = nullptr) const {
        return Mode::give(fill(resource_id, buffer, size, needed));
    }

    // Refreshes a token now, even if it is not due.
    returns<token_info> token_refresh(std::string_view resource_id) const {
        detail::writer params;
        params.open('{').name("resourceId").text(resource_id).close('}');
        return call<token_info>(ghl_token_refresh_with, params);
    }

    // Deletes a token and returns its information. The app stays installed.
    returns<token_info> token_delete(std::string_view resource_id) const {
        return about(ghl_token_delete, resource_id);
    }

    // Lists the stored tokens, without or with secrets: as a range, or one page.
    pages<Mode, token_info> tokens_list(token_filter filter = {}) const {
        return ranged<token_info>(ghl_tokens_list, std::move(filter), write_token_filter);
    }
    returns<page<token_info>> tokens_list_page(const token_filter &filter = {}) const {
        return Mode::give(fetch<token_info>(*this, ghl_tokens_list, filter, write_token_filter,
                                            filter.page_token));
    }
    pages<Mode, token> tokens_export(token_filter filter = {}) const {
        return ranged<token>(ghl_tokens_export, std::move(filter), write_token_filter);
    }
    returns<page<token>> tokens_export_page(const token_filter &filter = {}) const {
        return Mode::give(
            fetch<token>(*this, ghl_tokens_export, filter, write_token_filter, filter.page_token));
    }

    // Imports tokens, from an export or other sources. `replace` allows an older token to replace a
    // newer one; `dry_run` changes nothing, and the report lists the accepted tokens.
    returns<import_report> tokens_import(const std::vector<token> &tokens, bool replace = false,
                                         bool dry_run = false) const {
        detail::writer params;
        params.open('{').name("tokens").open('[');
        for (const token &one : tokens) {
            write(params, one);
        }
        params.close(']').flag("replace", replace).flag("dryRun", dry_run).close('}');
        return call<import_report>(ghl_tokens_import, params);
    }

    // The same from JSON for ghl_tokens_import, such as sessions of the vendor's SDKs.
    returns<import_report> tokens_import(std::string_view tokens_json) const {
        detail::writer params;
        params.raw(tokens_json);
        return call<import_report>(ghl_tokens_import, params);
    }

    // Moves the tokens of another client ID in the same database to this one, after a key rotation.
    // client_id: the other client ID; if empty, adopts nothing and reports the client IDs that have
    // tokens. resource_id: only this company or location, or empty for all. dry_run: only report.
    returns<adoption_report> tokens_adopt(std::string_view client_id = {},
                                          std::string_view resource_id = {},
                                          bool dry_run = false) const {
        detail::writer params;
        params.open('{')
            .member("clientId", client_id)
            .member("resourceId", resource_id)
            .flag("dryRun", dry_run)
            .close('}');
        return call<adoption_report>(ghl_tokens_adopt, params);
    }

    // One pass over the tokens that are due; call it from a scheduler. company_id: only this
    // company, or empty for all. progress: called with a maintenance_progress on this thread. It
    // stops the pass by returning false or by throwing; the exception propagates, even from a
    // checked client.
    returns<maintenance_report> tokens_maintain(std::string_view company_id = {},
                                                const maintenance_options &options = {}) const {
        return tokens_maintain(company_id, options, [](const maintenance_progress &) {});
    }
    template <class Listener, class = std::enable_if_t<
                                  std::is_invocable_v<Listener &, const maintenance_progress &>>>
    returns<maintenance_report> tokens_maintain(std::string_view company_id,
                                                Listener &&progress) const {
        return tokens_maintain(company_id, maintenance_options(), progress);
    }
    template <class Listener>
    returns<maintenance_report> tokens_maintain(std::string_view company_id,
                                                const maintenance_options &options,
                                                Listener &&progress) const {
        detail::writer params;
        params.open('{')
            .member("companyId", company_id)
            .member("concurrency", options.concurrency)
            .close('}');
        return watched<maintenance_report, maintenance_progress>(ghl_tokens_maintain, params,
                                                                 progress);
    }

    // Mints tokens for many locations of a company, as fast as its rate limit allows. progress:
    // called with a mint_progress, as in tokens_maintain.
    returns<mint_report> tokens_mint(std::string_view company_id,
                                     const mint_options &options = {}) const {
        return tokens_mint(company_id, options, [](const mint_progress &) {});
    }
    template <class Listener>
    returns<mint_report> tokens_mint(std::string_view company_id, const mint_options &options,
                                     Listener &&progress) const {
        detail::writer params;
        params.open('{').name("companyId").text(company_id);
        if (options.location_ids) {
            params.list("locationIds", *options.location_ids);
        } else {
            params.member("installed", true);
        }
        params.member("appId", options.app_id)
            .flag("force", options.force)
            .member("concurrency", options.concurrency);
        params.close('}');
        return watched<mint_report, mint_progress>(ghl_tokens_mint, params, progress);
    }

    // Sends an API request with a valid token. Returns every response, even one with an error
    // status: check ok().
    returns<api_response> request(const api_request &request) const {
        detail::writer params;
        params.open('{').name("method").text(request.method).name("path").text(request.path);
        params.member("resourceId", request.resource_id);
        if (!request.query.empty()) {
            params.name("query").grouped(request.query, std::equal_to<>());
        }
        headers all = request.headers;
        if (detail::access::is_json(request) && !all.find("content-type")) {
            all.add("Content-Type", "application/json");
        }
        if (all.size() > 0) {
            params.name("headers").open('{');
            for (const auto &[name, value] : all) {
                params.name(name).text(value);
            }
            params.close('}');
        }
        params.member("idempotent", request.idempotent);
        if (!request.retry) {
            params.member("retry", false);
        }
        detail::access::write_body(params, request);
        params.close('}');
        return call<api_response>(ghl_request, params);
    }

    // Webhooks of installations and uninstallations. body: the raw bytes as received.

    returns<webhook> webhook_verify(std::string_view body, const headers &headers) const {
        return delivered<webhook>(ghl_webhook_verify, body, headers);
    }
    returns<webhook_outcome> webhook_apply(std::string_view body, const headers &headers,
                                           const webhook_options &options = {}) const {
        detail::writer params, all;
        params.open('{');
        if (!options.mint) {
            params.member("mint", false);
        }
        params.close('}');
        all.raw(options_ ? optioned(options_.get(), params).view() : params.view());
        const auto apply = [&](ghl_client *client, const std::uint8_t *bytes, std::size_t size,
                               const char *given, char **out) {
            return ghl_webhook_apply_with(client, bytes, size, given, all.c_str(), out);
        };
        return delivered<webhook_outcome>(apply, body, headers);
    }

    // The OAuth endpoints, without token management.

    returns<token> oauth_token(const token_request &request) const {
        detail::writer params;
        params.open('{').member("grantType", request.grant_type).member("code", request.code);
        params.member("refreshToken", request.refresh_token).member("userType", request.user_type);
        params.member("redirectUri", request.redirect_uri).member("clientId", request.client_id);
        params.member("clientSecret", request.client_secret).close('}');
        return call<token>(ghl_oauth_token, params);
    }

    // access_token: the token of the company; empty: the stored one.
    returns<token> oauth_location_token(std::string_view company_id, std::string_view location_id,
                                        std::string_view access_token = {}) const {
        detail::writer params;
        params.open('{').name("companyId").text(company_id).name("locationId").text(location_id);
        params.member("accessToken", access_token).close('}');
        return call<token>(ghl_oauth_location_token, params);
    }

    // A company's locations: as a range, or one page. Items that are not objects or have no ID are
    // skipped; the page's raw contains all items.
    pages<Mode, location> installed_locations(std::string_view company_id,
                                              location_filter filter = {}) const {
        of_company wanted{std::string(company_id), std::move(filter)};
        std::string first = wanted.page_token;
        return {[calls = basic_calls(*this),
                 wanted = std::move(wanted)](const std::string &page_token) {
                    return fetch_locations(calls, wanted, page_token);
                },
                std::move(first)};
    }
    returns<page<location>> installed_locations_page(std::string_view company_id,
                                                     const location_filter &filter = {}) const {
        return Mode::give(fetch_locations(*this, of_company{std::string(company_id), filter},
                                          filter.page_token));
    }

    // Client operations.

    returns<statistics> stats() const {
        char *out = nullptr;
        const std::int32_t code = ghl_client_stats(handle(state_), &out);
        return Mode::give(detail::settle<statistics>(code, out));
    }

    // Metrics in Prometheus' text format, for a program's own endpoint: serve them with the content
    // type "text/plain; version=0.0.4; charset=utf-8". The metrics of stored tokens are the same in
    // every process that shares the store; the others are counters of this client.
    returns<std::string> metrics() const {
        detail::writer params;
        params.open('{');
        if (options_ != nullptr) {
            params.member("timeoutMs", options_->timeout).member("callId", options_->call_id);
        }
        params.close('}');
        char *out = nullptr;
        const std::int32_t code = ghl_client_metrics(handle(state_), params.c_str(), &out);
        const detail::owned_text text(out);
        return Mode::give(code == GHL_OK ? result<std::string>(std::string(out))
                                         : result<std::string>(detail::failure_from(code, out)));
    }

    // Cancels every waiting call, which fails with status::cancelled. Later calls are not affected.
    void cancel() const noexcept { ghl_client_cancel(handle(state_)); }

    // Cancels the calls in progress that were made with this call_id. Any thread and any callback.
    returns<void> cancel(std::string_view call_id) const {
        const detail::c_text id(call_id);
        const std::int32_t code =
            id.whole() ? ghl_call_cancel(handle(state_), id.get()) : GHL_ERR_INVALID_ARGUMENT;
        return Mode::give(code == GHL_OK ? result<void>()
                                         : result<void>(detail::own_failure(
                                               static_cast<status>(code),
                                               "no call can have this ID", "call_id")));
    }

    // Sets the listener for this client's events; nullptr removes it. Returns when the previous
    // listener no longer runs, so do not call it from a listener. The listener runs on any thread
    // that is inside a call. on_error receives its exceptions.
    returns<void> on_event(std::function<void(const event &)> listener,
                           detail::error_handler on_error = {}) const {
        if (state_ == nullptr) {
            return Mode::give(result<void>(detail::own_failure(
                status::invalid_argument, "the client was moved from", "client")));
        }
        ghl_client *const client = state_->handle;
        return Mode::give(
            state_->events.replace(std::move(listener), std::move(on_error), [client](auto *next) {
                return ghl_client_on_event(client, next == nullptr ? nullptr : detail::on_event,
                                           next);
            }));
    }

    // The handle for functions of ghl_oauth.h; owned by this client.
    ghl_client *native() const noexcept { return handle(state_); }

protected:
    template <class> friend class basic_calls;
    explicit basic_calls(detail::state *state,
                         std::shared_ptr<const call_options> options = nullptr) noexcept
        : state_(state), options_(std::move(options)) {}
    detail::state *state_;
    std::shared_ptr<const call_options> options_; // null: the defaults

private:
    using with_params = std::int32_t (*)(ghl_client *, const char *, char **);
    using with_progress = std::int32_t (*)(ghl_client *, const char *, ghl_progress_callback,
                                           void *, char **);

    // Null if the client was moved from; the library refuses a null handle.
    static ghl_client *handle(detail::state *state) noexcept {
        return state == nullptr ? nullptr : state->handle;
    }

    // The parameters with the options of the call. The library refuses anything but a JSON object.
    static detail::writer optioned(const call_options *options, const detail::writer &params) {
        constexpr const char *blanks = " \t\n\r";
        std::string_view members = params.view();
        members = members.substr(0, members.find_last_not_of(blanks) + 1);
        detail::writer all;
        if (members.empty() || members.back() != '}') {
            all.raw(params.view());
            return all;
        }
        members.remove_suffix(1);
        all.raw(members.substr(0, members.find_last_not_of(blanks) + 1));
        all.member("timeoutMs", options->timeout).member("callId", options->call_id).close('}');
        return all;
    }

    template <class T>
    static result<T> made(detail::state *state, const call_options *options, with_params function,
                          const detail::writer &params) {
        // A NUL would truncate the parameters.
        if (params.view().find('\0') != std::string_view::npos) {
            return detail::own_failure(status::invalid_argument, "the JSON contains a NUL",
                                       "params_json");
        }
        if (options != nullptr) {
            return made<T>(state, nullptr, function, optioned(options, params));
        }
        char *out = nullptr;
        const std::int32_t code = function(handle(state), params.c_str(), &out);
        return detail::settle<T>(code, out);
    }
    template <class T> returns<T> call(with_params function, const detail::writer &params) const {
        return Mode::give(made<T>(state_, options_.get(), function, params));
    }

    // A token by ghl_access_token_with.
    result<secret> obtain(std::string_view resource_id,
                          std::optional<std::chrono::seconds> min_valid) const {
        detail::writer params;
        params.open('{').name("resourceId").text(resource_id);
        params.member("minValidSeconds",
                      min_valid ? std::optional<std::int64_t>(min_valid->count()) : std::nullopt);
        if (options_ != nullptr) {
            params.member("timeoutMs", options_->timeout).member("callId", options_->call_id);
        }
        params.close('}');
        char *token = nullptr, *out = nullptr;
        const std::int32_t code =
            ghl_access_token_with(handle(state_), params.c_str(), &token, &out);
        const detail::owned_text text(token), document(out);
        return code == GHL_OK ? result<secret>(secret(token))
                              : result<secret>(detail::failure_from(code, out));
    }

    static failure cut_short() {
        return detail::own_failure(status::invalid_argument, "the ID contains a NUL",
                                   "resource_id");
    }

    returns<token_info> about(with_params function, std::string_view resource_id) const {
        const detail::c_text id(resource_id);
        if (!id.whole()) {
            return Mode::give(result<token_info>(cut_short()));
        }
        char *out = nullptr;
        const std::int32_t code = function(handle(state_), id.get(), &out);
        return Mode::give(detail::settle<token_info>(code, out));
    }

    result<std::size_t> fill(std::string_view resource_id, char *buffer, std::size_t size,
                             std::size_t *needed) const {
        if (size > 0 && buffer != nullptr) {
            buffer[0] = '\0';
        }
        if (options_ != nullptr && size > 0 && buffer != nullptr) {
            const result<secret> token = obtain(resource_id, std::nullopt);
            if (!token) {
                return token.error();
            }
            if (needed != nullptr) {
                *needed = token->size() + 1;
            }
            if (token->size() >= size) {
                return detail::own_failure(status::buffer_too_small, "the buffer is too small",
                                           "buffer");
            }
            std::memcpy(buffer, token->c_str(), token->size() + 1);
            return token->size();
        }
        const detail::c_text id(resource_id);
        std::size_t length = id.whole() ? size : 0;
        char *out = nullptr;
        const std::int32_t code =
            id.whole() ? ghl_access_token_into(handle(state_), id.get(), buffer, &length, &out)
                       : GHL_OK;
        const detail::owned_text document(out);
        if (needed != nullptr) {
            *needed = length;
        }
        if (!id.whole()) {
            return cut_short();
        }
        return code == GHL_OK ? result<std::size_t>(length - 1)
                              : result<std::size_t>(detail::failure_from(code, out));
    }

    result<void> fill(std::string_view resource_id, secret &into) const {
        // Most tokens have about 900 bytes.
        detail::wiped_text &text = detail::access::text(into);
        text.reserve(2048);
        for (;;) {
            std::size_t needed = 0;
            result<std::size_t> length = fill(resource_id, text.buffer(), text.room(), &needed);
            text.written(length ? *length : 0);
            if (length) {
                return {};
            }
            if (length.error().status != status::buffer_too_small) {
                return std::move(length).error();
            }
            // Twice the required size, in case the token is replaced by a longer one.
            text.reserve(2 * needed);
        }
    }

    template <class Report, class Progress, class Listener>
    returns<Report> watched(with_progress function, const detail::writer &params,
                            Listener &listener) const {
        detail::relay<Progress, Listener> relay(listener);
        detail::writer all;
        all.raw(params.view());
        if (options_ != nullptr) {
            all = optioned(options_.get(), params);
        }
        char *out = nullptr;
        const std::int32_t code = function(handle(state_), all.c_str(), relay.call, &relay, &out);
        result<Report> report = detail::settle<Report>(code, out);
        relay.rethrow();
        return Mode::give(std::move(report));
    }

    template <class T, class Function>
    returns<T> delivered(const Function &function, std::string_view body,
                         const headers &all) const {
        detail::writer given;
        given.grouped(all,
                      [](std::string_view a, std::string_view b) { return headers::same(a, b); });
        char *out = nullptr;
        const auto *bytes = reinterpret_cast<const std::uint8_t *>(body.data());
        const std::int32_t code = function(handle(state_), bytes, body.size(), given.c_str(), &out);
        return Mode::give(detail::settle<T>(code, out));
    }

    static detail::writer &complete(detail::writer &params, const completion_options &options) {
        params.member("state", options.state)
            .flag("allowMissingState", options.allow_missing_state);
        return params.member("redirectUri", options.redirect_uri)
            .member("userType", options.user_type);
    }

    static void write_token_filter(detail::writer &params, const token_filter &filter) {
        params.member("companyId", filter.company_id).member("userType", filter.user_type);
        params.member("pageSize", filter.page_size).member("state", filter.state);
        if (filter.failing) {
            params.flag("failing", true);
        }
        if (filter.expires_before) {
            params.member("expiresBefore", filter.expires_before->time_since_epoch());
        }
    }

    struct of_company : location_filter {
        of_company(std::string id, location_filter filter)
            : location_filter(std::move(filter)), company_id(std::move(id)) {}
        std::string company_id;
    };
    static void write_location_filter(detail::writer &params, const of_company &filter) {
        params.name("companyId").text(filter.company_id).member("appId", filter.app_id);
        params.member("pageSize", filter.page_size).member("query", filter.query);
        params.member("isInstalled",
                      filter.installed ? std::optional<bool>(true) : filter.is_installed);
        params.member("restrictToUserLocations", filter.restrict_to_user_locations);
        params.member("versionId", filter.version_id)
            .member("onTrial", filter.on_trial)
            .member("planId", filter.plan_id);
        params.member("locationId", filter.location_id).member("accessToken", filter.access_token);
    }

    template <class T, class Filter>
    static result<page<T>> fetch(const basic_calls &calls, with_params function,
                                 const Filter &filter,
                                 void (*put)(detail::writer &, const Filter &),
                                 const std::string &page_token) {
        detail::writer params;
        params.open('{');
        put(params, filter);
        params.member("pageToken", page_token).close('}');
        return made<page<T>>(calls.state_, calls.options_.get(), function, params);
    }

    static result<page<location>> fetch_locations(const basic_calls &calls,
                                                  const of_company &filter,
                                                  const std::string &page_token) {
        auto fetched = fetch<location>(calls, ghl_oauth_installed_locations, filter,
                                       write_location_filter, page_token);
        if (fetched && filter.installed) {
            auto &items = fetched->items;
            const auto lacks_app = [](const location &one) { return one.is_installed == false; };
            items.erase(std::remove_if(items.begin(), items.end(), lacks_app), items.end());
        }
        return fetched;
    }

    template <class T, class Filter>
    pages<Mode, T> ranged(with_params function, Filter filter,
                          void (*put)(detail::writer &, const Filter &)) const {
        std::string first = filter.page_token;
        return {[calls = basic_calls(*this), function, put,
                 filter = std::move(filter)](const std::string &page_token) {
                    return fetch<T>(calls, function, filter, put, page_token);
                },
                std::move(first)};
    }

    // The token's fields override its raw JSON.
    static void write(detail::writer &params, const token &one) {
        static constexpr std::string_view own[] = {"accessToken", "refreshToken", "expiresAt",
                                                   "userType",    "companyId",    "locationId",
                                                   "scope"};
        params.open('{');
        if (const auto whole = detail::value::document(one.raw)) {
            whole->members([&](std::string_view name, detail::value member) {
                if (std::find(std::begin(own), std::end(own), name) == std::end(own)) {
                    params.name(name).raw(member.raw());
                }
                return true;
            });
        }
        params.member("accessToken", one.access_token).member("refreshToken", one.refresh_token);
        if (one.expires_at) {
            params.member("expiresAt", one.expires_at->time_since_epoch());
        }
        params.member("userType", one.user_type).member("companyId", one.company_id);
        params.member("locationId", one.location_id).member("scope", one.scope).close('}');
    }
};

// A client: one app with its tokens and connections. Move-only. Destroy it only when no call runs.
template <class Mode> class basic_client : public basic_calls<Mode> {
public:
    // Creates a client from a configuration or its JSON.
    static typename Mode::template returns<basic_client> open(const config &config) {
        const secret json = config.json();
        return open(json.view());
    }
    static typename Mode::template returns<basic_client> open(std::string_view config_json) {
        return Mode::give(make(config_json, nullptr));
    }

    // The same with a custom store, which the client owns from then on. config.store may be empty
    // or have only encryption keys; in JSON, its kind is "callbacks".
    static typename Mode::template returns<basic_client> open(config config,
                                                              std::unique_ptr<store> own) {
        if (config.store && config.store->kind.empty()) {
            config.store->kind = "callbacks";
        }
        const secret json = config.json();
        return open(json.view(), std::move(own));
    }
    static typename Mode::template returns<basic_client> open(std::string_view config_json,
                                                              std::unique_ptr<store> own) {
        return Mode::give(make(config_json, &own));
    }

#if GHL_OAUTH_EXCEPTIONS
    // The same for ghl::client.
    template <class Of = Mode, class = std::enable_if_t<std::is_same_v<Of, detail::throwing>>>
    explicit basic_client(const config &config) : basic_client(open(config)) {}
    template <class Of = Mode, class = std::enable_if_t<std::is_same_v<Of, detail::throwing>>>
    explicit basic_client(std::string_view config_json) : basic_client(open(config_json)) {}
    template <class Of = Mode, class = std::enable_if_t<std::is_same_v<Of, detail::throwing>>>
    basic_client(const config &config, std::unique_ptr<store> own)
        : basic_client(open(config, std::move(own))) {}
    template <class Of = Mode, class = std::enable_if_t<std::is_same_v<Of, detail::throwing>>>
    basic_client(std::string_view config_json, std::unique_ptr<store> own)
        : basic_client(open(config_json, std::move(own))) {}
#endif

    basic_client(basic_client &&other) noexcept
        : basic_calls<Mode>(std::exchange(other.state_, nullptr)), owned_(std::move(other.owned_)) {
    }
    basic_client &operator=(basic_client &&other) noexcept {
        owned_ = std::move(other.owned_);
        other.state_ = nullptr;
        this->state_ = owned_.get();
        return *this;
    }

private:
    explicit basic_client(std::unique_ptr<detail::state> owned) noexcept
        : basic_calls<Mode>(owned.get()), owned_(std::move(owned)) {}

    static result<basic_client> make(std::string_view config_json, std::unique_ptr<store> *own) {
        detail::writer config;
        config.raw(config_json);
        if (config_json.find('\0') != std::string_view::npos) {
            return detail::own_failure(status::invalid_argument, "the configuration contains a NUL",
                                       "config_json");
        }
        if (own != nullptr && *own == nullptr) {
            return detail::own_failure(status::invalid_argument, "the store is a null pointer",
                                       "store");
        }
        auto owned = std::make_unique<detail::state>();
        char *out = nullptr;
        std::int32_t code = GHL_OK;
        if (own == nullptr) {
            code = ghl_client_new(config.c_str(), &owned->handle, &out);
        } else {
            const ghl_store_callbacks callbacks = detail::store_frame::callbacks(**own);
            // From here on, the library owns the store, even if the call fails.
            (void)own->release();
            code = ghl_client_new_with_store(config.c_str(), &callbacks, &owned->handle, &out);
        }
        const detail::owned_text document(out);
        if (code != GHL_OK) {
            return detail::failure_from(code, out);
        }
        return basic_client(std::move(owned));
    }

    std::unique_ptr<detail::state> owned_;
};

#if GHL_OAUTH_EXCEPTIONS
// The client that throws ghl::error.
using client = basic_client<detail::throwing>;
using client_ref = basic_calls<detail::throwing>;
#endif
// The client that returns ghl::result: auto client = ghl::checked_client::open(config);
using checked_client = basic_client<detail::checked>;
using checked_ref = basic_calls<detail::checked>;

// ---- Library ------------------------------------------------------------------------------------

// The library's version, such as "0.1.0". GHL_OAUTH_VERSION is the version of the headers.
inline const char *version() noexcept { return ghl_version(); }
// The library's ABI version.
inline std::uint32_t abi_version() noexcept { return ghl_abi_version(); }

// Describes the library as JSON: its version, stores, features and TLS library. Empty if memory is
// exhausted.
inline std::string library_info() {
    char *out = nullptr;
    ghl_library_info(&out);
    const detail::owned_text document(out);
    return out == nullptr ? std::string() : std::string(out);
}

enum class log_level : std::int32_t {
    off = 0,
    error = 1,
    warning = 2,
    information = 3,
    debug = 4,
    trace = 5
};

namespace detail {

using log_slot = listener_slot<log_level, std::string_view>;

// Never destroyed: another thread may log while the process exits.
inline log_slot &log_listeners() {
    static log_slot *const slot = new log_slot;
    return *slot;
}

inline void on_log(std::int32_t level, const char *message, void *context) noexcept {
    const auto &to = *static_cast<const listener<log_level, std::string_view> *>(context);
    const running mark(to.owner);
    guarded(to.on_error, [&] { to.function(static_cast<log_level>(level), message); });
}

} // namespace detail

// Sets the process-wide log listener, called with a level and a message; nullptr removes it.
// Returns when the previous listener no longer runs, so do not call it from a listener. on_error
// receives its exceptions.
inline result<void> try_on_log(std::function<void(log_level, std::string_view)> listener,
                               log_level most = log_level::information,
                               detail::error_handler on_error = {}) {
    return detail::log_listeners().replace(
        std::move(listener), std::move(on_error), [most](auto *next) {
            return next == nullptr ? ghl_set_log_callback(nullptr, nullptr, 0)
                                   : ghl_set_log_callback(detail::on_log, next,
                                                          static_cast<std::int32_t>(most));
        });
}

#if GHL_OAUTH_EXCEPTIONS
// The same, but throws ghl::error.
inline void on_log(std::function<void(log_level, std::string_view)> listener,
                   log_level most = log_level::information, detail::error_handler on_error = {}) {
    try_on_log(std::move(listener), most, std::move(on_error)).value();
}
#endif

} // namespace GHL_OAUTH_NAMESPACE
} // namespace ghl

#undef GHL_OAUTH_NAMESPACE
#undef GHL_OAUTH_JOIN
#undef GHL_OAUTH_JOIN_

#endif
