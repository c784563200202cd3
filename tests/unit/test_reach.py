"""Addresses that a setting, a person or an answer may name: how written, and where they lead."""

from __future__ import annotations

import socket
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.outbound.addresses import REACH, PrivateAddress, Reach, host_of, read_address
from app.outbound.wire import bounded_session
from config.providers import load_providers
from config.settings import CONFIG_DIR, SettingsError, read_networks
from tests.between import Speaker, reply
from tests.bridge import make_settings

PUBLIC = "93.184.215.14"
HOSTILE: dict[str, str] = {
    # Another scheme, or in the clear
    "http://crm.example": "in the clear",
    "http://10.0.0.1": "in the clear in a private network",
    "http://127.0.0.2": "loopback in another spelling",
    "http://localhost.example": "no loopback",
    "ftp://crm.example": "scheme",
    "file:///etc/passwd": "file",
    "gopher://127.0.0.1:6379/_FLUSHALL": "scheme that speaks to anything",
    "javascript:alert(1)": "no address",
    "crm.example": "no scheme",
    "//crm.example": "no scheme",
    "https:crm.example": "no slashes",
    "https:/crm.example": "one slash",
    "https:///crm.example": "no host",
    "https://": "no host",
    "": "empty",
    # Two readings of the host
    "https://crm.example@evil.example": "user",
    "https://u:p@crm.example": "user and password",
    "https://evil.example\\@crm.example": "backslash and user",
    "https://127.0.0.1\\.crm.example": "backslash",
    "https://crm.example\t.evil.example": "tab",
    "https://crm.example\n": "line feed",
    " https://crm.example": "blank before it",
    "https://crm.example ": "blank behind it",
    "https://crm .example": "blank inside",
    "https://crm.example%2eevil.example": "percent",
    "https://evil.example%5c.crm.example": "percent and backslash",
    "https://evil.example;.crm.example": "semicolon",
    "https://evil.example#.crm.example": "fragment",
    "https://evil.example?.crm.example": "query",
    "https://crm。example": "full stop of another script",
    "https://ⓔvil.example": "letters that become others",
    "https://crm..example": "empty label",
    "https://.crm.example": "empty label first",
    "https://-crm.example": "hyphen first",
    "https://crm.example\x00.evil.example": "NUL",
    "https://" + "a" * 64 + ".example": "label too long",
    "https://" + "a." * 120 + "example": "name too long",
    "https://crm.example:0": "port 0",
    "https://crm.example:65536": "port too large",
    "https://crm.example:443:80": "two ports",
    "https://crm.example:²": "port that is no number",
    "https://crm.example/a?token=x": "query behind a path",
    "https://crm.example/a#b": "fragment behind a path",
    "https://crm.example/%2e%2e": "percent in the path",
    # Loopback in other spellings
    "https://2130706433": "one number",
    "https://0x7f000001": "hexadecimal",
    "https://0x7f.0.0.1": "hexadecimal part",
    "https://0177.0.0.1": "octal",
    "https://127.1": "short",
    "https://0": "zero",
    "https://127.0.0.1.": "with a full stop",
    "https://[::1": "half a bracket",
    "https://[::1%25lo]": "zone",
    # Literals that are not public
    "https://127.0.0.2": "loopback",
    "https://10.0.0.1": "private",
    "https://172.16.0.1": "private",
    "https://192.168.1.1": "private",
    "https://100.64.0.1": "shared by a provider",
    "https://169.254.169.254": "metadata",
    "https://0.0.0.0": "unspecified",
    "https://224.0.0.1": "multicast",
    "https://240.0.0.1": "reserved",
    "https://255.255.255.255": "broadcast",
    "https://192.0.2.1": "for documentation",
    "https://[::]": "unspecified",
    "https://[fe80::1]": "link-local",
    "https://[fd00:ec2::254]": "metadata",
    "https://[::ffff:127.0.0.1]": "loopback inside IPv6",
    "https://[::ffff:a9fe:a9fe]": "metadata inside IPv6",
    "https://[64:ff9b::a9fe:a9fe]": "metadata through NAT64",
    "https://[2002:7f00:1::]": "loopback inside 6to4",
    "https://[ff02::1]": "multicast",
    # Names that lead there
    "https://to-10.0.0.1.example": "name of a private address",
    "https://to-127.0.0.1.example": "name of loopback",
    "https://to-169.254.169.254.example": "name of metadata",
    "https://to-93.184.215.14-10.0.0.1.example": "one of two is private",
}


def names(host: str, _port: int) -> Sequence[str]:
    """Resolve to-<address>-<address>.example; a literal is itself, any other name public."""
    if host.startswith("to-"):
        return host.removeprefix("to-").removesuffix(".example").split("-")
    if host == "localhost":
        return ["127.0.0.1"]
    return [host] if host.replace(".", "").isdigit() or ":" in host else [PUBLIC]


def called(text: str, reach: Reach) -> Sequence[str]:
    """Return where a call to an address would go."""
    address = read_address(text)
    return reach.resolve(address.host, address.port or 443)


