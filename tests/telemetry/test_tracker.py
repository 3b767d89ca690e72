"""Trackers: what they take and refuse, and what of them is shown."""

from __future__ import annotations

from datetime import timedelta

import pytest

from durable_effect_jobs import Tracker
from durable_effect_jobs.telemetry import LogSink, MemorySink


def test_the_defaults_are_modest() -> None:
    """Batches of a hundred, ten seconds, and no states."""
    tracker = Tracker("https://events.example.com/ingest")
    assert (tracker.batch_size, tracker.timeout, tracker.include_state) == (100, timedelta(seconds=10), False)


@pytest.mark.parametrize(
    ("endpoint", "shown"),
    [
        ("events.example.com/ingest", "events.example.com/ingest"),
        ("ftp://me:sesame@events.example.com/x", "ftp://events.example.com/..."),
        ("https://", "https://"),
        ("me:sesame@events.example.com?key=s3cret", "events.example.com"),
    ],
)
def test_an_endpoint_is_a_url(endpoint: str, shown: str) -> None:
    """Anything else is refused, without showing the credentials in it."""
    with pytest.raises(ValueError, match="endpoint= takes an http or https URL") as refused:
        Tracker(endpoint)
    assert str(refused.value).endswith(f"got {shown!r}")


def test_an_endpoint_and_a_sink_exclude_each_other() -> None:
    """Events go to one place."""
    with pytest.raises(ValueError, match="endpoint= or sink=, not both"):
        Tracker("https://events.example.com", sink=MemorySink())


def test_a_sink_can_send() -> None:
    """What has no such method is refused when the tracker is made."""
    with pytest.raises(TypeError, match="such as LogSink"):
        Tracker(sink="log")  # type: ignore[arg-type] # that is the point


def test_a_sink_is_an_instance() -> None:
    """The class itself could not send."""
    with pytest.raises(TypeError, match="such as LogSink"):
        Tracker(sink=LogSink)  # type: ignore[arg-type] # that is the point


@pytest.mark.parametrize("name", ["", "x token", "x:token", "x\ntoken", "tökén"])
def test_names_of_headers_are_tokens(name: str) -> None:
    """What HTTP cannot send is refused when the tracker is made, not when the first event is sent."""
    with pytest.raises(ValueError, match="cannot be the name of a header"):
        Tracker("https://events.example.com", headers={name: "t"})


@pytest.mark.parametrize("value", ["s3cret\n", "s3cret\r\nx: y", "s3cret\0", "s3cret€"])
def test_values_of_headers_are_one_line(value: str) -> None:
    """A value that cannot be sent is refused by the name of its header, and is not shown."""
    with pytest.raises(ValueError, match="a value for 'x-token' that cannot be sent") as refused:
        Tracker("https://events.example.com", headers={"x-token": value})
    assert "s3cret" not in str(refused.value)


def test_headers_are_copied() -> None:
    """A dict that is changed afterwards changes no tracker."""
    headers = {"x-token": "t"}
    tracker = Tracker("https://events.example.com", headers=headers)
    headers["x-token"] = "changed"
    assert tracker.headers == {"x-token": "t"}


def test_a_repr_shows_no_secrets() -> None:
    """Of the endpoint only the host, of headers and key nothing."""
    tracker = Tracker(
        "https://me:sesame@events.example.com/hook/s3cret?key=s3cret",
        env="test",
        service_key="s3cret",
        headers={"x-token": "s3cret"},
    )
    assert "endpoint='https://events.example.com/...'" in repr(tracker)
    assert "s3cret" not in repr(tracker)
    assert "sesame" not in repr(tracker)
