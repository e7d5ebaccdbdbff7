// The counterpart of memory.c for ghl_oauth.hpp: a program that makes the calls requested by its
// input through the typed results and keeps nothing, so that its memory can be searched for remains
// of the header.
#include <cstring>
#include <unistd.h>

#include "checks.hpp"

namespace {

using ghl::detail::value;

char line[1 << 16];

std::size_t next_line() {
    std::size_t length = 0;
    do {
        const auto got = read(STDIN_FILENO, line + length, sizeof line - length);
        if (got <= 0) {
            return 0;
        }
        length += static_cast<std::size_t>(got);
    } while (line[length - 1] != '\n');
    line[length - 1] = '\0';
    return length;
}

void say(std::string_view text) {
    while (!text.empty()) {
        const auto written = write(STDOUT_FILENO, text.data(), text.size());
        CHECK(written > 0);
        text.remove_prefix(static_cast<std::size_t>(written));
    }
}

// The JSON of a result, or its error object.
template <class T> void answer(const ghl::result<T> &made) {
    if (made) {
        say(made->raw);
    } else {
        say("{\"error\":" + made.error().raw + "}");
    }
}

std::string member(std::string_view json, std::string_view wanted) {
    std::string found;
    value::document(json)->members(
        [&](std::string_view name, value of) { return name != wanted || read(of, found); });
    return found;
}

void call(const ghl::checked_client &client, std::string_view name, std::string_view parameters) {
    if (name == "access_token") {
        const ghl::result<ghl::secret> token = client.access_token(parameters);
        ghl::secret again("something before it");
        CHECK(token.has_value() == client.access_token(parameters, again).has_value());
        say(token ? token->view() : std::string_view("{}"));
    } else if (name == "authorization_url") {
        answer(client.authorization_url());
    } else if (name == "authorization_complete") {
        ghl::secret redirect_url;
        CHECK(value::document(parameters)->members([&](std::string_view key, value of) {
            return key != "redirectUrl" || read(of, redirect_url);
        }));
        answer(client.authorization_complete(redirect_url.view()));
    } else if (name == "installed_locations") {
        answer(client.installed_locations_page(member(parameters, "companyId")));
    } else if (name == "location_token") {
        answer(client.oauth_location_token(member(parameters, "companyId"),
                                           member(parameters, "locationId")));
    } else if (name == "maintain") {
        answer(client.tokens_maintain());
    } else if (name == "oauth_token") {
        ghl::token_request request;
        CHECK(ghl::detail::read_object(*value::document(parameters), "grantType",
                                       request.grant_type, "refreshToken", request.refresh_token,
                                       "clientSecret", request.client_secret));
        answer(client.oauth_token(request));
    } else if (name == "stats") {
        answer(client.stats());
    } else if (name == "token_delete") {
        answer(client.token_delete(parameters));
    } else if (name == "token_refresh") {
        answer(client.token_refresh(parameters));
    } else if (name == "tokens_export") {
        for (const ghl::result<ghl::token> &token : client.tokens_export()) {
            CHECK(token && !token->access_token.empty());
        }
        answer(client.tokens_export_page());
    } else if (name == "tokens_import") {
        ghl::page<ghl::token> given;
        CHECK(read(*value::document(parameters), given));
        answer(given.items.empty() ? client.tokens_import(parameters)
                                   : client.tokens_import(given.items));
    } else {
        CHECK(name == "tokens_list");
        answer(client.tokens_list_page());
    }
}

} // namespace

int main() {
    std::optional<ghl::checked_client> client;
    say("ready\n");
    for (std::size_t used = 0; (used = next_line()) > 0;) {
        char *parameters = std::strchr(line, ' ');
        if (parameters != nullptr) {
            *parameters++ = '\0';
        }
        const std::string_view name(line);
        if (name == "keep") {
            say("kept\n");
            continue;
        }
        if (name == "new") {
            auto opened = ghl::checked_client::open(std::string_view(parameters));
            CHECK(opened);
            client.emplace(std::move(opened).value());
            say("{}");
        } else if (name == "free") {
            client.reset();
            say("{}");
        } else {
            call(*client, name, parameters);
        }
        ghl::detail::wipe(line, used);
        say("\n");
    }
}
