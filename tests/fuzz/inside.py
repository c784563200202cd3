"""The fuzzers that run in one process: mapping files, OAuth callbacks, answers of other systems."""

from __future__ import annotations

import logging
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass

import structlog
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from tests.fuzz.answers import MOST_GROWN, answer, every_call, memory
from tests.fuzz.callbacks import callback
from tests.fuzz.mappings import mapping_file

Property = Callable[[st.DataObject], None]
PROPERTIES: dict[str, Property] = {
    "mappings": mapping_file,
    "callbacks": callback,
    "answers": answer,
}
BATCH = 50
"""Examples between two looks at the clock."""


@dataclass
class Run:
    """What one fuzzer has done."""

    examples: int = 0
    fault: str = ""
    """The traceback with the smallest example; empty if there was none."""


def play(name: str, first_seed: int, examples: int) -> Run:
    """Try a property with this many examples; the same seed gives the same ones."""
    run = Run()

    def counted(data: st.DataObject) -> None:
        run.examples += 1
        PROPERTIES[name](data)

    limits = settings(
        max_examples=examples, deadline=None, database=None, phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    try:
        seed(first_seed)(limits(given(data=st.data())(counted)))()
    except Exception:
        run.fault = traceback.format_exc()
    return run


def play_for(name: str, first_seed: int, seconds: float) -> Run:
    """Try a property with one batch of examples after the other, until the time is over or one fails."""
    total, began, number = Run(), time.monotonic(), 0
    while not total.fault and time.monotonic() - began < seconds:
        batch = play(name, first_seed * 1_000_003 + number, BATCH)
        total.examples += batch.examples
        if batch.fault:
            total.fault = f"{name}, batch {number} of seed {first_seed}:\n{batch.fault}"
        number += 1
    return total


def main() -> int:
    """Run one fuzzer: its name, the seed and the minutes; return the exit code, 1 after a fault."""
    # A CRM that answers nonsense is logged each time.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    name, first_seed, minutes = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    if name == "answers":
        # The contents of all three sandboxes are no growth.
        list(every_call())
    play(name, first_seed, BATCH)
    before, began = memory(), time.monotonic()
    run = play_for(name, first_seed, minutes * 60)
    grown = memory() - before
    if not run.fault and grown > MOST_GROWN:
        run.fault = f"The process has grown by {grown} MB."
    seconds = time.monotonic() - began
    say = sys.stdout.write
    say(
        f"{name}: {run.examples} examples in {seconds:.0f} s, seed {first_seed}, {grown} MB grown\n"
    )
    if run.fault:
        say(f"FAULT\n{run.fault}\n")
    return 1 if run.fault else 0


if __name__ == "__main__":
    sys.exit(main())
