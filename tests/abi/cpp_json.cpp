// The JSON reader and writer inside ghl_oauth.hpp: accepted and refused input, and output. Needs no
// emulator.
#include <limits>
#include <random>
#include <string>

#include "checks.hpp"

namespace {

using ghl::detail::value;

std::string text(const std::string &json) {
    std::string out;
    const auto whole = value::document(json);
    CHECK(whole.has_value());
    CHECK(whole->text(out));
    return out;
}

bool malformed_text(const std::string &json) {
    std::string out;
    const auto whole = value::document(json);
    return !whole || !whole->text(out);
}

void texts_mean_what_rfc_8259_says() {
    CHECK(text(R"("")").empty());
    CHECK(text(R"("a\"\\\/\b\f\n\r\tz")") == "a\"\\/\b\f\n\r\tz");
    CHECK(text(R"("\u0041\u00e9\u20AC")") == "A\u00e9\u20ac");
    CHECK(text(R"("\ud83d\ude00")") == "\U0001F600");
    CHECK(text("\"\U0001F600 caf\u00e9\"") == "\U0001F600 caf\u00e9");
    CHECK(text(R"("a\u0000b")") == std::string("a\0b", 3));
    // Half of a surrogate pair is replaced, whatever follows it.
    CHECK(text(R"("\ud83d")") == "\uFFFD");
    CHECK(text(R"("\ud83dx")") == "\uFFFDx");
    CHECK(text(R"("\ude00\ud83d\u0041")") == "\uFFFD\uFFFDA");
    CHECK(text(R"("\udbff\udfff")") == "\U0010FFFF");
    for (const char *wrong : {R"(")", R"("a)", R"("\x")", R"("\u12")", R"("\u12g4")", R"("\)",
                              R"("\ud83d\u12")", "\"\n\"", "a"}) {
        CHECK(malformed_text(wrong));
    }
}

void integers_have_64_bits() {
    const auto integer = [](const char *json) { return value(json).integer(); };
    CHECK(integer("0") == 0 && integer("-0") == 0 && integer("1700000000000") == 1700000000000);
    CHECK(integer("9223372036854775807") == std::numeric_limits<std::int64_t>::max());
    CHECK(integer("-9223372036854775808") == std::numeric_limits<std::int64_t>::min());
    CHECK(integer("-9223372036854775807") == -std::numeric_limits<std::int64_t>::max());
    for (const char *other : {"9223372036854775808", "-9223372036854775809", "18446744073709551616",
                              "1.0", "1e3", "", "-", "+1", "true", "\"1\"", "null"}) {
        CHECK(!integer(other));
    }
    const auto near = [](const char *json, double wanted) {
        const auto got = value(json).number();
        return got && *got > wanted - 1e-9 && *got < wanted + 1e-9;
    };
    CHECK(near("9.75", 9.75) && near("-0.5", -0.5) && near("1.25e2", 125) && near("1E+1", 10) &&
          near("25e-1", 2.5));
    CHECK(!value("null").number() && !value("\"1\"").number());
}

void documents_are_one_value() {
    for (const char *right :
         {"1", " {} ", "[[],{}]", R"({"a":[1,{"b":"}]"}],"c":null})", "\t[1 , 2]\r\n"}) {
        CHECK(value::document(right));
    }
    for (const char *wrong :
         {"", " ", "{", "]", "{]", "[}", "[1", R"({"a)", "1 2", "{}{}", ",", ":", "[1]]"}) {
        CHECK(!value::document(wrong));
    }
    const std::size_t limit = ghl::detail::depth_limit;
    CHECK(value::document(std::string(limit, '[') + std::string(limit, ']')));
    CHECK(!value::document(std::string(limit + 1, '[') + std::string(limit + 1, ']')));
    CHECK(!value::document(std::string(1000000, '[')));

    int count = 0;
    const auto counted = [&](std::string_view, value) { return ++count > 0; };
    CHECK(value(R"({"a":1,"\u0062":{"c":2},"":[]})").members(counted) && count == 3);
    CHECK(value("{ }").members(counted) && count == 3);
    for (const char *wrong : {R"({"a"})", R"({"a":})", R"({"a":1,})", R"({a:1})", R"({"a" 1})",
                              R"({"a":1 "b":2})", "[]", "{"}) {
        CHECK(!value(wrong).members(counted));
    }
    const auto item = [](value) { return true; };
    CHECK(value("[1, 2]").items(item));
    for (const char *wrong : {"[1 2]", "[1,]", "[,]", "{}", "["}) {
        CHECK(!value(wrong).items(item));
    }
}

