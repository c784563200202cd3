"""Salesforce's record ids: their object, their checksum, and the URLs that contain them."""

from __future__ import annotations

import re
import string
from collections.abc import Collection

from app.crm.objects import ObjectName
from crm_adapters.finder import id_in
from crm_adapters.salesforce.client import SOBJECTS

PREFIXES = {
    # https://help.salesforce.com/s/articleView?id=000385203&type=1 (the same in every org)
    ObjectName.COMPANY: "001",
    ObjectName.CONTACT: "003",
    ObjectName.LEAD: "00Q",
    ObjectName.DEAL: "006",
    ObjectName.CASE: "500",
    ObjectName.MEETING: "00U",
}
"""The prefix of the ids of each object."""
_ID = re.compile(r"[a-zA-Z0-9]{15}(?:[A-Z0-5]{3})?")
_SUM = string.ascii_uppercase + "012345"
_HOST = re.compile(r"(?:[a-z0-9-]+\.)+(?:salesforce|force)\.com")
"""https://help.salesforce.com/s/articleView?id=xcloud.domain_name_app_url_changes.htm&type=5"""
_LIGHTNING = "/lightning/r/(?:{}/)?{{id}}(?:/.*)?"
"""https://developer.salesforce.com/docs/platform/lwc/guide/reference-page-reference-type.html"""
_CLASSIC = "/{id}/?"
_FORM = "[a-zA-Z0-9]+"


def full_id(text: str) -> str:
    """Return an id in 18 characters; empty if the text is no id or its checksum is wrong.

    Each of the last three characters says which of five others are capitals: Salesforce refuses a
    whole query that contains an id with a wrong sum.
    https://salesforce.stackexchange.com/questions/1653
    """
    if not _ID.fullmatch(text):
        return ""
    bare = text[:15]
    fives = (bare[start : start + 5] for start in range(0, 15, 5))
    capitals = ([sign in string.ascii_uppercase for sign in five] for five in fives)
    whole = bare + "".join(_SUM[sum(up << n for n, up in enumerate(five))] for five in capitals)
    return whole if text in (bare, whole) else ""


def id_of(name: ObjectName, text: str) -> str:
    """Return an id in 18 characters; empty if it belongs to another object."""
    return full_id(text) if text.startswith(PREFIXES[name]) else ""


def record_id_in(name: ObjectName, text: str, own_hosts: Collection[str]) -> str:
    """Return the id that a person typed, or the id in the URL of a record's page; empty if none.

    `own_hosts`: the hosts of the org, which may have any name.
    """

    def is_own(host: str) -> bool:
        return host in own_hosts or bool(_HOST.fullmatch(host))

    pages = (_LIGHTNING.format(SOBJECTS[name]), _CLASSIC)
    return id_of(name, id_in(text, is_own, pages, _FORM))
