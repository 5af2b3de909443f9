"""A data set: fields in order, the vocabulary they are labelled in, and what is wrong with it."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from bloodfilm.core.attributes import LLD_SCHEMA, Schema
from bloodfilm.core.field import Field
from bloodfilm.core.taxonomy import DEFAULT_TAXONOMY, Taxonomy


@dataclass(frozen=True)
class Dataset:
    """Fields with one vocabulary. Pixels stay on disk.

    Attributes:
        name: what a person calls it.
        fields: any sequence of fields: a tuple, or one that reads records as they are asked for,
            so that a set may be larger than memory.
        taxonomy: the tree the cells' labels are nodes of.
        schema: the attributes the cells may carry.
        licence: of the images and labels, as the source states it.
        source: the file or folder it was read from.
        problems: what a reader had to leave out or mend, one line each.
    """

    name: str
    fields: Sequence[Field]
    taxonomy: Taxonomy = DEFAULT_TAXONOMY
    schema: Schema = LLD_SCHEMA
    licence: str | None = None
    source: Path | None = None
    problems: tuple[str, ...] = field(default=())

    def __len__(self) -> int:
        return len(self.fields)

    def __iter__(self) -> Iterator[Field]:
        return iter(self.fields)

    def __getitem__(self, index: int) -> Field:
        return self.fields[index]

    def where(self, keep: Callable[[Field], bool]) -> "Dataset":
        """Return the fields for which `keep` is true, read once, in order."""
        return replace(self, fields=tuple(f for f in self.fields if keep(f)))

    def split(self, *names: str) -> "Dataset":
        """Return the fields of the named splits."""
        return self.where(lambda f: f.split in names)

    def class_counts(self) -> Counter[str]:
        """Count cells by label; ignored ones under `ignore`, unnamed ones under `unnamed`."""
        counts: Counter[str] = Counter()
        for item in self.fields:
            for cell in item.cells:
                counts["ignore" if cell.ignore else cell.label or "unnamed"] += 1
        return counts
