"""Effect: work as a value.

An `Effect[A, E, R]` describes work that yields an `A`, may fail with one of the errors in the union `E`, and
needs the services in the union `R`. It is immutable and may be run many times; nothing happens until it is
run.

Programs are written as do-blocks:

```python
@Effect.gen
def greet(user_id: str) -> Do[str, UserNotFound, Need[Users]]:
    users = yield from Effect.service(Users)
    user = yield from users.find(user_id)
    return f"hello {user.name}"
```

A typed error is raised in the do-block as itself, so `try`, `except`, `finally` and `with` work as ever. An
exception that user code raises is a defect: it is not in `E`, and only the `*_cause` and `exit` methods see
it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import Executor
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from datetime import timedelta
from functools import partial, wraps
from inspect import isasyncgenfunction, iscoroutinefunction
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, Never, NoReturn, ParamSpec, cast, overload

from returns.future import FutureResult
from returns.io import IOResult, IOSuccess
from returns.maybe import Maybe
from returns.maybe import Nothing as MaybeNothing
from returns.maybe import Some as MaybeSome
from returns.result import Failure as ResultFailure
from returns.result import Result
from returns.result import Success as ResultSuccess
from returns.unsafe import unsafe_perform_io
from typing_extensions import TypeAliasType, TypeVar

from durable_effect.context import Env, Key, Need, Reference
from durable_effect.dual import Forks, Races, Run, RunAsync, RunAsyncExit, RunExit, Scopes
from durable_effect.duration import Span, to_timedelta
from durable_effect.errors import EffectTimeout
from durable_effect.exit import Cause, Exit, Failure, Success

A = TypeVar("A", covariant=True)
E = TypeVar("E", covariant=True, default=Never)
R = TypeVar("R", covariant=True, default=Never)
A1 = TypeVar("A1")
A2 = TypeVar("A2")
A3 = TypeVar("A3")
A4 = TypeVar("A4")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")
F = TypeVar("F")
G = TypeVar("G")
K = TypeVar("K")
T = TypeVar("T")
E1 = TypeVar("E1")
E2 = TypeVar("E2")
E3 = TypeVar("E3")
E4 = TypeVar("E4")
R1 = TypeVar("R1")
R2 = TypeVar("R2")
R3 = TypeVar("R3")
R4 = TypeVar("R4")
P = ParamSpec("P")
Concurrency = int | Literal["unbounded"]


class Op(Generic[E, R]):
    """What a do-block yields, for the type checkers: the errors and needs of the effects in it."""

    __slots__ = ()


_DoA = TypeVar("_DoA")
_DoE = TypeVar("_DoE", default=Never)
_DoR = TypeVar("_DoR", default=Never)
Do = TypeAliasType("Do", Generator[Op[_DoE, _DoR], Any, _DoA], type_params=(_DoA, _DoE, _DoR))
"""The return annotation of a do-block: `Do[A]`, `Do[A, E]` or `Do[A, E, R]`."""


class Effect(Generic[A, E, R]):
    """Work that yields an `A`, may fail with an `E` and needs the services in `R`."""

    __slots__ = ()

    void: ClassVar[Always[None]]
    """The effect that does nothing. `Effect.void()` is the same."""
    never: ClassVar[Always[Never]]
    """The effect that never ends, until it is interrupted. `Effect.never()` is the same."""

    # ---- in do-blocks, in coroutines -----------------------------------------------------------------------

    def __iter__(self) -> Generator[Op[E, R], Any, A]:
        """Run it inside a do-block: `value = yield from effect`."""
        # The tuple tells the interpreter from a bare `yield`. Every bounce passes here: no `cast`.
        asked: Any = (self,)
        answer: A = yield asked
        return answer

    def __await__(self: Effect[A1, Any, Never]) -> Generator[Any, Any, A1]:
        """Run it on the running asyncio loop: `value = await effect`. Errors are raised as by `run_sync`."""
        return _run_async(self).__await__()

    def __bool__(self) -> NoReturn:
        raise TypeError("an Effect has no truth value: did you forget `yield from`?")

    if not TYPE_CHECKING:  # a type checker would believe that every attribute is there

        def __getattr__(self, name: str) -> NoReturn:
            raise AttributeError(f"an Effect has no attribute {name!r}: did you forget `yield from`?")

    # ---- making effects ------------------------------------------------------------------------------------

    @staticmethod
    def succeed(value: A1) -> Effect[A1]:
        """End with this value."""
        return Succeed(value)

    @staticmethod
    def fail(error: E1) -> Effect[Never, E1]:
        """Fail with this typed error. An exception's class in place of an exception is a `TypeError`."""
        if isinstance(error, type) and issubclass(error, BaseException):
            raise TypeError(f"an error is an instance, not a class: `Effect.fail({error.__name__}(...))`")
        return FailWith(error)

    @staticmethod
    def fail_sync(thunk: Callable[[], E1]) -> Effect[Never, E1]:
        """Fail with the typed error that `thunk` makes when this is run."""
        return Suspend(lambda: FailWith(thunk()))

    @staticmethod
    def fail_cause(cause: Cause[E1]) -> Effect[Never, E1]:
        """Fail for these reasons."""
        return FailAgain(Failure(cause))

    @staticmethod
    def die(defect: object) -> Effect[Never]:
        """Fail with a defect: a bug, which no caller is expected to handle.

        A message becomes a `RuntimeError`.
        """
        raised = defect if isinstance(defect, BaseException) else RuntimeError(defect)
        return FailAgain(Failure(Cause.die(raised)))

    @staticmethod
    def interrupt() -> Effect[Never]:
        """Fail as if the work had been called off."""
        return WithFiber(lambda fiber: FailCause(Cause.interrupt(fiber.id)))

    @staticmethod
    def sync(thunk: Callable[[], A1]) -> Effect[A1]:
        """Call `thunk`. What it raises is a defect; use `attempt` for calls that are known to fail."""
        return Sync(thunk)

    @staticmethod
    def suspend(thunk: Callable[[], Effect[A1, E1, R1]]) -> Effect[A1, E1, R1]:
        """Make the effect only when it is run."""
        return Suspend(thunk)

    @overload
    @staticmethod
    def attempt(thunk: Callable[[], A1]) -> Effect[A1, Exception]: ...
    @overload
    @staticmethod
    def attempt(thunk: Callable[[], A1], catch: Callable[[Exception], E1]) -> Effect[A1, E1]: ...
    @staticmethod
    def attempt(
        thunk: Callable[[], Any], catch: Callable[[Exception], Any] | None = None
    ) -> Effect[Any, Any]:
        """Call `thunk`, and fail with what `catch` makes of the exception it raises; without it, with the
        exception.

        The new error's `__cause__` is the exception. What `catch` itself raises is a defect.
        """
        refail = _refail(catch or _itself)

        def call() -> Effect[Any, Any]:
            try:
                value = thunk()
            except Exception as raised:
                return refail(raised)
            return Succeed(value)

        return Suspend(call)

    @overload
    @staticmethod
    def from_async(make: Callable[[], Awaitable[A1]]) -> Effect[A1]: ...
    @overload
    @staticmethod
    def from_async(make: Callable[[], Awaitable[A1]], catch: Callable[[Exception], E1]) -> Effect[A1, E1]: ...
    @staticmethod
    def from_async(
        make: Callable[[], Awaitable[Any]], catch: Callable[[Exception], Any] | None = None
    ) -> Effect[Any, Any]:
        """Await what `make` answers, in an asyncio task of its own.

        An exception fails with what `catch` makes of it; without `catch` it is a defect. An interruption
        cancels the task and waits for its end. Effects that are awaited inside see the services and the clock
        around this one.
        """
        return FromAsync(make, _redie if catch is None else _refail(catch))

    @overload
    @staticmethod
    def from_thread(thunk: Callable[[], A1], *, executor: Executor | None = None) -> Effect[A1]: ...
    @overload
    @staticmethod
    def from_thread(
        thunk: Callable[[], A1], catch: Callable[[Exception], E1], *, executor: Executor | None = None
    ) -> Effect[A1, E1]: ...
    @staticmethod
    def from_thread(
        thunk: Callable[[], Any],
        catch: Callable[[Exception], Any] | None = None,
        *,
        executor: Executor | None = None,
    ) -> Effect[Any, Any]:
        """Call something that blocks, on a thread.

        A thread cannot be stopped: an interruption waits for its end.
        """

        def make() -> Awaitable[Any]:
            return asyncio.get_running_loop().run_in_executor(executor, thunk)

        return FromAsync(make, _redie if catch is None else _refail(catch)).uninterruptible()

    @staticmethod
    def async_(
        register: Callable[[Callable[[Effect[A1, E1, R1]], None]], Effect[object] | None],
    ) -> Effect[A1, E1, R1]:
        """Wait for a callback: `register(resume)` is called, and the effect goes on when `resume(effect)` is.

        `resume` may be called from any thread; only the first call counts. `register` may answer an effect
        that calls the operation off; it runs when the wait is interrupted.
        """
        return Callback(register)

    @staticmethod
    def from_result(result: Result[A1, E1]) -> Effect[A1, E1]:
        """Make an effect of a `returns.result.Result`."""
        if isinstance(result, ResultSuccess):
            return Succeed(result.unwrap())
        return FailWith(result.failure())

    @staticmethod
    def from_io_result(result: IOResult[A1, E1]) -> Effect[A1, E1]:
        """Make an effect of a `returns.io.IOResult`."""
        if isinstance(result, IOSuccess):
            return Succeed(unsafe_perform_io(result.unwrap()))
        return FailWith(unsafe_perform_io(result.failure()))

    @staticmethod
    def from_future_result(make: Callable[[], FutureResult[A1, E1]]) -> Effect[A1, E1]:
        """Await the `returns.future.FutureResult` that `make` answers, as `from_async` does.

        `make` is called anew for every run: a `FutureResult` can be awaited once. What it raises is a defect.
        """
        return FlatMap(FromAsync(make, _redie), Effect.from_io_result)

    @staticmethod
    def from_maybe(maybe: Maybe[A1], error: Callable[[], E1]) -> Effect[A1, E1]:
        """Make an effect of a `returns.maybe.Maybe`; `Nothing` fails with what `error` answers."""
        if isinstance(maybe, MaybeSome):
            return Succeed(maybe.unwrap())
        return Suspend(lambda: FailWith(error()))

    @staticmethod
    def from_optional(value: A1 | None, error: Callable[[], E1]) -> Effect[A1, E1]:
        """Make an effect of a value or None; None fails with what `error` answers."""
        return Suspend(lambda: FailWith(error())) if value is None else Succeed(value)

    @staticmethod
    def from_exit(outcome: Exit[A1, E1]) -> Effect[A1, E1]:
        """Make the effect that ends like this."""
        return from_exit(outcome)

    @staticmethod
    def gen(f: Callable[P, Generator[Op[E1, R1], Any, A1]], /) -> Callable[P, Effect[A1, E1, R1]]:
        """Make a function of a do-block: `value = yield from effect`, in functions and in methods.

        Every run starts the block anew. A block without any `yield from`, or with a bare `yield`, is a defect
        that says so; an `async def` is a `TypeError` at once.
        """
        _refuse_async(f)

        @wraps(f)
        def make(*args: P.args, **kwargs: P.kwargs) -> Effect[A1, E1, R1]:
            return Gen(partial(f, **kwargs) if kwargs else f, args)

        return make

    @staticmethod
    def fn(
        name: str,
    ) -> Callable[
        [Callable[P, Generator[Op[E1, R1], Any, A1]]],
        Callable[P, Effect[A1, E1, R1]],
    ]:
        """Make a function of a do-block, as `gen` does, whose runs are spans of this name."""

        def decorate(f: Callable[P, Generator[Op[E1, R1], Any, A1]]) -> Callable[P, Effect[A1, E1, R1]]:
            _refuse_async(f)

            @wraps(f)
            def make(*args: P.args, **kwargs: P.kwargs) -> Effect[A1, E1, R1]:
                return with_span(Gen(partial(f, **kwargs) if kwargs else f, args), name, {})

            return make

        return decorate

    # ---- services ------------------------------------------------------------------------------------------

    @overload
    @staticmethod
    def service(key: Reference[T]) -> Effect[T]: ...
    @overload
    @staticmethod
    def service(key: Key[T]) -> Effect[T, Never, Need[T]]: ...
    @staticmethod
    def service(key: Any) -> Effect[Any, Any, Any]:
        """Answer the service for this key: a class, a Protocol, an ABC or a `Tag`.

        The one for a `Reference` always exists, so nothing is needed for it.
        """
        return Service(key)

    @staticmethod
    def service_option(key: Key[T]) -> Effect[Maybe[T]]:
        """Answer the service for this key as `Some`, or `Nothing` if nobody provided it."""
        absent: Any = object()

        def look(fiber: Fiber[Any, Any]) -> Maybe[Any]:
            found: object = fiber.env.get_or(cast("Key[Any]", key), absent)
            return MaybeNothing if found is absent else MaybeSome(found)

        return Look(look)

    @staticmethod
    def env() -> Effect[Env]:
        """Answer all services that this program can see."""
        return Look(lambda fiber: fiber.env)

    def provide(self, layer: Layer[R, E2, R2], /, *, local: bool = False) -> Effect[A, E | E2, R2]:
        """Build the layer's services, run with them, release them. The layer must provide all of `R`.

        What a `provide` around this one has built of the layer is shared, unless `local`. To provide a part
        of `R`, use the function: `effect | provide(layer)`.
        """
        return provide_layer(self, layer, local)

    def provide_env(self, env: Env) -> Effect[A, E]:
        """Run with exactly these services."""
        return ProvideEnv(self, env)

    @overload
    def update_service(self, key: Reference[T], f: Callable[[T], T]) -> Effect[A, E, R]: ...
    @overload
    def update_service(self, key: Key[T], f: Callable[[T], T]) -> Effect[A, E, R | Need[T]]: ...
    def update_service(self, key: Any, f: Callable[[Any], Any]) -> Effect[A, E, Any]:
        """Run with the service for this key changed by `f`. A missing service is a defect."""
        return Provide(self, lambda env: env.add(key, f(env.get(key))))

    @staticmethod
    def with_fiber(f: Callable[[Fiber[Any, Any]], Effect[A1, E1, R1]]) -> Effect[A1, E1, R1]:
        """Go on with what `f` answers for the fiber that runs this."""
        return WithFiber(f)

    # ---- values --------------------------------------------------------------------------------------------

    def map(self, f: Callable[[A], B]) -> Effect[B, E, R]:
        """Change the value."""
        return Map(self, f)

    def flat_map(self, f: Callable[[A], Effect[B, E2, R2]]) -> Effect[B, E | E2, R | R2]:
        """Go on with an effect made of the value."""
        return FlatMap(self, f)

    def and_then(self, after: Effect[B, E2, R2]) -> Effect[B, E | E2, R | R2]:
        """Go on with another effect, whatever the value."""
        return FlatMap(self, lambda _: after)

    def tap(self, f: Callable[[A], Effect[B, E2, R2]]) -> Effect[A, E | E2, R | R2]:
        """Run an effect made of the value, and keep the value."""
        return FlatMap(self, lambda value: Map(f(value), lambda _: value))

    def as_(self, value: B) -> Effect[B, E, R]:
        """Put this value in place of the one there is."""
        return Map(self, lambda _: value)

    def as_void(self) -> Effect[None, E, R]:
        """Forget the value."""
        return Map(self, lambda _: None)

    def zip(self, other: Effect[A2, E2, R2]) -> Effect[tuple[A, A2], E | E2, R | R2]:
        """Run both, one after the other, and answer both values."""
        return FlatMap(self, lambda first: Map(other, lambda second: (first, second)))

    def zip_with(self, other: Effect[A2, E2, R2], f: Callable[[A, A2], B]) -> Effect[B, E | E2, R | R2]:
        """Run both, one after the other, and combine the values."""
        return FlatMap(self, lambda first: Map(other, lambda second: f(first, second)))

    def flatten(self: Effect[Effect[A1, E1, R1], E, R]) -> Effect[A1, E | E1, R | R1]:
        """Run the effect that is the value."""
        return FlatMap(self, _itself)

    def filter_or_fail(
        self, predicate: Callable[[A], bool], error: Callable[[A], E2]
    ) -> Effect[A, E | E2, R]:
        """Keep the value if it is such a one; else fail with what `error` makes of it."""
        return FlatMap(self, lambda value: Succeed(value) if predicate(value) else FailWith(error(value)))

    def when(self, condition: Effect[bool, E2, R2]) -> Effect[Maybe[A], E | E2, R | R2]:
        """Ask `condition` first; if it says no, do nothing and answer `Nothing`, else `Some(value)`."""
        return FlatMap(condition, lambda yes: Map(self, MaybeSome) if yes else Succeed(MaybeNothing))

    # ---- errors --------------------------------------------------------------------------------------------

    def catch_all(self, f: Callable[[E], Effect[A2, E2, R2]]) -> Effect[A | A2, E2, R | R2]:
        """Go on with an effect made of the typed error. Defects and interruptions pass."""
        return CatchAll(self, f)

    def catch_if(
        self, predicate: Callable[[E], bool], f: Callable[[E], Effect[A2, E2, R2]]
    ) -> Effect[A | A2, E | E2, R | R2]:
        """Go on with an effect made of the typed error, if the error is such a one."""
        return CatchAll(self, lambda error: f(error) if predicate(error) else FailWith(error))

    def catch_cause(self, f: Callable[[Cause[E]], Effect[A2, E2, R2]]) -> Effect[A | A2, E2, R | R2]:
        """Go on with an effect made of the whole cause, defects included."""
        return Fold(self, f, Succeed)

    def catch_defect(
        self, f: Callable[[BaseException], Effect[A2, E2, R2]]
    ) -> Effect[A | A2, E | E2, R | R2]:
        """Go on with an effect made of the first defect. Mostly a bug is better left to crash."""

        def recover(cause: Cause[Any]) -> Effect[Any, Any, Any]:
            defect = cause.find_defect()
            return FailCause(cause) if defect is None else f(defect)

        return Fold(self, recover, Succeed)

    def sandbox(self) -> Effect[A, Cause[E], R]:
        """Make the whole cause the typed error."""
        return Fold(self, FailWith, Succeed)

    def map_both(self, on_error: Callable[[E], E2], on_value: Callable[[A], B]) -> Effect[B, E2, R]:
        """Change the typed error or the value, whichever comes."""
        return Map(MapError(self, on_error), on_value)

    def map_error(self, f: Callable[[E], E2]) -> Effect[A, E2, R]:
        """Change the typed error."""
        return MapError(self, f)

    def or_die(self) -> Effect[A, Never, R]:
        """Turn a typed error into a defect: it was not expected here."""
        return Fold(self, lambda cause: FailCause(_all_die(cause)), Succeed)

    def or_else_succeed(self, thunk: Callable[[], A2]) -> Effect[A | A2, Never, R]:
        """Answer a fallback in place of a typed error."""
        return CatchAll(self, lambda _: Sync(thunk))

    def tap_error(self, f: Callable[[E], Effect[B, E2, R2]]) -> Effect[A, E | E2, R | R2]:
        """Run an effect made of the typed error, and keep failing."""
        return CatchAll(self, lambda error: FlatMap(f(error), lambda _: FailWith(error)))

    def tap_cause(self, f: Callable[[Cause[E]], Effect[B, E2, R2]]) -> Effect[A, E | E2, R | R2]:
        """Run an effect made of the whole cause, and keep failing."""
        return Fold(self, lambda cause: FlatMap(f(cause), lambda _: FailCause(cause)), Succeed)

    def tap_defect(self, f: Callable[[BaseException], Effect[B, E2, R2]]) -> Effect[A, E | E2, R | R2]:
        """Run an effect made of the first defect, and keep failing."""

        def tap(cause: Cause[Any]) -> Effect[Any, Any, Any]:
            defect = cause.find_defect()
            return VOID if defect is None else f(defect)

        return self.tap_cause(tap)

    def fold(self, on_failure: Callable[[E], B], on_success: Callable[[A], C]) -> Effect[B | C, Never, R]:
        """Make one value of both outcomes."""
        return CatchAll(Map(self, _Kept), lambda error: Succeed(_Kept(on_failure(error), done=True))).map(
            lambda kept: kept.value if kept.done else on_success(kept.value)
        )

    @overload
    def fold_effect(
        self,
        on_failure: Callable[[E], Effect[B, Never, Never]],
        on_success: Callable[[A], Effect[C, Never, Never]],
    ) -> Effect[B | C, Never, R]: ...
    @overload
    def fold_effect(
        self,
        on_failure: Callable[[E], Effect[B, Never, R2]],
        on_success: Callable[[A], Effect[C, Never, R3]],
    ) -> Effect[B | C, Never, R | R2 | R3]: ...
    @overload
    def fold_effect(
        self,
        on_failure: Callable[[E], Effect[B, E2, Never]],
        on_success: Callable[[A], Effect[C, E3, Never]],
    ) -> Effect[B | C, E2 | E3, R]: ...
    @overload
    def fold_effect(
        self,
        on_failure: Callable[[E], Effect[B, E2, R2]],
        on_success: Callable[[A], Effect[C, E3, R3]],
    ) -> Effect[B | C, E2 | E3, R | R2 | R3]: ...
    def fold_effect(
        self,
        on_failure: Callable[[E], Effect[Any, Any, Any]],
        on_success: Callable[[A], Effect[Any, Any, Any]],
    ) -> Effect[Any, Any, Any]:
        """Go on with one of two effects."""
        return CatchAll(
            Map(self, _Kept), lambda error: Map(on_failure(error), lambda value: _Kept(value, done=True))
        ).flat_map(lambda kept: Succeed(kept.value) if kept.done else on_success(kept.value))

    @overload
    def fold_cause(
        self,
        on_failure: Callable[[Cause[E]], Effect[B, Never, Never]],
        on_success: Callable[[A], Effect[C, Never, Never]],
    ) -> Effect[B | C, Never, R]: ...
    @overload
    def fold_cause(
        self,
        on_failure: Callable[[Cause[E]], Effect[B, Never, R2]],
        on_success: Callable[[A], Effect[C, Never, R3]],
    ) -> Effect[B | C, Never, R | R2 | R3]: ...
    @overload
    def fold_cause(
        self,
        on_failure: Callable[[Cause[E]], Effect[B, E2, Never]],
        on_success: Callable[[A], Effect[C, E3, Never]],
    ) -> Effect[B | C, E2 | E3, R]: ...
    @overload
    def fold_cause(
        self,
        on_failure: Callable[[Cause[E]], Effect[B, E2, R2]],
        on_success: Callable[[A], Effect[C, E3, R3]],
    ) -> Effect[B | C, E2 | E3, R | R2 | R3]: ...
    def fold_cause(
        self,
        on_failure: Callable[[Cause[E]], Effect[Any, Any, Any]],
        on_success: Callable[[A], Effect[Any, Any, Any]],
    ) -> Effect[Any, Any, Any]:
        """Go on with one of two effects; the one for failures sees the whole cause."""
        return Fold(self, on_failure, on_success)

    def result(self) -> Effect[Result[A, E], Never, R]:
        """Answer success or typed error as a `returns.result.Result`."""
        return CatchAll(Map(self, ResultSuccess), lambda error: Succeed(ResultFailure(error)))

    def option(self) -> Effect[Maybe[A], Never, R]:
        """Answer `Some(value)`, or `Nothing` in place of a typed error."""
        return CatchAll(Map(self, MaybeSome), lambda _: Succeed(MaybeNothing))

    def exit(self) -> Effect[Exit[A, E], Never, R]:
        """Answer how it ended, whatever that was."""
        return Fold(self, lambda cause: Succeed(Failure(cause)), lambda value: Succeed(Success(value)))

    def flip(self) -> Effect[E, A, R]:
        """Swap value and error."""
        return CatchAll(
            FlatMap(Map(self, _Kept), FailWith),
            lambda e: FailWith(e.value) if type(e) is _Kept else Succeed(e),
        )

    def ignore(self) -> Effect[None, Never, R]:
        """Forget value and typed error."""
        return CatchAll(self.as_void(), lambda _: VOID)

    def is_success(self) -> Effect[bool, Never, R]:
        """Answer whether it succeeded."""
        return CatchAll(self.as_(True), lambda _: Succeed(False))

    # ---- finalizers ----------------------------------------------------------------------------------------

    def ensuring(self, finalizer: Effect[B, Never, R2]) -> Effect[A, E, R | R2]:
        """Run `finalizer` whatever happens, without interruption. If it fails too, both causes count."""
        return Ensuring(self, finalizer)

    def on_exit(self, f: Callable[[Exit[A, E]], Effect[B, Never, R2]]) -> Effect[A, E, R | R2]:
        """Run a finalizer that sees how it ended."""
        return OnExit(self, f)

    def on_error(self, f: Callable[[Cause[E]], Effect[B, Never, R2]]) -> Effect[A, E, R | R2]:
        """Run a finalizer only if it failed."""
        return OnExit(self, lambda outcome: f(outcome.cause) if isinstance(outcome, Failure) else None)

    def on_interrupt(self, f: Callable[[], Effect[B, Never, R2]]) -> Effect[A, E, R | R2]:
        """Run a finalizer only if it was interrupted."""

        def finalizer(outcome: Exit[Any, Any]) -> Effect[Any, Any, Any] | None:
            return f() if isinstance(outcome, Failure) and outcome.cause.has_interrupts else None

        return OnExit(self, finalizer)

    @staticmethod
    def acquire_release(
        acquire: Effect[A1, E1, R1],
        release: Callable[[A1], Effect[B, Never, R2]],
        *,
        interruptible: bool = False,
    ) -> Effect[A1, E1, R1 | R2 | Need[Scope]]:
        """Acquire a resource, without interruption, and have it released when the scope closes.

        `interruptible` lets an interruption strike while it is acquired, as outside; then there is nothing to
        release.
        """
        return acquire_release(acquire, release, interruptible)

    @overload
    @staticmethod
    def acquire_use_release(
        acquire: Effect[A1, Never, Never],
        use: Callable[[A1], Effect[A2, Never, Never]],
        release: Callable[[A1], Effect[B, Never, Never]],
    ) -> Effect[A2]: ...
    @overload
    @staticmethod
    def acquire_use_release(  # type: ignore[overload-overlap] # what needs nothing is taken before
        acquire: Effect[A1, Never, R1],
        use: Callable[[A1], Effect[A2, Never, R2]],
        release: Callable[[A1], Effect[B, Never, R3]],
    ) -> Effect[A2, Never, R1 | R2 | R3]: ...
    @overload
    @staticmethod
    def acquire_use_release(
        acquire: Effect[A1, E1, Never],
        use: Callable[[A1], Effect[A2, E2, Never]],
        release: Callable[[A1], Effect[B, Never, Never]],
    ) -> Effect[A2, E1 | E2]: ...
    @overload
    @staticmethod
    def acquire_use_release(
        acquire: Effect[A1, E1, R1],
        use: Callable[[A1], Effect[A2, E2, R2]],
        release: Callable[[A1], Effect[B, Never, R3]],
    ) -> Effect[A2, E1 | E2, R1 | R2 | R3]: ...
    @staticmethod
    def acquire_use_release(
        acquire: Effect[Any, Any, Any],
        use: Callable[[Any], Effect[Any, Any, Any]],
        release: Callable[[Any], Effect[Any, Any, Any]],
    ) -> Effect[Any, Any, Any]:
        """Acquire a resource, use it, and release it whatever happens."""
        return Effect.uninterruptible_mask(
            lambda restore: acquire.flat_map(
                lambda resource: OnExit(restore(Suspend(lambda: use(resource))), lambda _: release(resource))
            )
        )

    @staticmethod
    def add_finalizer(
        f: Callable[[Exit[Any, Any]], Effect[B, Never, R1]],
    ) -> Effect[None, Never, R1 | Need[Scope]]:
        """Have `f(exit)` run when the scope closes."""
        return add_finalizer(f)

    @staticmethod
    def scope() -> Effect[Scope, Never, Need[Scope]]:
        """Answer the scope around."""
        return Service(Scope)

    @staticmethod
    def from_context_manager(
        make: Callable[[], AbstractContextManager[A1]],
    ) -> Effect[A1, Never, Need[Scope]]:
        """Enter a context manager, and leave it when the scope closes."""
        return from_context_manager(make)

    @staticmethod
    def from_async_context_manager(
        make: Callable[[], AbstractAsyncContextManager[A1]],
    ) -> Effect[A1, Never, Need[Scope]]:
        """Enter an async context manager, and leave it when the scope closes."""
        return from_async_context_manager(make)

    scoped: ClassVar[Scopes]
    """Give the program a scope that closes when it ends."""

    # ---- interruption --------------------------------------------------------------------------------------

    def uninterruptible(self) -> Effect[A, E, R]:
        """Do not let an interruption strike inside; it strikes at the end."""
        return Interruptibility(self, interruptible=False)

    def interruptible(self) -> Effect[A, E, R]:
        """Let an interruption strike inside, even in an uninterruptible region."""
        return Interruptibility(self, interruptible=True)

    @staticmethod
    def uninterruptible_mask(f: Callable[[Restore], Effect[A1, E1, R1]]) -> Effect[A1, E1, R1]:
        """Run without interruption, except for what `f` puts its `restore` around: that is as outside."""
        return WithFiber(lambda fiber: Interruptibility(f(Restore(fiber.interruptible)), interruptible=False))

    @staticmethod
    def interruptible_mask(f: Callable[[Restore], Effect[A1, E1, R1]]) -> Effect[A1, E1, R1]:
        """Run so that it can be interrupted, except for what `f` puts its `restore` around: that is as
        outside.
        """
        return WithFiber(lambda fiber: Interruptibility(f(Restore(fiber.interruptible)), interruptible=True))

    # ---- fibers --------------------------------------------------------------------------------------------

    fork: ClassVar[Forks]
    """Start it as a child fiber, which is interrupted when its parent ends."""

    fork_detach: ClassVar[Forks]
    """Start it as a fiber of its own, which outlives the one that started it."""

    def fork_in(self: Effect[A1, E1, R1], scope: Scope) -> Effect[Fiber[A1, E1], Never, R1]:
        """Start it as a fiber that is interrupted when `scope` closes."""
        return fork_in(self, scope)

    def fork_scoped(self: Effect[A1, E1, R1]) -> Effect[Fiber[A1, E1], Never, R1 | Need[Scope]]:
        """Start it as a fiber that is interrupted when the scope around closes."""
        return FlatMap(Service(Scope), lambda scope: fork_in(self, scope))

    @staticmethod
    def yield_now() -> Effect[None]:
        """Let the other fibers go first."""
        return YieldNow()

    race: ClassVar[Races]
    """Run both at once and take the first success; the other is interrupted. Fails only if both fail."""

    race_first: ClassVar[Races]
    """Run both at once and take the first end, success or failure; the other is interrupted."""

    @staticmethod
    def race_all(effects: Iterable[Effect[A1, E1, R1]]) -> Effect[A1, E1, R1]:
        """Run all at once and take the first success; the others are interrupted. Fails only if all fail."""
        return race_all(effects)

    @staticmethod
    def race_all_first(effects: Iterable[Effect[A1, E1, R1]]) -> Effect[A1, E1, R1]:
        """Run all at once and take the first end, success or failure; the others are interrupted."""
        return race_all_first(effects)

    # ---- many ----------------------------------------------------------------------------------------------

    @overload
    @staticmethod
    def all(
        effects: tuple[Effect[A1, Never, Never], Effect[A2, Never, Never]],
        /,
        *,
        concurrency: Concurrency = ...,
    ) -> Effect[tuple[A1, A2]]: ...
    @overload
    @staticmethod
    def all(  # type: ignore[overload-overlap] # an effect of neither kind is taken by the overload before
        effects: tuple[Effect[A1, Never, R1], Effect[A2, Never, R2]], /, *, concurrency: Concurrency = ...
    ) -> Effect[tuple[A1, A2], Never, R1 | R2]: ...
    @overload
    @staticmethod
    def all(
        effects: tuple[Effect[A1, E1, Never], Effect[A2, E2, Never]], /, *, concurrency: Concurrency = ...
    ) -> Effect[tuple[A1, A2], E1 | E2]: ...
    @overload
    @staticmethod
    def all(
        effects: tuple[Effect[A1, E1, R1], Effect[A2, E2, R2]], /, *, concurrency: Concurrency = ...
    ) -> Effect[tuple[A1, A2], E1 | E2, R1 | R2]: ...
    @overload
    @staticmethod
    def all(
        effects: tuple[Effect[A1, Never, Never], Effect[A2, Never, Never], Effect[A3, Never, Never]],
        /,
        *,
        concurrency: Concurrency = ...,
    ) -> Effect[tuple[A1, A2, A3]]: ...
    @overload
    @staticmethod
    def all(  # type: ignore[overload-overlap] # an effect of neither kind is taken by the overload before
        effects: tuple[Effect[A1, Never, R1], Effect[A2, Never, R2], Effect[A3, Never, R3]],
        /,
        *,
        concurrency: Concurrency = ...,
    ) -> Effect[tuple[A1, A2, A3], Never, R1 | R2 | R3]: ...
    @overload
    @staticmethod
    def all(
        effects: tuple[Effect[A1, E1, Never], Effect[A2, E2, Never], Effect[A3, E3, Never]],
        /,
        *,
        concurrency: Concurrency = ...,
    ) -> Effect[tuple[A1, A2, A3], E1 | E2 | E3]: ...
    @overload
    @staticmethod
    def all(
        effects: tuple[Effect[A1, E1, R1], Effect[A2, E2, R2], Effect[A3, E3, R3]],
        /,
        *,
        concurrency: Concurrency = ...,
    ) -> Effect[tuple[A1, A2, A3], E1 | E2 | E3, R1 | R2 | R3]: ...
    @overload
    @staticmethod
    def all(
        effects: tuple[
            Effect[A1, Never, Never],
            Effect[A2, Never, Never],
            Effect[A3, Never, Never],
            Effect[A4, Never, Never],
        ],
        /,
        *,
        concurrency: Concurrency = ...,
    ) -> Effect[tuple[A1, A2, A3, A4]]: ...
    @overload
    @staticmethod
    def all(  # type: ignore[overload-overlap] # an effect of neither kind is taken by the overload before
        effects: tuple[
            Effect[A1, Never, R1], Effect[A2, Never, R2], Effect[A3, Never, R3], Effect[A4, Never, R4]
        ],
        /,
        *,
        concurrency: Concurrency = ...,
    ) -> Effect[tuple[A1, A2, A3, A4], Never, R1 | R2 | R3 | R4]: ...
    @overload
    @staticmethod
    def all(
        effects: tuple[
            Effect[A1, E1, Never], Effect[A2, E2, Never], Effect[A3, E3, Never], Effect[A4, E4, Never]
        ],
        /,
        *,
        concurrency: Concurrency = ...,
    ) -> Effect[tuple[A1, A2, A3, A4], E1 | E2 | E3 | E4]: ...
    @overload
    @staticmethod
    def all(
        effects: tuple[Effect[A1, E1, R1], Effect[A2, E2, R2], Effect[A3, E3, R3], Effect[A4, E4, R4]],
        /,
        *,
        concurrency: Concurrency = ...,
    ) -> Effect[tuple[A1, A2, A3, A4], E1 | E2 | E3 | E4, R1 | R2 | R3 | R4]: ...
    @overload
    @staticmethod
    def all(
        effects: Mapping[K, Effect[A1, E1, R1]], /, *, concurrency: Concurrency = ...
    ) -> Effect[dict[K, A1], E1, R1]: ...
    @overload
    @staticmethod
    def all(
        effects: list[Effect[A1, E1, R1]] | Iterator[Effect[A1, E1, R1]],
        /,
        *,
        concurrency: Concurrency = ...,
    ) -> Effect[list[A1], E1, R1]: ...
    @overload
    @staticmethod
    def all(
        effects: Iterable[Effect[object, E1, R1]],
        /,
        *,
        concurrency: Concurrency = ...,
        discard: Literal[True],
    ) -> Effect[None, E1, R1]: ...
    @overload
    @staticmethod
    def all(
        effects: tuple[Effect[A1, E1, R1], ...],
        /,
        *,
        concurrency: Concurrency = ...,
        mode: Literal["result"],
    ) -> Effect[tuple[Result[A1, E1], ...], Never, R1]: ...
    @overload
    @staticmethod
    def all(
        effects: Mapping[K, Effect[A1, E1, R1]],
        /,
        *,
        concurrency: Concurrency = ...,
        mode: Literal["result"],
    ) -> Effect[dict[K, Result[A1, E1]], Never, R1]: ...
    @overload
    @staticmethod
    def all(
        effects: list[Effect[A1, E1, R1]] | Iterator[Effect[A1, E1, R1]],
        /,
        *,
        concurrency: Concurrency = ...,
        mode: Literal["result"],
    ) -> Effect[list[Result[A1, E1]], Never, R1]: ...
    @staticmethod
    def all(
        effects: Any,
        /,
        *,
        concurrency: Concurrency = 1,
        discard: bool = False,
        mode: Literal["result"] | None = None,
    ) -> Effect[Any, Any, Any]:
        """Run many effects and answer their values in the same shape: a tuple, a list or a dict.

        One after the other; with `concurrency` so many at once. The first failure interrupts the others;
        with `mode="result"` none is a failure, and the values are `returns.result.Result`s. `discard`
        answers nothing.
        """
        return all_of(effects, concurrency, discard, mode)

    @overload
    @staticmethod
    def for_each(
        items: Iterable[T],
        f: Callable[[T], Effect[A1, E1, R1]],
        *,
        concurrency: Concurrency = ...,
        discard: Literal[False] = ...,
    ) -> Effect[list[A1], E1, R1]: ...
    @overload
    @staticmethod
    def for_each(
        items: Iterable[T],
        f: Callable[[T], Effect[Any, E1, R1]],
        *,
        concurrency: Concurrency = ...,
        discard: Literal[True],
    ) -> Effect[None, E1, R1]: ...
    @staticmethod
    def for_each(
        items: Iterable[Any],
        f: Callable[[Any], Effect[Any, Any, Any]],
        *,
        concurrency: Concurrency = 1,
        discard: bool = False,
    ) -> Effect[Any, Any, Any]:
        """Run an effect for each item and answer the values in the items' order (or nothing, to `discard`
        them).

        One after the other; with `concurrency` so many at once. The first failure interrupts the others.
        """
        return for_each(items, f, concurrency, discard)

    @overload
    @staticmethod
    def validate(
        items: Iterable[T],
        f: Callable[[T], Effect[A1, E1, R1]],
        *,
        concurrency: Concurrency = ...,
        discard: Literal[False] = ...,
    ) -> Effect[list[A1], list[E1], R1]: ...
    @overload
    @staticmethod
    def validate(
        items: Iterable[T],
        f: Callable[[T], Effect[Any, E1, R1]],
        *,
        concurrency: Concurrency = ...,
        discard: Literal[True],
    ) -> Effect[None, list[E1], R1]: ...
    @staticmethod
    def validate(
        items: Iterable[Any],
        f: Callable[[Any], Effect[Any, Any, Any]],
        *,
        concurrency: Concurrency = 1,
        discard: bool = False,
    ) -> Effect[Any, Any, Any]:
        """Run an effect for each item, to the last one, and fail with all typed errors if there are any."""
        return validate(items, f, concurrency, discard)

    @staticmethod
    def partition(
        items: Iterable[T], f: Callable[[T], Effect[A1, E1, R1]], *, concurrency: Concurrency = 1
    ) -> Effect[tuple[list[A1], list[E1]], Never, R1]:
        """Run an effect for each item and answer the values and the typed errors, in the items' order."""
        return partition(items, f, concurrency)

    @staticmethod
    def first_success_of(effects: Iterable[Effect[A1, E1, R1]]) -> Effect[A1, E1, R1]:
        """Run one after the other until one succeeds; if none does, fail with the last error.

        No effects at all are a defect.
        """
        return first_success_of(effects)

    @staticmethod
    def find_first(
        items: Iterable[T], predicate: Callable[[T], Effect[bool, E1, R1]]
    ) -> Effect[Maybe[T], E1, R1]:
        """Answer the first item for which `predicate` says yes, as `Some`, or `Nothing`."""
        return find_first(items, predicate)

    # ---- time ----------------------------------------------------------------------------------------------

    @staticmethod
    def sleep(span: Span) -> Effect[None]:
        """Wait, by the `Clock`. Nothing and less return at once."""
        return sleep(to_timedelta(span))

    def delay(self, span: Span) -> Effect[A, E, R]:
        """Wait before running."""
        return FlatMap(Effect.sleep(span), lambda _: self)

    def timeout(self, span: Span) -> Effect[A, E | EffectTimeout, R]:
        """Interrupt it after this time and fail with `EffectTimeout`."""
        limit = to_timedelta(span)
        return timeout(self, limit, FailWith(EffectTimeout(limit)))

    def timeout_option(self, span: Span) -> Effect[Maybe[A], E, R]:
        """Interrupt it after this time and answer `Nothing`; else `Some(value)`."""
        return timeout(Map(self, MaybeSome), to_timedelta(span), Succeed(MaybeNothing))

    def timeout_or_else(
        self, span: Span, otherwise: Callable[[], Effect[A2, E2, R2]]
    ) -> Effect[A | A2, E | E2, R | R2]:
        """Interrupt it after this time and go on with the effect that `otherwise` makes."""
        return timeout(self, to_timedelta(span), Suspend(otherwise))

    def timed(self) -> Effect[tuple[timedelta, A], E, R]:
        """Answer how long it took by the `Clock`, and the value."""
        return timed(self)

    def forever(self) -> Effect[Never, E, R]:
        """Run it again and again, until it fails."""
        return Forever(self)

    @staticmethod
    def while_loop(
        condition: Callable[[], bool],
        body: Callable[[], Effect[A1, E1, R1]],
        step: Callable[[A1], object] = lambda _: None,
    ) -> Effect[None, E1, R1]:
        """As long as `condition` says so, run the effect that `body` makes and hand its value to `step`."""
        return Gen(while_loop, (condition, body, step))

    def retry(
        self,
        schedule: Schedule[E, Any] | None = None,
        *,
        times: int | None = None,
        while_: Callable[[E], bool] | None = None,
        until: Callable[[E], bool] | None = None,
    ) -> Effect[A, E, R]:
        """Run it again after a typed error, as long as the schedule says; then fail with the last error.

        In place of a schedule, or besides it: so many `times`, `while_` the error is such a one, `until` it
        is.
        """
        return retry(self, limited(schedule, times, while_, until))

    @overload
    def repeat(self, schedule: Schedule[A, B]) -> Effect[B, E, R]: ...
    @overload
    def repeat(
        self,
        *,
        times: int | None = ...,
        while_: Callable[[A], bool] | None = ...,
        until: Callable[[A], bool] | None = ...,
    ) -> Effect[A, E, R]: ...
    def repeat(
        self,
        schedule: Schedule[Any, Any] | None = None,
        *,
        times: int | None = None,
        while_: Callable[[Any], bool] | None = None,
        until: Callable[[Any], bool] | None = None,
    ) -> Effect[Any, E, R]:
        """Run it again after a success, as long as the schedule says; answer the schedule's last output.

        In place of a schedule: so many `times`, `while_` the value is such a one, `until` it is; then the
        last value is answered.
        """
        if schedule is not None:
            return repeat(self, schedule)
        return repeat(self, limited(None, times, while_, until).passthrough())

    def retry_or_else(
        self, schedule: Schedule[E, B], f: Callable[[E, B], Effect[A2, E2, R2]]
    ) -> Effect[A | A2, E2, R | R2]:
        """Run it again after a typed error, as `retry` does; then go on with an effect made of the last error
        and the schedule's last output.
        """
        return retry_or_else(self, schedule, f)

    def repeat_or_else(
        self, schedule: Schedule[A, B], f: Callable[[E, Maybe[B]], Effect[C, E2, R2]]
    ) -> Effect[B | C, E2, R | R2]:
        """Run it again after a success, as `repeat` does; after a typed error go on with an effect made of
        the error and the schedule's output before it, `Nothing` if it was the first run.
        """
        return repeat_or_else(self, schedule, f)

    def schedule(self, schedule: Schedule[A | None, B]) -> Effect[B, E, R]:
        """Run it whenever the schedule says so, which is asked before the first run too, with None; answer
        the schedule's last output.
        """
        return on_schedule(self, schedule)

    def cached(self) -> Effect[Effect[A, E, R]]:
        """Answer an effect that runs this once and has its outcome ever after.

        Who asks while it runs waits for it. An interrupted run counts as none.
        """
        return cached(self, None).map(_first_of_two)

    def cached_with_ttl(self, span: Span) -> Effect[Effect[A, E, R]]:
        """Answer an effect that runs this, and again when its outcome is older than `span`."""
        return cached(self, to_timedelta(span)).map(_first_of_two)

    def cached_invalidate(self, span: Span | None = None) -> Effect[tuple[Effect[A, E, R], Effect[None]]]:
        """Answer the same as `cached` or `cached_with_ttl`, and an effect that forgets the outcome."""
        return cached(self, None if span is None else to_timedelta(span))

    # ---- logging -------------------------------------------------------------------------------------------

    @staticmethod
    def log_debug(message: object, /, *values: object, **fields: object) -> Effect[None]:
        """Log at level DEBUG; see `log_info`."""
        return log(logging.DEBUG, message, values, fields)

    @staticmethod
    def log_info(message: object, /, *values: object, **fields: object) -> Effect[None]:
        """Log to the `Logger` service: by default the stdlib logger `durable_effect`.

        `values` are put behind the message, an exception among them becomes `exc_info`; `fields` and the
        annotations around are attributes of the log record.
        """
        return log(logging.INFO, message, values, fields)

    @staticmethod
    def log_warning(message: object, /, *values: object, **fields: object) -> Effect[None]:
        """Log at level WARNING; see `log_info`."""
        return log(logging.WARNING, message, values, fields)

    @staticmethod
    def log_error(message: object, /, *values: object, **fields: object) -> Effect[None]:
        """Log at level ERROR; see `log_info`."""
        return log(logging.ERROR, message, values, fields)

    def annotate_logs(self, **fields: object) -> Effect[A, E, R]:
        """Add fields to everything that is logged inside."""
        return annotate_logs(self, fields)

    def with_span(self, name: str, **fields: object) -> Effect[A, E, R]:
        """Name this part of the work.

        Log lines inside carry `span` and the fields; the end is logged at DEBUG.
        """
        return with_span(self, name, fields)

    # ---- applying functions --------------------------------------------------------------------------------

    @overload
    def pipe(self, ab: Callable[[Effect[A, E, R]], B], /) -> B: ...
    @overload
    def pipe(self, ab: Callable[[Effect[A, E, R]], B], bc: Callable[[B], C], /) -> C: ...
    @overload
    def pipe(
        self, ab: Callable[[Effect[A, E, R]], B], bc: Callable[[B], C], cd: Callable[[C], D], /
    ) -> D: ...
    @overload
    def pipe(
        self,
        ab: Callable[[Effect[A, E, R]], B],
        bc: Callable[[B], C],
        cd: Callable[[C], D],
        de: Callable[[D], F],
        /,
    ) -> F: ...
    @overload
    def pipe(
        self,
        ab: Callable[[Effect[A, E, R]], B],
        bc: Callable[[B], C],
        cd: Callable[[C], D],
        de: Callable[[D], F],
        ef: Callable[[F], G],
        /,
    ) -> G: ...
    def pipe(self, *fs: Callable[[Any], Any]) -> Any:
        """Apply functions, one after the other: `effect.pipe(catch(NotFound, handler))`."""
        out: Any = self
        for f in fs:
            out = f(out)
        return out

    # ---- running -------------------------------------------------------------------------------------------

    run: ClassVar[Run]
    """Run it on a new asyncio loop, as `asyncio.run` does a coroutine. Errors are raised as by `run_sync`."""

    run_sync: ClassVar[Run]
    """Run it here and now. A typed error is raised as itself, a defect as the exception that was raised.

    Work that has to wait for time or for asyncio raises `NotSynchronousError`.
    """

    run_async: ClassVar[RunAsync]
    """Make a coroutine that runs it, for `asyncio.create_task` and the like. `await effect` is the same."""

    run_sync_exit: ClassVar[RunExit]
    """Run it here and now and answer how it ended."""

    run_async_exit: ClassVar[RunAsyncExit]
    """Make a coroutine that runs it and answers how it ended."""

    def to_future_result(self: Effect[A1, E1, Never]) -> FutureResult[A1, E1]:
        """Make a `returns.future.FutureResult` that runs it when it is awaited, once. Defects are raised."""
        return FutureResult(_run_async(self.result()))

    @staticmethod
    def run_fork(effect: Effect[A1, E1, Never]) -> Fiber[A1, E1]:
        """Start it on the running asyncio loop and answer its fiber, without waiting."""
        return run_fork(effect)


