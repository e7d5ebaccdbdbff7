// A list of locations in which only "l1" and "l2" are valid, from the configuration argv[1].
#include "checks.hpp"

int main(int argc, char **argv) {
    CHECK(argc == 2);
    const ghl::client client{std::string_view(argv[1])};
    client.tokens_import(
        R"({"tokens":[{"accessToken":"a","refreshToken":"r","userType":"Company","companyId":"c","expiresAt":4000000000000}]})");
    const ghl::page<ghl::location> page = client.installed_locations_page("c");
    CHECK(page.items.size() == 2 && page.items[0].id == "l1" && page.items[1].id == "l2" &&
          !page.next_page_token);
    CHECK(page.items[0].name == "One" && page.items[0].is_installed == true && !page.items[1].name);
    CHECK(page.raw.find("\"nobody\"") != std::string::npos);
    CHECK(client.installed_locations("c").to_vector().size() == 2);
    ghl::location_filter with_app;
    with_app.installed = true;
    const std::vector<ghl::location> installed =
        client.installed_locations("c", with_app).to_vector();
    CHECK(installed.size() == 1 && installed[0].id == "l1");
    std::puts("passed");
}
