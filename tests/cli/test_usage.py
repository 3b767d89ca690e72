"""What is asked in a way that cannot be meant: one message, exit code 2, no traceback."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest
from terminal import Said, Terminal

STORAGE = ["--storage", "sqlite:///jobs.db"]
COMMANDS = (
    "demo",
    "run",
    "ls",
    "show",
    "doctor",
    "retry",
    "resume",
    "dead",
    "replay",
    "purge",
    "trigger",
    "terminate",
    "next",
)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["fly"], "fly"),
        (["ls"], "--storage"),
        (["ls", "--storage", "jobs.db"], "write sqlite:///jobs.db"),
        (["ls", "--storage", "oracle://db"], "no storage has this scheme"),
        (["ls", "--storage", "memory://"], "name the storage of the host"),
        (["ls", *STORAGE, "--kind", "daily"], "--kind"),
        (["ls", *STORAGE, "--limit", "0"], "--limit"),
        (["ls", *STORAGE, "--limit", "many"], "--limit"),
        (["ls", *STORAGE, "--colour"], "--colour"),
        (["show", *STORAGE], "INSTANCE_ID"),
        (["show", "user-123", *STORAGE], "that is kind:job:id"),
        (["show", "continuous:refresher", *STORAGE], "that is kind:job:id"),
        (["show", "daily:refresher:u1", *STORAGE], "kinds are continuous, debounce, task"),
        (["show", "continuous:refresher:", *STORAGE], "1 to 512 characters"),
        (["trigger", "continuous:refresher:u1", "--storage", "memory://"], "name the storage of the host"),
        (["trigger", "continuous:refresher:u1", *STORAGE, "--jobs", "app"], "'app' is no module:attribute"),
        (["terminate", "u1", *STORAGE], "that is kind:job:id"),
        (["ls", *STORAGE, "--state", "asleep"], "--state"),
        (["ls", *STORAGE, "--older-than", "long"], "--older-than: span: cannot read 'long'"),
        (["doctor"], "--storage"),
        (["doctor", "--storage", "memory://"], "name the storage of the host"),
        (["doctor", "--storage", "sqlite:///:memory:"], "name the storage of the host"),
        (["doctor", *STORAGE, "--lease", "soon"], "--lease"),
        (["retry", *STORAGE], "retry which?"),
        (["resume", *STORAGE, "--dry-run"], "resume which?"),
        (["retry", "task:a:b", *STORAGE, "--all"], "either the ones that are named"),
        (["retry", "b", *STORAGE], "that is kind:job:id"),
        (["replay", "0", *STORAGE], "0 is no number of a dead letter"),
        (["purge", "9" * 5000, *STORAGE], "is no number of a dead letter"),
        (["replay", "--state", "stopped", *STORAGE], "replay is not for what is stopped, but for dead"),
        (["purge", "1", *STORAGE, "--jobs", "app"], "'app' is no module:attribute"),
        (["run", "app:jobs"], "--storage"),
        (["run", "app:jobs", "--storage", "jobs.db"], "write sqlite:///jobs.db"),
        (["run", "app:jobs", *STORAGE, "--log-level", "loud"], "--log-level"),
        (["run", "app", *STORAGE], "'app' is no module:attribute"),
        (["run", ":jobs", *STORAGE], "':jobs' is no module:attribute"),
        (["run", "app:", *STORAGE], "'app:' is no module:attribute"),
        (["run", "nowhere:jobs", *STORAGE], "there is no module 'nowhere'"),
        (["run", "nowhere.at.all:jobs", *STORAGE], "there is no module 'nowhere'"),
        (["demo", "--seconds", "0"], "--seconds"),
        (["demo", "--seconds", "soon"], "--seconds"),
        (["demo", "--db", "."], "is there already"),
    ],
)
def test_a_mistake_is_one_message(
    typed: Callable[..., Said], tmp_path: Path, arguments: list[str], problem: str
) -> None:
    """It says what is wrong, on the standard error, and makes no file."""
    said = typed(*arguments)

    assert said.returncode == 2
    assert problem in said.stderr
    assert "Traceback" not in said.stderr
    assert said.stdout == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "attribute", "problem"),
    [
        ("jobs = 1 / 0", "jobs", 'app failed: ZeroDivisionError: division by zero (at "{}", line 1)'),
        ("import nothing_like_it", "jobs", "importing app failed: ModuleNotFoundError: No module named"),
        ("def jobs(:", "jobs", 'importing app failed: SyntaxError: invalid syntax (app.py, line 1) (at "{}"'),
        ("other = 1", "jobs", "app has no attribute 'jobs'"),
        ("jobs = {}", "jobs", "app:jobs is of type dict, and not what create_durable_jobs(...) makes"),
        (
            "from durable_effect_jobs import create_durable_jobs\nmine = create_durable_jobs({})",
            "jobs",
            "app has no attribute 'jobs'; it has app:mine",
        ),
    ],
)
def test_a_module_without_the_jobs_is_explained(
    terminal: Terminal, text: str, attribute: str, problem: str
) -> None:
    """What is wrong with the module, where, and what there is instead."""
    terminal.write("app.py", text)

    said = terminal.run("run", f"app:{attribute}", *STORAGE)

    assert said.returncode == 2
    assert problem.format(terminal.directory / "app.py") in said.stderr
    assert "Traceback" not in said.stderr
    assert not (terminal.directory / "jobs.db").exists()


def test_a_mistake_ends_the_process_with_two(terminal: Terminal) -> None:
    """As the shell sees it."""
    said = terminal.run("run", "nowhere:jobs", *STORAGE)

    assert said.returncode == 2
    assert said.stdout == ""
    assert said.stderr == (
        f"durable-effect: there is no module 'nowhere' in {terminal.directory} or in this environment\n"
    )


def test_the_storage_may_come_from_the_environment(terminal: Terminal) -> None:
    """Then it need not be typed, and what is wrong with it is said as well."""
    said = terminal.run("ls", DURABLE_EFFECT_STORAGE="jobs.db")

    assert said.returncode == 2
    assert "write sqlite:///jobs.db" in said.stderr


def test_help_names_every_command(terminal: Terminal) -> None:
    """Without arguments, and with ``--help``."""
    for said in (terminal.run(), terminal.run("--help")):
        assert said.returncode == 0
        for command in COMMANDS:
            assert command in said.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(typed: Callable[..., Said], command: str) -> None:
    """Its help says how it is used."""
    said = typed(command, "--help")

    assert said.returncode == 0
    assert f"durable-effect {command}" in said.stdout


def test_the_version_is_that_of_the_distribution(terminal: Terminal) -> None:
    """And nothing else is printed."""
    assert terminal.run("--version").stdout.strip() == version("durable-effect")


def test_the_command_is_installed_as_durable_effect() -> None:
    """The script that the distribution installs is this program."""
    script = Path(sys.executable).with_name("durable-effect")

    said = subprocess.run([script, "--version"], capture_output=True, text=True)

    assert said.stdout.strip() == version("durable-effect")


@pytest.mark.parametrize("missing", ["cyclopts", "rich"])
def test_without_its_extra_it_says_what_to_install(missing: str) -> None:
    """One line that can be copied, and exit code 2."""
    program = (
        "import sys; sys.modules[{!r}] = None; from durable_effect_jobs.cli import main; sys.exit(main())"
    )

    said = subprocess.run([sys.executable, "-c", program.format(missing)], capture_output=True, text=True)

    assert said.returncode == 2
    assert said.stdout == ""
    assert said.stderr.splitlines() == [
        "durable-effect needs its extra for the terminal: pip install 'durable-effect[cli]'"
    ]
