"""Which runs may be in progress together: all that are not suspect.

A run whose process died may have killed it, or may have been beside the one that did. So that the innocent
are not blamed again, a suspect runs with nothing else in progress. It waits for that in short spells, and
others wait for it no longer than such a spell: a handler that hangs must neither keep suspects nor, through
them, everybody else from running. For the same reason a suspect is alone only in its first seconds.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from typing_extensions import Never, TypeVar

from durable_effect import Deferred, Do, Effect

__all__ = ["Admission"]

A = TypeVar("A")
E = TypeVar("E")
R = TypeVar("R")

_SPELL = timedelta(milliseconds=200)
_SOLITUDE = timedelta(seconds=5)
_PAUSES = tuple(timedelta(seconds=seconds) for seconds in (0.2, 0.4, 0.8, 1.6, 3.2, 6.4))


class Admission:
    """Counts the runs in progress, and holds new ones back for a suspect."""

    __slots__ = ("_changed", "_held_back", "_running")

    def __init__(self) -> None:
        self._running = 0
        self._held_back: object | None = None
        self._changed: Deferred[None, Never] | None = None

    def together(self, run: Effect[A, E, R]) -> Effect[A, E, R]:
        """Run beside others, once no suspect is in the way."""

        def begin() -> Effect[A, E, R]:
            if self._held_back:
                return self._change().flat_map(lambda _: self.together(run))
            self._running += 1
            return run.ensuring(Effect.suspend(self._ended))

        return Effect.suspend(begin)

    def _ended(self) -> Effect[None]:
        self._running -= 1
        return self._tell()

    def alone(self, run: Effect[A, E, R], still: Effect[bool, E]) -> Effect[A, E, R]:
        """Run beside nobody, as long as that is ``still`` called for.

        After a quarter of a minute of waiting: beside those that hang.
        """
        return self._alone(run, still)  # apart, because mypy loses the A and E of a generic do-block

    @Effect.gen
    def _alone(self, run: Effect[Any, Any, Any], still: Effect[bool, Any]) -> Do[Any, Any, Any]:
        for pause in _PAUSES:
            while self._held_back:
                yield from self._change()
            ran = yield from Effect.suspend(lambda: self._spell(run))
            if ran is not None:
                return ran[0]
            yield from Effect.sleep(pause)
            if not (yield from still):
                break
        return (yield from self.together(run))

    def _spell(self, run: Effect[Any, Any, Any]) -> Effect[tuple[Any] | None, Any, Any]:
        """Hold new runs back until those in progress have ended, and then for this one's first seconds."""
        hold = self._held_back = object()

        def let_go() -> Effect[None]:
            if self._held_back is not hold:
                return Effect.void
            self._held_back = None
            return self._tell()

        def begin() -> Effect[tuple[Any] | None, Any, Any]:
            if self._running:
                return Effect.succeed(None)
            self._running += 1
            return ran.ensuring(Effect.suspend(self._ended))

        later = Effect.sleep(_SOLITUDE).and_then(Effect.suspend(let_go))
        ran = later.fork().flat_map(lambda timer: run.map(_once).ensuring(timer.interrupt()))
        emptied = self._emptied().timeout_option(_SPELL)
        return emptied.and_then(Effect.suspend(begin)).ensuring(Effect.suspend(let_go))

    @Effect.gen
    def _emptied(self) -> Do[None]:
        while self._running:
            yield from self._change()

    def _change(self) -> Effect[None]:
        """Wait until something ended."""
        if self._changed is None:
            self._changed = Deferred()
        return self._changed.await_()

    def _tell(self) -> Effect[None]:
        changed, self._changed = self._changed, None
        return Effect.void if changed is None else changed.succeed(None).as_void()


def _once(value: A) -> tuple[A]:
    return (value,)
