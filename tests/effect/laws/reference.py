"""What effect programs mean: an interpreter that is too simple to be wrong, and too slow to be used.

A program is a tuple: an operation and its parts. It ends as ("ok", value) or ("bad", reasons); a reason is
("fail", error), ("die", defect) or ("interrupt", fiber). Fibers are numbered as they start; names of defects
begin with "d". A part of a program sees `around`: the fibers it knows, a service and a scope.
"""

from collections import deque
from heapq import heappop, heappush
from types import SimpleNamespace as New

DONE = ("ok", None)


class Bad(Exception):
    """A program failed, for these reasons."""


def combine(*causes):
    reasons = [reason for cause in causes for reason in cause]
    dies = any(kind == "die" for kind, _ in reasons)
    return tuple(dict.fromkeys(("die", x) if dies and kind == "fail" else (kind, x) for kind, x in reasons))


def end_of(steps):
    try:
        return ("ok", (yield from steps))
    except Bad as bad:
        return ("bad", bad.args[0])


def value_of(end):
    if end[0] == "bad":
        raise Bad(end[1])
    return end[1]


def strike(me):
    if me.pending and me.interruptible:
        raise Bad(me.pending)


class Reference:
    """Fibers take turns, first come, first served; time moves when none of them can go on."""

    def __init__(self):
        self.log, self.ready, self.sleepers = [], deque(), []
        self.now = self.started = self.slept = 0

    def run(self, program):
        around = {"service": "outside", "scope": None}
        main = self.start(None, lambda me: self.go(me, program, New(**around, fibers=(me,))))
        while main.end is None and (self.ready or self.sleepers):
            if self.ready:
                next((thread := self.ready.popleft()).steps, None)  # to its end, or to where it waits
                self.call_off(thread)
            else:
                due, _, wake = heappop(self.sleepers)
                self.now = due if wake() else self.now
        return main.end or ("deadlock", None)

    def start(self, parent, body):
        me = New(number=self.started, pending=(), inbox=None, token=None, end=None, watchers=[], children=[])
        me.interruptible, me.steps = parent.interruptible if parent else True, self.life(me, body)
        self.started += 1
        self.ready.append(me)
        if parent:
            parent.children.append(me)
        return me

    def life(self, me, body):
        end = me.inbox or (yield from end_of(body(me)))
        me.interruptible = False
        yield from self.interrupt(me, me.children)
        me.end = ("bad", combine(end[1], me.pending)) if end[0] == "bad" else end
        for watch in me.watchers:
            watch(me.end)

    def wait(self, me, register):
        token = me.token = object()

        def resume(end=DONE):
            current = me.token is token
            if current:
                me.token, me.inbox = None, end
                self.ready.append(me)
            return current

        register(resume)
        yield
        return value_of(me.inbox)

    def call_off(self, thread, by=()):
        thread.pending = combine(thread.pending, by)
        if thread.end is None and thread.pending and thread.interruptible:
            thread.inbox = ("bad", thread.pending)
            if thread.token:
                thread.token = None
                self.ready.append(thread)

    def interrupt(self, me, threads):
        for thread in (alive := [thread for thread in threads if thread.end is None]):
            self.call_off(thread, [("interrupt", me.number)])
        for thread in alive:
            strike(me)
            if thread is not me:
                yield from self.ended(me, thread)

    def ended(self, me, thread):
        def watch(go):
            thread.watchers.append(lambda end: go(("ok", end)))

        return thread.end or (yield from self.wait(me, watch))

    def region(self, me, interruptible, steps):
        before, me.interruptible = me.interruptible, interruptible
        try:
            strike(me)
            return (yield from steps)
        finally:
            me.interruptible = before

    def finalized(self, me, steps, finalizer):
        end = yield from end_of(steps)
        last = yield from end_of(self.region(me, False, finalizer(end)))
        if last[0] == "bad":
            raise Bad(last[1] if end[0] == "ok" else combine(end[1], last[1]))
        if end[0] == "ok":
            strike(me)
        return value_of(end)

    def go(self, me, program, around):
        def sub(part):
            return self.go(me, part, around)

        match program:
            case "succeed", value:
                return value
            case ("fail" | "die") as kind, name:
                raise Bad(((kind, name),))
            case "log", what:
                self.log.append(what)
                return what
            case "map", p, tag:
                return (yield from sub(p)), tag
            case "then", p, q:
                return (yield from sub(p)), (yield from sub(q))
            case ("exit" | "catch" | "cause") as kind, p, *q:
                end = yield from end_of(sub(p))
                if end[0] == "ok":
                    return end if kind == "exit" else end[1]
                if me.pending and me.interruptible:  # it is being interrupted: nothing recovers
                    raise Bad(combine([reason for reason in end[1] if reason[0] != "fail"], me.pending))
                if kind == "exit":
                    return end
                errors = [what for how, what in end[1] if how == "fail"]
                if kind == "catch" and (not errors or any(how == "die" for how, _ in end[1])):
                    raise Bad(end[1])
                self.log.append(errors[0] if kind == "catch" else end)
                return (yield from sub(q[0]))
            case "ensuring", p, q:
                return (yield from self.finalized(me, sub(p), lambda end: sub(("then", ("log", end), q))))
            case ("mask" | "window") as kind, p:
                value = yield from self.region(me, kind == "window", sub(p))
                strike(me)
                return value
            case "sleep", span:
                self.slept += 1
                due = (self.now + span, self.slept)
                yield from self.wait(me, lambda go: heappush(self.sleepers, (*due, go)))
            case (("yield" | "never") as kind,):
                yield from self.wait(me, lambda go: kind == "yield" and go())
            case ("give up",):
                raise Bad((("interrupt", me.number),))
            case "fork", p, q:
                child = self.start(me, lambda thread: self.go(thread, p, around))
                return (yield from self.go(me, q, New(**{**vars(around), "fibers": (*around.fibers, child)})))
            case ("join" | "await" | "interrupt") as kind, index:
                thread = around.fibers[index % len(around.fibers)]
                if kind == "interrupt":
                    return (yield from self.interrupt(me, [thread]))
                end = yield from self.ended(me, thread)
                return value_of(end) if kind == "join" else end
            case _:
                return (yield from self.more(me, program, around))
