"""Histories of calls on jobs, and a checker that says whether they could have happened one at a time.

Every write leaves a trace in the state that it changes: a ``Ledger`` holds the number of its life, how many
writes this life has seen, and a chain that mixes in the number of each. So the order of the writes is known,
and nothing has to be searched for. Handlers note what they saw and left (``Run``), callers what they asked
and were told (``Call``), both with stamps of one counter that only goes up.

    check(calls, runs, facts) -> violations

For each instance the writes are put in the order of their positions, the reads behind the write that they
saw. Then one walk along that order, with the latest beginning so far in hand, finds whatever ended before
something ordered in front of it had begun. Sorting is the dearest thing it does: O(n log n).
"""

from __future__ import annotations

import itertools
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from heapq import heappop, heappush
from typing import Literal, TypeAlias

import attrs

__all__ = ["FILLED", "Call", "Fact", "Ledger", "Outcome", "Run", "check"]

FILLED = 6
"""How many events fill a basket."""

JobKind: TypeAlias = Literal["tape", "timed", "pulse", "basket"]
Place: TypeAlias = tuple[JobKind, str]
"""A job and an id."""
Outcome: TypeAlias = Literal["answered", "refused", "unknown"]
"""``refused``: it must have changed nothing. ``unknown``: it was called off, or the storage failed in it."""

_EVER = 1 << 62
_MIXER = 6364136223846793005
_PRIME = (1 << 61) - 1


@attrs.frozen
class Ledger:
    """The state of every job here."""

    life: int
    count: int
    chain: int

    @staticmethod
    def born(life: int) -> Ledger:
        """Before the first write of a life."""
        return Ledger(life, 0, (life * _MIXER + 1) % _PRIME)

    def then(self, number: int) -> Ledger:
        """After one more write."""
        return Ledger(self.life, self.count + 1, ((self.chain ^ number) * _MIXER + 1) % _PRIME)


@attrs.define
class Call:
    """What a caller asked and was told."""

    number: int
    place: Place
    operation: str
    began: int
    ended: int = _EVER
    outcome: Outcome = "unknown"
    saw: Ledger | None = None
    """What a read of the state showed."""
    count: int | None = None
    """The count that the reply told; for the status of a task, of events and executions together."""
    created: bool | None = None
    absent: bool = False
    """Whether the reply said that there was no such instance."""
    filled: bool = False
    """Whether the added event filled its basket."""
    event_id: str | None = None
    told: str = ""
    """The reply in words, for whoever has to find out what went wrong."""
    repeated: bool = False
    """Whether it was refused because its event id was known."""


@attrs.frozen
class Run:
    """A handler that came to its end: what it found and what it left, whether that was committed or not."""

    place: Place
    number: int
    """Of the call whose event it was; each run of ``execute`` has a number of its own."""
    before: Ledger
    after: Ledger
    began: int
    ended: int
    on_event: bool


@attrs.frozen
class Fact:
    """From the outbox, in the order of commits: the call that began a life, or the one that ended it."""

    place: Place
    born: bool
    number: int


@attrs.frozen
class _Point:
    """A write in its place, and between which stamps it was committed."""

    text: str
    earliest: int
    latest: int
    state: Ledger | None
    """After it; ``None`` when it ended the life."""


def check(calls: Iterable[Call], runs: Iterable[Run], facts: Iterable[Fact]) -> list[str]:
    """Everything in these histories that cannot have happened one at a time, in the order of real time."""
    calls_at: defaultdict[Place, list[Call]] = defaultdict(list)
    runs_at: defaultdict[Place, list[Run]] = defaultdict(list)
    facts_at: defaultdict[Place, list[Fact]] = defaultdict(list)
    for call in calls:
        calls_at[call.place].append(call)
    for run in runs:
        runs_at[run.place].append(run)
    for fact in facts:
        facts_at[fact.place].append(fact)
    return [
        f"{place[0]}/{place[1]}: {violation}"
        for place in sorted(calls_at)
        for violation in _Instance(place, calls_at[place], runs_at[place], facts_at[place]).violations()
    ]


