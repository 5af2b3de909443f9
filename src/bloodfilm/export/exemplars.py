"""Descriptions of training cells that a bundle carries, so that classes can be added to it.

A new class must be told from all that was known, and the data sets that taught these are not on the
user's disk. What a classifier says of a cell follows from its description (some hundred numbers),
so descriptions of some cells of each class, from every acquisition, take the place of the data: in
one byte a number, a hundred cells of a class in a hundred kilobytes. (Rehearsal of exemplars as in
iCaRL, Rebuffi et al. 2017, with descriptions for pictures, as the backbone does not change.)
"""

import hashlib
import io
import zipfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bloodfilm.core.arrays import Floats32
from bloodfilm.core.errors import BundleError, ConfigError
from bloodfilm.core.files import read_regular_file, write_text
from bloodfilm.core.progress import NoProgress, Progress, track
from bloodfilm.core.taxonomy import Taxonomy
from bloodfilm.export.adaptation import bundle_view
from bloodfilm.export.adapted import copy_bundle
from bloodfilm.export.card import CARD, card_notes, model_card
from bloodfilm.export.class_graph import BATCH, Describer
from bloodfilm.export.recovered import config_of, vocabulary_of
from bloodfilm.inference.bundle import Bundle, load_bundle
from bloodfilm.inference.manifest import ExemplarSpec, Manifest
from bloodfilm.training.config import Config
from bloodfilm.training.data.cell_crops import load_crops
from bloodfilm.training.data.crop_views import CropView
from bloodfilm.training.data.rendered_crops import render_exemplar_crops
from bloodfilm.training.data.sourced_field import SourcedField
from bloodfilm.training.data.sources import open_sources
from bloodfilm.training.vocabulary import Vocabulary

EXEMPLARS_FILE = "exemplars.npz"
PER_LABEL = 120
MAX_BYTES = 1 << 28
LEVELS = 127
RENDERED = "rendered"
"""The acquisition of cells that were drawn."""
_CHOICE = 61
"""Random-stream id of the choice of cells."""


@dataclass(frozen=True)
class Exemplars:
    """Descriptions of known cells.

    Attributes:
        description: (n, size) as the classifier's graph gives them, rounded.
        label: (n,) number of each cell's label in `labels`.
        domain: (n,) number of its acquisition in `domains`.
        labels: nodes of the bundle's taxonomy; an inner node stands for the leaves below it.
        domains: names of acquisitions.
    """

    description: Floats32
    label: NDArray[np.int64]
    domain: NDArray[np.int64]
    labels: tuple[str, ...]
    domains: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.description)

    @property
    def names(self) -> list[str]:
        """The label of each cell."""
        return [self.labels[number] for number in self.label.tolist()]

    def allowed(self, taxonomy: Taxonomy, leaves: Sequence[str]) -> NDArray[np.bool_]:
        """Return which leaves each cell's label stands for, (n, leaves)."""
        masks = np.array([taxonomy.leaf_mask(label, leaves) for label in self.labels], dtype=bool)
        return masks.reshape(len(self.labels), len(leaves))[self.label]

    def take(self, chosen: NDArray[np.bool_] | NDArray[np.int64]) -> "Exemplars":
        """Return some of the cells."""
        return replace(
            self,
            description=self.description[chosen],
            label=self.label[chosen],
            domain=self.domain[chosen],
        )

    def join(self, other: "Exemplars") -> "Exemplars":
        """Return the cells of both."""
        labels = tuple(dict.fromkeys((*self.labels, *other.labels)))
        domains = tuple(dict.fromkeys((*self.domains, *other.domains)))
        label = np.array([labels.index(name) for name in other.labels], dtype=np.int64)
        domain = np.array([domains.index(name) for name in other.domains], dtype=np.int64)
        return Exemplars(
            np.concatenate([self.description, other.description]),
            np.concatenate([self.label, label[other.label]]),
            np.concatenate([self.domain, domain[other.domain]]),
            labels,
            domains,
        )

    def counts(self) -> dict[str, int]:
        """Return the number of cells by label, without labels that no cell has."""
        found = Counter(self.names)
        return {name: found[name] for name in self.labels if found[name]}

    def to_bytes(self) -> bytes:
        """Return them as a file: the same cells, the same bytes."""
        scale = np.maximum(np.abs(self.description).max(0), 1e-6) / LEVELS
        rounded = np.rint(self.description / scale).astype(np.int8)
        file = io.BytesIO()
        np.savez(
            file,
            values=rounded,
            scale=scale.astype(np.float32),
            label=self.label.astype(np.int32),
            domain=self.domain.astype(np.int32),
            labels=np.array(self.labels, dtype=np.str_),
            domains=np.array(self.domains, dtype=np.str_),
        )
        return file.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes, place: Path) -> "Exemplars":
        """Read what `to_bytes` wrote.

        Raises:
            BundleError: if it is something else.
        """
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as file:
                parts = {name: file[name] for name in file.files}
            values, scale = parts["values"], parts["scale"]
            labels = tuple(str(name) for name in parts["labels"])
            domains = tuple(str(name) for name in parts["domains"])
            label, domain = (parts[name].astype(np.int64) for name in ("label", "domain"))
            if values.dtype != np.int8 or scale.shape != values.shape[1:] or scale.ndim != 1:
                raise ValueError("descriptions of another form")
            for numbers, names in ((label, labels), (domain, domains)):
                if numbers.shape != values.shape[:1] or not _within(numbers, len(names)):
                    raise ValueError("numbers without a name")
            if not np.isfinite(scale).all():
                raise ValueError("a scale that is no number")
        except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile) as error:
            reason = " ".join(str(error).split())[:120]
            raise BundleError(
                f"{place}: holds no exemplars ({reason}); the bundle is damaged, get it again"
            ) from None
        description = values.astype(np.float32) * scale.astype(np.float32)
        return cls(description, label, domain, labels, domains)

    def spec(self, data: bytes) -> ExemplarSpec:
        """Return what the manifest says of them, stored as `data`."""
        return ExemplarSpec(
            file=EXEMPLARS_FILE,
            sha256=hashlib.sha256(data).hexdigest(),
            labels=self.counts(),
            domains=self.domains,
        )


