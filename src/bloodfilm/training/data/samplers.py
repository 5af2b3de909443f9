"""Samplers of the fields that mosaics are made of: in memory, or opened as they are drawn."""

import logging
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from itertools import count
from typing import NamedTuple, Protocol

import numpy as np

from bloodfilm.core.errors import BloodfilmError, ConfigError
from bloodfilm.training.data.canonical_fields import CanonicalField, FieldLoader
from bloodfilm.training.data.keys import Key
from bloodfilm.training.data.sharded import EpochOrder, FieldStream
from bloodfilm.training.data.stain_augment import StainVectors, stain_vectors

SPACING = 12
"""Distance in the stream between the fields of one image, so that consecutive images differ."""
KEPT_FIELDS = 64
"""Fields kept open: a field is used again by the images `SPACING` places before."""
MEASURED_FIELDS = 32
"""Fields from which the mean area is estimated."""
MOST_FAILURES = 200
_log = logging.getLogger(__name__)


class FieldCrop(NamedTuple):
    """A field to cut from, and its stain vectors, if needed and known."""

    field: CanonicalField
    dyes: StainVectors | None


class Sampler(Protocol):
    """Fields to draw pieces from."""

    def pieces(self, key: Key, rng: np.random.Generator) -> Iterator[FieldCrop]:
        """Yield pieces for one training image, as many as it takes."""
        ...


class InMemorySampler:
    """Fields in memory, drawn at random, in proportion to `repeat` of each.

    Args:
        fields: to draw from.
        stains: object types whose stains are measured (see `stain_vectors`); `None`: none.
    """

    def __init__(self, fields: Sequence[CanonicalField], stains: tuple[int, int] | None) -> None:
        self.listed = [FieldCrop(f, stain_vectors(f, stains) if stains else None) for f in fields]
        self.cumulative = np.cumsum([f.repeat for f in fields])

    def pieces(self, key: Key, rng: np.random.Generator) -> Iterator[FieldCrop]:
        """Yield pieces of fields drawn by `rng`."""
        while True:
            at = rng.random() * self.cumulative[-1]
            yield self.listed[int(np.searchsorted(self.cumulative, at, side="right"))]


class ShardedSampler:
    """Fields of a stream, opened in its order; every training image continues where the last began.

    A field that cannot be opened is reported once and skipped.

    Args:
        stream: the fields.
        loader: opens them at their scale as pieces.
        area: of a training image, in pixels of a piece.
        samples: training images per epoch; `None` takes as many as all fields fill.
        seed: of the order.
        stains: object types whose stains are measured (see `stain_vectors`); `None`: none.

    Raises:
        ConfigError: if no field can be opened.
    """

    def __init__(
        self,
        stream: FieldStream,
        loader: FieldLoader,
        *,
        area: float,
        samples: int | None,
        seed: int,
        stains: tuple[int, int] | None = None,
    ) -> None:
        self.stream, self.loader, self.stains = stream, loader, stains
        self.epoch_order = EpochOrder(stream, seed)
        self.failed: set[int] = set()
        self._kept: OrderedDict[int, FieldCrop] = OrderedDict()
        first = (
            self._opened(self.epoch_order[i]) for i in range(min(MEASURED_FIELDS, len(stream)))
        )
        sizes = [p.field.image.shape for p in first if p is not None]
        if not sizes:
            raise ConfigError("data: none of the first fields could be opened")
        mean = float(np.mean([height * width for height, width, _ in sizes]))
        self.fields_an_image = area / mean
        self.samples = samples or max(1, round(self.epoch_order.length / self.fields_an_image))

    def pieces(self, key: Key, rng: np.random.Generator) -> Iterator[FieldCrop]:
        """Yield fields from the place of this image in the stream on, some places apart."""
        epoch, number = key
        start = int((epoch * self.samples + number) * self.fields_an_image)
        failures = 0
        for place in count(start, SPACING):
            piece = self._opened(self.epoch_order[place])
            if piece is not None:
                yield piece
                continue
            failures += 1
            if failures > MOST_FAILURES:
                raise ConfigError(
                    f"data: {MOST_FAILURES} fields in a row could not be opened; the log names "
                    "them, `bloodfilm data audit` says what is wrong"
                )

    def _opened(self, number: int) -> FieldCrop | None:
        if number in self.failed:
            return None
        if number not in self._kept:
            try:
                self._kept[number] = self._read(number)
            except BloodfilmError as error:
                _log.warning("left out: %s", error)
                self.failed.add(number)
                return None
            if len(self._kept) > KEPT_FIELDS:
                self._kept.popitem(last=False)
        self._kept.move_to_end(number)
        return self._kept[number]

    def _read(self, number: int) -> FieldCrop:
        field = self.loader.load(self.stream[number])
        return FieldCrop(field, stain_vectors(field, self.stains) if self.stains else None)
