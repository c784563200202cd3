"""Builds SOQL conditions for websites and phone numbers."""

from __future__ import annotations

import re

from app.domain.people import ascii_domain, spellings
from app.domain.phones import last_digits

TAIL = 8
"""Last digits of a number that a query looks for."""


def digits_in_order(number: str) -> str:
    """Return the last digits of a number for LIKE, with any signs that people write between them.

    SOSL, which is 'generally faster if the search expression uses a CONTAINS term', takes no
    wildcard at the beginning of a term, and so finds no last digits; it needs one more call, and
    its index lags. SOQL has no index for phone numbers: any condition on them reads the rows, LIKE
    as well as IN.

    https://developer.salesforce.com/docs/platform/salesforce-large-data-volumes-bp/guide/ldv-deployments-techniques-using-soql-and-sosl.html

    https://help.salesforce.com/s/articleView?id=000387524&type=1
    """
    return f"%{'%'.join(last_digits(number, TAIL))}%"


def site_forms(domain: str) -> list[str]:
    return [
        f"{scheme}{www}{form}{slash}"
        for form in spellings(domain)
        for scheme in ("", "http://", "https://")
        for www in ("", "www.")
        for slash in ("", "/")
    ]


def longer_site_forms(domain: str) -> list[str]:
    """Return the beginnings of URLs with a path after the domain, for LIKE."""
    if not re.fullmatch(r"[a-z0-9.-]+", domain):
        return []
    forms = spellings(domain)
    starts = [f"{scheme}{www}" for scheme in ("", "http://", "https://") for www in ("", "www.")]
    return [f"{start}{form}/_%" for form in forms for start in starts]


def site_domain(website: str) -> str:
    """Return the domain of a website, without scheme, path or other parts."""
    bare = re.sub(r"^(https?://)?(www\.)?", "", website.strip().lower())
    domain = re.split(r"[/?#:]", bare)[0]
    return ascii_domain(domain) or domain
