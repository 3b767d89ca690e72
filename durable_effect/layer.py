"""Layer: how services are built, once, and released in reverse."""

from __future__ import annotations

from collections.abc import Callable, Generator
from functools import partial
from typing import Any, Generic, Never, cast, overload

from typing_extensions import TypeVar

from durable_effect.concurrency import for_each
from durable_effect.context import Env, Key, Need
from durable_effect.deferred import Deferred
from durable_effect.effect import Effect
from durable_effect.exit import Exit, Failure, Success
from durable_effect.mock import Partial
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
    WithFiber,
)
from durable_effect.runtime import Fiber, from_exit
from durable_effect.scope import Scope

Out = TypeVar("Out", contravariant=True)
E = TypeVar("E", covariant=True, default=Never)
R = TypeVar("R", covariant=True, default=Never)
T = TypeVar("T")
B = TypeVar("B")
C = TypeVar("C")
O1 = TypeVar("O1")
O2 = TypeVar("O2")
O3 = TypeVar("O3")
O4 = TypeVar("O4")
E1 = TypeVar("E1")
E2 = TypeVar("E2")
E3 = TypeVar("E3")
E4 = TypeVar("E4")
R1 = TypeVar("R1")
R2 = TypeVar("R2")
R3 = TypeVar("R3")
R4 = TypeVar("R4")
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
    def suspend(make: Callable[[], Layer[O1, E1, R1]]) -> Layer[O1, E1, R1]:
        """Make the layer only when it is built, once in a build."""
        return Layer(_memoised(lambda memo, scope: memo.get(make(), scope)))

    @overload
    @staticmethod
    def unwrap(make: Effect[Layer[O1, Never, Never], Never, Never]) -> Layer[O1]: ...
    @overload
    @staticmethod
    def unwrap(  # type: ignore[overload-overlap] # what has neither is taken by the overload before
        make: Effect[Layer[O1, Never, R2], Never, R1],
    ) -> Layer[O1, Never, R1 | R2]: ...
    @overload
    @staticmethod
    def unwrap(make: Effect[Layer[O1, E2, Never], E1, Never]) -> Layer[O1, E1 | E2]: ...
    @overload
    @staticmethod
    def unwrap(make: Effect[Layer[O1, E2, R2], E1, R1]) -> Layer[O1, E1 | E2, R1 | R2]: ...
    @staticmethod
    def unwrap(make: Effect[Layer[Any, Any, Any], Any, Any]) -> Layer[Any, Any, Any]:
        """Build the layer that an effect answers."""
        return Layer(_memoised(lambda memo, scope: FlatMap(make, lambda layer: memo.get(layer, scope))))

    @staticmethod
    def mock(key: Key[T], /, **members: object) -> Layer[Need[T]]:
        """Provide a service for a test that has only these members; using another one is a defect."""
        return Layer.succeed(cast("Key[Any]", key), Partial(key, members))

    @overload
    @staticmethod
    def merge_all(one: Layer[O1, Never, Never], two: Layer[O2, Never, Never], /) -> Layer[O1 | O2]: ...
    @overload
    @staticmethod
    def merge_all(  # type: ignore[overload-overlap] # layers without needs are taken by the overload before
        one: Layer[O1, Never, R1], two: Layer[O2, Never, R2], /
    ) -> Layer[O1 | O2, Never, R1 | R2]: ...
    @overload
    @staticmethod
    def merge_all(one: Layer[O1, E1, Never], two: Layer[O2, E2, Never], /) -> Layer[O1 | O2, E1 | E2]: ...
    @overload
    @staticmethod
    def merge_all(one: Layer[O1, E1, R1], two: Layer[O2, E2, R2], /) -> Layer[O1 | O2, E1 | E2, R1 | R2]: ...
    @overload
    @staticmethod
    def merge_all(
        one: Layer[O1, Never, Never], two: Layer[O2, Never, Never], three: Layer[O3, Never, Never], /
    ) -> Layer[O1 | O2 | O3]: ...
    @overload
    @staticmethod
    def merge_all(  # type: ignore[overload-overlap] # layers without needs are taken by the overload before
        one: Layer[O1, Never, R1], two: Layer[O2, Never, R2], three: Layer[O3, Never, R3], /
    ) -> Layer[O1 | O2 | O3, Never, R1 | R2 | R3]: ...
    @overload
    @staticmethod
    def merge_all(
        one: Layer[O1, E1, Never], two: Layer[O2, E2, Never], three: Layer[O3, E3, Never], /
    ) -> Layer[O1 | O2 | O3, E1 | E2 | E3]: ...
    @overload
    @staticmethod
    def merge_all(
        one: Layer[O1, E1, R1], two: Layer[O2, E2, R2], three: Layer[O3, E3, R3], /
    ) -> Layer[O1 | O2 | O3, E1 | E2 | E3, R1 | R2 | R3]: ...
    @overload
    @staticmethod
    def merge_all(
        one: Layer[O1, Never, Never],
        two: Layer[O2, Never, Never],
        three: Layer[O3, Never, Never],
        four: Layer[O4, Never, Never],
        /,
    ) -> Layer[O1 | O2 | O3 | O4]: ...
    @overload
    @staticmethod
    def merge_all(  # type: ignore[overload-overlap] # layers without needs are taken by the overload before
        one: Layer[O1, Never, R1],
        two: Layer[O2, Never, R2],
        three: Layer[O3, Never, R3],
        four: Layer[O4, Never, R4],
        /,
    ) -> Layer[O1 | O2 | O3 | O4, Never, R1 | R2 | R3 | R4]: ...
    @overload
    @staticmethod
    def merge_all(
        one: Layer[O1, E1, Never],
        two: Layer[O2, E2, Never],
        three: Layer[O3, E3, Never],
        four: Layer[O4, E4, Never],
        /,
    ) -> Layer[O1 | O2 | O3 | O4, E1 | E2 | E3 | E4]: ...
    @overload
    @staticmethod
    def merge_all(
        one: Layer[O1, E1, R1], two: Layer[O2, E2, R2], three: Layer[O3, E3, R3], four: Layer[O4, E4, R4], /
    ) -> Layer[O1 | O2 | O3 | O4, E1 | E2 | E3 | E4, R1 | R2 | R3 | R4]: ...
    @overload
    @staticmethod
    def merge_all(*layers: Layer[O1, E1, R1]) -> Layer[O1, E1, R1]: ...
    @staticmethod
    def merge_all(*layers: Layer[Any, Any, Any]) -> Layer[Any, Any, Any]:
        """Provide the services of all these layers, built at once; a later one wins where two have one.

        The checkers know up to four layers of different kinds; for more, merge again.
        """
        return _beside(layers)

    def merge(self, other: Layer[O2, E2, R2], /) -> Layer[Out | O2, E | E2, R | R2]:
        """Provide the services of both layers, built at once; the other one wins where both have one."""
        return _beside((self, other))

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
        return WithFiber(lambda fiber: FlatMap(Service(Scope), partial(_memo_of(fiber).get, self)))

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
        return Gen(self._once, (build, scope))

    def _once(self, build: Build, scope: Scope) -> Generator[Any, Any, Env]:
        built = self._built.get(build)
        begun = built is not None
        if built is None:
            built = self._built[build] = _Built()
        built.users += 1
        scope.attach(partial(self._release, build, built))
        if begun:
            return (yield from built.outcome.await_())
        env: Env = yield from OnExit(build(self, built.scope), partial(self._ended, build, built))
        return env

    def _ended(self, build: Build, built: _Built, outcome: Exit[Env, Any]) -> AnyEffect:
        """Tell the others who wait for it; nobody gets to see a failed one later."""
        told = built.outcome.complete_with(from_exit(outcome))
        if isinstance(outcome, Success):
            return told
        self._forget(build, built)
        return OnExit(built.scope.close(outcome), lambda _: told)

    def _release(self, build: Build, built: _Built, outcome: Exit[Any, Any]) -> AnyEffect:
        built.users -= 1
        if built.users:
            return VOID
        self._forget(build, built)
        return built.scope.close(outcome)

    def _forget(self, build: Build, built: _Built) -> None:
        if self._built.get(build) is built:
            del self._built[build]


