"""Broken copies of the protocol, and the tests that find each of them out."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from broken_sources import MUTANTS, Mutant
from run_on_copy import NOTICED

import durable_effect
import durable_effect_jobs

ROOT = Path(__file__).parents[2]
PACKAGES = [Path(str(package.__file__)).parent for package in (durable_effect, durable_effect_jobs)]
MEMORY = Path("/dev/shm")
AT_ONCE = 2
PATIENCE = 120

TESTS = sorted({mutant.test for mutant in MUTANTS})


@contextmanager
def copied() -> Iterator[Path]:
    """A folder with the packages in it."""
    with TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as folder:
        copy = Path(folder).resolve()
        for package in PACKAGES:
            shutil.copytree(package, copy / package.name)
        yield copy


def run(copy: Path, *tests: str) -> tuple[int, str]:
    """Run tests on a copy: the code that it ended with, and what was said."""
    here = [f"{ROOT}/tests/{test}" for test in tests]
    quiet = ["-x", "-q", "--no-header", "--tb=line", "-p", "no:cacheprovider"]
    settings = ["-c", f"{ROOT}/pyproject.toml", "--rootdir", str(ROOT)]
    ended = subprocess.run(
        [sys.executable, f"{ROOT}/tests/proof/run_on_copy.py", str(copy), *quiet, *settings, *here],
        cwd=copy,
        env=os.environ | {"PYTHONPATH": str(copy), "HYPOTHESIS_STORAGE_DIRECTORY": f"{copy}/.hypothesis"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    return ended.returncode, ended.stdout[-4_000:]


def broken(mutant: Mutant) -> tuple[int, str]:
    """Run a mutant's test on it."""
    with copied() as copy:
        file = copy / "durable_effect_jobs" / mutant.file
        source = mutant.broken(file.read_text())
        compile(source, file, "exec")
        for former in (file.parent / "__pycache__").glob(f"{file.stem}.*.pyc"):
            former.unlink()  # which one is run must not hang on the clock of the file system
        file.write_text(source)
        return run(copy, mutant.test)


@pytest.fixture(scope="module")
def outcomes(request: pytest.FixtureRequest) -> Iterator[dict[str, Future[tuple[int, str]]]]:
    """Of the mutants that are to be tested, two at a time."""
    wanted = {
        item.callspec.params["mutant"].name
        for item in request.session.items
        if isinstance(item, pytest.Function) and item.path == request.path and "mutant" in item.fixturenames
    }
    pool = ThreadPoolExecutor(AT_ONCE)
    try:
        yield {mutant.name: pool.submit(broken, mutant) for mutant in MUTANTS if mutant.name in wanted}
    finally:
        pool.shutdown(cancel_futures=True)


def test_the_tests_pass_on_a_copy_that_is_not_broken() -> None:
    """Or what they say of a broken one would mean nothing."""
    with copied() as copy:
        code, said = run(copy, *TESTS)
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
