"""What goes wrong with calls: answers that are refused, late, lost, garbled, slow or huge."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

PIECE = 64 * 1024
"""Bytes of a huge answer that go out at once."""


@dataclass
class Fault:
    """Something that goes wrong with the next calls that fit."""

    path: str | tuple[str, ...] = ""
    """Part of the paths that it strikes, or several of which a path holds one."""
    method: str = ""
    status: int | None = None
    """Answer with this status instead of doing anything."""
    body: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    latency: float = 0.0
    """Seconds to wait first."""
    until: threading.Event = field(default_factory=threading.Event)
    """Once this is set nothing waits any longer."""
    drop_after_commit: bool = False
    """Do what was asked, then close the connection without an answer."""
    garbled: bool = False
    """Do what was asked, then answer with `status` and `body` all the same."""
    drip: float = 0.0
    """Seconds between two characters of the body."""
    huge: int = 0
    """Bytes of an answer without an end in sight that come in place of the body."""
    times: int | None = 1
    """So many calls; None: until it is taken away."""
    struck: int = 0
    """Calls that it has met."""
    sent: int = 0
    """Bytes that were sent of a slow or a huge answer."""

    def strikes(self, path: str, method: str) -> bool:
        """Whether a call is one that it strikes."""
        parts = (self.path,) if isinstance(self.path, str) else self.path
        return any(part in path for part in parts) and self.method in ("", method)

    def answer(self) -> str | Iterator[bytes]:
        """The body as it goes out: in one piece, dripping, or huge."""
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


def next_fault(faults: list[Fault], path: str, method: str) -> Fault | None:
    """The first fault that a call meets, counted; one that is used up is taken away."""
    fault = next((fault for fault in faults if fault.strikes(path, method)), None)
    if fault is None:
        return None
    fault.struck += 1
    if fault.times is not None:
        fault.times -= 1
        if fault.times <= 0:
            faults.remove(fault)
    return fault
