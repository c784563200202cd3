"""The mapping files in use: read again when they change; a broken one leaves the old in use."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import structlog

from app.domain.errors import MappingError
from app.mapping.load import load_mapping
from app.mapping.mapping import Mapping

log = structlog.get_logger(__name__)
Stamp = tuple[int, int, int]


@dataclass
class _File:
    mapping: Mapping
    stamp: Stamp
    problem: str | None = None


class MappingFiles:
    """The mapping files, one for each provider and named after it."""

    def __init__(
        self, folder: Path, providers: Iterable[str], no_company: frozenset[str] = frozenset()
    ) -> None:
        """Read all files. Raises MappingError with every mistake of every file.

        `no_company`: domains that are no companies, such as those of mail relays.
        """
        self._folder, self._no_company = folder, no_company
        self._files: dict[str, _File] = {}
        problems = []
        for provider in providers:
            path = self.path(provider)
            try:
                self._files[provider] = _File(self.load(path, provider), _stamp(path))
            except MappingError as error:
                problems.append(str(error))
        if problems:
            raise MappingError("\n".join(problems))

    def load(self, path: Path, provider: str) -> Mapping:
        """Read a file, in use or proposed. Raises MappingError with every mistake."""
        return self.settle(load_mapping(path, provider))

    def settle(self, mapping: Mapping) -> Mapping:
        """Give a mapping the settings that hold for all files."""
        mapping.no_company = self._no_company
        return mapping

    def path(self, provider: str) -> Path:
        """The path of a provider's file."""
        return self._folder / f"{provider}.yaml"

    def __getitem__(self, provider: str) -> Mapping:
        """The newest good mapping of a provider; a changed file is read and checked now."""
        file = self._files[provider]
        path = self.path(provider)
        stamp = _stamp(path)
        if stamp == file.stamp:
            return file.mapping
        file.stamp = stamp
        try:
            file.mapping, file.problem = self.load(path, provider), None
            log.info("mapping_reloaded", provider=provider, mapping_version=file.mapping.version)
        except MappingError as error:
            file.problem = str(error)
            log.error("mapping_refused", provider=provider, problem=file.problem,
                      version_in_use=file.mapping.version)  # fmt: skip
        return file.mapping

    def problem(self, provider: str) -> str | None:
        """Why the file as it is now was refused; None if it is in use."""
        _ = self[provider]
        return self._files[provider].problem


def _stamp(path: Path) -> Stamp:
    try:
        found = path.stat()
    except OSError:
        return (0, 0, 0)
    # The inode too: an editor may replace the file within one tick of the clock.
    return (found.st_mtime_ns, found.st_size, found.st_ino)
