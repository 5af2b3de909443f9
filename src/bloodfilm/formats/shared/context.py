"""What every reader shares: safe file reading, box checks, class names, and a list of problems.

A reader never crashes on what it finds and never passes nonsense on. With `strict=False` it leaves
out what cannot be used and says so in `Dataset.problems`; with `strict=True` the first such thing
is a `DataError` that names the file, the place and the remedy.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypedDict

from bloodfilm.core import (
    DEFAULT_TAXONOMY,
    LLD_SCHEMA,
    Box,
    DataError,
    Dataset,
    Field,
    Schema,
    Taxonomy,
)
from bloodfilm.formats.shared.images import ImageIndex, image_size
from bloodfilm.formats.shared.label_faults import LabelFault
from bloodfilm.formats.shared.paths import LABEL_FOLDERS, need_folder

IGNORE_NAMES = frozenset({"none", "unidentified", "ignore", "ignored"})
UNNAMED_NAMES = frozenset({"unnamed", "unknown"})
ROUNDING_PX = 0.05  # labels are written with three to six digits: that is no fault of a box


class ReadOptions(TypedDict, total=False):
    """Options that every reader takes.

    Keys:
        strict: raise `DataError` at the first fault instead of leaving out and reporting.
        missing: what to do with a field whose image is not on disk: `drop` (default) or `keep`.
        taxonomy: the tree of classes; the built-in one by default.
        classes: the set's own class names -> nodes of the taxonomy.
        images: the folder that holds the images, where it is not beside the labels.
    """

    strict: bool
    missing: Literal["drop", "keep"]
    taxonomy: Taxonomy
    classes: Mapping[str, str]
    images: Path


@dataclass
class ReadContext:
    """One file or folder being read: options, problems so far, and the images beside it."""

    root: Path
    strict: bool = False
    missing: Literal["drop", "keep"] = "drop"
    taxonomy: Taxonomy = DEFAULT_TAXONOMY
    classes: Mapping[str, str] = field(default_factory=dict)
    images: Path | None = None
    problems: list[str] = field(default_factory=list)
    _strangers: Counter[str] = field(default_factory=Counter)
    _ambiguous: set[str] = field(default_factory=set)
    _index: ImageIndex | None = None

    def __post_init__(self) -> None:
        for target in self.classes.values():
            self.taxonomy.node(target)
        if self.images is not None:
            self.images = need_folder(Path(self.images))

    # ---- problems --------------------------------------------------------------------------

    def report(self, file: Path | str, place: str, what: str, remedy: str = "") -> None:
        """Note a fault and what was done about it; raise it as `DataError` if strict."""
        where = f"{self.short(file)}: {place}" if place else self.short(file)
        if self.strict:
            raise DataError(f"{where}: {what}; {remedy or 'mend it, or read with strict=False'}")
        self.problems.append(f"{where}: {what}")

    def report_fault(self, file: Path | str, fault: LabelFault) -> None:
        """Note a fault that a parser found, with what becomes of it."""
        self.report(file, fault.place, fault.message + fault.outcome, fault.advice)

    def note(self, line: str) -> None:
        """Note something a reader of the set should know, which is no fault of a file."""
        self.problems.append(line)

    def short(self, file: Path | str) -> str:
        """Return a path as seen from the root, to keep problem lines short."""
        base = self.root if self.root.is_dir() else self.root.parent
        try:
            return Path(file).relative_to(base).as_posix()
        except ValueError:
            return str(file)

    # ---- cells -----------------------------------------------------------------------------

    def box(
        self, box: Sequence[float], size: tuple[int, int] | None, file: Path, place: str
    ) -> Box | None:
        """Return a box that can be used, cut to the image; `None` (reported) if there is none.

        A box whose centre lies in the image is cut at the image's edge; any other box that
        reaches outside is left out.
        """
        fault = box_fault(box, size)
        if fault is not None:
            self.report(file, place, f"{fault} and is left out", "mend or delete it")
            return None
        x, y, w, h = (float(v) for v in box)
        width, height = size or (math.inf, math.inf)
        over = max(-x, -y, x + w - width, y + h - height)
        if over <= 0:
            return x, y, w, h
        if over > ROUNDING_PX:
            self.report(file, place, f"box reaches {over:.3g} px over the image's edge and is cut")
        left, top = max(x, 0.0), max(y, 0.0)
        return left, top, min(x + w, width) - left, min(y + h, height) - top

    def label(self, spelling: str) -> tuple[str | None, bool]:
        """Return (taxonomy node or `None`, whether to ignore) for a set's class name."""
        meaning = self.meaning(spelling)
        if meaning is None:
            self._strangers[spelling] += 1
        return meaning or (None, False)

    def meaning(self, spelling: str) -> tuple[str | None, bool] | None:
        """Like `label`, but `None` for a name nobody knows, and without counting it."""
        found = self.classes.get(spelling) or self.taxonomy.find(spelling)
        if found is not None:
            return found, False
        key = spelling.strip().lower()
        if key in IGNORE_NAMES:
            return None, True
        return (None, False) if key in UNNAMED_NAMES else None

    # ---- images ----------------------------------------------------------------------------

    @property
    def index(self) -> ImageIndex:
        """The images below the root (or below `images`), listed once."""
        if self._index is None:
            self._index = ImageIndex(self.images or self._image_base())
        return self._index

    def find(self, name: str, near: Path | None = None) -> Path | None:
        """Return the image of that name; where several may be meant, say so and take the first."""
        found = self.index.candidates(name, near)
        if len(found) > 1 and name not in self._ambiguous:
            self._ambiguous.add(name)
            listed = ", ".join(self.short(p) for p in found[:3])
            what = f"is the name of {len(found)} images ({listed}); the first is taken"
            self.report(self.root, repr(name), what, "rename them, or name the folder with images=")
        return found[0] if found else None

    def _image_base(self) -> Path:
        if self.root.is_dir():
            return self.root
        folder = self.root.parent
        return folder.parent if folder.name.lower() in LABEL_FOLDERS else folder

    def size(self, path: Path) -> tuple[int, int] | None:
        """Read an image's (width, height) from its header; `None` (reported) if it has none."""
        try:
            return image_size(path)
        except DataError as error:
            if self.strict:
                raise
            self.problems.append(str(error))
            return None

    # ---- the end ---------------------------------------------------------------------------

    def dataset(
        self,
        name: str,
        fields: Iterable[Field],
        *,
        schema: Schema = LLD_SCHEMA,
        licence: str | None = None,
    ) -> Dataset:
        """Return the data set, after counting missing images and class names nobody knows."""
        kept = self._with_images(list(fields))
        for spelling, count in self._strangers.items():
            what = f"class {spelling!r} is not in the taxonomy; {count} cells are kept unnamed"
            self.report(self.root, "", what, f"say what it is: classes={{{spelling!r}: ...}}")
        problems = tuple(self.problems)
        return Dataset(name, kept, self.taxonomy, schema, licence, self.root, problems)

    def _with_images(self, fields: list[Field]) -> tuple[Field, ...]:
        missing = [f for f in fields if not f.path.is_file()]
        if not missing:
            return tuple(fields)
        gone = {id(f) for f in missing}
        done = "and their fields left out" if self.missing == "drop" else "but their fields kept"
        names = ", ".join(f.path.name for f in missing[:20])
        more = f" and {len(missing) - 20} more" if len(missing) > 20 else ""
        self.report(
            self.root,
            "",
            f"{len(missing)} of {len(fields)} images are missing {done}: {names}{more}",
            "unpack them again, or name their folder with images=",
        )
        return tuple(f for f in fields if self.missing == "keep" or id(f) not in gone)


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
