"""Training crops for the classifier: one known cell in the middle of each."""

import logging
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, overload

import cv2
import numpy as np
from numpy.typing import NDArray

from bloodfilm.core import Cell, Field
from bloodfilm.core.attributes import known_values
from bloodfilm.core.errors import BloodfilmError, ConfigError
from bloodfilm.core.progress import Progress, track
from bloodfilm.core.taxonomy import Taxonomy
from bloodfilm.imaging.canonical import CROP_SIZE, CROP_UM, CanonicalView
from bloodfilm.imaging.resample import BACKGROUND
from bloodfilm.imaging.sources import read_whole
from bloodfilm.imaging.sources.field import open_field
from bloodfilm.training.config import AugmentSection
from bloodfilm.training.data.augment import random_orientation, random_stretch, vary_appearance
from bloodfilm.training.data.canonical_fields import NO_DOMAINS, training_view
from bloodfilm.training.data.domains import DomainTable
from bloodfilm.training.data.sharded import FieldStream, repeat_counts, shuffled_order
from bloodfilm.training.data.sourced_field import SourcedField
from bloodfilm.training.vocabulary import Vocabulary

SIZE = CROP_SIZE
STORE_UM = 0.14
STORE_SIZE = 224
MIXED_FIELDS = 32
"""Fields of a stream whose cells are mixed."""
KEPT_FIELDS = 2 * MIXED_FIELDS
"""Fields of a stream whose crops are kept."""
CELLS = 23
"""Random-stream id, different from those of the tasks."""
MOST_FAILURES = 200
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CellCrops:
    """Cells to classify.

    Attributes:
        images: (n, 224, 224, 3) at 0.14 um/px, centred on the cell; white-balanced by their
            field, or in the original colours.
        allowed: (n, leaves) boolean: the leaves each label stands for.
        codes: (n, attributes) value index, -1 where unknown.
        weights: (n,) how often an epoch draws each.
        sizes: (n, 2) width and height of the cell's box in um, 0 without a box.
        sources: (n,) number of the data set each is from, in the order they are listed.
        patients: (n,) number of its patient, 0 if unknown.
        domains: (n,) index of the domain each is from, in the run's `DomainTable`; -1: unknown.
    """

    images: "NDArray[np.uint8] | StreamedImages"
    allowed: NDArray[np.bool_]
    codes: NDArray[np.int64]
    weights: NDArray[np.float64]
    sizes: NDArray[np.float64]
    sources: NDArray[np.int64]
    patients: NDArray[np.int64]
    domains: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.images)

    def join(self, other: "CellCrops") -> "CellCrops":
        """Return the cells of both; those of the other count as of one more data set.

        Raises:
            ConfigError: if the crops are those of a stream.
        """
        if isinstance(self.images, StreamedImages) or isinstance(other.images, StreamedImages):
            raise ConfigError(
                "data: cells of an index cannot be joined with others; list the data set itself"
            )
        source = int(self.sources.max(initial=-1)) + 1
        return CellCrops(
            np.concatenate([self.images, other.images]),
            np.concatenate([self.allowed, other.allowed]),
            np.concatenate([self.codes, other.codes]),
            np.concatenate([self.weights, other.weights]),
            np.concatenate([self.sizes, other.sizes]),
            np.concatenate([self.sources, np.full(len(other), source)]),
            np.concatenate([self.patients, other.patients]),
            np.concatenate([self.domains, other.domains]),
        )

    def take(self, numbers: NDArray[np.int64]) -> "CellCrops":
        """Return some of the cells."""
        return CellCrops(
            self.images[numbers],
            self.allowed[numbers],
            self.codes[numbers],
            self.weights[numbers],
            self.sizes[numbers],
            self.sources[numbers],
            self.patients[numbers],
            self.domains[numbers],
        )


