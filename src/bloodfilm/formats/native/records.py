"""Fields and cells as plain data: the lossless records of the native format and of the extras.

COCO and LLD files carry the same records under one extra key, so that a region, a domain or a
patient survives a trip through formats that have no place for them.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from bloodfilm.core import Cell, DataError, Domain, Field, Region
from bloodfilm.core.dataset_codes import UNCODED, dataset_issue
from bloodfilm.core.issues import Issue


def issues_from_json(content: Mapping[str, Any]) -> list[Issue]:
    """Return the issues of a stored set; older files have sentences under `problems` instead.

    Raises:
        DataError: if they are no issues.
    """
    stored, lines = content.get("issues", ()), content.get("problems", ())
    if not isinstance(stored, list | tuple) or not isinstance(lines, list | tuple):
        raise DataError("issues: not a list")
    older = [dataset_issue(UNCODED, str(line)) for line in lines]
    return older + [Issue.from_json(item) for item in stored]


def origin_to_json(field: Field) -> dict[str, Any]:
    """Return what is known of a field besides its image and its cells; only what is stated."""
    record: dict[str, Any] = {}
    if not field.region.is_everything:
        record["region"] = field.region.to_json()
    if field.domain != Domain():
        record["domain"] = field.domain.to_json()
    for name in ("patient", "split", "diagnosis"):
        if getattr(field, name) is not None:
            record[name] = getattr(field, name)
    if field.meta:
        record["meta"] = dict(field.meta)
    return record


def origin_from_json(record: Mapping[str, Any], split: str | None = None) -> dict[str, Any]:
    """Return `Field` arguments from `origin_to_json` data; `split` where it states none."""
    return {
        "region": Region.from_json(record.get("region")),
        "domain": _domain(_mapping(record, "domain")),
        "patient": _text(record, "patient"),
        "split": _text(record, "split") if "split" in record else split,
        "diagnosis": _text(record, "diagnosis"),
        "meta": {str(k): str(v) for k, v in _mapping(record, "meta").items()},
    }


def _domain(data: Mapping[str, Any]) -> Domain:
    """Return a domain; the same object for the same words, for a set has few and fields many."""
    try:
        return _known_domain(tuple(data.items()))
    except TypeError:  # not hashable, so no domain; this says so
        return Domain.from_json(data)


@lru_cache(maxsize=1024)
def _known_domain(items: tuple[tuple[str, Any], ...]) -> Domain:
    return Domain.from_json(dict(items))


def cell_to_json(cell: Cell) -> dict[str, Any]:
    """Return a cell as plain data; only what is stated."""
    record: dict[str, Any] = {"box": None if cell.box is None else list(cell.box)}
    record["class"] = cell.label
    if cell.source_label is not None:
        record["source_class"] = cell.source_label
    if cell.outline is not None:
        record["outline"] = cell.outline.to_json()
    if cell.attributes:
        record["attributes"] = dict(cell.attributes)
    if cell.ignore:
        record["ignore"] = True
    if cell.id is not None:
        record["id"] = cell.id
    return record


def _mapping(record: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = record.get(key, {})
    if not isinstance(value, Mapping):
        raise DataError(f"{key}: expected names and values, not {value!r}")
    return value


def _text(record: Mapping[str, Any], key: str) -> str | None:
    value = record.get(key)
    if isinstance(value, list | dict):
        raise DataError(f"{key}: expected text, not {value!r}")
    return None if value is None else str(value)