def _within(numbers: NDArray[np.int64], count: int) -> bool:
    return not numbers.size or bool(numbers.min() >= 0 and numbers.max() < count)


def read_exemplars(bundle: Bundle) -> Exemplars:
    """Return a bundle's exemplars.

    Raises:
        BundleError: if it has none, or they are damaged.
    """
    spec = bundle.manifest.exemplars
    if spec is None:
        raise BundleError(
            f"{bundle.path}: holds no exemplars (descriptions of training cells), and would forget "
            "what it knows; take a bundle that has them, or add them where the training data are: "
            f"bloodfilm exemplars {bundle.path} --data FOLDER --out NEW"
        )
    place = bundle.path / spec.file
    exemplars = Exemplars.from_bytes(read_regular_file(place, MAX_BYTES), place)
    trained = set(bundle.manifest.trained_leaves)
    unknown = [
        name
        for name in exemplars.labels
        if name not in bundle.taxonomy or not trained & set(bundle.taxonomy.leaves_under(name))
    ]
    if unknown or not len(exemplars):
        what = f"a class {unknown[0]!r} that it does not know" if unknown else "no cell"
        raise BundleError(f"{place}: describes {what}; the bundle is damaged, get it again")
    return exemplars


# ---- from training data ----------------------------------------------------------------------


