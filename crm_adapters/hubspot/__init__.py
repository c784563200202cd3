"""HubSpot. The parts: client (calls), errors (what a refusal means), schema, finder, writer."""

from crm_adapters.hubspot.adapter import HubSpotAdapter

__all__ = ["HubSpotAdapter"]
