// Adopts the tokens of another client id: cpp_adopt CONFIGURATION OTHER-CLIENT-ID RESOURCE-ID.
#include <iostream>

#include "ghl_oauth.hpp"

#define CHECK(condition)                                                                \
    do {                                                                                \
        if (!(condition)) {                                                             \
            std::cerr << __FILE__ << ':' << __LINE__ << ": " << #condition << std::endl; \
            return 1;                                                                   \
        }                                                                               \
    } while (0)

int main(int argc, char **argv) {
    CHECK(argc == 4);
    const ghl::client client(argv[1]);
    const std::string other = argv[2], resource_id = argv[3];

    ghl::adoption_report report = client.tokens_adopt();
    CHECK(report.adopted == 0 && report.skipped.empty() && report.failed.empty() &&
          report.clients.size() == 1);
    CHECK(report.clients[0].client_id == other && report.clients[0].tokens == 2);
    report = client.tokens_adopt(other, {}, true);
    CHECK(report.adopted == 2 && report.clients[0].tokens == 2);
    report = client.tokens_adopt(other, resource_id);
    CHECK(report.adopted == 1 && report.clients[0].tokens == 1);
    report = client.tokens_adopt(other, resource_id);
    CHECK(report.skipped.size() == 1 && report.skipped[0].resource_id == resource_id &&
          !report.skipped[0].reason.empty());
    report = client.tokens_adopt(other);
    CHECK(report.adopted == 1 && report.clients.empty() &&
          report.raw.find("adopted") != std::string::npos);
    return 0;
}
