"""``ghl-oauth doctor``: checks everything that tokens depend on, and reports problems."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import time
from collections.abc import Iterator

from ..._configuration import Configuration, read
from ..._handle import any_open
from ...client import Client
from ...errors import GhlError
from .. import output, status
from ..bar import Line
from ..checks import Check, Stage, network, setup, store
from ..checks import tokens as stored
from ..explain import explain
from ..task import Task

DESCRIPTION = (
    "Checks the configuration, webhook keys, store, network, certificate, clock, API version, "
    "client credentials and tokens, within 10 seconds. It saves a probe in the store and asks the "
    "API with up to four live tokens; one that the API refuses is refreshed. If all have expired, "
    "one is refreshed. The worst finding determines the exit status."
)
EXAMPLES = (
    "ghl-oauth doctor",
    "ghl-oauth doctor --json | jq -r '.checks[] | select(.exitStatus > 0) | .message'",
)

_LIMIT = 8.0
"""When the store and the network are given up, in seconds."""

_TOKENS_LIMIT = 9.0
"""When the requests with tokens are given up, in seconds."""

_CANCELLATION = 0.5
"""How long the end of a cancelled request takes at most, in seconds."""

_COLOURS = {"ok": "green", "warning": "yellow", "consent": "red", "problem": "red"}

# The worst first.
_SEVERITY = (
    status.UNSAVED,
    status.ERROR,
    status.USAGE,
    status.UNREADABLE,
    status.CONSENT,
    status.LATER,
)


def arguments(_parser: argparse.ArgumentParser) -> None:
    """Adds the command's own arguments: none."""


def run(options: argparse.Namespace) -> int:
    """Runs and prints all checks, and returns the exit status."""
    found = []
    waiting = _Waiting()
    examination = _Examination(options.config, waiting)
    for check in examination.checks():
        found.append(check)
        waiting.end()
        if not options.json:
            outcome = output.paint(f"{check.outcome:<8}", _COLOURS.get(check.outcome))
            output.put(f"{outcome} {check.name:<14} {output.plain(check.message)}")
            if check.help:
                output.put(f"{'':<8} {'':<14} {output.arrow()} {output.plain(check.help)}")
    statuses = {check.status for check in found}
    worst = next((each for each in _SEVERITY if each in statuses), status.OK)
    if options.json:
        document = [
            {
                "name": check.name,
                "outcome": check.outcome,
                "message": check.message,
                "help": check.help,
                "exitStatus": check.status,
            }
            for check in found
        ]
        output.show_json({"ok": worst == status.OK, "exitStatus": worst, "checks": document})
    if examination.hangs:
        # A call that hangs in the library could keep the interpreter from ending.
        with contextlib.suppress(OSError):
            sys.stdout.flush()
        os._exit(worst)
    return worst


class _Waiting:
    """Says what a step waits for: on a terminal at once, otherwise after a second."""

    def __init__(self) -> None:
        self._line = Line()
        self._told: set[str] = set()

    def until_ended(self, task: Task, stage: Stage, until: float) -> bool:
        """Waits for a task. Returns whether it has ended."""
        begun = time.monotonic()
        try:
            while not task.wait(min(until, time.monotonic() + 0.25)):
                now = time.monotonic()
                if now >= until:
                    return False
                if self._line.shown:
                    self._line.draw(f"{stage.text} ({now - begun:.0f} s)")
                elif now - begun >= 1 and stage.text not in self._told:
                    self._told.add(stage.text)
                    output.say(f"ghl-oauth: {stage.text}")
            return True
        finally:
            self._line.erase()

    def end(self) -> None:
        """Removes the message from the terminal."""
        self._line.erase()


class _Examination:
    """All checks. The store and the network are checked at the same time."""

    def __init__(self, config_option: str | None, waiting: _Waiting) -> None:
        self._config_option = config_option
        self._waiting = waiting
        self.hangs = False
        """Whether a step has not ended."""

    def checks(self) -> Iterator[Check]:
        """Runs the checks. Yields the findings in a fixed order, as soon as they are known."""
        begun = time.monotonic()
        yield setup.library()
        configuration = None
        try:
            configuration = read(self._config_option)
            # Finds wrong keys and values, without touching the store.
            Client.from_config({**configuration.document, "store": {"kind": "memory"}}).close()
        except GhlError as error:
            if configuration is not None:
                explain(error, configuration)
            yield Check(
                "configuration",
                "problem",
                f"{error.message}" + (f" ({error.parameter})" if error.parameter else ""),
                error.help,
                status.of(error),
            )
            return
        yield from setup.configuration(configuration)
        yield setup.webhooks(configuration)
        alone = not any_open()
        found, reached = store.Found(), list[Check]()
        storing, calling = Stage("checking the store"), Stage("checking the network")
        examined = Task(lambda: store.examine(configuration, storing, found, alone))
        called = Task(lambda: network.examine(configuration, calling, reached))
        until = begun + _LIMIT
        if self._waiting.until_ended(examined, storing, until):
            examined.result()
        else:
            self.hangs = True
            found.checks.append(store.held(configuration.store_path, storing, _LIMIT))
        yield from found.checks
        if self._waiting.until_ended(called, calling, until):
            called.result()
        else:
            self.hangs = True
            reached.append(
                Check(
                    "network",
                    "problem",
                    f"no answer within {_LIMIT:.0f} s while {calling.text}",
                    "check the network, the firewall and the proxy",
                    status.LATER,
                )
            )
        yield from reached
        healthy = any(check.name == "network" and check.outcome == "ok" for check in reached)
        yield from self._tokens(configuration, found, healthy, begun + _TOKENS_LIMIT)

    def _tokens(
        self, configuration: Configuration, found: store.Found, healthy: bool, until: float
    ) -> Iterator[Check]:
        if found.tokens is None:
            return
        if found.tokens or not found.unreadable:
            yield from stored.states(found.tokens)
        yield from store.rotation(found.others, bool(found.tokens or found.unreadable))
        client = found.client
        if client is None or self.hangs:
            return
        if healthy and found.tokens:
            trial = stored.Trial(client, configuration, found.tokens, until)
            if not trial.wait(until):
                client.cancel()
                # A refresh that was sent is not interrupted: only its response has the new token.
                if not trial.wait(time.monotonic() + _CANCELLATION):
                    output.say(
                        "ghl-oauth: waiting for the answer to a refresh, to save the new token"
                    )
                    trial.wait(time.monotonic() + 600)
            yield from trial.checks()
        unsaved = client._open().unsaved()
        client.close()
        if unsaved:
            yield Check(
                "store",
                "problem",
                f"{unsaved} new tokens were not saved and are lost",
                "repair the store, then let the users consent again",
                status.UNSAVED,
            )
