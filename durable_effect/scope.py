"""Scope: what must be released, and when."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import Any, TypeVar, overload

from durable_effect.concurrency import for_each
from durable_effect.context import Need
from durable_effect.edge import FromAsync
from durable_effect.effect import Effect
from durable_effect.exit import Cause, Exit, Success, all_void
from durable_effect.ops import (
    VOID,
    AnyEffect,
    FailCause,
    FlatMap,
    Gen,
    Interruptibility,
    Map,
    OnExit,
    Provide,
    Service,
    Succeed,
    Suspend,
    Sync,
    WithFiber,
)
from durable_effect.runtime import Fiber, from_exit

A = TypeVar("A")
E = TypeVar("E")
R = TypeVar("R")
Finalizer = Callable[[Exit[Any, Any]], Effect[Any, Any, Any]]


class Scope:
    """Finalizers, run in reverse order when the scope is closed; all at once in a `parallel` one.

    A service: `Need[Scope]`.
    """

    __slots__ = ("_closed", "_finalizers", "_parallel", "_parent")

    def __init__(self, parallel: bool = False) -> None:
        self._parallel = parallel
        self._finalizers: dict[object, Finalizer] = {}
        self._closed: Exit[Any, Any] | None = None
        self._parent: tuple[Scope, object] | None = None

    @staticmethod
    def make(*, parallel: bool = False) -> Effect[Scope]:
        """Make an open scope. Whoever makes one closes it."""
        return Sync(lambda: Scope(parallel))

    def add_finalizer(self, finalizer: Callable[[Exit[Any, Any]], Effect[object]]) -> Effect[None]:
        """Have `finalizer(exit)` run when the scope is closed; in a closed scope it runs at once."""

        def add() -> Effect[Any]:
            if self._closed is not None:
                return finalizer(self._closed)
            self.attach(finalizer)
            return VOID

        return Map(Suspend(add), _nothing)

    def attach(self, finalizer: Finalizer) -> object:
        """Add a finalizer to an open scope; answers what `detach` takes."""
        key = object()
        self._finalizers[key] = finalizer
        return key

    def detach(self, key: object) -> None:
        """Forget a finalizer."""
        self._finalizers.pop(key, None)

    def keep_fiber(self, fiber: Fiber[A, E], by: int) -> Fiber[A, E]:
        """Interrupt the fiber when this scope closes; in a closed one at once, in the name of fiber `by`.

        The fiber that closes the scope is not interrupted by that.
        """
        if self._closed is not None:
            fiber.request_interrupt(by)
            return fiber
        key = self.attach(lambda _: WithFiber(lambda me: VOID if me is fiber else fiber.interrupt()))
        fiber.observe(lambda _: self.detach(key))
        return fiber

    @property
    def is_closed(self) -> bool:
        """Whether the scope has been closed."""
        return self._closed is not None

    def fork(self, *, parallel: bool = False) -> Effect[Scope]:
        """Make a scope that is closed with this one, in its place among the finalizers, or earlier."""

        def make() -> Effect[Scope]:
            child = Scope(parallel)
            if self._closed is not None:
                return Map(child.close(self._closed), lambda _: child)
            child._parent = (self, self.attach(child.close))
            return Succeed(child)

        return Suspend(make)

    def close(self, outcome: Exit[Any, Any]) -> Effect[None]:
        """Run the finalizers: the last one first, and the next when that has ended, or all at once.

        One that fails does not stop the others; the causes of all that fail are answered.
        """
        return Interruptibility(Gen(self._close, (outcome,)), interruptible=False)

    def _close(self, outcome: Exit[Any, Any]) -> Generator[Any, Any, None]:
        if self._closed is not None:
            return
        self._closed = outcome
        if self._parent is not None:
            self._parent[0].detach(self._parent[1])
        exits: list[Exit[Any, Any]] = []
        while self._finalizers:
            if self._parallel:
                exits += yield from _all_exits(self._take_all(), outcome)
            else:
                _, finalizer = self._finalizers.popitem()
                exits.append((yield from _exit_of(finalizer, outcome)))
        yield from from_exit(all_void(exits))

    def _take_all(self) -> list[Finalizer]:
        finalizers, self._finalizers = self._finalizers, {}
        return list(reversed(finalizers.values()))

    @overload
    def extend(self, effect: Effect[A, E, Need[Scope]]) -> Effect[A, E]: ...
    @overload
    def extend(self, effect: Effect[A, E, Need[Scope] | R]) -> Effect[A, E, R]: ...
    def extend(self, effect: Effect[Any, Any, Any]) -> Effect[Any, Any, Any]:
        """Run an effect with this scope, which stays open afterwards."""
        return Provide(effect, lambda env: env.add(Scope, self))

    @overload
    def use(self, effect: Effect[A, E, Need[Scope]]) -> Effect[A, E]: ...
    @overload
    def use(self, effect: Effect[A, E, Need[Scope] | R]) -> Effect[A, E, R]: ...
    def use(self, effect: Effect[Any, Any, Any]) -> Effect[Any, Any, Any]:
        """Run an effect with this scope, and close it afterwards."""
        return OnExit(self.extend(effect), self.close)


def _exit_of(finalizer: Finalizer, outcome: Exit[Any, Any]) -> AnyEffect:
    return Suspend(lambda: finalizer(outcome)).exit()


def _all_exits(finalizers: list[Finalizer], outcome: Exit[Any, Any]) -> AnyEffect:
    return for_each(finalizers, lambda finalizer: _exit_of(finalizer, outcome), "unbounded", False)


def _nothing(_: object) -> None:
    return None


def scoped(effect: AnyEffect) -> AnyEffect:
    """Run with a new scope and close it at the end."""

    def run() -> AnyEffect:
        scope = Scope()
        return OnExit(Provide(effect, lambda env: env.add(Scope, scope)), scope.close)

    return Suspend(run)


def add_finalizer(finalizer: Finalizer) -> AnyEffect:
    """Add a finalizer to the scope around; it will see the services that are there now."""
    return FlatMap(
        Service(Scope),
        lambda scope: WithFiber(
            lambda fiber: scope.add_finalizer(_with_services(finalizer, fiber)),
        ),
    )


def _with_services(finalizer: Finalizer, fiber: Fiber[Any, Any]) -> Finalizer:
    env = fiber.env
    return lambda outcome: Provide(Suspend(lambda: finalizer(outcome)), lambda _: env)


def acquire_release(
    acquire: AnyEffect, release: Callable[[Any], AnyEffect], interruptible: bool
) -> AnyEffect:
    """Acquire without interruption, unless told otherwise, and leave the release to the scope around."""
    if not interruptible:
        return _acquire(acquire, lambda resource, _: release(resource))
    return Effect.uninterruptible_mask(
        lambda restore: _acquire(restore(acquire), lambda resource, _: release(resource))
    )


def _acquire(acquire: AnyEffect, release: Callable[[Any, Exit[Any, Any]], AnyEffect]) -> AnyEffect:
    def keep(resource: Any) -> AnyEffect:
        return Map(add_finalizer(lambda outcome: release(resource, outcome)), lambda _: resource)

    # The scope is looked up first: without one nothing is acquired that nobody would release.
    return Interruptibility(FlatMap(Service(Scope), lambda _: FlatMap(acquire, keep)), interruptible=False)


def from_context_manager(make: Callable[[], AbstractContextManager[Any]]) -> AnyEffect:
    """Enter a context manager; the scope around leaves it."""

    def enter() -> tuple[AbstractContextManager[Any], Any]:
        manager = make()
        return manager, manager.__enter__()

    def leave(entered: tuple[AbstractContextManager[Any], Any], outcome: Exit[Any, Any]) -> AnyEffect:
        return Sync(lambda: entered[0].__exit__(*_exc_info(outcome)))

    return Map(_acquire(Sync(enter), leave), lambda entered: entered[1])


def from_async_context_manager(make: Callable[[], AbstractAsyncContextManager[Any]]) -> AnyEffect:
    """Enter an async context manager; the scope around leaves it."""

    async def enter() -> tuple[AbstractAsyncContextManager[Any], Any]:
        manager = make()
        return manager, await manager.__aenter__()

    def leave(entered: tuple[AbstractAsyncContextManager[Any], Any], outcome: Exit[Any, Any]) -> AnyEffect:
        return FromAsync(lambda: entered[0].__aexit__(*_exc_info(outcome)), _die)

    return Map(_acquire(FromAsync(enter, _die), leave), lambda entered: entered[1])


def _die(raised: Exception) -> AnyEffect:
    return FailCause(Cause.die(raised))


def _exc_info(outcome: Exit[Any, Any]) -> tuple[Any, Any, Any]:
    if isinstance(outcome, Success):
        return None, None, None
    raised = outcome.cause.squash()
    return type(raised), raised, raised.__traceback__


def fork_in(effect: AnyEffect, scope: Scope) -> AnyEffect:
    """Start a fiber that the scope interrupts when it is closed."""

    def start(me: Fiber[Any, Any]) -> AnyEffect:
        fiber: Fiber[Any, Any] = me.runtime.start(effect, me.env)
        return Succeed(scope.keep_fiber(fiber, me.id))

    return WithFiber(start)
