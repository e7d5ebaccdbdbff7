"""Chooses between the tokens of an import that have the same owner.

At most one refresh token of an owner is live: each refresh spends it. So only the newest token may
be imported. If it is unknown which one that is, none is: a spent token would look like a connection
until its first refresh, which ends it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace

from .session_files import Entry, owner_of, secret_of


def resolve(entries: Sequence[Entry]) -> Sequence[Entry]:
    """The entries, in the same order; a token that must not be imported becomes a problem."""
    problems = _of_other_services(entries)
    for owner, group in _by_owner(entries, problems).items():
        problems.update(_conflicts(owner, entries, group))
    return [problems.get(index, entry) for index, entry in enumerate(entries)]


def _of_other_services(entries: Sequence[Entry]) -> dict[int, Entry]:
    """The entries that may be tokens of another service, which inherited the owner of their row.

    The API's access tokens name their owner. If some entries do, one that does not, and whose row
    only says whose it is, is not the API's. A private integration token is no JWT.
    """
    if not any(entry.is_confirmed for entry in entries):
        return {}
    problem = "it may be of another service: unlike other entries, its token names no owner"
    return {
        index: _without_token(entry, problem)
        for index, entry in enumerate(entries)
        if entry.token is not None
        and entry.is_inherited
        and not entry.is_confirmed
        and not entry.is_private_integration
    }


def _by_owner(entries: Sequence[Entry], excluded: Collection[int]) -> dict[str, list[int]]:
    groups: dict[str, list[int]] = {}
    for index, entry in enumerate(entries):
        owner = owner_of(entry.token) if entry.token is not None else None
        if owner is not None and index not in excluded:
            groups.setdefault(owner, []).append(index)
    return groups


def _conflicts(owner: str, entries: Sequence[Entry], group: Sequence[int]) -> dict[int, Entry]:
    """The entries of an owner that must not be imported."""
    found = {index: entries[index] for index in group}
    if _count(found.values()) < 2:
        return {}
    refreshable = {index: entry for index, entry in found.items() if secret_of(entry)[0]}
    if refreshable:
        problem = f"another entry of {owner} has a refresh token, and this one has none"
        dropped = {
            index: _without_token(entry, problem)
            for index, entry in found.items()
            if index not in refreshable
        }
        return {**dropped, **_all_but_the_newest(owner, refreshable)}
    return _all_but_the_newest(owner, found)


def _all_but_the_newest(owner: str, found: dict[int, Entry]) -> dict[int, Entry]:
    if _count(found.values()) < 2:
        return {}
    unconfirmed = [entry for entry in found.values() if not entry.is_confirmed]
    sources = {entry.named_by for entry in unconfirmed}
    if len(sources) < len(unconfirmed) and _count(unconfirmed) > 1:
        problem = (
            f"several tokens in the same object would count as {owner}'s; add userType, and "
            "companyId or locationId, to each"
        )
        return _refuse(found, problem)
    newest = _newest(list(found.values()))
    if newest is None:
        problem = (
            f"another entry of {owner} has a different token, and no date says which one is newer; "
            "keep the newest entry only"
        )
        return _refuse(found, problem)
    problem = f"another entry of {owner} is newer: {newest.source}"
    return {
        index: _without_token(entry, problem)
        for index, entry in found.items()
        if secret_of(entry) != secret_of(newest)
    }


def _newest(entries: Sequence[Entry]) -> Entry | None:
    """The newest entry; None if the dates do not say which one it is.

    A date that not all entries have cannot compare them.
    """
    # The date of the token itself, and its expiry: a copy does not change them.
    for kind in ("issued", "expires"):
        latest = _latest(entries, kind)
        if latest is not None:
            return latest
    # The dates of the rows can mean anything, for example the end of an old token's use. They must
    # not contradict each other.
    candidates = [
        latest
        for latest in (_latest(entries, kind) for kind in ("updated", "created"))
        if latest is not None
    ]
    return candidates[0] if candidates and _count(candidates) == 1 else None


def _latest(entries: Sequence[Entry], kind: str) -> Entry | None:
    """The only token with the latest date of this kind, if all have one."""
    if any(kind not in entry.dates for entry in entries):
        return None
    last = max(entry.dates[kind] for entry in entries)
    latest = [entry for entry in entries if entry.dates[kind] == last]
    return latest[0] if _count(latest) == 1 else None


def _count(entries: Iterable[Entry]) -> int:
    """How many different tokens these are."""
    return len({secret_of(entry) for entry in entries})


def _refuse(found: dict[int, Entry], problem: str) -> dict[int, Entry]:
    return {index: _without_token(entry, problem, True) for index, entry in found.items()}


def _without_token(entry: Entry, problem: str, is_lost: bool = False) -> Entry:
    owner = owner_of(entry.token) if entry.token is not None else None
    return replace(
        entry, token=None, resource_id=owner or entry.resource_id, problem=problem, is_lost=is_lost
    )
