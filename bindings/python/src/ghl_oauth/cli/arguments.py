"""Types of arguments, and arguments that several commands have."""

from __future__ import annotations

import argparse
from datetime import timedelta


def resource(parser: argparse.ArgumentParser) -> None:
    """Adds the argument for a company or location."""
    parser.add_argument(
        "resource", type=text, metavar="RESOURCE", help="the ID of a company or location"
    )


def filters(parser: argparse.ArgumentParser) -> None:
    """Adds the options that select stored tokens."""
    parser.add_argument(
        "--company", type=text, metavar="ID", help="only this company and its locations"
    )
    parser.add_argument("--type", choices=("Company", "Location"), help="only tokens of this type")


def text(value: str) -> str:
    """An argument that is valid UTF-8."""
    try:
        value.encode()
    except UnicodeEncodeError:
        raise argparse.ArgumentTypeError("not UTF-8") from None
    return value


def duration(value: str) -> timedelta:
    """A time such as ``90m``, ``12h`` or ``2d``."""
    units = {"m": "minutes", "h": "hours", "d": "days"}
    unit = units.get(value[-1:])
    if unit is None or not value[:-1].isascii() or not value[:-1].isdigit() or len(value) > 6:
        raise argparse.ArgumentTypeError(f"{value!r} is not a time such as 90m, 12h or 2d")
    return timedelta(**{unit: int(value[:-1])})


def number(least: int, most: int) -> type:
    """The type of an integer in a range."""

    class Number(int):
        """An integer in a range; argparse uses the class name in its error message."""

        def __new__(cls, value: str) -> Number:
            number = super().__new__(cls, value)
            if not least <= number <= most:
                raise argparse.ArgumentTypeError(f"{value} is not from {least} to {most}")
            return number

    Number.__name__ = "number"
    return Number
