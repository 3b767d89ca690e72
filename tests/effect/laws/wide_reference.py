"""The rest of the language, said in terms of the reference interpreter: services, scopes, many fibers."""

from types import SimpleNamespace as New

from reference import Bad, Reference, combine, end_of, strike, value_of


def changed(end, change):
    return end if end[0] == "ok" else ("bad", tuple(change(*reason) for reason in end[1]))


def why(ends):
    """What went wrong; that some were called off because others failed is no reason of its own."""
    cause = combine(*(end[1] for end in ends if end[0] == "bad"))
    real = tuple(reason for reason in cause if reason[0] != "interrupt")
    return ("bad", real or cause) if cause else ("ok", None)


def first_success(ends):
    """How a race ends, as soon as that is known."""
    return ends[-1] if ends[-1][0] == "ok" else why(ends) if len(ends) == 2 else None


class WideReference(Reference):
    """The reference interpreter, and what is built upon it."""

    def more(self, me, program, around):
        def sub(part, **changes):
            return self.go(me, part, New(**{**vars(around), **changes}))

        def child(part):
            return lambda thread: self.go(thread, part, around)

        match program:
            case ("ask",):
                return around.service
            case "provide", service, p:
                return (yield from sub(p, service=service))
            case "map error", p:
                end = yield from end_of(sub(p))
                return value_of(changed(end, lambda how, what: (how, what + "'" if how == "fail" else what)))
            case "or die", p:
                end = yield from end_of(sub(p))
                if end[0] == "bad" and me.pending and me.interruptible:
                    raise Bad(combine([reason for reason in end[1] if reason[0] != "fail"], me.pending))
                return value_of(changed(end, lambda how, what: ("die" if how == "fail" else how, what)))
            case "try", p, q:  # `except TypedError` in a do-block: it sees whatever flies by
                end = yield from end_of(sub(p))
                reasons = sorted(end[1] if end[0] == "bad" else (), key=lambda reason: reason[0] != "fail")
                thrown = [what for how, what in reasons if how != "interrupt"][:1]
                if not thrown or thrown[0].startswith("d") or (me.pending and me.interruptible):
                    return value_of(end)
                self.log.append(thrown[0])
                return (yield from sub(q))
            case "finally", p, q:  # in a do-block: another failure takes the place of the first
                end = yield from end_of(sub(p))
                if end[0] == "bad" and me.pending and me.interruptible:
                    last = yield from end_of(self.region(me, False, sub(q)))
                    end = ("bad", combine(end[1], last[1])) if last[0] == "bad" else end
                else:
                    yield from sub(q)
                return value_of(end)
            case "restore", p, q:
                allowed = me.interruptible
                value = yield from self.region(me, False, self.restored(me, sub(p), allowed, sub(q)))
                strike(me)
                return value
            case "scoped", p:
                scope = New(finalizers=[], open=True)
                return (yield from self.finalized(me, sub(p, scope=scope), lambda _: self.close(me, scope)))
            case "acquire", p, name, q:

                def release(closing):  # whoever closes the scope runs it
                    self.log.append(("released", name))
                    yield from self.go(closing, q, around)

                yield from self.region(me, False, self.acquire(me, sub(p), around.scope, name, release))
                strike(me)
                return name
            case "all", parts, 1:
                values = []
                for part in parts:
                    values.append((yield from sub(part)))
                return tuple(values)
            case "all", parts, at_once:
                values, rest = {}, iter(list(enumerate(parts)))

                def work(thread):
                    for index, part in rest:
                        values[index] = yield from self.go(thread, part, around)

                count = min(at_once, len(parts))

                def all_or_none(ends):
                    return ("ok", None) if len(ends) == count or ends[-1][0] == "bad" else None

                yield from self.together(me, [work] * count, all_or_none, lambda ends: value_of(why(ends)))
                return tuple(values[index] for index in range(len(parts)))
            case "race", p, q:
                return (yield from self.together(me, [child(p), child(q)], first_success, lambda _: None))
            case "timeout", span, p:
                timer = ("map", ("window", ("sleep", span)), "late")
                both = [child(("map", p, "in time")), child(timer)]
                value, when = yield from self.together(me, both, lambda ends: ends[0], lambda _: None)
                return value if when == "in time" else value_of(("bad", (("fail", "timeout"),)))

    def restored(self, me, first, allowed, second):
        a = yield from first
        b = yield from self.region(me, allowed, second)
        return a, b

    def acquire(self, me, steps, scope, name, release):
        yield from steps
        self.log.append(("acquired", name))
        if scope.open:
            scope.finalizers.append(release)
        else:
            yield from release(me)

    def close(self, me, scope):
        scope.open, cause = False, ()
        while scope.finalizers:
            last = yield from end_of(scope.finalizers.pop()(me))
            cause = combine(cause, last[1] if last[0] == "bad" else ())
        value_of(("bad", cause) if cause else ("ok", None))

    def together(self, me, bodies, decide, check):
        threads, ends = [self.start(me, body) for body in bodies], []

        def watch(go):
            def ended(end):
                ends.append(end)
                decision = decide(ends)
                if decision:
                    go(decision)

            for thread in threads:
                thread.watchers.append(ended)
            if not threads:
                go()

        def stop(_):
            yield from self.interrupt(me, threads)
            check(ends)

        return (yield from self.finalized(me, self.wait(me, watch), stop))
