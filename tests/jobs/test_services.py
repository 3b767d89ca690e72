"""Services: handlers may need any, `layer=` provides them, once per engine."""

import asyncio
from datetime import UTC, datetime
from typing import Any, Protocol

import attrs
import pytest

from durable_effect import Do, Effect, Layer, Need, Tag, TypedError, provide
from durable_effect_jobs import (
    Continuous,
    ContinuousContext,
    Debounce,
    DebounceEventContext,
    DebounceExecuteContext,
    JobsClient,
    Task,
    TaskErrorContext,
    TaskEventContext,
    TaskExecuteContext,
    TaskIdleContext,
    create_durable_jobs,
)
from durable_effect_jobs.errors import ExecutionError
from durable_effect_jobs.testing import JobsTestKit

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@attrs.frozen
class Boom(TypedError):
    reason: str


class Mailer(Protocol):
    """What the handlers of these scenes need: somewhere to send a text to."""

    def send(self, text: str) -> Effect[None]: ...


class Outbox:
    """A mailer that keeps what it was given, and knows whether it is open."""

    def __init__(self) -> None:
        self.sent: list[str] = []
        self.open = True

    def send(self, text: str) -> Effect[None]:
        return Effect.sync(lambda: self.sent.append(text))


class Audit:
    """A second service, of a plain class."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def write(self, line: str) -> Effect[None]:
        return Effect.sync(lambda: self.lines.append(line))


class Works:
    """A layer that builds outboxes and keeps account of it."""

    def __init__(self) -> None:
        self.built: list[Outbox] = []
        self.released: list[Outbox] = []

    def _acquire(self) -> Outbox:
        self.built.append(Outbox())
        return self.built[-1]

    def _release(self, outbox: Outbox) -> None:
        outbox.open = False
        self.released.append(outbox)

    @property
    def layer(self) -> Any:
        return Layer.scoped(
            Mailer,
            Effect.acquire_release(
                Effect.sync(self._acquire), lambda outbox: Effect.sync(lambda: self._release(outbox))
            ),
        )


@Effect.gen
def remind(ctx: ContinuousContext[int]) -> Do[None, Boom, Need[Mailer]]:
    """Sends one text per run."""
    mailer = yield from Effect.service(Mailer)
    yield from mailer.send(f"{ctx.id} {ctx.run_count}")


def reminder(**options: Any) -> Any:
    """A job that needs a mailer and nothing else."""
    return Continuous.make(state_schema=int, schedule=Continuous.every("1 hour"), execute=remind, **options)


def start(kit: JobsTestKit, name: str = "u1", job: str = "reminder") -> Any:
    """Starts an instance of a continuous job."""
    return kit.run(kit.client.continuous(job).start(id=name, input=0))


class TestProviding:
    """A handler gets its services from the layer of its registry."""

    def test_a_handler_gets_its_service(self) -> None:
        """What the layer provides is what the handler uses."""
        outbox = Outbox()
        jobs = create_durable_jobs({"reminder": reminder()}, layer=Layer.succeed(Mailer, outbox))
        with JobsTestKit(jobs, now=NOW) as kit:
            start(kit)
            kit.advance("2 hours")
        assert outbox.sent == ["u1 1", "u1 2", "u1 3"]

    def test_several_services(self) -> None:
        """A merged layer serves handlers that need several services."""
        outbox, audit = Outbox(), Audit()

        @Effect.gen
        def execute(ctx: ContinuousContext[int]) -> Do[None, Boom, Need[Mailer] | Need[Audit]]:
            yield from (yield from Effect.service(Mailer)).send("sent")
            yield from (yield from Effect.service(Audit)).write("written")

        job = Continuous.make(state_schema=int, schedule=Continuous.every("1 hour"), execute=execute)
        layer = Layer.succeed(Mailer, outbox).merge(Layer.succeed(Audit, audit))
        with JobsTestKit(create_durable_jobs({"reminder": job}, layer=layer), now=NOW) as kit:
            start(kit)
        assert (outbox.sent, audit.lines) == (["sent"], ["written"])

    def test_a_service_built_from_another(self) -> None:
        """A layer that was itself provided with what it needs is complete."""
        audit = Audit()

        class Audited:
            def __init__(self, log: Audit) -> None:
                self.log = log

            def send(self, text: str) -> Effect[None]:
                return self.log.write(f"sent {text}")

        mailer = Layer.effect(Mailer, Effect.service(Audit).map(Audited))
        layer = mailer.pipe(provide(Layer.succeed(Audit, audit)))
        with JobsTestKit(create_durable_jobs({"reminder": reminder()}, layer=layer), now=NOW) as kit:
            start(kit)
        assert audit.lines == ["sent u1 1"]

    def test_a_tag_is_a_key(self) -> None:
        """A service may be known by a tag instead of a class."""
        limit: Tag[int] = Tag("limit")
        seen: list[int] = []

        @Effect.gen
        def execute(ctx: ContinuousContext[int]) -> Do[None, Boom, Need[int]]:
            seen.append((yield from Effect.service(limit)))

        job = Continuous.make(state_schema=int, schedule=Continuous.every("1 hour"), execute=execute)
        jobs = create_durable_jobs({"reminder": job}, layer=Layer.succeed(limit, 7))
        with JobsTestKit(jobs, now=NOW) as kit:
            start(kit)
        assert seen == [7]

    def test_every_handler_of_every_kind(self) -> None:
        """All handlers of all kinds may need services."""
        audit = Audit()

        def handler(name: str) -> Any:
            return Effect.service(Audit).flat_map(lambda log: log.write(name))

        def run(ctx: ContinuousContext[int]) -> Any:
            return handler("continuous execute")

        def collect(ctx: DebounceEventContext[str, str]) -> Any:
            return handler("debounce on_event").map(lambda _: ctx.event)

        def flush(ctx: DebounceExecuteContext[str]) -> Any:
            return handler("debounce execute")

        def on_event(event: str, ctx: TaskEventContext[str]) -> Any:
            return handler("task on_event").flat_map(lambda _: ctx.schedule("1 second"))

        def execute(ctx: TaskExecuteContext[str]) -> Any:
            return handler("task execute").flat_map(lambda _: Effect.fail(Boom("no luck")))

        def on_error(error: object, ctx: TaskErrorContext[str]) -> Any:
            return handler("task on_error")

        def on_idle(ctx: TaskIdleContext[str]) -> Any:
            return handler("task on_idle")

        jobs = create_durable_jobs(
            {
                "run": Continuous.make(state_schema=int, schedule=Continuous.every("1 day"), execute=run),
                "batch": Debounce.make(
                    event_schema=str, flush_after="1 second", on_event=collect, execute=flush
                ),
                "order": Task.make(
                    state_schema=str,
                    event_schema=str,
                    on_event=on_event,
                    execute=execute,
                    on_error=on_error,
                    on_idle=on_idle,
                ),
            },
            layer=Layer.succeed(Audit, audit),
        )
        with JobsTestKit(jobs, now=NOW) as kit:
            start(kit, job="run")
            kit.run(kit.client.debounce("batch").add(id="d1", event="hello"))
            kit.advance("1 second")
            kit.run(kit.client.task("order").send(id="t1", event="placed"))
            kit.advance("1 second")
        assert audit.lines == [
            "continuous execute",
            "debounce on_event",
            "debounce execute",
            "task on_event",
            "task execute",
            "task on_error",
            "task on_idle",
        ]

    def test_the_caller_needs_nothing(self) -> None:
        """A call to a job whose handlers need services needs none itself: it can be run as it is."""
        works = Works()
        jobs = create_durable_jobs({"reminder": reminder()}, layer=works.layer)

        async def call() -> Any:
            async with jobs.connect("memory://") as client:
                return await client.continuous("reminder").start(id="u1", input=0)

        assert asyncio.run(call()).created is True
        assert works.built[0].sent == ["u1 1"]

    def test_jobs_that_need_nothing_need_no_layer(self) -> None:
        """Without needs there is nothing to provide."""
        job = Continuous.make(
            state_schema=int, schedule=Continuous.every("1 hour"), execute=lambda ctx: Effect.void
        )
        with JobsTestKit(create_durable_jobs({"reminder": job}), now=NOW) as kit:
            assert start(kit).created is True


class TestOncePerEngine:
    """Services are built once, and released at the end."""

    def test_built_once_for_all_runs(self) -> None:
        """All runs of all instances share one service."""
        works = Works()
        jobs = create_durable_jobs({"a": reminder(), "b": reminder()}, layer=works.layer)
        with JobsTestKit(jobs, now=NOW) as kit:
            for job in ("a", "b"):
                for name in ("u1", "u2"):
                    start(kit, name, job)
            kit.advance("1 day")
        assert len(works.built) == 1
        assert len(works.built[0].sent) == 4 * 25

    def test_open_while_the_engine_runs(self) -> None:
        """A service is not released between runs, only at the end."""
        works = Works()
        jobs = create_durable_jobs({"reminder": reminder()}, layer=works.layer)
        with JobsTestKit(jobs, now=NOW) as kit:
            start(kit)
            kit.advance("1 day")
            assert works.released == []
            assert works.built[0].open
        assert works.released == works.built

    def test_released_after_a_failed_test_too(self) -> None:
        """A kit that is left by an exception releases what it has built."""
        works = Works()
        jobs = create_durable_jobs({"reminder": reminder()}, layer=works.layer)
        with pytest.raises(Boom), JobsTestKit(jobs, now=NOW) as kit:
            kit.run(
                kit.client.continuous("reminder")
                .start(id="u1", input=0)
                .flat_map(lambda _: Effect.fail(Boom("x")))
            )
        assert works.released == works.built

    def test_released_in_reverse(self) -> None:
        """What was built last is released first."""
        order: list[str] = []

        def step(name: str) -> Any:
            return Effect.acquire_release(
                Effect.sync(lambda: order.append(f"open {name}")),
                lambda _: Effect.sync(lambda: order.append(f"close {name}")),
            )

        audit = Layer.scoped(Audit, step("audit").map(lambda _: Audit()))
        mailer = Layer.scoped(
            Mailer, Effect.service(Audit).flat_map(lambda _: step("mailer")).map(lambda _: Outbox())
        )
        jobs = create_durable_jobs({"reminder": reminder()}, layer=mailer.pipe(provide(audit)))
        with JobsTestKit(jobs, now=NOW) as kit:
            start(kit)
        assert order == ["open audit", "open mailer", "close mailer", "close audit"]

    def test_each_engine_builds_its_own(self) -> None:
        """Two engines of one registry do not share services."""
        works = Works()
        jobs = create_durable_jobs({"reminder": reminder()}, layer=works.layer)
        for _ in range(2):
            with JobsTestKit(jobs, now=NOW) as kit:
                start(kit)
        assert len(works.built) == 2
        assert works.released == works.built

    def test_a_restarted_engine_builds_anew(self) -> None:
        """What was in memory is gone after a crash: the next engine builds its services again."""
        works = Works()
        jobs = create_durable_jobs({"reminder": reminder()}, layer=works.layer)
        with JobsTestKit(jobs, now=NOW) as kit:
            start(kit)
            kit.restart()
            kit.advance("1 hour")
        assert [outbox.sent for outbox in works.built] == [["u1 1"], ["u1 2"]]

    def test_built_once_per_connection(self) -> None:
        """A connection builds its services once and releases them when it ends."""
        works = Works()
        jobs = create_durable_jobs({"reminder": reminder()}, layer=works.layer)

        async def scene() -> None:
            async with jobs.connect("memory://") as client:
                for name in ("u1", "u2", "u3"):
                    await client.continuous("reminder").start(id=name, input=0)
                assert len(works.built) == 1
                assert works.released == []
            assert works.released == works.built

        asyncio.run(scene())

    def test_released_when_the_body_fails(self) -> None:
        """A connection that is left by an exception releases what it has built, and passes it on."""
        works = Works()
        jobs = create_durable_jobs({"reminder": reminder()}, layer=works.layer)

        async def scene() -> None:
            async with jobs.connect("memory://") as client:
                await client.continuous("reminder").start(id="u1", input=0)
                raise Boom("no luck")

        with pytest.raises(Boom):
            asyncio.run(scene())
        assert works.released == works.built


class TestTheKitsLayer:
    """A kit may bring services of its own."""

    def test_it_provides_what_the_registry_does_not(self) -> None:
        """The layer of the kit serves a registry without one."""
        outbox = Outbox()
        jobs = create_durable_jobs({"reminder": reminder()})
        with JobsTestKit(jobs, now=NOW, layer=Layer.succeed(Mailer, outbox)) as kit:
            start(kit)
        assert outbox.sent == ["u1 1"]

    def test_it_stands_in_for_the_registry_s_own(self) -> None:
        """A test double in the kit's layer is used instead of the real service."""
        real, double = Outbox(), Outbox()
        jobs = create_durable_jobs({"reminder": reminder()}, layer=Layer.succeed(Mailer, real))
        with JobsTestKit(jobs, now=NOW, layer=Layer.succeed(Mailer, double)) as kit:
            start(kit)
        assert (real.sent, double.sent) == ([], ["u1 1"])


