"""Progress bars, as the libraries that people have draw them."""

from __future__ import annotations

from typing import Any, Callable, Protocol, runtime_checkable

from .models import MintProgress


@runtime_checkable
class ProgressBar(Protocol):
    """What tqdm's bars have, and whatever else looks like them."""

    total: Any

    def update(self, n: Any = ..., /) -> object:
        """Goes on by so many."""


def listener(progress: Callable[[MintProgress], object] | ProgressBar) -> Callable[[MintProgress], object]:
    """A function that moves the bar, or the function itself."""
    if callable(progress):
        return progress
    bar: ProgressBar = progress
    shown = 0

    def move(so_far: MintProgress) -> None:
        nonlocal shown
        if so_far.total is not None:
            bar.total = so_far.total
        looked_at = so_far.done + so_far.failed
        bar.update(looked_at - shown)
        shown = looked_at

    return move
