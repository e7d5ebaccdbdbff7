/*
 * From a consent link to valid tokens, with ghl_oauth.hpp.
 *
 *     c++ -std=c++17 examples/cpp/quickstart.cpp -Iinclude -Ibindings/cpp \
 *         -Ltarget/release -Wl,-rpath,$PWD/target/release -lghl_oauth
 *
 * The configuration is JSON on the command line. The emulator prints a suitable one: cargo run -p
 * ghl-oauth-emulator. Open the link, consent, and paste the URL to which the browser is redirected.
 */
#include <iostream>
#include <string>

#include "ghl_oauth.hpp"

namespace {

// Sends a person to the consent page, and stores the token of the consent.
ghl::token_info connect(const ghl::client &client) {
    ghl::authorization_options options;
    options.scopes = {"oauth.readonly", "oauth.write", "locations.readonly"};
    const ghl::authorization_link link = client.authorization_url(options);
    std::cout << "Open this link: " << link.url
              << "\nPaste the URL to which the browser was redirected: " << std::flush;
    std::string redirect_url;
    std::getline(std::cin, redirect_url);
    ghl::completion_options completion;
    completion.state = link.state;
    return client.authorization_complete(redirect_url, completion);
}

// Mints the tokens of all locations of the company, and visits each location with its own token.
void visit_locations(const ghl::client &client, const std::string &company_id) {
    const ghl::mint_report report =
        client.tokens_mint(company_id, {}, [](const ghl::mint_progress &so_far) {
            std::cout << so_far.done << " of " << so_far.total.value_or(0)
                      << " locations have a token\n";
        });
    for (const ghl::failed_token &failed : report.failed) {
        std::cerr << failed.resource_id << ": " << failed.error.text() << '\n';
    }
    ghl::location_filter with_app;
    with_app.installed = true; // the others have no token
    for (const ghl::location &location : client.installed_locations(company_id, with_app)) {
        const ghl::api_response answer =
            client.request(ghl::api_request("GET", "/locations/" + location.id, location.id));
        std::cout << location.id << "  " << answer.status << "  " << location.name.value_or("")
                  << '\n';
    }
}

} // namespace

int main(int argc, char **argv) {
    if (argc != 2) {
        std::cerr
            << "usage: " << argv[0]
            << " '{\"clientId\": \"...\", \"clientSecret\": \"...\", \"redirectUri\": \"...\"}'\n";
        return 2;
    }
    try {
        const ghl::client client(argv[1]);
        client.on_event([](const ghl::event &event) {
            if (event.type == "token.reauthorizationRequired") {
                std::cerr << event.resource_id << " needs a person's consent again\n";
            }
        });
        const ghl::token_info company = connect(client);
        std::cout << "connected: " << company.user_type << ' ' << company.resource_id << '\n';
        visit_locations(client, company.resource_id);
    } catch (const ghl::rate_limited &error) {
        std::cerr << "try again in "
                  << error.retry_after().value_or(std::chrono::seconds(10)).count() << " ms\n";
        return 1;
    } catch (const ghl::error &error) {
        std::cerr << error.what() << '\n';
        return 1;
    }
    return 0;
}
