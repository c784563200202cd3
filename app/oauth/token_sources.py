"""The tokens of an account that is not a connection yet."""

from __future__ import annotations

from app.domain.errors import Unauthorized


class FixedToken:
    """The token source of an account that is not a connection yet."""

    def __init__(self, token: str) -> None:
        self._token = token

    def token(self) -> str:
        """Return the token."""
        return self._token

    def look_for_address(self, token: str) -> None:
        """Do nothing: there is no other token, and so no other address."""

    def renewed(self, refused: str) -> str:
        """Raise Unauthorized: there is no other token."""
        raise Unauthorized("The CRM refuses the access token that it has just issued.")
