"""Carry a whole data set's annotations over to other photographs of its fields."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from bloodfilm.core.dataset import Dataset
from bloodfilm.core.domain import Domain
from bloodfilm.core.errors import DataError
from bloodfilm.core.field import Field
from bloodfilm.core.progress import NoProgress, Progress, track
from bloodfilm.formats.lld.names import parse_name, parse_subset
from bloodfilm.imaging.canonical import CanonicalView, view_of
from bloodfilm.imaging.scale import Measurement, Pooled, ScalePrior, measure, pool
from bloodfilm.imaging.sources.image_file import open_image
from bloodfilm.registration.align import MIN_CONFIDENCE, Alignment, register
from bloodfilm.registration.matching import match
from bloodfilm.registration.view import ImageCandidate, Keypoints
from bloodfilm.registration.warp import TransferCounts, warp_cells, warp_region

SHORTLIST = 3
INDEX_UM = 0.25
INDEX_FEATURES = 500
KEPT_PHOTOGRAPHS = 4


@dataclass(frozen=True)
class TransferRecord:
    """What was made of one pair, or of a target without one.

    Attributes:
        source: the annotated photograph; `None` if none was found for the target.
        target: the photograph to annotate.
        alignment: how one maps onto the other.
        counts: what became of the source's cells; `None` unless they were carried over.
        field: the target with its annotations; `None` likewise.
    """

    source: Path | None
    target: Path
    alignment: Alignment
    counts: TransferCounts | None = None
    field: Field | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the record as plain data, without the cells."""
        return {
            "source": None if self.source is None else str(self.source),
            "target": str(self.target),
            **self.alignment.to_json(),
            **({} if self.counts is None else {"cells": asdict(self.counts)}),
        }


class ImageCollection:
    """Photographs of one folder or data set: measured together, opened when looked at."""

    def __init__(self, paths: Sequence[Path], domains: Sequence[Domain]) -> None:
        self.paths = paths
        self.domains = domains
        self._measured: dict[int, Measurement | str] = {}
        self._pooled: Pooled | None = None
        self._open = lru_cache(KEPT_PHOTOGRAPHS)(self._photograph)

    def measure(
        self, wanted: Sequence[int], progress: Progress | None = None, stage: str = "measuring"
    ) -> None:
        """Measure the scale of photographs and pool it; those that cannot be opened are noted."""
        order = list(dict.fromkeys(wanted))
        for index in track(order, progress or NoProgress(), stage, len(order)):
            try:
                self._measured[index] = measure(open_image(self.paths[index]))
            except DataError as error:
                self._measured[index] = str(error)
        self._pooled = pool([m for m in self._measured.values() if isinstance(m, Measurement)])

    def fault(self, index: int) -> str | None:
        """Why a photograph cannot be used; `None` if it can."""
        found = self._measured[index]
        return found if isinstance(found, str) else None

    def view(self, index: int) -> CanonicalView:
        """The canonical view of a measured photograph."""
        found = self._measured[index]
        if isinstance(found, str):
            raise DataError(found)
        prior = replace(ScalePrior.of_domain(self.domains[index]), pooled=self._pooled)
        return view_of(found, prior)

    def photograph(self, index: int) -> ImageCandidate:
        """The photograph; the last few are kept."""
        return self._open(index)

    def _photograph(self, index: int) -> ImageCandidate:
        return ImageCandidate(open_image(self.paths[index]), self.view(index))


