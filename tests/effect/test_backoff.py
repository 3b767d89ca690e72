"""The waits between attempts."""

from collections.abc import Callable
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from durable_effect.backoff import Backoff

SPANS = st.timedeltas(min_value=timedelta(microseconds=1))
CAPS = st.none() | SPANS
BACKOFFS = st.one_of(
    st.builds(Backoff.exponential, SPANS, factor=st.floats(1, 1e300), max=CAPS),
    st.builds(Backoff.linear, SPANS, SPANS, CAPS),
    st.builds(Backoff.fixed, SPANS),
)
ATTEMPTS = st.integers(1, 10**6)


def seconds(backoff: Backoff, attempts: int) -> list[float]:
    return [backoff.delay(attempt).total_seconds() for attempt in range(1, attempts + 1)]


def test_exponential_multiplies_up_to_its_cap() -> None:
    """The delay is base * factor ** (attempt - 1), and stays at the cap once it gets there."""
    assert seconds(Backoff.exponential("1 second", max="30 seconds"), 7) == [1, 2, 4, 8, 16, 30, 30]
    assert seconds(Backoff.exponential("100ms", factor=3), 4) == [0.1, 0.3, 0.9, 2.7]
    assert seconds(Backoff.exponential(timedelta(seconds=2), factor=1), 3) == [2, 2, 2]


def test_linear_adds_up_to_its_cap() -> None:
    """The delay is initial + increment * (attempt - 1), capped; base is another name of initial."""
    assert seconds(Backoff.linear("1s", "500ms", "2s"), 4) == [1, 1.5, 2, 2]
    assert Backoff.linear("1s", "2s") == Backoff.linear(initial="1s", increment="2s")
    assert Backoff.linear(base="1s", increment="2s", max="9s") == Backoff.linear("1s", "2s", max="9s")


def test_fixed_is_always_the_same() -> None:
    """A fixed backoff, also called constant, waits equally long after any attempt."""
    assert seconds(Backoff.fixed("5 seconds"), 3) == [5, 5, 5]
    assert Backoff.constant("5 seconds") == Backoff.fixed("5 seconds")


def test_a_function_decides_for_itself() -> None:
    """A function of the attempt may return text or a timedelta, zero included, and is capped too."""
    backoff = Backoff.from_function(lambda attempt: f"{attempt - 1} minutes", max="90s")
    assert seconds(backoff, 4) == [0, 60, 90, 90]


def test_what_a_function_returns_is_checked() -> None:
    """A function that returns no span is told so, with the attempt, when the delay is asked for."""
    with pytest.raises(ValueError, match="the delay of attempt 2"):
        Backoff.from_function(lambda attempt: timedelta(1 - attempt)).delay(2)


def test_presets_have_their_documented_values() -> None:
    """The presets are ordinary backoffs with documented numbers."""
    assert Backoff.presets.standard == Backoff.exponential("1s", factor=2, max="30s")
    assert Backoff.presets.aggressive == Backoff.exponential("100ms", factor=2, max="5s")
    assert Backoff.presets.patient == Backoff.exponential("5s", factor=2, max="5m")
    assert Backoff.presets.simple == Backoff.fixed("1s")


@given(BACKOFFS, ATTEMPTS)
def test_delays_never_shrink_and_never_exceed_the_cap(backoff: Backoff, attempt: int) -> None:
    """Any attempt has a positive delay, no shorter than the one before and within the cap."""
    delay = backoff.delay(attempt)
    assert timedelta(0) < delay <= (backoff.max or timedelta.max)
    assert delay <= backoff.delay(attempt + 1)


@pytest.mark.parametrize(
    "make", [Backoff.exponential, lambda base: Backoff.linear(base, timedelta(days=10**6))]
)
def test_growth_without_a_cap_ends_at_the_longest_timedelta(make: Callable[[str], Backoff]) -> None:
    """The ten-thousandth attempt has a delay, not an OverflowError."""
    assert make("1 second").delay(10_000) == timedelta.max


