// ghl_oauth.hpp against an emulator with 5 locations: argv[1] is the configuration, argv[2] a
// program that simulates the person, argv[3] the signature of argv[4], an INSTALL webhook.
#include <atomic>
#include <cstring>
#include <map>
#include <set>
#include <stdexcept>
#include <thread>

#include "checks.hpp"

#if __cplusplus >= 202002L
#include <ranges>
static_assert(std::ranges::input_range<ghl::pages<ghl::detail::throwing, ghl::location>>);
static_assert(std::ranges::input_range<ghl::pages<ghl::detail::checked, ghl::token>>);
#endif

static_assert(!std::is_copy_constructible_v<ghl::client> &&
              !std::is_copy_assignable_v<ghl::client>);
static_assert(std::is_nothrow_move_constructible_v<ghl::client> &&
              std::is_nothrow_move_assignable_v<ghl::client>);
static_assert(!std::is_default_constructible_v<ghl::checked_client>);
static_assert(std::is_nothrow_copy_constructible_v<ghl::error>);
static_assert(std::is_copy_constructible_v<ghl::client_ref>);

namespace {

// The error that the work throws: exactly of this class, which derives from ghl::error and
// std::exception.
template <class Error, class Work> Error thrown(Work work) {
    try {
        work();
    } catch (const std::exception &base) {
        if (typeid(base) != typeid(Error) || std::strlen(base.what()) == 0) {
            std::fprintf(stderr, "thrown instead: %s\n", base.what());
            std::abort();
        }
        return dynamic_cast<const Error &>(base);
    }
    std::fprintf(stderr, "nothing was thrown\n");
    std::exit(1);
}

struct own_error : std::runtime_error {
    using runtime_error::runtime_error;
};

void a_bad_configuration_is_refused_by_name() {
    const auto refused = thrown<ghl::invalid_argument>(
        [] { ghl::client(R"({"clientId":"a-1","clientSecret":"s","colour":1})"); });
    CHECK(refused.code() == ghl::status::invalid_argument && refused.parameter() == "colour" &&
          refused.help());
    CHECK(!refused.retryable() && !refused.sent() && !refused.retry_after() &&
          !refused.http_status() && !refused.api() && !refused.trace_id());
    CHECK(std::string(refused.what()).find("GHL_ERR_INVALID_ARGUMENT: ") == 0);
    CHECK(refused.failure().raw.find("\"status\"") != std::string::npos);
    ghl::config config("a-1", "s");
    config.base_url = "http://example.com";
    thrown<ghl::config_error>([&] { ghl::client client(config); });
    const auto made = ghl::checked_client::open(config);
    CHECK(!made && made.error().status == ghl::status::config &&
          made.error().parameter == "baseUrl");
    thrown<ghl::config_error>([&] { made.value(); });
    thrown<ghl::invalid_argument>([] { ghl::client(std::string_view("{}\0 ", 4)); });
}

void every_status_has_its_class() {
    const auto raised = [](int code) {
        ghl::failure why;
        why.status = static_cast<ghl::status>(code);
        ghl::detail::raise(why);
    };
    CHECK(thrown<ghl::rate_limited>([&] { raised(GHL_ERR_RATE_LIMITED); }).code() ==
          ghl::status::rate_limited);
    thrown<ghl::conflict>([&] { raised(GHL_ERR_CONFLICT); });
    thrown<ghl::timeout>([&] { raised(GHL_ERR_TIMEOUT); });
    // A status that only a newer library has.
    CHECK(thrown<ghl::error>([&] { raised(63); }).code() == static_cast<ghl::status>(63));
}

ghl::token_info connected(const ghl::client &client, const std::string &person) {
    ghl::authorization_options options;
    options.scopes = {"oauth.readonly", "oauth.write", "locations.readonly"};
    const ghl::authorization_link link = client.authorization_url(options);
    CHECK(link.state.size() == 43 && link.url.find(link.state) != std::string::npos);
    const std::string redirect_url = consent(person, link.url);
    ghl::completion_options wrong;
    wrong.state = "another state";
    thrown<ghl::state_mismatch>([&] { client.authorization_complete(redirect_url, wrong); });
    ghl::completion_options kept;
    kept.state = link.state;
    ghl::token_info company = client.authorization_complete(redirect_url, kept);
    CHECK(company.user_type == "Company" && company.state == "ok" && company.refreshable &&
          !company.location_id);
    CHECK(company.expires_at && company.scope && company.company_id == company.resource_id);
    const auto nobody = thrown<ghl::invalid_argument>([&] { client.authorization_listen(); });
    CHECK(nobody.parameter() == "port");
    ghl::listen_options listen;
    listen.port = 8080;
    listen.timeout = std::chrono::milliseconds(-1);
    CHECK(thrown<ghl::invalid_argument>([&] { client.authorization_listen(listen); }).parameter() ==
          "timeoutMs");
    return company;
}

std::vector<std::string> lists_come_page_by_page(const ghl::client &client,
                                                 const std::string &company_id) {
    std::vector<std::string> ids;
    ghl::location_filter filter;
    filter.page_size = 2;
    const auto before = client.stats().requests.sent;
    for (const ghl::location &location : client.installed_locations(company_id, filter)) {
        CHECK(!location.id.empty() && location.name && location.raw.front() == '{');
        ids.push_back(location.id);
        // Pages are fetched lazily.
        CHECK(client.stats().requests.sent - before ==
              static_cast<std::int64_t>((ids.size() + 1) / 2));
    }
    CHECK(std::set<std::string>(ids.begin(), ids.end()).size() == 5);

    auto range = client.installed_locations(company_id, filter);
    auto first = range.begin();
    CHECK(first->id == ids[0]);
    CHECK((*first++).id == ids[0] && (*first).id == ids[1]);
    const auto resume = range.next_page_token();
    CHECK(resume && range.to_vector().size() == 4 && range.begin() == range.end() &&
          !range.next_page_token());
    filter.page_token = *resume;
    CHECK(client.installed_locations(company_id, filter).to_vector().size() == 3);

    const ghl::page<ghl::location> page = client.installed_locations_page(company_id);
    CHECK(page.items.size() == 5 && page.total == 5 && !page.next_page_token);
    ghl::location_filter one;
    one.location_id = ids[3];
    one.is_installed = true;
    CHECK(client.installed_locations_page(company_id, one).items.at(0).id == ids[3]);

    filter.page_size = 101;
    auto refused = client.installed_locations(company_id, filter);
    CHECK(thrown<ghl::invalid_argument>([&] { refused.begin(); }).parameter() == "pageSize");
    int failures = 0;
    for (const auto &item : client.checked().installed_locations(company_id, filter)) {
        CHECK(!item && item.error().parameter == "pageSize");
        ++failures;
    }
    CHECK(failures == 1);
    CHECK(!client.checked().installed_locations(company_id, filter).to_vector());
    return ids;
}

void tokens_are_handed_out(const ghl::client &client, const std::string &location_id) {
    ghl::secret token = client.access_token(location_id),
                again("something longer than a token, or not");
    client.access_token(location_id, again);
    CHECK(!token.empty() && token.view() == again.view());
    char buffer[4096];
    const std::size_t length = client.access_token_into(location_id, buffer, sizeof buffer);
    CHECK(token.view() == std::string_view(buffer, length) && buffer[length] == '\0');
    std::size_t needed = 0;
    thrown<ghl::buffer_too_small>(
        [&] { client.access_token_into(location_id, buffer, 10, &needed); });
    CHECK(needed == length + 1 && buffer[0] == '\0');
    thrown<ghl::buffer_too_small>([&] { client.access_token_into(location_id, nullptr, 0); });

    again = token;
    thrown<ghl::forbidden>([&] { client.access_token("nobody", again); });
    CHECK(again.empty());
    // The length of an ID is explicit, so a NUL does not end it.
    const std::string cut = location_id + std::string("\0x", 2);
    CHECK(thrown<ghl::invalid_argument>([&] { client.access_token(cut); }).parameter() ==
          "resource_id");
    thrown<ghl::invalid_argument>([&] { client.token_delete(cut); });
    thrown<ghl::invalid_argument>([&] { client.access_token(""); });
    const std::string long_id(200, 'x');
    CHECK(thrown<ghl::forbidden>([&] { client.access_token(long_id); }).resource_id() == long_id);

    const ghl::token_info renewed = client.token_refresh(location_id);
    CHECK(renewed.resource_id == location_id && client.access_token(location_id).size() > 0);
    ghl::secret after = client.access_token(location_id);
    CHECK(after.view() != token.view());
}

void tokens_are_exported_and_imported(const ghl::client &client, const ghl::config &config,
                                      const std::string &company_id) {
    ghl::token_filter locations;
    locations.user_type = "Location";
    for (const ghl::token_info &info : client.tokens_list(locations)) {
        CHECK(info.user_type == "Location" && info.company_id == company_id);
        CHECK(info.last_success_at && !info.last_failure);
    }
    ghl::token dead;
    dead.access_token = ghl::secret("access");
    dead.refresh_token = ghl::secret("dead");
    dead.location_id = "dead";
    dead.user_type = "Location";
    dead.expires_at = ghl::time_point(std::chrono::milliseconds(4000000000000));
    CHECK(client.tokens_import({dead}).imported == 1);
    thrown<ghl::reauthorization_required>([&] { client.token_refresh("dead"); });
    ghl::token_filter failing;
    failing.failing = true;
    failing.state = "reauthorizationRequired";
    failing.expires_before = *dead.expires_at + std::chrono::milliseconds(1);
    const std::vector<ghl::token_info> failed = client.tokens_list(failing).to_vector();
    CHECK(failed.size() == 1 && !failed[0].last_success_at && failed[0].last_failure);
    CHECK(failed[0].last_failure->status == ghl::status::reauthorization_required);
    CHECK(failed[0].last_failure->attempts == 1 && failed[0].last_failure->at);
    CHECK(!failed[0].last_failure->message.empty() && failed[0].last_failure->http_status >= 400);
    CHECK(!failed[0].last_failure->next_attempt_at);
    failing.expires_before = dead.expires_at;
    CHECK(client.tokens_list(failing).to_vector().empty());
    client.token_delete("dead");
    std::vector<ghl::token> exported = client.tokens_export().to_vector();
    CHECK(exported.size() == 2 && exported[0].refresh_token && !exported[0].access_token.empty());
    CHECK(exported[0].raw.view().find(exported[0].refresh_token->view()) != std::string_view::npos);
    ghl::page<ghl::token> page = client.tokens_export_page(locations);
    CHECK(page.items.size() == 1 && !page.next_page_token && !page.raw.empty());

    // Another client can import the tokens, including changed fields.
    ghl::client other(config);
    exported[0].scope = "changed scope";
    ghl::import_report report = other.tokens_import(exported);
    CHECK(report.imported == 2 && report.skipped.empty());
    ghl::secret mine = client.access_token(exported[1].location_id.value_or(company_id));
    CHECK(other.access_token(exported[1].location_id.value_or(company_id)).size() == mine.size());
    for (const ghl::token &token : other.tokens_export()) {
        const bool is_first = token.location_id == exported[0].location_id;
        CHECK(is_first == (token.scope == "changed scope"));
        // Additional fields of the API are still present.
        CHECK(token.raw.view().find("\"userId\"") == std::string_view::npos ||
              exported[0].raw.view().find("\"userId\"") != std::string_view::npos);
    }
    exported[1].expires_at = *exported[1].expires_at - std::chrono::hours(1);
    report = other.tokens_import(exported);
    CHECK(report.imported < 2 && !report.skipped.empty() && !report.skipped[0].reason.empty());
    const ghl::import_report planned = other.tokens_import(exported, true, true);
    CHECK(planned.imported == 2 && planned.accepted.size() == 2 && planned.accepted[1].index == 1);
    CHECK(planned.accepted[0].replaces && !planned.accepted[0].resource_id.empty());
    CHECK(!other.tokens_import(exported).skipped.empty());
    CHECK(other.tokens_import(exported, true).imported == 2);
    CHECK(other.tokens_import(R"({"tokens": []})").imported == 0);
    CHECK(thrown<ghl::invalid_argument>([&] {
              other.tokens_import(R"({"tokens": 1})");
          }).parameter() == "tokens");

    const ghl::token_info gone = other.token_delete(company_id);
    CHECK(gone.resource_id == company_id);
    CHECK(thrown<ghl::not_found>([&] { other.token_delete(company_id); }).resource_id() ==
          company_id);
}

void long_work_tells_its_progress(const ghl::client &client, const std::string &company_id,
                                  const std::vector<std::string> &ids) {
    std::vector<ghl::mint_progress> told;
    ghl::mint_options some;
    some.location_ids = {ids[0], "nobody's \"location\""};
    ghl::mint_report report = client.tokens_mint(
        company_id, some, [&](const ghl::mint_progress &so_far) { told.push_back(so_far); });
    CHECK(report.total == 2 && report.failed.size() == 1 && report.minted + report.fresh == 1);
    CHECK(report.failed[0].resource_id == some.location_ids->at(1) &&
          !report.failed[0].error.message.empty());
    CHECK(report.failed[0].error.status != ghl::status::ok &&
          report.failed[0].error.status != ghl::status::internal);
    CHECK(!told.empty() && told.back().done + told.back().failed == 2 && told.back().total == 2);
    some.location_ids->clear();
    CHECK(client.tokens_mint(company_id, some).total == 0);

    ghl::mint_options all;
    all.force = true;
    all.concurrency = 2;
    CHECK(client.tokens_mint(company_id, all).minted == 5);
    all.concurrency = 65;
    CHECK(thrown<ghl::invalid_argument>([&] { client.tokens_mint(company_id, all); }).parameter() ==
          "concurrency");
    all.concurrency.reset();

    // An exception of a listener stops the work and is rethrown unchanged, also from a checked
    // client.
    const auto throws = [](const auto &) { throw own_error("enough"); };
    CHECK(std::string(thrown<own_error>([&] {
                          client.tokens_mint(company_id, all, throws);
                      }).what()) == "enough");
    thrown<own_error>([&] { (void)client.checked().tokens_mint(company_id, all, throws); });
    const auto stops = [](const ghl::mint_progress &) { return false; };
    thrown<ghl::cancelled>([&] { client.tokens_mint(company_id, all, stops); });
    const auto stopped = client.checked().tokens_mint(company_id, all, stops);
    CHECK(!stopped && stopped.error().status == ghl::status::cancelled);

    CHECK(client.tokens_maintain().checked == 0);
    ghl::maintenance_options hands;
    hands.concurrency = 65;
    CHECK(thrown<ghl::invalid_argument>([&] {
              client.tokens_maintain(company_id, hands);
          }).parameter() == "concurrency");
    hands.concurrency = 3;
    const ghl::maintenance_report later = client.tokens_maintain(company_id, hands);
    CHECK(later.failed.empty() && later.next_due_at &&
          *later.next_due_at > std::chrono::system_clock::now());

    // All of them due.
    std::vector<ghl::token> exported = client.tokens_export().to_vector();
    for (ghl::token &token : exported) {
        token.expires_at = ghl::time_point(std::chrono::milliseconds(1));
    }
    CHECK(client.tokens_import(exported, true).imported == 6);
    thrown<own_error>([&] { client.tokens_maintain(company_id, throws); });
    int calls = 0;
    const ghl::maintenance_report now =
        client.tokens_maintain({}, hands, [&](const ghl::maintenance_progress &so_far) {
            ++calls;
            return so_far.checked > 0;
        });
    CHECK(now.refreshed == calls && calls >= 5 && now.failed.empty());
}

void any_request_can_be_sent(const ghl::client &client, const std::string &location_id) {
    ghl::api_request get("GET", "/locations/" + location_id, location_id);
    ghl::api_response response = client.request(get);
    CHECK(response.ok() && response.body_encoding == ghl::api_response::encoding::json &&
          response.body.front() == '{');
    CHECK(response.body.find(location_id) != std::string::npos &&
          response.headers.find("Content-Type"));
    ghl::api_request post("POST", "/nowhere");
    for (const auto &[name, value] : std::map<std::string, std::string>{{"X-Own", "a \"b\""}}) {
        post.headers.add(name, value);
    }
    post.query = {{"a", "1"}, {"a", "2 &"}, {"b", "3"}};
    response = client.request(post.json(R"({"a": [1, "b"]})"));
    CHECK(response.status == 404 && !response.ok() && !response.body.empty());
    CHECK(client.request(post.text("plain")).status == 404);
    CHECK(client.request(post.bytes(std::string("\0\xff", 2))).status == 404);
    CHECK(thrown<ghl::invalid_argument>([&] {
              client.request(ghl::api_request("GET", "nowhere"));
          }).parameter() == "path");
}

void webhooks_are_checked_and_applied(const ghl::client &client, const std::string &signature,
                                      const std::string &body) {
    const ghl::headers sent{
        {"Host", "app.example"}, {"X-GHL-Signature", signature}, {"Host", "again"}};
    const ghl::webhook webhook = client.webhook_verify(body, sent);
    CHECK(webhook.type == "INSTALL" && webhook.scheme == "ed25519" && webhook.key_index == 0 &&
          webhook.payload.front() == '{');
    // The pairs of a map are accepted as well.
    const ghl::webhook_outcome outcome = client.webhook_apply(
        body, std::multimap<std::string, std::string>{{"x-ghl-signature", signature}});
    CHECK(outcome.type == "INSTALL" && outcome.resource_id && (outcome.applied || outcome.reason));
    ghl::webhook_options remembered;
    remembered.mint = false;
    CHECK(client.webhook_apply(body, sent, remembered).type == "INSTALL");
    ghl::call_options hurried;
    hurried.timeout = std::chrono::milliseconds(0);
    thrown<ghl::invalid_argument>(
        [&] { client.with(hurried).webhook_apply(body, sent, remembered); });
    thrown<ghl::signature_invalid>([&] { client.webhook_apply(body + " ", sent); });
    thrown<ghl::signature_invalid>([&] { client.webhook_verify("", {}); });
}

void raw_endpoints_work(const ghl::client &client, const std::string &company_id,
                        const std::string &location_id) {
    const ghl::token minted = client.oauth_location_token(company_id, location_id);
    CHECK(minted.user_type == "Location" && minted.company_id == company_id &&
          minted.refresh_token && minted.expires_at);
    ghl::token_request request;
    request.grant_type = "refresh_token";
    request.refresh_token = *minted.refresh_token;
    request.user_type = "Location";
    const ghl::token renewed = client.oauth_token(request);
    CHECK(renewed.access_token.view() != minted.access_token.view());
    const auto spent =
        thrown<ghl::invalid_argument>([&] { client.oauth_token(ghl::token_request{}); });
    CHECK(spent.parameter() == "grantType");
    request.refresh_token = std::string_view("never given");
    const auto refused =
        thrown<ghl::reauthorization_required>([&] { client.oauth_token(request); });
    CHECK(refused.http_status() && refused.api() && refused.api()->message);
}

// A timeout that the library refuses shows that the options reach every function.
void every_call_takes_options(const ghl::client &client, const std::string &company_id,
                              const std::string &location_id) {
    ghl::call_options none;
    none.timeout = std::chrono::milliseconds(0);
    const auto calls = client.with(none);
    const auto refused = [](auto call) {
        CHECK(thrown<ghl::invalid_argument>(call).parameter() == "timeoutMs");
    };
    refused([&] { calls.authorization_url(); });
    refused([&] { calls.authorization_complete("https://app.example/?code=a"); });
    refused([&] { calls.access_token(location_id); });
    refused([&] { calls.access_token(location_id, std::chrono::seconds(1)); });
    char buffer[2048];
    refused([&] { calls.access_token_into(location_id, buffer, sizeof buffer); });
    refused([&] { calls.token_refresh(location_id); });
    refused([&] { calls.tokens_list().to_vector(); });
    refused([&] { calls.tokens_list_page(); });
    refused([&] { calls.tokens_export().to_vector(); });
    refused([&] { calls.tokens_import(std::vector<ghl::token>()); });
    refused([&] { calls.tokens_import("{\"tokens\": [] \n}\n"); });
    refused([&] { calls.tokens_import("{ }"); });
    refused([&] { calls.tokens_adopt(); });
    refused([&] { calls.tokens_maintain(); });
    refused([&] { calls.tokens_mint(company_id); });
    refused([&] { calls.request(ghl::api_request("GET", "/nowhere")); });
    refused([&] { calls.oauth_token({}); });
    refused([&] { calls.oauth_location_token(company_id, location_id); });
    refused([&] { calls.installed_locations(company_id).to_vector(); });
    refused([&] { calls.installed_locations_page(company_id); });
    CHECK(!calls.checked().access_token(location_id));

    ghl::call_options options;
    options.timeout = std::chrono::minutes(1);
    options.call_id = "\"mine\" \xc3\xa4";
    const auto given = client.with(options);
    const ghl::secret token = given.access_token(location_id);
    const ghl::secret plain = client.access_token(location_id);
    const ghl::secret lasting = given.access_token(location_id, std::chrono::hours(1));
    CHECK(token.view() == plain.view() && token.view() == lasting.view());
    CHECK(given.access_token_into(location_id, buffer, sizeof buffer) == token.size());
    CHECK(token.view() == buffer);
    std::size_t needed = 0;
    CHECK(given.checked().access_token_into(location_id, buffer, 8, &needed).error().status ==
          ghl::status::buffer_too_small);
    CHECK(needed == token.size() + 1 && buffer[0] == '\0');
    CHECK(given.token_refresh(location_id).resource_id == location_id);
    CHECK(!given.tokens_list().to_vector().empty());
    CHECK(given.tokens_maintain().failed.empty());
    for (const char *json : {"{\"tokens\": []} junk", "{\"tokens\": []}{", "{\"tokens\": []}}",
                             "{\"tokens\": [],}", "{\"tokens\": []", "[]", "null", " ", ""}) {
        thrown<ghl::invalid_argument>([&] { given.tokens_import(json); });
    }

    CHECK(thrown<ghl::invalid_argument>([&] { client.cancel(""); }).parameter() == "call_id");
    client.cancel("unknown");
    std::atomic<bool> ended{false};
    std::thread waiting([&] {
        ghl::listen_options listening;
        for (int port = 21000;; ++port) {
            listening.port = port;
            const auto came = given.checked().authorization_listen(listening);
            CHECK(!came);
            if (came.error().status != ghl::status::invalid_argument) {
                CHECK(came.error().status == ghl::status::cancelled);
                break;
            }
        }
        ended = true;
    });
    while (!ended) {
        client.cancel(options.call_id);
        std::this_thread::yield();
    }
    waiting.join();
    CHECK(ghl::library_info().find("\"tls\"") != std::string::npos);
}

void events_reach_their_listener(ghl::client &client, const std::string &location_id) {
    auto alive = std::make_shared<int>(0);
    const std::weak_ptr<int> watch = alive;
    std::vector<ghl::event> events;
    std::vector<std::string> thrown_ones;
    client.on_event(
        [&, alive](const ghl::event &event) {
            events.push_back(event);
            // A listener may use the client, but cannot replace itself.
            CHECK(!client.access_token(location_id).empty());
            thrown<ghl::invalid_argument>([&] { client.on_event(nullptr); });
            throw own_error("from a listener");
        },
        [&](std::exception_ptr what) {
            try {
                std::rethrow_exception(what);
            } catch (const own_error &mine) {
                thrown_ones.emplace_back(mine.what());
            }
        });
    alive.reset();
    client.token_refresh(location_id);
    CHECK(events.size() == 1 && thrown_ones.size() == 1 && thrown_ones[0] == "from a listener");
    CHECK(events[0].type == "token.refreshed" && events[0].resource_id == location_id &&
          events[0].at && events[0].expires_at);
    CHECK(!events[0].error && events[0].raw.find("token.refreshed") != std::string::npos);
    CHECK(!watch.expired());

    // The listener moves with the client, and is freed when it is replaced.
    ghl::client moved(std::move(client));
    thrown<ghl::invalid_argument>([&] { client.stats(); });
    thrown<ghl::invalid_argument>([&] { client.on_event(nullptr); });
    client.cancel();
    std::size_t count = 0;
    moved.on_event([&](const ghl::event &) { ++count; });
    CHECK(watch.expired());
    moved.token_refresh(location_id);
    CHECK(count == 1 && events.size() == 1);
    moved.on_event(nullptr);
    moved.token_refresh(location_id);
    CHECK(count == 1);
    moved.on_event([](const ghl::event &) { throw 7; });
    moved.token_refresh(location_id);
    client = std::move(moved);
    ghl::client &itself = client;
    client = std::move(itself);
    CHECK(!client.access_token(location_id).empty());
}

void the_log_reaches_its_listener(const ghl::config &config) {
    std::atomic<int> lines{0};
    ghl::on_log([&](ghl::log_level level, std::string_view message) {
        CHECK(level >= ghl::log_level::error && !message.empty());
        CHECK(!ghl::try_on_log(nullptr));
        ++lines;
        throw own_error("from a log");
    }, ghl::log_level::trace);
    const ghl::client client(config);
    (void)client.checked().request(ghl::api_request("GET", "/nowhere"));
    CHECK(lines > 0);
    ghl::on_log(nullptr);
    const int so_far = lines;
    (void)client.checked().request(ghl::api_request("GET", "/nowhere"));
    CHECK(lines == so_far);
}

// Many threads use a client while its listener is replaced and one of them cancels a wait.
void threads_share_a_client(const ghl::client &client, const std::vector<std::string> &ids) {
    std::atomic<int> heard{0};
    std::vector<std::thread> threads;
    for (std::size_t i = 0; i < 4; ++i) {
        threads.emplace_back([&, i] {
            for (int round = 0; round < 20; ++round) {
                CHECK(!client.access_token(ids[i]).empty());
                if (round % 5 == 0) {
                    client.token_refresh(ids[i]);
                }
                client.on_event([&](const ghl::event &) { ++heard; });
            }
        });
    }
    for (std::thread &thread : threads) {
        thread.join();
    }
    CHECK(heard > 0);
    client.on_event(nullptr);

    std::atomic<bool> ended{false};
    std::thread waiting([&] {
        ghl::listen_options options;
        options.port = 0;
        for (int port = 20000; options.port == 0; ++port) {
            options.port = port;
            const auto came = client.checked().authorization_listen(options);
            CHECK(!came);
            options.port = came.error().status == ghl::status::invalid_argument ? 0 : port;
        }
        ended = true;
    });
    while (!ended) {
        client.cancel();
        std::this_thread::yield();
    }
    waiting.join();
}

} // namespace

