"""Makes a call at a line of the package, where a signal handler could make it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType, ModuleType
from typing import Any


class CallAtLine:
    """Makes a call at the n-th line of a module that the ``with`` block executes.

    The programs of other processes use it as well, so it needs only the standard library.
    """

    def __init__(self, number: int, module: ModuleType, call: Callable[[], object]) -> None:
        self._left = number
        self._module = module
        self._call = call

    @property
    def reached(self) -> bool:
        """Whether the block executed that many lines, so that the call was made."""
        return self._left <= 0

    def __enter__(self) -> CallAtLine:
        sys.settrace(self._trace)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)

    def _trace(self, frame: FrameType, event: str, _argument: object) -> Any:
        if frame.f_code.co_filename != self._module.__file__:
            return None
        if event == "line":
            self._left -= 1
            if self._left == 0:
                self._call()
        return self._trace
