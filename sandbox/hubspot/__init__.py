"""HubSpot as a sandbox: date-based paths, batches with 207, unique properties, typed links."""

from sandbox.hubspot.sandbox import HubSpotSandbox

__all__ = ["HubSpotSandbox"]