class Always(Effect[A, E, R]):
    """A constant effect, which also answers itself when it is called."""

    __slots__ = ()

    def __call__(self) -> Always[A, E, R]:
        """Answer this effect."""
        return self


class Restore:
    """Makes an effect as interruptible as the outside of an `uninterruptible_mask`."""

    __slots__ = ("interruptible",)

    def __init__(self, interruptible: bool) -> None:
        self.interruptible = interruptible

    def __call__(self, effect: Effect[A1, E1, R1]) -> Effect[A1, E1, R1]:
        """Put the outside's state around this effect."""
        return Interruptibility(effect, self.interruptible)


class _Kept:
    """A value on its way past a handler: `done` when the handler made it."""

    __slots__ = ("done", "value")

    def __init__(self, value: Any, done: bool = False) -> None:
        self.value = value
        self.done = done


async def _run_async(effect: Effect[A1, Any, Any]) -> A1:
    return (await run_async_exit(effect)).get()


def _refuse_async(f: Callable[..., object]) -> None:
    if iscoroutinefunction(f) or isasyncgenfunction(f):
        raise TypeError(
            f"{f.__qualname__} is an `async def`; a do-block is a `def` with `yield from` in it. In place of "
            "`await x` write `yield from Effect.from_async(lambda: x)` there; a whole coroutine becomes an "
            f"effect with `Effect.from_async(lambda: {f.__name__}(...))`"
        )


