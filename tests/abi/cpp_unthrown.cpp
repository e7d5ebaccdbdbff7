// ghl_oauth.hpp without exceptions: compiled with -fno-exceptions -fno-rtti. argv[1] is the configuration, argv[2] a company's
// tokens, as ghl_tokens_import takes them, argv[3] the company.
#include "checks.hpp"

static_assert(GHL_OAUTH_EXCEPTIONS == 0);

int main(int argc, char **argv) {
    CHECK(argc == 4);
    const auto refused = ghl::checked_client::open("{}");
    CHECK(!refused && refused.error().status == ghl::status::invalid_argument && refused.error().parameter == "clientId");

    auto opened = ghl::checked_client::open(argv[1]);
    CHECK(opened);
    const ghl::checked_client client = std::move(opened).value();
    int events = 0;
    CHECK(client.on_event([&](const ghl::event &) { ++events; }));
    const ghl::result<ghl::import_report> imported = client.tokens_import(std::string_view(argv[2]));
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
    const auto minted = client.tokens_mint(argv[3], {}, [&](const ghl::mint_progress &) { return ++calls > 0; });
    CHECK(minted && minted->total == 3 && calls > 0);
    const auto stopped = client.tokens_mint(argv[3], {}, [&](const ghl::mint_progress &) { return false; });
    CHECK(!stopped && stopped.error().status == ghl::status::cancelled);
    const auto statistics = client.stats();
    CHECK(statistics && statistics->tokens.minted >= 3);
    CHECK(client.on_event(nullptr) && ghl::try_on_log(nullptr));
    std::puts("passed");
}
