"""Locations of a company."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ._fields import flag, text


@dataclass(frozen=True)
class Location:
    """A location of a company, from the list of installed locations."""

    id: str
    name: str | None
    address: str | None
    is_installed: bool | None
    """Whether the app is installed there; None if the API does not say."""
    raw: Mapping[str, Any] = field(repr=False, compare=False)

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Location:
        """Reads the API's form."""
        return cls(
            id=raw["_id"],
            name=text(raw.get("name")),
            address=text(raw.get("address")),
            is_installed=flag(raw.get("isInstalled")),
            raw=raw,
        )

    @classmethod
    def all_of(cls, items: Any) -> list[Location]:
        """Reads a list from the API and skips items that are not objects or have no id."""
        objects = (
            (item for item in items if isinstance(item, dict)) if isinstance(items, list) else ()
        )
        return [cls.from_json(item) for item in objects if text(item.get("_id"))]