def _itself(value: A1) -> A1:
    return value


def _first_of_two(pair: tuple[A1, object]) -> A1:
    return pair[0]


def _redie(raised: Exception) -> Effect[Never]:
    return FailCause(Cause.die(raised))


def _refail(catch: Callable[[Exception], E1]) -> Callable[[Exception], Effect[Never, E1]]:
    def refail(raised: Exception) -> Effect[Never, E1]:
        error = catch(raised)
        if isinstance(error, BaseException) and error is not raised and error.__cause__ is None:
            error.__cause__ = raised
        return FailCause(Cause.fail(error))

    return refail


def _all_die(cause: Cause[Any]) -> Cause:
    return Cause(Die(as_exception(r.error)) if isinstance(r, Fail) else r for r in cause.reasons)


# An operation is an effect, so the modules of operations need the class above; it needs them only when it is
# used.
from durable_effect.exit import Die, Fail, as_exception  # noqa: E402
from durable_effect.ops import (  # noqa: E402
    NEVER,
    VOID,
    Callback,
    CatchAll,
    Ensuring,
    FailAgain,
    FailCause,
    FailWith,
    FlatMap,
    Fold,
    Forever,
    Gen,
    Interruptibility,
    Look,
    Map,
    MapError,
    OnExit,
    Provide,
    ProvideEnv,
    Service,
    Succeed,
    Suspend,
    Sync,
    WithFiber,
    YieldNow,
)
from durable_effect.runtime import Fiber, Fork, from_exit  # noqa: E402

