// A client that is used by destructors of thread-local and static objects, and by one of them
// freed. argv[1] is a configuration, argv[2] tokens to import, argv[3] a company.
#include <optional>
#include <thread>

#include "checks.hpp"

namespace {

std::string company;

struct owner {
    std::optional<ghl::client> client;
    int calls = 0;

    void call() {
        const ghl::secret token = client->access_token(company);
        CHECK(!token.view().empty());
        client->token_refresh(company);
        CHECK(client->tokens_list().to_vector().size() == 1);
        ++calls;
    }

    ~owner() {
        call();
        client.reset();
        CHECK(calls == 4);
        std::puts("passed");
    }
};

owner global;

struct at_thread_exit {
    bool armed = false;
    ~at_thread_exit() {
        if (armed) {
            global.call();
        }
    }
};

// Created before the library's thread-local values, so destroyed after them.
thread_local at_thread_exit last;

} // namespace

int main(int argc, char **argv) {
    CHECK(argc == 4);
    last.armed = true;
    company = argv[3];
    global.client.emplace(std::string_view(argv[1]));
    ghl::on_log([](ghl::log_level, std::string_view) {}, ghl::log_level::trace);
    global.client->on_event([](const ghl::event &) {});
    global.client->tokens_import(std::string_view(argv[2]));
    global.call();
    std::thread([] { last.armed = true; }).join();
}
