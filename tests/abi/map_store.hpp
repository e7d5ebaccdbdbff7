// A store for the C++ tests that keeps its records in a std::map. Several stores may share one map.
#ifndef GHL_TESTS_MAP_STORE_HPP
#define GHL_TESTS_MAP_STORE_HPP

#include <condition_variable>
#include <functional>
#include <map>
#include <mutex>
#include <set>

#include "checks.hpp"

struct shared_records {
    std::mutex guard;
    std::condition_variable changed;
    std::map<std::string, std::string, std::less<>> records;
    std::set<std::string, std::less<>> locked;
    int alive = 0, locks = 0;
    // The number of conflicts and busy locks to report first.
    int conflicts = 0, busy = 0;
    // Replacements of the store functions, if set.
    std::function<ghl::failure()> load_fails, save_fails, remove_fails, list_fails, lock_fails;

    std::string all() {
        std::string text;
        for (const auto &[id, record] : records) {
            text += record + "\n";
        }
        return text;
    }
};

inline std::uint64_t version_of(std::string_view record) {
    std::int64_t version = 0;
    CHECK(ghl::detail::read_object(*ghl::detail::value::document(record), "version", version));
    return static_cast<std::uint64_t>(version);
}

class map_store : public ghl::store {
public:
    explicit map_store(shared_records &shared) : shared_(shared) { ++shared_.alive; }
    ~map_store() override { --shared_.alive; }

    ghl::result<std::optional<std::string>> load(std::string_view id) override {
        const std::lock_guard<std::mutex> held(shared_.guard);
        if (shared_.load_fails) {
            return shared_.load_fails();
        }
        const auto found = shared_.records.find(id);
        if (found == shared_.records.end()) {
            return std::nullopt;
        }
        return found->second;
    }

    ghl::result<void> save(std::string_view id, std::string_view record,
                           std::uint64_t expected_version) override {
        const std::lock_guard<std::mutex> held(shared_.guard);
        if (shared_.save_fails) {
            return shared_.save_fails();
        }
        const auto found = shared_.records.find(id);
        const std::uint64_t version =
            found == shared_.records.end() ? 0 : version_of(found->second);
        if (version != expected_version || (shared_.conflicts > 0 && shared_.conflicts-- > 0)) {
            return ghl::store_conflict();
        }
        shared_.records.insert_or_assign(std::string(id), std::string(record));
        return {};
    }

    ghl::result<void> remove(std::string_view id) override {
        const std::lock_guard<std::mutex> held(shared_.guard);
        if (shared_.remove_fails) {
            return shared_.remove_fails();
        }
        shared_.records.erase(std::string(id));
        return {};
    }

    ghl::result<std::string> list(std::string_view query_json) override {
        const std::lock_guard<std::mutex> held(shared_.guard);
        CHECK(ghl::detail::value::document(query_json));
        if (shared_.list_fails) {
            return shared_.list_fails();
        }
        std::string page = "{\"items\":[";
        for (const auto &[id, record] : shared_.records) {
            page += (page.back() == '[' ? "" : ",") + record;
        }
        return page + "],\"nextPageToken\":null}";
    }

protected:
    shared_records &shared_;
};

class locking_map_store : public map_store {
public:
    using map_store::map_store;
    bool has_lock() const override { return true; }
    ghl::result<bool> lock(std::string_view id, std::chrono::milliseconds longest) override {
        std::unique_lock<std::mutex> held(shared_.guard);
        if (shared_.lock_fails) {
            return shared_.lock_fails();
        }
        if (shared_.busy > 0) {
            --shared_.busy;
            return false;
        }
        const auto is_free = [&] { return shared_.locked.count(id) == 0; };
        if (!shared_.changed.wait_for(held, longest, is_free)) {
            return false;
        }
        ++shared_.locks;
        shared_.locked.emplace(id);
        return true;
    }
    void unlock(std::string_view id) override {
        const std::lock_guard<std::mutex> held(shared_.guard);
        const auto found = shared_.locked.find(id);
        CHECK(found != shared_.locked.end());
        shared_.locked.erase(found);
        shared_.changed.notify_all();
    }
};

#endif
