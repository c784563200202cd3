"""The domains that belong to no company: those in the file beside this one, and in the setting."""

from __future__ import annotations

from app.domain.people import ascii_domain
from config.settings import CONFIG_DIR, SettingsError, split_list

DOMAINS_FILE = CONFIG_DIR / "no_company_domains.txt"


def no_company_domains(setting: str) -> frozenset[str]:
    """Return the domains of the file and of NO_COMPANY_DOMAINS in ASCII.

    Raises SettingsError that names a text which is no domain.
    """
    lines = DOMAINS_FILE.read_text(encoding="utf-8").splitlines()
    listed = [line for line in lines if line and not line.startswith("#")]
    domains = set()
    for given in (*listed, *split_list(setting)):
        domain = ascii_domain(given.strip(" @.*"))
        if domain is None:
            raise SettingsError(
                f"NO_COMPANY_DOMAINS names {given!r}, which is not a domain such as relay.example."
            )
        domains.add(domain)
    return frozenset(domains)
