"""Where mosaics take their pieces from: fields in memory, or fields opened as they are drawn."""

import logging
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from typing import NamedTuple, Protocol

import numpy as np

from bloodfilm.core.errors import BloodfilmError, ConfigError
from bloodfilm.training.data.sharded import EpochOrder, FieldStream
from bloodfilm.training.data.sources import CanonicalField, SourcedField, load_field
from bloodfilm.training.data.stain_augment import StainVectors, stain_vectors
from bloodfilm.training.tasks.base import Key

SPACING = 12
"""Places between the fields of one image, so that images that follow one another differ."""
KEPT_FIELDS = 64
"""Fields kept open: a field comes up again in the images `SPACING` places before."""
MEASURED_FIELDS = 32
"""Fields by which the mean area of all is judged."""
MOST_FAILURES = 200
_log = logging.getLogger(__name__)


class FieldCrop(NamedTuple):
    """A field to cut from, and what its dyes absorb, where that is to be varied and is known."""

    field: CanonicalField
    dyes: StainVectors | None


class Sampler(Protocol):
    """Fields to draw pieces from."""

    def pieces(self, key: Key, rng: np.random.Generator) -> Iterator[FieldCrop]:
        """Yield pieces for one training image, as many as it takes."""
        ...


class InMemorySampler:
    """Fields in memory, drawn at random, as often as each says."""

    def __init__(self, fields: Sequence[CanonicalField], dyes: bool) -> None:
        self.listed = [FieldCrop(f, stain_vectors(f) if dyes else None) for f in fields]
        self.cumulative = np.cumsum([f.repeat for f in fields])

    def pieces(self, key: Key, rng: np.random.Generator) -> Iterator[FieldCrop]:
        """Yield pieces of fields drawn by `rng`."""
        while True:
            at = rng.random() * self.cumulative[-1]
            yield self.listed[int(np.searchsorted(self.cumulative, at, side="right"))]


class ShardedSampler:
    """Fields of a stream, opened in its order; every training image goes on where the last began.

    A field that cannot be opened is reported once and passed over.

    Args:
        stream: the fields.
        um_per_px: their scale as pieces.
        area: of a training image, in pixels of a piece.
        samples: training images an epoch; `None` takes as many as all fields fill.
        seed: of the order.
        dyes: whether to measure dyes.
        then: what to do to each field, as in `load_fields`.

    Raises:
        ConfigError: if no field can be opened.
    """

    def __init__(
        self,
        stream: FieldStream,
        um_per_px: float,
        *,
        area: float,
        samples: int | None,
        seed: int,
        dyes: bool = False,
        then: Callable[[CanonicalField, SourcedField], CanonicalField] | None = None,
    ) -> None:
        self.stream, self.um_per_px, self.dyes, self.then = stream, um_per_px, dyes, then
        self.turns = EpochOrder(stream, seed)
        self.failed: set[int] = set()
        self._kept: OrderedDict[int, FieldCrop] = OrderedDict()
        first = (self._opened(self.turns[i]) for i in range(min(MEASURED_FIELDS, len(stream))))
        sizes = [p.field.image.shape for p in first if p is not None]
        if not sizes:
            raise ConfigError("data: none of the first fields could be opened")
        mean = float(np.mean([height * width for height, width, _ in sizes]))
        self.fields_an_image = area / mean
        self.samples = samples or max(1, round(self.turns.length / self.fields_an_image))

    def pieces(self, key: Key, rng: np.random.Generator) -> Iterator[FieldCrop]:
        """Yield fields from the place of this image in the stream on, some places apart."""
        epoch, number = key
        start = int((epoch * self.samples + number) * self.fields_an_image)
        failures = 0
        for place in count(start, SPACING):
            piece = self._opened(self.turns[place])
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
        sourced = self.stream[number]
        field = load_field(sourced, self.um_per_px)
        if self.then is not None:
            field = self.then(field, sourced)
        return FieldCrop(field, stain_vectors(field) if self.dyes else None)