// Fields of another type, unknown fields and missing fields are accepted; only invalid JSON is an
// error.
void results_are_read_leniently() {
    ghl::token_info info;
    CHECK(read(
        value(
            R"({"new": {"resourceId": "no"}, "resourceId": "\u006c1", "scope": 5,
        "expiresAt": "soon", "refreshable": "true", "locationId": null, "companyId": ""})"),
        info));
    CHECK(info.resource_id == "l1" && !info.scope && !info.expires_at && info.refreshable &&
          !info.location_id);
    CHECK(info.company_id == "");
    CHECK(info.raw.find("\"new\"") != std::string::npos);
    CHECK(read(value(R"({"expiresAt": 9223372036854775807})"), info));
    // Clamped to the range of the clock.
    CHECK(info.expires_at && *info.expires_at > std::chrono::system_clock::now());
    CHECK(!read(value(R"({"resourceId": "\x"})"), info));
    CHECK(!read(value(R"({"resourceId" "l1"})"), info));

    ghl::page<ghl::location> page;
    CHECK(read(
        value(
            R"({"items": [{"_id": "a", "isInstalled": true}, {"_id": "b"}],
        "pagination": {"nextPageToken": "t", "totalRecords": 7, "hasNextPage": true}})"),
        page));
    CHECK(page.items.size() == 2 && page.items[0].is_installed == true &&
          !page.items[1].is_installed);
    CHECK(page.next_page_token == "t" && page.total == 7);
    ghl::page<ghl::location> last;
    CHECK(
        read(value(R"({"items": [], "pagination": {"nextPageToken": "t", "hasNextPage": false}})"),
             last));
    CHECK(!last.next_page_token);

    ghl::failure why;
    CHECK(read(
        value(
            R"({"status": "GHL_ERR_RATE_LIMITED", "message": "slow down", "retryable": true,
        "sent": false, "retryAfterMs": 1500, "httpStatus": 429,
        "api": {"code": 17, "message": "m", "details": {"a": [1]}}})"),
        why));
    CHECK(why.status == ghl::status::rate_limited && why.retryable && why.sent == false &&
          why.retry_after == std::chrono::milliseconds(1500));
    CHECK(why.http_status == 429 && why.api->code == "17" && why.api->details == R"({"a": [1]})" &&
          !why.api->resolution);
    CHECK(read(value(R"({"status": "GHL_ERR_OF_TOMORROW"})"), why) &&
          why.status == ghl::status::internal);

    ghl::api_response answer;
    CHECK(read(
        value(
            R"({"status": 200, "headers": {"a": "b"}, "body": {"x": "\n"},
        "bodyEncoding": "json"})"),
        answer));
    CHECK(answer.body == R"({"x": "\n"})" && answer.ok() && answer.headers.find("A") == "b");
    CHECK(answer.set_cookies.empty());
    CHECK(read(
        value(
            R"({"status": 200, "setCookies": ["a=1, 2", "b"], "body": [1e400, {"b":1.0,"a":2}],
        "bodyEncoding": "json"})"),
        answer));
    CHECK(answer.body == R"([1e400, {"b":1.0,"a":2}])" && answer.set_cookies.size() == 2 &&
          answer.set_cookies.front() == "a=1, 2");
    CHECK(read(value(R"({"status": 404, "body": "a\nb", "bodyEncoding": "text"})"), answer));
    CHECK(answer.body == "a\nb" && !answer.ok());
    CHECK(read(value(R"({"status": 200, "body": "a\"b", "bodyEncoding": "json"})"), answer) &&
          answer.body == R"("a\"b")");
    CHECK(read(value(R"({"status": 200, "body": null, "bodyEncoding": "json"})"), answer) &&
          answer.body == "null");
    for (const std::string &bytes : {std::string(), std::string("\0", 1), std::string("\xff\0", 2),
                                     std::string("abc"), std::string("abc\xfe")}) {
        std::string encoded;
        ghl::detail::write_base64(bytes, encoded);
        ghl::api_response raw;
        CHECK(encoded.size() == (bytes.size() + 2) / 3 * 4);
        CHECK(read(
            value(R"({"status": 200, "body": ")" + encoded + R"(", "bodyEncoding": "base64"})"),
            raw));
        CHECK(raw.body == bytes && raw.body_encoding == ghl::api_response::encoding::bytes);
    }
}

