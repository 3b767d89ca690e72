"""ManagedRuntime: the services of a layer, built once, for many programs that are run from plain Python."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Generic, Self

from typing_extensions import TypeVar

from durable_effect.cached import cached
from durable_effect.context import Env
from durable_effect.edge import run_async_exit, run_fork, run_sync_exit
from durable_effect.effect import Effect
from durable_effect.exit import Exit, Success
from durable_effect.layer import Layer, Memo
from durable_effect.ops import FlatMap, ProvideServices, Suspend
from durable_effect.runtime import Fiber
from durable_effect.scope import Scope

__all__ = ["ManagedRuntime"]

Out = TypeVar("Out", contravariant=True)
E = TypeVar("E", covariant=True)
A1 = TypeVar("A1")
E1 = TypeVar("E1")


CLOSED = Effect.die("this ManagedRuntime is closed: make a new one")


class ManagedRuntime(Generic[Out, E]):
    """Runs programs with the services of a layer, which are built for the first one and kept until `close`.

    ```python
    with ManagedRuntime(app_layer) as runtime:
        runtime.run_sync(program)
    ```

    A layer that needs asyncio, and its release, go with `async with` and `run_async`.
    """

    __slots__ = ("_env", "_scope")

    def __init__(self, layer: Layer[Out, E]) -> None:
        self._scope = Scope()
        memo = Memo()
        build = Suspend(lambda: memo.get(layer, self._scope))
        self._env: Effect[Env, E] = Effect.run_sync(cached(build, None))[0]

    def env(self) -> Effect[Env, E]:
        """Answer the services, built if they are not yet."""
        return Suspend(lambda: CLOSED if self._scope.is_closed else self._env)

    def provide(self, effect: Effect[A1, E1, Out]) -> Effect[A1, E | E1]:
        """Answer the effect with the services given to it; they outlive it."""
        return FlatMap(self.env(), lambda env: ProvideServices(effect, env))

    def run_sync(self, effect: Effect[A1, Any, Out]) -> A1:
        """Run it here and now. Errors, those of the build too, are raised as by `Effect.run_sync`."""
        return self.run_sync_exit(effect).get()

    def run_sync_exit(self, effect: Effect[A1, E1, Out]) -> Exit[A1, E | E1]:
        """Run it here and now and answer how it ended."""
        return run_sync_exit(self.provide(effect))

    async def run_async(self, effect: Effect[A1, Any, Out]) -> A1:
        """Run it on the running asyncio loop."""
        return (await self.run_async_exit(effect)).get()

    async def run_async_exit(self, effect: Effect[A1, E1, Out]) -> Exit[A1, E | E1]:
        """Run it on the running asyncio loop and answer how it ended."""
        return await run_async_exit(self.provide(effect))

    def run_fork(self, effect: Effect[A1, E1, Out]) -> Fiber[A1, E | E1]:
        """Start it on the running asyncio loop and answer its fiber, without waiting."""
        return run_fork(self.provide(effect))

    def close(self) -> Effect[None]:
        """Release the services. Programs that are run later die."""
        return self._scope.close(Success(None))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, raised: BaseException | None, traceback: TracebackType | None
    ) -> None:
        Effect.run_sync(self.close())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, raised: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()
