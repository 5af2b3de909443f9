"""Compare a golden record with what the program gives now, numbers within a tolerance.

A golden record is plain data. `ANY` in its place matches everything, `NUMBER` every finite number:
for what depends on the processor, or lies too near a threshold to be the same on every one. A case
that gives `ANY` now, where the record has a text, matches too: it counts how often it does.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

ANY = "<any>"
NUMBER = "<number>"

_NUMBER = re.compile(r"(\d+(?:\.\d+)?(?:e[-+]?\d+)?)")
_WIDTH = 280


@dataclass(frozen=True)
class Tolerance:
    """How far a number may be from the golden one.

    Whole numbers must be equal unless `keys` names the key they stand under; a number with a
    fraction may differ by `absolute` or by `relative` of the golden one, whichever is more.

    Attributes:
        absolute, relative: of numbers with a fraction, in texts too.
        keys: the absolute tolerance of every number under a key, e.g. of boxes in pixels.
    """

    absolute: float = 1e-3
    relative: float = 1e-3
    keys: Mapping[str, float] = field(default_factory=dict)


def differences(golden: Any, now: Any, tolerance: Tolerance, place: str = "") -> list[str]:
    """Return a line for each place where `now` is not as `golden` says; none if all is the same."""
    if golden == ANY or (now == ANY and isinstance(golden, str)):
        return []
    if golden == NUMBER and _is_number(now) and math.isfinite(now):
        return []
    if isinstance(golden, dict) and isinstance(now, dict):
        return _in_objects(golden, now, tolerance, place)
    if isinstance(golden, list) and isinstance(now, list):
        return _in_lists(golden, now, tolerance, place)
    if _is_number(golden) and _is_number(now):
        same = _near(golden, now, tolerance, _limit(place, tolerance))
    elif isinstance(golden, str) and isinstance(now, str):
        same = _same_text(golden, now, tolerance)
    else:
        same = type(golden) is type(now) and golden == now
    return [] if same else [f"{place or '.'}: {_short(golden)} was, {_short(now)} is"]


def to_text(content: Any) -> str:
    """Write plain data as JSON; what fits on a line of 280 characters stands on one line."""
    return _pretty(content, 0) + "\n"


def _in_objects(
    golden: dict[str, Any], now: dict[str, Any], tolerance: Tolerance, place: str
) -> list[str]:
    found = [f"{place}/{key}: is missing" for key in golden if key not in now]
    found += [f"{place}/{key}: is new: {_short(now[key])}" for key in now if key not in golden]
    for key, value in golden.items():
        if key in now:
            found += differences(value, now[key], tolerance, f"{place}/{key}")
    return found


def _in_lists(golden: list[Any], now: list[Any], tolerance: Tolerance, place: str) -> list[str]:
    if len(golden) != len(now):
        line = f"{place or '.'}: {len(golden)} items were, {len(now)} are"
        at = next(
            (i for i, (a, b) in enumerate(zip(golden, now, strict=False))
             if differences(a, b, tolerance, place)),
            min(len(golden), len(now)),
        )  # fmt: skip
        first = [_short(items[at]) if at < len(items) else "nothing" for items in (golden, now)]
        return [f"{line}; first at [{at}]: {first[0]} was, {first[1]} is"]
    return [
        line
        for i, (a, b) in enumerate(zip(golden, now, strict=True))
        for line in differences(a, b, tolerance, f"{place}[{i}]")
    ]


def _limit(place: str, tolerance: Tolerance) -> float | None:
    for key in reversed(place.split("/")):
        if (limit := tolerance.keys.get(key.partition("[")[0])) is not None:
            return limit
    return None


def _near(golden: float, now: float, tolerance: Tolerance, limit: float | None) -> bool:
    if golden == now:
        return True
    if limit is not None:
        return abs(golden - now) <= limit
    if isinstance(golden, int) and isinstance(now, int):
        return False
    return abs(golden - now) <= max(tolerance.absolute, tolerance.relative * abs(golden))


def _same_text(golden: str, now: str, tolerance: Tolerance) -> bool:
    if golden == now:
        return True
    parts, others = _NUMBER.split(golden), _NUMBER.split(now)
    if len(parts) != len(others) or parts[::2] != others[::2]:
        return False
    return all(
        _near(_value(a), _value(b), tolerance, None)
        for a, b in zip(parts[1::2], others[1::2], strict=True)
    )


def _value(text: str) -> float:
    return int(text) if text.isdigit() else float(text)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 160 else text[:157] + "..."


def _pretty(value: Any, depth: int) -> str:
    line = json.dumps(value, ensure_ascii=False)
    if not isinstance(value, dict | list) or not value or len(line) + depth <= _WIDTH:
        return line
    pad = " " * (depth + 1)
    if isinstance(value, dict):
        rows = [
            f"{pad}{json.dumps(k, ensure_ascii=False)}: {_pretty(v, depth + 1)}"
            for k, v in value.items()
        ]
        return "{\n" + ",\n".join(rows) + "\n" + " " * depth + "}"
    rows = [pad + _pretty(v, depth + 1) for v in value]
    return "[\n" + ",\n".join(rows) + "\n" + " " * depth + "]"
