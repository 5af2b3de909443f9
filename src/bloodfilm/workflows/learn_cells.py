"""The cells that added classes are learnt from: read, checked, cut out.

Nothing is guessed. A class name that nobody knows, a scale that nothing tells and two classes for
one picture end the work with a line that says so; what is left out is counted and named.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from bloodfilm.core.arrays import Pixels
from bloodfilm.core.boxes import centres
from bloodfilm.core.dataset import Dataset
from bloodfilm.core.dataset_codes import refuse_planned
from bloodfilm.core.errors import ConfigError, DataError
from bloodfilm.core.field import Box, Cell, Field
from bloodfilm.core.issue_codes import SCALE_CONFLICT
from bloodfilm.core.issues import Issue, codes
from bloodfilm.core.pixels import PixelSize
from bloodfilm.core.progress import Progress, track
from bloodfilm.core.taxonomy import Node, Taxonomy
from bloodfilm.core.text import printable
from bloodfilm.evaluation.crop_evaluation import FieldCrops, cut_cells
from bloodfilm.formats import open_dataset
from bloodfilm.formats.folder import other_folders
from bloodfilm.formats.shared.class_names import (
    IGNORE_NAMES,
    UNNAMED_NAMES,
    fold_name,
    read_class_map,
)
from bloodfilm.imaging.canonical import CanonicalView
from bloodfilm.imaging.picture_key import pixel_digest
from bloodfilm.imaging.scale import ScalePrior
from bloodfilm.inference.bundle import Bundle
from bloodfilm.inference.classifier import CellClassifier
from bloodfilm.inference.manifest import Manifest

MIN_SIDE_UM = 6.0
"""A picture that shows less is none of a cell."""
MIN_SIDE_PX = 16
MIN_RULERS = 2
"""Red cells in the mean picture of one cell; a lone round thing there may be the cell itself."""
MOST_CELLS = 1000
"""Cells of a class that are taken; more would hardly change what is learnt."""
LISTED = 8
LONGEST_NAME = 80
UNKNOWN_REMEDY = (
    'add a class with --new "{name}=GROUP", or say with --classes MAP.toml which class (or '
    '"ignore") a name means'
)
_LOT = 53
"""Random-stream id of the choice of fields."""


# ---- classes -------------------------------------------------------------------------------------


def with_new_classes(
    manifest: Manifest, new: Mapping[str, str], blasts: Sequence[str] = ()
) -> Taxonomy:
    """Return a bundle's tree with further classes.

    Args:
        manifest: of the bundle.
        new: by class, the group of classes that it belongs to.
        blasts: those of them that count as blasts.

    Raises:
        ConfigError: if a name is taken, or is not to be placed there.
    """
    tree = manifest.taxonomy
    folded: dict[str, str] = {}
    nodes = list(tree.nodes)
    for name, above in new.items():
        _check_name(name, manifest)
        if (other := folded.get(fold_name(name))) is not None:
            raise ConfigError(f"--new {name!r} and {other!r} are one name; give it once")
        folded[fold_name(name)] = name
        nodes.append(Node(name, _parent(name, above, manifest), blast=name in blasts))
    for name in blasts:
        if name not in new:
            raise ConfigError(f"--blast {name!r}: is none of the new classes; give it with --new")
    return Taxonomy(tuple(nodes))


def _check_name(name: str, manifest: Manifest) -> None:
    if not name or name != printable(name).strip() or len(name) > LONGEST_NAME or "=" in name:
        raise ConfigError(
            f"--new {printable(name)!r}: give a plain name of at most {LONGEST_NAME} characters"
        )
    if fold_name(name) in IGNORE_NAMES | UNNAMED_NAMES:
        raise ConfigError(
            f"--new {name!r}: data sets call cells without a class so; choose another"
        )
    known = manifest.taxonomy.find(name)
    if known is None:
        return
    what = f"--new {name!r}: is {'a' if known == name else repr(known) + ', a'}"
    if known in manifest.untrained.classes:
        raise ConfigError(
            f"{what} class of the bundle's tree that it has not learnt; leave --new out, and its "
            "cells are learnt under this name"
        )
    if known in manifest.leaves:
        raise ConfigError(
            f"{what} class that the bundle knows; leave --new out, and its cells help to tell it "
            "from the new ones"
        )
    raise ConfigError(
        f"{what} group of classes, or no class of its classifier; choose another name"
    )


def _parent(name: str, above: str, manifest: Manifest) -> str:
    """Return the node that a new class is placed under."""
    from bloodfilm.export.added_classes import other_tops

    tree = manifest.taxonomy
    found = tree.find(above)
    groups = [
        n
        for n in tree.names
        if tree.children(n)
        and (
            tree.is_under(n, manifest.roles.classified)
            or any(tree.is_under(n, top) for top in other_tops(manifest))
        )
    ]
    if found is not None and found in tree.names and not tree.children(found):
        raise ConfigError(
            f"--new {name}={above}: {found!r} is a class itself, and a class below it would take "
            f"its name; put the new one beside it: --new {name!r}={tree.parent(found)!r}"
        )
    if found not in groups:
        raise ConfigError(
            f"--new {name}={above}: no group of classes {above!r}; choose from {', '.join(groups)}"
        )
    return found


# ---- cells ---------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class CellSource:
    """Where cells are from.

    Attributes:
        path: a folder with a folder of pictures for each class, or a data set in any format.
        format: of the data set; recognised if `None`.
        classes: a file that says which classes its own names are.
        um_per_px: micrometres per pixel of every picture, along y.
        pixel_aspect_ratio: width / height of a round cell in pixels.
        scale_of: returns the pixel size of an image where an analysis has found it, in place of
            these two.
        fields: use this many of the fields with such cells, drawn by lot; `None` for all.
        seed: of the lot.
    """

    path: Path
    format: str | None = None
    classes: Path | None = None
    um_per_px: float | None = None
    pixel_aspect_ratio: float | None = None
    scale_of: Callable[[Path], PixelSize | None] | None = None
    fields: int | None = None
    seed: int = 0


@dataclass(frozen=True)
class TrainingCells:
    """Cells of known class, as a classifier sees them.

    Attributes:
        crops: (n, S, S, 3).
        stored: (n, T, T, 3) the same, larger and finer, to be varied; none where not asked for.
        labels: (n,) nodes of the tree.
        groups: (n,) patient, or what stands for one; empty where that is not known.
        pictures: (n,) the SHA-256 of each cell's picture: its size and pixels.
        files: by file, as seen from the source, its picture's SHA-256.
        paths: of these files.
        name, licence: of the data set.
        left_out: what was not used, and how often.
        issues: what a person should know.
    """

    crops: Pixels
    stored: Pixels
    labels: tuple[str, ...]
    groups: tuple[str, ...]
    pictures: tuple[str, ...]
    files: Mapping[str, str]
    paths: tuple[Path, ...]
    name: str
    licence: str
    left_out: Mapping[str, int]
    issues: tuple[Issue, ...]

    def __len__(self) -> int:
        return len(self.labels)

    def counts(self) -> dict[str, int]:
        """Return the number of cells by label."""
        return dict(sorted(Counter(self.labels).items()))

    def without(self, labels: Set[str], why: str) -> "TrainingCells":
        """Return the cells that have other labels than these, which are counted as left out."""
        kept = np.flatnonzero([label not in labels for label in self.labels]).tolist()
        return replace(
            self,
            crops=self.crops[kept],
            stored=self.stored[kept] if len(self.stored) else self.stored,
            labels=tuple(self.labels[i] for i in kept),
            groups=tuple(self.groups[i] for i in kept),
            pictures=tuple(self.pictures[i] for i in kept),
            left_out={**self.left_out, why: len(self) - len(kept)},
        )


@dataclass
class _Collected:
    """Cells so far."""

    crops: list[Pixels] = field(default_factory=list)
    stored: list[Pixels] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)
    pictures: list[str] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)
    places: dict[tuple[str, Box | None], tuple[str, Path]] = field(default_factory=dict)
    left_out: Counter[str] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)
    unscaled: list[Path] = field(default_factory=list)
    rulers: dict[Path, list[tuple[int, Path]]] = field(default_factory=dict)
    contradicted: list[Path] = field(default_factory=list)
    measured: int = 0


def read_cells(
    source: CellSource,
    bundle: Bundle,
    tree: Taxonomy,
    progress: Progress,
    *,
    balanced: bool | None = None,
    without: frozenset[str] = frozenset(),
    remedy: str = UNKNOWN_REMEDY,
) -> TrainingCells:
    """Return the cells of a source that have a class, each once.

    Args:
        source: of the cells.
        bundle: whose classifier is to see them.
        tree: its classes, and new ones.
        progress: follows the work.
        balanced: whether stored crops are white-balanced; `None`: none are stored.
        without: SHA-256 of pictures that are left out.
        remedy: what to do about a class that is not in the tree; `{name}` stands for it.

    Raises:
        DataError: if the data cannot be used: unknown names, unknown scale, two classes of one
            cell, or no cell at all.
    """
    options: dict[str, Any] = {"taxonomy": tree}
    if source.classes is not None:
        options["classes"] = read_class_map(source.classes, tree)
    dataset = open_dataset(source.path, format=source.format, **options)
    refuse_planned(dataset.issues, source.path)
    left_out: Counter[str] = Counter()
    chosen = [_usable(item, dataset, bundle.manifest, tree, left_out) for item in dataset]
    _refuse_unknown(source.path, dataset, tree, remedy)
    if not any(chosen):
        raise DataError(_none(source.path, left_out))
    if source.fields is not None:
        chosen = _drawn(source, chosen)
    classifier = CellClassifier(bundle.manifest)
    done, failures = _Collected(left_out=left_out), dict[str, str]()
    prior = _prior_of(source)
    fields = list(dataset)
    cut = cut_cells(fields, chosen, classifier, prior, failures)
    for part in track(cut, progress, "cells", sum(map(bool, chosen))):
        item = fields[part.field]
        _add(done, part, item, _group(item, source.path), balanced, without)
    _refuse_unscaled(source, done)
    if not done.labels:
        raise DataError(_none(source.path, done.left_out, failures))
    if failures:
        done.left_out["in pictures that cannot be read"] = len(failures)
    given = source.scale_of is None
    root = source.path if source.path.is_dir() else source.path.parent
    return TrainingCells(
        np.stack(done.crops),
        np.stack(done.stored) if done.stored else np.zeros((0, 1, 1, 3), np.uint8),
        tuple(done.labels),
        tuple(done.groups),
        tuple(done.pictures),
        {_relative(Path(place), root): digest for place, digest in done.files.items()},
        tuple(map(Path, done.files)),
        dataset.name,
        dataset.licence or "not stated",
        dict(done.left_out),
        (
            *dataset.issues,
            *_failed(failures),
            *_contradictions(done, given=given),
        ),
    )


def _prior_of(source: CellSource) -> Any:
    def prior(item: Field) -> ScalePrior | None:
        known = None if source.scale_of is None else source.scale_of(item.path)
        if known is not None:
            return ScalePrior(known.um_per_px_y, known.aspect_ratio, "user")
        if source.um_per_px is not None or source.pixel_aspect_ratio is not None:
            return ScalePrior(source.um_per_px, source.pixel_aspect_ratio, "user")
        return ScalePrior.of_domain(item.domain)

    return prior


def _drawn(source: CellSource, chosen: Sequence[list[Cell]]) -> list[list[Cell]]:
    """Return the cells of as many fields as are asked for, and of the others none."""
    places = [number for number, cells in enumerate(chosen) if cells]
    count = source.fields or 0
    if count > len(places):
        raise ConfigError(
            f"{source.path}: {count} labelled fields are asked for, it has {len(places)}"
        )
    order = np.random.default_rng([source.seed, _LOT]).permutation(len(places))
    kept = {places[i] for i in order[:count].tolist()}
    return [cells if number in kept else [] for number, cells in enumerate(chosen)]


def _usable(
    item: Field, dataset: Dataset, manifest: Manifest, tree: Taxonomy, left_out: Counter[str]
) -> list[Cell]:
    """Return the cells of a field whose class says something to the classifier."""
    from bloodfilm.export.added_classes import new_leaves

    leaves, trained = set(new_leaves(manifest, tree)), set(manifest.trained_leaves)
    whole = set(tree.leaves_under(manifest.roles.classified))
    found = []
    for cell in item.cells:
        label = cell.label
        named = set(tree.leaves_under(label)) if label is not None and label in tree else set()
        if cell.ignore:
            left_out["to be ignored"] += 1
        elif cell.prediction is not None:
            left_out["named by a model, not by a person"] += 1
        elif cell.label is None:
            left_out["without a class"] += cell.source_label is None
        elif not named or not named <= leaves:
            left_out["of another type of object"] += 1
        elif whole <= named:
            left_out["without a class of their own"] += 1
        elif len(named) > 1 and not named <= trained:
            left_out["of a group that holds classes not known before"] += 1
        else:
            found.append(cell)
    return found


def _refuse_unknown(path: Path, dataset: Dataset, tree: Taxonomy, remedy: str) -> None:
    """Raise if cells have names that are not in the tree."""
    unknown = Counter(
        cell.class_name
        for item in dataset
        for cell in item.cells
        if cell.class_name is not None and cell.class_name not in tree and not cell.ignore
    )
    folders: Counter[str] = Counter()
    if not any(item.cells for item in dataset):  # a folder of pictures without a known class
        folders.update(item.meta["folder"] for item in dataset if "folder" in item.meta)
    unknown.update(folders)
    if unknown:
        listed = ", ".join(
            f"{printable(str(name))!r} ({count} cells)"
            for name, count in unknown.most_common(LISTED)
        )
        more = f" and {len(unknown) - LISTED} more" if len(unknown) > LISTED else ""
        first = printable(str(unknown.most_common(1)[0][0]))
        raise DataError(
            f"{path}: no class of the bundle is called {listed}{more}; {remedy.format(name=first)}"
        )


def _none(
    path: Path, left_out: Mapping[str, int], failures: Mapping[str, str] | None = None
) -> str:
    reasons = [f"{count} {why}" for why, count in left_out.items() if count]
    reasons += [f"{len(failures)} in pictures that cannot be read"] if failures else []
    what = f" (left out: {', '.join(reasons)})" if reasons else ""
    return (
        f"{path}: no cell with a class to learn{what}; give a folder of pictures for each class, "
        "or a data set with named cells"
    )


def _add(
    done: _Collected,
    part: FieldCrops,
    item: Field,
    group: str,
    balanced: bool | None,
    without: frozenset[str],
) -> None:
    """Add the cells of a field, unless they are there already."""
    digest, view = pixel_digest(part.pixels), part.view
    reason = "in pictures that were learnt from" if digest in without else _too_small(view)
    if reason:
        done.left_out[reason] += len(part.cells)
        return
    if view.scale_source == "assumed":
        done.unscaled.append(item.path)
        return
    _note_scale(done, part, item.path)
    kept: list[int] = []
    for number, (cell, box) in enumerate(part.cells):
        key = digest, None if cell.box is None else box
        label = str(cell.label)
        if (before := done.places.get(key)) is not None:
            if before[0] != label:
                if before[1] == item.path:
                    x, y, w, h = box
                    place = f"the box at ({x:.0f}, {y:.0f}), {w:.0f} x {h:.0f} px"
                    what = f"{place}, is marked as {before[0]} and as {label}"
                else:
                    what = f"the same picture as {before[1]}, there a {before[0]}, here a {label}"
                raise DataError(f"{item.path}: {what}; keep one of them")
            done.left_out["that are there twice"] += 1
            continue
        done.places[key] = label, item.path
        if done.counts[label] >= MOST_CELLS:
            done.left_out[f"beyond {MOST_CELLS} of a class"] += 1
            continue
        done.counts[label] += 1
        done.labels.append(label)
        done.groups.append(group)
        done.pictures.append(digest)
        done.crops.append(part.crops[number])
        kept.append(number)
    if kept:
        done.files[str(item.path)] = digest
    if kept and balanced is not None:
        from bloodfilm.training.data.cell_crops import STORE_SIZE, STORE_UM

        at = centres(np.array([part.cells[n][1] for n in kept]))
        crops = view.crops(part.pixels, at, STORE_SIZE, STORE_UM, balanced=balanced)
        done.stored.extend(crops)


def _note_scale(done: _Collected, part: FieldCrops, path: Path) -> None:
    """Keep what tells of the scale of a field, or contradicts it."""
    view = part.view
    if view.scale_source in ("measured", "pooled") and all(c.box is None for c, _ in part.cells):
        done.rulers.setdefault(path.parent, []).append((view.red_cells, path))
    done.measured += view.red_cells > 0
    if SCALE_CONFLICT in codes(view.issues):
        done.contradicted.append(path)


def _too_small(view: CanonicalView) -> str:
    """Return why a picture shows no whole cell; nothing where it may."""
    if min(view.width, view.height) < MIN_SIDE_PX:
        return f"in pictures of less than {MIN_SIDE_PX} px"
    sides = view.width * view.um_per_px_x, view.height * view.um_per_px_y
    if view.scale_source != "assumed" and min(sides) < MIN_SIDE_UM:
        return f"in pictures of less than {MIN_SIDE_UM:g} um"
    return ""


def _refuse_unscaled(source: CellSource, done: _Collected) -> None:
    """Raise if the scale of some pictures rests on nothing, or on the very cell that they show."""
    for pictures in done.rulers.values():
        if sum(count for count, _ in pictures) < MIN_RULERS * len(pictures):
            done.unscaled += [path for _, path in pictures]
    if done.unscaled:
        raise DataError(
            f"{done.unscaled[0]}: nothing tells its pixel size, nor that of "
            f"{len(done.unscaled) - 1} other pictures (too few red cells around the cell, no "
            "metadata); "
            + (
                "give --um-per-px, e.g. 0.1 for a 100x objective, from the calibration of the "
                "microscope"
                if source.scale_of is None
                else "mark fields of the folders that are analysed"
            )
        )


def _contradictions(done: _Collected, given: bool) -> list[Issue]:
    if not done.contradicted or not given:
        return []
    message = (
        f"red cells contradict the pixel size that was given in {len(done.contradicted)} of "
        f"{done.measured} pictures that show some, e.g. {done.contradicted[0]}; check --um-per-px"
    )
    return [Issue("scale-conflict", "warning", message, {"pictures": len(done.contradicted)})]


def _failed(failures: Mapping[str, str]) -> list[Issue]:
    return [Issue("unreadable-image", "error", text, {"file": f}) for f, text in failures.items()]


def _group(item: Field, root: Path) -> str:
    """Return what tells of the patient of a field; nothing where nothing does.

    The patient that the data set names; else, of marked fields, the field; else, of pictures in
    folders of classes, the other folders.
    """
    if item.patient is not None:
        return item.patient
    if any(cell.box is not None for cell in item.cells):
        return str(item.path)
    return other_folders(item.path, root)


def _relative(path: Path, root: Path) -> str:
    try:
        return path.relative_to(root).as_posix()
    except ValueError:
        return path.name
