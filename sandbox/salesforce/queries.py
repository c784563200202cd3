"""Queries, with and without the recycle bin."""

from __future__ import annotations

import re
from functools import partial

from sandbox.answers import Record
from sandbox.salesforce import soql
from sandbox.salesforce.describe import type_of
from sandbox.salesforce.refused import SalesforceRefused
from sandbox.salesforce.schema import PREFIXES
from sandbox.salesforce.state import SalesforceState


def query(crm: SalesforceState, text: str) -> Record:
    """Answer a query."""
    names = {sobject: crm.names(sobject, "query") for sobject in crm.tables}
    asked = re.search(r"\bFROM\s+(\w+)", text)
    if asked and asked[1] in crm.account.missing:
        raise SalesforceRefused(400, "INVALID_TYPE", f"sObject type '{asked[1]}' is not supported.")
    rows = _rows(crm, text, _shown(crm), names)
    return {"totalSize": len(rows), "done": True, "records": rows}


def query_all(crm: SalesforceState, text: str) -> Record:
    """Answer a query that includes the recycle bin."""
    every = {name: {**crm.tables[name], **crm.deleted[name]} for name in crm.tables}
    names = {sobject: crm.names(sobject) | {"MasterRecordId"} for sobject in crm.tables}
    rows = _rows(crm, text, every, names)
    return {"totalSize": len(rows), "done": True, "records": rows}


def _rows(
    crm: SalesforceState,
    text: str,
    tables: dict[str, dict[str, Record]],
    names: dict[str, set[str]],
) -> list[Record]:
    """Return the rows of a query; refuse a malformed one."""
    try:
        return soql.run(text, tables, names, partial(_holds_ids, crm), partial(_column_type, crm))
    except soql.Malformed as error:
        raise SalesforceRefused(400, "MALFORMED_QUERY", f"unexpected token: {error}") from None
    except soql.NoField as error:
        raise SalesforceRefused(400, "INVALID_FIELD", f"No such column '{error}'") from None
    except soql.WrongType as error:
        message = f"value of filter criterion for field '{error}' must be of its type"
        raise SalesforceRefused(400, "INVALID_FIELD", message) from None
    except soql.NoId as error:
        message = f"invalid ID field: {error}"
        raise SalesforceRefused(400, "INVALID_QUERY_FILTER_OPERATOR", message) from None


def _column_type(crm: SalesforceState, sobject: str, column: str) -> str:
    """Return the type of a column, for the checks of a query."""
    there = column in crm.names(sobject) and column not in ("Id", "CreatedDate")
    return str(type_of(crm, sobject, column)["type"]) if there else "string"


def _holds_ids(crm: SalesforceState, sobject: str, name: str) -> bool:
    kind = crm.kind_of(sobject, name)
    named = [kind] if isinstance(kind, str) else list(kind) if isinstance(kind, tuple) else []
    return bool(named) and all(target in PREFIXES for target in named)


def _shown(crm: SalesforceState) -> dict[str, dict[str, Record]]:
    """Return the tables with the values that Salesforce computes."""
    closed = {r["ApiName"]: r["IsClosed"] for r in crm.tables["OpportunityStage"].values()}
    deals = {
        key: {**row, "IsClosed": closed[row["StageName"]]}
        for key, row in crm.tables["Opportunity"].items()
    }
    return {**crm.tables, "Opportunity": deals}
