"""Interruption: when it strikes, what it skips, and what it waits for."""

from __future__ import annotations

from durable_effect import Cause, Deferred, Do, Effect, Exit, Fail, Failure, Fiber, Interrupt, Success
from durable_effect.testing import TestRuntime


def note(log: list[str], text: str) -> Effect[None]:
    """Write a line."""
    return Effect.sync(lambda: log.append(text))


def interrupted_after(world: TestRuntime, span: str, effect: Effect[object, object]) -> Fiber[object, object]:
    """Start an effect, interrupt it after a while and wait for its end."""
    fiber = world.fork(effect)
    world.advance(span)
    world.run(fiber.interrupt())
    return fiber


def reasons(fiber: Fiber[object, object]) -> list[object]:
    """Answer why a fiber failed."""
    assert isinstance(fiber.exit, Failure)
    return list(fiber.exit.cause.reasons)


def test_interrupt_waits_for_the_finalizers(world: TestRuntime) -> None:
    """`interrupt` goes on when the fiber has ended, its finalizers included."""
    log: list[str] = []
    slow = Effect.never.ensuring(Effect.sleep("3 s").and_then(note(log, "done")))
    interrupted_after(world, "1 s", slow)
    assert log == ["done"]
    assert world.now.second == 4


def test_a_fiber_interrupted_before_its_first_step_never_runs(world: TestRuntime) -> None:
    """Interrupting right after the fork leaves no trace of the program."""
    log: list[str] = []

    @Effect.gen
    def program() -> Do[None]:
        fiber = yield from note(log, "ran").ensuring(note(log, "finalized")).fork()
        yield from fiber.interrupt()

    world.run(program())
    assert log == []


def test_interrupting_a_finished_fiber_changes_nothing(world: TestRuntime) -> None:
    """The exit stays what it was."""
    fiber = world.fork(Effect.succeed(1))
    world.settle()
    world.run(fiber.interrupt())
    assert fiber.exit == Success(1)


def test_a_second_interruption_does_not_cut_a_finalizer(world: TestRuntime) -> None:
    """A finalizer under way is finished, however often the fiber is interrupted."""
    log: list[str] = []
    fiber = world.fork(Effect.never.ensuring(Effect.sleep("2 s").and_then(note(log, "done"))))
    world.settle()
    world.fork(fiber.interrupt())
    world.advance("1 s")
    world.run(fiber.interrupt())
    assert log == ["done"]


def test_recovery_handlers_are_skipped(world: TestRuntime) -> None:
    """`catch_all`, `catch_cause`, `exit` and `fold` do not run while an interruption is in flight."""
    log: list[str] = []
    guarded = (
        Effect.never.catch_all(lambda _: note(log, "catch_all"))
        .catch_cause(lambda _: note(log, "catch_cause"))
        .exit()
        .flat_map(lambda _: note(log, "exit"))
        .fold_cause(lambda _: note(log, "fold"), lambda _: note(log, "fold"))
        .ensuring(note(log, "finalizer"))
    )
    fiber = interrupted_after(world, "1 s", guarded)
    assert log == ["finalizer"]
    assert isinstance(reasons(fiber)[0], Interrupt)


def test_exit_of_never_does_not_resurrect(world: TestRuntime) -> None:
    """A fiber that is interrupted in `never.exit()` ends interrupted."""
    fiber = interrupted_after(world, "1 s", Effect.never.exit())
    assert all(isinstance(reason, Interrupt) for reason in reasons(fiber))


def test_the_interruption_names_who_asked(world: TestRuntime) -> None:
    """The reason has the id of the interrupting fiber."""

    @Effect.gen
    def program() -> Do[tuple[int, frozenset[int]]]:
        fiber = yield from Effect.never.fork()
        yield from Effect.yield_now()
        yield from fiber.interrupt()
        ended = yield from fiber.await_()
        assert isinstance(ended, Failure)
        me = yield from Effect.with_fiber(lambda f: Effect.succeed(f.id))
        return me, ended.cause.interruptors

    me, interruptors = world.run(program())
    assert interruptors == {me}


def test_uninterruptible_completes_and_then_the_interruption_strikes(world: TestRuntime) -> None:
    """The region is finished; what comes after it is not begun."""
    log: list[str] = []
    program = (
        Effect.sleep("5 s").and_then(note(log, "inside")).uninterruptible().and_then(note(log, "outside"))
    )
    fiber = interrupted_after(world, "1 s", program)
    assert log == ["inside"]
    assert isinstance(reasons(fiber)[0], Interrupt)
    assert world.now.second == 5


def test_interruptible_opens_a_window(world: TestRuntime) -> None:
    """Inside of an uninterruptible region `interruptible` may be struck, and `exit` captures that."""
    log: list[str] = []

    def captured(ended: Exit[object, object]) -> Effect[None]:
        return note(log, f"captured {isinstance(ended, Failure) and ended.cause.is_interrupted_only}")

    program = Effect.never.interruptible().exit().flat_map(captured).uninterruptible()
    interrupted_after(world, "1 s", program)
    assert log == ["captured True"]


def test_restore_in_an_interruptible_outside_is_interruptible(world: TestRuntime) -> None:
    """`restore` brings back the state around the mask."""
    program = Effect.uninterruptible_mask(lambda restore: restore(Effect.never))
    fiber = interrupted_after(world, "1 s", program)
    assert world.now.second == 1
    assert isinstance(reasons(fiber)[0], Interrupt)


