"""Pipedrive as a sandbox: strict v2 bodies, hash-keyed custom fields, a search that lags, tokens."""

from sandbox.pipedrive.sandbox import PipedriveSandbox

__all__ = ["PipedriveSandbox"]
