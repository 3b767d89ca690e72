"""Operations that are methods and functions at once: `effect.fork()` and `Effect.fork(effect)`.

At run time these are ordinary methods. A type checker that looks an ordinary method up on the class `Effect`
fills in the class's own type parameters before it sees the argument; so for the checkers each of them is a
descriptor, which says what it is on the class and what on an effect.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Never, Protocol, overload

from typing_extensions import TypeVar

from durable_effect.context import Need
from durable_effect.exit import Exit

if TYPE_CHECKING:
    from durable_effect.effect import Effect
    from durable_effect.runtime import Fiber
    from durable_effect.scope import Scope

A1 = TypeVar("A1")
A2 = TypeVar("A2")
E1 = TypeVar("E1")
E2 = TypeVar("E2")
R1 = TypeVar("R1")
R2 = TypeVar("R2")


class Run(Protocol):
    """Runs an effect that needs nothing, and answers its value."""

    @overload
    def __get__(self, effect: None, owner: Any, /) -> Run: ...
    @overload
    def __get__(self, effect: Effect[A1, Any, Never], owner: Any, /) -> Callable[[], A1]: ...
    def __call__(self, effect: Effect[A1, Any, Never], /) -> A1:
        """Run it."""
        ...


class RunExit(Protocol):
    """Runs an effect that needs nothing, and answers how it ended."""

    @overload
    def __get__(self, effect: None, owner: Any, /) -> RunExit: ...
    @overload
    def __get__(self, effect: Effect[A1, E1, Never], owner: Any, /) -> Callable[[], Exit[A1, E1]]: ...
    def __call__(self, effect: Effect[A1, E1, Never], /) -> Exit[A1, E1]:
        """Run it."""
        ...


class RunAsyncExit(Protocol):
    """Makes a coroutine of an effect that needs nothing."""

    @overload
    def __get__(self, effect: None, owner: Any, /) -> RunAsyncExit: ...
    @overload
    def __get__(
        self, effect: Effect[A1, E1, Never], owner: Any, /
    ) -> Callable[[], Coroutine[Any, Any, Exit[A1, E1]]]: ...
    def __call__(self, effect: Effect[A1, E1, Never], /) -> Coroutine[Any, Any, Exit[A1, E1]]:
        """Make the coroutine."""
        ...


class RunAsync(Protocol):
    """Makes a coroutine of an effect that needs nothing, for its value."""

    @overload
    def __get__(self, effect: None, owner: Any, /) -> RunAsync: ...
    @overload
    def __get__(
        self, effect: Effect[A1, Any, Never], owner: Any, /
    ) -> Callable[[], Coroutine[Any, Any, A1]]: ...
    def __call__(self, effect: Effect[A1, Any, Never], /) -> Coroutine[Any, Any, A1]:
        """Make the coroutine."""
        ...


class Forks(Protocol):
    """Starts a fiber."""

    @overload
    def __get__(self, effect: None, owner: Any, /) -> Forks: ...
    @overload
    def __get__(self, effect: Effect[A1, E1, R1], owner: Any, /) -> ForksOne[A1, E1, R1]: ...
    def __call__(
        self, effect: Effect[A1, E1, R1], /, *, start_immediately: bool = ...
    ) -> Effect[Fiber[A1, E1], Never, R1]:
        """Start it: when this fiber waits or ends; with `start_immediately` before this fiber goes on."""
        ...


class Races(Protocol):
    """Runs two effects at once."""

    @overload
    def __get__(self, effect: None, owner: Any, /) -> Races: ...
    @overload
    def __get__(self, effect: Effect[A1, E1, R1], owner: Any, /) -> RacesWith[A1, E1, R1]: ...
    # Without the first three, pyright makes `Unknown` of a union whose members are all `Never`.
    @overload
    def __call__(
        self, effect: Effect[A1, Never, Never], other: Effect[A2, Never, Never], /
    ) -> Effect[A1 | A2]: ...
    @overload
    def __call__(  # type: ignore[overload-overlap] # effects without needs are taken by the overload before
        self, effect: Effect[A1, Never, R1], other: Effect[A2, Never, R2], /
    ) -> Effect[A1 | A2, Never, R1 | R2]: ...
    @overload
    def __call__(
        self, effect: Effect[A1, E1, Never], other: Effect[A2, E2, Never], /
    ) -> Effect[A1 | A2, E1 | E2]: ...
    @overload
    def __call__(
        self, effect: Effect[A1, E1, R1], other: Effect[A2, E2, R2], /
    ) -> Effect[A1 | A2, E1 | E2, R1 | R2]: ...


A_co = TypeVar("A_co", covariant=True)
E_co = TypeVar("E_co", covariant=True)
R_co = TypeVar("R_co", covariant=True)


class ForksOne(Protocol[A_co, E_co, R_co]):
    """Starts this effect as a fiber."""

    def __call__(self, *, start_immediately: bool = ...) -> Effect[Fiber[A_co, E_co], Never, R_co]:
        """Start it: when this fiber waits or ends; with `start_immediately` before this fiber goes on."""
        ...


class RacesWith(Protocol[A_co, E_co, R_co]):
    """Runs an effect and another one at once."""

    def __call__(self, other: Effect[A2, E2, R2], /) -> Effect[A_co | A2, E_co | E2, R_co | R2]:
        """Run both."""
        ...


class Scopes(Protocol):
    """Gives a program a scope that closes when it ends."""

    @overload
    def __get__(self, effect: None, owner: Any, /) -> Scopes: ...
    @overload
    def __get__(self, effect: Effect[A1, E1, Need[Scope]], owner: Any, /) -> Callable[[], Effect[A1, E1]]: ...
    @overload
    def __get__(
        self, effect: Effect[A1, E1, Need[Scope] | R1], owner: Any, /
    ) -> Callable[[], Effect[A1, E1, R1]]: ...
    @overload
    def __call__(self, effect: Effect[A1, E1, Need[Scope]], /) -> Effect[A1, E1]: ...
    @overload
    def __call__(self, effect: Effect[A1, E1, Need[Scope] | R1], /) -> Effect[A1, E1, R1]: ...
