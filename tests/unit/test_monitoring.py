"""The dashboard and the alerts ask for metrics and labels that the service has, and nothing else."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from app.store.states import ConnectionStatus, SourceStatus
from tests.bridge import Bridge, sample
from tests.unit.test_docs import ROOT, text

GRAFANA, PROMETHEUS = ROOT / "deploy/grafana", ROOT / "deploy/prometheus"
SELECTOR = re.compile(r"\b(bridge_\w+|up)(?:\{([^}]*)\})?")


def expressions() -> list[str]:
    """Return every expression of the dashboard and of the alerts."""
    dashboard = json.loads((GRAFANA / "bridge.json").read_text(encoding="utf-8"))
    asked = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
    asked += [v["query"] for v in dashboard["templating"]["list"] if v["type"] == "query"]
    return asked + [rule["expr"] for rule in rules()]


def rules() -> list[dict[str, Any]]:
    """Return the alert rules."""
    groups = yaml.safe_load((PROMETHEUS / "alerts.yml").read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def exposed(bridge: Bridge) -> dict[str, set[str]]:
    """Return each series that /metrics shows, with the labels that it may have."""
    shown = bridge.app.test_client().get("/metrics").get_data(as_text=True)
    found: dict[str, set[str]] = {"up": {"job"}}
    for family in text_string_to_metric_families(shown):
        if not family.samples:
            # A family without a number yet is known by name alone.
            found[f"{family.name}{'_total' * (family.type == 'counter')}"] = set()
        for each in family.samples:
            found.setdefault(each.name, set()).update(each.labels)
    return found


def test_every_metric_that_is_asked_for_exists(bridge: Bridge) -> None:
    """Each name and each label in the dashboard and the alerts is one of /metrics."""
    bridge.sync(sample("booking_created"))
    known = exposed(bridge)
    asked = expressions()
    assert len(asked) > 25
    for expression in asked:
        assert "bridge_" in expression or "up{" in expression, expression
        for name, labels in SELECTOR.findall(expression):
            assert name in known, f"{name} in {expression}"
            for label in re.findall(r"(\w+)\s*[=!]~?", labels):
                assert label in known[name] or not known[name], f"{label} in {expression}"
    unused = {name for name in known if name.startswith("bridge_")}
    unused -= {name for expression in asked for name, _ in SELECTOR.findall(expression)}
    assert {name for name in unused if not name.endswith(("_sum", "_count", "_created"))} == set()


def test_the_words_for_states_are_those_of_the_service() -> None:
    """An alert that waits for a state that is never shown would never come."""
    everything = " ".join(expressions())
    for words in re.findall(r'bridge_connections\{[^}]*status=~"([^"]+)"', everything):
        assert set(words.split("|")) <= set(ConnectionStatus)
    assert set(re.findall(r'bridge_source\{status!="(\w+)"', everything)) <= set(SourceStatus)


def test_every_alert_is_explained() -> None:
    """docs/operations.md has a row for each alert, and each alert has a sentence and a test of its own."""
    page = text("docs/operations.md")
    tests = (PROMETHEUS / "alerts_test.yml").read_text(encoding="utf-8")
    assert len(rules()) >= 8
    for rule in rules():
        assert f"| `{rule['alert']}` |" in page, rule["alert"]
        assert rule["annotations"]["summary"].endswith("."), rule
        assert tests.count(rule["alert"]) == 2, f"{rule['alert']} has to come, and not to come"


@pytest.mark.skipif(not shutil.which("promtool"), reason="needs promtool (Debian's prometheus)")
def test_the_alerts_come_and_do_not_come() -> None:
    """promtool finds no mistake, and each alert comes where something is wrong, and only there."""
    for words in (["check", "config", "prometheus.yml"], ["test", "rules", "alerts_test.yml"]):
        done = subprocess.run(
            ["promtool", *words], cwd=PROMETHEUS, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