void what_is_written_is_read_back() {
    std::string all;
    for (int byte = 0; byte < 256; ++byte) {
        all.push_back(static_cast<char>(byte));
    }
    ghl::detail::writer out;
    out.open('{')
        .name(all)
        .text(all)
        .member("empty", "")
        .flag("off", false)
        .member("most", std::numeric_limits<std::int64_t>::min());
    out.words("none", {})
        .words("some", {"a", ":", "{"})
        .name("inner")
        .open('{')
        .close('}')
        .flag("on", true)
        .close('}');
    const auto whole = value::document(out.view());
    CHECK(whole.has_value());
    int members = 0;
    CHECK(whole->members([&](std::string_view name, value member) {
        ++members;
        std::string back;
        if (name == all) {
            CHECK(member.text(back) && back == all);
        } else if (name == "some") {
            CHECK(member.raw() == R"(["a",":","{"])");
        } else if (name == "most") {
            CHECK(member.integer() == std::numeric_limits<std::int64_t>::min());
        } else {
            CHECK((name == "inner" && member.raw() == "{}") ||
                  (name == "on" && member.raw() == "true"));
        }
        return true;
    }));
    CHECK(members == 5);

    const ghl::headers several{{"Host", "a"}, {"X-One", "1"}, {"host", "b"}};
    ghl::detail::writer grouped;
    grouped.grouped(several, [](auto &a, auto &b) { return ghl::headers::same(a, b); });
    CHECK(grouped.view() == R"({"Host":["a","b"],"X-One":"1"})");
}

// Reading any bytes terminates and never reads out of bounds: run with the sanitizers.
void noise_is_refused_or_read() {
    const std::string pieces[] = {"{",    "}",         "[",   "]",   ":",
                                  ",",    "\"",        "\\",  "\\u", "\\ud83d",
                                  "a",    "0",         "-",   " ",   "\"resourceId\"",
                                  "null", "\"items\"", "true"};
    std::mt19937 random(7);
    for (int round = 0; round < 200000; ++round) {
        std::string noise;
        for (auto count = random() % 24; count > 0; --count) {
            noise += pieces[random() % std::size(pieces)];
        }
        // An exact allocation, so that the address sanitizer detects an overrun.
        const std::unique_ptr<char[]> exact(new char[noise.size()]);
        std::copy(noise.begin(), noise.end(), exact.get());
        const std::string_view bytes(exact.get(), noise.size());
        const auto whole = value::document(bytes);
        if (whole) {
            ghl::page<ghl::token_info> page;
            (void)read(*whole, page);
            ghl::failure why;
            (void)read(*whole, why);
            std::string text;
            (void)whole->text(text);
        }
    }
}

void secrets_leave_nothing_behind() {
    ghl::detail::wiped_text text;
    text.reserve(64);
    text.append("a secret of some length");
    const char *bytes = text.buffer();
    text.written(8);
    CHECK(std::string_view(bytes, 24) ==
          std::string_view("a secret\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 24));
    text.clear();
    CHECK(std::string_view(bytes, 8) == std::string_view("\0\0\0\0\0\0\0\0", 8));
    ghl::secret one("abc"), other(one);
    one = std::string_view("longer than before");
    CHECK(other.view() == "abc" && one.view() == "longer than before" && one.size() == 18);
    ghl::secret moved(std::move(one));
    CHECK(moved.view() == "longer than before");
    moved = moved.view();
    CHECK(moved.view() == "longer than before");
    static_assert(!std::is_constructible_v<std::string_view, ghl::secret>,
                  "a dying secret has no view");
}

} // namespace

int main() {
    texts_mean_what_rfc_8259_says();
    integers_have_64_bits();
    documents_are_one_value();
    results_are_read_leniently();
    what_is_written_is_read_back();
    noise_is_refused_or_read();
    secrets_leave_nothing_behind();
    std::puts("passed");
}
