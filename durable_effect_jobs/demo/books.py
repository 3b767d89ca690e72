"""Whether anything was lost: what is stored, what was acknowledged and what the world saw have to add up."""

from __future__ import annotations

import json
from collections import Counter

import attrs

from durable_effect_jobs.demo.courier import ORDERS, WEBHOOKS, Courier
from durable_effect_jobs.demo.outside import Ledger
from durable_effect_jobs.instance import Instance

__all__ = ["Check", "audit"]


@attrs.frozen
class Check:
    """A claim, whether it holds, and the figures behind it."""

    claim: str
    holds: bool
    figures: str


def audit(
    courier: Courier, ledger: Ledger, before: tuple[Instance, ...], after: tuple[Instance, ...]
) -> tuple[Check, ...]:
    """The claims of the demo, from the records at the kill and those at the end."""
    return (
        _every_webhook_once(courier, ledger, after),
        _runs_go_on(before, after),
        _tokens_match_runs(ledger, after),
        _orders_are_delivered_or_open(courier, ledger, after),
    )


def _every_webhook_once(courier: Courier, ledger: Ledger, after: tuple[Instance, ...]) -> Check:
    """Each acknowledged webhook is in exactly one delivered batch, or in one that still waits."""
    accepted = courier.refs(WEBHOOKS)
    delivered = Counter(number for batch in ledger.batches.values() for number in batch)
    buffered = Counter(
        webhook["number"]
        for instance in after
        if instance.key.kind == "debounce"
        for webhook in json.loads(instance.state or b"{}")["webhooks"]
    )
    found = delivered + buffered
    lost = accepted - found.keys()
    twice = [number for number, times in found.items() if times > 1]
    return Check(
        "every acknowledged webhook was delivered once, or still waits",
        not lost and not twice and not courier.waiting and not courier.refused,
        f"{len(accepted)} acknowledged = {delivered.total()} delivered in {len(ledger.batches)} batches"
        f" + {buffered.total()} waiting; {len(lost)} lost, {len(twice)} twice",
    )


def _runs_go_on(before: tuple[Instance, ...], after: tuple[Instance, ...]) -> Check:
    """The recurring jobs that were there at the kill are there at the end, with more runs."""
    then, now = _runs(before), _runs(after)
    surviving = {name: (runs, now[name]) for name, runs in then.items() if name in now}
    went_on = bool(surviving) and all(late > early for early, late in surviving.values())
    figures = ", ".join(f"{name} {early} -> {late}" for name, (early, late) in surviving.items())
    return Check("recurring jobs went on counting where they were", went_on, figures)


def _tokens_match_runs(ledger: Ledger, after: tuple[Instance, ...]) -> Check:
    """A run that the kill cut off may have got its token and is done again: the endpoint may be one ahead."""
    (refresher,) = (instance for instance in after if instance.key.job == "tokenRefresher")
    finished = refresher.run_count - (1 if refresher.failed_attempts else 0)
    return Check(
        "the token endpoint saw the runs that the job counts",
        finished <= ledger.tokens_granted <= finished + 1,
        f"{ledger.tokens_granted} tokens granted, {finished} refreshes finished",
    )


def _orders_are_delivered_or_open(courier: Courier, ledger: Ledger, after: tuple[Instance, ...]) -> Check:
    """An order is gone once the carrier has delivered it, and not before; events are counted once."""
    events = Counter(courier.accepted[ref]["what"]["id"] for ref in courier.refs(ORDERS))
    still_open = {instance.key.id: instance for instance in after if instance.key.kind == "task"}
    done = events.keys() - still_open.keys()
    right = all(ledger.delivered(order) for order in done) and all(
        instance.event_count == events[order] for order, instance in still_open.items()
    )
    return Check(
        "every order was followed to its delivery, or still is",
        right,
        f"{len(events)} orders = {len(done)} delivered + {len(still_open)} open; "
        f"{events.total()} events, {ledger.reminders.total()} reminders",
    )


def _runs(instances: tuple[Instance, ...]) -> dict[str, int]:
    return {i.key.instance_id: i.run_count for i in instances if i.key.kind == "continuous"}