def label_groups(allowed: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the groups of leaves (groups, leaves) that labels supervise, larger ones first.

    A leaf that is the label of some cell is a group of its own. A label at an inner node without
    labelled leaves supervises its leaves together, as one group. A leaf in no group is never
    learnt.

    Args:
        allowed: (n, leaves) as in `CellCrops`.
    """
    labels = np.unique(allowed[allowed.any(1)], axis=0)
    labels = labels[np.argsort(-labels.sum(1), kind="stable")]
    alone = labels.sum(1) == 1
    certain = labels[alone].any(0)
    return np.asarray(labels[alone | ~(labels & certain).any(1)])


def load_crops(
    sourced: Sequence[SourcedField],
    vocabulary: Vocabulary,
    progress: Progress,
    *,
    balanced: bool = True,
    domains: DomainTable = NO_DOMAINS,
) -> CellCrops:
    """Open every field and cut out its classified cells, white-balanced or in original colours.

    Cells that are ignored, unnamed or of another object type are left out; so is a field that
    cannot be opened (reported).

    Raises:
        ConfigError: if no cell is left.
    """
    if isinstance(sourced, FieldStream):
        return stream_crops(sourced, vocabulary, balanced=balanced, domains=domains)
    schema = vocabulary.schema
    images, allowed, codes, weights, sizes = [], [], [], [], []
    sources: list[int] = []
    patients: list[int] = []
    places: list[int] = []
    numbers: dict[int, int] = {}
    people: dict[str | None, int] = {None: 0}
    for i in track(range(len(sourced)), progress, "cells", len(sourced)):
        item = sourced[i]
        tree = item.dataset.taxonomy
        cells = trainable_cells(item.field.cells, vocabulary, tree)
        if not cells:
            continue
        try:
            cut, view = cut_cell_crops(item.field, cells, vocabulary.roles.ruler, balanced=balanced)
        except BloodfilmError as error:
            _log.warning("left out: %s", error)
            continue
        images.append(cut)
        for cell in cells:
            allowed.append(vocabulary.leaf_mask(str(cell.label), tree))
            known = known_values(schema, cell.attributes)
            values = schema.codes({k: v for k, v in known.items() if k not in item.omit})
            codes.append([-1 if v is None else v for v in values])
            weights.append(item.repeat)
            sources.append(numbers.setdefault(id(item.dataset), len(numbers)))
            places.append(domains.index(item.domain))
            patients.append(people.setdefault(item.field.patient, len(people)))
            box = cell.box
            sizes.append(
                (0.0, 0.0)
                if box is None
                else (box[2] * view.um_per_px_x, box[3] * view.um_per_px_y)
            )
    if not images:
        raise ConfigError("data: no cell with a class to learn in these splits")
    return CellCrops(
        np.concatenate(images),
        np.array(allowed, dtype=bool),
        np.array(codes, dtype=np.int64).reshape(len(allowed), -1),
        np.array(weights),
        np.array(sizes),
        np.array(sources, dtype=np.int64),
        np.array(patients, dtype=np.int64),
        np.array(places, dtype=np.int64),
    )


def trainable_cells(cells: Iterable[Cell], vocabulary: Vocabulary, tree: Taxonomy) -> list[Cell]:
    """Return the cells that the classifier can learn from: of the classified type, not ignored.

    Args:
        cells: of a field.
        vocabulary: of the run.
        tree: what the cells' labels are nodes of.
    """
    return [c for c in cells if not c.ignore and vocabulary.is_classified(c.label, tree)]


def cut_cell_crops(
    field: Field, cells: Sequence[Cell], ruler: str | None, *, balanced: bool = True
) -> tuple[NDArray[np.uint8], CanonicalView]:
    """Open a field and return its cells' crops (n, 224, 224, 3) and its view.

    `BloodfilmError` if it cannot be opened.
    """
    source = open_field(field)
    image = read_whole(source)
    view = training_view(field, source, ruler)
    middle = (view.width / 2, view.height / 2)
    boxes = [c.box for c in cells]
    at = [middle if b is None else (b[0] + b[2] / 2, b[1] + b[3] / 2) for b in boxes]
    return view.crops(image, at, STORE_SIZE, STORE_UM, balanced=balanced), view


# ---- cells of a stream -------------------------------------------------------------------------


class StreamedImages:
    """The crops of a stream's cells, cut out on access; those of the last fields are cached.

    Args:
        stream: the fields.
        vocabulary: defines which of their cells count.
        field_of: (n,) number of each cell's field.
        nth: (n,) which of the field's cells that count it is.
        balanced: white-balance the crops.
    """

    def __init__(
        self,
        stream: FieldStream,
        vocabulary: Vocabulary,
        field_of: NDArray[np.int64],
        nth: NDArray[np.int64],
        *,
        balanced: bool = True,
    ) -> None:
        self.stream, self.vocabulary, self.field_of, self.nth = stream, vocabulary, field_of, nth
        self.balanced = balanced
        self.failed: set[int] = set()
        self._kept: OrderedDict[int, NDArray[np.uint8]] = OrderedDict()

    def __len__(self) -> int:
        return len(self.field_of)

    @overload
    def __getitem__(self, index: int | np.integer[Any]) -> NDArray[np.uint8]: ...
    @overload
    def __getitem__(self, index: slice | NDArray[np.int64]) -> "StreamedImages": ...
    def __getitem__(
        self, index: int | np.integer[Any] | slice | NDArray[np.int64]
    ) -> "NDArray[np.uint8] | StreamedImages":
        """Return one crop (224, 224, 3), or the crops of some cells; `BloodfilmError`."""
        if isinstance(index, slice | np.ndarray):
            which = self.field_of[index], self.nth[index]
            part = StreamedImages(self.stream, self.vocabulary, *which, balanced=self.balanced)
            part.failed, part._kept = self.failed, self._kept
            return part
        return self._crops(int(self.field_of[index]))[int(self.nth[index])]

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        return (self[i] for i in range(len(self)))

    def nearest(self, index: int) -> int:
        """Return a cell, or, if its field cannot be opened (reported), the next of another field.

        Raises:
            ConfigError: if no field around can be opened.
        """
        for _ in range(MOST_FAILURES):
            number = int(self.field_of[index])
            if number not in self.failed:
                try:
                    self._crops(number)
                    return index
                except BloodfilmError as error:
                    _log.warning("left out: %s", error)
                    self.failed.add(number)
            index = int(np.searchsorted(self.field_of, number, side="right")) % len(self)
        raise ConfigError(
            f"data: {MOST_FAILURES} fields in a row could not be opened; the log names them, "
            "`bloodfilm data audit` says what is wrong"
        )

    def _crops(self, number: int) -> NDArray[np.uint8]:
        if number not in self._kept:
            item, ruler = self.stream[number], self.vocabulary.roles.ruler
            cells = trainable_cells(item.field.cells, self.vocabulary, item.dataset.taxonomy)
            self._kept[number] = cut_cell_crops(item.field, cells, ruler, balanced=self.balanced)[0]
            if len(self._kept) > KEPT_FIELDS:
                self._kept.popitem(last=False)
        self._kept.move_to_end(number)
        return self._kept[number]


def stream_crops(
    stream: FieldStream,
    vocabulary: Vocabulary,
    *,
    balanced: bool = True,
    domains: DomainTable = NO_DOMAINS,
) -> CellCrops:
    """Return the cells of a stream: their labels as arrays, their crops as they are drawn.

    Sizes are not measured (0): that would take opening every field.

    Raises:
        ConfigError: if no cell is left.
    """
    leaves = vocabulary.leaves
    field_of, nth, allowed, codes = [], [], [], []
    for part, start in zip(stream.parts, stream.starts, strict=False):
        cells, tree = part.cells(vocabulary.schema), part.dataset.taxonomy
        known = [vocabulary.is_classified(n, tree) for n in cells.names]
        counts = np.array([*known, False])[cells.label] & ~cells.ignore
        masks = [
            vocabulary.leaf_mask(n, tree) if k else np.zeros(len(leaves), bool)
            for n, k in zip(cells.names, known, strict=True)
        ]
        fields = np.repeat(np.arange(len(cells.counts)), cells.counts)[counts]
        first = np.searchsorted(fields, fields)
        field_of.append(fields + start)
        nth.append(np.arange(len(fields)) - first)
        allowed.append(np.array([*masks, np.zeros(len(leaves), bool)])[cells.label[counts]])
        codes.append(cells.codes[counts].astype(np.int64))
    number = np.concatenate(field_of)
    of_field = np.array([domains.index(item.domain) for item in stream.heads()], dtype=np.int64)
    if not len(number):
        raise ConfigError("data: no cell with a class to learn in these splits")
    return CellCrops(
        StreamedImages(stream, vocabulary, number, np.concatenate(nth), balanced=balanced),
        np.concatenate(allowed).astype(bool),
        np.concatenate(codes),
        stream.repeats[number],
        np.zeros((len(number), 2)),
        np.searchsorted(stream.starts, number, side="right") - 1,
        np.zeros(len(number), np.int64),
        of_field[number],
    )


@dataclass(frozen=True)
class CellSampler:
    """The order in which an epoch draws the cells of a stream and additional items.

    The cells of a few fields are mixed, so that each field is opened once and cached briefly.

    Attributes:
        stream: the fields; field_of: (n,) number of each cell's field.
        weights: (n + others,) how often an epoch draws each cell, then each other item.
    """

    stream: FieldStream
    field_of: NDArray[np.int64]
    weights: NDArray[np.float64]

    def order(self, seed: int, epoch: int) -> NDArray[np.int64]:
        """Return the numbers of cells, then of other items, in the drawing order of an epoch."""
        rng = np.random.default_rng([seed, CELLS, epoch])
        once = np.ones(len(self.stream), np.int64)
        place = np.empty(len(self.stream), np.int64)
        place[shuffled_order(self.stream.shards, once, [seed, CELLS, epoch])] = np.arange(
            len(place)
        )
        hands = -(-len(place) // MIXED_FIELDS)
        others = rng.integers(0, hands, len(self.weights) - len(self.field_of))
        hand = np.concatenate([place[self.field_of] // MIXED_FIELDS, others])
        numbers = np.repeat(np.arange(len(hand)), repeat_counts(self.weights, seed))
        return numbers[np.lexsort((rng.random(len(numbers)), hand[numbers]))]


def sample_per_label(crops: CellCrops, most: int, seed: int) -> CellCrops:
    """Return a stream's crops, at most `most` of each label; crops in memory unchanged."""
    if not isinstance(crops.images, StreamedImages):
        return crops
    rng = np.random.default_rng([seed, CELLS])
    labels = np.unique(crops.allowed, axis=0, return_inverse=True)[1].ravel()
    chosen = [
        rng.permutation(np.flatnonzero(labels == label))[:most] for label in np.unique(labels)
    ]
    opened = [crops.images.nearest(int(i)) for i in np.sort(np.concatenate(chosen))]
    return crops.take(np.unique(opened))


def warp_centred(
    image: NDArray[np.uint8],
    matrix: NDArray[np.float64],
    size: int = SIZE,
    border: int = cv2.BORDER_CONSTANT,
) -> NDArray[np.uint8]:
    """Warp a stored crop about its middle: `matrix` (2, 3) maps middle-relative stored pixels.

    What lies outside is empty glass, or as OpenCV's `border` defines.
    """
    middle = (image.shape[1] - 1) / 2
    goal = (size - 1) / 2
    linear = matrix[:, :2]
    offset = matrix[:, 2] + goal - linear @ [middle, middle]
    return warp(image, np.column_stack([linear, offset]), size, border)


def warp(
    image: NDArray[np.uint8],
    matrix: NDArray[np.float64],
    size: int,
    border: int = cv2.BORDER_CONSTANT,
) -> NDArray[np.uint8]:
    """Map a picture's pixels by `matrix` (2, 3) into a square of empty glass, `size` a side."""
    warped = cv2.warpAffine(
        image,
        matrix,
        (size, size),
        flags=cv2.INTER_LINEAR,
        borderMode=border,
        borderValue=(BACKGROUND,) * 3,
    )
    return np.asarray(warped, dtype=np.uint8)


def plain_crop(image: NDArray[np.uint8], um_per_px: float = CROP_UM) -> NDArray[np.uint8]:
    """Return a stored crop as the runtime would cut it."""
    scale = STORE_UM / um_per_px
    return warp_centred(image, np.array([[scale, 0, 0], [0, scale, 0.0]]))


def augmented_crop(
    image: NDArray[np.uint8],
    rng: np.random.Generator,
    augment: AugmentSection,
    um_per_px: float = CROP_UM,
) -> NDArray[np.uint8]:
    """Return a stored crop with random rotation, stretch, shift and illumination."""
    linear = random_orientation(rng) @ random_stretch(rng, augment) * (STORE_UM / um_per_px)
    shift = rng.uniform(-1, 1, 2) * augment.shift * SIZE
    warped = warp_centred(image, np.column_stack([linear, shift]))
    return vary_appearance(warped, rng, augment)
