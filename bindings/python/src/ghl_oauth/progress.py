"""Adapters for progress bars."""

from __future__ import annotations

from typing import Any, Callable, Protocol, runtime_checkable


@runtime_checkable
class ProgressBar(Protocol):
    """The interface of a tqdm bar."""

    total: Any

    def update(self, n: Any = ..., /) -> object:
        """Advances the bar by ``n``."""


@runtime_checkable
class ProgressDisplay(Protocol):
    """The interface of a rich ``Progress``: one display with a bar for each task."""

    def add_task(self, description: str, *, total: float | None = ...) -> Any:
        """Adds a bar.

        Args:
            description: The label.
            total: The number of steps. None: unknown; the bar only shows activity.

        Returns:
            The id of the bar for :meth:`update`.
        """

    def update(
        self, task_id: Any, /, *, total: float | None = ..., completed: float | None = ...
    ) -> object:
        """Moves a bar.

        Args:
            task_id: The result of :meth:`add_task`.
            total: The number of steps. None: unchanged.
            completed: The number of completed steps. None: unchanged.
        """


def mover(
    progress: ProgressBar | ProgressDisplay, description: str
) -> Callable[[int, int | None], None]:
    """A function that moves a bar to ``done`` of ``total`` steps (None: unknown).

    Raises:
        TypeError: ``progress`` is not a bar.
    """
    if isinstance(progress, ProgressDisplay):
        display = progress
        task = display.add_task(description, total=None)

        def show(done: int, total: int | None) -> None:
            display.update(task, total=total, completed=done)

        return show
    if not isinstance(progress, ProgressBar):
        raise TypeError(
            "progress must be a function, or a bar of tqdm's or rich's, not "
            f"{type(progress).__name__}"
        )
    bar = progress
    shown = 0

    def move(done: int, total: int | None) -> None:
        nonlocal shown
        if total is not None:
            bar.total = total
        bar.update(done - shown)
        shown = done

    return move
