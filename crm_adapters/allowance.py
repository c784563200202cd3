"""Reads from an answer's headers what a CRM still allows."""

from __future__ import annotations

from collections.abc import Mapping

from app.domain.allowance import LimitHeaders
from app.outbound.reply import header_number


def read_headers(headers: Mapping[str, str]) -> tuple[LimitHeaders | None, LimitHeaders | None]:
    """What an answer says of the short window and of the day.

    https://developers.hubspot.com/docs/developer-tooling/platform/usage-guidelines
    https://pipedrive.readme.io/docs/core-api-concepts-rate-limiting
    https://developer.salesforce.com/docs/atlas.en-us.api_rest.meta/api_rest/headers_api_usage.htm
    """
    lowered = {key.lower(): value.strip() for key, value in headers.items()}
    short = _reading(lowered, "x-hubspot-ratelimit-remaining", "x-hubspot-ratelimit-max")
    short = short or _reading(lowered, "x-ratelimit-remaining", "x-ratelimit-limit")
    day = _reading(lowered, "x-hubspot-ratelimit-daily-remaining", "x-hubspot-ratelimit-daily")
    day = day or _reading(lowered, "x-daily-ratelimit-token-remaining", "")
    used, _, most = lowered.get("sforce-limit-info", "").partition("api-usage=")[2].partition("/")
    most = most.partition(" ")[0].rstrip(";,")
    spent, allowed = header_number(used), header_number(most)
    if spent is not None and allowed is not None:
        day = LimitHeaders(max(0, allowed - spent), allowed)
    return short, day


def _reading(headers: Mapping[str, str], left: str, most: str) -> LimitHeaders | None:
    remaining, allowed = header_number(headers.get(left)), header_number(headers.get(most))
    if remaining is None:
        return None
    # An allowance of nothing is no allowance: nobody could ever call.
    return LimitHeaders(remaining, allowed or None)
