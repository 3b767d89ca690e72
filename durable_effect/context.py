"""Services: how a program names what it needs, and the environment that holds what it was given."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Generic, TypeVar, cast

from typing_extensions import TypeAliasType

from durable_effect.errors import MissingServiceError

T = TypeVar("T")
_Missing: Any = object()


class Need(Generic[T]):
    """Marks in `R` that a program needs the service `T`.

    Invariant, so that two services never stand for each other only because one is a subtype of the other.
    """

    __slots__ = ()


class Tag(Generic[T]):
    """A service key for things that have no class of their own: `ApiUrl = Tag[str]("ApiUrl")`."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f"Tag({self.name})"


class Reference(Tag[T]):
    """A service that always exists: without one provided, `default` is used, so it adds nothing to `R`."""

    __slots__ = ("default",)

    def __init__(self, name: str, default: T) -> None:
        super().__init__(name)
        self.default = default


Key = TypeAliasType("Key", type[T] | Tag[T], type_params=(T,))
"""What names a service: a class, a Protocol, an ABC or a `Tag`."""


def key_name(key: object) -> str:
    """Name a service key for people."""
    return str(getattr(key, "__qualname__", None) or getattr(key, "name", None) or repr(key))


class Env:
    """The services a fiber can see. Immutable: `add` and `merge` answer a new one."""

    __slots__ = ("services",)

    def __init__(self, services: dict[Any, Any] | None = None) -> None:
        self.services: dict[Any, Any] = {} if services is None else services

    @staticmethod
    def of(key: Key[T], value: T) -> Env:
        """Make an environment with one service in it."""
        return Env({key: value})

    def get(self, key: Key[T]) -> T:
        """Look a service up; a missing one raises `MissingServiceError`, unless the key has a default."""
        value: T = self.get_or(key, _Missing)
        if value is _Missing:
            raise MissingServiceError((key_name(key),))
        return value

    def get_or(self, key: Key[T], default: T) -> T:
        """Look a service up, or answer its own default, or else `default`."""
        value = self.services.get(key, _Missing)
        if value is not _Missing:
            return cast(T, value)
        return key.default if isinstance(key, Reference) else default

    def add(self, key: Key[T], value: T) -> Env:
        """Make an environment that has this service too, in place of an earlier one for the same key."""
        return Env({**self.services, key: value})

    def merge(self, other: Env) -> Env:
        """Make an environment with the services of both; `other` wins where both have one."""
        return Env({**self.services, **other.services})

    def __contains__(self, key: object) -> bool:
        return key in self.services

    def __iter__(self) -> Iterator[Any]:
        return iter(self.services)

    def __len__(self) -> int:
        return len(self.services)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Env) and self.services == other.services

    __hash__ = None  # type: ignore[assignment] # pyright: ignore[reportAssignmentType] - unhashable content

    def __repr__(self) -> str:
        return f"Env({', '.join(sorted(key_name(key) for key in self.services))})"
