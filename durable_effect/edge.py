"""The edges: asyncio's awaitables as effects, and effects run from asyncio or from plain Python."""

from __future__ import annotations

import asyncio
import contextvars
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Any, Never, TypeVar

from durable_effect.context import Env
from durable_effect.effect import Effect
from durable_effect.errors import Interrupted, NotSynchronousError
from durable_effect.exit import Cause, Exit, Failure
from durable_effect.ops import VOID, AnyEffect, CancelFrame, FailCause, Succeed, Wait
from durable_effect.runtime import Fiber, Runtime, Waiter, interrupt_all

A1 = TypeVar("A1")
E1 = TypeVar("E1")
EMPTY = Env()

# ---- in: asyncio work inside of effects --------------------------------------------------------------------


class Operation:
    """An awaitable that an effect waits for, in an asyncio task of its own.

    `nested` counts the effects that are awaited inside of it and have not ended: while there are any, it
    waits for fibers and not for the outside world.
    """

    __slots__ = ("env", "nested", "runtime")

    def __init__(self, fiber: Fiber[Any, Any]) -> None:
        self.runtime = fiber.runtime
        self.env = fiber.env
        self.nested = 0


SURROUNDING: contextvars.ContextVar[Operation | None] = contextvars.ContextVar(
    "durable_effect_operation", default=None
)
"""Set inside the task of an operation, so that an effect awaited there sees the services around it."""


class FromAsync(AnyEffect):
    """Run an awaitable in a task; an interruption cancels the task and waits for its end."""

    __slots__ = ("make", "recover")

    def __init__(self, make: Callable[[], Awaitable[Any]], recover: Callable[[Exception], AnyEffect]) -> None:
        self.make = make
        self.recover = recover

    def step(self, fiber: Fiber[Any, Any]) -> None:
        runtime = fiber.runtime
        waiter = fiber.suspend()
        loop = runtime.loop
        if loop is None:  # nobody will ever answer, and `run_sync` says so
            return
        operation = Operation(fiber)
        context = runtime.context
        context.run(SURROUNDING.set, operation)
        task = loop.create_task(_call(self.make), context=context)
        runtime.operations.add(operation)

        def ended(task: asyncio.Task[Any]) -> None:
            runtime.operations.discard(operation)
            waiter.resume(self._outcome(task))

        task.add_done_callback(ended)
        fiber.stack.append(CancelFrame(_cancel(task)))

    def _outcome(self, task: asyncio.Task[Any]) -> AnyEffect:
        if task.cancelled():
            return FailCause(Cause.interrupt())
        raised = task.exception()
        if raised is None:
            return Succeed(task.result())
        if isinstance(raised, Interrupted):
            return FailCause(raised.cause)
        if not isinstance(raised, Exception):
            return FailCause(Cause.die(raised))
        return _Handled(self.recover, raised)


class _Handled(AnyEffect):
    """The answer to an exception, made by user code in the fiber's own slice."""

    __slots__ = ("raised", "recover")

    def __init__(self, recover: Callable[[Exception], AnyEffect], raised: Exception) -> None:
        self.recover = recover
        self.raised = raised

    def step(self, fiber: Fiber[Any, Any]) -> AnyEffect:
        return self.recover(self.raised)


async def _call(make: Callable[[], Awaitable[A1]]) -> A1:
    return await make()


def _cancel(task: asyncio.Task[Any]) -> AnyEffect:
    def register(waiter: Waiter) -> None:
        if task.cancel():
            task.add_done_callback(lambda ended: waiter.resume(_after_cancel(ended)))
        else:  # it had ended, in the same moment
            waiter.resume(_after_cancel(task))

    return Wait(register)


def _after_cancel(task: asyncio.Task[Any]) -> AnyEffect:
    raised = None if task.cancelled() else task.exception()
    return VOID if raised is None else FailCause(Cause.die(raised))


# ---- in: threads that answer many callers at a time --------------------------------------------------------


