"""Names the place of a fault of this service's own."""

from __future__ import annotations


def place_of(error: Exception) -> str:
    """Where an exception was raised, as `file:line` within this project: its text may hold data."""
    trace, place = error.__traceback__, ""
    while trace:
        path = trace.tb_frame.f_code.co_filename
        if "site-packages" not in path or not place:
            place = f"{'/'.join(path.split('/')[-2:])}:{trace.tb_lineno}"
        trace = trace.tb_next
    return place
