"""One analysis as a whole: which model, which settings, what came of every file.

`result.json` is one JSON document, written with one field per line:

- `format` ("bloodfilm-result"), `version` (3), `program`;
- `bundle`: identity of the model; `model`: its vocabulary and thresholds (`ModelInfo`);
- `settings`: what the user chose;
- `fields`: per image `image`, `sha256`, `pixels`, `appearance`, `width`, `height`, `view`,
  `cells`, `issues`, `problems`; of slides also `slide` (`SlideRecord`);
- `failures`: per file without a result `image`, `reason`, `issue`;
- `cases`: per case its fields and physical cells, by their numbers and ids (`CaseResult`).

`result.schema.json` beside this file is its JSON Schema. Versions 1 (without `model`, ids,
checksums and codes) and 2 (without `cases`) are still read.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, TextIO

from bloodfilm.core import issue_codes
from bloodfilm.core.errors import DataError
from bloodfilm.core.files import atomic_write, read_regular_file, regular_file
from bloodfilm.core.issues import Issue
from bloodfilm.core.json_text import loads
from bloodfilm.core.results import interop
from bloodfilm.core.results.case import CaseResult
from bloodfilm.core.results.field import FieldFailure, FieldOutcome, FieldResult
from bloodfilm.core.results.model import ModelInfo
from bloodfilm.core.results.stored import StoredFields, json_line
from bloodfilm.core.results.tables import data_frame
from bloodfilm.core.results.vocabulary import Vocabulary
from bloodfilm.core.text import plural

RESULT_FORMAT = "bloodfilm-result"
RESULT_VERSION = 3
RESULT_FILE = "result.json"
UNFINISHED_FILE = "results.part.jsonl"
RESULT_SCHEMA = Path(__file__).with_name("result.schema.json")
"""JSON Schema (draft 2020-12) of `result.json` as this version writes it."""

_PROGRAM = "bloodfilm "
MAX_RESULT_BYTES = 2 << 30
"""Of a document that another program laid out: it is read as a whole."""


@dataclass(frozen=True)
class AnalysisRun:
    """The results of an analysis. `fields` may be read from disk as they are iterated.

    Attributes:
        version: of the program.
        model: the model that was used.
        settings: what the user chose, by name.
        fields: results in the order of the files.
        failures: files without a result, in order.
        issues: what to know of the run as a whole.
        cases: the fields by film or patient, every physical cell once; empty in files of versions
            1 and 2.
    """

    version: str
    model: ModelInfo
    settings: Mapping[str, Any]
    fields: Sequence[FieldResult]
    failures: Sequence[FieldFailure] = field(default=())
    issues: tuple[Issue, ...] = ()
    cases: Sequence[CaseResult] = ()

    def __repr__(self) -> str:
        parts = [plural(len(self.fields), "field")]
        parts += [plural(len(self.cases), "case")] * bool(self.cases)
        parts += [plural(len(self.failures), "failure")] * bool(self.failures)
        parts += [plural(len(self.issues), "issue")] * bool(self.issues)
        return f"<AnalysisRun by {self.model.name!r}: {', '.join(parts)}>"

    def __len__(self) -> int:
        return len(self.fields)

    def __iter__(self) -> Iterator[FieldResult]:
        return iter(self.fields)

    # ---- files -------------------------------------------------------------------------------

    @classmethod
    def read(cls, path: str | Path) -> "AnalysisRun":
        """Open `result.json`, or the folder that holds it; of any version up to this one.

        A file as `write` makes it is not loaded: its fields are read as they are asked for.

        Raises:
            DataError: if the file is missing, damaged, no result, or of a newer version.
        """
        place = Path(path)
        if place.is_dir():
            if (place / UNFINISHED_FILE).exists():
                raise DataError(
                    f"{place}: holds a run that was stopped; finish it with `bloodfilm analyze "
                    "... --resume`"
                )
            place = place / RESULT_FILE
        try:
            with regular_file(place).open("rb") as file:
                document = _read_lines(place, file) or _read_whole(place)
        except OSError as error:
            raise DataError(f"{place}: cannot be read ({error.strerror})") from None
        return _from_document(cls, place, document)

    def write(self, path: str | Path) -> Path:
        """Write the run as `result.json`, whole or not at all; return the file's path.

        Args:
            path: the file, or a folder that gets a `result.json`.
        """
        place = Path(path)
        place = place / RESULT_FILE if place.is_dir() else place
        with atomic_write(place) as file:
            self.write_json(file)
        return place

    def write_json(self, file: TextIO) -> None:
        """Write the run as one JSON document, one field per line; memory stays flat."""
        head = {
            "format": RESULT_FORMAT,
            "version": RESULT_VERSION,
            "program": f"{_PROGRAM}{self.version}",
            "bundle": dict(self.model.identity),
            "model": self.model.to_json(),
            "settings": dict(self.settings),
        }
        lines = [f"{json_line(key)}: {json_line(value)}" for key, value in head.items()]
        file.write("{\n" + ",\n".join(lines) + ',\n"fields": [')
        if isinstance(self.fields, StoredFields):
            _write_items(file, self.fields.json_lines())
        else:
            _write_items(file, _lines_of(self.fields))
        file.write('],\n"failures": [')
        _write_items(file, _lines_of(self.failures))
        file.write('],\n"cases": [')
        _write_items(file, _lines_of(self.cases))
        file.write("]\n}\n")

    # ---- other forms -------------------------------------------------------------------------

    def to_dataframe(self) -> Any:
        """Return a pandas DataFrame: one row per cell of every field, the columns of cells.csv.

        Raises:
            MissingPackageError: without pandas (`pip install 'bloodfilm[dataframe]'`).
        """
        return data_frame(((f.path, f.cells) for f in self.fields), self.model.schema.names)

    def to_coco(self) -> dict[str, Any]:
        """Return all cells in COCO's detection format; the categories are the taxonomy's names."""
        images = ((f.coco_image, f.cells) for f in self.fields)
        return interop.coco_document(images, self.model.taxonomy.names)


def _lines_of(items: Iterable[FieldOutcome | CaseResult]) -> Iterator[str]:
    return (json_line(item.to_json()) for item in items)


def _write_items(file: TextIO, lines: Iterable[str]) -> None:
    separator = "\n"
    for line in lines:
        file.write(separator)
        file.write(line)
        separator = ",\n"
    if separator != "\n":
        file.write("\n")


def _from_document(cls: type[AnalysisRun], place: Path, document: dict[str, Any]) -> AnalysisRun:
    """Build a run from a document whose `fields` are results already."""
    if document["version"] == 1:
        model = ModelInfo({str(k): str(v) for k, v in document.get("bundle", {}).items()})
        message = "the file does not record taxonomy and attributes; the default ones are taken"
        issues: tuple[Issue, ...] = (issue_codes.issue(issue_codes.MODEL_NOT_RECORDED, message),)
    else:
        try:
            model = ModelInfo.from_json(document["bundle"], document["model"])
        except (KeyError, AttributeError, DataError) as error:
            raise DataError(f"{place}: the record of the model is damaged ({error})") from None
        issues = ()
    settings = document.get("settings", {})
    try:
        failures = tuple(FieldFailure.from_json(item) for item in document.get("failures", ()))
        fields: Sequence[FieldResult] = document["fields"]
        if document["version"] > 1:  # version 1 does not record the model's names
            fields = _checked(fields, Vocabulary(model))
        cases = tuple(
            CaseResult.from_json(item, fields, model) for item in document.get("cases", ())
        )
        return cls(
            version=str(document.get("program", "")).removeprefix(_PROGRAM),
            model=model,
            settings=dict(settings),
            fields=fields,
            failures=failures,
            issues=issues,
            cases=cases,
        )
    except (DataError, TypeError, ValueError) as error:
        raise DataError(f"{place}: {error}") from None


def _checked(fields: Sequence[FieldResult], vocabulary: Vocabulary) -> Sequence[FieldResult]:
    """Return fields whose cells use the model's names only; those in a file as they are read."""
    if isinstance(fields, StoredFields):
        return fields.checked(vocabulary.check)
    for number, item in enumerate(fields):
        try:
            vocabulary.check(item.cells)
        except DataError as error:
            raise DataError(f"field {number}: {error}") from None
    return fields


