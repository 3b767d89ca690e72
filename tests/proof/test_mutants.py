"""Broken copies of the protocol, and the tests that find each of them out."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from tempfile import TemporaryDirectory

import pytest
from broken_sources import MUTANTS, Mutant
from run_on_copy import NOTICED

import durable_effect_jobs

ROOT = Path(__file__).parents[2]
PACKAGE = Path(str(durable_effect_jobs.__file__)).parent
MEMORY = Path("/dev/shm")
AT_ONCE = 2

TESTS = sorted({mutant.test for mutant in MUTANTS})


@contextmanager
def copied() -> Iterator[Path]:
    """A folder with the package in it."""
    with TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as folder:
        copy = Path(folder).resolve()
        shutil.copytree(PACKAGE, copy / PACKAGE.name)
        yield copy


class Runner:
    """Runs tests on copies, one after the other."""

    def __init__(self) -> None:
        quiet = ["-x", "-q", "--no-header", "--tb=line", "-p", "no:cacheprovider"]
        # What the runner has loaded already needs no rewriting: its own assertions are of no interest.
        quiet += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]
        settings = ["-c", f"{ROOT}/pyproject.toml", "--rootdir", str(ROOT)]
        self._process = subprocess.Popen(
            [sys.executable, f"{ROOT}/tests/proof/run_on_copy.py", *quiet, *settings],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, copy: Path, *tests: str) -> tuple[int, str]:
        """The code that the run ended with, and what was said."""
        asked, answers = self._process.stdin, self._process.stdout
        assert asked is not None
        assert answers is not None
        asked.write("\t".join([str(copy), *(f"{ROOT}/tests/{test}" for test in tests)]) + "\n")
        asked.flush()
        return int(answers.readline()), (copy / "said").read_text()[-4_000:]

    def run_broken(self, mutant: Mutant) -> tuple[int, str]:
        """Run a mutant's test on it."""
        with copied() as copy:
            file = copy / "durable_effect_jobs" / mutant.file
            source = mutant.broken(file.read_text())
            compile(source, file, "exec")
            for former in (file.parent / "__pycache__").glob(f"{file.stem}.*.pyc"):
                former.unlink()  # which one is run must not hang on the clock of the file system
            file.write_text(source)
            return self.run(copy, mutant.test)

    def close(self) -> None:
        """End it."""
        self._process.communicate()


@contextmanager
def runner() -> Iterator[Runner]:
    """A runner, until it is done."""
    made = Runner()
    try:
        yield made
    finally:
        made.close()


@pytest.fixture(scope="module")
def outcomes(request: pytest.FixtureRequest) -> Iterator[dict[str, Future[tuple[int, str]]]]:
    """Of the mutants that are to be tested, two at a time."""
    wanted = {
        item.callspec.params["mutant"].name
        for item in request.session.items
        if isinstance(item, pytest.Function) and item.path == request.path and "mutant" in item.fixturenames
    }
    pool = ThreadPoolExecutor(AT_ONCE)
    with runner() as one, runner() as another:
        idle = SimpleQueue[Runner]()
        idle.put(one)
        idle.put(another)

        def run(mutant: Mutant) -> tuple[int, str]:
            mine = idle.get()
            try:
                return mine.run_broken(mutant)
            finally:
                idle.put(mine)

        try:
            yield {mutant.name: pool.submit(run, mutant) for mutant in MUTANTS if mutant.name in wanted}
        finally:
            pool.shutdown(cancel_futures=True)


def test_the_tests_pass_on_a_copy_that_is_not_broken() -> None:
    """Or what they say of a broken one would mean nothing."""
    with copied() as copy, runner() as one:
        code, said = one.run(copy, *TESTS)
    assert code == 0, said


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_broken_copy_is_found_out(mutant: Mutant, outcomes: dict[str, Future[tuple[int, str]]]) -> None:
    """The test that has to notice it fails."""
    code, said = outcomes[mutant.name].result()
    assert code == NOTICED, f"{mutant.name}: not found out by {mutant.test} ({code})\n{said}"


def test_the_score(outcomes: dict[str, Future[tuple[int, str]]], report: Callable[..., None]) -> None:
    """All are found out."""
    found = sum(future.result()[0] == NOTICED for future in outcomes.values())
    report("mutants", broken_copies=len(outcomes), found_out=found, survivors=len(outcomes) - found)
    assert found == len(outcomes)
