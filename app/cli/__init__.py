"""The command line: `bridge`, and the same commands as `flask --app app <command>`."""