class _Built:
    """One layer under way or done, and how many scopes use it."""

    __slots__ = ("outcome", "scope", "users")

    def __init__(self) -> None:
        self.outcome = Deferred[Env, Any]()
        self.scope = Scope()
        self.users = 0


def _memo_of(fiber: Fiber[Any, Any], local: bool = False) -> Memo:
    """Answer what the `provide`s around have built, so that this one shares it; a new one if `local`."""
    around: Memo | None = None if local else fiber.env.services.get(Memo)
    return Memo() if around is None else around


def _constant(env: Env) -> Layer[Any, Any, Any]:
    return Layer(lambda memo, scope: Succeed(env), env)


def _memoised(build: Build) -> Build:
    return lambda memo, scope: memo.once(build, scope)


def _beside(layers: tuple[Layer[Any, Any, Any], ...]) -> Layer[Any, Any, Any]:
    """Build layers at once, and release them at once."""
    constants = [layer.constant for layer in layers if layer.constant is not None]
    if len(constants) == len(layers):
        return _constant(_joined(constants))
    return Layer(
        lambda memo, scope: FlatMap(
            scope.fork(parallel=True),
            lambda shared: Map(_each(layers, lambda one: memo.get(one, shared)), _joined),
        )
    )


def _each(
    layers: tuple[Layer[Any, Any, Any], ...], build: Callable[[Layer[Any, Any, Any]], AnyEffect]
) -> AnyEffect:
    return for_each(layers, build, "unbounded", False)


def _joined(envs: list[Env]) -> Env:
    joined = Env()
    for env in envs:
        joined = joined.merge(env)
    return joined


def provide_to_layer(layer: Layer[Any, Any, Any], dependency: Layer[Any, Any, Any]) -> Layer[Any, Any, Any]:
    """Build `layer` with the services of `dependency`."""
    return Layer(
        lambda memo, scope: FlatMap(
            memo.get(dependency, scope), lambda given: ProvideServices(memo.get(layer, scope), given)
        )
    )


def provide_layer(effect: AnyEffect, layer: Layer[Any, Any, Any], local: bool = False) -> AnyEffect:
    """Run with a layer's services and release them afterwards."""
    if layer.constant is not None:
        return ProvideServices(effect, layer.constant)

    def run(fiber: Fiber[Any, Any]) -> AnyEffect:
        scope, memo = Scope(), _memo_of(fiber, local)
        built = ProvideServices(memo.get(layer, scope), Env({Memo: memo}))
        return OnExit(FlatMap(built, lambda env: ProvideServices(effect, env.add(Memo, memo))), scope.close)

    return WithFiber(run)
