// A client of ghl_oauth.hpp with a custom store class, against an emulator with 3 locations:
// argv[1] is the configuration, argv[2] a program that simulates the person, argv[3] a path for a
// database.
#include <cstring>
#include <stdexcept>
#include <thread>

#include "map_store.hpp"

static_assert(std::is_abstract_v<ghl::store> && std::has_virtual_destructor_v<ghl::store>);
static_assert(!std::is_copy_constructible_v<ghl::store>);
static_assert(
    std::is_constructible_v<ghl::client, const ghl::config &, std::unique_ptr<map_store>>);
static_assert(
    !std::is_constructible_v<ghl::checked_client, const ghl::config &, std::unique_ptr<map_store>>);

namespace {

template <class Error, class Work> Error thrown(Work work) {
    try {
        work();
    } catch (const Error &error) {
        return error;
    } catch (const std::exception &other) {
        std::fprintf(stderr, "thrown instead: %s\n", other.what());
        std::exit(1);
    }
    std::fprintf(stderr, "nothing was thrown\n");
    std::exit(1);
}

template <class Store> std::unique_ptr<ghl::store> over(shared_records &shared) {
    return std::make_unique<Store>(shared);
}

[[noreturn]] ghl::failure throws() { throw std::runtime_error("the cupboard is locked"); }
[[noreturn]] ghl::failure throws_a_number() { throw 7; }
ghl::failure returns_a_failure() { return ghl::store_failure("the cupboard is empty"); }

bool holds(const std::string &text, std::string_view part) {
    return text.find(part) != std::string::npos;
}
bool holds(const std::string &text, const ghl::secret &part) { return holds(text, part.view()); }

std::string connect(const ghl::client &client, const std::string &person) {
    const ghl::authorization_link link = client.authorization_url();
    ghl::completion_options kept;
    kept.state = link.state;
    return client.authorization_complete(consent(person, link.url), kept).resource_id;
}

void a_token_goes_through_its_life(const std::string &config, const std::string &person) {
    shared_records shared;
    std::vector<ghl::token> exported;
    std::string company;
    {
        ghl::client client(config, over<locking_map_store>(shared));
        company = connect(client, person);
        CHECK(shared.records.count(company) == 1 && shared.locks > 0 && shared.locked.empty());
        const ghl::secret before = client.access_token(company);
        CHECK(holds(shared.records[company], before));
        CHECK(client.token_refresh(company).state == "ok");
        const ghl::secret after = client.access_token(company);
        CHECK(after.view() != before.view() && holds(shared.records[company], after));
        CHECK(!holds(shared.all(), before));

        CHECK(client.tokens_mint(company).minted == 3);
        CHECK(client.tokens_list().to_vector().size() == 4);
        ghl::token_filter locations;
        locations.user_type = "Location";
        CHECK(client.tokens_list(locations).to_vector().size() == 3);
        exported = client.tokens_export().to_vector();

        // The store moves with the client.
        ghl::client moved(std::move(client));
        CHECK(shared.alive == 1 && holds(shared.records[company], moved.access_token(company)));
    }
    CHECK(shared.alive == 0);

    // Another client finds the records of the first one; two clients share them.
    const ghl::client one(config, over<locking_map_store>(shared));
    const ghl::client other(config, over<locking_map_store>(shared));
    CHECK(shared.alive == 2);
    CHECK(one.tokens_list().to_vector().size() == 4);
    std::vector<std::thread> threads;
    for (const ghl::client *client : {&one, &other, &one, &other}) {
        threads.emplace_back([&, client] {
            for (const ghl::token &token : exported) {
                CHECK(!client->access_token(token.location_id.value_or(company)).empty());
            }
            CHECK(client->token_refresh(company).state == "ok");
        });
    }
    for (std::thread &thread : threads) {
        thread.join();
    }
    CHECK(shared.locked.empty());
    // The previously exported refresh tokens are spent, and an import would refuse them.
    exported = one.tokens_export().to_vector();
    CHECK(one.token_delete(company).resource_id == company);
    CHECK(shared.records.count(company) == 0 && other.tokens_list().to_vector().size() == 3);

    // A busy lock is requested again.
    const int locks = shared.locks;
    shared.busy = 2;
    CHECK(one.tokens_import(exported).imported == 1);
    CHECK(shared.busy == 0 && shared.locks > locks && shared.records.count(company) == 1);
}

void a_store_needs_no_lock(const ghl::config &config, const std::string &person) {
    shared_records shared;
    const ghl::checked_client client =
        ghl::checked_client::open(config, over<map_store>(shared)).value();
    const ghl::client throwing(config, over<map_store>(shared));
    const std::string company = connect(throwing, person);
    CHECK(client.token_refresh(company) && client.access_token(company) && shared.locks == 0);
    // The defaults of the base class.
    map_store alone(shared);
    CHECK(!alone.has_lock() && !alone.lock("id", std::chrono::milliseconds(1)));
    alone.unlock("id");
}

void a_store_that_fails_loses_nothing(const std::string &config, const std::string &person) {
    shared_records shared;
    const ghl::client client(config, over<locking_map_store>(shared));
    const std::string company = connect(client, person);
    const std::string record = shared.records[company];

    // The message of load and list reaches the caller, whether thrown or returned.
    shared.load_fails = throws;
    const auto refused = thrown<ghl::store_error>([&] { client.token_refresh(company); });
    CHECK(holds(refused.message(), "the cupboard is locked") && refused.resource_id() == company &&
          refused.retryable());
    shared.load_fails = returns_a_failure;
    CHECK(holds(thrown<ghl::store_error>([&] { client.token_refresh(company); }).message(),
                "the cupboard is empty"));
    shared.load_fails = throws_a_number;
    thrown<ghl::store_error>([&] { client.token_refresh(company); });
    // A failure with a success code is still a failure, and a NUL must not truncate a record.
    shared.load_fails = [] {
        ghl::failure why;
        why.status = ghl::status::ok;
        return why;
    };
    thrown<ghl::store_error>([&] { client.token_refresh(company); });
    shared.load_fails = nullptr;
    shared.records[company] += std::string("\0", 1);
    thrown<ghl::store_error>([&] { client.token_refresh(company); });
    shared.records[company] = record;
    shared.list_fails = throws;
    CHECK(holds(thrown<ghl::store_error>([&] { client.tokens_list_page(); }).message(),
                "the cupboard is locked"));
    shared.list_fails = returns_a_failure;
    CHECK(holds(client.checked().tokens_list_page().error().message, "the cupboard is empty"));
    shared.list_fails = nullptr;

    // The other functions report only a number.
    for (auto *fails : {&shared.save_fails, &shared.remove_fails, &shared.lock_fails}) {
        for (const auto &how :
             {std::function<ghl::failure()>(throws), std::function<ghl::failure()>(throws_a_number),
              std::function<ghl::failure()>(returns_a_failure)}) {
            *fails = how;
            const auto failed = thrown<ghl::store_error>([&] {
                fails == &shared.remove_fails ? client.token_delete(company)
                                              : client.token_refresh(company);
            });
            CHECK(holds(failed.message(), "GHL_ERR_STORE") && shared.locked.empty());
            *fails = nullptr;
        }
    }
    CHECK(shared.records[company] == record && client.token_refresh(company).state == "ok");

    // A single conflict is resolved; a permanent one is an error.
    shared.conflicts = 1;
    CHECK(client.token_refresh(company).state == "ok" && shared.conflicts == 0);
    shared.conflicts = 1000;
    const auto stuck = client.checked().token_refresh(company);
    CHECK(!stuck && stuck.error().resource_id == company && shared.conflicts < 1000);
    shared.conflicts = 0;
    CHECK(client.token_refresh(company).state == "ok");
    client.access_token(company);
}

// A store that calls the client it serves is refused without harm.
void a_store_cannot_use_its_own_client(const ghl::config &config, const std::string &person) {
    shared_records shared;
    const ghl::client client(config, over<map_store>(shared));
    const std::string company = connect(client, person);
    const ghl::client other(config);
    shared.load_fails = [&] {
        const auto refused = client.checked().stats();
        CHECK(!refused && refused.error().status == ghl::status::invalid_argument);
        CHECK(other.stats().version == ghl::version());
        return ghl::store_failure("asked for");
    };
    CHECK(holds(client.checked().token_refresh(company).error().message, "asked for"));
}

const std::string first = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=",
                  second = "YWJjZGVmMDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODk=";

void tokens_are_sealed_before_the_store_sees_them(const ghl::config &base,
                                                  const std::string &person) {
    shared_records shared;
    const auto with = [&](std::initializer_list<std::string_view> keys) {
        ghl::config config = base;
        config.store.emplace();
        for (const std::string_view key : keys) {
            config.store->encryption_keys.emplace_back(key);
        }
        return config;
    };
    std::string company;
    {
        const ghl::client client(with({}), over<map_store>(shared));
        company = connect(client, person);
        client.tokens_mint(company);
        CHECK(holds(shared.all(), client.access_token(company)));
        CHECK(client.tokens_maintain().resealed == 0);
    }
    {
        const ghl::client client(with({first}), over<map_store>(shared));
        const ghl::maintenance_report report = client.tokens_maintain();
        CHECK(report.resealed == 4 && report.unsealed == 0 && report.failed.empty());
        CHECK(!holds(shared.all(), client.access_token(company)));
    }
    // The required key is missing.
    {
        const ghl::client client(with({second}), over<map_store>(shared));
        const ghl::maintenance_report report = client.tokens_maintain();
        CHECK(report.resealed == 0 && report.unsealed == 4 && report.failed.size() == 4);
        CHECK(report.failed[0].resource_id && report.failed[0].error.status == ghl::status::store &&
              !report.failed[0].error.message.empty());
    }
    const ghl::client client(with({second, first}), over<map_store>(shared));
    CHECK(client.tokens_maintain(company).resealed == 0 && client.tokens_maintain().resealed == 4);
}

// The built-in store knows the keys in use: a missing key is not a failure of a single token.
void missing_key_is_not_a_token_failure(const ghl::config &base, const std::string &person,
                                        const std::string &path) {
    ghl::config config = base;
    config.store = ghl::sqlite_store(path);
    config.store->encryption_keys.emplace_back(first);
    const std::string company = connect(ghl::client(config), person);
    // The company is sealed with one key, its locations with the other.
    config.store->encryption_keys = {ghl::secret(second), ghl::secret(first)};
    CHECK(ghl::client(config).tokens_mint(company).minted == 3);
    config.store->encryption_keys.pop_back();
    const ghl::maintenance_report report = ghl::client(config).tokens_maintain();
    CHECK(report.unsealed == 1 && report.failed.size() == 1 && !report.failed[0].resource_id);
    CHECK(report.failed[0].error.status == ghl::status::store && report.failed[0].error.help);
    config.store->encryption_keys.emplace_back(first);
    const ghl::maintenance_report whole = ghl::client(config).tokens_maintain();
    CHECK(whole.resealed == 1 && whole.unsealed == 0 && whole.failed.empty());
}

void a_store_is_destroyed_once_whatever_comes(const ghl::config &config, const std::string &json) {
    shared_records shared;
    ghl::config elsewhere = config;
    elsewhere.store = ghl::sqlite_store("tokens.db");
    thrown<ghl::error>([&] { ghl::client client(elsewhere, over<map_store>(shared)); });
    CHECK(shared.alive == 0);
    CHECK(!ghl::checked_client::open("{}", over<map_store>(shared)));
    CHECK(shared.alive == 0);
    CHECK(!ghl::checked_client::open(json + std::string("\0", 1), over<map_store>(shared)));
    CHECK(shared.alive == 0);
    const auto none = ghl::checked_client::open(config, std::unique_ptr<ghl::store>());
    CHECK(!none && none.error().status == ghl::status::invalid_argument &&
          none.error().parameter == "store");

    // A store whose constructor throws before the library owns it.
    struct undecided : map_store {
        using map_store::map_store;
        bool has_lock() const override { throw std::runtime_error("undecided"); }
    };
    CHECK(std::strcmp(thrown<std::runtime_error>([&] {
                          ghl::client client(config, over<undecided>(shared));
                      }).what(),
                      "undecided") == 0);
    CHECK(shared.alive == 0);

    ghl::client client(config, over<map_store>(shared));
    CHECK(shared.alive == 1);
    client = ghl::client(config, over<map_store>(shared));
    CHECK(shared.alive == 1);
    client = ghl::client(config);
    CHECK(shared.alive == 0);
}

} // namespace

int main(int argc, char **argv) {
    CHECK(argc == 4);
    const std::string json = argv[1], person = argv[2];
    ghl::config config;
    CHECK(ghl::detail::read_object(*ghl::detail::value::document(json), "clientId",
                                   config.client_id, "clientSecret", config.client_secret,
                                   "redirectUri", config.redirect_uri, "baseUrl", config.base_url,
                                   "authorizeUrl", config.authorize_url));
    config.scopes = {"oauth.readonly", "oauth.write", "locations.readonly"};
    const ghl::secret whole = config.json();
    const std::string with_scopes(whole.view());
    a_store_is_destroyed_once_whatever_comes(config, with_scopes);
    a_token_goes_through_its_life(with_scopes, person);
    a_store_needs_no_lock(config, person);
    a_store_that_fails_loses_nothing(with_scopes, person);
    a_store_cannot_use_its_own_client(config, person);
    tokens_are_sealed_before_the_store_sees_them(config, person);
    missing_key_is_not_a_token_failure(config, person, argv[3]);
    std::puts("passed");
}
