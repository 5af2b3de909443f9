"""Which images belong to which case: by folder, all together, or by a table."""

import os
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bloodfilm.core import issue_codes
from bloodfilm.core.csv_text import parse_table
from bloodfilm.core.errors import DataError
from bloodfilm.core.issue_codes import issue
from bloodfilm.core.issues import Issue
from bloodfilm.core.results.case import case_name
from bloodfilm.core.text import plural, shortened
from bloodfilm.formats.lld.names import parse_name
from bloodfilm.formats.shared.parsing import read_text
from bloodfilm.imaging.discovery import natural_key

FOLDERS, ONE = "folders", "one"
MAX_TABLE_BYTES = 64 << 20
IMAGE_COLUMNS = ("image", "file", "filename", "file_name", "path", "image_path")
PATIENT_COLUMNS = ("patient", "patient_id", "case", "case_id", "film", "subject")
SHOWN = 10


@dataclass(frozen=True)
class CaseGroup:
    """The images of one case: its name, their numbers in the list, and what is known of it."""

    name: str
    images: tuple[int, ...]
    issues: tuple[Issue, ...] = ()


@dataclass(frozen=True)
class Grouping:
    """Images by case.

    Attributes:
        images: those to analyse, in order.
        cases: every one of them is in exactly one; cases in the order of their first image.
        issues: what a table said that could not be used.
    """

    images: tuple[Path, ...]
    cases: tuple[CaseGroup, ...]
    issues: tuple[Issue, ...] = ()

    @property
    def films(self) -> list[tuple[str, str | None]]:
        """The film of each image: its case, and patient where file names tell of several."""
        films: dict[int, tuple[str, str | None]] = {}
        for case in self.cases:
            for place in case.images:
                parts = parse_name(self.images[place].name)
                films[place] = case.name, None if parts is None else parts.patient
        return [films[place] for place in range(len(self.images))]

    @property
    def compared(self) -> frozenset[str]:
        """Paths of the images that are compared with others of their case."""
        several = [case.images for case in self.cases if len(case.images) > 1]
        return frozenset(str(self.images[number]) for numbers in several for number in numbers)


def group_images(
    images: Sequence[Path],
    given: Sequence[str | os.PathLike[str]],
    cases: str = FOLDERS,
    repeats: Sequence[tuple[Path, Path]] = (),
) -> Grouping:
    """Divide images into cases.

    `folders`: each folder directly inside a given folder is a case, with all images in or below
    it. Images directly in a given folder are a case of their own, named after it, and so are files
    given by their names, or by a pattern, that lie in one folder. `one`: all images are one case.
    Otherwise `cases` is a CSV or TSV file with a column for the image and one for the patient.

    Args:
        images: found below the given paths, in order.
        given: files, folders and patterns, as the user named them.
        cases: `folders`, `one`, or the path of a table.
        repeats: other names by which files were reached, with the name they are listed by.

    Raises:
        DataError: if the table cannot be used, or names none of the images.
    """
    if cases == ONE:
        name = case_name(Path(given[0])) if len(given) == 1 else "case"
        return _grouping(images, dict.fromkeys(range(len(images)), name))
    if cases == FOLDERS:
        return _grouping(images, *_by_folder(images, given, repeats))
    return _by_table(images, given, Path(cases))


def _grouping(
    images: Sequence[Path], names: dict[int, str], issues: Iterable[Issue] = ()
) -> Grouping:
    """Keep the images that have a case."""
    kept = [number for number in range(len(images)) if number in names]
    members: dict[str, list[int]] = defaultdict(list)
    for place, number in enumerate(kept):
        members[names[number]].append(place)
    paths = tuple(images[number] for number in kept)
    cases = tuple(
        CaseGroup(name, tuple(places), tuple(_several_patients([paths[p] for p in places])))
        for name, places in members.items()
    )
    return Grouping(paths, cases, tuple(issues))


def _several_patients(paths: Sequence[Path]) -> Iterable[Issue]:
    """Yield an issue if the names of a case's files, in LLD's manner, are of several patients."""
    parts = [parse_name(path.name) for path in paths]
    patients = sorted({p.patient for p in parts if p is not None}, key=natural_key)
    if len(patients) > 1:
        message = (
            f"file names tell of {len(patients)} patients ({_listed(patients)}); if they are "
            "patients, give a table of images and patients with --cases"
        )
        yield issue(issue_codes.SEVERAL_PATIENTS, message, patients=patients)


