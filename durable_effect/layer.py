"""Layer: how services are built, once, and released in reverse."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, Generic, Never, overload

from typing_extensions import TypeVar

from durable_effect.context import Env, Key, Need
from durable_effect.effect import Effect
from durable_effect.exit import Exit, Failure
from durable_effect.ops import (
    VOID,
    AnyEffect,
    FlatMap,
    Gen,
    Map,
    OnExit,
    ProvideServices,
    Service,
    Succeed,
    Suspend,
    Sync,
)
from durable_effect.scope import Scope

Out = TypeVar("Out", contravariant=True)
E = TypeVar("E", covariant=True, default=Never)
R = TypeVar("R", covariant=True, default=Never)
T = TypeVar("T")
B = TypeVar("B")
C = TypeVar("C")
O1 = TypeVar("O1")
O2 = TypeVar("O2")
E1 = TypeVar("E1")
E2 = TypeVar("E2")
R1 = TypeVar("R1")
R2 = TypeVar("R2")
Build = Callable[["Memo", Scope], Effect[Env, Any, Any]]


class Layer(Generic[Out, E, R]):
    """How to build the services in `Out`, which may fail with `E` and needs the services in `R`.

    A layer that occurs several times in what is built together is built once. What it acquires with
    `Need[Scope]` is released when the build's scope closes, in reverse order.
    """

    __slots__ = ("_build", "constant")

    def __init__(self, build: Build, constant: Env | None = None) -> None:
        self._build = build
        self.constant = constant

    @staticmethod
    def succeed(key: Key[T], service: T, /) -> Layer[Need[T]]:
        """Provide a service that exists already."""
        return _constant(Env({key: service}))

    @staticmethod
    def sync(key: Key[T], make: Callable[[], T], /) -> Layer[Need[T]]:
        """Provide a service made by a call."""
        return Layer.effect(key, Sync(make))

    @staticmethod
    def effect(key: Key[T], make: Effect[T, E1, R1], /) -> Layer[Need[T], E1, R1]:
        """Provide a service made by an effect."""
        return Layer(_memoised(lambda memo, scope: Map(make, lambda service: Env({key: service}))))

    @overload
    @staticmethod
    def scoped(key: Key[T], make: Effect[T, E1, Need[Scope]], /) -> Layer[Need[T], E1]: ...
    @overload
    @staticmethod
    def scoped(key: Key[T], make: Effect[T, E1, Need[Scope] | R1], /) -> Layer[Need[T], E1, R1]: ...
    @staticmethod
    def scoped(key: Key[Any], make: Effect[Any, Any, Any], /) -> Layer[Any, Any, Any]:
        """Provide a service made by an effect that acquires something; the layer releases it."""
        return Layer(
            _memoised(lambda memo, scope: Map(scope.extend(make), lambda service: Env({key: service})))
        )

    @overload
    @staticmethod
    def effect_discard(make: Effect[Any, E1, Need[Scope]], /) -> Layer[Never, E1]: ...
    @overload
    @staticmethod
    def effect_discard(make: Effect[Any, E1, Need[Scope] | R1], /) -> Layer[Never, E1, R1]: ...
    @staticmethod
    def effect_discard(make: Effect[Any, Any, Any], /) -> Layer[Any, Any, Any]:
        """Run something when the layer is built; it provides nothing."""
        return Layer(_memoised(lambda memo, scope: Map(scope.extend(make), lambda _: Env())))

    @staticmethod
    def empty() -> Layer[Never]:
        """Provide nothing."""
        return _constant(Env())

    @staticmethod
    def from_env(env: Env) -> Layer[Any]:
        """Provide all services of an environment."""
        return _constant(env)

    @staticmethod
    def merge_all(*layers: Layer[O1, E1, R1]) -> Layer[O1, E1, R1]:
        """Provide the services of all these layers; built in this order."""
        merged: Layer[Any, Any, Any] = Layer.empty()
        for layer in layers:
            merged = merged.merge(layer)
        return merged

    def merge(self, other: Layer[O2, E2, R2], /) -> Layer[Out | O2, E | E2, R | R2]:
        """Provide the services of both layers; this one is built first."""
        return Layer(lambda memo, scope: _both(memo.get(self, scope), memo.get(other, scope)))

    def provide(self, dependency: Layer[R, E2, R2], /) -> Layer[Out, E | E2, R2]:
        """Build `dependency` first and this layer with its services. It must provide all of `R`.

        To provide a part of `R`, use the function: `layer.pipe(provide(dependency))`.
        """
        return provide_to_layer(self, dependency)

    def provide_merge(self, dependency: Layer[O2, E2, R2], /) -> Layer[Out | O2, E | E2, R | R2]:
        """Build `dependency` first and this layer with its services, and provide the services of both."""
        return Layer(
            lambda memo, scope: FlatMap(
                memo.get(dependency, scope),
                lambda given: Map(ProvideServices(memo.get(self, scope), given), given.merge),
            )
        )

    def fresh(self) -> Layer[Out, E, R]:
        """Build it anew here, even if the same layer is built elsewhere too."""
        return Layer(lambda _, scope: Suspend(lambda: Memo().get(self, scope)))

    def catch_all(self, f: Callable[[E], Layer[O2, E2, R2]]) -> Layer[Out | O2, E2, R | R2]:
        """Build another layer after a typed error; what the failed one had acquired is released before."""
        return Layer(
            lambda memo, scope: memo.get(self, scope).catch_all(lambda error: memo.get(f(error), scope))
        )

    def or_die(self) -> Layer[Out, Never, R]:
        """Turn a typed error of the build into a defect."""
        return Layer(lambda memo, scope: memo.get(self, scope).or_die())

    def build(self) -> Effect[Env, E, R | Need[Scope]]:
        """Build the services in the scope around."""
        return FlatMap(Service(Scope), lambda scope: Suspend(lambda: Memo().get(self, scope)))

    def launch(self) -> Effect[Never, E, R]:
        """Build the services and keep them, until interrupted."""
        return provide_layer(Effect.never, self)

    @overload
    def pipe(self, ab: Callable[[Layer[Out, E, R]], B], /) -> B: ...
    @overload
    def pipe(self, ab: Callable[[Layer[Out, E, R]], B], bc: Callable[[B], C], /) -> C: ...
    def pipe(self, *fs: Callable[[Any], Any]) -> Any:
        """Apply functions, one after the other."""
        out: Any = self
        for f in fs:
            out = f(out)
        return out

    def run_build(self, memo: Memo, scope: Scope) -> Effect[Env, Any, Any]:
        """Build, for `Memo` alone."""
        return self._build(memo, scope)


class Memo:
    """What one build has built so far, by layer.

    A layer is released when the last scope that used it closes.
    """

    __slots__ = ("_built",)

    def __init__(self) -> None:
        self._built: dict[Build, _Built] = {}

    def get(self, layer: Layer[Any, Any, Any], scope: Scope) -> Effect[Env, Any, Any]:
        """Build the layer's services for `scope`; what was acquired is released at once if that fails."""
        if layer.constant is not None:
            return Succeed(layer.constant)

        def build(own: Scope) -> AnyEffect:
            return OnExit(
                layer.run_build(self, own),
                lambda outcome: own.close(outcome) if isinstance(outcome, Failure) else None,
            )

        return FlatMap(scope.fork(), build)

    def once(self, build: Build, scope: Scope) -> Effect[Env, Any, Any]:
        """Build once, and count the scopes that use it."""
        return Gen(self._once, (build, scope), {})

    def _once(self, build: Build, scope: Scope) -> Generator[Any, Any, Env]:
        built = self._built.get(build)
        if built is None:
            own = Scope()
            env = yield from OnExit(
                build(self, own), lambda outcome: own.close(outcome) if isinstance(outcome, Failure) else None
            )
            built = self._built[build] = _Built(env, own)
        built.users += 1
        scope.attach(lambda outcome: self._release(build, built, outcome))
        return built.env

    def _release(self, build: Build, built: _Built, outcome: Exit[Any, Any]) -> AnyEffect:
        built.users -= 1
        if built.users:
            return VOID
        del self._built[build]
        return built.scope.close(outcome)