def collect_exemplars(
    bundle: Bundle, root: Path, per_label: int = PER_LABEL, progress: Progress | None = None
) -> Exemplars:
    """Describe cells of the sets that a bundle's classifier was trained and validated on.

    Of each label at most `per_label` cells, evenly from all acquisitions, and of rendered objects
    half as many.

    Args:
        bundle: its classifier is used as it is stored, eight bits included.
        root: where the data paths of its configuration start.
        per_label: the most cells of a label.
        progress: follows the work.

    Raises:
        ConfigError: if the data are missing.
        BundleError: if the bundle does not say what it was trained on.
    """
    followed = progress or NoProgress()
    config, words = config_of(bundle, "classifier"), vocabulary_of(bundle)
    fields = open_sources([*config.data.train, *config.data.validation], root)
    chosen = _choose(fields, words, per_label, config.seed)
    describer, view = Describer(bundle), bundle_view(bundle)
    descriptions: list[Floats32] = []
    labels: list[str] = []
    domains: list[str] = []
    for start in track(
        range(0, len(chosen), BATCH), followed, "exemplars", -(-len(chosen) // BATCH)
    ):
        part = chosen[start : start + BATCH]
        for item in part:
            crops = load_crops([item], words, NoProgress(), balanced=view.standard is None)
            cells = [
                c for c in item.field.cells if words.is_classified(c.label, item.dataset.taxonomy)
            ]
            images = np.stack([view.plain(image) for image in crops.images])
            descriptions.append(describer.describe(images).description)
            labels += [str(words.resolve(c.label, item.dataset.taxonomy)) for c in cells]
            domains += [item.domain] * len(cells)
    drawn = _rendered(config, words, per_label // 2, view, describer, followed)
    descriptions += [d for d, _ in drawn]
    labels += [label for _, label in drawn]
    domains += [RENDERED] * len(drawn)
    if not labels:
        raise ConfigError(
            f"{root}: no cell of the training sets is named; nothing can be described"
        )
    return _joined(np.concatenate([np.atleast_2d(d) for d in descriptions]), labels, domains)


def _joined(description: Floats32, labels: Sequence[str], domains: Sequence[str]) -> Exemplars:
    names, places = tuple(dict.fromkeys(labels)), tuple(dict.fromkeys(domains))
    label = np.array([names.index(name) for name in labels], dtype=np.int64)
    domain = np.array([places.index(name) for name in domains], dtype=np.int64)
    return Exemplars(description, label, domain, names, places)


def _choose(
    fields: Sequence[SourcedField], words: Vocabulary, most: int, seed: int
) -> list[SourcedField]:
    """Return fields with the cells that are described, and those that are none but give scale."""
    places: dict[str, dict[str, list[tuple[int, int]]]] = {}
    for number in range(len(fields)):
        item = fields[number]
        for nth, cell in enumerate(item.field.cells):
            name = _label(cell.label, item, words)
            if name is not None and not cell.ignore:
                places.setdefault(name, {}).setdefault(item.domain, []).append((number, nth))
    rng = np.random.default_rng([seed, _CHOICE])
    wanted: dict[int, set[int]] = {}
    for name in sorted(places):
        piles = [
            [cells[int(i)] for i in rng.permutation(len(cells))]
            for _, cells in sorted(places[name].items())
        ]
        taken = 0
        while taken < most and any(piles):
            for pile in piles:
                if pile and taken < most:
                    number, nth = pile.pop()
                    wanted.setdefault(number, set()).add(nth)
                    taken += 1
    found = []
    for number in sorted(wanted):
        item = fields[number]
        cells = tuple(
            cell
            for nth, cell in enumerate(item.field.cells)
            if nth in wanted[number] or not words.is_classified(cell.label, item.dataset.taxonomy)
        )
        found.append(replace(item, field=item.field.with_cells(cells)))
    return found


def _label(label: str | None, item: SourcedField, words: Vocabulary) -> str | None:
    """Return the node that a cell is an exemplar of; `None` where it says nothing of its class."""
    tree = item.dataset.taxonomy
    if not words.is_classified(label, tree):
        return None
    name = words.resolve(label, tree)
    whole = set(words.taxonomy.leaves_under(words.roles.classified))
    if name is None or whole <= set(words.taxonomy.leaves_under(name)):
        return None
    return name


def _rendered(
    config: Config,
    words: Vocabulary,
    count: int,
    view: CropView,
    describer: Describer,
    progress: Progress,
) -> list[tuple[Floats32, str]]:
    """Describe drawn objects that are no cells, where the classifier names such."""
    if words.other is None or count < 1:
        return []
    crops, names = render_exemplar_crops(words, count, config.seed, progress)
    images = np.stack([view.plain(image) for image in crops])
    return list(zip(describer.describe(images).description, names, strict=True))


# ---- into a bundle -----------------------------------------------------------------------------


def set_exemplars(folder: Path, exemplars: Exemplars) -> Manifest:
    """Write exemplars into a bundle in place, with its checksums and its model card."""
    bundle = load_bundle(folder)
    data = exemplars.to_bytes()
    notes = card_notes(folder / CARD, model_card(bundle.manifest))
    manifest = bundle.manifest.with_exemplars(exemplars.spec(data))
    manifest.write(folder, {EXEMPLARS_FILE: data})
    write_text(folder / CARD, model_card(manifest, notes))
    return manifest


def write_with_exemplars(bundle: Bundle, exemplars: Exemplars, out: Path) -> Manifest:
    """Write a copy of a bundle, byte for byte but for exemplars, manifest, checksums and card."""
    copy_bundle(bundle, out)
    return set_exemplars(out, exemplars)
