"""What a person's browser does on the way to a consent page, for the demo and the tests."""

from __future__ import annotations

import re

import requests

FORM_TOKEN = re.compile(r'name="csrf" value="([0-9a-f]+)"')
ONWARD = "Refresh"
"""The header that sends a browser on to the consent page."""


def form_token(page: str) -> str:
    """Return the token in the forms of a page; empty if the page has none."""
    found = FORM_TOKEN.search(page)
    return found[1] if found else ""


def address_onward(refresh: str) -> str:
    """Return the address in the header that sends a browser on; empty if there is none."""
    return refresh.partition("url=")[2]


def open_consent_page(browser: requests.Session, web: str, provider: str) -> requests.Response:
    """Press the button of a CRM in a browser that is signed in; return the consent page."""
    token = form_token(browser.get(f"{web}/", timeout=30).text)
    answer = browser.post(f"{web}/oauth/{provider}/start", data={"csrf": token}, timeout=30)
    return browser.get(address_onward(answer.headers[ONWARD]), timeout=30)
