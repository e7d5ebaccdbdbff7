"""Modules that are imported when they are first used: their import is slow."""

from __future__ import annotations

from importlib import import_module

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class LazyModule:
    """Stands for a module, and imports it when the first of its attributes is read."""

    def __init__(self, name: str) -> None:
        """Takes the full name of the module."""
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        value = getattr(import_module(self._name), attribute)
        setattr(self, attribute, value)
        return value
