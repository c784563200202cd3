"""Where the API is."""

VERSION = "68.0"
DATA = f"/services/data/v{VERSION}"
