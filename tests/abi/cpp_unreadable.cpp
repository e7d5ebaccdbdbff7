// A store of three companies, "c1" to "c3", in which "c2" is unreadable, from the configuration
// argv[1].
#include "checks.hpp"

namespace {

void check_failed(const std::vector<ghl::failed_token> &failed) {
    CHECK(failed.size() == 1 && failed[0].resource_id == "c2" &&
          failed[0].error.status == ghl::status::store);
    CHECK(!failed[0].error.message.empty() && !failed[0].error.retryable);
}

} // namespace

int main(int argc, char **argv) {
    CHECK(argc == 2);
    const ghl::client client{std::string_view(argv[1])};
    const ghl::page<ghl::token_info> page = client.tokens_list_page();
    CHECK(page.items.size() == 2 && page.items[0].resource_id == "c1" &&
          page.items[1].resource_id == "c3");
    check_failed(page.failed);
    check_failed(client.tokens_export_page().failed);

    ghl::token_filter one_by_one;
    one_by_one.page_size = 1;
    auto list = client.tokens_list(one_by_one);
    CHECK(list.failed().empty());
    CHECK(list.to_vector().size() == 2);
    check_failed(list.failed());
    auto tokens = client.tokens_export();
    for (const ghl::token &token : tokens) {
        CHECK(token.access_token.view() == "access-" + *token.company_id);
    }
    check_failed(tokens.failed());

    CHECK(client.token_delete("c2").state == "unreadable");
    CHECK(client.tokens_list_page().failed.empty());
    std::puts("passed");
}