from durable_effect.edge import FromAsync, run_async_exit, run_fork, run_main, run_sync_exit  # noqa: E402 # isort: skip
from durable_effect.concurrency import (  # noqa: E402 # isort: skip
    all_of,
    find_first,
    first_success_of,
    for_each,
    partition,
    race_all,
    race_all_first,
    timeout,
    validate,
    while_loop,
)
from durable_effect.clock import sleep, timed  # noqa: E402 # isort: skip
from durable_effect.scope import (  # noqa: E402 # isort: skip
    Scope,
    acquire_release,
    add_finalizer,
    fork_in,
    from_async_context_manager,
    from_context_manager,
    scoped,
)
from durable_effect.layer import Layer, provide_layer  # noqa: E402 # isort: skip
from durable_effect.schedule import (  # noqa: E402 # isort: skip
    Schedule,
    limited,
    on_schedule,
    repeat,
    repeat_or_else,
    retry,
    retry_or_else,
)
from durable_effect.cached import cached  # noqa: E402 # isort: skip
from durable_effect.logging import annotate_logs, log, with_span  # noqa: E402 # isort: skip


def _run(effect: Effect[A1, Any, Never]) -> A1:
    """Run it on a new asyncio loop, as `asyncio.run` does a coroutine. Errors are raised as by `run_sync`."""
    _refuse_in_a_loop()
    return asyncio.run(run_main(effect)).get()


