"""Faults of calls: answers that are refused, late, lost, garbled, slow or huge."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

PIECE = 64 * 1024
"""The bytes of a huge answer that are sent at once."""


@dataclass
class Fault:
    """A fault that meets the next matching calls."""

    path: str | tuple[str, ...] = ""
    """A part of the paths that it meets, or several parts of which one is enough."""
    method: str = ""
    writes: bool = False
    """Strikes only calls that may change something."""
    status: int | None = None
    """Answer with this status and do nothing else."""
    body: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    latency: float = 0.0
    """The seconds to wait before the answer."""
    until: threading.Event = field(default_factory=threading.Event)
    """Once this is set, all waits end."""
    drop_after_commit: bool = False
    """Do the work of the call, then close the connection without an answer."""
    garbled: bool = False
    """Do the work of the call, then answer with `status` and `body` all the same."""
    drip: float = 0.0
    """Seconds between two characters of the body."""
    huge: int = 0
    """The bytes of a huge answer that replaces the body."""
    times: int | None = 1
    """The number of calls; None: until the fault is removed."""
    struck: int = 0
    """The number of calls that met it."""
    sent: int = 0
    """The bytes sent of a slow or a huge answer."""

    def strikes(self, path: str, method: str) -> bool:
        """Whether the fault meets this call."""
        parts = (self.path,) if isinstance(self.path, str) else self.path
        if self.writes and reads(f"{method} {path}"):
            return False
        return any(part in path for part in parts) and self.method in ("", method)

    def answer(self) -> str | Iterator[bytes]:
        """Return the body for sending: in one piece, dripping, or huge."""
        if self.huge:
            return self._pieces()
        return self._drops() if self.drip else self.body

    def _pieces(self) -> Iterator[bytes]:
        for _ in range(0, self.huge, PIECE):
            self.sent += PIECE
            yield b" " * PIECE

    def _drops(self) -> Iterator[bytes]:
        for character in self.body:
            self.until.wait(self.drip)
            self.sent += 1
            yield character.encode()


REFUSED = "refused"
"""Begins the note of a call that was turned away at the door."""


def reads(call: str) -> bool:
    """Whether a call, method and path, only looks."""
    return call.startswith(("GET", REFUSED)) or call.endswith(("/search", "/batch/read", "/query"))


def next_fault(faults: list[Fault], path: str, method: str) -> Fault | None:
    """Return the first fault that a call meets, and count it; remove it if it is used up."""
    fault = next((fault for fault in faults if fault.strikes(path, method)), None)
    if fault is None:
        return None
    fault.struck += 1
    if fault.times is not None:
        fault.times -= 1
        if fault.times <= 0:
            faults.remove(fault)
    return fault
