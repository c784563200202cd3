"""Names the place of a bug of this service."""

from __future__ import annotations


def place_of(error: Exception) -> str:
    """Return the place of an exception as `file:line` in this project: its text may hold data."""
    trace, place = error.__traceback__, ""
    while trace:
        path = trace.tb_frame.f_code.co_filename
        if "site-packages" not in path or not place:
            place = f"{'/'.join(path.split('/')[-2:])}:{trace.tb_lineno}"
        trace = trace.tb_next
    return place
