"""What every reader shares: options, a list of issues, checked cells and images that are found.

A reader never crashes on what it finds and never passes nonsense on. With `strict=False` it leaves
out what cannot be used and says so in `Dataset.issues`; with `strict=True` the first such thing
is a `DataError` that names the file, the place and the remedy.
"""

import math
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from os.path import normpath
from pathlib import Path
from typing import Any, Literal, TypedDict

from bloodfilm.core import (
    DEFAULT_TAXONOMY,
    LLD_SCHEMA,
    Box,
    Cell,
    DataError,
    Dataset,
    Field,
    Region,
    Schema,
    Taxonomy,
)
from bloodfilm.core import dataset_codes as codes
from bloodfilm.core.dataset_codes import dataset_issue
from bloodfilm.core.issues import Issue
from bloodfilm.core.text import printable, shortened
from bloodfilm.formats.shared.class_names import (
    IGNORE_NAMES,
    UNNAMED_NAMES,
    Meaning,
    fold_name,
    meaning_of,
    set_meanings,
)
from bloodfilm.formats.shared.frames import Frame, Size, same_shape
from bloodfilm.formats.shared.image_lookup import ImageIndex, common_tail, folders_of, parts_of
from bloodfilm.formats.shared.label_faults import LabelFault
from bloodfilm.formats.shared.masks import MaskBudget
from bloodfilm.formats.shared.paths import LABEL_FOLDERS, is_file, need_folder, resolved
from bloodfilm.imaging.headers import image_size

ROUNDING_PX = 0.05  # labels are written with three to six digits: that is no fault of a box
LISTED = 20
"""Names of images that one problem line lists at most."""
LONGEST_NAME = 80


class ReadOptions(TypedDict, total=False):
    """Options that every reader takes.

    Keys:
        strict: raise `DataError` at the first fault instead of leaving out and reporting.
        missing: what to do with a field whose image is not on disk: `drop` (default) or `keep`.
        taxonomy: the tree of classes; the built-in one by default.
        classes: the set's own class names -> nodes of the taxonomy, `ignore` or `unnamed`.
        images: the folder that holds the images, where it is not beside the labels.
    """

    strict: bool
    missing: Literal["drop", "keep"]
    taxonomy: Taxonomy
    classes: Mapping[str, str]
    images: Path