def test_no_hostile_address_is_called() -> None:
    """Each of these addresses is refused, by its spelling or by where it leads."""
    taken = {}
    for text, why in HOSTILE.items():
        try:
            taken[text] = (why, called(text, Reach(names)))
        except (ValueError, PrivateAddress) as error:
            assert "token=x" not in str(error) and "u:p" not in str(error)
    assert taken == {}
    assert len(HOSTILE) >= 40


@pytest.mark.parametrize(
    ("text", "to"),
    [
        ("https://api.crm.example", [PUBLIC]),
        ("https://API.crm.example:8443/v1/", [PUBLIC]),
        ("https://xn--bcher-kva.example", [PUBLIC]),
        ("https://1und1.example", [PUBLIC]),
        ("https://93.184.215.14", [PUBLIC]),
        ("https://[2606:4700::1111]", ["2606:4700::1111"]),
        ("http://127.0.0.1:5000", ["127.0.0.1"]),
        ("http://localhost:5000/x", ["127.0.0.1"]),
        ("https://localhost", ["127.0.0.1"]),
    ],
)
def test_a_good_address_is_called(text: str, to: list[str]) -> None:
    """Public machines are called, and this one where an address names it."""
    assert called(text, Reach(names)) == to


def test_networks_that_the_operator_names_are_called() -> None:
    """A name may lead into a network of PRIVATE_NETWORKS, and into no other."""
    reach = Reach(names)
    reach.allow(read_networks("10.1.0.0/16, fd00::/8"))
    assert called("https://to-10.1.2.3.example", reach) == ["10.1.2.3"]
    assert called("https://[fd00::5]", reach) == ["fd00::5"]
    for text in ("https://to-10.2.0.1.example", "https://to-127.0.0.1.example"):
        with pytest.raises(PrivateAddress, match="PRIVATE_NETWORKS"):
            called(text, reach)


@given(st.text(alphabet="htps:/@.\\%#?[]0127aé。\t -x", max_size=40))
def test_any_text_is_one_host_or_none(text: str) -> None:
    """Whatever is read as an address has a host that stands in it, once and unchanged."""
    try:
        address = read_address(text)
    except ValueError:
        assert host_of(text) is None
        return
    rest = text.partition("://")[2].lower()
    assert rest.lstrip("[").startswith(address.host)
    assert not set(text) & set("@\\%#?\t ")


def test_a_call_uses_the_address_that_was_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that leads elsewhere on the second look (rebinding) is called at the address of the first
    one; no answer's name leads to this machine.
    """
    server = Speaker(lambda line: line.sendall(reply(200, b"{}")))
    looks: list[str] = []

    def rebinding(host: str, _port: int) -> Sequence[str]:
        looks.append(host)
        return ["127.0.0.1"] if len(looks) == 1 else ["10.0.0.1"]

    port = int(server.url.rpartition(":")[2])
    monkeypatch.setattr(REACH, "_resolve", rebinding)
    monkeypatch.setattr(REACH, "_allowed", read_networks("127.0.0.0/8"))
    asked: list[object] = []
    usual = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lambda *a, **k: asked.append(a[0]) or usual(*a, **k))
    with bounded_session() as session:
        session.get(f"http://crm.example:{port}/", timeout=5)
    assert looks == ["crm.example"]
    assert set(asked) <= {"127.0.0.1"}
    monkeypatch.setattr(REACH, "_allowed", ())
    looks.clear()
    with bounded_session() as session, pytest.raises(PrivateAddress):
        session.get(f"http://crm.example:{port}/", timeout=5)
    server.stop()


@pytest.mark.parametrize(
    "text", [text for text, why in HOSTILE.items() if text and "to-" not in text]
)
def test_no_setting_takes_what_no_parser_reads_alike(text: str) -> None:
    """PUBLIC_URL, MEETERGO_API_BASE and the addresses of each CRM go through the same function."""
    try:
        read_address(text)
    except ValueError:
        for setting in ("public_url", "meetergo_api_base"):
            with pytest.raises(ValueError, match=setting):
                make_settings("sqlite:///a.sqlite3", **{setting: text})
        for name in (
            "API_BASE",
            "TOKEN_URL",
            "AUTHORIZE_URL",
            "REVOKE_URL",
            "INTROSPECT_URL",
            "WEB_BASE",
        ):
            with pytest.raises(SettingsError, match=f"HUBSPOT_{name}"):
                load_providers(CONFIG_DIR / "providers.yaml", {f"HUBSPOT_{name}": text})


def test_public_url_ends_with_the_host() -> None:
    """PUBLIC_URL with a path is refused in words: no page would be found there."""
    with pytest.raises(ValueError, match="below a path"):
        make_settings("sqlite:///a.sqlite3", public_url="https://x.example/bridge")
    kept = make_settings("sqlite:///a.sqlite3", public_url="https://x.example/").public_url
    assert kept == "https://x.example"
