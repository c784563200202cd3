"""Tells from the bytes of one HTTP request whether it has arrived; it reads no socket itself.

gunicorn's parser decides whether a request is valid. If that is in doubt here, the request counts
as complete: the parser then finds an end where it expects more, and refuses the request.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

MAX_HEAD = 64 * 1024
"""The most bytes of request line and headers to wait for."""
MAX_BODY = 256 * 1024
"""The most bytes of a body to wait for, or to read."""
MAX_LINE = 8190
"""The most bytes of a chunk's first line, the same as gunicorn's limit."""
_END = b"\r\n"
_SIZE = re.compile(rb"[0-9A-Fa-f]{1,8}")


class BodyAhead(BaseException):
    """The body was asked for before it arrived. This is no fault, so nothing may catch it as one."""


class Arrival:
    """The bytes of one request as they come in."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.ended = False
        """Whether the client has closed its side: no more bytes will come."""
        self._head: int | None = None
        self._line_feeds = self._line_ends = 0
        self._length: int | None = None
        self._chunks: Chunks | None = None

    def feed(self, data: bytes) -> None:
        """Add bytes from the socket; no bytes mean that the client has closed its side."""
        if not data:
            self.ended = True
            return
        before = len(self.data)
        self.data += data
        if self._head is None:
            self._line_feeds += data.count(b"\n")
            self._line_ends += self.data.count(_END, max(0, before - 1))
            found = self.data.find(_END * 2, max(0, before - 3))
            self._head = found + 4 if found >= 0 else None

    @property
    def head(self) -> bytes | None:
        """Request line and headers, once they are complete or waiting for more is of no use."""
        if self._head is not None:
            return bytes(self.data[: self._head])
        # A line that ends in LF alone ends no head: the parser refuses it at once.
        hopeless = self._line_feeds != self._line_ends or len(self.data) > MAX_HEAD
        return bytes(self.data) if hopeless or self.ended else None

    def expect(self, length: int, chunked: bool) -> None:
        """Set what the head says about the body: its length, or that it comes in chunks."""
        self._head = self._head or len(self.data)
        self._length = None if chunked else length
        self._chunks = Chunks(self._head) if chunked else None

    @property
    def whole(self) -> bool:
        """Whether there is nothing more to wait for."""
        if self.ended:
            return True
        if self._chunks is not None:
            return self._chunks.done(self.data)
        if self._head is None or self._length is None:
            return False
        return self._length > MAX_BODY or len(self.data) >= self._head + self._length

    def source(self) -> Iterator[bytes]:
        """The bytes for the parser; raises BodyAhead if it asks for bytes that have not come yet."""
        head = self._head or len(self.data)
        yield bytes(self.data[:head])
        if len(self.data) > head:
            # No bytes would mean the end.
            yield bytes(self.data[head:])
        if self._head is not None and not self.whole:
            raise BodyAhead


class Chunks:
    """Finds the end of a chunked body (RFC 9112, 7.1)."""

    def __init__(self, start: int) -> None:
        """Begin at the first byte after the head."""
        self._start = self._at = start
        self._searched = start
        self._total = 0
        self._size: int | None = None
        """Bytes of the present chunk; None: its first line is still expected."""
        self._over = False

    def done(self, data: bytearray) -> bool:
        """Whether the last chunk is here, or bytes that no chunked body can have."""
        while not self._over and self._step(data):
            pass
        waste = len(data) - self._start - self._total
        return self._over or self._total > MAX_BODY or waste > MAX_BODY

    def _step(self, data: bytearray) -> bool:
        """Go one part further; False if more bytes are needed."""
        if self._size is None:
            return self._line(data)
        if self._size == 0:
            return self._trailers(data)
        end = self._at + self._size
        if len(data) < end + 2:
            return False
        self._over = data[end : end + 2] != _END
        self._at = self._searched = end + 2
        self._size = None
        return True

    def _line(self, data: bytearray) -> bool:
        end = data.find(_END, self._searched)
        if end < 0:
            self._searched = max(self._at, len(data) - 1)
            self._over = len(data) - self._at > MAX_LINE
            return False
        size = bytes(data[self._at : end]).split(b";", 1)[0].rstrip(b" \t")
        if not _SIZE.fullmatch(size):
            self._over = True
            return False
        self._size = int(size, 16)
        self._total += self._size
        self._at = self._searched = end + 2
        return self._total <= MAX_BODY

    def _trailers(self, data: bytearray) -> bool:
        self._over = (
            data[self._at : self._at + 2] == _END
            or data.find(_END * 2, self._searched) >= 0
            or len(data) - self._at > MAX_LINE
        )
        self._searched = max(self._at, len(data) - 3)
        return False
