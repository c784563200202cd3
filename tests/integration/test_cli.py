"""The command line as developers use it."""

from __future__ import annotations

from app.store.states import DeliveryState
from tests.bridge import DATA, PROVIDERS, Bridge, sample


def run(bridge: Bridge, *words: str, code: int = 0) -> str:
    result = bridge.app.test_cli_runner(env={"COLUMNS": "200"}).invoke(args=words)
    assert result.exit_code == code, result.output
    return str(result.output)


def test_keys(bridge: Bridge) -> None:
    """An API key works until it is revoked."""
    key = run(bridge, "keys", "create", "script").strip()
    headers = {"Authorization": f"Bearer {key}"}
    client = bridge.app.test_client()
    assert client.get("/api/v1/connections", headers=headers).status_code == 200
    run(bridge, "keys", "revoke", "script")
    assert client.get("/api/v1/connections", headers=headers).status_code == 401
    assert "no valid key" in run(bridge, "keys", "revoke", "script", code=1)


def test_connections(bridge: Bridge) -> None:
    """`connections` lists accounts, and refreshes and disconnects them."""
    listed = run(bridge, "connections", "list")
    assert all(bridge.connection(name).account.split()[0] in listed for name in PROVIDERS)
    before = bridge.services.tokens.token(1)
    run(bridge, "connections", "refresh", "1")
    assert bridge.services.tokens.token(1) != before
    run(bridge, "connections", "disconnect", "1")
    assert bridge.connection("hubspot").status == "disconnected"


def test_a_key_is_read_from_a_pipe(bridge: Bridge) -> None:
    """add-token takes the key from standard input, checks it, and never prints it."""
    key = bridge.sandbox("pipedrive").make_key(
        "base", "deals:full", "contacts:full", "activities:full", "users:read", "search:read",
        "deal-fields:full",
    )  # fmt: skip
    runner = bridge.app.test_cli_runner()
    words = ["connections", "add-token", "pipedrive"]
    wrong = runner.invoke(args=words, input="nonsense\n")
    assert wrong.exit_code == 1 and "does not accept" in wrong.output
    good = runner.invoke(args=words, input=f"{key}\n")
    assert good.exit_code == 0 and "connected as number 2" in good.output
    assert key not in good.output
    assert bridge.connection("pipedrive").auth == "key"
    none = runner.invoke(args=["connections", "add-token", "salesforce"], input="x\n")
    assert none.exit_code == 1 and "has no keys" in none.output


def test_events_and_bookings(bridge: Bridge) -> None:
    """A quarantined webhook is shown with its reason and can be replayed; a booking shows its records."""
    bridge.post(sample("booking_created", start=None))
    assert "start is missing" in run(bridge, "events", "list")
    assert "still" not in run(bridge, "events", "replay", "1", code=1)
    bridge.sync(sample("booking_created"))
    shown = run(bridge, "events", "show", "2")
    assert "Jane" in shown and "cancel-token-do-not-store" not in shown
    booking = run(bridge, "bookings", "show", sample("booking_created")["id"])
    assert booking.count('"object": "deal"') == len(PROVIDERS)
    run(bridge, "events", "replay", "2")
    assert {d.state for d in bridge.deliveries()} == {DeliveryState.DUE}
    assert "no event" in run(bridge, "events", "replay", "99", code=1)
    assert "no booking" in run(bridge, "bookings", "show", "nope", code=1)


def test_mappings(bridge: Bridge) -> None:
    """Mapping files are checked, and a preview makes no call."""
    assert run(bridge, "mappings", "check").count("is good") == len(PROVIDERS)
    for name in PROVIDERS:
        calls = bridge.sandbox(name).total_calls
        shown = run(bridge, "mappings", "preview", name, str(DATA / "booking_created.json"))
        assert "Discovery Call" in shown
        assert bridge.sandbox(name).total_calls == calls
    assert "no CRM" in run(
        bridge, "mappings", "preview", "zoho", str(DATA / "booking_created.json"), code=1
    )


def test_sweep_says_that_redis_is_away(bridge: Bridge) -> None:
    """Without Redis the command fails with a sentence."""
    bridge.post(sample("booking_created"))
    assert "REDIS_URL" in run(bridge, "sweep", code=1)
