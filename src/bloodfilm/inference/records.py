"""One analysis as a whole: which model, which settings, what came of every file."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from bloodfilm.core.errors import BloodfilmError, DataError
from bloodfilm.core.results import AttributeResult, CellResult, FieldResult
from bloodfilm.inference.manifest import Manifest

RESULT_FORMAT = "bloodfilm-result"
RESULT_VERSION = 1


@dataclass(frozen=True, slots=True)
class FieldFailure:
    """A file that gave no result: its path as the user named it, and why, in one line."""

    path: str
    reason: str

    @classmethod
    def of(cls, path: Path, error: Exception) -> "FieldFailure":
        """Return the record of an error; the reason does not repeat the path."""
        text = " ".join(str(error).split())
        if isinstance(error, BloodfilmError):
            reason = text.removeprefix(f"{path}: ")
        elif isinstance(error, MemoryError):
            reason = "not enough memory for this field; crop or reduce it"
        else:
            reason = f"internal error ({type(error).__name__}: {text[:200]}); please report it"
        return cls(str(path), reason)

    def to_json(self) -> dict[str, str]:
        """Return the record as plain data."""
        return {"image": self.path, "reason": self.reason}


FieldOutcome = FieldResult | FieldFailure


@dataclass(frozen=True)
class AnalysisRun:
    """What an analysis did. `fields` may be read from disk as it is iterated, so iterate.

    Attributes:
        version: of the program.
        bundle: identity of the model (`Bundle.identity`).
        manifest: of the bundle: taxonomy, schema, licence, metrics.
        settings: what the user chose, by name.
        fields: results in the order of the files.
        failures: files without a result, in order.
    """

    version: str
    bundle: Mapping[str, str]
    manifest: Manifest
    settings: Mapping[str, Any]
    fields: Sequence[FieldResult]
    failures: Sequence[FieldFailure] = field(default=())

    def write_json(self, file: TextIO) -> None:
        """Write the full record as one JSON document, a field a line; memory stays flat."""
        head = {
            "format": RESULT_FORMAT,
            "version": RESULT_VERSION,
            "program": f"bloodfilm {self.version}",
            "bundle": dict(self.bundle),
            "settings": dict(self.settings),
        }
        lines = [f"{to_json_line(key)}: {to_json_line(value)}" for key, value in head.items()]
        file.write("{\n" + ",\n".join(lines) + ',\n"fields": [')
        _write_items(file, self.fields)
        file.write('],\n"failures": [')
        _write_items(file, self.failures)
        file.write("]\n}\n")


def _write_items(file: TextIO, items: Iterable[FieldOutcome]) -> None:
    separator = "\n"
    for item in items:
        file.write(separator + to_json_line(item.to_json()))
        separator = ",\n"
    if separator != "\n":
        file.write("\n")


def to_json_line(value: Any) -> str:
    """Plain data as one line of JSON, readable and valid whatever bytes a file name holds."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def field_from_json(data: Mapping[str, Any]) -> FieldResult:
    """The result that `FieldResult.to_json` wrote; `DataError` if the data are no such thing."""
    try:
        return FieldResult(
            path=str(data["image"]),
            width=int(data["width"]),
            height=int(data["height"]),
            view=dict(data["view"]),
            cells=tuple(cell_from_json(cell) for cell in data["cells"]),
            problems=tuple(str(p) for p in data["problems"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"result: not the record of a field ({error!r})") from None


def cell_from_json(data: Mapping[str, Any]) -> CellResult:
    """The cell that `CellResult.to_json` wrote."""
    x, y, w, h = (float(v) for v in data["box"])
    return CellResult(
        box=(x, y, w, h),
        score=float(data["score"]),
        kind=str(data["kind"]),
        label=str(data["class"]),
        label_score=float(data["class_score"]),
        probabilities={str(k): float(v) for k, v in data["probabilities"].items()},
        attributes={
            str(name): AttributeResult(
                None if a["value"] is None else str(a["value"]),
                float(a["probability"]),
                {str(k): float(v) for k, v in a["probabilities"].items()},
            )
            for name, a in data["attributes"].items()
        },
        flags=tuple(str(f) for f in data["flags"]),
        diameter_um=_number(data["diameter_um"]),
        confirmed=_number(data.get("confirmed")),
        stain_contrast=_number(data.get("stain_contrast")),
    )


def _number(value: Any) -> float | None:
    return None if value is None else float(value)
