"""Run the command line and turn what it writes into plain data that has no times and no paths.

What the golden tests know of the code's insides is imported here and nowhere else: a helper of the
tests that draws discs and writes the bundle that knows them.
"""

import io
import json
import os
import re
import runpy
import sys
from collections.abc import Sequence
from contextlib import chdir, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any
from unittest.mock import patch

from fake_bundle import draw, lay_out, save, write_bundle

OLD = Path(__file__).parent / "old_versions"

# What differs from run to run or names one build: never part of a golden record.
DROPPED = frozenset(
    {
        "bundle_sha256", "created", "detector_sha256", "program", "classifier_sha256",
        "reader_sha256", "seconds", "seconds_by_stage", "sha256",
    }
)  # fmt: skip

_ENVIRONMENT = {"COLUMNS": "120", "BLOODFILM_DATA": "", "BLOODFILM_DEBUG": "", "NO_COLOR": "1"}
_VERSION = re.compile(r"\bbloodfilm \d+\.\d+[.\w]*")
_TIME = re.compile(r"\b\d{1,2} [A-Z][a-z]+ 20\d\d, \d\d:\d\d")
_SECONDS = re.compile(r"\bin \d+\.\d s\b")


@dataclass(frozen=True)
class Done:
    """What a command left: its exit code and what it printed."""

    code: int
    out: str
    err: str


def run(folder: Path, *words: object) -> Done:
    """Run `bloodfilm WORDS` in `folder`, in this process, and return what came of it."""
    out, err = io.StringIO(), io.StringIO()
    arguments = ["bloodfilm", *map(str, words)]
    environment = {k: v for k, v in (os.environ | _ENVIRONMENT).items() if v}
    with (
        chdir(folder),
        patch.object(sys, "argv", arguments),
        patch.dict(os.environ, environment, clear=True),
        redirect_stdout(out),
        redirect_stderr(err),
    ):
        try:
            runpy.run_module("bloodfilm", run_name="__main__", alter_sys=False)
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1 if end.code else 0
    return Done(code, out.getvalue(), err.getvalue())


def succeed(folder: Path, *words: object, code: int = 0) -> str:
    """Run a command that must end with `code`; return what it printed."""
    done = run(folder, *words)
    if done.code != code:
        command = " ".join(map(str, words))
        raise AssertionError(f"bloodfilm {command}: exit {done.code}\n{done.out}\n{done.err}")
    return done.out


# ---- plain data ------------------------------------------------------------------------------


def plain(content: Any, folder: Path | None = None) -> Any:
    """Return data without the keys in `DROPPED`, texts without times, versions and `folder`."""
    if isinstance(content, dict):
        return {k: plain(v, folder) for k, v in content.items() if k not in DROPPED}
    if isinstance(content, list):
        return [plain(v, folder) for v in content]
    return plain_text(content, folder) if isinstance(content, str) else content


def plain_text(text: str, folder: Path | None = None) -> str:
    """Return a text without what differs from run to run."""
    if folder is not None:
        name = folder.resolve().as_posix()
        text = text.replace(name, "<folder>").replace(name.lstrip("/"), "<folder>")
    text = _SECONDS.sub("in <seconds>", _TIME.sub("<time>", text))
    return _VERSION.sub("bloodfilm <version>", text)


def lines(text: str, folder: Path | None = None) -> list[str]:
    """Return a text as lines without what differs from run to run."""
    return [plain_text(line.rstrip(), folder) for line in text.splitlines()]


