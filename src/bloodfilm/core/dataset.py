"""A data set: fields in order, their vocabulary, and the issues met while reading it."""

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path

from bloodfilm.core.attributes import LLD_SCHEMA, Schema
from bloodfilm.core.cell_table import PHYSICAL
from bloodfilm.core.errors import DataError
from bloodfilm.core.field import Cell, Field
from bloodfilm.core.issues import Issue
from bloodfilm.core.lazy_sequence import LazySequence
from bloodfilm.core.taxonomy import DEFAULT_TAXONOMY, Taxonomy
from bloodfilm.core.text import plural


@dataclass(frozen=True)
class Dataset:
    """Fields with one vocabulary. Pixels stay on disk.

    Attributes:
        name: display name.
        fields: any sequence of fields: a tuple, or one that reads records as they are asked for,
            so that a set may be larger than memory.
        taxonomy: the tree the cells' labels are nodes of.
        schema: the attributes the cells may carry.
        licence: of the images and labels, as the source states it.
        source: the file or folder it was read from.
        issues: what a reader had to leave out, correct or note; codes of `dataset_codes`.
    """

    name: str
    fields: Sequence[Field]
    taxonomy: Taxonomy = DEFAULT_TAXONOMY
    schema: Schema = LLD_SCHEMA
    licence: str | None = None
    source: Path | None = None
    issues: tuple[Issue, ...] = ()

    def __repr__(self) -> str:
        issues = f", {plural(len(self.issues), 'issue')}" if self.issues else ""
        return f"<Dataset {self.name!r}: {plural(len(self.fields), 'field')}{issues}>"

    @property
    def problems(self) -> tuple[str, ...]:
        """The messages of `issues`, one line each, for people and for earlier programs."""
        return tuple(issue.message for issue in self.issues)

    def __len__(self) -> int:
        return len(self.fields)

    def __iter__(self) -> Iterator[Field]:
        return iter(self.fields)

    def __getitem__(self, index: int) -> Field:
        return self.fields[index]

    @classmethod
    def concat(cls, datasets: Sequence["Dataset"]) -> "Dataset":
        """Return the fields of several data sets, in order, in one vocabulary.

        Taxonomies and schemas are joined; an attribute whose name has other values in an earlier
        set is renamed as `Schema.join` says. Patients of sets of different names are prefixed with
        the set's name: one number in two sets is two patients. Fields are changed when they are
        asked for, so that the sets may be larger than memory.

        Raises:
            DataError: if there is no data set, or the vocabularies contradict each other.
        """
        if not datasets:
            raise DataError("no data set to join; name at least one")
        if len(datasets) == 1:
            return datasets[0]
        taxonomy, schema = datasets[0].taxonomy, datasets[0].schema
        names = list(dict.fromkeys(d.name for d in datasets))
        parts = []
        for number, dataset in enumerate(datasets):
            taxonomy = taxonomy.join(dataset.taxonomy)
            renamed = {a: b for a, b in schema.joined_names(dataset.schema).items() if a != b}
            schema = schema.join(dataset.schema)
            owner = dataset.name if len(names) > 1 else None
            parts.append(_Part(dataset.fields, renamed, owner, number))
        sources = {d.source for d in datasets}
        return cls(
            " + ".join(names),
            JoinedFields(parts),
            taxonomy,
            schema,
            _joined_licence(datasets),
            sources.pop() if len(sources) == 1 else None,
            tuple(
                replace(found, message=f"{d.source or d.name}: {found.message}")
                for d in datasets
                for found in d.issues
            ),
        )

    def where(self, keep: Callable[[Field], bool]) -> "Dataset":
        """Return the fields for which `keep` is true, read once, in order."""
        return replace(self, fields=tuple(f for f in self.fields if keep(f)))

    def split(self, *names: str) -> "Dataset":
        """Return the fields of the named splits."""
        return self.where(lambda f: f.split in names)

    def class_counts(self) -> Counter[str]:
        """Count cells by class; ignored ones under `ignore`, unnamed ones under `unnamed`."""
        counts: Counter[str] = Counter()
        for item in self.fields:
            for cell in item.cells:
                counts["ignore" if cell.ignore else cell.class_name or "unnamed"] += 1
        return counts


# ---- joined fields ---------------------------------------------------------------------------


@dataclass(frozen=True)
class _Part:
    """The fields of one data set in a joined one.

    Attributes:
        fields: as the data set has them.
        renamed: attributes that have another name in the joined schema.
        owner: prefix of its patients; `None` if they keep their names.
        number: of the data set, from 0.
    """

    fields: Sequence[Field]
    renamed: Mapping[str, str]
    owner: str | None
    number: int

    def convert(self, item: Field) -> Field:
        """Return a field of this part as the joined set has it."""
        patient = item.patient
        if patient is not None and self.owner is not None:
            patient = f"{self.owner}/{patient}"
        return replace(item, cells=tuple(map(self._cell, item.cells)), patient=patient)

    def _cell(self, cell: Cell) -> Cell:
        identity = cell.id
        if identity is not None and identity.startswith(PHYSICAL):
            identity = f"{PHYSICAL}{self.number}-{identity.removeprefix(PHYSICAL)}"
        if not self.renamed and identity == cell.id:
            return cell
        attributes = {self.renamed.get(k, k): v for k, v in cell.attributes.items()}
        return replace(cell, attributes=attributes, id=identity)


class JoinedFields(LazySequence[Field]):
    """The fields of several data sets, in order, made when they are asked for."""

    def __init__(self, parts: Sequence[_Part]) -> None:
        self.parts = tuple(parts)
        self._ends = list(accumulate(len(part.fields) for part in self.parts))

    def __len__(self) -> int:
        return self._ends[-1]

    def item_at(self, place: int) -> Field:
        """Return the field at a place."""
        number = bisect_right(self._ends, place)
        part = self.parts[number]
        start = self._ends[number] - len(part.fields)
        return part.convert(part.fields[place - start])

    def __iter__(self) -> Iterator[Field]:
        """Yield the fields in order, one data set after the other."""
        return (part.convert(item) for part in self.parts for item in part.fields)


def _joined_licence(datasets: Sequence[Dataset]) -> str | None:
    """Return the one licence of all, or each set's; `None` if none states any."""
    licences = list(dict.fromkeys((d.name, d.licence) for d in datasets))
    if len({licence for _, licence in licences}) == 1:
        return licences[0][1]
    return "; ".join(f"{name}: {licence or 'not stated'}" for name, licence in licences)