class TestMissing:
    """A service that nobody provides is noticed at connect, not in the first night."""

    @staticmethod
    def connect(jobs: Any) -> None:
        async def scene() -> None:
            async with jobs.connect("memory://"):
                pass

        asyncio.run(scene())

    def test_no_layer_at_all(self) -> None:
        """Connecting a job whose handler needs a service without a layer fails with the service's name."""
        with pytest.raises(TypedError, match="Mailer"):
            self.connect(create_durable_jobs({"reminder": reminder()}))

    def test_a_layer_that_lacks_one(self) -> None:
        """A layer that provides something else is as good as none."""
        jobs = create_durable_jobs({"reminder": reminder()}, layer=Layer.succeed(Audit, Audit()))
        with pytest.raises(TypedError, match="Mailer"):
            self.connect(jobs)

    def test_what_is_there_is_not_complained_about(self) -> None:
        """Only what is missing is named."""

        @Effect.gen
        def execute(ctx: ContinuousContext[int]) -> Do[None, Boom, Need[Mailer] | Need[Audit]]:
            yield from (yield from Effect.service(Mailer)).send("sent")
            yield from (yield from Effect.service(Audit)).write("written")

        job = Continuous.make(state_schema=int, schedule=Continuous.every("1 hour"), execute=execute)
        jobs = create_durable_jobs({"reminder": job}, layer=Layer.succeed(Audit, Audit()))
        with pytest.raises(TypedError, match="Mailer") as missing:
            self.connect(jobs)
        assert "Audit" not in str(missing.value)

    def test_a_service_of_on_event(self) -> None:
        """The needs of every handler count, not only those of `execute`."""

        @Effect.gen
        def on_event(event: str, ctx: TaskEventContext[str]) -> Do[None, Boom, Need[Mailer]]:
            yield from (yield from Effect.service(Mailer)).send(event)

        job = Task.make(
            state_schema=str, event_schema=str, on_event=on_event, execute=lambda ctx: Effect.void
        )
        with pytest.raises(TypedError, match="Mailer"):
            self.connect(create_durable_jobs({"order": job}))

    def test_a_handler_that_does_not_say_what_it_needs(self) -> None:
        """Without an annotation the service is missed by the run, whose error names it."""
        job = Continuous.make(
            state_schema=int,
            schedule=Continuous.every("1 hour"),
            execute=lambda ctx: Effect.service(Mailer).flat_map(lambda mailer: mailer.send("sent")),
        )
        jobs: Any = create_durable_jobs({"reminder": job})
        with JobsTestKit(jobs, now=NOW) as kit:
            with pytest.raises(ExecutionError, match="Mailer"):
                start(kit)
            assert "Mailer" in str(kit.run(kit.client.continuous("reminder").status("u1")).last_error)

    def test_a_complete_layer_connects(self) -> None:
        """With all services there connecting is silent."""
        self.connect(create_durable_jobs({"reminder": reminder()}, layer=Layer.succeed(Mailer, Outbox())))