class Caller(Operation):
    """A fiber that waits for the answer of a thread; `answer_all` hands it over."""

    __slots__ = ("loop", "waiter")

    def __init__(self, fiber: Fiber[Any, Any], loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(fiber)
        self.loop = loop
        self.waiter = fiber.suspend()

    def hear(self, answer: AnyEffect) -> None:
        """Go on with the answer. What came too late is dropped: for who left, or crashed in a test."""
        operations = self.runtime.operations
        if self in operations:
            operations.discard(self)
            self.waiter.resume(answer)

    def leave(self) -> None:
        """Wait no more; the thread does not hear of it."""
        self.runtime.operations.discard(self)


class AskThread(AnyEffect):
    """Suspend until a thread answers. It costs no task and no future, and no wake-up of its own.

    `ask` queues the caller for the thread, or answers at once when the thread will not. An interruption does
    not wait for the answer: make it `uninterruptible` where the caller must know what became of it.
    """

    __slots__ = ("ask",)

    def __init__(self, ask: Callable[[Caller], AnyEffect | None]) -> None:
        self.ask = ask

    def step(self, fiber: Fiber[Any, Any]) -> AnyEffect | None:
        runtime = fiber.runtime
        loop = runtime.loop
        if loop is None:  # the answer could not be handed over, and `run_sync` says so
            fiber.suspend()
            return None
        caller = Caller(fiber, loop)
        refusal = self.ask(caller)
        if refusal is not None:
            fiber.waiter = None
            return refusal
        runtime.operations.add(caller)
        fiber.on_interrupt = caller.leave
        return None


def answer_all(answers: Iterable[tuple[Caller, AnyEffect]]) -> None:
    """Answer callers, from the thread that they asked. Each loop wakes once, however many wait on it."""
    by_loop: defaultdict[asyncio.AbstractEventLoop, list[tuple[Caller, AnyEffect]]] = defaultdict(list)
    for caller, answer in answers:
        by_loop[caller.loop].append((caller, answer))
    for heard in by_loop.values():
        heard[0][0].runtime.post(_hear_all, heard)


def _hear_all(answers: list[tuple[Caller, AnyEffect]]) -> None:
    for caller, answer in answers:
        caller.hear(answer)


# ---- out: running effects ----------------------------------------------------------------------------------


def ambient_env() -> Env:
    """Answer the services around this call: those of the effect whose awaitable is running, else none."""
    around = SURROUNDING.get()
    return EMPTY if around is None else around.env


def run_sync_exit(effect: Effect[A1, E1, Any], env: Env | None = None) -> Exit[A1, E1]:
    """Run to the end here and now."""
    runtime = Runtime()
    fiber: Fiber[A1, E1] = Fiber(runtime, effect, ambient_env() if env is None else env)
    runtime.ready.append(fiber)
    runtime.run_ready()
    if fiber.exit is None:
        fiber.request_interrupt()
        runtime.run_ready()
        return Failure(Cause.die(NotSynchronousError(NotSynchronousError.__doc__)))
    return fiber.exit


async def run_async_exit(effect: Effect[A1, E1, Any]) -> Exit[A1, E1]:
    """Run on the running loop, at first in place.

    Cancelling the caller interrupts the program and waits for it.
    """
    loop = asyncio.get_running_loop()
    around = SURROUNDING.get()
    if around is None or around.runtime.loop is not loop:
        return await _run_in(Runtime(loop), effect)
    around.nested += 1
    try:
        return await _run_in(around.runtime, effect)
    finally:
        around.nested -= 1


def run_fork(effect: Effect[A1, E1, Never]) -> Fiber[A1, E1]:
    """Start a fiber on the running loop."""
    return Runtime(asyncio.get_running_loop()).start(effect, ambient_env())


async def run_main(effect: Effect[A1, E1, Any]) -> Exit[A1, E1]:
    """Run as the whole program: what it left running in the background is interrupted at its end."""
    runtime = Runtime(asyncio.get_running_loop())
    try:
        return await _run_in(runtime, effect)
    finally:
        await _run_in(runtime, interrupt_all(set(runtime.roots)))


async def _run_in(runtime: Runtime, effect: Effect[A1, E1, Any]) -> Exit[A1, E1]:
    fiber: Fiber[A1, E1] = Fiber(runtime, effect, ambient_env())
    runtime.ready.append(fiber)
    runtime.flush()
    cancelled: asyncio.CancelledError | None = None
    while fiber.exit is None:
        runtime.poke()
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        fiber.observe(partial(_done, future))
        try:
            await future
        except asyncio.CancelledError as cancel:
            cancelled = cancel
            fiber.request_interrupt()
    if cancelled is not None:
        raise cancelled
    return fiber.exit


def _done(future: asyncio.Future[None], _: object) -> None:
    if not future.done():
        future.set_result(None)
