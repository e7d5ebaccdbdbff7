// Helpers of the C++ tests.
#ifndef GHL_TESTS_CHECKS_HPP
#define GHL_TESTS_CHECKS_HPP

#include <cstdio>
#include <cstdlib>
#include <string>

#include "ghl_oauth.hpp"

#define CHECK(...)                                                                              \
    do {                                                                                        \
        if (!(__VA_ARGS__)) {                                                                   \
            std::fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #__VA_ARGS__);      \
            std::exit(1);                                                                       \
        }                                                                                       \
    } while (0)

// Passes the consent link to the program that simulates the person. Returns the redirect URL.
inline std::string consent(const std::string &person, const std::string &url) {
    CHECK(url.find('\'') == std::string::npos);
#ifdef _WIN32
    const std::string quote = "\"";
#else
    const std::string quote = "'";
#endif
    std::FILE *answer = popen((person + " " + quote + url + quote).c_str(), "r");
    char redirect_url[4096] = "";
    CHECK(answer != nullptr && std::fgets(redirect_url, sizeof redirect_url, answer) != nullptr);
    CHECK(pclose(answer) == 0);
    std::string line = redirect_url;
    return line.substr(0, line.find_last_not_of("\r\n") + 1);
}

#endif