class TestFailingLayers:
    """A layer may fail to build."""

    def test_its_error_is_the_error_of_connect(self) -> None:
        """A typed error of the layer is what connecting raises."""
        layer = Layer.effect(Mailer, Effect.fail(Boom("no mail today")))
        jobs = create_durable_jobs({"reminder": reminder()}, layer=layer)
        with pytest.raises(Boom, match="no mail today"):
            TestMissing.connect(jobs)

    def test_what_was_built_before_is_released(self) -> None:
        """When a later part of the layer fails, earlier parts are released."""
        works = Works()
        failing = Layer.effect(
            Audit, Effect.service(Mailer).flat_map(lambda _: Effect.fail(Boom("no audit")))
        )
        layer = failing.pipe(provide(works.layer)).merge(works.layer)
        jobs = create_durable_jobs({"reminder": reminder()}, layer=layer)
        with pytest.raises(Boom):
            TestMissing.connect(jobs)
        assert works.released == works.built != []

    def test_an_error_of_a_service_is_an_error_of_the_run(self) -> None:
        """A service that fails in a handler fails the run, under its own name."""

        class Broken:
            def send(self, text: str) -> Any:
                return Effect.fail(Boom("no mail today"))

        broken: Any = Broken()
        jobs = create_durable_jobs({"reminder": reminder()}, layer=Layer.succeed(Mailer, broken))
        with JobsTestKit(jobs, now=NOW) as kit:
            with pytest.raises(ExecutionError, match="no mail today"):
                start(kit)
            assert kit.run(kit.client.continuous("reminder").status("u1")).status == "running"


