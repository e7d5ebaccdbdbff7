"""The command line: ``ghl-oauth``, or ``python -m ghl_oauth``. ``docs/python.md`` describes it."""

from .program import main

__all__ = ["main"]
