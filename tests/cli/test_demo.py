"""``durable-effect demo``: the whole of it, and that its books find what is wrong."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import struct
import sys
from datetime import UTC, datetime
from typing import Any

import attrs
import pytest
from terminal import Terminal

from durable_effect_jobs.demo.books import audit
from durable_effect_jobs.demo.courier import Courier
from durable_effect_jobs.demo.outside import Ledger, Outside
from durable_effect_jobs.demo.web import Web
from durable_effect_jobs.instance import Instance, Key


def is_alive(pid: int) -> bool:
    """Whether there is such a process."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


on_posix = pytest.mark.skipif(sys.platform == "win32", reason="signals and terminals are POSIX")


# -- the whole of it -------------------------------------------------------------------------------


@on_posix
def test_the_demo_kills_its_worker_and_loses_nothing(terminal: Terminal) -> None:
    """It ends by itself with 0; what it claims is checked, and the file it was told to keep is a storage."""
    said = terminal.run("demo", "--seconds", "3", "--db", "demo.db")

    assert said.returncode == 0, said.stdout + said.stderr
    assert said.stderr == ""
    killed, heir = re.findall(r"worker (\d+) has demo.db and runs the jobs", said.stdout)
    assert f"worker {killed} killed with SIGKILL: exit code -9" in said.stdout
    assert not is_alive(int(killed))
    assert not is_alive(int(heir))
    assert [line for line in said.stdout.splitlines() if line.startswith(("ok", "NOT"))] == [
        "ok    every acknowledged webhook was delivered once, or still waits",
        "ok    recurring jobs went on counting where they were",
        "ok    the token endpoint saw the runs that the job counts",
        "ok    every order was followed to its delivery, or still is",
    ]
    assert f"Worker {killed} was killed in the middle of all this, and nothing was lost." in said.stdout

    listed = terminal.run("ls", "--storage", "sqlite:///demo.db", "--kind", "continuous", "--json")
    assert [instance["job"] for instance in json.loads(listed.stdout)][-1] == "tokenRefresher"


@on_posix
def test_the_demo_shows_failures_and_what_becomes_of_them(terminal: Terminal) -> None:
    """Batches by count, a webhook receiver that fails once, reminders and a carrier that is down at first."""
    with terminal.start("demo", "--seconds", "60") as demo:
        demo.until("webhookBatcher:contact-1 delivered 5 webhooks (maxEvents)")
        demo.until("(flushAfter)")
        demo.until("HTTP Error 503: Service Unavailable; asking again soon")
        demo.until("tokenRefresher:user-123 attempt 3 got at_4")
        if (reminder := "orderProcessor:order-1 reminded the customer of the payment") not in demo.output:
            demo.until(reminder)  # on a slow machine it comes late
        demo.send(signal.SIGINT)
        assert demo.end() == 130

    assert "failed and will be tried again: Unavailable: PUT /batches/" in demo.output


@on_posix
def test_on_a_terminal_there_is_a_table_until_ctrl_c(terminal: Terminal) -> None:
    """The table lives; then exit code 130, no traceback, no worker left behind, and no file either."""
    with terminal.start_on_a_tty("demo", "--seconds", "60") as demo:
        line = demo.until("runs the jobs")
        demo.until("what happens")
        header = demo.until("INSTANCE")
        row = demo.until("webhookBatcher:contact-1")
        demo.type("\x03")
        assert demo.end() == 130

    for column in ("STATUS", "STATE", "NEXT ALARM", "COUNTS", "LAST ERROR"):
        assert column in header
    plain = re.sub(r"\x1b\[\d*m", "", row)
    assert re.search(r"contact-1 +debouncing +webhooks=\[\d] +\S.*\(flushAfter\) +\d event", plain)

    assert "Traceback" not in demo.output
    assert not is_alive(int(re.findall(r"worker (\d+)", line)[0]))
    assert list(terminal.directory.iterdir()) == []


@on_posix
def test_a_worker_that_dies_by_itself_ends_the_demo(terminal: Terminal) -> None:
    """A failure that is not part of the show is told as one."""
    with terminal.start("demo", "--seconds", "60") as demo:
        line = demo.until("runs the jobs")
        os.kill(int(re.findall(r"worker (\d+)", line)[0]), signal.SIGTERM)
        assert demo.end() == 1

    assert "durable-effect: the worker ended by itself, with exit code -15" in demo.output
    assert "Traceback" not in demo.output


