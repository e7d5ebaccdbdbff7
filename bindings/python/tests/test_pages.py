"""Iteration over pages, without a server."""

from __future__ import annotations

import unittest

import ghl_oauth
from ghl_oauth.client import _next_page_token
from ghl_oauth.models import Location

BOOK: dict[str | None, tuple[list[int], str | None]] = {
    None: ([1, 2], "b"),
    "b": ([], "c"),
    "c": ([3], None),
}


class PagesTest(unittest.TestCase):
    def test_items_are_in_order_across_empty_pages(self) -> None:
        pages = ghl_oauth.Pages(BOOK.__getitem__, None)
        self.assertEqual(list(pages), [1, 2, 3])
        self.assertIsNone(pages.next_page_token)
        self.assertEqual(list(pages), [])

    def test_failed_tokens_of_fetched_pages_are_collected(self) -> None:
        failed: list[ghl_oauth.FailedToken] = []

        def fetch(token: str | None) -> tuple[list[int], str | None]:
            failed.append(
                ghl_oauth.FailedToken.from_json(
                    {"resourceId": f"after {token}", "error": {"message": "m"}}
                )
            )
            return BOOK[token]

        pages = ghl_oauth.Pages(fetch, None, failed)
        self.assertEqual(
            (next(pages), [each.resource_id for each in pages.failed]), (1, ["after None"])
        )
        self.assertEqual(list(pages), [2, 3])
        self.assertEqual(
            [each.resource_id for each in pages.failed], ["after None", "after b", "after c"]
        )
        self.assertEqual(ghl_oauth.Pages(BOOK.__getitem__, None).failed, ())

    def test_list_can_start_at_any_page(self) -> None:
        self.assertEqual(list(ghl_oauth.Pages(BOOK.__getitem__, "c")), [3])

    def test_cyclic_page_token_is_an_error(self) -> None:
        for back in ("a", "b"):
            cycle: dict[str | None, tuple[list[int], str | None]] = {
                "a": ([1], "b"),
                "b": ([2], back),
            }
            pages = ghl_oauth.Pages(cycle.__getitem__, "a")
            self.assertEqual(next(pages), 1)
            with self.assertRaises(ghl_oauth.ProtocolError):
                next(pages)


class LenienceTest(unittest.TestCase):
    """The API sometimes sends booleans as strings, and a newer library may have more states."""

    def test_unreadable_token_with_only_an_id_has_its_state(self) -> None:
        info = ghl_oauth.TokenInfo.from_json({"resourceId": "l1", "state": "unreadable"})
        self.assertEqual(
            (info.resource_id, info.state, info.refreshable), ("l1", "unreadable", False)
        )
        self.assertEqual((info.user_type, info.company_id, info.expires_at), (None, None, None))
        self.assertEqual(
            ghl_oauth.TokenInfo.from_json({"resourceId": "l1", "state": "asleep"}).state, "asleep"
        )

    def test_last_page_is_recognized_in_every_spelling(self) -> None:
        for pagination, token in (
            ({"hasNextPage": True, "nextPageToken": "t"}, "t"),
            ({"hasNextPage": "true", "nextPageToken": "t"}, "t"),
            ({"nextPageToken": "t"}, "t"),
            ({"hasNextPage": False, "nextPageToken": "t"}, None),
            ({"hasNextPage": "false", "nextPageToken": "t"}, None),
            ({"hasNextPage": True, "nextPageToken": ""}, None),
            ({"hasNextPage": True}, None),
            ({}, None),
        ):
            self.assertEqual(_next_page_token(pagination), token, pagination)

    def test_installed_flag_is_read(self) -> None:
        for value, installed in (
            (True, True),
            ("true", True),
            (False, False),
            ("false", False),
            (None, None),
        ):
            self.assertIs(
                Location.from_json({"_id": "l1", "isInstalled": value}).is_installed, installed
            )
