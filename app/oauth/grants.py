"""A connection's grant as it is stored, and when its token is to be refreshed: pure."""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from app.domain.errors import RetryLater
from app.oauth import exchange
from app.store.leases import SKEW

MARGIN = timedelta(minutes=2)
"""A token is refreshed when less than this, or a tenth of its lifetime, is left."""


SPARE = timedelta(seconds=10)
"""With so much life left a token may be used while another process refreshes it."""


BACK_OFF = (5.0, 900.0)
"""Seconds until a token endpoint that failed is asked again: at first, at most."""


LONGEST_BACK_OFF = timedelta(seconds=4 * BACK_OFF[1])
"""The longest that a token endpoint is left alone where it asks for that itself."""


EARLY = 2.0
"""The scheduler refreshes up to so many margins ahead, spread so that not all come at once."""


@dataclass(frozen=True)
class Grant:
    """A connection's tokens as they lie in the database, with what decides on a refresh."""

    tokens: dict[str, Any]
    expires_at: datetime | None
    provider: str
    login_host: str | None
    lasting: bool
    """It is never refreshed: a key that was made by hand, or a token of a CRM whose tokens last."""
    retry_at: datetime | None
    reason: str | None
    account_id: str = ""
    """The CRM's own id of the account that they open."""
    failing_since: datetime | None = None

    def left_alone(self, now: datetime) -> datetime | None:
        """Until when the token endpoint is left alone; None where it may be asked.

        What failed in a time that is yet to come failed before a clock was set back.
        """
        if self.retry_at is None or self.retry_at <= now:
            return None
        set_back = self.failing_since is not None and self.failing_since > now + SKEW
        return None if set_back or self.retry_at > now + LONGEST_BACK_OFF + SKEW else self.retry_at

    def token_for(self, account_id: str) -> str:
        """The access token, for work on one account; raise RetryLater where it is another one's.

        Who planned a batch for the account before would write it into this one.
        """
        if account_id and account_id != self.account_id:
            raise RetryLater("The connection is for another account now.")
        return self.access_token

    @property
    def access_token(self) -> str:
        """The access token, empty where there is none."""
        return str(self.tokens.get("access_token", ""))

    def outlives(self, moment: datetime) -> bool:
        """Whether the access token is still good at a moment."""
        if self.lasting:
            return bool(self.access_token)
        return bool(self.access_token) and self.expires_at is not None and self.expires_at > moment

    def fresh(self, now: datetime, early: float = 1.0) -> bool:
        """Whether more than the margin is left; `early` widens the margin."""
        lifetime = float(self.tokens.get("lifetime", 1800))
        # A token that lives shorter than twice the margin would never count as fresh.
        margin = min(max(MARGIN.total_seconds(), lifetime * 0.1), lifetime * 0.4) * early
        return self.outlives(now + timedelta(seconds=margin))


def refresh_spread(number: int, grant: Grant) -> float:
    """Between one and EARLY margins, another for each token: jitter that all processes agree on."""
    seed = f"{number}{grant.expires_at}"
    return random.Random(seed).uniform(1.0, EARLY)  # noqa: S311


def back_off(failures: int, error: Exception) -> float:
    """Seconds with full jitter, or what the token endpoint asks for, within bounds."""
    first, most = BACK_OFF
    after = error.after if isinstance(error, RetryLater) else None
    if after is not None:
        return min(max(after, 1.0), LONGEST_BACK_OFF.total_seconds())
    return random.uniform(1.0, min(most, first * 2 ** min(failures, 10)))  # noqa: S311


def lifetime_of(value: Any) -> int:
    """A lifetime as a token answer tells it; 0 for what is none."""
    try:
        seconds = float(value) if isinstance(value, (int, float, str)) else 0.0
    except (ValueError, OverflowError):
        return 0
    # `not <` also for what is no number.
    return int(seconds) if 0 < seconds < exchange.LONGEST_LIFE else 0