def test_restore_in_an_uninterruptible_outside_changes_nothing(world: TestRuntime) -> None:
    """If the outside cannot be interrupted, `restore` does not make it so."""
    log: list[str] = []
    work = Effect.sleep("5 s").and_then(note(log, "done"))
    inner = Effect.uninterruptible_mask(lambda restore: restore(work))
    interrupted_after(world, "1 s", inner.uninterruptible())
    assert log == ["done"]


def test_interruptible_mask_opens_and_restores(world: TestRuntime) -> None:
    """The region may be struck; what `restore` is put around is as the outside."""
    log: list[str] = []
    kept = Effect.sleep("5 s").and_then(note(log, "restored"))
    masked = Effect.interruptible_mask(lambda restore: restore(kept).and_then(Effect.never))
    interrupted_after(world, "1 s", masked.uninterruptible())
    assert log == ["restored"]
    assert world.now.second == 5


def test_interrupting_oneself_is_an_ordinary_cause(world: TestRuntime) -> None:
    """`Effect.interrupt()` can be caught."""
    ended = world.run(Effect.interrupt().exit())
    assert isinstance(ended, Failure)
    assert ended.cause.is_interrupted_only


def test_on_interrupt_runs_for_interruptions_only(world: TestRuntime) -> None:
    """A failure or a success does not run it."""
    log: list[str] = []
    world.run(Effect.succeed(1).on_interrupt(lambda: note(log, "success")))
    world.run_exit(Effect.fail(1).on_interrupt(lambda: note(log, "failure")))
    interrupted_after(world, "1 s", Effect.never.on_interrupt(lambda: note(log, "interrupted")))
    assert log == ["interrupted"]


def test_a_failing_finalizer_joins_the_interruption(world: TestRuntime) -> None:
    """The cause has the interruption and what the finalizer died of."""
    bug = ValueError("bug")
    fiber = interrupted_after(world, "1 s", Effect.never.ensuring(Effect.die(bug)))
    assert isinstance(fiber.exit, Failure)
    assert fiber.exit.cause.defects == (bug,)
    assert fiber.exit.cause.has_interrupts


def test_a_failure_after_a_captured_interruption_keeps_the_interruptors(world: TestRuntime) -> None:
    """A fiber that was interrupted ends with Fail and Interrupt when it fails afterwards."""
    program = Effect.never.interruptible().exit().and_then(Effect.fail("late")).uninterruptible()
    found = reasons(interrupted_after(world, "1 s", program))
    assert found[0] == Fail("late")
    assert isinstance(found[1], Interrupt)


def test_a_do_block_cannot_swallow_an_interruption(world: TestRuntime) -> None:
    """`except BaseException` in a do-block does not stop the unwinding."""
    log: list[str] = []

    @Effect.gen
    def stubborn() -> Do[None]:
        try:
            yield from Effect.never
        except BaseException:
            log.append("caught")
        yield from note(log, "cleaning up")

    fiber = interrupted_after(world, "1 s", stubborn().and_then(note(log, "after")))
    assert "after" not in log
    assert log[0] == "caught"
    assert isinstance(reasons(fiber)[0], Interrupt)


def test_finally_with_effects_runs_uninterruptibly(world: TestRuntime) -> None:
    """Effects in `finally` are finished although the fiber is interrupted."""
    log: list[str] = []

    @Effect.gen
    def block() -> Do[None]:
        try:
            yield from Effect.never
        finally:
            yield from Effect.sleep("2 s")
            yield from note(log, "done")

    interrupted_after(world, "1 s", block())
    assert log == ["done"]


def test_a_callback_is_called_off(world: TestRuntime) -> None:
    """The effect that `async_` registered to cancel runs on interruption, and a late resume is ignored."""
    log: list[str] = []
    resumes: list[object] = []

    def register(resume: object) -> Effect[object]:
        resumes.append(resume)
        return Effect.sleep("2 s").and_then(note(log, "cancelled"))

    fiber = interrupted_after(world, "1 s", Effect.async_(register))
    assert log == ["cancelled"]
    assert world.now.second == 3
    (resume,) = resumes
    assert callable(resume)
    resume(Effect.succeed(1))
    world.settle()
    assert isinstance(reasons(fiber)[0], Interrupt)


def test_only_the_first_resume_counts(world: TestRuntime) -> None:
    """Later calls of the callback are ignored."""

    def register(resume: object) -> None:
        assert callable(resume)
        resume(Effect.succeed(1))
        resume(Effect.succeed(2))

    assert world.run(Effect.async_(register)) == 1


def test_children_are_interrupted_with_their_parent(world: TestRuntime) -> None:
    """An interruption of the parent reaches its children and waits for them."""
    log: list[str] = []
    child = Effect.never.ensuring(Effect.sleep("1 s").and_then(note(log, "child")))
    parent = child.fork().and_then(Effect.never).ensuring(note(log, "parent"))
    interrupted_after(world, "1 s", parent)
    assert sorted(log) == ["child", "parent"]


def test_an_interrupted_waiter_leaves_the_deferred(world: TestRuntime) -> None:
    """Who is interrupted while waiting is not resumed later."""
    deferred: Deferred[int, str] = Deferred()
    fiber = interrupted_after(world, "1 s", deferred.await_())
    assert world.run(deferred.succeed(1))
    assert isinstance(reasons(fiber)[0], Interrupt)
    assert fiber.exit != Failure(Cause.fail("x"))
