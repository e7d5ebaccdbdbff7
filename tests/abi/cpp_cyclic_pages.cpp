// A list whose page tokens form a cycle ends with an error, from the configuration argv[1].
#include "checks.hpp"

int main(int argc, char **argv) {
    CHECK(argc == 2);
    const ghl::client client{std::string_view(argv[1])};
    client.tokens_import(
        R"({"tokens":[{"accessToken":"a","userType":"Company","companyId":"c"}]})");
    auto locations = client.installed_locations("c");
    std::size_t count = 0;
    bool ended = false;
    try {
        for (const ghl::location &one : locations) {
            CHECK(!one.id.empty() && ++count < 100);
        }
    } catch (const ghl::protocol_error &error) {
        ended = error.message().find("cycle") != std::string::npos;
    }
    CHECK(ended && count > 0);
    std::printf("%zu\n", count);
}
