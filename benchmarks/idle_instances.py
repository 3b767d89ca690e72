"""The memory, at most, that Python objects take while instances come to be that then wait: MiB, on stdout.

python benchmarks/idle_instances.py URL NUMBER
python benchmarks/idle_instances.py dict NUMBER        their states alone, in a dict
"""

from __future__ import annotations

import asyncio
import json
import sys
import tracemalloc

from jobs import CALLERS, NOTE, calls, jobs, new_ids, one_id, send

WARM_UP = 200


class Growth:
    """The most that was allocated beyond what there was at first."""

    def __init__(self) -> None:
        tracemalloc.reset_peak()
        self._at_first, _ = tracemalloc.get_traced_memory()

    @property
    def mib(self) -> float:
        """As of now."""
        _, peak = tracemalloc.get_traced_memory()
        return (peak - self._at_first) / 2**20


async def by_instances(url: str, number: int) -> float:
    """Make them as many callers do, after some calls for what is made only once."""
    async with jobs.connect(url) as client:
        await calls(client, send, one_id(), WARM_UP, CALLERS)
        growth = Growth()
        await calls(client, send, new_ids(), number, CALLERS)
        return growth.mib


def by_dict(number: int) -> float:
    """Keep the encoded states under their ids."""
    growth = Growth()
    states: dict[str, bytes] = {}
    for n in range(number):
        states[f"new-{n}"] = json.dumps({"number": 1, "note": NOTE}).encode()
    return growth.mib


if __name__ == "__main__":
    tracemalloc.start()
    holder, wanted = sys.argv[1], int(sys.argv[2])
    print(by_dict(wanted) if holder == "dict" else asyncio.run(by_instances(holder, wanted)))
