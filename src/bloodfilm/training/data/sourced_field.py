"""A field of a data set, as a training run takes it."""

from dataclasses import dataclass
from pathlib import Path

from bloodfilm.core import Dataset, Field


@dataclass(frozen=True)
class SourcedField:
    """A field, the data set it is of, and how often an epoch draws it.

    `group` names the fields it must stay with, where `split_file` ties some together. The
    attributes in `omit` are not learnt from it.
    """

    field: Field
    dataset: Dataset
    repeat: float
    group: str = ""
    split_file: Path | None = None
    omit: frozenset[str] = frozenset()

    @property
    def domain(self) -> str:
        """The data set and the acquisition it comes from, e.g. `LLD: H/40X/C2`."""
        return f"{self.dataset.name}: {self.field.domain.name}"