class _Built:
    __slots__ = ("env", "scope", "users")

    def __init__(self, env: Env, scope: Scope) -> None:
        self.env = env
        self.scope = scope
        self.users = 0


def _constant(env: Env) -> Layer[Any, Any, Any]:
    return Layer(lambda memo, scope: Succeed(env), env)


def _memoised(build: Build) -> Build:
    return lambda memo, scope: memo.once(build, scope)


def _both(first: AnyEffect, second: AnyEffect) -> AnyEffect:
    return FlatMap(first, lambda a: Map(second, lambda b: a.merge(b)))


def provide_to_layer(layer: Layer[Any, Any, Any], dependency: Layer[Any, Any, Any]) -> Layer[Any, Any, Any]:
    """Build `layer` with the services of `dependency`."""
    return Layer(
        lambda memo, scope: FlatMap(
            memo.get(dependency, scope), lambda given: ProvideServices(memo.get(layer, scope), given)
        )
    )


def provide_layer(effect: AnyEffect, layer: Layer[Any, Any, Any]) -> AnyEffect:
    """Run with a layer's services and release them afterwards."""
    if layer.constant is not None:
        return ProvideServices(effect, layer.constant)

    def run() -> AnyEffect:
        scope = Scope()
        built = Memo().get(layer, scope)
        return OnExit(FlatMap(built, lambda env: ProvideServices(effect, env)), scope.close)

    return Suspend(run)
