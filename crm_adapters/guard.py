"""The guard around an adapter: only the declared errors come out, whatever a CRM answers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import cast

import structlog

from app.crm.changes import Plan
from app.crm.lookup import Lookup, LookupResults
from app.crm.objects import ObjectName, Ref
from app.crm.port import Access, Adapter, ApiFacts, Report
from app.crm.schema import CrmAccount, CrmField, CrmShape, Directory, NewField
from app.domain.errors import CrmError, Unauthorized, Unreadable
from app.domain.faults import place_of
from app.domain.rate_limits import NotOurs, RateLimit
from crm_adapters.http import OwnFault, Redirected, RefusedToken

log = structlog.get_logger(__name__)


class GuardedAdapter:
    """An adapter whose methods raise only CrmError, or NotOurs for a call that is not ours to make."""

    def __init__(self, adapter: Adapter) -> None:
        self.inner = adapter

    @property
    def shape(self) -> CrmShape:
        """The adapter's own value."""
        return self.inner.shape

    @property
    def batch_size(self) -> int:
        """The adapter's own value."""
        return self.inner.batch_size

    @property
    def asks_ahead(self) -> bool:
        """The adapter's own value."""
        return self.inner.asks_ahead

    @property
    def api_facts(self) -> ApiFacts:
        """The adapter's own value."""
        return self.inner.api_facts

    @property
    def allowances(self) -> Sequence[RateLimit]:
        """The adapter's own value."""
        return self.inner.allowances

    @property
    def access(self) -> Access:
        """The adapter's own value."""
        return self.inner.access

    def whoami(self) -> CrmAccount:
        """Return the account."""
        with self._guarded():
            return self.inner.whoami()

    def check(self, name: ObjectName) -> None:
        """Read one record of an object."""
        with self._guarded():
            self.inner.check(name)

    def directory(self, needed: frozenset[ObjectName] | None = None) -> Directory:
        """Return owners, pipelines and fields of the account."""
        with self._guarded():
            return self.inner.directory(needed)

    def describe(self, name: ObjectName) -> list[CrmField]:
        """Return the fields of an object."""
        with self._guarded():
            return self.inner.describe(name)

    def provision(self, fields: Sequence[NewField] = ()) -> list[str]:
        """Create fields."""
        with self._guarded():
            return self.inner.provision(fields)

    def find(self, questions: Sequence[Lookup], ids: Mapping[Ref, str]) -> LookupResults:
        """Read records."""
        with self._guarded():
            return self.inner.find(questions, ids)

    def apply(self, plan: Plan, report: Report) -> None:
        """Write a plan."""
        with self._guarded():
            self.inner.apply(plan, report)

    def url_for(self, name: ObjectName, record_id: str) -> str:
        """Return the URL of a record for a person with a browser."""
        return self.inner.url_for(name, record_id)

    def record_id_in(self, name: ObjectName, text: str) -> str:
        """Return the record id in a text that a person typed or pasted."""
        return self.inner.record_id_in(name, text)

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        try:
            yield
        except Unreadable:
            self.access.meter.count_nonsense()
            raise
        except (CrmError, NotOurs):
            raise
        except OwnFault as fault:
            raise fault.cause from None
        except (RefusedToken, Redirected) as error:
            raise Unauthorized(f"The CRM refuses the access token: {error}") from None
        except Exception as error:
            self.access.meter.count_nonsense()
            place = place_of(error)
            log.error("answer_unreadable", kind=type(error).__name__, place=place)
            words = f"The CRM's answer does not fit the call ({type(error).__name__} at {place})."
            raise Unreadable(words) from None


def guarded(adapter: Adapter) -> Adapter:
    """Return an adapter that raises only the declared errors."""
    return cast(Adapter, GuardedAdapter(adapter))
