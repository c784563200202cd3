"""`bridge`, also as `python -m app.cli`."""

from __future__ import annotations

from flask.cli import load_dotenv

from app.cli.later import Later
from app.cli.tree import make_root
from config.logging import start_logging


def main() -> None:
    """Run the command line; `.env` of this folder, or of one above, counts as for `flask`."""
    start_logging("cli")
    load_dotenv()
    make_root()(prog_name="bridge", obj=Later())


if __name__ == "__main__":
    main()
