"""Drawn data sets and tiny configurations, so that training is tested in seconds."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from bloodfilm.core import Cell, Dataset, Domain, Field
from bloodfilm.core.progress import NoProgress
from bloodfilm.formats import save_dataset
from bloodfilm.training.config import AugmentSection, Config, parse_config
from bloodfilm.training.run_data import RunData
from bloodfilm.training.vocabulary import DEFAULT_VOCABULARY
from fake_bundle import box_of, dark, draw, lay_out, save

torch.set_num_threads(1)

BACKBONE = "lcnet_035"
VOCABULARY = DEFAULT_VOCABULARY
OBJECT_TYPES, STAINS = VOCABULARY.object_types, (0, 1)
RUN = RunData(VOCABULARY)
LEAVES = ("lymphocyte", "monocyte", "basophil")
COLOURS = {leaf: dark(leaf) for leaf in LEAVES}
STILL = AugmentSection(**dict.fromkeys(AugmentSection.model_fields, 0))
"""Pixels as they are, but for one of the square's eight symmetries."""
WIDTH_UM, HEIGHT_UM = 70.0, 52.0


def a_field(path: Path, number: int, split: str, label: str = "") -> Field:
    """Draw one field of 280 x 208 px at 0.25 um: two nucleated cells among red ones."""
    leaves = [LEAVES[number % 3], LEAVES[(number + 1) % 3]]
    places = [
        (18.0 + 3 * (number % 4), 26.0, leaves[0]),
        (52.0, 18.0 + 4 * (number % 3), leaves[1]),
    ]
    discs = lay_out(WIDTH_UM, HEIGHT_UM, places, step=13.0, keep_away=13.0)
    size = (round(WIDTH_UM * 4), round(HEIGHT_UM * 4))
    image = draw(discs, size)
    if split != "train":  # a file that is on both sides is a leak
        image[0, 0] ^= 1
    save(path, image)
    names = [label or leaf for leaf in leaves] + ["red cell"] * (len(discs) - 2)
    answers = [
        {"cell_size": ("small", "large")[leaf == "monocyte"], "nucleolus": "prominent"}
        for leaf in leaves
    ]
    cells = tuple(
        Cell(tuple(float(v) for v in box_of(d)), name, answers[i] if i < 2 else {})
        for i, (d, name) in enumerate(zip(discs, names, strict=True))
    )
    return Field(
        path,
        *size,
        cells=cells,
        domain=Domain(um_per_px=0.25, pixel_aspect_ratio=1.0),
        patient=f"{split}{number}",
        split=split,
    )


def write_set(root: Path, train: int = 4, val: int = 3) -> Path:
    """Write a data set in the native format; returns its folder."""
    fields = [a_field(root / f"t{i}.png", i, "train") for i in range(train)]
    fields += [a_field(root / f"v{i}.png", i + 1, "val") for i in range(val)]
    save_dataset(Dataset("discs", tuple(fields), licence="CC0-1.0"), root, "bloodfilm")
    return root


def config(task: str, **sections: dict[str, Any]) -> dict[str, Any]:
    """Return the data of a tiny configuration; `sections` change parts of it."""
    whole: dict[str, dict[str, Any]] = {
        "model": {"backbone": BACKBONE, "width": 16},
        "data": {
            "size": 128,
            "train": [{"path": "discs", "splits": ["train"]}],
            "validation": [{"path": "discs", "splits": ["val"]}],
        },
        "optim": {"epochs": 4, "batch": 4, "samples": 8, "precision": "fp32", "workers": 0},
        "augment": STILL.model_dump(),
    }
    for name, values in sections.items():
        whole.setdefault(name, {}).update(values)
    return {"task": task, "seed": 3, **whole}


def sparse_config(**sparse: object) -> Config:
    """Return a tiny configuration of task `sparse` with these keys of its section."""
    return parse_config(
        {
            "task": "sparse",
            "model": {"width": 16},
            "data": {"train": [{"path": "a"}], "validation": [{"path": "b"}], "size": 64},
            "optim": {"epochs": 2, "batch": 2, "samples": 4, "precision": "fp32", "workers": 0},
            "sparse": sparse,
        },
        "test",
    )


def to_toml(data: dict[str, Any]) -> str:
    """Write configuration data as TOML: tables of plain values and lists of tables."""
    lines = [f"{k} = {_value(v)}" for k, v in data.items() if not isinstance(v, dict)]
    for name, table in data.items():
        if isinstance(table, dict):
            lines.append(f"[{name}]")
            lines += [f"{k} = {_value(v)}" for k, v in table.items()]
    return "\n".join(lines) + "\n"


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{k} = {_value(v)}" for k, v in value.items()) + " }"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "[" + ", ".join(_value(v) for v in value) + "]"
    return json.dumps(value)


silent = NoProgress()
