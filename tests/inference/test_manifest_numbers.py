"""Every number of a manifest has a range; what is beyond it is refused by its key, in one line."""

import json
import typing
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel

from bloodfilm.core.errors import BundleError
from bloodfilm.inference.bundle import default_bundle
from bloodfilm.inference.manifest import Manifest, Within, read_manifest

FREE = ("training", "metrics")
"""Plain data, kept as it is."""


def whole_manifest() -> dict[str, Any]:
    """The default bundle's manifest with every part that a manifest can have."""
    data = default_bundle().manifest.to_json()
    classifier = data["classifier"]
    classifier["diameters"] = {
        "attribute": "cell_size", "values": {"small": [9.0, 0.1], "large": [16.0, 0.1]}
    }  # fmt: skip
    classifier["conformal"] = {
        "coverage": 0.9, "least": {"monocyte": 0.1}, "cells": {"monocyte": 9}, "sites": ["a"]
    }  # fmt: skip
    classifier["colours"] = {"white": 240.0, "depth": 62.0, "chroma": 38.0, "nucleus": [3.0, -4.0]}
    data["films"] = {
        "features": ["hue"],
        "sites": {"a": [0.5]},
        "spread": [0.1],
        "limit": 3.0,
        "class_confidence": 0.95,
    }
    return data


def numbers(data: Any, keys: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the keys of every number of plain data; of equal entries of a list only the first."""
    if isinstance(data, dict):
        for key, value in data.items():
            if not (keys == () and key in FREE):
                yield from numbers(value, (*keys, key))
    elif isinstance(data, list):
        for index, value in enumerate(data[:2]):
            yield from numbers(value, (*keys, index))
    elif isinstance(data, int | float) and not isinstance(data, bool):
        yield keys


def with_value(data: dict[str, Any], keys: tuple[Any, ...], value: Any) -> bytes:
    part: Any = (copy := json.loads(json.dumps(data)))
    for key in keys[:-1]:
        part = part[key]
    part[keys[-1]] = value
    return json.dumps(copy).encode()


WHOLE = whole_manifest()
HOSTILE = [10**400, 10**15, -(10**15), float("inf"), float("nan"), True, "7", [], {}]


def test_the_manifest_with_every_part_is_read():
    assert read_manifest(json.dumps(WHOLE).encode(), "m").to_json() == WHOLE


@pytest.mark.parametrize(
    "keys", [k for k in numbers(WHOLE) if k != ("version",)], ids=lambda k: ".".join(map(str, k))
)
def test_a_number_beyond_its_range_is_refused_by_its_key(keys):
    for value in HOSTILE:
        with pytest.raises(BundleError) as refused:
            read_manifest(with_value(WHOLE, keys, value), "b/manifest.json")
        said = str(refused.value)
        assert said.startswith(f"b/manifest.json: {'.'.join(map(str, keys))}: "), said
        assert len(said) < 400 and len(said.splitlines()) == 1
        assert "number" in said


@pytest.mark.parametrize(
    ("keys", "value", "says"),
    [
        (("detector", "multiple"), 4_000_000, "4e+06, expected a number from 1 to 1024"),
        (("detector", "stride"), 2**31, "2.14748e+09, expected a number from 1 to 256"),
        (("detector", "tile"), 10**9, "1e+09, expected a number from 32 to 8192"),
        (("detector", "um_per_px"), 1e-6, "1e-06, expected a number from 0.005 to 10"),
        (("classifier", "temperatures", "class"), 1e-320, "expected a number from 0.001 to 1000"),
        (("classifier", "um_per_px"), 1e300, "1e+300, expected a number from 0.005 to 10"),
        (("classifier", "size"), 128.5, "128.5, expected a whole number"),
    ],
)
def test_key_value_and_range_are_told(keys, value, says):
    with pytest.raises(BundleError) as refused:
        read_manifest(with_value(WHOLE, keys, value), "m")
    assert str(refused.value).startswith(f"m: {'.'.join(keys)}: ") and says in str(refused.value)


@pytest.mark.parametrize(("tile", "overlap"), [(32, 15), (1024, 511), (320, 121)])
def test_tiles_that_show_every_pixel_over_and_over_are_refused(tile, overlap):
    data = {**WHOLE, "detector": {**WHOLE["detector"], "tile": tile, "overlap": overlap}}
    with pytest.raises(BundleError, match="detector: tile must be longer than two overlaps"):
        read_manifest(json.dumps(data).encode(), "m")


def ranges(kind: Any) -> Iterator[tuple[str, list[Any]]]:
    """Yield every number in an annotation, with what marks it."""
    arguments = typing.get_args(kind)
    if typing.get_origin(kind) is typing.Annotated and arguments[0] in (int, float):
        yield str(kind), list(arguments[1:])
    elif kind in (int, float):
        yield str(kind), []
    elif isinstance(kind, type) and issubclass(kind, BaseModel):
        for name, hint in typing.get_type_hints(kind, include_extras=True).items():
            for found, marks in ranges(hint):
                yield f"{kind.__name__}.{name}: {found}", marks
    else:
        for argument in arguments:
            yield from ranges(argument)


def test_no_number_is_without_a_range():
    found = [
        (name, marks) for name, marks in ranges(Manifest) if not name.startswith("Manifest.version")
    ]
    assert len(found) > 30
    assert [name for name, marks in found if not any(isinstance(m, Within) for m in marks)] == []


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.update(name="x" * 10_000_000),
        lambda m: m.update({"y" * 100_000: 1}),
        lambda m: m.update(version="9" * 4000),
        lambda m: m["leaves"].append("z" * 100_000),
        lambda m: m["classifier"]["temperatures"].update({"t" * 100_000: -1}),
        lambda m: m["untrained"].update(attributes=["a" * 100_000]),
        lambda m: m.update(taxonomy=[{"name": "n" * 100_000, "parent": "p" * 100_000}]),
        lambda m: m["metrics"].update(much="m" * (17 << 20)),
    ],
)
def test_no_message_repeats_a_manifest_at_length(change):
    data = json.loads(json.dumps(WHOLE))
    change(data)
    with pytest.raises(BundleError) as refused:
        read_manifest(json.dumps(data).encode(), "m")
    assert len(str(refused.value)) < 500 and len(str(refused.value).splitlines()) == 1