@given(BACKOFFS, ATTEMPTS, st.floats(-1, 1))
def test_jitter_stays_within_a_tenth_and_within_the_cap(backoff: Backoff, attempt: int, u: float) -> None:
    """Jitter moves a delay by a tenth at most, in the direction of u, and the cap still holds."""
    delay, jittered = backoff.delay(attempt), backoff.jittered(attempt, u)
    # Floats carry 53 bits: of a very long delay the microseconds are not among them.
    slack = timedelta(microseconds=1) + delay / 10**15
    assert jittered <= (backoff.max or timedelta.max)
    if delay < timedelta.max / 2:
        assert delay * 0.9 - slack <= jittered <= delay * 1.1 + slack
        assert (jittered - delay) * u >= -slack


def test_jitter_reaches_a_tenth_either_way() -> None:
    """The ends of the spread are a tenth below and a tenth above, until the cap cuts in."""
    backoff = Backoff.exponential("10s", max="21s")
    assert [backoff.jittered(1, u) for u in (-1, 0, 1)] == [timedelta(seconds=s) for s in (9, 10, 11)]
    assert [backoff.jittered(2, u) for u in (-1, 0, 1)] == [timedelta(seconds=s) for s in (18, 20, 21)]


@pytest.mark.parametrize("u", [-1.01, 1.01, float("nan")])
def test_jitter_refuses_a_draw_outside_its_range(u: float) -> None:
    """u lies within -1 and 1."""
    with pytest.raises(ValueError, match="u must be within"):
        Backoff.fixed("1s").jittered(1, u)


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda: Backoff.exponential("0s"), "base must be longer than zero"),
        (lambda: Backoff.exponential("1s", max="0s"), "max must be longer than zero"),
        (lambda: Backoff.exponential("1s", max="soon"), "max: cannot read 'soon'"),
        (lambda: Backoff.exponential(timedelta(-1)), "base must not be negative"),
        (lambda: Backoff.exponential("1s", factor=0.5), "factor must be"),
        (lambda: Backoff.exponential("1s", factor=float("nan")), "factor must be"),
        (lambda: Backoff.exponential("1s", factor=float("inf")), "factor must be"),
        (lambda: Backoff.linear("0s", "1s"), "initial must be longer than zero"),
        (lambda: Backoff.linear(base="0s", increment="1s"), "base must be longer than zero"),
        (lambda: Backoff.linear("1s", "-1s"), "increment: cannot read"),
        (lambda: Backoff.fixed("0s"), "delay must be longer than zero"),
    ],
)
def test_a_backoff_that_cannot_be_is_refused_when_it_is_made(
    make: Callable[[], Backoff], problem: str
) -> None:
    """A bad part is a ValueError that names it."""
    with pytest.raises(ValueError, match=problem):
        make()


def test_linear_needs_a_start_and_an_increment() -> None:
    """Leaving one out, or giving the start under both names, is a TypeError."""
    with pytest.raises(TypeError, match="increment="):
        Backoff.linear("1s")  # type: ignore[call-overload]  # the point of the test
    with pytest.raises(TypeError, match="not both"):
        Backoff.linear("1s", "1s", base="1s")  # type: ignore[call-overload]  # the point of the test


@pytest.mark.parametrize("attempt", [0, -1])
def test_attempts_count_from_one(attempt: int) -> None:
    """There is no attempt before the first."""
    with pytest.raises(ValueError, match="count from 1"):
        Backoff.fixed("1s").delay(attempt)


def test_equal_backoffs_are_interchangeable() -> None:
    """Backoffs made from equal parts are equal, hash alike, and differ when a part does."""
    one, other = Backoff.exponential("60s", max="1h"), Backoff.exponential("1m", max="60 minutes")
    assert one == other
    assert len({one, other, Backoff.exponential("1m")}) == 2


@pytest.mark.parametrize(
    "source",
    [
        "Backoff.exponential('1s', factor=2.0, max='30s')",
        "Backoff.linear('1s', '500ms')",
        "Backoff.fixed('5m')",
    ],
)
def test_a_backoff_shows_how_it_is_made(source: str) -> None:
    """The repr is the call that makes an equal value."""
    assert repr(eval(source)) == source


def test_a_backoff_cannot_be_changed() -> None:
    """Backoffs are values."""
    with pytest.raises(AttributeError):
        Backoff.presets.standard.max = None  # type: ignore[misc]  # the point of the test
