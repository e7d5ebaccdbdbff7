"""Progress on one line of a terminal. Prints nothing if stderr is not a terminal."""

from __future__ import annotations

import contextlib
import sys
import time

from .output import duration, is_terminal

TYPE_CHECKING = False  # `typing` is slow to import
if TYPE_CHECKING:
    from ..models import MaintenanceProgress, MintProgress

_WIDTH = 30

_PAUSE = 0.1
"""The least time between two redraws, in seconds; the last state is always drawn."""


class Line:
    """A line of the terminal that is overwritten."""

    def __init__(self) -> None:
        self.shown = is_terminal(sys.stderr)
        self._width = 0
        self._columns = 0
        if self.shown:
            import shutil  # imported here because it is slow

            self._columns = shutil.get_terminal_size().columns

    def draw(self, text: str) -> None:
        """Replaces the line."""
        if not self.shown:
            return
        text = text[: max(self._columns - 1, 1)]
        self._write("\r" + text.ljust(self._width))
        self._width = len(text)

    def end(self) -> None:
        """Keeps the line and begins the next."""
        if self._width:
            self._write("\n")
            self._width = 0

    def erase(self) -> None:
        """Removes the line."""
        if self._width:
            self._write("\r" + " " * self._width + "\r")
            self._width = 0

    @staticmethod
    def _write(text: str) -> None:
        with contextlib.suppress(OSError):
            sys.stderr.write(text)
            sys.stderr.flush()


class Bar:
    """A progress bar; use it as ``progress=`` of a mint or a maintenance pass."""

    def __init__(self) -> None:
        self._line = Line()
        self._drawn_at = 0.0
        self._undrawn: str | None = None

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *_: object) -> None:
        if self._undrawn is not None:
            self._line.draw(self._undrawn)
        self._line.end()

    def __call__(self, progress: MintProgress | MaintenanceProgress) -> None:
        """Draws the progress."""
        if not self._line.shown:
            return
        from ..models import MintProgress  # imported here because it is slow

        text = _minted(progress) if isinstance(progress, MintProgress) else _maintained(progress)
        now = time.monotonic()
        if now - self._drawn_at < _PAUSE:
            self._undrawn = text
            return
        self._line.draw(text)
        self._drawn_at, self._undrawn = now, None


def _minted(progress: MintProgress) -> str:
    done = progress.done + progress.failed
    if progress.total:
        filled = _WIDTH * done // progress.total
        text = f"[{'#' * filled}{'.' * (_WIDTH - filled)}] {done}/{progress.total}"
    else:
        text = f"{done} locations"
    text += f"  {progress.per_second:.1f}/s"
    if progress.failed:
        text += f"  {progress.failed} failed"
    if progress.seconds_left is not None:
        text += f"  {duration(progress.seconds_left)} left"
    return text


def _maintained(progress: MaintenanceProgress) -> str:
    # The number of due tokens is known only at the end: the mark moves with each token.
    place = progress.checked % _WIDTH
    text = f"[{'.' * place}#{'.' * (_WIDTH - 1 - place)}] {progress.checked} due"
    text += f"  {progress.refreshed} refreshed"
    if progress.failed:
        text += f"  {progress.failed} failed"
    if progress.resealed:
        text += f"  {progress.resealed} resealed"
    return text
