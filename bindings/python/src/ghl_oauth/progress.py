"""Progress bars, as the libraries that people have draw them."""

from __future__ import annotations

from typing import Any, Callable, Protocol, runtime_checkable


@runtime_checkable
class ProgressBar(Protocol):
    """What tqdm's bars have, and whatever else looks like them."""

    total: Any

    def update(self, n: Any = ..., /) -> object:
        """Goes on by so many."""


@runtime_checkable
class ProgressDisplay(Protocol):
    """What rich's ``Progress`` has, and whatever else looks like it: one display with a bar for each task."""

    def add_task(self, description: str, *, total: float | None = ...) -> Any:
        """Adds a bar.

        Args:
            description: What it is about.
            total: Of how many steps. None: not known, so that the bar only shows that something is done.

        Returns:
            What names the bar for :meth:`update`.
        """

    def update(self, task_id: Any, /, *, total: float | None = ..., completed: float | None = ...) -> object:
        """Moves a bar.

        Args:
            task_id: What :meth:`add_task` returned.
            total: Of how many steps. None: as before.
            completed: To so many. None: as before.
        """


def mover(progress: ProgressBar | ProgressDisplay, description: str) -> Callable[[int, int | None], None]:
    """A function that moves a bar to so many of so many; None: of how many is not known.

    Raises:
        TypeError: It is no bar.
    """
    if isinstance(progress, ProgressDisplay):
        display = progress
        task = display.add_task(description, total=None)

        def show(done: int, total: int | None) -> None:
            display.update(task, total=total, completed=done)

        return show
    if not isinstance(progress, ProgressBar):
        raise TypeError(f"progress must be a function, or a bar of tqdm's or rich's, not {type(progress).__name__}")
    bar = progress
    shown = 0

    def move(done: int, total: int | None) -> None:
        nonlocal shown
        if total is not None:
            bar.total = total
        bar.update(done - shown)
        shown = done

    return move
