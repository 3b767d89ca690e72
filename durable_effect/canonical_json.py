"""Canonical JSON: one text for one value, and a reader that refuses what could be read in two ways.

What is written: ASCII (everything else escaped), keys sorted, no spaces, finite numbers. Equal values are
equal bytes. What is refused when reading: NaN and infinities, numbers beyond the range of a float, ints of
more than 4,300 digits, repeated keys, invalid UTF-8, lone surrogates (escaped or not), text after the value,
and data that is too large or nested too deeply. All of it is a `SchemaError` named "JSON"; a problem of the
text as a whole is at the path `$`.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any, Final, NoReturn

from durable_effect.schema.problem import Problem, SchemaError
from durable_effect.schema.shapes import JsonValue

__all__ = ["from_json_bytes", "to_json_bytes"]

MAX_INT_DIGITS: Final = 4300
"""The most digits of an int, in either direction: Python's own limit, which keeps the conversion cheap."""

_TOO_DEEP: Final = "nested too deeply"
# A string is skipped as a whole; what is left are the brackets that nest.
_BRACKETS: Final = re.compile(r'"(?:[^"\\]|\\.)*+"?|([\[{])|([\]}])', re.DOTALL)


def to_json_bytes(encoded: JsonValue) -> bytes:
    """The one text of an encoded value. Raises `SchemaError` for what JSON cannot say.

    It trusts `Schema.encode` for the rest: pass what a schema encoded.
    """
    try:
        text = _ENCODER.encode(encoded)
    except RecursionError:
        raise refused(_TOO_DEEP) from None
    except (TypeError, ValueError) as error:
        raise refused(f"cannot be written as JSON ({type(error).__name__})") from None
    check_surrogates(text, encoded)
    return text.encode("ascii")


def from_json_bytes(data: bytes, *, max_bytes: int, max_depth: int = 64) -> JsonValue:
    """The value that a JSON text stands for. Raises `SchemaError` unless the text is strict JSON within the
    limits.

    `max_bytes` is the longest text that is looked at, `max_depth` how many arrays and objects may enclose a
    value.
    """
    if len(data) > max_bytes:
        raise refused(f"{len(data):,} bytes, more than the limit of {max_bytes:,}")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise refused(f"not UTF-8 at byte {error.start}") from None
    check_depth(text, max_depth)
    try:
        value: JsonValue = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise refused(f"not JSON: {error.msg} at character {error.pos}") from None
    except RecursionError:
        raise refused(_TOO_DEEP) from None
    check_surrogates(text, value)
    return value


def check_depth(text: str, max_depth: int) -> None:
    """Refuse nesting beyond `max_depth` before anything is built."""
    if text.count("[") + text.count("{") <= max_depth:
        return  # too few brackets, wherever they are
    depth = 0
    for match in _BRACKETS.finditer(text):
        depth += (match[1] is not None) - (match[2] is not None)
        if depth > max_depth:
            raise refused(f"nested deeper than {max_depth}")


def check_surrogates(text: str, value: JsonValue) -> None:
    """Refuse half a character. Only an escape can bring one in: UTF-8 has no bytes for it."""
    if "\\u" not in text:
        return
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        raise refused("a lone surrogate in a text") from None


def refused(problem: str) -> SchemaError:
    """What is wrong with the text as a whole."""
    return SchemaError("JSON", (Problem("$", problem),))


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    entries = dict(pairs)
    if len(entries) < len(pairs):
        raise refused("a repeated key in an object")
    return entries


def _int(digits: str) -> int:
    if len(digits.lstrip("-")) > MAX_INT_DIGITS:
        raise refused(f"an int of more than {MAX_INT_DIGITS:,} digits")
    return int(digits)


def _float(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise refused("a number beyond the range of a float")
    return number


def _constant(name: str) -> NoReturn:
    raise refused(f"{name} is not JSON")


# Kept, both of them: `json.dumps` with options makes a new encoder for each value.
_ENCODER: Final = json.JSONEncoder(ensure_ascii=True, allow_nan=False, sort_keys=True, separators=(",", ":"))
_DECODER: Final = json.JSONDecoder(
    object_pairs_hook=_distinct, parse_int=_int, parse_float=_float, parse_constant=_constant
)
