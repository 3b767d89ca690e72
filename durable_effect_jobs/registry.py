"""Names to definitions: which jobs there are, and the bounds that hold for all of them."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from typing_extensions import Self

from durable_effect_jobs.attempt import job_logger
from durable_effect_jobs.errors import Kind
from durable_effect_jobs.instance import text_problem
from durable_effect_jobs.step import Job, Limits
from durable_effect_jobs.storage import JobName

__all__ = ["Registry"]

_LONGEST_NAME = 128


class Registry:
    """The jobs of one application, by kind and name."""

    def __init__(
        self,
        definitions: Mapping[str, Job[Any, Any]],
        *,
        limits: Limits,
        telemetry: bool = False,
        include_state: bool = False,
    ) -> None:
        self._jobs: dict[JobName, Job[Any, Any]] = {}
        self._names: dict[Job[Any, Any], str] = {}
        self.limits = limits
        self.telemetry = telemetry
        """Whether steps put their events into the storage's outbox."""
        self.include_state = include_state
        """Whether those events carry states and inputs."""
        for name, job in definitions.items():
            self._add(name, job)

    def _add(self, name: str, job: Job[Any, Any]) -> None:
        if text_problem("job name", name) is not None or len(name) > _LONGEST_NAME or ":" in name:
            raise ValueError(f'a job name is text, 1 to {_LONGEST_NAME} characters without ":", not {name!r}')
        if not isinstance(job, Job):  # pyright: ignore[reportUnnecessaryIsInstance] - callers may be untyped
            raise ValueError(
                f"{name!r} is no job definition but a {type(job).__name__}: make one with Continuous.make, "
                "Debounce.make or Task.make"
            )
        if job in self._names:
            raise ValueError(
                f"one definition is registered as {self._names[job]!r} and as {name!r}: make two"
            )
        self._jobs[job.kind, name] = job
        self._names[job] = name
        job_logger(job.kind, name).setLevel(job.log_level)

    def with_telemetry(self) -> Self:
        """The same jobs, with their events recorded."""
        recording = copy.copy(self)
        recording.telemetry = True
        return recording

    def find(self, kind: Kind, name: str) -> Job[Any, Any] | None:
        """The job of this kind and name."""
        return self._jobs.get((kind, name))

    def name_of(self, job: Job[Any, Any]) -> str | None:
        """What a definition is registered as."""
        return self._names.get(job)

    def names(self, kind: Kind) -> tuple[str, ...]:
        """The names of this kind's jobs."""
        return tuple(name for its_kind, name in self._jobs if its_kind == kind)

    @property
    def jobs(self) -> Mapping[JobName, Job[Any, Any]]:
        """Every job, by kind and name."""
        return self._jobs
