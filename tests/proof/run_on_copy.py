"""Run tests on copies of ``durable_effect_jobs``, one run after the other, each in a process of its own.

``python run_on_copy.py ARGUMENTS-OF-PYTEST...`` reads from its input, line by line, the folder of a copy and
the tests to run there, with tabs between; and answers with a line: 0 when they pass, ``NOTICED`` when one
fails, and anything else otherwise, for a copy that cannot even be imported is no proof of the tests. What the
run said is in the file ``said`` beside the copy.

What costs most of a short run is loading what all of them need, the effect core included. So that is done
once, and each run is a fork.
"""

import os
import sys
import traceback
from pathlib import Path

import hypothesis.stateful
import pytest

import durable_effect.schema
import durable_effect.testing  # noqa: F401 - loaded once for all runs

NOTICED = 10
_ELSE = 20


class OnlyTheCopy:
    """Refuses to begin on any other package, such as the one that is installed."""

    def __init__(self, copy: Path) -> None:
        self._copy = copy

    def pytest_sessionstart(self) -> None:
        import durable_effect_jobs

        found = Path(str(durable_effect_jobs.__file__))
        if not found.is_relative_to(self._copy):
            pytest.exit(f"{found} is not in {self._copy}", returncode=_ELSE)


def _run(copy: Path, arguments: list[str]) -> int:
    said = os.open(copy / "said", os.O_WRONLY | os.O_CREAT)
    os.dup2(said, 1)
    os.dup2(said, 2)
    os.chdir(copy)
    sys.path.insert(0, str(copy))
    os.environ["PYTHONPATH"] = str(copy)  # for the processes that tests start
    hypothesis.configuration.set_hypothesis_home_dir(copy / ".hypothesis")
    code = pytest.main(arguments, plugins=[OnlyTheCopy(copy)])
    return {pytest.ExitCode.OK: 0, pytest.ExitCode.TESTS_FAILED: NOTICED}.get(pytest.ExitCode(code), _ELSE)


def _forked(copy: Path, arguments: list[str]) -> int:
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    code = _ELSE
    try:
        code = _run(copy, arguments)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    for line in sys.stdin:
        folder, *tests = line.rstrip("\n").split("\t")
        print(_forked(Path(folder), [*sys.argv[1:], *tests]), flush=True)