int main(int argc, char **argv) {
    CHECK(argc == 5);
    CHECK(ghl::abi_version() >= 1 && std::string(ghl::version()) == GHL_OAUTH_VERSION);
    CHECK(std::string(ghl::status_name(ghl::status::timeout)) == "GHL_ERR_TIMEOUT");
    a_bad_configuration_is_refused_by_name();
    every_status_has_its_class();

    // The configuration struct, filled from the emulator's JSON.
    ghl::config config;
    CHECK(ghl::detail::value::document(argv[1])->members([&](std::string_view name,
                                                             ghl::detail::value member) {
        return ghl::detail::match(name, member, "clientId", config.client_id, "clientSecret",
                                  config.client_secret, "redirectUri", config.redirect_uri,
                                  "baseUrl", config.base_url, "authorizeUrl", config.authorize_url);
    }));
    ghl::detail::value::document(argv[1])->members(
        [&](std::string_view name, ghl::detail::value member) {
            return name != "webhook" || member.members([&](std::string_view key,
                                                           ghl::detail::value keys) {
                return key != "ed25519PublicKeys" || read(keys, config.webhook.ed25519_public_keys);
            });
        });
    config.retry.base_delay = std::chrono::milliseconds(1);
    config.rate_limit.requests = 100000;
    config.timeouts.total = std::chrono::seconds(60);
    config.store = ghl::memory_store();

    ghl::client client(config);
    const ghl::token_info company = connected(client, argv[2]);
    const std::vector<std::string> ids = lists_come_page_by_page(client, company.resource_id);
    tokens_are_handed_out(client, ids[0]);
    tokens_are_exported_and_imported(client, config, company.resource_id);
    long_work_tells_its_progress(client, company.resource_id, ids);
    any_request_can_be_sent(client, ids[0]);
    webhooks_are_checked_and_applied(client, argv[3], argv[4]);
    raw_endpoints_work(client, company.resource_id, ids[1]);
    every_call_takes_options(client, company.resource_id, ids[1]);
    events_reach_their_listener(client, ids[0]);
    the_log_reaches_its_listener(config);
    threads_share_a_client(client, ids);

    const ghl::statistics figures = client.stats();
    CHECK(figures.version == ghl::version() && figures.requests.sent > 10 &&
          figures.tokens.in_memory >= 5);
    CHECK(figures.pace.resources > 0 && !figures.pace.busiest.empty() &&
          figures.pace.busiest[0].requests > 0);
    CHECK(figures.tokens.failed > 0 && !figures.tokens.failed_by_status.empty());
    std::int64_t failed = 0;
    for (const auto &[status, count] : figures.tokens.failed_by_status) {
        CHECK(status.rfind("GHL_ERR_", 0) == 0 && count > 0);
        failed += count;
    }
    CHECK(failed == figures.tokens.failed);

    const std::string metrics = client.metrics();
    CHECK(metrics.find("\nghl_oauth_tokens{state=\"ok\"} ") != std::string::npos &&
          metrics.back() == '\n');
    CHECK(thrown<ghl::invalid_argument>([&] {
              client.with({std::chrono::milliseconds(-1), {}}).metrics();
          }).parameter() == "timeoutMs");
    std::puts("passed");
}
