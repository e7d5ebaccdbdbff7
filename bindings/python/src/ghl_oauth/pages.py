"""Iteration over lists that come in pages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Callable, TypeVar

from .errors import ProtocolError
from .models import FailedToken

Item = TypeVar("Item")


class Pages(Iterator[Item]):
    """The items of a list, page after page; each page is fetched when the iteration reaches it.

    An error ends nothing: after a ``RateLimited``, for instance, ``next()`` asks for the same page again.
    Use an iterator from one thread at a time.

    A stored token that cannot be read does not end the list either: it is logged as a warning and collected in
    :attr:`failed`, and the iteration continues with the next token.
    """

    def __init__(
        self,
        fetch: Callable[[str | None], tuple[list[Item], str | None]],
        page_token: str | None,
        failed: Sequence[FailedToken] = (),
    ) -> None:
        """``fetch`` gets a page by its token (None: the first), and answers its items and the next page's token.

        It appends to ``failed`` the tokens of the page that cannot be read.
        """
        self._fetch = fetch
        self._failed = failed
        self._items: Iterator[Item] = iter(())
        self._next_page_token = page_token
        self._begun = False
        self._seen = {page_token}

    @property
    def next_page_token(self) -> str | None:
        """Names the page after the last one fetched, for a later list to go on there; None after the last page."""
        return self._next_page_token

    @property
    def failed(self) -> tuple[FailedToken, ...]:
        """The stored tokens that cannot be read, from the pages fetched so far; empty for a list of locations."""
        return tuple(self._failed)

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
