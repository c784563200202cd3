"""Salesforce as a sandbox: SOQL, composite, composite graph, upsert, required fields, error lists."""

from sandbox.salesforce.sandbox import SalesforceSandbox

__all__ = ["SalesforceSandbox"]
