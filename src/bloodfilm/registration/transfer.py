"""Transfer a data set's annotations to other images of its fields."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from bloodfilm.core.dataset import Dataset
from bloodfilm.core.dataset_codes import NOT_TRANSFERRED, dataset_issue
from bloodfilm.core.domain import Domain
from bloodfilm.core.errors import DataError
from bloodfilm.core.field import Field
from bloodfilm.core.pixels import PixelSize
from bloodfilm.core.progress import NoProgress, Progress, track
from bloodfilm.formats.lld.names import parse_name, parse_subset
from bloodfilm.imaging.canonical import CanonicalView, view_of
from bloodfilm.imaging.scale import Measurement, Pooled, ScalePrior, measure, pool
from bloodfilm.imaging.sources import open_source, read_whole
from bloodfilm.imaging.sources.image_file import open_image
from bloodfilm.registration.align import MIN_CONFIDENCE, Alignment, register
from bloodfilm.registration.matching import match
from bloodfilm.registration.view import ImageCandidate, Keypoints
from bloodfilm.registration.warp import TransferCounts, warp_cells, warp_region

SHORTLIST = 3
INDEX_UM = 0.25
INDEX_FEATURES = 500
CACHED_IMAGES = 4


@dataclass(frozen=True)
class TransferRecord:
    """Outcome of one pair, or of a target without a source.

    Attributes:
        source: the annotated image; `None` if none was found for the target.
        target: the image to annotate.
        alignment: how one maps onto the other.
        counts: outcomes of the source's cells; `None` unless they were transferred.
        field: the target with its annotations; `None` unless they were transferred.
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
    """Images of one folder or data set: scale measured jointly, pixels opened on demand."""

    def __init__(self, paths: Sequence[Path], domains: Sequence[Domain]) -> None:
        self.paths = paths
        self.domains = domains
        self._measured: dict[int, Measurement | str] = {}
        self._stated: dict[int, PixelSize | None] = {}
        self._pooled: Pooled | None = None
        self._open = lru_cache(CACHED_IMAGES)(self._load)

    def measure(
        self, wanted: Sequence[int], progress: Progress | None = None, stage: str = "measuring"
    ) -> None:
        """Measure the scale of images and pool it; errors on opening are recorded."""
        order = list(dict.fromkeys(wanted))
        for index in track(order, progress or NoProgress(), stage, len(order)):
            try:
                source = open_source(self.paths[index])
                self._measured[index] = measure(read_whole(source))
                self._stated[index] = source.pixel_size
            except DataError as error:
                self._measured[index] = str(error)
        self._pooled = pool([m for m in self._measured.values() if isinstance(m, Measurement)])

    def fault(self, index: int) -> str | None:
        """Why an image cannot be used; `None` if it can."""
        found = self._measured[index]
        return found if isinstance(found, str) else None

    def view(self, index: int) -> CanonicalView:
        """The canonical view of a measured image."""
        found = self._measured[index]
        if isinstance(found, str):
            raise DataError(found)
        prior = replace(ScalePrior.of_domain(self.domains[index]), pooled=self._pooled)
        return view_of(found, prior.with_image(self._stated[index]))

    def candidate(self, index: int) -> ImageCandidate:
        """The image with its view; the last few are cached."""
        return self._open(index)

    def _load(self, index: int) -> ImageCandidate:
        return ImageCandidate(open_image(self.paths[index]), self.view(index))


