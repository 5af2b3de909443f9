"""What the report needs of an analysis; `bloodfilm.inference.records.AnalysisRun` is one."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from bloodfilm.core.results import FieldResult
from bloodfilm.inference.manifest import Manifest


class Failed(Protocol):
    """A file that gave no result."""

    @property
    def path(self) -> str:
        """The file, as the user named it."""

    @property
    def reason(self) -> str:
        """What went wrong, in one line."""


class Run(Protocol):
    """One analysis: which bundle, with which settings, and what came of every file."""

    @property
    def version(self) -> str:
        """Of the program."""

    @property
    def bundle(self) -> Mapping[str, str]:
        """Identity of the bundle: name, sha256 and more."""

    @property
    def manifest(self) -> Manifest:
        """Of the bundle that was used."""

    @property
    def fields(self) -> Sequence[FieldResult]:
        """Results, in the order of the files; may be read from disk on every iteration."""

    @property
    def failures(self) -> Sequence[Failed]:
        """Files without a result, in order."""

    @property
    def settings(self) -> Mapping[str, Any]:
        """What the user chose, by name."""
