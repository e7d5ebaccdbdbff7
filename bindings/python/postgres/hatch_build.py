"""Build hook: the one of ghl-oauth, with the options in pyproject.toml."""

from __future__ import annotations

import importlib.util
from pathlib import Path

# In an sdist the hook is a file of its own.
_FOLDER = Path(__file__).resolve().parent
_COPY = _FOLDER / "native_build.py"
_SPEC = importlib.util.spec_from_file_location(
    "native_build", _COPY if _COPY.is_file() else _FOLDER.parent / "hatch_build.py"
)
assert _SPEC and _SPEC.loader
_MODULE = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(_MODULE)

NativeLibraryHook = _MODULE.NativeLibraryHook
