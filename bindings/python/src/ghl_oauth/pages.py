"""Iteration over lists that come in pages."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Callable, TypeVar

from .errors import ProtocolError

Item = TypeVar("Item")


class Pages(Iterator[Item]):
    """The items of a list, page after page; each page is fetched when the iteration reaches it.

    An error ends nothing: after a ``RateLimited``, for instance, ``next()`` asks for the same page again.
    Use an iterator from one thread at a time.
    """

    def __init__(self, fetch: Callable[[str | None], tuple[list[Item], str | None]], page_token: str | None) -> None:
        """``fetch`` gets a page by its token (None: the first), and answers its items and the next page's token."""
        self._fetch = fetch
        self._items: Iterator[Item] = iter(())
        self._next_page_token = page_token
        self._begun = False
        self._seen = {page_token}

    @property
    def next_page_token(self) -> str | None:
        """Names the page after the last one fetched, for a later list to go on there; None after the last page."""
        return self._next_page_token

    def __next__(self) -> Item:
        while True:
            for item in self._items:
                return item
            if self._begun and self._next_page_token is None:
                raise StopIteration
            items, following = self._fetch(self._next_page_token)
            if following is not None and following in self._seen:
                raise ProtocolError(
                    {"message": "the pages of the list lead in a circle", "help": "this is a defect of the server"}
                )
            self._begun = True
            self._seen.add(following)
            self._next_page_token = following
            self._items = iter(items)
