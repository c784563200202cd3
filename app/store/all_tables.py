"""The registry with every table in it, whoever imports what."""

from __future__ import annotations

from app.store import access_models, models
from app.store.tables import Base

metadata = Base.metadata
__all__ = ["access_models", "metadata", "models"]
