"""The queue in front of one instance: one step at a time, first come first served."""

from __future__ import annotations

from collections import deque
from datetime import timedelta

import attrs
from typing_extensions import Never, TypeVar

from durable_effect import Deferred, Do, Effect
from durable_effect_jobs.errors import InstanceBusy, Overloaded
from durable_effect_jobs.instance import Key

__all__ = ["Place", "Turnstile"]

E = TypeVar("E")
R = TypeVar("R")


class Place:
    """Somebody's place in the queue."""

    __slots__ = ("turn",)

    def __init__(self) -> None:
        self.turn: Deferred[None, Never] | None = None
        """Done when it is their turn; ``None`` for who did not have to wait."""


@attrs.define(eq=False)
class Turnstile:
    """Who has the instance to himself, and who waits for it. There only while somebody does either."""

    key: Key
    inside: Place | None = None
    waiting: deque[Place] = attrs.field(factory=deque[Place])
    waits_for: list[Key] = attrs.field(factory=list[Key])
    """The instances that the handler which is running here has called and not heard from."""

    @property
    def empty(self) -> bool:
        """Whether nobody needs it any more."""
        return self.inside is None and not self.waiting

    def enter(
        self, place: Place, most: int, patience: timedelta | None
    ) -> Effect[None, InstanceBusy | Overloaded]:
        """Wait for one's turn, for as long as ``patience`` lasts. Always :meth:`leave` afterwards."""
        if self.inside is None:
            self.inside = place
            return Effect.void
        if len(self.waiting) >= most:
            return Effect.fail(Overloaded(f"the queue of {self.key.instance_id}", most))
        place.turn = Deferred()
        self.waiting.append(place)
        if patience is None:
            return place.turn.await_()
        return self._wait(place, place.turn, patience)

    @Effect.gen
    def _wait(self, place: Place, turn: Deferred[None, Never], patience: timedelta) -> Do[None, InstanceBusy]:
        yield from turn.await_().timeout_option(patience)
        if self.inside is not place:  # the turn may have come in the same moment
            yield from Effect.fail(InstanceBusy(self.key.instance_id, patience))

    def leave(self, place: Place) -> Effect[None]:
        """Let the next one in, or give up waiting. For who was put out this does nothing."""
        if self.inside is place:
            return self.put_out()
        if place in self.waiting:
            self.waiting.remove(place)
        return Effect.void

    def put_out(self) -> Effect[None]:
        """Let the next one in, whatever the one inside is still doing."""
        following = self.inside = self.waiting.popleft() if self.waiting else None
        if following is None or following.turn is None:
            return Effect.void
        return following.turn.succeed(None).as_void()
