"""Hostile webhooks and raw requests at random; the same seed gives the same requests."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from app.security.signatures import sign_body
from app.web.arrival import MAX_BODY
from tests.bridge import DATA, SECRET

SAMPLES = [json.loads(path.read_text("utf-8")) for path in sorted(DATA.glob("*.json"))]
TEXTS = [
    "", " ", "\0", "a\0b", "\ud800", "\udc00x", "x" * 101, "x" * 401, "x" * 70_000, "\u202egnp.exe",
    "💩" * 200, "e\u0301" * 300, "<script>", "{{ 7*7 }}", "@{n0.id}", "=1+1", "' OR 1=1 --", "%00",
    "\r\nX: y", "9" * 30, "null", "true", "NaN", "2026-13-45T99:99:99Z", "0001-01-01T00:00:00+14:00",
    "9999-12-31T23:59:59-14:00", "Mars/Phobos", "+49", "a@b", "x" * 250 + "@x.example",
]  # fmt: skip
SCALARS = [
    None, True, False, 0, -1, 2**31, 2**63, 10**30, -(10**30), 0.1, 1e308, -1e-320, [], {}, [[]],
    [None], {"": ""}, {"secret": "cancel-token"}, ["x"] * 500, {"a": {"b": {"c": []}}},
]  # fmt: skip
CONTENT_TYPES = [
    "text/plain",
    "",
    "application/xml",
    "json",
    "multipart/form-data",
    "application/json\t;",
]
PATHS = [
    "/nobody",
    "/%00",
    "/" + "x" * 300,
    "/default",
    "/DEFAULT",
    "/a/b/c",
    "/%ff",
    "/..",
    "/%2e%2e",
]


@dataclass(frozen=True)
class Hostile:
    """One request as bytes."""

    kind: str
    sent: bytes
    signed: bool = False
    """Whether the service may store it: it is signed and goes to a valid path."""
    ends: bool = False
    """Whether the client closes its side after it, because the request is incomplete."""


def webhooks(seed: int) -> Iterator[Hostile]:
    """Generate hostile webhooks without end."""
    chance = random.Random(f"webhooks {seed}")
    for number in range(1 << 62):
        body = _body(chance, number)
        yield _request(chance, body)


def _body(chance: random.Random, number: int) -> bytes:
    document = json.loads(json.dumps(chance.choice(SAMPLES)))
    if chance.random() < 0.8:
        document["id"] = f"fuzz-{number % 50}"
    for _ in range(chance.choice((0, 1, 1, 1, 2, 3, 8))):
        # A doubled list holds each item twice as the same object; the copy makes them independent.
        document = json.loads(json.dumps(_mutated(chance, document)))
    body = json.dumps(document, ensure_ascii=chance.random() < 0.7)
    raw = body.encode("utf-8", "surrogatepass")
    dice = chance.random()
    if dice < 0.12:
        raw = _bytes(chance, raw)
    elif dice < 0.17:
        edge = MAX_BODY + chance.choice((-1, 0, 1, 5000))
        raw = raw + b" " * (edge - len(raw))
    elif dice < 0.22:
        depth = chance.choice((60, 63, 64, 65, 200, 1100, 30_000))
        raw = b'{"webhookType":"booking_created","x":' + b"[" * depth + b"]" * depth + b"}"
    return raw


def _mutated(chance: random.Random, document: Any) -> Any:
    """Return the document with one of its nodes replaced, doubled, renamed or removed."""
    places = list(_places(document))
    if not places:
        return chance.choice(SCALARS)
    holder, key = chance.choice(places)
    act = chance.randrange(5)
    if act == 0:
        del holder[key]
    elif act == 1 and isinstance(holder, dict):
        holder[chance.choice(TEXTS)] = holder.pop(key)
    elif act == 2 and isinstance(holder, list) and len(holder) < 10 and len(places) < 300:
        holder *= chance.choice((2, 40))
    else:
        holder[key] = chance.choice(TEXTS) if chance.random() < 0.6 else chance.choice(SCALARS)
    return document


def _places(node: Any) -> Iterator[tuple[Any, Any]]:
    items = (
        node.items()
        if isinstance(node, dict)
        else enumerate(node)
        if isinstance(node, list)
        else ()
    )
    for key, child in list(items):
        yield node, key
        yield from _places(child)


def _bytes(chance: random.Random, raw: bytes) -> bytes:
    changed = bytearray(raw)
    for _ in range(chance.randint(1, 8)):
        if changed:
            changed[chance.randrange(len(changed))] = chance.randrange(256)
    return bytes(
        changed[: chance.randrange(len(changed) + 1)] if chance.random() < 0.3 else changed
    )


def _request(chance: random.Random, body: bytes) -> Hostile:
    sign, signed, kind = sign_body(SECRET, body), True, "signed"
    content_type, path, extra = "application/json", "", ""
    dice = chance.random()
    if dice < 0.12:
        signed, kind = False, "odd signature"
        wrong = (None, "", sign[:-1], sign.replace("sha256", "sha1"), "sha256=", "x" * 4000,
                 sign_body("another-secret-0", body), sign_body(SECRET, body + b" "), "sha256=\xe9")  # fmt: skip
        sign = chance.choice(wrong) or ""
    elif dice < 0.17:
        signed, kind, path = False, "odd path", chance.choice(PATHS)
        signed = path == "/default"
    elif dice < 0.21:
        signed, kind, content_type = False, "odd content type", chance.choice(CONTENT_TYPES)
        signed = content_type == "application/json\t;"
    elif dice < 0.25:
        kind, extra = "gzip", "Content-Encoding: gzip\r\n"
        body = gzip.compress(body)
        sign = sign_body(SECRET, body)
    head = f"POST /webhooks/meetergo{path} HTTP/1.1\r\nHost: fuzz\r\n{extra}"
    head += f"Content-Type: {content_type}\r\n" if content_type else ""
    head += f"X-Meetergo-Signature: {sign}\r\n" if sign else ""
    if chance.random() < 0.2:
        return Hostile(f"{kind}, chunked", _latin(head) + _chunked(chance, body), signed)
    return Hostile(kind, _latin(f"{head}Content-Length: {len(body)}\r\n\r\n") + body, signed)


def _chunked(chance: random.Random, body: bytes) -> bytes:
    parts, at = [b"Transfer-Encoding: chunked\r\n\r\n"], 0
    while at < len(body):
        size = chance.choice((1, 7, 1000, 65_536)) if len(body) < 5000 else 65_536
        part = body[at : at + size]
        parts.append(b"%x\r\n%s\r\n" % (len(part), part))
        at += size
    return b"".join(parts) + b"0\r\n\r\n"


def _latin(text: str) -> bytes:
    return text.encode("latin-1")


def raws(seed: int) -> Iterator[Hostile]:
    """Generate raw requests without end, of each kind in turn."""
    chance = random.Random(f"raw {seed}")
    kinds = list(RAW.items())
    for number in range(1 << 62):
        name, make = kinds[number % len(kinds)]
        sent, ends = make(chance), name.startswith("half")
        if chance.random() < 0.15:
            sent, ends = _bytes(chance, sent), True
        yield Hostile(name, sent, ends=ends)


def _post(*headers: str, body: bytes = b"") -> bytes:
    lines = ["POST /webhooks/meetergo HTTP/1.1", "Host: x", "Content-Type: application/json",
             "X-Meetergo-Signature: x", *headers]  # fmt: skip
    return _latin("\r\n".join(lines)) + b"\r\n\r\n" + body


def _chunk(body: bytes) -> bytes:
    return _post("Transfer-Encoding: chunked", body=body)


def _get(chance: random.Random) -> str:
    return chance.choice(
        ["/", "/healthz", "/sign-in", "/api/v1/bookings", "/static/style.css", "/metrics"]
    )


TARGETS = ["*", "x", "//x", "/%", "/%zz", "http://x/y", "http://[", "/" + "a" * 9000, "/\x7f",
           "/?" + "&" * 4000]  # fmt: skip
CREDENTIALS = ["Bearer", "Bearer \xe9", "Basic x", "Bearer " + "x" * 4000]
RAW: dict[str, Callable[[random.Random], bytes]] = {
    "half a head": lambda c: _post("X: y")[: c.randint(1, 60)],
    "half a body": lambda c: _post(f"Content-Length: {c.randint(3, 9000)}", body=b"{}"),
    "half a chunk": lambda c: _chunk(b"%x\r\n{}" % c.randint(3, 90_000)),
    "half a last chunk": lambda c: _chunk(c.choice([b"2\r\n{}\r\n", b"2\r\n{}\r\n0\r\n", b"0"])),
    "half a trailer": lambda c: _chunk(b"0\r\nA: b\r\n"),
    "a length too long": lambda c: _post(f"Content-Length: {10 ** c.randint(6, 40)}"),
    "a length too short": lambda c: _post("Content-Length: 1", body=b"{}GET / HTTP/1.1\r\n\r\n"),
    "a length that is none": lambda c: _post(
        f"Content-Length: {c.choice(['-1', '+2', '0x2', '2 2', '', '²', '1e3', '9' * 5000, '2,2'])}"
    ),
    "two lengths": lambda c: _post("Content-Length: 2", f"Content-Length: {c.randint(2, 4)}", body=b"{}"),
    "a length and chunks": lambda c: _post("Content-Length: 2", "Transfer-Encoding: chunked", body=b"{}"),
    "a chunk size that is none": lambda c: _chunk(
        c.choice([b"zz", b"-5", b"0x2", b"+2", b" 2", b"", b"g", b"2 2", b"\xff", b"1" * 20]) + b"\r\n{}\r\n0\r\n\r\n"
    ),
    "an endless chunk size": lambda c: _chunk(b"0" * c.randint(8200, 30_000)),
    "a chunk extension": lambda c: _chunk(
        b"2;" + c.choice([b"a=b", b"x" * 30_000, b"=;", b'"', b"\r", b"\0"]) + b"\r\n{}\r\n0\r\n\r\n"
    ),
    "a chunk without its end": lambda c: _chunk(b"2\r\n{}xx\r\n0\r\n\r\n"),
    "chunks of one byte": lambda c: _chunk(b"1\r\nx\r\n" * c.randint(10, 20_000) + b"0\r\n\r\n"),
    "chunks over the limit": lambda c: _chunk(b"10000\r\n%s\r\n" % (b"x" * 65_536) * 5 + b"0\r\n\r\n"),
    "bad trailers": lambda c: _chunk(b"0\r\n" + c.choice([b"no trailer", b"A\0: b", b": b"]) + b"\r\n\r\n"),
    "half of an unknown coding": lambda c: _post(
        f"Transfer-Encoding: {c.choice(['gzip', 'xyz', 'identity', 'chunked, chunked', 'gzip, chunked', ''])}"
    ),
    "bare line feeds": lambda c: _post(body=b"").replace(b"\r\n", b"\n"),
    "bare returns": lambda c: _post(body=b"").replace(b"\r\n", b"\r", 1),
    "an odd version": lambda c: _latin(f"GET / HTTP/{c.choice(['0.9', '9.9', '2.0', 'x', '1.1 x', ''])}\r\n\r\n"),
    "an odd method": lambda c: _latin(
        f"{c.choice(['get', 'X' * 30, 'G@T', 'PRI', 'TRACE', 'CONNECT', 'PATCH', ''])} / HTTP/1.1\r\nHost: x\r\n\r\n"
    ),
    "an odd target": lambda c: _latin(
        f"GET {c.choice(TARGETS)} HTTP/1.1\r\nHost: x\r\n\r\n"
    ),
    "an odd host": lambda c: _latin(
        f"GET {_get(c)} HTTP/1.1\r\nHost: {c.choice(['', 'a b', '[', '💩'.encode().decode('latin-1'), 'x:y', 'x' * 5000])}\r\n\r\n"
    ),
    "many headers": lambda c: _post(*[f"X-{n}: y" for n in range(c.randint(50, 400))]),
    "a long header": lambda c: _post(f"X: {'y' * c.randint(8000, 60_000)}"),
    "an endless head": lambda c: _post("X: y")[:-4] + b"y" * 70_000,
    "odd headers": lambda c: _post(
        c.choice(["X y: z", ": z", "X\0: z", "X: \0", " X: z", "X : z", "Content_Length: 2", "SCRIPT_NAME: /x"])
    ),
    "a folded header": lambda c: _post("X: y\r\n z"),
    "an upgrade": lambda c: _latin(
        "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n"
    ),
    "HTTP/2": lambda c: b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "the PROXY protocol": lambda c: b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\nGET / HTTP/1.1\r\n\r\n",
    "half TLS": lambda c: b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + c.randbytes(400),
    "two requests": lambda c: b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n" * 2,
    "an odd expectation": lambda c: _post(f"Expect: {c.choice(['x', '100-continue, x', ''])}", "Content-Length: 0"),
    "an odd cookie": lambda c: _latin(
        f"GET / HTTP/1.1\r\nHost: x\r\nCookie: session={c.choice(['x', '.', '.eJx.x.x', '{}', chr(255), 'a' * 4000])}\r\n\r\n"
    ),
    "an odd credential": lambda c: _latin(
        f"GET /api/v1/bookings HTTP/1.1\r\nAuthorization: {c.choice(CREDENTIALS)}\r\n\r\n"
    ),
    "an odd range": lambda c: _latin(
        f"GET /static/style.css HTTP/1.1\r\nHost: x\r\nRange: bytes={c.choice(['-', '9-1', '0-' + '9' * 30, '0-0,' * 500])}\r\n\r\n"
    ),
    "an odd form": lambda c: _latin(
        f"POST /sign-in HTTP/1.1\r\nHost: x\r\nContent-Type: {c.choice(['multipart/form-data', 'multipart/form-data; boundary=', 'multipart/form-data; boundary=b', 'application/x-www-form-urlencoded; charset=x'])}\r\nContent-Length: 40\r\n\r\n"
    ) + c.choice([b"--b\r\n", b"key=%ff&", b"\0" * 40, b"--b--"]).ljust(40, b"&"),
    "half nonsense": lambda c: c.randbytes(c.randint(1, 300)) + b"\n",
}  # fmt: skip
