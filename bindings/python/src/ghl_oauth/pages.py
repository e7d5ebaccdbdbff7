"""Iteration over paginated lists."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from .errors import ProtocolError

TYPE_CHECKING = False  # `typing` is slow to import
if TYPE_CHECKING:
    from typing import Callable, TypeVar

    from .models import FailedToken

    Item = TypeVar("Item")
else:
    Item = object


class Pages(Iterator[Item]):
    """The items of a paginated list; each page is fetched when the iteration reaches it.

    An error does not end the iteration: after a ``RateLimited``, for instance, ``next()`` requests
    the same page again. Use an iterator from one thread at a time.

    A stored token that cannot be read does not end the iteration either: it is logged as a warning
    and collected in :attr:`failed`, and the iteration continues with the next token.
    """

    def __init__(
        self,
        fetch: Callable[[str | None], tuple[list[Item], str | None]],
        page_token: str | None,
        failed: Sequence[FailedToken] = (),
    ) -> None:
        """Takes the function that fetches a page.

        ``fetch`` takes a page token (None: the first page) and returns its items and the next page
        token. It appends the unreadable tokens of the page to ``failed``.
        """
        self._fetch = fetch
        self._failed = failed
        self._items: Iterator[Item] = iter(())
        self._next_page_token = page_token
        self._begun = False
        self._seen = {page_token}

    @property
    def next_page_token(self) -> str | None:
        """The token of the next page, to continue there later; None after the last page."""
        return self._next_page_token

    @property
    def failed(self) -> tuple[FailedToken, ...]:
        """The unreadable tokens of the pages fetched so far; empty for a list of locations."""
        return tuple(self._failed)

    def __next__(self) -> Item:
        while True:
            for item in self._items:
                return item
            if not self._load():
                raise StopIteration

    def _load(self) -> bool:
        """Fetches the next page; False after the last one."""
        if self._begun and self._next_page_token is None:
            return False
        items, following = self._fetch(self._next_page_token)
        if following is not None and following in self._seen:
            raise ProtocolError(
                {
                    "message": "the page tokens of the list form a cycle",
                    "help": "report this defect of the server",
                }
            )
        self._begun = True
        self._seen.add(following)
        self._next_page_token = following
        self._items = iter(items)
        return True
