"""HubSpot. The parts: client (calls), errors (meaning of refusals), schema, finder, writer."""

from crm_adapters.hubspot.adapter import HubSpotAdapter

__all__ = ["HubSpotAdapter"]
