// ghl_oauth.hpp without exceptions: compiled with -fno-exceptions -fno-rtti. argv[1] is the
// configuration, argv[2] tokens of a company in the format of ghl_tokens_import, argv[3] the
// company.
#include "map_store.hpp"

static_assert(GHL_OAUTH_EXCEPTIONS == 0);

// A store whose functions return their failures.
void a_store_throws_nothing(std::string_view config, const std::vector<ghl::token> &tokens,
                            const std::string &company) {
    shared_records shared;
    CHECK(!ghl::checked_client::open("{}", std::make_unique<map_store>(shared)));
    CHECK(shared.alive == 0);
    {
        auto opened =
            ghl::checked_client::open(config, std::make_unique<locking_map_store>(shared));
        CHECK(opened);
        const ghl::checked_client client = std::move(opened).value();
        const auto imported = client.tokens_import(tokens);
        CHECK(imported && imported->imported == 1 && shared.records.count(company) == 1);
        shared.load_fails = [] { return ghl::store_failure("the cupboard is locked"); };
        const auto refused = client.token_refresh(company);
        CHECK(!refused && refused.error().status == ghl::status::store);
        CHECK(refused.error().message.find("the cupboard is locked") != std::string::npos);
        shared.load_fails = nullptr;
        shared.conflicts = 1;
        ghl::result<ghl::token_info> renewed = client.token_refresh(company);
        CHECK(renewed && renewed->state == "ok" && shared.conflicts == 0 && shared.locks > 0);
        CHECK(client.tokens_list_page()->items.size() == 1);
        ghl::maintenance_options hands;
        hands.concurrency = 2;
        CHECK(client.tokens_maintain({}, hands)->checked == 0);
        CHECK(client.token_delete(company) && shared.records.count(company) == 0);
    }
    CHECK(shared.alive == 0 && shared.locked.empty());
}

int main(int argc, char **argv) {
    CHECK(argc == 4);
    const auto refused = ghl::checked_client::open("{}");
    CHECK(!refused && refused.error().status == ghl::status::invalid_argument &&
          refused.error().parameter == "clientId");

    auto opened = ghl::checked_client::open(argv[1]);
    CHECK(opened);
    const ghl::checked_client client = std::move(opened).value();
    int events = 0;
    CHECK(client.on_event([&](const ghl::event &) { ++events; }));
    const ghl::result<ghl::import_report> imported =
        client.tokens_import(std::string_view(argv[2]));
    CHECK(imported && imported->imported == 1 && events == 1);

    ghl::result<ghl::secret> token = client.access_token(argv[3]);
    CHECK(token && !token->empty() && token.value().view() == token->view());
    ghl::secret again;
    CHECK(client.access_token(argv[3], again) && again.view() == token->view());
    const ghl::result<void> nobody = client.access_token("nobody at all \xff", again);
    CHECK(!nobody && nobody.error().status == ghl::status::invalid_argument && again.empty());
    CHECK(ghl::secret(client.access_token("").value_or(ghl::secret("none"))).size() == 4);

    int locations = 0;
    for (const ghl::result<ghl::location> &location : client.installed_locations(argv[3])) {
        CHECK(location && !location->id.empty());
        ++locations;
    }
    CHECK(locations == 3);
    int calls = 0;
    const auto minted =
        client.tokens_mint(argv[3], {}, [&](const ghl::mint_progress &) { return ++calls > 0; });
    CHECK(minted && minted->total == 3 && calls > 0);
    const auto stopped =
        client.tokens_mint(argv[3], {}, [&](const ghl::mint_progress &) { return false; });
    CHECK(!stopped && stopped.error().status == ghl::status::cancelled);
    // The currently stored token; the one from argv may be spent.
    ghl::token_filter companies;
    companies.user_type = "Company";
    const auto held = client.tokens_export_page(companies);
    CHECK(held);
    const auto statistics = client.stats();
    CHECK(statistics && statistics->tokens.minted >= 3);
    const auto metrics = client.metrics();
    CHECK(metrics && metrics->find("ghl_oauth_token_mints_total") != std::string::npos);
    CHECK(client.on_event(nullptr) && ghl::try_on_log(nullptr));
    a_store_throws_nothing(argv[1], held->items, argv[3]);
    std::puts("passed");
}