def test_a_database_where_none_can_be_is_a_failure(terminal: Terminal) -> None:
    """It is found before anything starts."""
    said = terminal.run("demo", "--db", "no/such/directory/demo.db")

    assert said.returncode == 1
    assert "create it first" in said.stderr
    assert "Traceback" not in said.stderr


@pytest.mark.parametrize("sent", [b"PUT /batches/k HTTP/1.1\r\nContent-Length: 9\r\n\r\n[1, 2", b"PUT /bat"])
def test_the_world_does_not_mind_a_client_that_is_killed(
    sent: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    """Half a request changes nothing and is not reported; the next one is answered."""
    outside = Outside()
    outside.start()
    with socket.create_connection(outside.server_address[:2]) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.sendall(sent)

    assert Web(outside.url).put("/batches/k", [1]).run() == {}
    outside.close()

    assert outside.ledger.batches == {"k": [1]}
    assert capfd.readouterr().err == ""


# -- its books -------------------------------------------------------------------------------------


def instance(kind: Any, job: str, name: str, state: Any = None, **counts: int) -> Instance:
    """A record."""
    born = datetime(2026, 1, 1, tzinfo=UTC)
    encoded = json.dumps(state).encode()
    return Instance(key=Key(kind, job, name), incarnation="i", created_at=born, state=encoded, **counts)


@attrs.define
class Books:
    """Books that add up: two webhooks delivered and one waiting, an order delivered and one open."""

    courier: Courier = attrs.field(factory=Courier)
    ledger: Ledger = attrs.field(factory=Ledger)
    before: list[Instance] = attrs.field(factory=list)
    after: list[Instance] = attrs.field(factory=list)

    def __attrs_post_init__(self) -> None:
        for _ in range(3):
            self.courier.add_webhook("c")
        self.courier.send_order("gone", {"_tag": "OrderPlaced"})
        self.courier.send_order("open", {"_tag": "OrderPlaced"})
        for ref in list(self.courier.waiting):
            self.courier.acknowledged(ref)
        self.ledger.batches["k"] = [1, 2]
        self.ledger.questions["gone"] = 3
        self.ledger.tokens_granted = 7
        self.before = [instance("continuous", "tokenRefresher", "u", run_count=4)]
        self.after = [
            instance("continuous", "tokenRefresher", "u", run_count=7),
            instance("debounce", "webhookBatcher", "c", {"webhooks": [{"number": 3}]}),
            instance("task", "orderProcessor", "open", event_count=1),
        ]

    def verdicts(self) -> list[bool]:
        """What each check says, in the order: webhooks, runs, tokens, orders."""
        checks = audit(self.courier, self.ledger, tuple(self.before), tuple(self.after))
        return [check.holds for check in checks]


def test_books_that_add_up_are_found_right() -> None:
    """All four."""
    assert Books().verdicts() == [True, True, True, True]


def lose_a_batch(books: Books) -> None:
    books.ledger.batches.clear()


def deliver_one_twice(books: Books) -> None:
    books.ledger.batches["again"] = [2]


def deliver_what_still_waits(books: Books) -> None:
    books.ledger.batches["again"] = [3]


def leave_a_call_unanswered(books: Books) -> None:
    books.courier.add_webhook("c")


def begin_counting_anew(books: Books) -> None:
    books.after[0] = instance("continuous", "tokenRefresher", "u", run_count=3)


def lose_all_recurring_jobs(books: Books) -> None:
    books.before.clear()


def grant_two_tokens_more(books: Books) -> None:
    books.ledger.tokens_granted = 9


def grant_a_token_less(books: Books) -> None:
    books.ledger.tokens_granted = 6


def lose_an_order(books: Books) -> None:
    del books.after[2]


def count_an_event_twice(books: Books) -> None:
    books.after[2] = instance("task", "orderProcessor", "open", event_count=2)


@pytest.mark.parametrize(
    ("damage", "wrong"),
    [
        (lose_a_batch, [0]),
        (deliver_one_twice, [0]),
        (deliver_what_still_waits, [0]),
        (leave_a_call_unanswered, [0]),
        (begin_counting_anew, [1, 2]),
        (lose_all_recurring_jobs, [1]),
        (grant_two_tokens_more, [2]),
        (grant_a_token_less, [2]),
        (lose_an_order, [3]),
        (count_an_event_twice, [3]),
    ],
)
def test_books_that_do_not_add_up_are_found_out(damage: Any, wrong: list[int]) -> None:
    """Each kind of damage, by the check that is about it."""
    books = Books()
    damage(books)

    assert [number for number, holds in enumerate(books.verdicts()) if not holds] == wrong