class _Instance:
    """The history of one job and id."""

    def __init__(self, place: Place, calls: list[Call], runs: list[Run], facts: list[Fact]) -> None:
        self.place = place
        self.calls = sorted(calls, key=lambda call: call.began)
        self.runs = sorted(runs, key=lambda run: run.began)
        self.facts = facts
        self.by_number = {call.number: call for call in calls}
        self.cut_off = any(call.outcome == "unknown" and call.operation != "flush" for call in calls)
        self.writes: defaultdict[int, dict[int, Run]] = defaultdict(dict)
        """By life and position: what was committed there."""
        self.broken: list[str] = []

    def violations(self) -> list[str]:
        self._find_writes()
        if not self.broken:  # else there is no order to speak of
            self._check_replies()
            self._check_event_ids()
            points = self._points()
            self._check_order(points)
            self._check_vague(points)
        return self.broken

    # -- which runs were committed

    def _find_writes(self) -> None:
        """A write is known by its acknowledgement, or by whoever saw its state later."""
        left_by = {(run.after.life, run.after.count, run.after.chain): run for run in self.runs}
        seen: dict[tuple[int, int], Ledger] = {}
        for state in self._witnessed():
            known = seen.setdefault((state.life, state.count), state)
            if known.chain != state.chain:
                self.broken.append(f"two writes at position {state.count} of life {state.life}: one is lost")
        for (life, count), state in seen.items():
            if count == 0:
                if state != Ledger.born(life):
                    self.broken.append(f"life {life} began with {state}")
                continue
            run = left_by.get((life, count, state.chain))
            if run is None:
                self.broken.append(f"a state that nobody wrote: {state}")
            elif count > 1 and (life, count - 1) not in seen:
                self.broken.append(f"nothing at position {count - 1} of life {life}, but at the next")
            else:
                self.writes[life][count] = run
        applied = Counter(run.number for life in self.writes.values() for run in life.values())
        for number, times in applied.items():
            call = self.by_number.get(number)
            if times > 1:
                self.broken.append(f"call {number} was applied {times} times")
            if call is not None and call.outcome == "refused":
                self.broken.append(f"call {number} was refused and applied")

    def _witnessed(self) -> Iterator[Ledger]:
        last: dict[int, Run] = {}
        for run in self.runs:
            yield run.before
            call = self.by_number.get(run.number)
            if call is not None and run.ended < call.ended:
                last[run.number] = run
        for fact in self.facts:
            if fact.born and fact.number in last:
                yield last[fact.number].after
        for call in self.calls:
            if call.saw is not None:
                yield call.saw
            if call.outcome == "answered" and call.operation in ("send", "add"):
                if call.number in last:
                    yield last[call.number].after
                else:
                    self.broken.append(f"{call.operation} {call.number} was acknowledged without a run")

    # -- what callers were told

    def _check_replies(self) -> None:
        placed = {run.number: run for life in self.writes.values() for run in life.values()}
        for call in self.calls:
            if call.outcome != "answered" or call.operation not in ("send", "add"):
                continue
            position = placed[call.number].after.count
            if call.created != (position == 1):
                self.broken.append(f"call {call.number} at position {position} said created={call.created}")
            if call.operation == "add" and call.count != position:
                self.broken.append(f"call {call.number} at position {position} said {call.count} events")
            if call.operation == "add" and not self._may_say(call, placed[call.number]):
                self.broken.append(f"call {call.number} at position {position} said filled={call.filled}")

    def _may_say(self, call: Call, run: Run) -> bool:
        """Whether an add told the truth. Where calls were cut off, others may have emptied what it filled."""
        if self.cut_off or call.filled == (run.after.count == FILLED):
            return True
        if not call.filled:
            return False
        return any(
            other.before == run.after and call.began < other.began < other.ended < call.ended
            for other in self.runs
            if not other.on_event
        )

    def _check_event_ids(self) -> None:
        """One event of each id is accepted; a repeat is refused only if that one can have been before it."""
        accepted: defaultdict[str, list[Call]] = defaultdict(list)
        for call in self.calls:
            if call.event_id is not None and call.outcome != "refused":
                accepted[call.event_id].append(call)
        for event_id, ones in accepted.items():
            if sum(call.outcome == "answered" for call in ones) > 1:
                self.broken.append(f"event {event_id} was accepted twice")
        for call in self.calls:
            if call.repeated and not any(one.began < call.ended for one in accepted[call.event_id or ""]):
                self.broken.append(f"call {call.number} was refused as a repeat of nothing")

    # -- the order of all writes

    def _points(self) -> list[_Point]:
        if self.place[0] == "basket":
            return self._baskets()
        points: list[_Point] = []
        begun_by = {}
        if self.place[0] != "pulse":
            begun_by = {writes[1].number: life for life, writes in self.writes.items()}
        around = self._around("trigger")
        ends: Counter[int] = Counter()
        alive = False
        for fact in self.facts:
            if fact.born == alive:
                self.broken.append(f"{'two lives' if alive else 'no life'} at once, says the outbox")
                return points
            alive = fact.born
            if fact.born:
                points.extend(self._life(begun_by.pop(fact.number, fact.number), fact.number, around))
            else:
                ends[fact.number] += 1
                points.append(self._end(fact.number))
        for number in begun_by:
            self.broken.append(f"the life that call {number} began is not in the outbox")
        for call in self.calls:
            wanted = call.operation == "terminate" and not call.absent and call.outcome == "answered"
            if wanted and ends[call.number] != 1:
                self.broken.append(f"terminate {call.number} is {ends[call.number]} times in the outbox")
        return points

    def _life(self, life: int, number: int, around: dict[int, int]) -> Iterator[_Point]:
        if self.place[0] == "pulse":
            start = self.by_number[number]
            if start.outcome == "refused" or start.created is False:
                self.broken.append(f"start {number} began a life and said otherwise")
            yield _Point(f"start {number}", start.began, start.ended, Ledger.born(life))
        for position, run in sorted(self.writes[life].items()):
            yield self._write(position, run, around)

    def _write(self, position: int, run: Run, around: dict[int, int]) -> _Point:
        text = f"position {position} of life {run.after.life}"
        call = self.by_number.get(run.number)
        if call is not None:
            return _Point(text, max(run.ended, call.began), call.ended, run.after)
        if self.place[0] == "timed":  # its alarm ran it, and nobody was told
            return _Point(text, run.ended, _EVER, run.after)
        return _Point(text, run.ended, self._latest(run, around, text), run.after)

    def _latest(self, run: Run, around: dict[int, int], text: str) -> int:
        """Calls that bring no number: the run was inside of one of those around it, if there is any."""
        if run.number not in around:
            self.broken.append(f"{text} was run by nobody")
        return around.get(run.number, _EVER)

    def _around(self, operation: str) -> dict[int, int]:
        """For each run of ``execute`` inside of such calls, by its number: when the last of them ended."""
        calls = [call for call in self.calls if call.operation == operation]
        coming = 0
        open_calls: list[Call] = []
        latest: dict[int, int] = {}
        for run in self.runs:
            while coming < len(calls) and calls[coming].began < run.began:
                open_calls.append(calls[coming])
                coming += 1
            open_calls = [call for call in open_calls if call.ended > run.began]
            around = [call.ended for call in open_calls if call.ended > run.ended]
            if around and not run.on_event:
                latest[run.number] = max(around)
        return latest

    def _end(self, number: int) -> _Point:
        call = self.by_number[number]
        if call.outcome == "refused" or call.absent:
            self.broken.append(f"terminate {number} ended a life and said otherwise")
        return _Point(f"terminate {number}", call.began, call.ended, None)

    def _baskets(self) -> list[_Point]:
        """Handlers of first events number the lives; a flush or a clear ends each but the last."""
        points: list[_Point] = []
        around = self._around("flush")
        flushed = {run.before: run for run in self.runs if not run.on_event}
        ended: Counter[int] = Counter()
        lives = sorted(self.writes)
        gone = self._is_gone()
        clears = [call for call in self.calls if call.operation == "clear" and not call.absent]
        cleared = Counter(call.count for call in clears)
        uncertain = any(call.outcome == "unknown" for call in clears)
        for life in lives:
            writes = sorted(self.writes[life].items())
            points.extend(self._write(position, run, {}) for position, run in writes)
            last = writes[-1][1]
            if life == lives[-1] and not gone:
                break
            ended[last.after.count] += 1
            emptied = flushed.get(last.after)
            if emptied is None and not cleared[last.after.count] and not uncertain:
                self.broken.append(f"life {life} was ended by nobody, with {last.after.count} events")
            points.append(self._emptied(last, emptied, around, bool(cleared[last.after.count]) or uncertain))
        self._check_ends(ended)
        return points

    def _emptied(self, last: Run, emptied: Run | None, around: dict[int, int], clears: bool) -> _Point:
        """The end of a basket. Clears may come in the midst of a flush: with clears it may be either."""
        text = f"the end of life {last.after.life}"
        if emptied is None or clears:
            return _Point(text, last.ended, _EVER, None)
        filler = self.by_number.get(last.number)
        if filler is not None and filler.filled:
            return _Point(text, emptied.ended, filler.ended, None)
        if last.after.count == FILLED:  # called off within the call that filled it, and left to the alarms
            return _Point(text, emptied.ended, _EVER, None)
        return _Point(text, emptied.ended, self._latest(emptied, around, text), None)

    def _check_ends(self, ended: Counter[int]) -> None:
        """Each basket is emptied once: nobody else may say that they did."""
        told = Counter(
            call.count
            for call in self.calls
            if call.outcome == "answered" and call.operation in ("flush", "clear") and not call.absent
        )
        for count, times in told.items():
            if times > ended[count or 0]:
                there = f"there were {ended[count or 0]} baskets with {count} events"
                self.broken.append(f"{there}, and {times} calls emptied one")

    def _is_gone(self) -> bool:
        """Whether the last look found nothing."""
        looks = [call for call in self.calls if call.operation == "get_state" and call.outcome == "answered"]
        return bool(looks) and looks[-1].absent

    # -- real time

    def _check_order(self, points: list[_Point]) -> None:
        """Walk along the order with the latest beginning in hand: nobody may have ended before that."""
        reads: defaultdict[Ledger, list[Call]] = defaultdict(list)
        for call in self.calls:
            if call.saw is not None and call.outcome == "answered":
                reads[call.saw].append(call)
        begun = -1
        for point in points:
            begun = max(begun, point.earliest)
            if begun > point.latest:
                self.broken.append(f"{point.text} was acknowledged before what precedes it had begun")
            if point.state is not None:
                seen = reads.pop(point.state, ())
                for read in seen:
                    if begun > read.ended:
                        self.broken.append(f"read {read.number} saw {point.state} before it was there")
                begun = max(begun, *(read.began for read in seen), begun)
        for state, left in reads.items():
            self.broken.extend(f"read {read.number} saw {state}, which is in no life" for read in left)
        self._check_runs(points)

    def _check_runs(self, points: list[_Point]) -> None:
        """Every call that was told that it ran something has had a run of its own."""
        ran = [run for run in self.runs if not run.on_event]
        if self.place[0] == "basket":
            ended_with = {run.after for writes in self.writes.values() for run in (writes[max(writes)],)}
            wanted = [call for call in self.calls if call.operation == "flush" and not call.absent]
            ran = [run for run in ran if run.before in ended_with]
            by_count = sorted({run.before.count for run in ran} | {call.count or 0 for call in wanted})
            for count in by_count:
                self._match(
                    [run for run in ran if run.before.count == count],
                    [call for call in wanted if call.count == count and call.outcome == "answered"],
                )
        elif self.place[0] != "timed":
            triggers = [call for call in self.calls if call.operation == "trigger" and not call.absent]
            self._match(ran, [call for call in triggers if call.outcome == "answered"])

    def _match(self, runs: list[Run], calls: list[Call]) -> None:
        """The call that ends first takes the run: if that leaves one without, so does every other choice."""
        waiting: list[tuple[int, int]] = []
        coming = 0
        matched = 0
        for run in runs:
            while coming < len(calls) and calls[coming].began < run.began:
                heappush(waiting, (calls[coming].ended, coming))
                coming += 1
            while waiting and waiting[0][0] < run.ended:
                late = calls[heappop(waiting)[1]]
                self.broken.append(f"{late.operation} {late.number} was acknowledged and nothing ran")
                matched += 1
            if waiting:
                heappop(waiting)
                matched += 1
        if matched < len(calls):
            self.broken.append(f"{len(calls) - matched} calls were acknowledged and nothing ran")

    def _check_vague(self, points: list[_Point]) -> None:
        """Replies that fit several moments: there is no instance, there is one, it has so many writes."""
        begun = list(itertools.accumulate((point.earliest for point in points), max, initial=-1))
        ends = [point.latest for point in points] + [_EVER]
        acknowledged = list(itertools.accumulate(reversed(ends), min))[::-1]
        moments: defaultdict[int | None, list[int]] = defaultdict(list)
        moments[None].append(0)
        written = {point.state for point in points}
        # A run at the end of a life may have been committed although nobody saw what it left.
        unseen = {run.before for run in self.runs if run.after not in written}
        alive: list[int] = []
        for index, point in enumerate(points, 1):
            moments[None if point.state is None else point.state.count].append(index)
            if point.state is not None:
                alive.append(index)
                if point.state in unseen:
                    moments[point.state.count + 1].append(index)
        last = {key: [acknowledged[index] for index in found] for key, found in moments.items()}
        last_alive = [acknowledged[index] for index in alive]
        for call in self.calls:
            if call.outcome == "unknown" or call.saw is not None:
                continue
            if call.absent:
                fits, latest = moments[None], last[None]
            elif call.operation == "start" and call.created is False:
                fits, latest = alive, last_alive
            elif call.operation == "status" and call.count is not None:
                fits, latest = moments[call.count], last.get(call.count, [])
            else:
                continue
            first = bisect_left(latest, call.began)
            if first == len(fits) or begun[fits[first]] > call.ended:
                told = "nothing there" if call.absent else f"count {call.count}"
                self.broken.append(f"{call.operation} {call.number} said {told} when that was not so")