# ---- by folder -------------------------------------------------------------------------------


def _by_folder(
    images: Sequence[Path],
    given: Sequence[str | os.PathLike[str]],
    repeats: Sequence[tuple[Path, Path]],
) -> tuple[dict[int, str], list[Issue]]:
    """Return the case of each image, and issues about files that lie in several cases' folders."""
    roots = [Path(p) for p in given if Path(p).is_dir()]
    folders = [_case_folder(path, roots) for path in images]
    again = [_case_folder(path, roots) for path, _ in repeats]
    names = _distinct(dict.fromkeys([*folders, *again]))
    found = {number: names[folder] for number, folder in enumerate(folders)}
    cases = {path: found[number] for number, path in enumerate(images)}
    shared = [
        (path, names[folder], first, cases[first])
        for (path, first), folder in zip(repeats, again, strict=True)
        if names[folder] != cases.get(first, names[folder])
    ]
    if not shared:
        return found, []
    path, other, first, case = shared[0]
    listed = sorted({name for _, other, _, case in shared for name in (other, case)})
    more = f", and {len(shared) - 1} more" if len(shared) > 1 else ""
    message = (
        f"{path}, of case {other}, is the same file as {first}, and counts in case {case} "
        f"only{more}: whose are they?"
    )
    facts = {"images": len(shared), "cases": listed}
    return found, [issue(issue_codes.SHARED_IMAGE, message, **facts)]


def _case_folder(path: Path, roots: Sequence[Path]) -> Path:
    """Return the folder that stands for an image's case."""
    for root in roots:
        if path.is_relative_to(root):
            inside = path.relative_to(root).parts
            return root if len(inside) < 2 else root / inside[0]
    return path.parent


def _distinct(folders: Iterable[Path]) -> dict[Path, str]:
    """Name folders by their last part, and by as much more of their path as tells them apart."""
    listed = list(folders)
    parts = {f: Path(os.path.abspath(f)).parts for f in listed}  # noqa: PTH100, links stay as given
    names: dict[Path, str] = {}
    depth = 1
    waiting = listed
    while waiting:
        tried = {f: "/".join(parts[f][-depth:]) for f in waiting}
        counts = Counter(tried.values())
        done = [f for f in waiting if counts[tried[f]] == 1 or depth >= len(parts[f])]
        names |= {f: tried[f].lstrip("/") or "case" for f in done}
        waiting = [f for f in waiting if f not in names]
        depth += 1
    return names


# ---- by table --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Row:
    line: int
    image: str
    patient: str


