"""What a data set's class names mean: the taxonomy, names that differ between sets, a user's map.

A name is looked up, in this order, in the map that the user gives, in the names that the set's
other classes show it to use, and in the taxonomy. A name that none of them knows stays what it is:
it is kept as the cell's `source_label`, written by every format under its own spelling, and listed.
"""

import json
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from bloodfilm.core import Cell, DataError, Dataset, Taxonomy
from bloodfilm.formats.shared.parsing import read_text

IGNORE_NAMES = frozenset({"none", "unidentified", "ignore", "ignored"})
UNNAMED_NAMES = frozenset({"unnamed", "unknown"})
Meaning = tuple[str | None, bool]
"""A node of the taxonomy or `None`, and whether the cell is to be ignored."""


@dataclass(frozen=True)
class SetNames:
    """Names that mean something in one family of data sets and something else elsewhere.

    Attributes:
        name: of the family.
        evidence: class names that only this family uses, folded; two of them show that a set is
            of it.
        meanings: class name, folded -> node of the taxonomy.
    """

    name: str
    evidence: frozenset[str]
    meanings: Mapping[str, str]


SET_NAMES = (
    SetNames(
        "Munich",  # AML-Cytomorphology_LMU, Bone-Marrow-Cytomorphology
        frozenset({"ebo", "ksc", "lyt", "mmz", "mob", "ngb", "ngs", "pmb", "pmo", "plm", "peb"}),
        {"myb": "myelocyte", "myo": "myeloblast", "fgc": "abnormal promyelocyte"},
    ),
)


def fold_name(spelling: str) -> str:
    """Return a class name as names are compared: without case, surrounding space, `_` and `-`."""
    return " ".join(spelling.replace("_", " ").replace("-", " ").casefold().split())


def set_meanings(spellings: Collection[str]) -> dict[str, str]:
    """Return what the names of a set mean by the company they keep: folded name -> node.

    >>> set_meanings(["NGS", "MMZ", "MYB"])["myb"]
    'myelocyte'
    >>> set_meanings(["NGS", "MYB"])
    {}
    """
    folded = {fold_name(spelling) for spelling in spellings}
    found: dict[str, str] = {}
    for family in SET_NAMES:
        if len(folded & family.evidence) > 1:
            found |= family.meanings
    return found


def meaning_of(spelling: str, taxonomy: Taxonomy, own: Mapping[str, str]) -> Meaning | None:
    """Return what a class name means; `None` if nobody knows it.

    Args:
        spelling: the set's own name.
        taxonomy: the tree of classes.
        own: the user's map: name -> a node, `ignore`, or `unnamed`; names are compared exactly
            first, then folded.
    """
    mapped = own.get(spelling)
    if mapped is None and own:
        folded = fold_name(spelling)
        mapped = next((to for name, to in own.items() if fold_name(name) == folded), None)
    if mapped is not None and mapped in taxonomy:
        return mapped, False
    name = spelling if mapped is None else mapped
    found = taxonomy.find(name)
    if found is not None:
        return found, False
    key = fold_name(name)
    if key in IGNORE_NAMES:
        return None, True
    return (None, False) if key in UNNAMED_NAMES or not key else None


def name_of(cell: Cell, ignore: str = "ignore", unnamed: str = "unnamed") -> str:
    """Return the class name that a format writes for a cell."""
    return cell.class_name or (ignore if cell.ignore else unnamed)


# ---- the user's map --------------------------------------------------------------------------


def read_class_map(path: Path, taxonomy: Taxonomy) -> dict[str, str]:
    """Read a map of class names, a TOML file: `[classes]`, then `"name in the set" = "node"`.

    `"ignore"` marks what is neither cell nor background, `"unnamed"` a cell of no known class; an
    empty value leaves a name as it is, unknown and under its own spelling.

    Raises:
        DataError: that names the line, or the name and the nodes there are.
    """
    try:
        content = tomllib.loads(read_text(path))
    except tomllib.TOMLDecodeError as error:
        raise DataError(f"{path}: not TOML ({error}); correct the line") from None
    table = content.get("classes")
    if not isinstance(table, dict) or not all(isinstance(v, str) for v in table.values()):
        raise DataError(f'{path}: needs a table [classes] of lines "name in the set" = "class"')
    found: dict[str, str] = {}
    for name, target in table.items():
        if not target:
            continue
        node = target if target in taxonomy else taxonomy.find(target)
        if node is None and fold_name(target) not in IGNORE_NAMES | UNNAMED_NAMES:
            raise DataError(
                f"{path}: {name!r}: no class {target!r}; classes: {', '.join(taxonomy.names)}, "
                "ignore, unnamed"
            )
        found[name] = target if node is None else node
    return found


def draft_class_map(dataset: Dataset) -> str:
    """Return the text of a map that lists every class name of a set that the taxonomy lacks."""
    counts: dict[str, int] = {}
    for item in dataset:
        for cell in item.cells:
            if cell.label is None and cell.source_label is not None:
                counts[cell.source_label] = counts.get(cell.source_label, 0) + 1
    lines = [
        f"# Class names of {dataset.name} that are not in the taxonomy. Give each its class, or",
        '# "ignore" (neither cell nor background) or "unnamed"; "" leaves it as it is.',
        f"# Classes: {', '.join(dataset.taxonomy.names)}",
        "",
        "[classes]",
    ]
    lines += [f'{json.dumps(name)} = ""  # {counts[name]} cells' for name in sorted(counts)]
    return "\n".join(line.replace("\n", " ") for line in lines) + "\n"