def _refuse_in_a_loop() -> None:
    """asyncio would refuse as well, but could not say what to write, and leave a coroutine behind."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise RuntimeError("`Effect.run` starts an asyncio loop, but one is running here; use `await effect`")


def _run_sync(effect: Effect[A1, Any, Never]) -> A1:
    """Run it here and now. A typed error is raised as itself, a defect as the exception that was raised."""
    return run_sync_exit(effect).get()


def _fork(effect: Effect[Any, Any, Any], *, start_immediately: bool = False) -> Effect[Any, Any, Any]:
    """Start it as a child fiber, which is interrupted when its parent ends."""
    return Fork(effect, True, start_immediately)


def _fork_detach(effect: Effect[Any, Any, Any], *, start_immediately: bool = False) -> Effect[Any, Any, Any]:
    """Start it as a fiber of its own, which outlives the one that started it."""
    return Fork(effect, False, start_immediately)


def _race(effect: Effect[Any, Any, Any], other: Effect[Any, Any, Any]) -> Effect[Any, Any, Any]:
    """Run both at once and take the first success; the other is interrupted. Fails only if both fail."""
    return race_all((effect, other))


def _race_first(effect: Effect[Any, Any, Any], other: Effect[Any, Any, Any]) -> Effect[Any, Any, Any]:
    """Run both at once and take the first end, success or failure; the other is interrupted."""
    return race_all_first((effect, other))


Effect.void = VOID
Effect.never = NEVER
for _name, _method in {
    "fork": _fork,
    "fork_detach": _fork_detach,
    "race": _race,
    "race_first": _race_first,
    "scoped": scoped,
    "run": _run,
    "run_sync": _run_sync,
    "run_async": _run_async,
    "run_sync_exit": run_sync_exit,
    "run_async_exit": run_async_exit,
}.items():
    setattr(Effect, _name, _method)

# The constructors that programs call most are their operations' classes: one call less, each time.
for _name, _operation in {
    "succeed": Succeed,
    "sync": Sync,
    "suspend": Suspend,
    "service": Service,
}.items():
    setattr(Effect, _name, _operation)