def _by_table(
    images: Sequence[Path], given: Sequence[str | os.PathLike[str]], table: Path
) -> Grouping:
    rows = _read_table(table)
    lookup = _Lookup(images, [table.parent, *(Path(p) for p in given if Path(p).is_dir())])
    issues: list[Issue] = []
    lost: list[str] = []
    nameless: list[str] = []
    found: dict[int, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        fitting = lookup.find(row.image)
        said = f"line {row.line}: {row.image or 'no image'}"
        if len(fitting) != 1:
            lost.append(f"{said} (fits {len(fitting)} images)" if fitting else said)
        elif not row.patient:
            nameless.append(said)
        else:
            found[fitting[0]][row.patient].append(row.line)
    names: dict[int, str] = {}
    disputed: list[str] = []
    for number, patients in sorted(found.items()):
        lines = sorted(line for listed in patients.values() for line in listed)
        if len(patients) > 1:
            disputed.append(f"{images[number]} ({_listed(sorted(patients))})")
            continue
        names[number] = next(iter(patients))
        if len(lines) > 1:
            message = f"{table}: lists {images[number]} in lines {_listed(lines)}; it counts once"
            issues.append(issue(issue_codes.LISTED_TWICE, message, lines=lines))
    unlisted = [str(images[k]) for k in range(len(images)) if k not in found]
    issues += _summaries(table, lost, nameless, disputed, unlisted)
    if not names:
        why = "; ".join(found.message.removeprefix(f"{table}: ") for found in issues)
        none = f"names none of the {plural(len(images), 'image')} with a patient"
        raise DataError(f"{table}: {none}: {shortened(why, 400)}")
    return _grouping(images, names, issues)


def _summaries(
    table: Path, lost: list[str], nameless: list[str], disputed: list[str], unlisted: list[str]
) -> Iterable[Issue]:
    """Yield one issue per kind of trouble, with all that it concerns in its data."""
    if lost:
        what = plural(len(lost), "image is", "images are")
        message = f"{table}: {what} not there: {_listed(lost)}"
        yield issue(issue_codes.IMAGE_NOT_FOUND, message, rows=lost)
    if nameless:
        message = f"{table}: {plural(len(nameless), 'row')} without a patient: {_listed(nameless)}"
        yield issue(issue_codes.PATIENT_MISSING, message, rows=nameless)
    if disputed:
        what = plural(len(disputed), "image is", "images are")
        message = f"{table}: {what} listed for several patients, left out: {_listed(disputed)}"
        yield Issue(issue_codes.LISTED_TWICE, "error", message, {"images": disputed})
    if unlisted:
        what = plural(len(unlisted), "image is", "images are")
        message = f"{table}: {what} not listed, left out: {_listed(unlisted)}"
        yield issue(issue_codes.IMAGE_NOT_LISTED, message, images=unlisted)


def _listed(items: Sequence[object]) -> str:
    text = ", ".join(str(item) for item in items[:SHOWN])
    return text if len(items) <= SHOWN else f"{text} and {len(items) - SHOWN} more"


def _read_table(table: Path) -> list[_Row]:
    """Read the rows of a table; `DataError` names the file and what it lacks."""
    found = parse_table(read_text(table, MAX_TABLE_BYTES), table)
    image = _column(table, found.columns, IMAGE_COLUMNS)
    patient = _column(table, found.columns, PATIENT_COLUMNS)
    if not found.rows:
        raise DataError(f"{table}: has a header and no rows")
    return [
        _Row(row.line, row[image].strip(), unicodedata.normalize("NFC", row[patient].strip()))
        for row in found.rows
    ]


def _column(table: Path, columns: Iterable[str], names: Sequence[str]) -> str:
    found = [own for own in columns if own.lower().replace(" ", "_") in names]
    if len(found) != 1:
        what = "has no" if not found else "has several"
        raise DataError(
            f"{table}: {what} column {names[0]!r} in its header ({', '.join(columns)}); name one "
            f"column {names[0]!r}"
        )
    return found[0]


class _Lookup:
    """Finds an image by what a table calls it: a path, or the last parts of one."""

    def __init__(self, images: Sequence[Path], folders: Sequence[Path]) -> None:
        self._folders = folders
        self._by_path: dict[str, int] = {}
        self._endings: dict[tuple[str, ...], list[int]] = defaultdict(list)
        self._whole: dict[tuple[str, ...], list[int]] = defaultdict(list)
        for number, path in enumerate(images):
            self._by_path.setdefault(os.path.realpath(path), number)
            for parts in {_parts(path), _parts(path.with_suffix(""))}:
                for start in range(len(parts)):
                    self._endings[parts[start:]].append(number)
            for folder in folders[1:]:
                if path.is_relative_to(folder):
                    below = Path(folder.name) / path.relative_to(folder)
                    self._whole[_parts(below)].append(number)

    def find(self, entry: str) -> list[int]:
        """Return the numbers of the images that a table's entry may mean."""
        if not entry:
            return []
        for folder in self._folders:
            number = self._by_path.get(os.path.realpath(folder / entry))
            if number is not None:
                return [number]
        parts = _parts(Path(entry.replace("\\", "/")))
        if parts in self._endings:
            return self._endings[parts]
        # A path of another machine, which ends as that of an image below a given folder does.
        ends = (parts[start:] for start in range(1, len(parts)))
        return next((self._whole[end] for end in ends if end in self._whole), [])


def _parts(path: Path) -> tuple[str, ...]:
    """Return the parts of a path in composed characters: systems write accents differently."""
    return tuple(unicodedata.normalize("NFC", part) for part in path.parts)
