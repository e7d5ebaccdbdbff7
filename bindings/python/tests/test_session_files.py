"""The file formats of `ghl-oauth import`."""

from __future__ import annotations

import base64
import inspect
import json
import os
import re
import tempfile
import time
import unittest
from pathlib import Path
from typing import Any

from ghl_oauth.cli import import_conflicts, json_documents, session_files

from .support import REPOSITORY
from .test_cli import CliTest

# 2026-11-30T03:00:00Z
AT = 1_796_007_600_000
SECRET = "the-secret-token"


COMPANY, LOCATION = "8vYEsNF1lwlNgcL7Mi28", "ve9EPM428h8vShlRW1KT"
APP, OTHER_APP = "6b0ceabf6178b4e2b332e51e", "6b0ceabf6178b4e2b332e51f"


def jwt(kind: str, owner: str, app: str = APP, **claims: Any) -> str:
    """An access token of the API."""
    document = {"authClass": kind, "authClassId": owner, "oauthMeta": {"client": app}, **claims}
    parts = ({"alg": "RS256"}, document)
    encoded = [base64.urlsafe_b64encode(json.dumps(part).encode()).decode() for part in parts]
    return ".".join([*(part.rstrip("=") for part in encoded), SECRET])


def owner_of(entry: session_files.Entry) -> tuple[str, str]:
    """The kind and the ID of the owner under which the library files a token."""
    assert entry.token is not None, entry.problem
    company, location = entry.token.get("companyId"), entry.token.get("locationId")
    kind = entry.token.get("userType") or ("Location" if location else "Company")
    return kind, str(company if kind == "Company" else location)


def entries(data: str | bytes, app: str = "app1") -> list[session_files.Entry]:
    return list(session_files.read("F", data.encode() if isinstance(data, str) else data, app))


def token(data: Any) -> dict[str, Any]:
    """The only token of a document."""
    (entry,) = entries(data if isinstance(data, (str, bytes)) else json.dumps(data))
    assert entry.token is not None, entry
    return entry.token


class UnusableTest(unittest.TestCase):
    """Sessions that cannot be passed on as JSON: each is one named problem."""

    def test_infinite_number_is_one_problem_and_the_others_are_read(self) -> None:
        good = {"access_token": "a", "companyId": "c"}
        for number in ("1e999", "-1e999"):
            text = f'[{{"access_token": "b", "expires_in": {number}}}, {json.dumps(good)}]'
            bad, fine = entries(text)
            self.assertEqual((bad.token, fine.token), (None, good))
            self.assertIn("infinite", str(bad.problem))
        for number in ("INF", "-INF", "NAN"):
            session = f'ghl|a:2:{{s:12:"access_token";s:1:"a";s:1:"x";d:{number};}}'
            (bad,) = entries(session)
            self.assertIn("infinite or not a number", str(bad.problem))

    def test_text_that_is_not_unicode_is_one_problem_and_the_others_are_read(self) -> None:
        good = {"access_token": "a", "companyId": "c"}
        for text in (
            '{"access_token": "\\ud800"}',
            '{"access_token": "b", "deep": [{"x": "\\udfff"}]}',
            '{"access_token": "b", "\\ud800": 1}',
        ):
            bad, fine = entries(f"[{text}, {json.dumps(good)}]")
            self.assertEqual((bad.token, fine.token), (None, good))
            self.assertIn("Unicode", str(bad.problem))

    def test_long_php_session_is_read_in_time(self) -> None:
        # Quadratic work would take minutes.
        data = b"".join(b"v%d|i:1;" % number for number in range(200_000))
        begun = time.monotonic()
        with self.assertRaises(session_files.NoTokens):
            entries(data)
        self.assertLess(time.monotonic() - begun, 60)


