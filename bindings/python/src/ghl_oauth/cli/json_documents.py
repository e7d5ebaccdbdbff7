"""Splits a text into JSON documents, also if a part of it is damaged or missing."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

CUT = "the end of the input is missing, and the tokens in it"

SHELL = re.compile(r"\b(?:ObjectId|ISODate|NumberLong|Long)\(")


class Broken:
    """A part of a file that is not JSON."""

    def __init__(self, problem: str, is_lost: bool = True) -> None:
        self.problem = problem
        self.is_lost = is_lost


def documents(text: str, is_wanted: Callable[[str], bool]) -> Iterator[tuple[int | None, Any]]:
    """The JSON documents of a text, with their lines; None if the text is a single one.

    The documents may be pretty-printed, and may be the items of a list of which a part is damaged.
    After a damaged one, reading continues at the next line that begins with an object. Of a
    document whose end is missing, the complete objects that are wanted are returned instead.
    """
    try:
        yield None, parse(text)
        return
    except (ValueError, RecursionError):
        pass
    decoder = json.JSONDecoder(parse_constant=_refuse_constant)
    is_inside = False
    position = line = 0
    counted = 0
    lists = 0
    while True:
        between = _BETWEEN.match(text, position).group()  # type: ignore[union-attr]
        lists += between.count("[") - between.count("]")
        position += len(between)
        if position == len(text):
            break
        line += text.count("\n", counted, position)
        counted = position
        try:
            document, position = decoder.raw_decode(text, position)
            if is_inside and not is_wanted(text[counted:position]):
                continue
            if not isinstance(document, dict):
                document = Broken("it is not an object", is_lost=False)
        except RecursionError:
            document, position = Broken("it is nested too deeply"), _resume(text, position)
        except ValueError as error:
            if is_inside or _is_at_the_end(error, text):
                # The rest of the text is inside this document, and valid: find tokens in it.
                is_inside, position = True, _resume(text, position)
                continue
            # Without the decoder's message, which may quote a token.
            shell = SHELL.search(text, position, text.find("\n", position) % (len(text) + 1))
            problem = (
                "it is output of the mongo shell; use mongoexport" if shell else "invalid JSON"
            )
            document, position = Broken(problem), _resume(text, position)
        yield 1 + line, document
    if is_inside or (lists > 0 and text.rstrip()[-1:] != "]"):
        yield 1 + text.rstrip().count("\n"), Broken(CUT)


def _is_at_the_end(error: ValueError, text: str) -> bool:
    """Whether a document ends too early, rather than being invalid."""
    if not isinstance(error, json.JSONDecodeError):
        return False
    rest = text[error.pos : error.pos + 100].strip(" \t\r\n,")
    return (
        error.msg.startswith("Unterminated string")
        # Half an escape sequence.
        or (error.msg.startswith("Invalid \\") and len(text) - error.pos < 6)
        or any(word.startswith(rest) for word in ("true", "false", "null", "-"))
        or bool(re.fullmatch(r"[.eE+-]{1,2}", rest))
    )


_BETWEEN = re.compile(r"[\s,\[\]]*")
_NEXT = re.compile(r"\n[\s,\[]*(?=\{)")


def _resume(text: str, position: int) -> int:
    found = _NEXT.search(text, position)
    return found.end() if found else len(text)


def parse(text: str) -> Any:
    """The value of a text that is one JSON document."""
    return json.loads(text, parse_constant=_refuse_constant)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
