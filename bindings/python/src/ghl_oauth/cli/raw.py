"""Calls whose results stay the library's documents.

The dataclasses of :mod:`ghl_oauth.models` would take a third of a command's time: they are slow to
create, and so is the import of :mod:`dataclasses`.
"""

from __future__ import annotations

from .._library import library

TYPE_CHECKING = False  # `typing` is slow to import
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from ..client import Client
    from ..models import FailedToken


def stored_tokens(
    client: Client, **filters: Any
) -> tuple[list[dict[str, Any]], Sequence[FailedToken]]:
    """The stored tokens, and those that cannot be read.

    ``filters`` are the parameters of ``ghl_tokens_list``, with the library's names.
    """
    params = {**filters, "pageSize": 1000}
    pages = client._token_pages(library.ghl_tokens_list, "items", dict, params, None)
    return list(pages), pages.failed
