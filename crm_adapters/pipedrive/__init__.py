"""Pipedrive. The parts: client (calls), errors (what a refusal means), schema, finder, writer."""

from crm_adapters.pipedrive.adapter import PipedriveAdapter

__all__ = ["PipedriveAdapter"]
