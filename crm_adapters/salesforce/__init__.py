"""Salesforce. The parts: client (calls), errors (refusals), schema, finder, graph, packing, sending."""

from crm_adapters.salesforce.adapter import SalesforceAdapter

__all__ = ["SalesforceAdapter"]