class FolderTest(unittest.TestCase):
    @unittest.skipUnless(hasattr(os, "mkfifo"), "no named pipes here")
    def test_only_regular_files_of_limited_size_are_read(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            os.mkfifo(os.path.join(folder, "pipe"))
            os.symlink("/dev/zero", os.path.join(folder, "zero"))
            Path(folder, "good.json").write_text('{"access_token": "a", "companyId": "c"}')
            with open(os.path.join(folder, "huge.json"), "wb") as huge:
                huge.truncate(65 << 20)
            found = list(session_files.read_folder(folder, "app1"))
        problems = {Path(each.source).name: each.problem for each in found if each.problem}
        self.assertEqual(set(problems), {"pipe", "zero", "huge.json"})
        self.assertIn("64 MB", str(problems["huge.json"]))
        self.assertEqual([each.token for each in found if each.token], [
            {"access_token": "a", "companyId": "c"}
        ])  # fmt: skip


class OwnerTest(unittest.TestCase):
    """Whose token it is, if companies and locations are stored inside one another."""

    def documents(self, company: str, location: str) -> list[dict[str, Any]]:
        """A company that contains its location, each with these access tokens."""
        its_own = {"oauth": {"access_token": company, "refresh_token": "c", "expires_at": AT}}
        inner = {"oauth": {"access_token": location, "refresh_token": "l", "expires_at": AT + 1}}
        agency = {"companyId": COMPANY, "userType": "Company", "name": "Agency", **its_own}
        return [
            {**agency, "locations": {LOCATION: inner}},
            {**agency, "locations": [{"id": LOCATION, **inner}]},
            {**agency, "locations": [{"_id": LOCATION, **inner}]},
            {**agency, "locations": [{"locationId": LOCATION, **inner}]},
            {**agency, "locations": [{"resource_id": LOCATION, "data": json.dumps(inner)}]},
            {COMPANY: {"userType": "Company", **its_own, "locations": {LOCATION: inner}}},
        ]

    def test_token_of_a_location_is_never_filed_as_its_companys(self) -> None:
        for document in self.documents("a", "b"):
            company, location = entries(json.dumps([document]))
            self.assertEqual(owner_of(company), ("Company", COMPANY), document)
            if location.problem is None:
                self.assertEqual(owner_of(location), ("Location", LOCATION), document)
            else:
                self.assertIn("add userType", location.problem)

    def test_claims_of_a_token_say_whose_it_is(self) -> None:
        company, location = jwt("Company", COMPANY), jwt("Location", LOCATION)
        for document in (
            *self.documents(company, location),
            {"all": [{"access_token": company}, {"refreshToken": location}]},
            {LOCATION: {"access_token": company}, COMPANY: {"access_token": location}},
            {f"app1:{LOCATION}": {"access_token": company, "locationId": LOCATION},
             "x": {"userType": "account", "access_token": location}},
            {"companyId": COMPANY, "locationId": LOCATION, "userType": "Location",
             "agency": {"access_token": company}, "own": {"access_token": location}},
        ):  # fmt: skip
            found = [owner_of(each) for each in entries(json.dumps([document]), APP)]
            self.assertEqual(found, [("Company", COMPANY), ("Location", LOCATION)], document)

    def test_token_that_contradicts_its_claims_is_refused_by_name(self) -> None:
        for claims, stated, reason in (
            (("Company", COMPANY), {"userType": "Location", "locationId": LOCATION},
             f"of the company {COMPANY}, and the entry says that it is a location's"),
            (("Location", LOCATION), {"userType": "Company", "companyId": COMPANY},
             f"of the location {LOCATION}, and the entry says that it is a company's"),
            (("Location", LOCATION), {"locationId": COMPANY}, f"that it is of {COMPANY}"),
            (("Company", COMPANY), {"companyId": LOCATION}, f"that it is of {LOCATION}"),
        ):  # fmt: skip
            (entry,) = entries(json.dumps({"access_token": jwt(*claims), **stated}), APP)
            self.assertIsNone(entry.token)
            self.assertIn(reason, entry.problem or "")

    def test_token_that_is_no_jwt_of_the_api_is_not_checked(self) -> None:
        stated = {"userType": "Location", "locationId": LOCATION, "refreshToken": "r"}
        for access_token in (
            "a", "a.b.c", "..", "a.bnVsbA.c", "a.W10.c", "a.////.c", jwt("User", COMPANY),
            jwt("Company", ""), f"a.{base64.b64encode(b'[' * 40_000).decode()}.c",
        ):  # fmt: skip
            found = entries(json.dumps({"access_token": access_token, **stated}))
            self.assertEqual([owner_of(each) for each in found], [("Location", LOCATION)])

    def test_token_under_an_id_inside_another_location_is_refused_as_unclear(self) -> None:
        row = {"locationId": LOCATION, "companyId": COMPANY}
        session = {"access_token": "a", "refresh_token": "r"}
        for inner in (
            {"x9EPM428h8vShlRW1KTX": session},
            [{**session, "id": "x9EPM428h8vShlRW1KTX"}],
        ):
            (entry,) = entries(json.dumps({**row, "users": inner}))
            self.assertIn("x9EPM428h8vShlRW1KTX inside the location", entry.problem or "")
        # The company's own ID, and the location's, are clear.
        company, location = entries(json.dumps({**row, "x": {COMPANY: session, LOCATION: session}}))
        self.assertEqual(owner_of(company), ("Company", COMPANY))
        self.assertEqual(owner_of(location), ("Location", LOCATION))

    def test_companys_token_under_the_id_of_a_location_needs_its_company(self) -> None:
        session = {"access_token": "a", "refresh_token": "r", "userType": "Company"}
        for document in (
            {f"app1:{LOCATION}": {**session, "locationId": LOCATION}},
            {"locationId": LOCATION, "sessions": {LOCATION: session}},
            [{**session, "resourceId": LOCATION, "location_id": LOCATION}],
        ):
            (entry,) = entries(json.dumps(document))
            self.assertIn(f"under the location {LOCATION}; add companyId", entry.problem or "")


class ConflictTest(unittest.TestCase):
    """Tokens of one import that have the same owner."""

    def resolve(self, *documents: Any) -> list[str]:
        """The refresh token or access token of each entry, or the problem of a skipped one."""
        text = "\n".join(map(json.dumps, documents))
        resolved = import_conflicts.resolve(entries(text, APP))
        return [
            str(entry.problem or session_files.secret_of(entry)[0]
                or session_files.secret_of(entry)[1])
            for entry in resolved
        ]  # fmt: skip

    def session(self, name: str, **more: Any) -> dict[str, Any]:
        return {
            "access_token": f"a{name}", "refresh_token": name, "companyId": COMPANY, **more
        }  # fmt: skip

    def test_newest_of_several_tokens_of_an_owner_is_imported_in_any_order(self) -> None:
        for dates in (
            lambda n: {"expires_at": AT + n},
            lambda n: {"expire_at": f"2026-11-30T03:00:0{n}Z"},
            lambda n: {"access_token": jwt("Company", COMPANY, iat=AT // 1000 + n)},
            lambda n: {"access_token": jwt("Company", COMPANY, iat=0.5 + n), "expires_at": AT - n},
            lambda n: {"updated_at": f"2026-11-30 03:00:0{n}"},
            lambda n: {"expires_in": 9, "createdAt": {"$date": AT + n}, "updatedAt": None},
            lambda n: {"expires_at": AT, "updated_at": AT + n},
        ):
            sessions = [self.session(f"r{n}", **dates(n)) for n in range(3)]
            for order in ((0, 1, 2), (2, 1, 0), (1, 2, 0)):
                found = self.resolve(*(sessions[n] for n in order))
                for n, result in zip(order, found):
                    if n == 2:
                        self.assertEqual(result, "r2")
                    else:
                        self.assertIn(f"another entry of {COMPANY} is newer: F, line", result)
        row = {"resource_id": COMPANY, "company_id": COMPANY}
        rows = [
            {**row, "updated_at": AT + n, "session": json.dumps(self.session(f"r{n}"))}
            for n in range(2)
        ]
        self.assertIn("is newer", self.resolve(*rows)[0])
        self.assertEqual(self.resolve(*rows)[1], "r1")

    def test_tokens_of_an_owner_without_an_order_are_all_refused_by_name(self) -> None:
        claimed = {"access_token": jwt("Company", COMPANY, iat=1)}
        for first, second in (
            ({}, {}),
            ({"expires_in": 86399}, {"expires_in": 86399}),
            ({"expires_at": AT}, {}),
            ({"expires_at": AT}, {"expires_at": AT}),
            ({"updated_at": AT}, {"created_at": AT + 1}),
            ({"updated_at": AT, "created_at": AT + 1}, {"updated_at": AT + 1, "created_at": AT}),
            (claimed, claimed),
            (claimed, {"expires_at": AT}),
        ):
            found = self.resolve(self.session("r1", **first), self.session("r2", **second))
            for problem in found:
                self.assertIn(f"another entry of {COMPANY} has a different token", problem)
                self.assertIn("keep the newest entry only", problem)

    def test_copies_of_a_token_and_tokens_of_different_owners_do_not_conflict(self) -> None:
        copies = [self.session("r1", access_token=each) for each in ("a", "a", "b")]
        location = self.session("r2", locationId=LOCATION)
        self.assertEqual(self.resolve(*copies, location), ["r1", "r1", "r1", "r2"])
        self.assertEqual(self.resolve({"refresh_token": "r"}, {"refresh_token": "s"}), ["r", "s"])

    def test_token_without_a_refresh_token_does_not_displace_one_that_has_it(self) -> None:
        alone = {"access_token": "a2", "companyId": COMPANY, "expires_at": AT + 1}
        first, second = self.resolve(alone, self.session("r1", expires_at=AT))
        self.assertIn("has a refresh token, and this one has none", first)
        self.assertEqual(second, "r1")
        older = {**alone, "access_token": "a1", "expires_at": AT}
        self.assertEqual(self.resolve(older, alone)[1], "a2")

    def test_tokens_of_several_services_in_one_object_are_not_confused(self) -> None:
        ours = {"access_token": jwt("Location", LOCATION), "refresh_token": "r1", "expires_at": AT}
        other = {"access_token": "a2", "refresh_token": "r2", "expires_at": AT + 10**9}
        row = {"locationId": LOCATION, "companyId": COMPANY}
        first, second = self.resolve({**row, "highlevel": ours, "quickbooks": other})
        self.assertEqual(first, "r1")
        self.assertIn("may be of another service", second)
        # Also if the other token is alone in its row, or stored under the ID.
        for beside in ({**row, "quickbooks": other}, {LOCATION: {**other, "companyId": COMPANY}}):
            self.assertIn("may be of another service", self.resolve(ours, beside)[1])
        # An opaque token that names its owner, and a private integration token, are accepted.
        company = {"userType": "Company", "companyId": COMPANY, **other}
        pit = {"companyId": COMPANY, "x": {"access_token": "pit-1"}}
        self.assertEqual(self.resolve(ours, company)[1], "r2")
        self.assertEqual(self.resolve(ours, pit)[1], "pit-1")

    def test_opaque_tokens_that_inherit_the_same_owner_are_all_refused_by_name(self) -> None:
        one = {"access_token": "a1", "refresh_token": "r1", "expires_at": AT}
        two = {"access_token": "a2", "refresh_token": "r2", "expires_at": AT + 1}
        row = {"locationId": LOCATION, "companyId": COMPANY}
        agency = {"companyId": COMPANY, "userType": "Company"}
        for document in (
            {**row, "highlevel": one, "quickbooks": two},
            {**row, "highlevel": json.dumps(one), "all": [{"quickbooks": two}]},
            {**row, "userType": "Location", "companyToken": one, "locationToken": two},
            {**agency, "oauth": one, "locations": [{"oauth": two}]},
        ):
            owner = LOCATION if "locationId" in document else COMPANY
            for problem in self.resolve(document):
                self.assertIn(f"in the same object would count as {owner}'s; add", problem)


class FormatsTest(unittest.TestCase):
    def test_owner_is_completed_from_the_place_where_a_session_is_stored(self) -> None:
        location_id = "ve9EPM428h8vShlRW1KT"
        for document, expected in (
            ({"resourceId": "l", "userType": "Location"}, {"locationId": "l"}),
            ({"resource_id": "c", "user_type": "Company"}, {"companyId": "c"}),
            ({"resourceId": "l", "companyId": "c"}, {"companyId": "c", "locationId": "l"}),
            ({"resourceId": "c", "companyId": "c"}, {"companyId": "c"}),
            # The owner that the token names takes precedence over its key.
            ({"resourceId": "l", "companyId": "c", "userType": "Company"}, {"companyId": "c"}),
            ({"resourceId": "l", "locationId": "m"}, {"locationId": "m"}),
            ({"resourceId": "l"}, {}),
        ):
            found = token({**document, "access_token": "a"})
            owners = {key: found[key] for key in ("companyId", "locationId") if key in found}
            self.assertEqual(owners, expected, document)
        session = {"access_token": "a", "companyId": "c"}
        for key in (location_id, "app1:l", f"app1:{location_id}", f"ghl:tokens:{location_id}"):
            found = token({"cookie": {"maxAge": 1}, "sessions": {key: session}})
            self.assertEqual(found["locationId"], key.rpartition(":")[2])
        # Names, and IDs of visitors and users, are no IDs of the API.
        for key in ("highLevelOauthTokens", "sess:" + "aB3" * 10, "6b0ceabf6178b4e2b332e51f"):
            self.assertNotIn("locationId", token({key: session}))

    def test_owner_is_completed_from_the_row_that_contains_a_session(self) -> None:
        company, location = "8vYEsNF1lwlNgcL7Mi28", "ve9EPM428h8vShlRW1KT"
        session = {"access_token": "a", "refresh_token": "r"}
        whole = {"companyId": company, "locationId": location}
        for document, expected in (
            ({"location_id": location, "company_id": company, "data": session}, whole),
            # Otherwise it would replace the company's own token.
            ({"locationId": location, "data": {**session, "companyId": company}}, whole),
            ({"locationId": location, "data": {**session, "userType": "Company"}}, {}),
            ({"companyId": company, "all": [{"locationId": location, "data": session}]}, whole),
            (
                {"userType": "Company", "companyId": company, "all": [{**whole, "data": session}]},
                whole,
            ),
            ({**whole, "agency": {"companyId": company, "data": session}}, {"companyId": company}),
            # The program's own IDs are no IDs of the API.
            ({"companyId": "17", "locationId": "acme", "data": session}, {}),
        ):
            for form in (document, json.loads(json.dumps(document))):
                if isinstance(form.get("data"), dict) and form is not document:
                    form["data"] = json.dumps(form["data"])
                found = token(form)
                owners = {key: found[key] for key in ("companyId", "locationId") if key in found}
                self.assertEqual(owners, expected, form)
                if expected == whole:
                    self.assertNotEqual(found.get("userType"), "Company", form)

    def test_expiry_is_read_in_every_form(self) -> None:
        for expiry in (
            {"expiresAt": AT},
            {"expire_at": str(AT)},
            {"expire_at": {"$numberLong": str(AT)}},
            {"expire_at": {"$numberDouble": "1.7960076E+12"}},
            {"expire_at": AT // 1000},
            {"expire_at": {"$date": "2026-11-30T03:00:00Z"}},
            {"expire_at": {"$date": {"$numberLong": str(AT)}}},
            {"expires_at": "2026-11-30T05:00:00.000+02:00"},
            {"expires_at": "2026-11-30 03:00:00"},
            {"expires_at": "2026-11-30 03:00:00+00"},
            {"expires_at": "2026-11-30 05:30:00.000000+02:30"},
            {"expires_at": "2026-11-30 05:30:00 +0230"},
            {"expires_at": "2026-11-30 03:00:00 UTC"},
            {"expires_at": "2026-11-30T04:00+01"},
            {"expires_at": "Mon, 30 Nov 2026 03:00:00 GMT"},
            {"expiresAt": "30 Nov 2026 04:00 +0100"},
            {"expiresAt": "Mon, 30 Nov 2026 03:00:00 -0000"},
            {"expiresAt": "", "expires_at": None, "expire_at": AT},
            {
                "expires_at": " ",
                "expiresIn": "",
                "expires_in": 3600,
                "updatedAt": "2026-11-30T02:00:00Z",
            },
            {"expires_in": 3600, "updatedAt": {"$date": "2026-11-30T02:00:00Z"}},
            {"expires_in": {"$numberInt": "3600"}, "created_at": "2026-11-30T02:00:00.0Z"},
        ):
            found = token({"access_token": "a", "refresh_token": "r", "companyId": "c", **expiry})
            self.assertEqual(found["expiresAt"], AT, expiry)
            self.assertNotIn("expires_in", found)
        self.assertEqual(
            token('{"access_token": "a", "expire_at": 1.7960076E+12}')["expiresAt"], AT
        )
        day = token({"access_token": "a", "expires_at": "2026-11-30"})
        self.assertEqual(day["expiresAt"], AT - 3 * 3_600_000)
        with_fraction = {"access_token": "a", "expire_at": {"$date": "2026-11-30T03:00:00.12Z"}}
        self.assertEqual(token(with_fraction)["expiresAt"], AT + 120)

    def test_expiry_that_cannot_be_read_is_refused_with_its_name(self) -> None:
        for expiry in ("soon", "2026-13-01", "31 Foo 2026 99:99 GMT", "99 Nov 2026 03:00 GMT",
                       "0000-01-01 00:00:00", True, [AT], {"date": "x"}):  # fmt: skip
            for key in ("expiresAt", "expire_at"):
                session = {"access_token": "a", "expires_in": 5, "companyId": "c", key: expiry}
                (entry,) = entries(json.dumps(session))
                self.assertIn(f"{key} is neither a number nor a date", str(entry.problem))
                self.assertTrue(entry.is_lost)
        # Without an expiry, its age is unknown.
        empty = token({"access_token": "a", "companyId": "c", "expires_at": "", "expiresIn": None})
        self.assertEqual(empty, {"access_token": "a", "companyId": "c"})

    def test_blank_member_does_not_hide_its_other_spelling(self) -> None:
        for blank in ("", None, " "):
            found = token(
                {
                    "accessToken": blank, "access_token": "a", "refreshToken": blank,
                    "refresh_token": "r", "userType": blank, "user_type": "Location",
                    "companyId": blank, "locationId": blank, "location_id": LOCATION,
                }
            )  # fmt: skip
            expected = {"access_token": "a", "refresh_token": "r", "user_type": "Location"}
            self.assertEqual(found, {**expected, "location_id": LOCATION})

    def test_stored_session_without_a_time_has_an_unknown_age(self) -> None:
        session = {"access_token": "a", "refresh_token": "r", "expires_in": 86399, "companyId": "c"}
        self.assertNotIn("expires_in", token({**session, "resourceId": "c"}))
        # A response of the API counts from now.
        self.assertEqual(token(session)["expires_in"], 86399)

    def test_tokens_of_another_app_are_refused_by_name(self) -> None:
        session = {"access_token": SECRET, "companyId": "c"}
        other = "6b0ceabf6178b4e2b332e51f"
        sdk: list[dict[str, Any]] = [
            {**session, "applicationId": other, "resourceId": "c"},
            {f"{other}:c": session},
        ]
        for document in sdk:
            (entry,) = entries(json.dumps(document))
            self.assertIsNone(entry.token)
            self.assertEqual(entry.resource_id, "c")
            self.assertRegex(entry.problem or "", f"of the app {other}, .* is of app1$")
        other_client = f"{other}-kq3x9ab1"
        keys = ("clientId", "client_id", "appId", "app_id", "applicationId")
        others: list[dict[str, Any]] = [
            {f"{other_client}:{LOCATION}": session},
            {f"ghl:{other_client}:{LOCATION}": session},
            {f"{LOCATION}/{other_client}": session},
            *({**session, key: other_client} for key in keys),
            *({**session, key: other} for key in keys),
            {"client_id": other_client, "tokens": [session]},
            {"appId": other, "rows": [{"data": json.dumps(session)}]},
            {**session, "access_token": jwt("Company", "c", other)},
            {**session, "access_token": jwt("Company", "c", oauthMeta={"clientKey": other_client})},
            {**session, "access_token": jwt("Company", "c", oauthMeta=0, sourceId=other_client)},
        ]
        for document in others:
            (entry,) = entries(json.dumps(document), APP)
            self.assertIsNone(entry.token, document)
            self.assertRegex(entry.problem or "", f"of the app {other}, .* is of {APP}$")
        own_client = f"{APP}-kq3x9ab1"
        ours: list[dict[str, Any]] = [
            {f"{own_client}:c": session},
            {own_client: {"c": session}},
            {**session, "applicationId": own_client},
            {**session, "client_id": own_client, "appId": APP},
            # The app in the token decides; other IDs of the program name no app.
            {**session, "access_token": jwt("Company", "c"), "applicationId": other},
            {**session, "clientId": "17", "appId": "crm"},
            {f"tenant:{other}:{LOCATION}": {**session, "locationId": LOCATION}},
        ]
        for document in ours:
            (entry,) = entries(json.dumps(document), APP)
            self.assertIsNotNone(entry.token, (document, entry.problem))
        # Other prefixes name no app.
        self.assertEqual(token({"sess:c": session})["companyId"], "c")

    def test_long_key_is_not_shown_since_it_may_be_a_secret(self) -> None:
        (entry,) = entries(json.dumps({f"{SECRET * 5}": {"access_token": "a"}}))
        self.assertNotIn(SECRET, str(entry))

    def test_fields_of_the_store_are_dropped_and_fields_of_the_token_kept(self) -> None:
        found = token(
            {
                "_id": {"$oid": "6b0ceabf6178b4e2b332e51f"}, "__v": 0, "applicationId": "app1",
                "resourceId": "c", "createdAt": {"$date": "2026-11-30T03:00:00Z"},
                "access_token": "a", "accessToken": "b", "companyId": "c", "userId": "u",
            }
        )  # fmt: skip
        self.assertEqual(
            found, {"access_token": "a", "accessToken": "b", "companyId": "c", "userId": "u"}
        )

    def test_damaged_line_is_named_and_does_not_end_the_rest(self) -> None:
        good = '{"access_token": "%s", "companyId": "c"}'
        for text, lines in (
            (f"{good % 1}\n{{broken {SECRET}\n\n{good % 2}\n", {1: "1", 2: None, 4: "2"}),
            (f'[{good % 1},\n{{"access_token": "{SECRET}\n,{good % 2}]', {1: "1", 2: None, 3: "2"}),
            (f'{good % 1}\r\n{{"access_token": NaN}}\r\n', {1: "1", 2: None}),
            (f"{good % 1}\n{good % 2}\n{(good % 3)[:-1]}", {1: "1", 2: "2", 3: None}),
            ('\n{\n  "access_token": "1"\n}\n{\n  "access_token": "2"\n}\n', {2: "1", 5: "2"}),
        ):
            found = entries(text)
            self.assertEqual([entry.source for entry in found], [f"F, line {n}" for n in lines])
            self.assertEqual(
                [entry.token and entry.token["access_token"] for entry in found],
                list(lines.values()),
                text,
            )
            self.assertNotIn(SECRET, str(found))

    def test_missing_end_is_named_wherever_the_input_is_cut(self) -> None:
        sessions: list[dict[str, Any]] = [
            {"access_token": "é\n", "a": [True, None, -1.5e-7, {}], "companyId": f"c{n}"}
            for n in range(3)
        ]
        for text in (
            json.dumps({"tokens": sessions}, indent=1),
            json.dumps(sessions, indent=1),
            "[" + ",\n".join(map(json.dumps, sessions)) + "]",
            "\n".join(json.dumps(each, ensure_ascii=False) for each in sessions),
        ):
            whole = [each.token for each in entries(text)]
            self.assertEqual(whole, sessions)
            for end in range(1, len(text)):
                part = text[:end]
                found = entries(part)
                read = [each.token for each in found if each.token]
                self.assertEqual(read, sessions[: len(read)], part)
                problems = [each.problem for each in found if each.problem]
                lines = text.splitlines()
                if "tokens" not in text and text[0] == "{" and part.splitlines()[-1] in lines:
                    # A file with a document per line has no end.
                    self.assertEqual(problems, [], part)
                else:
                    self.assertEqual(problems, [json_documents.CUT], part)
        # A damaged item is no missing end.
        (entry,) = entries('{"access_token": broken}')
        self.assertEqual(entry.problem, "invalid JSON")

    def test_token_inside_or_beside_other_tokens_is_found(self) -> None:
        company = {"access_token": "a", "refresh_token": "r", "companyId": COMPANY}
        location = {"access_token": "b", "refresh_token": "s", "locationId": LOCATION}
        copy = {"access_token": "a", "refresh_token": "r"}
        documents: list[Any] = [
            {**company, "userType": "Company", "locations": {LOCATION: location}},
            {**company, "locations": [location]},
            [{**company, "locations": json.dumps([location])}],
            {"tokens": [company], "locationTokens": [location]},
            {"tokens": [company], "more": {"x": json.dumps(location)}},
            {"companyId": COMPANY, "userType": "Company", "tokens": [copy], "x": [location]},
            # The API's answer next to the values from it.
            {**company, "raw": copy, "x": location, "text": json.dumps(company)},
        ]
        for document in documents:
            found = entries(json.dumps(document))
            self.assertEqual(
                [owner_of(each) for each in found],
                [("Company", COMPANY), ("Location", LOCATION)],
                document,
            )
            # The library stores the other members of a token with it.
            self.assertNotIn('"b"', json.dumps(found[0].token))
        outer = {"applicationId": "another", "tokens": [company]}
        self.assertIn("of the app another", str(entries(json.dumps(outer))[0].problem))

    def test_every_encoding_and_nesting_of_json_is_read(self) -> None:
        text = '{"access_token": "a", "companyId": "c"}'
        for data in (
            text.encode("utf-16"),
            b"\xef\xbb\xbf" + text.encode(),
            f"[{text}]".encode(),
            f'{{"tokens": [{text}]}}'.encode(),
            f'[{{"id": 1, "resource_id": "c", "data": {json.dumps(text)}}}]'.encode(),
        ):
            self.assertEqual(token(data), {"access_token": "a", "companyId": "c"}, data)

    def test_numbers_of_mongoexport_are_integers_for_the_library(self) -> None:
        found = token({"access_token": "a", "companyId": "c", "expires_in": 86399.0})
        self.assertIsInstance(found["expires_in"], int)

    def test_members_of_php_objects_and_variables_without_a_value_are_read(self) -> None:
        session = (
            b'O:4:"Sess":2:{s:18:"\0Sess\0access_token";s:1:"a";s:12:"\0*\0companyId";s:1:"c";}'
        )
        self.assertEqual(
            token(b"!unset|session|" + session + b"last|d:1.5;"),
            {"access_token": "a", "companyId": "c"},
        )

    def test_hostile_data_is_refused_without_an_exception_of_python(self) -> None:
        for data in (
            b"[" * 100_000,
            b'{"a":' * 100_000,
            b"9" * 10_000,
            b'{"access_token": "a", "expire_at": ' + b"9" * 5000 + b"}",
            b"a|" + b"a:1:{i:0;" * 10_000,
            b"a|a:999999999999:{",
            b's|s:99999999:"x";',
            b'x|O:8:"stdClass":1:{s:1:"a";',
            b'x|C:3:"Foo":9999:{}',
            b"x|i:;",
            b"\x05abcdea:1",
            bytes(range(256)),
            b'{"access_token": "\\ud800"}',
        ):
            try:
                found = entries(data)
            except session_files.Unreadable:
                continue
            for entry in found:
                self.assertTrue(entry.problem or entry.token, data[:20])

    def test_output_of_the_mongo_shell_is_recognized(self) -> None:
        shell = f"{{ _id: ObjectId('1'), access_token: '{SECRET}' }}"
        (entry,) = entries(shell)
        self.assertIn("use mongoexport", entry.problem or "")
        with self.assertRaisesRegex(session_files.Unreadable, "use mongoexport"):
            entries(f"crm> {shell}")


class ReasonsTest(unittest.TestCase):
    def test_every_reason_is_on_the_page(self) -> None:
        page = (REPOSITORY / "docs" / "migration.md").read_text(encoding="utf-8")
        table = page.partition("### Reasons for skipping a token\n")[2].partition("\n#")[0]
        cells = [line.split("|")[1].strip() for line in table.splitlines() if line[:2] == "| "]
        known = "\n".join(cells)
        fixed = re.compile(r"[a-zA-Z' ]{12,}")
        modules = (session_files, import_conflicts, json_documents)
        sources = [inspect.getsource(module) for module in modules]
        library = (REPOSITORY / "src" / "tokens" / "transfer.rs").read_text(encoding="utf-8")
        sources.append(re.sub(r"log::\w+!\([^;]*;", "", library.partition("#[cfg(test)]")[0]))
        reasons = [
            text
            for source in sources
            for text in re.findall(
                r'"((?:it |its |another |the token |a token |several )[^"]+)', source
            )
        ]
        self.assertGreater(len(reasons), 20)
        for reason in reasons:
            # Without the parts that vary, and without the end of a longer sentence.
            (begin, *_) = fixed.findall(re.split(r"[{;:,]", reason)[0]) or [reason]
            with self.subTest(reason=reason):
                self.assertTrue(begin.strip() in known, begin)


class ImportTest(CliTest):
    def setUp(self) -> None:
        super().setUp()
        self.app = str(self.document["clientId"]).partition("-")[0]
        self.file = self.folder / "sessions.ndjson"

    def write(self, *documents: Any) -> None:
        lines = (each if isinstance(each, str) else json.dumps(each) for each in documents)
        self.file.write_text("\n".join(lines) + "\n")

    def test_dry_run_says_what_would_happen_to_each_token_and_changes_nothing(self) -> None:
        session = {"applicationId": self.app, "access_token": SECRET, "refresh_token": SECRET}
        ours = {"resourceId": "c1", "userType": "Company", "expire_at": AT + 10**9}
        held = [{**session, **ours, "resourceId": f"c{i}", "refresh_token": f"{i}"} for i in (6, 7)]
        self.ok("import", "-", stdin=json.dumps([{**session, **ours}, *held]))
        before = self.ok("list", "--json")
        self.write(
            {**session, **ours},
            {**held[0], "refresh_token": "2", "expire_at": AT},
            {**session, **ours, "refresh_token": "3", "expire_at": AT + 10**10},
            {**held[1], "refresh_token": "4", "expire_at": None},
            {**session, "resourceId": "l1", "companyId": "c1", "refresh_token": "5"},
            {**session, "resourceId": "l2", "companyId": "c1", "refresh_token": "5"},
            {**session, "resourceId": "c2"},
            {**session, "applicationId": "another", "resourceId": "c3"},
            "broken " + SECRET,
            {"resourceId": "c4"},
        )
        ended = self.run_cli("import", "--dry-run", str(self.file))
        # Because of the damaged line.
        self.assertEqual((ended.returncode, ended.stderr), (6, ""))
        self.assertNotIn(SECRET, ended.stdout)
        *table, summary = ended.stdout.splitlines()
        rows = [(line.split()[0], line.split()[1], line) for line in table[1:]]
        for (owner, outcome, line), (expected, verb, reason) in zip(rows, (
            ("c1", "skip", f"another entry of c1 is newer: {self.file}, line 3"),
            ("c6", "skip", "a newer token is stored; --replace imports"),
            ("c1", "replace", ""),
            ("c7", "skip", "no expiry"),
            ("l1", "import", ""),
            ("l2", "skip", "two owners cannot share one"),
            ("c2", "skip", 'companyId is missing; add "userType"'),
            ("c3", "skip", "of the app another"),
            ("-", "skip", "invalid JSON"),
            ("c4", "skip", "accessToken is missing"),
        )):  # fmt: skip
            self.assertEqual((owner, outcome), (expected, verb), line)
            self.assertIn(reason, line)
        for number, (_, _, line) in enumerate(rows, 1):
            self.assertIn(f"{self.file}, line {number} ", line)
        self.assertEqual(len(rows), 10)
        self.assertEqual(summary, "2 would be imported, 8 skipped; nothing was changed")
        self.assertEqual(self.ok("list", "--json"), before)

        ended = self.run_cli("import", "--dry-run", "--json", str(self.file))
        self.assertEqual(ended.returncode, 6)
        document = json.loads(ended.stdout)
        self.assertEqual(
            [
                (each["index"], each["resourceId"], each["replaces"])
                for each in document["accepted"]
            ],
            [(2, "c1", True), (4, "l1", False)],
        )
        self.assertEqual((document["dryRun"], document["imported"]), (True, 2))
        self.assertEqual(len(document["skipped"]), 8)
        self.assertEqual(document["skipped"][-2]["source"], f"{self.file}, line 9")
        done = self.run_cli("import", "--json", str(self.file))
        self.assertEqual(done.returncode, 6)
        self.assertEqual(json.loads(done.stdout), {"imported": 2, "skipped": document["skipped"]})

    def test_cut_or_damaged_input_is_imported_in_part_and_has_its_own_exit_status(self) -> None:
        tokens = [{"access_token": SECRET, "companyId": f"c{n}"} for n in range(4)]
        text = json.dumps({"tokens": tokens}, indent=2)
        whole = text.index('"c2"')
        ends = ((whole, 2), (text.index("{", whole), 3), (len(text) - 2, 4))
        for options in (("--dry-run",), ("--replace",)):
            for end, imported in ends:
                ended = self.run_cli("import", *options, "-", stdin=text[:end])
                self.assertEqual(ended.returncode, 6, ended)
                shown = ended.stdout + ended.stderr
                self.assertIn("the end of the input is missing", shown)
                self.assertRegex(shown, rf"(?m)^{imported} .*imported, 1 skipped")
                self.assertNotIn(SECRET, shown)
        ended = self.run_cli("import", "-", stdin=text[:60])
        self.assertEqual(ended.returncode, 1)
        self.assertIn("the end of the input is missing", ended.stderr)
        # Entries that need no attention do not count.
        other = {**tokens[0], "applicationId": "another"}
        ended = self.run_cli("import", "--replace", "-", stdin=json.dumps([tokens[0], other]))
        self.assertEqual((ended.returncode, ended.stdout), (0, "1 imported, 1 skipped\n"))
        folder = self.folder / "php"
        folder.mkdir()
        (folder / "sess_a").write_text("s|" + 'a:1:{s:12:"access_token";s:9:"')
        (folder / "b.json").write_text(json.dumps(tokens[0]))
        ended = self.run_cli("import", "--replace", str(folder))
        self.assertEqual(ended.returncode, 6)
        self.assertIn("sess_a: the PHP session is damaged: the end of the", ended.stderr)

    def test_dry_run_creates_no_database(self) -> None:
        self.write({"access_token": "a", "companyId": "c1"})
        before = sorted(self.folder.iterdir())
        self.assertIn("1 would be imported", self.ok("import", "--dry-run", str(self.file)))
        self.assertEqual(sorted(self.folder.iterdir()), before)
        self.ok("import", str(self.file))
        self.assertTrue((self.folder / "tokens.db").exists())

    def test_import_that_skips_everything_fails_and_names_each_resource(self) -> None:
        session = {"applicationId": "another", "access_token": SECRET}
        self.write({**session, "resourceId": "c1"}, {"companyId": "c2", "accessToken": "a\n"})
        for options in ((), ("--dry-run",)):
            ended = self.run_cli("import", *options, str(self.file))
            self.assertEqual(ended.returncode, 1)
            for owner in ("c1", "line 2"):
                self.assertIn(owner, ended.stdout + ended.stderr)
            self.assertIn("imported: all were skipped", ended.stderr)
            self.assertNotIn(SECRET, ended.stdout + ended.stderr)

    def test_several_files_and_folders_are_imported_at_once(self) -> None:
        folder = self.folder / "sessions"
        (folder / "a").mkdir(parents=True)
        for name, owner in (("c1.json", "c1"), ("a/c2.json", "c2")):
            (folder / name).write_text(json.dumps({"access_token": "a", "companyId": owner}))
        (folder / "settings.json").write_text('{"colour": "blue"}')
        (folder / "empty").touch()
        (folder / "notes.txt").write_text(f"remember {SECRET}")
        self.write({"access_token": "a", "companyId": "c3"})
        ended = self.run_cli("import", str(self.file), str(folder))
        self.assertEqual((ended.returncode, ended.stdout), (0, "3 imported, 1 skipped\n"))
        self.assertEqual(
            ended.stderr,
            f"  skipped {folder / 'notes.txt'}: it is neither JSON nor a PHP session\n",
        )
        self.assertEqual(
            [each["resourceId"] for each in json.loads(self.ok("list", "--json"))],
            ["c1", "c2", "c3"],
        )

    def test_file_without_tokens_is_refused_with_its_name(self) -> None:
        for text in ("", "visits|i:1;", "hello", "broken\n", '{"a": ', "[1, 2]"):
            Path(self.file).write_text(text)
            ended = self.run_cli("import", str(self.file))
            self.assertEqual((ended.returncode, ended.stdout), (1, ""), text)
            self.assertIn(str(self.file), ended.stderr)
            self.assertIn("mongoexport", ended.stderr)