@dataclass
class ReadContext:
    """One file or folder being read: options, issues so far, and the images beside it."""

    root: Path
    strict: bool = False
    missing: Literal["drop", "keep"] = "drop"
    taxonomy: Taxonomy = DEFAULT_TAXONOMY
    classes: Mapping[str, str] = field(default_factory=dict)
    images: Path | None = None
    issues: list[Issue] = field(default_factory=list)
    _spellings: Counter[str] = field(default_factory=Counter)
    _unread: Counter[tuple[str, str]] = field(default_factory=Counter)
    _resized: dict[tuple[Size, Size], list[str]] = field(default_factory=dict)
    _ambiguous: set[str] = field(default_factory=set)
    _masks: dict[Path, MaskBudget] = field(default_factory=dict)
    _index: ImageIndex | None = None

    def __post_init__(self) -> None:
        for target in self.classes.values():
            if fold_name(target) not in IGNORE_NAMES | UNNAMED_NAMES:
                self.taxonomy.node(target)
        if self.images is not None:
            self.images = need_folder(Path(self.images))

    # ---- issues ----------------------------------------------------------------------------

    def report(self, code: str, file: Path | str, place: str, what: str, remedy: str = "") -> None:
        """Note a fault and what was done about it; raise it as `DataError` if strict."""
        if self.strict:
            where = f"{self.short(file)}: {place}" if place else self.short(file)
            raise DataError(f"{where}: {what}; {remedy or 'correct it, or read with strict=False'}")
        self.note(code, what, file, place)

    def report_fault(self, file: Path | str, fault: LabelFault) -> None:
        """Note a fault that a parser found, with what becomes of it."""
        self.report(fault.code, file, fault.place, fault.message + fault.outcome, fault.advice)

    def note(
        self, code: str, what: str, file: Path | str | None = None, place: str = "", **facts: Any
    ) -> None:
        """Note something a reader of the set should know, whether or not it is a fault.

        The issue's data are the file, as seen from the root, the place in it, and the facts.
        """
        known: dict[str, str] = {}
        if file is not None:
            known["file"] = printable(self.short(file))
        if place:
            known["place"] = printable(place)
        message = ": ".join([*known.values(), printable(what)])
        self.issues.append(dataset_issue(code, message, **known, **facts))

    def unread(self, what: str, unit: str = "cells", count: int = 1) -> None:
        """Count something that the file states and that a data set has no place for."""
        self._unread[what, unit] += count

    def mask_budget(self, file: Path) -> MaskBudget:
        """Return what is left for the masks of a label file."""
        if file not in self._masks:
            self._masks[file] = MaskBudget.of_file(file)
        return self._masks[file]

    def short(self, file: Path | str) -> str:
        """Return a path as seen from the root, to keep problem lines short."""
        base = self.root if self.root.is_dir() else self.root.parent
        try:
            return Path(file).relative_to(base).as_posix()
        except ValueError:
            return str(file)

    # ---- cells -----------------------------------------------------------------------------

    def box(self, box: Sequence[float], size: Size | None, file: Path, place: str) -> Box | None:
        """Return a box that can be used, cut to the image; `None` (reported) if there is none.

        A box whose centre lies in the image is cut at the image's edge; any other box that
        reaches outside is left out.
        """
        fault = box_fault(box, size)
        if fault is not None:
            self.report(
                codes.UNUSABLE_SHAPE,
                file,
                place,
                f"{fault} and is left out",
                "correct or delete it",
            )
            return None
        x, y, w, h = (float(v) for v in box)
        width, height = size or (math.inf, math.inf)
        over = max(-x, -y, x + w - width, y + h - height)
        if over <= 0:
            return x, y, w, h
        if over > ROUNDING_PX:
            self.report(
                codes.BOX_CUT,
                file,
                place,
                f"box reaches {over:.3g} px over the image's edge and is cut",
            )
        left, top = max(x, 0.0), max(y, 0.0)
        return left, top, min(x + w, width) - left, min(y + h, height) - top

    def cell(
        self,
        spelling: str,
        box: Box | None,
        attributes: Mapping[str, str] | None = None,
        *,
        ignore: bool = False,
        id: str | None = None,
        outline: Region | None = None,
    ) -> Cell:
        """Return a cell of a class that the set calls `spelling`.

        A name that the taxonomy lacks is kept as the cell's `source_label`.
        """
        meaning = self.meaning(spelling)
        self._spellings[spelling] += 1
        label, ignored = meaning or (None, False)
        own = spelling if meaning is None else None
        return Cell(box, label, attributes or {}, ignore or ignored, id, own, outline)

    def label(self, spelling: str) -> Meaning:
        """Return (taxonomy node or `None`, whether to ignore) for a set's class name."""
        self._spellings[spelling] += 1
        return self.meaning(spelling) or (None, False)

    def meaning(self, spelling: str) -> Meaning | None:
        """Like `label`, but `None` for a name nobody knows, and without counting it."""
        return meaning_of(spelling, self.taxonomy, self.classes)

    # ---- images ----------------------------------------------------------------------------

    @property
    def index(self) -> ImageIndex:
        """The images below the root (or below `images`), listed once."""
        if self._index is None:
            self._index = ImageIndex(self.images or self._image_base())
        return self._index

    def find(self, name: str, near: Path | None = None, split: str | None = None) -> Path | None:
        """Return the image that a name means; `None` if there is none, or (reported) several."""
        found = self.index.candidates(name, near, split)
        if len(found) < 2:
            return found[0] if found else None
        if name not in self._ambiguous:
            self._ambiguous.add(name)
            listed = ", ".join(self.short(p) for p in found[:3])
            what = f"may be any of {len(found)} images ({listed}); none is taken"
            self.report(
                codes.AMBIGUOUS_IMAGE,
                self.root,
                repr(name),
                what,
                "rename them, or name the folder with images=",
            )
        return None

    def locate(
        self, names: Iterable[str], file: Path, bases: Sequence[Path], split: str | None = None
    ) -> dict[str, Path]:
        """Return where each image that a label file names lies, or should lie.

        Args:
            names: as the file has them.
            file: the label file.
            bases: folders in which a name is looked up as it stands, in this order, before all
                images are searched for it; where it is nowhere, it should lie beside the file.
            split: of the label file, if its own name says so.

        Two names that would be the same image are refused, but for one that agrees better.
        """
        places: dict[str, Path] = {}
        claims: dict[Path, list[tuple[int, str]]] = {}
        for name in dict.fromkeys(names):
            clean = name.replace("\\", "/").replace("\0", "")
            exact = next((base / clean for base in bases if is_file(base / clean)), None)
            found = exact or self.find(clean, near=file, split=split)
            missing = resolved(clean.lstrip("/"), file.parent)
            places[name] = missing if found is None else Path(normpath(found))
            if found is not None:
                agreement = (
                    _EXACT
                    if exact
                    else common_tail(
                        folders_of(found.absolute().parent.parts), folders_of(parts_of(clean)[:-1])
                    )
                )
                claims.setdefault(places[name], []).append((agreement, name))
        for image, claim in claims.items():
            folders = {folders_of(parts_of(name)[:-1]) for _, name in claim}
            if len(folders) > 1:
                best = max(agreement for agreement, _ in claim)
                kept = [name for agreement, name in claim if agreement == best]
                self._refuse(image, claim, kept if len(kept) == 1 else [], file, places)
        return places

    def _refuse(
        self,
        image: Path,
        claim: list[tuple[int, str]],
        kept: list[str],
        file: Path,
        places: dict[str, Path],
    ) -> None:
        """Report names that would all be one image, and take the image from those not kept."""
        lost = [name for _, name in claim if name not in kept]
        listed = _listed([repr(name) for name in lost])
        whose = f"is that of {kept[0]!r}" if kept else "may be that of any of them, and of none"
        what = f"{listed}: the only image of that name, {self.short(image)}, {whose}"
        self.report(codes.AMBIGUOUS_IMAGE, file, "", what, "put the images of all folders in place")
        for name in lost:
            places[name] = resolved(name.replace("\0", "").lstrip("/"), file.parent)

    def _image_base(self) -> Path:
        if self.root.is_dir():
            return self.root
        folder = self.root.parent
        return folder.parent if folder.name.lower() in LABEL_FOLDERS else folder

    def size(self, path: Path) -> Size | None:
        """Read an image's (width, height) from its header; `None` (reported) if it has none."""
        try:
            return image_size(path)
        except DataError as error:
            if self.strict:
                raise
            self.note(codes.UNREADABLE_IMAGE, str(error), image=self.short(path))
            return None

    def frame(self, image: Path, stated: tuple[int | None, int | None] = (None, None)) -> Frame:
        """Return how positions of a label file lie in an image.

        The picture's own size counts. Where the label file states another one of the same shape,
        the picture was scaled after it was marked, and positions are scaled; where the shape is
        another, the image is named with both sizes and positions are left as they are.
        """
        across, down = stated
        said = (across, down) if across and down and across > 0 and down > 0 else None
        actual = self.size(image) if is_file(image) else None
        if said is None or actual is None or said == actual:
            return Frame(actual or said)
        self._resized.setdefault((said, actual), []).append(self.short(image))
        if same_shape(said, actual):
            return Frame(actual, (actual[0] / said[0], actual[1] / said[1]))
        if self.strict:
            self._report_sizes()
        return Frame(actual)

    def _report_sizes(self) -> None:
        """Name the images that have another size than their labels state."""
        for (said, actual), images in self._resized.items():
            names = f"{_listed(images)}: the labels state a size of {said[0]}x{said[1]} px"
            line = f"{names}, the picture is {actual[0]}x{actual[1]} px"
            if same_shape(said, actual):
                self.note(codes.SIZE_SCALED, f"{line}; boxes are scaled to it", images=len(images))
            else:
                what = f"{line}: turned, cropped or another picture; boxes are taken as they stand"
                remedy = "look at them, and mark them again or correct the stated size"
                if self.strict:
                    raise DataError(f"{what}; {remedy}")
                self.note(codes.SIZE_CONFLICT, what, images=len(images))
        self._resized.clear()

    # ---- the end ---------------------------------------------------------------------------

    def dataset(
        self,
        name: str,
        fields: Iterable[Field],
        *,
        schema: Schema = LLD_SCHEMA,
        licence: str | None = None,
    ) -> Dataset:
        """Return the data set, after naming what is missing, doubled, unknown or not carried."""
        kept = self._named(self._once(self._with_images(list(fields))))
        self._report_sizes()
        for (what, unit), count in self._unread.items():
            line = f"not kept: {what} of {count} {unit}"
            self.note(codes.NOT_KEPT, line, property=printable(what), count=count, of=unit)
        issues = tuple(self.issues)
        return Dataset(name, kept, self.taxonomy, schema, licence, self.root, issues)

    def _with_images(self, fields: list[Field]) -> list[Field]:
        missing = [f for f in fields if not is_file(f.path)]
        if not missing:
            return fields
        gone = {id(f) for f in missing}
        done = "and their fields left out" if self.missing == "drop" else "but their fields kept"
        self.report(
            codes.MISSING_IMAGE,
            self.root,
            "",
            f"{len(missing)} of {len(fields)} images are missing {done}: "
            f"{_listed([f.path.name for f in missing])}",
            "unpack them again, or name their folder with images=",
        )
        return [f for f in fields if self.missing == "keep" or id(f) not in gone]

    def _once(self, fields: list[Field]) -> list[Field]:
        """Leave out second labels of one image; note images that are links to one file.

        An image that is listed again without any label stays: nothing is said twice of it.
        """
        kept: list[Field] = []
        first: dict[Path, Field] = {}
        links: dict[Path, list[str]] = {}
        real: set[Path] = set()
        for item in fields:
            if os.path.islink(item.path):  # noqa: PTH114, never raises
                names = links.setdefault(item.path.resolve(), [])
                names += [] if self.short(item.path) in names else [self.short(item.path)]
            else:
                real.add(item.path)
            unlabelled = item.region.is_nothing and not item.cells
            other = item if unlabelled else first.setdefault(item.path, item)
            if other is item:
                kept.append(item)
                continue
            self.report(
                codes.LABELLED_TWICE,
                item.path,
                "",
                f"is labelled more than once: {len(other.cells)} cells and again "
                f"{len(item.cells)}; the second labels are left out",
                "keep one of the labels",
            )
        for file, names in links.items():
            if file in real or len(names) > 1:
                every = names + ([self.short(file)] if file in real else [])
                what = f"one file under {len(every)} names: {_listed(every)}"
                self.note(codes.LINKED_IMAGE, what, names=len(every))
        return kept

    def _named(self, fields: list[Field]) -> tuple[Field, ...]:
        """Name cells by what their set's names mean together; count the names nobody knows."""
        meanings = set_meanings(self._spellings)
        own = {
            spelling: node
            for spelling in self._spellings
            if self.meaning(spelling) is None
            and (node := meanings.get(fold_name(spelling))) is not None
            and node in self.taxonomy
        }
        for spelling, count in self._spellings.items():
            if self.meaning(spelling) is None and spelling not in own:
                what = f"class {spelling!r} is not in the taxonomy; {count} cells keep that name"
                remedy = f"say what it is: classes={{{spelling!r}: ...}} (--classes)"
                self.report(codes.UNKNOWN_CLASS, self.root, "", what, remedy)
        if not own:
            return tuple(fields)

        def renamed(cell: Cell) -> Cell:
            node = own.get(cell.source_label or "")
            return cell if node is None else replace(cell, label=node, source_label=None)

        return tuple(f.with_cells(tuple(map(renamed, f.cells))) for f in fields)


_EXACT = 1 << 16


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(shortened(name, LONGEST_NAME) for name in names[:LISTED]) + more


def box_fault(box: Sequence[float], size: tuple[int, int] | None) -> str | None:
    """Say why a box cannot be used in an image of that (width, height); `None` if it can."""
    x, y, w, h = (float(v) for v in box)
    if not all(math.isfinite(v) for v in (x, y, w, h, x + w, y + h)):
        return "box is not finite"
    if w < 0 or h < 0:
        return "box has a negative size"
    if w == 0 or h == 0:
        return "box has no area"
    if size is not None and not (0 < x + w / 2 < size[0] and 0 < y + h / 2 < size[1]):
        return f"box lies outside the {size[0]}x{size[1]} image"
    return None
