"""A request is recognised as complete at the right byte, however its bytes are split."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.web.arrival import MAX_BODY, MAX_HEAD, Arrival, BodyAhead

HEAD = b"POST / HTTP/1.1\r\nHost: x\r\n\r\n"


def whole_after(pieces: list[bytes], length: int = 0, chunked: bool = False) -> int:
    """Return the number of bytes after which the request counts as complete; -1 if it never does."""
    arrival, told, came = Arrival(), False, 0
    for piece in pieces:
        arrival.feed(piece)
        came += len(piece)
        if arrival.head is not None and not told:
            arrival.expect(length, chunked)
            told = True
        if told and arrival.whole:
            return came
    return -1


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({0, len(data), *(cut % len(data) for cut in cuts)})
    return [data[a:b] for a, b in itertools.pairwise(places)]


@given(st.lists(st.binary(min_size=1, max_size=40)), st.lists(st.integers(0, 10**6)))
def test_a_chunked_body_is_whole_with_its_last_byte(parts: list[bytes], cuts: list[int]) -> None:
    """A chunked body is complete at its last byte and not before, whatever it holds and however it
    is split.
    """
    body = b"".join(b"%x;a=b\r\n%s\r\n" % (len(part), part) for part in parts)
    request = HEAD + body + b"0\r\nA: b\r\n\r\n"
    assert whole_after(split(request, cuts), chunked=True) == len(request)
    assert whole_after([bytes([byte]) for byte in request], chunked=True) == len(request)


@given(st.binary(min_size=1, max_size=200), st.lists(st.integers(0, 10**6)))
def test_a_body_of_a_length_is_whole_with_its_last_byte(body: bytes, cuts: list[int]) -> None:
    """A body with a length is complete at its last byte, even if it looks like the end of a head."""
    request = HEAD + body
    assert whole_after([bytes([byte]) for byte in request], len(body)) == len(request)
    assert whole_after(split(request, cuts), len(body)) == len(request)


@given(st.binary(max_size=300), st.booleans())
def test_any_bytes_end_in_an_answer_or_a_wait(data: bytes, ended: bool) -> None:
    """No bytes cause a failure, and after the client's end the server waits for nothing more."""
    arrival = Arrival()
    arrival.feed(HEAD)
    arrival.expect(0, True)
    if data:
        arrival.feed(data)
    assert arrival.whole in (True, False)
    if ended:
        arrival.feed(b"")
        assert arrival.whole
        assert b"".join(arrival.source()) == HEAD + data


@pytest.mark.parametrize(
    "pieces",
    [[b"x" * (MAX_HEAD + 1)], [b"GET / HTTP/1.1\n"], [b"GET / HTTP/1.1\r", b"\nA: b\n"]],
)
def test_a_hopeless_head_is_not_waited_for(pieces: list[bytes]) -> None:
    """A head that is too long or has a line with LF alone is refused at once."""
    assert whole_after(pieces) == sum(map(len, pieces))


def test_what_is_over_the_limit_is_not_waited_for() -> None:
    """A body over the limit is refused at once: by its announced length, a chunk, or too many chunk
    frames.
    """
    assert whole_after([HEAD], MAX_BODY + 1) == len(HEAD)
    assert whole_after([HEAD + b"40001\r\n"], chunked=True) == len(HEAD) + 7
    assert whole_after([HEAD, b"1\r\nx\r\n" * MAX_BODY], chunked=True) > 0


def test_what_has_not_come_is_asked_for() -> None:
    """The parser gets the bytes that are here; a read beyond them raises BodyAhead."""
    arrival = Arrival()
    arrival.feed(HEAD)
    arrival.expect(5, False)
    source = arrival.source()
    assert next(source) == HEAD
    with pytest.raises(BodyAhead):
        next(source)