def read_json(path: Path) -> Any:
    """Read a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def json_of(path: Path, folder: Path | None = None) -> Any:
    """Read a JSON file as plain data."""
    return plain(read_json(path), folder)


def tree(root: Path, folder: Path | None = None, skip: Sequence[str] = ()) -> dict[str, Any]:
    """Return every file below `root`: JSON as data, text as lines, others only by name."""
    content: dict[str, Any] = {}
    for path in sorted(root.rglob("*"), key=lambda p: p.relative_to(root).as_posix()):
        name = path.relative_to(root).as_posix()
        if path.is_symlink():
            content[name] = "<link>"
        elif path.is_file() and path.suffix not in skip:
            content[name] = _file(path, folder)
    return content


def _file(path: Path, folder: Path | None) -> Any:
    data = path.read_bytes()
    if b"\0" in data:
        return "<binary>"
    text = data.decode("utf-8")
    if path.name.startswith("annotations."):  # the vocabulary, at length
        text = re.sub(
            r"<meta>.*?</meta>", lambda m: f"<meta>{digest(m[0])}</meta>", text, flags=re.S
        )
    if path.name in ("annotations.labels.json", "label-studio.config.xml"):
        return digest(text)
    if path.suffix in (".json", ".geojson"):
        return plain(json.loads(text), folder)
    if path.suffix == ".jsonl":
        return [plain(json.loads(line), folder) for line in text.splitlines()]
    return lines(text, folder)


def digest(text: str) -> str:
    """Return how many lines a long text has, and its sum."""
    return f"{len(text.splitlines())} lines, sha256 {sha256(text.encode()).hexdigest()}"


def page(path: Path) -> list[str]:
    """Return a report's lines; images, styles and programs are dropped, embedded data is kept."""
    text = path.read_text(encoding="utf-8")
    text = re.sub(r"data:[\w/+.-]+;base64,[A-Za-z0-9+/=]+", "<image>", text)
    text = re.sub(r"<style>.*?</style>", "<style>", text, flags=re.DOTALL)
    text = re.sub(r"<script>.*?</script>", "<script>", text, flags=re.DOTALL)
    text = re.sub(r"'sha256-[\w+/=]+'", "'<hash>'", text)
    text = re.sub(r'<time datetime="[^"]*">', "<time>", text)
    text = re.sub(r"made \d{4}-\d\d-\d\d, [0-9a-f]+", "made <day>, <hash>", text)
    text = re.sub(r"\b[0-9a-f]{64}\b", "<hash>", text)
    text = re.sub(r'"[A-Za-z0-9+/]{40,}={0,2}"', '"<image>"', text)
    return [line for line in lines(text) if line]


# ---- drawn discs -----------------------------------------------------------------------------

DISC_UM = (160.0, 120.0)
DISC_FIELDS = {
    "a.png": (
        (40.0, 36.0, "lymphocyte"),
        (110.0, 40.0, "band neutrophil"),
        (70.0, 88.0, "monocyte"),
    ),
    "b.png": ((36.0, 80.0, "eosinophil"), (84.0, 36.0, "monoblast"), (124.0, 84.0, "basophil")),
    "c.png": (),
}
"""Fields of discs on glass, 640 x 480 px at 0.25 um: nucleated cells (x, y in um, class)."""


def draw_discs(folder: Path) -> Path:
    """Draw the fields of discs into `folder`; return it."""
    size = (round(DISC_UM[0] * 4), round(DISC_UM[1] * 4))
    for name, places in DISC_FIELDS.items():
        save(folder / name, draw(lay_out(*DISC_UM, places), size))
    return folder


def disc_bundle(folder: Path) -> Path:
    """Write the bundle that knows discs, as the program of today wants it; return its folder."""
    return write_bundle(folder)


def write_training_set(folder: Path) -> Path:
    """Write six small fields of discs as a data set, three of them to validate on."""
    names = ("lymphocyte", "monocyte", "basophil")
    header = read_json(OLD / "v1" / "dataset.json")
    rows = []
    for number in range(6):
        split = "train" if number < 3 else "val"
        places = [
            (18.0 + 3 * (number % 4), 26.0, names[number % 3]),
            (52.0, 18.0 + 4 * (number % 3), names[(number + 1) % 3]),
        ]
        discs = lay_out(70.0, 52.0, places, step=13.0, keep_away=13.0)
        save(folder / f"{number}.png", draw(discs, (280, 208)))
        cells: list[dict[str, Any]] = []
        for i, disc in enumerate(discs):
            corner = [4 * (v - disc.diameter / 2) for v in (disc.x, disc.y)]
            cell = {"box": [*corner, 4 * disc.diameter, 4 * disc.diameter], "class": "red cell"}
            if i < 2:
                size = "large" if places[i][2] == "monocyte" else "small"
                answers = {"cell_size": size, "nucleolus": "prominent"}
                cell |= {"class": places[i][2], "attributes": answers}
            cells.append(cell)
        domain = {"um_per_px": 0.25, "squeeze": 1.0}
        row = {"image": f"{number}.png", "width": 280, "height": 208, "domain": domain}
        rows.append(row | {"patient": f"p{number}", "split": split, "cells": cells})
    file = folder / "dataset.json"
    file.write_text(json.dumps(header | {"name": "small discs", "fields": rows}), encoding="utf-8")
    return file