class TestTheClientAsAService:
    """`jobs.layer(url)` provides the client to effect programs."""

    def test_a_program_gets_the_client(self) -> None:
        """An effect that needs a `JobsClient` runs under the layer of the jobs."""
        outbox = Outbox()
        jobs = create_durable_jobs({"reminder": reminder()}, layer=Layer.succeed(Mailer, outbox))

        @Effect.gen
        def program() -> Do[int, Any, Need[JobsClient]]:
            client = yield from Effect.service(JobsClient)
            yield from client.continuous("reminder").start(id="u1", input=0)
            yield from client.continuous("reminder").trigger("u1")
            return (yield from client.continuous("reminder").status("u1")).run_count

        assert Effect.run(program() | provide(jobs.layer("memory://"))) == 2
        assert outbox.sent == ["u1 1", "u1 2"]

    def test_the_engine_ends_with_the_program(self) -> None:
        """When the program is done the services of the jobs are released."""
        works = Works()
        jobs = create_durable_jobs({"reminder": reminder()}, layer=works.layer)

        @Effect.gen
        def program() -> Do[None, Any, Need[JobsClient]]:
            client = yield from Effect.service(JobsClient)
            yield from client.continuous("reminder").start(id="u1", input=0)

        Effect.run(program() | provide(jobs.layer("memory://")))
        assert works.released == works.built != []
