"""A connection's stored grant, and when its token has to be refreshed: pure."""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from app.domain.errors import RetryLater
from app.oauth import exchange
from app.store.leases import SKEW

MARGIN = timedelta(minutes=2)
"""A token is refreshed if less than this, or less than a tenth of its lifetime, is left."""


SPARE = timedelta(seconds=10)
"""With this much life left a token may be used while another process refreshes it."""


BACK_OFF = (5.0, 900.0)
"""Seconds until a token endpoint that failed is called again: first wait, longest wait."""


LONGEST_BACK_OFF = timedelta(seconds=4 * BACK_OFF[1])
"""The longest time that a token endpoint is left alone at its own request."""


EARLY = 2.0
"""The scheduler refreshes up to this many margins ahead, spread so that not all come at once."""


@dataclass(frozen=True)
class Grant:
    """A connection's stored tokens, with the data that decides on a refresh."""

    tokens: dict[str, Any]
    expires_at: datetime | None
    provider: str
    login_host: str | None
    lasting: bool
    """Whether it is never refreshed: a hand-made key, or a token of a CRM whose tokens last."""
    retry_at: datetime | None
    reason: str | None
    account_id: str = ""
    """The CRM's own id of the account that the tokens open."""
    failing_since: datetime | None = None

    def left_alone(self, now: datetime) -> datetime | None:
        """The time until which the token endpoint is left alone; None if it may be called.

        A failure dated in the future is from before the clock was set back, and does not count.
        """
        if self.retry_at is None or self.retry_at <= now:
            return None
        set_back = self.failing_since is not None and self.failing_since > now + SKEW
        return None if set_back or self.retry_at > now + LONGEST_BACK_OFF + SKEW else self.retry_at

    def token_for(self, account_id: str) -> str:
        """Return the access token for work on one account; raise RetryLater if it opens another.

        A batch that was planned for the earlier account would otherwise be written into this one.
        """
        if account_id and account_id != self.account_id:
            raise RetryLater("The connection belongs to another account now.")
        return self.access_token

    @property
    def access_token(self) -> str:
        """The access token; empty if there is none."""
        return str(self.tokens.get("access_token", ""))

    def outlives(self, moment: datetime) -> bool:
        """Whether the access token is still good at a moment."""
        if self.lasting:
            return bool(self.access_token)
        return bool(self.access_token) and self.expires_at is not None and self.expires_at > moment

    def fresh(self, now: datetime, early: float = 1.0) -> bool:
        """Whether more than the margin is left; `early` widens the margin."""
        lifetime = float(self.tokens.get("lifetime", 1800))
        # A token with a life shorter than twice the margin would never count as fresh.
        margin = min(max(MARGIN.total_seconds(), lifetime * 0.1), lifetime * 0.4) * early
        return self.outlives(now + timedelta(seconds=margin))


def refresh_spread(number: int, grant: Grant) -> float:
    """A factor from one to EARLY margins for each token: jitter on which all processes agree."""
    seed = f"{number}{grant.expires_at}"
    return random.Random(seed).uniform(1.0, EARLY)  # nosec B311  # noqa: S311 - spreads calls, no secret


def back_off(failures: int, error: Exception) -> float:
    """Seconds with full jitter, or the seconds that the token endpoint asks for, within bounds."""
    first, most = BACK_OFF
    after = error.after if isinstance(error, RetryLater) else None
    if after is not None:
        return min(max(after, 1.0), LONGEST_BACK_OFF.total_seconds())
    return random.uniform(1.0, min(most, first * 2 ** min(failures, 10)))  # nosec B311  # noqa: S311 - spreads calls, no secret


def lifetime_of(value: Any) -> int:
    """The lifetime in a token answer, in seconds; 0 if the value is no lifetime."""
    try:
        seconds = float(value) if isinstance(value, (int, float, str)) else 0.0
    except (ValueError, OverflowError):
        return 0
    # This form of the comparison also gives 0 for NaN.
    return int(seconds) if 0 < seconds < exchange.LONGEST_LIFE else 0
