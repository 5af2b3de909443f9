"""Metadata of a run's data: vocabulary, domains, sources, check of the split."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bloodfilm.training.config import Config
from bloodfilm.training.data.domains import DomainTable
from bloodfilm.training.data.sharded import FieldHeaders
from bloodfilm.training.data.sourced_field import SourcedField
from bloodfilm.training.data.sources import check_split_disjoint, datasets_of
from bloodfilm.training.vocabulary import Vocabulary, read_vocabulary

Sourced = Sequence[SourcedField]


@dataclass(frozen=True)
class RunData:
    """Metadata of a run's data.

    Attributes:
        vocabulary: classes, attributes and object types.
        domains: of the training fields; batches carry places in it.
        sources: per side, data sets with licence and field counts.
        split: record of the check that training and validation are disjoint.
    """

    vocabulary: Vocabulary
    domains: DomainTable = field(default_factory=lambda: DomainTable(()))
    sources: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    split: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of_sources(
        cls, config: Config, root: Path, train: Sequence[Sourced], validation: Sequence[Sourced]
    ) -> "RunData":
        """Read the vocabulary and check the split.

        Args:
            config: of the run.
            root: where the data paths start.
            train, validation: all fields of each side.

        Raises:
            ConfigError: if the sides share something, or the vocabulary is contradictory.
        """
        split = check_split_disjoint(FieldHeaders(*train), FieldHeaders(*validation))
        datasets = datasets_of(*train, *validation)
        return cls(
            read_vocabulary(config.data, root, datasets),
            DomainTable.of(item.domain for item in FieldHeaders(*train)),
            {
                "train": describe_sources(FieldHeaders(*train)),
                "validation": describe_sources(FieldHeaders(*validation)),
            },
            split,
        )

    def record(self) -> dict[str, Any]:
        """Return plain data for the run's record."""
        return {
            "vocabulary": self.vocabulary.to_json(),
            "domains": list(self.domains.names),
            "sources": self.sources,
            "split": self.split,
        }


def describe_sources(sourced: Sequence[SourcedField]) -> list[dict[str, Any]]:
    """Return, per data set, its name, licence and number of fields by split."""
    counts: Counter[tuple[str, str, str]] = Counter()
    for item in FieldHeaders(sourced):
        counts[
            item.dataset.name, item.dataset.licence or "not stated", item.field.split or "none"
        ] += 1
    return [
        {"name": name, "licence": licence, "split": split, "fields": n}
        for (name, licence, split), n in sorted(counts.items())
    ]
