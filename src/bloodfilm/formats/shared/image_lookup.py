r"""Which picture a label belongs to: one rule for every format and for results of an analysis.

A label names its image by a path that another program wrote on another machine. The image meant is
the one whose path agrees with that name from the end on, as far as possible:

- Names are compared after Unicode normalisation (NFC), without regard to case, with `/` and `\`
  alike, and with `%20` and the like undone where that is needed.
- The file name must be equal; if no image has it, the stem must be (labels name a `.tif` that was
  converted to `.png`). A suffix is cut off only if it is one of an image: `f1.norm` is a stem.
- A folder that is named and contradicts the image's own means that the image is missing, never that
  "the nearest name" is meant. `images`, `data` and the like tell nothing and are not compared.
- Folders of splits (`train`, `valid`, ...) are compared as splits, also with the split that is
  known from the label file's own name.
- Several images that agree equally well cannot be told apart; the caller must refuse them.
"""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from urllib.parse import unquote

from bloodfilm.formats.shared.paths import LABEL_FOLDERS, split_of
from bloodfilm.imaging.discovery import is_image, walk

Parts = tuple[str, ...]
PLAIN_FOLDERS = LABEL_FOLDERS | {
    "data",
    "image",
    "images",
    "img",
    "imgs",
    "jpegimages",
    "obj_data",
    "upload",
}
"""Folders, in lower case, whose names do not tell one image from another."""


