"""The registry that holds every table, whichever modules are imported elsewhere."""

from __future__ import annotations

from app.store import (
    access_models,
    cause_models,
    mapping_models,
    models,
    process_models,
    search_models,
    totals,
)
from app.store.tables import Base

metadata = Base.metadata
__all__ = [
    "access_models",
    "cause_models",
    "mapping_models",
    "metadata",
    "models",
    "process_models",
    "search_models",
    "totals",
]
