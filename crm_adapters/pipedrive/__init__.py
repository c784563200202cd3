"""Pipedrive. The parts: client (calls), errors (meaning of refusals), schema, finder, writer."""

from crm_adapters.pipedrive.adapter import PipedriveAdapter

__all__ = ["PipedriveAdapter"]
