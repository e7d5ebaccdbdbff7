/*
 * A desktop program: connects the location of its user once, and then calls the API at each start.
 *
 *     c++ -std=c++17 examples/cpp/desktop.cpp -Iinclude -Ibindings/cpp \
 *         -Ltarget/release -Wl,-rpath,$PWD/target/release -lghl_oauth
 *     ./a.out examples/broker/desktop.json
 *
 * The configuration decides how: with examples/broker/desktop.json through a broker, which keeps
 * the client secret; with your app's own configuration, for a program that never leaves your hands,
 * directly. docs/desktop.md explains both.
 */
#include <fstream>
#include <iostream>
#include <iterator>
#include <string>

#include "ghl_oauth.hpp"

namespace {

// The location whose token is in the store, or an empty string.
std::string connected(const ghl::client &client) {
    for (const ghl::token_info &token : client.tokens_list()) {
        if (token.location_id && token.state != "reauthorizationRequired") {
            return token.resource_id;
        }
    }
    return {};
}

// Sends the user to the browser, and waits for the redirect on the loopback port.
std::string connect(const ghl::client &client) {
    // A product opens the browser instead: ShellExecuteW, NSWorkspace, or xdg-open.
    std::cout << "Open this link: " << client.authorization_url().url << std::endl;
    const ghl::token_info token = client.authorization_listen();
    std::cout << "connected: " << token.resource_id << std::endl;
    return token.resource_id;
}

void show(const ghl::client &client, const std::string &location_id) {
    const ghl::api_request request("GET", "/locations/" + location_id, location_id);
    const ghl::api_response answer = client.request(request);
    std::cout << "HTTP " << answer.status << ": " << answer.body << std::endl;
}

} // namespace

int main(int argc, char **argv) {
    if (argc != 2) {
        std::cerr << "usage: " << argv[0] << " CONFIGURATION\n";
        return 2;
    }
    std::ifstream file(argv[1]);
    const std::string configuration{std::istreambuf_iterator<char>(file), {}};
    try {
        const ghl::client client(configuration);
        std::string location_id = connected(client);
        try {
            show(client, location_id.empty() ? connect(client) : location_id);
        } catch (const ghl::reauthorization_required &) {
            show(client, connect(client)); // revoked, or not used for a year
        }
    } catch (const ghl::consent_denied &) {
        std::cerr << "You did not allow access. Start again to try once more.\n";
        return 1;
    } catch (const ghl::error &error) {
        std::cerr << error.what() << '\n';
        return 1;
    }
    return 0;
}