def _check_version(place: Path, head: Any) -> None:
    if not isinstance(head, dict) or head.get("format") != RESULT_FORMAT:
        raise DataError(f'{place}: not a result of an analysis (no "format": "{RESULT_FORMAT}")')
    if head.get("version") not in range(1, RESULT_VERSION + 1):
        raise DataError(
            f"{place}: result version {head.get('version')!r}, but this program reads versions 1 "
            f"to {RESULT_VERSION}; use a newer bloodfilm"
        )


class _OtherLayoutError(Exception):
    """The document is not laid out as `write_json` does it."""


def _read_lines(place: Path, file: BinaryIO) -> dict[str, Any] | None:
    """Read the document as `write_json` lays it out; `None` if it is laid out otherwise."""
    try:
        document, line = _read_head(file)
        _check_version(place, document)
        document["fields"] = StoredFields(place, _offsets_of_items(file, line, b'"fields": ['))
        places = _offsets_of_items(file, file.readline(), b'"failures": [')
        end = file.readline()
        found = () if document["version"] < 3 else _offsets_of_items(file, end, b'"cases": [')
        end = end if document["version"] < 3 else file.readline()
        if end != b"}\n" or file.read():
            return None
        document["failures"] = [_parsed(file, offset) for offset in places]
        document["cases"] = [_parsed(file, offset) for offset in found]
    except (_OtherLayoutError, ValueError, TypeError, RecursionError):
        return None
    return document