def fold(name: str) -> str:
    """Return a name in the form in which names are compared: NFC, without case."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def parts_of(name: str) -> Parts:
    r"""Return the folded parts of a path in any notation, without drive, `.` and leading `..`.

    >>> parts_of("C:\\films\\P1\\..\\P2\\A.png")
    ('films', 'p2', 'a.png')
    """
    parts: list[str] = []
    for part in re.sub(r"^[A-Za-z]:(?=[\\/])", "", name).replace("\\", "/").split("/"):
        if part == ".." and parts:
            parts.pop()
        elif part not in ("", ".", ".."):
            parts.append(fold(part))
    return tuple(parts)


def stem_of(name: str) -> str:
    """Return a file name without its suffix, if that is the suffix of an image.

    >>> stem_of("f1.norm.jpg"), stem_of("f1.norm")
    ('f1.norm', 'f1.norm')
    """
    return Path(name).stem if is_image(name) else name


def common_tail(a: Parts, b: Parts) -> int:
    """Return how many parts of two paths agree, counted from the end."""
    count = 0
    for one, other in zip(reversed(a), reversed(b), strict=False):
        if one != other:
            break
        count += 1
    return count


def folders_of(folders: Sequence[str]) -> Parts:
    """Return the folders of a path that tell images apart, folded."""
    return tuple(f for f in map(fold, folders) if f not in PLAIN_FOLDERS)


@dataclass(frozen=True)
class _Folders:
    """The folders of a path as they are compared: the last split among them, and the others."""

    split: str | None
    names: Parts

    @classmethod
    def of(cls, folders: Sequence[str]) -> "_Folders":
        split, names = None, []
        for folder in folders:
            found = split_of(folder) or split_of(folder.rstrip("0123456789"))
            if found is not None:
                split = found
            elif folder not in PLAIN_FOLDERS:
                names.append(folder)
        return cls(split, tuple(names))

    def contradicts(self, other: "_Folders") -> bool:
        if self.split is not None and other.split is not None and self.split != other.split:
            return True
        return bool(self.names and other.names) and self.names[-1] != other.names[-1]


@dataclass(frozen=True)
class _Known:
    """One path of an index: what it is, its folded parts, its folders below the root."""

    path: Path
    parts: Parts
    folders: _Folders


class PathIndex:
    """Paths by file name and by stem, to be matched with names that others wrote.

    Args:
        paths: in order; of several equal ones the first is kept.
        root: the folder below which folders tell images apart; folders above it do not count.
    """

    def __init__(self, paths: Iterable[Path], root: Path) -> None:
        above = len(parts_of(str(root.absolute())))
        self._by_name: dict[str, list[_Known]] = {}
        self._by_stem: dict[str, list[_Known]] = {}
        for path in dict.fromkeys(paths):
            parts = parts_of(str(path.absolute()))
            known = _Known(path, parts, _Folders.of(parts[above:-1]))
            self._by_name.setdefault(parts[-1], []).append(known)
            self._by_stem.setdefault(stem_of(parts[-1]), []).append(known)

    def candidates(
        self, name: str, *, near: Path | None = None, split: str | None = None
    ) -> list[Path]:
        """Return the paths that a name may mean; none if all contradict it.

        Args:
            name: a path, or its end, in any notation.
            near: the file that holds the name; of equal candidates those next to it are meant.
            split: the split that the label file is of, where the name itself says none.
        """
        beside = parts_of(str(near.absolute()))[:-1] if near is not None else ()
        spellings = [name, unquote(name)] if "%" in name else [name]
        for by_stem in (False, True):
            for spelling in spellings:
                stated = parts_of(spelling)
                folders = _Folders.of(stated[:-1])
                if folders.split is None and split is not None:
                    folders = _Folders(split, folders.names)
                found = self._named(stated, by_stem)
                agreeing = [k for k in found if not folders.contradicts(k.folders)]
                if agreeing:
                    ranks = [_rank(k, spelling, stated, folders, beside) for k in agreeing]
                    best = max(ranks)
                    return [k.path for k, r in zip(agreeing, ranks, strict=True) if r == best]
        return []

    def _named(self, stated: Parts, by_stem: bool) -> list[_Known]:
        """Return the paths of a file name, or of its stem where no path has the name."""
        if not stated:
            return []
        if not by_stem:
            return self._by_name.get(stated[-1], [])
        return [] if stated[-1] in self._by_name else self._by_stem.get(stem_of(stated[-1]), [])


def _rank(
    known: _Known, name: str, stated: Parts, folders: _Folders, beside: Parts
) -> tuple[int, ...]:
    """Return how well a path agrees with a name; the largest is meant."""
    prefix = 0
    for one, other in zip(known.parts[:-1], beside, strict=False):
        if one != other:
            break
        prefix += 1
    return (
        common_tail(known.folders.names, folders.names),
        int(folders.split is not None and known.folders.split == folders.split),
        common_tail(known.parts[:-1], stated[:-1]),
        int(known.path.name == name.replace("\\", "/").rpartition("/")[2]),
        prefix,
    )


class ImageIndex:
    """The images below a folder, listed once and only when first asked."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @cached_property
    def paths(self) -> tuple[Path, ...]:
        """Every image, sorted by folder, then name."""
        return tuple(
            folder / name for folder, names in walk(self.root) for name in names if is_image(name)
        )

    @cached_property
    def _index(self) -> PathIndex:
        return PathIndex(self.paths, self.root)

    def candidates(
        self, name: str, near: Path | None = None, split: str | None = None
    ) -> list[Path]:
        """Return every image that may be meant; see `PathIndex.candidates`."""
        found = self._index.candidates(name, near=near, split=split)
        if len(found) > 1 and len({path.resolve() for path in found}) == 1:
            return found[:1]  # links to one file
        return found

    def find(self, name: str, near: Path | None = None) -> Path | None:
        """Return the one image that a name means; `None` if there is none, or several."""
        found = self.candidates(name, near)
        return found[0] if len(found) == 1 else None

    def find_alike(self, name: str) -> Path | None:
        """Return the one image whose stem is that name's but for stray characters."""
        found = self._by_plain.get(_plain(Path(name).stem), [])
        return found[0] if len(found) == 1 else None

    @cached_property
    def _by_plain(self) -> dict[str, list[Path]]:
        groups: dict[str, list[Path]] = {}
        for path in self.paths:
            groups.setdefault(_plain(path.stem), []).append(path)
        return groups


def _plain(stem: str) -> str:
    return re.sub(r"[^0-9a-z_]", "", stem.lower())