class Transfer:
    """Transfer of a data set's annotations to other images.

    Iterating yields one `TransferRecord` per target, in the order of the targets, so that a caller
    may draw images or show progress meanwhile; `dataset` is complete after the iteration.
    """

    def __init__(
        self,
        source: Dataset,
        targets: Sequence[Path],
        pairs: Sequence[tuple[int, int]] | None,
        min_confidence: float = MIN_CONFIDENCE,
    ) -> None:
        """Prepare the transfer; `pairs` are (field, target) indices; `None`: search by content."""
        self.source = source
        self.fields = tuple(source)
        self.targets = targets
        self.pairs = pairs
        self.min_confidence = min_confidence
        self.records: list[TransferRecord] = []
        self.source_images = ImageCollection(
            [f.path for f in self.fields], [f.domain for f in self.fields]
        )
        self.target_images = ImageCollection(targets, [domain_from_path(t) for t in targets])

    def _wanted(self) -> tuple[list[int], list[int]]:
        if self.pairs is None:
            return list(range(len(self.fields))), list(range(len(self.targets)))
        return sorted({s for s, _ in self.pairs}), sorted({t for _, t in self.pairs})

    def measure(self, progress: Progress | None = None) -> None:
        """Measure every image involved: scale and pixel aspect ratio are pooled over all."""
        first, second = self._wanted()
        self.source_images.measure(first, progress, "measuring annotated images")
        self.target_images.measure(second, progress, "measuring target images")

    def __iter__(self) -> Iterator[TransferRecord]:
        index = None if self.pairs is not None else _Index(self.source_images, len(self.fields))
        for target in range(len(self.targets)):
            if self.pairs is not None:
                candidates = [s for s, t in self.pairs if t == target]
            elif index is None or self.target_images.fault(target):
                candidates = []
            else:
                candidates = index.nearest(self.target_images.candidate(target))
            record = self._one(target, candidates)
            self.records.append(record)
            yield record

    def _one(self, target: int, candidates: Sequence[int]) -> TransferRecord:
        path = self.targets[target]
        if self.pairs is None or candidates:
            fault = self.target_images.fault(target)
            if fault:
                return TransferRecord(None, path, Alignment("refused", fault))
        if not candidates:
            return TransferRecord(
                None, path, Alignment("refused", "no annotated image of this field")
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
        fault = self.source_images.fault(index)
        if fault:
            return Alignment("refused", fault)
        first, second = self.source_images.candidate(index), self.target_images.candidate(target)
        return register(first, second, self.min_confidence)

    def _carried(self, field: Field, target: int, alignment: Alignment) -> TransferRecord:
        path = self.targets[target]
        sizes = [
            (view.width, view.height)
            for view in (
                self.source_images.view(self.fields.index(field)),
                self.target_images.view(target),
            )
        ]
        matrix = np.asarray(alignment.matrix)
        cells, counts = warp_cells(field.cells, matrix, *sizes)
        carried = Field(
            path,
            *sizes[1],
            cells,
            warp_region(field.region, matrix, *sizes),
            self.target_images.domains[target],
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
        """The aligned targets with the transferred annotations."""
        refused = tuple(
            dataset_issue(
                NOT_TRANSFERRED,
                f"{r.target.name}: left out: {r.alignment.reason}",
                file=r.target.name,
                reason=r.alignment.reason,
            )
            for r in self.records
            if not r.field
        )
        return replace(
            self.source,
            name=f"{self.source.name}, carried over",
            fields=tuple(r.field for r in self.records if r.field),
            source=None,
            issues=refused,
        )


class _Index:
    """Index of the strongest features per source, to shortlist candidates for a target."""

    def __init__(self, collection: ImageCollection, count: int) -> None:
        self.features: dict[int, Keypoints] = {}
        for index in range(count):
            if collection.fault(index) is None:
                # Not through the collection: its cache would evict the images at once.
                view = collection.view(index)
                view_at_scale = ImageCandidate(open_image(collection.paths[index]), view).at(
                    INDEX_UM
                )
                self.features[index] = _strongest(view_at_scale.features)

    def nearest(self, target: ImageCandidate) -> list[int]:
        """Indices of the sources with the most feature matches, best first."""
        view_at_scale = target.at(INDEX_UM)
        plain, mirrored = (
            _strongest(view_at_scale.features),
            _strongest(view_at_scale.mirrored_features),
        )
        votes = {
            index: max(len(match(features, plain)), len(match(features, mirrored)))
            for index, features in self.features.items()
        }
        return sorted(votes, key=lambda i: (-votes[i], i))[:SHORTLIST]


def _strongest(features: Keypoints) -> Keypoints:
    return Keypoints(features.points[:INDEX_FEATURES], features.descriptors[:INDEX_FEATURES])


def domain_from_path(path: Path) -> Domain:
    """The acquisition domain from the folder names and the file name of an image."""
    for folder in path.parents:
        domain = parse_subset(folder.name)
        if domain is not None:
            return domain
    parts = parse_name(path.name)
    return Domain() if parts is None else Domain(magnification=parts.magnification)
