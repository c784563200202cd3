"""Pipedrive. The parts: client (calls), errors (refusals), schema, shapes (values), finder, writer."""

from crm_adapters.pipedrive.adapter import PipedriveAdapter

__all__ = ["PipedriveAdapter"]
