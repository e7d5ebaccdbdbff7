"""The logger of the package, once the program has imported :mod:`logging`."""

from __future__ import annotations

import sys

TYPE_CHECKING = False  # `typing` is slow to import
if TYPE_CHECKING:
    import logging

_found: logging.Logger | None = None


def logger() -> logging.Logger | None:
    """The logger. None if the program has not imported :mod:`logging`, and so logs nothing.

    This package does not import it then, because that is slow.
    """
    global _found
    if _found is None and "logging" in sys.modules:
        import logging

        found = logging.getLogger("ghl_oauth")
        # Prints nothing in programs that do not configure logging.
        found.addHandler(logging.NullHandler())
        _found = found
    return _found