class Transfer:
    """A data set's annotations on their way to other photographs.

    Iterating yields one `TransferRecord` per target, in the order of the targets, so that a caller
    may draw pictures or show progress meanwhile; `dataset` is complete when the iteration is.
    """

    def __init__(
        self,
        source: Dataset,
        targets: Sequence[Path],
        pairs: Sequence[tuple[int, int]] | None,
        min_confidence: float = MIN_CONFIDENCE,
    ) -> None:
        """Prepare; `pairs` are (field, target) indices, `None` finds them by content."""
        self.source = source
        self.fields = tuple(source)
        self.targets = targets
        self.pairs = pairs
        self.min_confidence = min_confidence
        self.records: list[TransferRecord] = []
        self.sources = ImageCollection(
            [f.path for f in self.fields], [f.domain for f in self.fields]
        )
        self.photographs = ImageCollection(targets, [stated_domain(t) for t in targets])

    def _wanted(self) -> tuple[list[int], list[int]]:
        if self.pairs is None:
            return list(range(len(self.fields))), list(range(len(self.targets)))
        return sorted({s for s, _ in self.pairs}), sorted({t for _, t in self.pairs})

    def measure(self, progress: Progress | None = None) -> None:
        """Measure every photograph that takes part: scale and squeeze are told by all together."""
        first, second = self._wanted()
        self.sources.measure(first, progress, "measuring annotated images")
        self.photographs.measure(second, progress, "measuring target images")

    def __iter__(self) -> Iterator[TransferRecord]:
        index = None if self.pairs is not None else _Index(self.sources, len(self.fields))
        for target in range(len(self.targets)):
            if self.pairs is not None:
                candidates = [s for s, t in self.pairs if t == target]
            elif index is None or self.photographs.fault(target):
                candidates = []
            else:
                candidates = index.nearest(self.photographs.photograph(target))
            record = self._one(target, candidates)
            self.records.append(record)
            yield record

    def _one(self, target: int, candidates: Sequence[int]) -> TransferRecord:
        path = self.targets[target]
        if self.pairs is None or candidates:
            fault = self.photographs.fault(target)
            if fault:
                return TransferRecord(None, path, Alignment("refused", fault))
        if not candidates:
            return TransferRecord(
                None, path, Alignment("refused", "no annotated photograph of this field")
            )
        best: tuple[int, Alignment] | None = None
        for index in candidates:
            found = self._align(index, target)
            if best is None or found.confidence > best[1].confidence:
                best = index, found
        assert best is not None
        index, alignment = best
        field = self.fields[index]
        if alignment.matrix is None or not alignment.aligned:
            return TransferRecord(field.path, path, alignment)
        return self._carried(field, target, alignment)

    def _align(self, index: int, target: int) -> Alignment:
        fault = self.sources.fault(index)
        if fault:
            return Alignment("refused", fault)
        first, second = self.sources.photograph(index), self.photographs.photograph(target)
        return register(first, second, self.min_confidence)

    def _carried(self, field: Field, target: int, alignment: Alignment) -> TransferRecord:
        path = self.targets[target]
        sizes = [
            (view.width, view.height)
            for view in (
                self.sources.view(self.fields.index(field)),
                self.photographs.view(target),
            )
        ]
        matrix = np.asarray(alignment.matrix)
        cells, counts = warp_cells(field.cells, matrix, *sizes)
        carried = Field(
            path,
            *sizes[1],
            cells,
            warp_region(field.region, matrix, *sizes),
            self.photographs.domains[target],
            field.patient,
            field.split,
            field.diagnosis,
            {
                **field.meta,
                "carried_from": field.path.name,
                "transfer_confidence": f"{alignment.confidence:.4f}",
            },
        )
        return TransferRecord(field.path, path, alignment, counts, carried)

    @property
    def dataset(self) -> Dataset:
        """The targets that could be aligned, with what was carried over to them."""
        refused = tuple(
            f"{r.target.name}: left out: {r.alignment.reason}" for r in self.records if not r.field
        )
        return replace(
            self.source,
            name=f"{self.source.name}, carried over",
            fields=tuple(r.field for r in self.records if r.field),
            source=None,
            problems=refused,
        )


class _Index:
    """The strongest features of every source, to find the few that may show a target's field."""

    def __init__(self, album: ImageCollection, count: int) -> None:
        self.features: dict[int, Keypoints] = {}
        for index in range(count):
            if album.fault(index) is None:
                # Not through the album: its photographs would be thrown out again at once.
                view = album.view(index)
                sight = ImageCandidate(open_image(album.paths[index]), view).at(INDEX_UM)
                self.features[index] = _strongest(sight.features)

    def nearest(self, target: ImageCandidate) -> list[int]:
        """Indices of the sources with most feature matches, best first."""
        sight = target.at(INDEX_UM)
        plain, mirrored = _strongest(sight.features), _strongest(sight.mirrored_features)
        votes = {
            index: max(len(match(features, plain)), len(match(features, mirrored)))
            for index, features in self.features.items()
        }
        return sorted(votes, key=lambda i: (-votes[i], i))[:SHORTLIST]


def _strongest(features: Keypoints) -> Keypoints:
    return Keypoints(features.points[:INDEX_FEATURES], features.descriptors[:INDEX_FEATURES])


def stated_domain(path: Path) -> Domain:
    """What the folders and the name of a photograph say of its acquisition."""
    for folder in path.parents:
        domain = parse_subset(folder.name)
        if domain is not None:
            return domain
    parts = parse_name(path.name)
    return Domain() if parts is None else Domain(magnification=parts.magnification)
