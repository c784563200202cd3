"""The paths of the API."""

VERSION = "68.0"
DATA = f"/services/data/v{VERSION}"
