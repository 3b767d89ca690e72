"""Mock: a service with some of its members, for tests that need no more of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from durable_effect.context import Tag, key_name
from durable_effect.exit import Cause
from durable_effect.ops import FailCause

__all__ = ["Partial"]


class Partial:
    """Has the members that it was given; the others of the service can be named, but not used."""

    def __init__(self, key: object, members: Mapping[str, object]) -> None:
        self._key = key
        for name, member in members.items():
            self._refuse_unknown(name)
            setattr(self, name, member)

    def __getattr__(self, name: str) -> Any:
        self._refuse_unknown(name)
        return Missing(f"{key_name(self._key)}.{name} is not mocked: pass {name}= to Layer.mock")

    def _refuse_unknown(self, name: str) -> None:
        if name.startswith("__") or not (isinstance(self._key, Tag) or _has(self._key, name)):
            raise AttributeError(f"{key_name(self._key)} has no member {name}")


class Missing(FailCause):
    """Stands for an effect, or for a method that answers one; run, it is a defect."""

    __slots__ = ()

    def __init__(self, message: str) -> None:
        super().__init__(Cause.die(NotImplementedError(message)))

    def __call__(self, *args: object, **kwargs: object) -> Missing:
        """Answer the same, as a method would answer an effect."""
        return self


def _has(key: object, name: str) -> bool:
    return hasattr(key, name) or any(name in vars(cls).get("__annotations__", ()) for cls in type.mro(key))  # type: ignore[arg-type] # pyright: ignore
