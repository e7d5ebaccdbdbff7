"""The bindings against the C header: signatures, statuses and callbacks must match."""

from __future__ import annotations

import re
import unittest
from ctypes import POINTER, c_char_p, c_int32, c_size_t, c_uint32, c_uint64, c_void_p
from typing import Any

import ghl_oauth
from ghl_oauth import _library
from ghl_oauth._library import EventCallback, LogCallback, ProgressCallback, StoreCallbacks, library

from .support import REPOSITORY

# C types in the bindings. A returned string, and memory that the library writes, is an address.
TYPES: dict[str, Any] = {
    "void": None,
    "int32_t": c_int32,
    "uint32_t": c_uint32,
    "size_t": c_size_t,
    "size_t *": POINTER(c_size_t),
    "const uint8_t *": c_char_p,
    "const char *": c_char_p,
    "char *": c_void_p,
    "char **": POINTER(c_void_p),
    "void *": c_void_p,
    "struct ghl_client *": c_void_p,
    "const struct ghl_client *": c_void_p,
    "struct ghl_client **": POINTER(c_void_p),
    "const struct ghl_store_callbacks *": POINTER(StoreCallbacks),
    "uint64_t": c_uint64,
    "ghl_log_callback": LogCallback,
    "ghl_event_callback": EventCallback,
    "ghl_progress_callback": ProgressCallback,
}


def without_comments(header: str) -> str:
    return re.sub(r"/\*.*?\*/|//[^\n]*", "", header, flags=re.DOTALL)


def split_type(declaration: str) -> tuple[str, str]:
    """``const char *name`` -> (``const char *``, ``name``)."""
    found = re.fullmatch(r"(.*?)(\w*)", " ".join(declaration.split()))
    assert found, declaration
    return found.group(1).strip(), found.group(2)


def types_of(parameters: str) -> tuple[Any, ...]:
    if parameters.strip() == "void":
        return ()
    return tuple(TYPES[split_type(parameter)[0]] for parameter in parameters.split(","))


class HeaderTest(unittest.TestCase):
    header: str

    @classmethod
    def setUpClass(cls) -> None:
        cls.header = without_comments(
            (REPOSITORY / "include" / "ghl_oauth.h").read_text(encoding="utf-8")
        )

    def test_every_function_is_declared_as_in_the_header(self) -> None:
        declared = {}
        for result, parameters in re.findall(
            r"^([\w \t*]+ghl_\w+)\(([^()]*)\);", self.header, flags=re.MULTILINE
        ):
            result_type, name = split_type(result)
            declared[name] = (TYPES[result_type], types_of(parameters))
        self.assertGreater(len(declared), 20)
        self.assertEqual(declared, _library.SIGNATURES)

    def test_argument_types_are_enforced(self) -> None:
        for name, (result, parameters) in _library.SIGNATURES.items():
            function = getattr(library, name)
            self.assertEqual(
                (function.restype, tuple(function.argtypes)), (result, parameters), name
            )

    def test_every_callback_is_declared_as_in_the_header(self) -> None:
        callbacks = re.findall(r"typedef\s+(\w+)\s*\(\*(\w+)\)\(([^()]*)\);", self.header)
        self.assertEqual(len(callbacks), 3)
        for result, name, parameters in callbacks:
            prototype = TYPES[name]
            self.assertEqual(
                (prototype._restype_, prototype._argtypes_),
                (TYPES[result], types_of(parameters)),
                name,
            )

    def test_store_struct_is_declared_as_in_the_header(self) -> None:
        body = re.search(r"struct ghl_store_callbacks \{(.*?)\n\}", self.header, flags=re.DOTALL)
        assert body
        fields: list[tuple[str, Any]] = []
        for declaration in body.group(1).split(";")[:-1]:
            function = re.fullmatch(r"\s*(\w+)\s*\(\*(\w+)\)\(([^()]*)\)", declaration)
            if function:
                # A value returned by the host is an address as well.
                fields.append(
                    (function.group(2), (TYPES[function.group(1)], types_of(function.group(3))))
                )
            else:
                kind, name = split_type(declaration)
                fields.append((name, TYPES[kind]))
        structure: Any = StoreCallbacks._fields_
        declared: list[tuple[str, Any]] = [
            (name, (kind._restype_, kind._argtypes_) if hasattr(kind, "_restype_") else kind)
            for name, kind in structure
        ]
        self.assertEqual(declared, fields)
        self.assertEqual(len(fields), 10)

    def test_every_function_of_the_header_is_bound(self) -> None:
        named = set(re.findall(r"\b(ghl_\w+)\s*\(", self.header))
        self.assertEqual(named, set(_library.SIGNATURES))

    def test_every_status_has_a_class(self) -> None:
        statuses = {
            name: int(code) for name, code in re.findall(r"(GHL_ERR_\w+)\s*=\s*(\d+)", self.header)
        }
        classes = {error.status: error.code for error in ghl_oauth.GhlError.__subclasses__()}
        self.assertGreaterEqual(len(statuses), 21)
        self.assertEqual(classes, statuses)
        for name, code in statuses.items():
            self.assertEqual(library.ghl_status_name(code).decode(), name)

    def test_versions_match(self) -> None:
        (version,) = re.findall(r'#define GHL_OAUTH_VERSION "(.*)"', self.header)
        self.assertEqual(ghl_oauth.library_version(), version)
        self.assertEqual(ghl_oauth.__version__, version)
        self.assertGreaterEqual(ghl_oauth.abi_version(), _library.ABI_VERSION)


class NamesTest(unittest.TestCase):
    def test_every_function_has_a_method(self) -> None:
        elsewhere = {
            "abi_version": "abi_version()",
            "version": "library_version()",
            "status_name": "GhlError.status",
            "string_free": "inside",
            "client_new": "Client()",
            "client_new_with_store": "Client()",
            "client_free": "Client.close",
            "client_cancel": "Client.cancel",
            "client_stats": "Client.stats",
            "client_metrics": "Client.metrics",
            "client_on_event": "Client.on_event",
            "set_log_callback": "logging",
            "oauth_installed_locations": "Client.installed_locations",
            "access_token_into": "Client.access_token",
            "access_token_try_into": "Client.access_token",
            "access_token_with": "Client.access_token",
            "call_cancel": "Client.cancel",
            "library_info": "library_info()",
            "token_refresh_with": "Client.token_refresh",
            "webhook_apply_with": "Client.webhook_apply",
        }
        for name in _library.SIGNATURES:
            method = name.replace("ghl_", "", 1)
            self.assertTrue(method in elsewhere or hasattr(ghl_oauth.Client, method), name)

    def test_public_names_are_exported_and_documented(self) -> None:
        for error in ghl_oauth.GhlError.__subclasses__():
            self.assertIn(error.__name__, ghl_oauth.__all__)
        for name in ghl_oauth.__all__:
            self.assertTrue(name == "__version__" or getattr(ghl_oauth, name).__doc__, name)
        for name, method in vars(ghl_oauth.Client).items():
            if not name.startswith("_"):
                self.assertTrue(method.__doc__, name)
