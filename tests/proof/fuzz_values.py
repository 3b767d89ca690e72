"""What hostile callers send: ids, events, spans and the like, from dice, so that a seed repeats them."""

from __future__ import annotations

import datetime as dt
from collections import OrderedDict
from collections.abc import Callable
from decimal import Decimal
from functools import partial
from typing import Any

from durable_effect import Random

__all__ = ["CANARY", "NUMBERS", "TEXTS", "Hostile", "spoiled"]

CANARY = "c4n4ry-s3cr3t"
"""A secret in states and events, that must not turn up anywhere else."""


class _Liar(str):
    """Text that is equal to everything and says something else each time."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return 7

    def __str__(self) -> str:
        return "something else"


class _Bomb:
    """Raises whatever is asked of it."""

    def _raise(self, *_: object) -> Any:
        raise RuntimeError("boom")

    __str__ = __repr__ = __eq__ = __hash__ = __len__ = __iter__ = __bool__ = __index__ = __float__ = _raise  # type: ignore[assignment]
    __lt__ = __gt__ = __contains__ = __getitem__ = __call__ = _raise  # type: ignore[assignment]


class _Dict(dict[str, Any]):
    """A mapping whose views raise."""

    def items(self) -> Any:
        raise RuntimeError("boom")

    def __getitem__(self, key: str) -> Any:
        raise RuntimeError("boom")


class _Int(int):
    """A number that does not like to be compared."""

    def __lt__(self, other: object) -> bool:
        raise RuntimeError("boom")

    __gt__ = __le__ = __ge__ = __lt__


class _Text(str):
    """Text of no length."""

    __slots__ = ()

    def __len__(self) -> int:
        return 0


def _deep(depth: int, shape: str) -> Any:
    value: Any = 0
    for _ in range(depth):
        value = [value] if shape == "list" else {"in": value}
    return value


def _circle() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


TEXTS = (
    "",
    " ",
    "a",
    "a:b:c",
    "../../etc/passwd",
    "nul\0inside",
    "\ud800",
    "pair \ud83d half",
    "\u202eright to left",
    "\u0000",
    "\ufeff",
    "e\u0301 and \u00e9",
    "\U0001f9e8" * 10,
    "'; DROP TABLE instance; --",
    '" OR 1=1 --',
    "<script>alert(1)</script>",
    "%s %d {0} {x!r}",
    "x" * 512,
    "x" * 513,
    "\u00df" * 512,
    "line\nbreak\r\n\t",
    "\x7f\x1b[31m",
    "NULL",
    "0",
    "\u0661\u0662\u0663",
)

NUMBERS = (
    0,
    -1,
    1,
    2**31,
    2**53 + 1,
    2**63,
    -(2**63) - 1,
    10**400,
    10**4299,
    10**4301,
    0.0,
    -0.0,
    1e308,
    5e-324,
    float("nan"),
    float("inf"),
    float("-inf"),
    True,
    False,
    1 + 2j,
    Decimal("1.5"),
    Decimal("NaN"),
    _Int(3),
)

OBJECTS: tuple[Callable[[], Any], ...] = (
    lambda: None,
    object,
    _Bomb,
    lambda: _Bomb,
    lambda: _Liar("liar"),
    lambda: _Text("text"),
    lambda: _Dict(title="t"),
    lambda: OrderedDict(title="t"),
    list,
    dict,
    set,
    tuple,
    lambda: b"bytes",
    lambda: bytearray(b"bytes"),
    lambda: memoryview(b"bytes"),
    lambda: iter([1]),
    lambda: (n for n in ()),
    lambda: len,
    lambda: dt.datetime(2026, 1, 1),
    lambda: dt.datetime.max.replace(tzinfo=dt.UTC),
    lambda: dt.datetime.min.replace(tzinfo=dt.UTC),
    lambda: dt.timedelta.max,
    lambda: dt.timedelta.min,
    lambda: dt.timedelta(0),
    lambda: ...,
    lambda: RuntimeError("an exception"),
    _circle,
    partial(_deep, 63, "list"),
    partial(_deep, 65, "dict"),
    partial(_deep, 2_000, "list"),
    partial(_deep, 50_000, "dict"),
    lambda: {1: "a", "1": "b"},
    lambda: {None: 1},
    lambda: {("a",): 1},
    lambda: {"\ud800": 1},
    lambda: {"__class__": "x", "_tag": "Note"},
    lambda: type("Own", (dict,), {}),
)

SPANS = (
    "", "5", "5 minutes", "-5 minutes", "5 minute s", "1e999 s", "nan s", "inf h", "0 s", "0.0000001 ms",
    "99999999999 weeks", "5 fortnights", "5 m 3 s", "\u0665 minutes", "1_000 s", "+1 s", " 1 s ", "1\u00a0s",
    "1" * 5000 + " s", "1 s\0", "0x10 s", "1,5 s",
)  # fmt: skip

CRONS = (
    "* * * * *", "* * * * * *", "0 0 30 2 *", "0 0 31 4,6,9,11 *", "*/0 * * * *", "*/61 * * * *",
    "60 * * * *",
    "* * * *", "* * * * * * *", "R * * * *", "H * * * *", "@daily", "@reboot", "a b c d e", "1-0 * * * *",
    "0 0 29 2 1", "0 0 l * *", "0 0 L * *", "0 0 * * 5#6", "0 0 * * mon-sun", "0 0 1W * *", "? ? ? ? ?",
    ",".join("0" for _ in range(20_000)) + " * * * *", "\u0665 * * * *", "* * * * *\0", "-1 * * * *",
    "0 0 1 1 * ; rm", "*/1.5 * * * *", "", "     ", "0 0 * jan sun", "* * * * 8", "1,2,3-4/2 */2 * * *",
)  # fmt: skip

ZONES = (
    "UTC",
    "Europe/Berlin",
    "Nowhere/City",
    "",
    "../../etc/passwd",
    "\0",
    "utc\ud800",
    "Etc/GMT+14",
    "localtime",
)


class Hostile:
    """Draws values that nobody should send, and now and then one that is fine."""

    def __init__(self, seed: int) -> None:
        self.dice = Random.seeded(seed).source

    def anything(self) -> Any:
        """A value of any kind."""
        match self.dice.randrange(5):
            case 0:
                return self.dice.choice(TEXTS)
            case 1:
                return self.dice.choice(NUMBERS)
            case 2:
                return self.text()
            case 3:
                return self.json(3)
            case _:
                return self.dice.choice(OBJECTS)()

    def text(self) -> str:
        """Characters from all of Unicode."""
        return "".join(chr(self._character()) for _ in range(self.dice.randrange(12)))

    def _character(self) -> int:
        return self.dice.choice((self.dice.randrange(128), self.dice.randrange(0x110000), 0xD800, 0x202E, 0))

    def json(self, depth: int) -> Any:
        """Nested lists and objects of hostile leaves."""
        if depth == 0 or self.dice.randrange(3) == 0:
            return self.dice.choice((*TEXTS[:12], *NUMBERS[:12], None))
        if self.dice.randrange(2):
            return [self.json(depth - 1) for _ in range(self.dice.randrange(4))]
        return {self.text() or "k": self.json(depth - 1) for _ in range(self.dice.randrange(4))}

    def id(self) -> Any:
        """An id: one of a few good ones in two of three draws."""
        roll = self.dice.randrange(9)
        if roll < 6:
            return f"user-{roll}"
        return self.dice.choice(TEXTS) if roll < 8 else self.anything()

    def event_id(self) -> Any:
        """No event id, one that may be known already, or anything."""
        roll = self.dice.randrange(8)
        if roll < 5:
            return None
        return f"event-{self.dice.randrange(50)}" if roll < 7 else self.anything()

    def span(self) -> Any:
        """Something where a span is expected."""
        return self.dice.choice(SPANS) if self.dice.randrange(3) else self.anything()

    def cron(self) -> Any:
        """Something where a cron expression is expected."""
        match self.dice.randrange(4):
            case 0:
                return self.anything()
            case 1:
                fields = (
                    "*",
                    "0",
                    "*/5",
                    "1-5",
                    "L",
                    "60",
                    "mon",
                    "#",
                    "/",
                    "-",
                    "1,2",
                    "99999999999",
                    "jan-",
                )
                return " ".join(self.dice.choice(fields) for _ in range(self.dice.choice((4, 5, 5, 6, 7))))
            case _:
                return self.dice.choice(CRONS)

    def zone(self) -> Any:
        """Something where a time zone is expected."""
        return self.dice.choice(ZONES) if self.dice.randrange(3) else self.anything()

    def input(self) -> Any:
        """An event or input: good, with one member spoiled, or anything."""
        roll = self.dice.randrange(10)
        if roll == 0:
            return self.anything()
        note: dict[str, Any] = {"title": CANARY, "amount": 3, "ratio": 0.5, "tags": ["a"], "more": {"k": [1]}}
        if roll < 4:
            return note
        name = self.dice.choice((*note, "title", "unknown"))
        note[name] = self.anything()
        if roll == 9:
            del note[self.dice.choice(tuple(note))]
        if self.dice.randrange(400) == 0:
            note["title"] = CANARY + "x" * self.dice.choice((1 << 20, (1 << 20) - 200))
        return note


# -- stored bytes ----------------------------------------------------------------------------------


def spoiled(data: bytes, hostile: Hostile) -> bytes:
    """Stored bytes after an accident, or as somebody else would have written them."""
    dice = hostile.dice
    at = dice.randrange(len(data) + 1)
    match dice.randrange(14):
        case 0:
            return data[:at]
        case 1:
            return b""
        case 2:
            flipped = bytearray(data or b"\0")
            flipped[at % len(flipped)] ^= 1 << dice.randrange(8)
            return bytes(flipped)
        case 3:
            return data[:-1] + b',"amount":1,"amount":2}'
        case 4:
            return dice.choice(
                (b"null", b"[]", b"{}", b"0", b'"text"', b"true", b"NaN", b"-Infinity", b"1e999")
            )
        case 5:
            return b"[" * dice.choice((65, 3_000, 200_000))
        case 6:
            return b'{"a":' * 500 + b"1" + b"}" * 500
        case 7:
            return data[:at] + dice.randbytes(dice.randrange(1, 9)) + data[at:]
        case 8:
            return b"1" * 5_000
        case 9:
            return b'"\\ud800"'
        case 10:
            return data.replace(b":", dice.choice((b":[", b":null,", b"::", b":-")), 1)
        case 11:
            return data + data
        case 12:
            return dice.randbytes(dice.randrange(40))
        case _:
            return data.replace(
                b"3", dice.choice((b'"3"', b"3.5", b"-99999999999999999999", b"NaN", b"null"))
            )