def _read_head(file: BinaryIO) -> tuple[dict[str, Any], bytes]:
    """Read what stands before the fields; return it and the line where they begin."""
    document: dict[str, Any] = {}
    if file.readline() == b"{\n":
        for line in file:
            if line.startswith(b'"fields": ['):
                return document, line
            document |= loads(b"{" + line.rstrip().rstrip(b",") + b"}")
    raise _OtherLayoutError


def _offsets_of_items(file: BinaryIO, opening: bytes, start: bytes) -> tuple[int, ...]:
    """Return where the items of a list begin, one per line; the file stands behind the list."""
    if not opening.startswith(start):
        raise _OtherLayoutError
    offsets: list[int] = []
    if opening.rstrip().endswith((b"],", b"]")):
        return ()
    while True:
        offset = file.tell()
        line = file.readline().rstrip()
        if line in (b"],", b"]"):
            return tuple(offsets)
        if not (line.startswith(b"{") and line.rstrip(b",").endswith(b"}")):
            raise _OtherLayoutError
        offsets.append(offset)


def _parsed(file: BinaryIO, offset: int) -> Any:
    file.seek(offset)
    return loads(file.readline().rstrip().rstrip(b","))


def _read_whole(place: Path) -> dict[str, Any]:
    """Read a document in any layout, all of it at once."""
    try:
        document = loads(read_regular_file(place, MAX_RESULT_BYTES))
    except (ValueError, RecursionError) as error:
        where = f" at character {error.pos}" if isinstance(error, json.JSONDecodeError) else ""
        raise DataError(f"{place}: not JSON{where}; the file is damaged, analyse again") from None
    _check_version(place, document)
    fields = document.get("fields")
    if not isinstance(fields, list):
        raise DataError(f'{place}: no list "fields"; the file is damaged, analyse again')
    found = []
    for number, item in enumerate(fields):
        try:
            found.append(FieldResult.from_json(item))
        except DataError as error:
            raise DataError(f"{place}: field {number}: {error}") from None
    return {**document, "fields": tuple(found)}
