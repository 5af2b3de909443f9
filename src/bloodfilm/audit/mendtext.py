"""Carry changes of JSON labels to the text labels beside them."""

import shutil
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bloodfilm.audit.menders import Change
from bloodfilm.core import DataError
from bloodfilm.formats._images import image_size, walk
from bloodfilm.formats._lldtext import folders

CLOSE = 1.5  # pixels


def mend_texts(subset: Path, out: Path, changes: Sequence[Change]) -> None:
    """Copy a subset's text labels, with boxes deleted or named `none` as in its JSON labels.

    A line is a box's if class and centre are; of equal lines one is changed. Other changes (codes,
    boxes cut at the edge) mean nothing, or the same, to a reader of text labels.
    """
    by_stem: dict[str, list[Change]] = defaultdict(list)
    for change in changes:
        image = Path(change.file)
        if subset in image.parents and change.action in ("deleted", "named none"):
            by_stem[image.stem].append(change)
    for folder in folders(subset):
        for place, names in walk(folder):
            target = out / place.relative_to(subset)
            target.mkdir(parents=True, exist_ok=True)
            for name in names:
                listed = by_stem.get(Path(name).stem, [])
                if not listed or not name.endswith(".txt"):
                    shutil.copyfile(place / name, target / name)
                    continue
                lines = (place / name).read_text(encoding="utf-8").splitlines()
                text = "".join(line + "\n" for line in _mended(lines, listed))
                (target / name).write_text(text, encoding="utf-8")


def _mended(lines: list[str], changes: Sequence[Change]) -> list[str]:
    lines = list(lines)
    for change in changes:
        before: dict[str, Any] = change.before
        at = _line_of(lines, Path(change.file), before)
        if at is None:
            continue
        if change.action == "deleted":
            del lines[at]
        else:
            lines[at] = " ".join(["0", *lines[at].split()[1:]])
    return lines


def _line_of(lines: list[str], image: Path, before: dict[str, Any]) -> int | None:
    """Return the last line with the class and the centre of an annotation."""
    try:
        width, height = image_size(image)
    except DataError:
        return None
    x, y, w, h = (float(v) for v in before["bbox"])
    for at in range(len(lines) - 1, -1, -1):
        words = lines[at].split()
        try:
            same = int(float(words[0])) == int(before["category_id"])
            cx, cy = float(words[1]) * width, float(words[2]) * height
        except (ValueError, IndexError):
            continue
        if same and abs(cx - x - w / 2) < CLOSE and abs(cy - y - h / 2) < CLOSE:
            return at
    return None
