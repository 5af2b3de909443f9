"""Write a bundle with added classes: everything else is its parent's.

The networks stay, to the last bit; the classifier's graph gets rows of weights at its end, the
manifest the classes, and the exemplars the descriptions of the cells that were learnt from.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bloodfilm.core.files import write_text
from bloodfilm.core.taxonomy import Taxonomy
from bloodfilm.export.card import CARD, model_card
from bloodfilm.export.class_graph import ClassRows, check_rows, with_rows
from bloodfilm.export.exemplars import EXEMPLARS_FILE, Exemplars
from bloodfilm.inference.bundle import Bundle, load_bundle
from bloodfilm.inference.manifest import Manifest

REPORT = "learning.json"


@dataclass(frozen=True)
class AddedClasses:
    """The classes that are added to a bundle.

    Attributes:
        taxonomy: with the new classes.
        leaves: the classes, in the order of the new graph.
        rows: of weights.
        means: by new class, the mean description of its cells.
        exemplars: of the new bundle.
        least: by new class, the probability from which a cell may be of it, for a bundle with class
            sets.
        priors: by new class, the factor on its odds, where it is not 1.
    """

    taxonomy: Taxonomy
    leaves: tuple[str, ...]
    rows: ClassRows
    means: Mapping[str, NDArray[np.float64]]
    exemplars: Exemplars
    least: Mapping[str, float]
    priors: Mapping[str, float]


@dataclass(frozen=True)
class Title:
    """What the new bundle is called, and the licence of its weights."""

    name: str
    licence: str


def manifest_with_classes(parent: Manifest, added: AddedClasses, title: Title) -> Manifest:
    """Return the manifest of a bundle with further classes, before its files are known."""
    data = parent.to_json()
    data["name"], data["licence"] = title.name, title.licence
    data["created"] = datetime.now(UTC).isoformat(timespec="seconds")
    data["taxonomy"] = added.taxonomy.to_json()
    data["leaves"] = list(added.leaves)
    absent = [name for name in parent.untrained.classes if name not in added.rows.new]
    data["untrained"] = {**data["untrained"], "classes": absent}
    if parent.classifier.conformal is not None:
        sets = data["classifier"]["conformal"]
        sets["least"] = {**sets["least"], **added.least}
    if added.priors:
        priors = {**parent.training.get("priors", {}), **added.priors}
        data["training"] = {**data["training"], "priors": priors}
    return Manifest.model_validate(data)


def write_with_classes(
    parent: Bundle,
    added: AddedClasses,
    title: Title,
    out: Path,
    record: Mapping[str, Any],
    probes: NDArray[np.uint8],
    expected: NDArray[np.float64],
) -> Manifest:
    """Write the bundle, after proving that its graph gives what was fitted.

    Args:
        parent: the bundle that gets them.
        added: the classes.
        title: what the new bundle is called.
        out: the folder, which must be there.
        record: of how they were learnt, for manifest and card.
        probes: (n, S, S, 3) crops as the classifier sees them.
        expected: (n, leaves) the class probabilities of the probes.

    Raises:
        BundleError: if the graph does not; nothing is written then.
    """
    spec = parent.manifest.classifier
    graph = with_rows(parent, added.leaves, added.rows, added.means)
    manifest = manifest_with_classes(parent.manifest, added, title)
    stored = added.exemplars.to_bytes()
    data = manifest.to_json()
    data["exemplars"] = added.exemplars.spec(stored).model_dump(mode="json")
    data["training"] = {
        **data["training"],
        "learnt": [*data["training"].get("learnt", []), dict(record)],
    }
    manifest = Manifest.model_validate(data)
    files = {
        name: (parent.path / name).read_bytes() for name in manifest.files if name != EXEMPLARS_FILE
    }
    files |= {spec.file: graph, EXEMPLARS_FILE: stored}
    check_rows(graph, parent, manifest, probes, expected)
    manifest.write(out, files)
    write_text(out / CARD, model_card(load_bundle(out).manifest, added_class_notes(record)))
    return manifest


def added_class_notes(record: Mapping[str, Any]) -> str:
    """Return what a model card says of the classes that were added to a bundle."""
    classes = record["classes"]
    rows = [
        f"| {name} | {c['under']} | {c['cells']} | {c['groups'] or 'not known'} | "
        f"{_share(c['recall'])} | {_share(c['named'])} | {_share(c['false'])} |"
        for name, c in classes.items()
    ]
    known = record["known"]
    parent = record["parent"]
    held = "whole patients held out" if record["by_group"] else "cells of the same films held out"
    lines = [
        "## Classes added",
        f"Added to {parent['name']} ({parent['sha256'][:12]}, {parent['licence']}) from "
        f"{record['cells']['source']} ({record['cells']['licence']}), by cross-validation "
        f"({held}); figures above are the parent's.",
        "| class | under | cells | patients | recall | named so | other cells called so |\n"
        "|---|---|---|---|---|---|---|\n" + "\n".join(rows),
        "Recall: most probable; named so: sure enough to be named; other cells: of the known "
        "classes, all counting alike.",
        f"Balanced accuracy on {known['cells']} described cells of what was known: "
        f"{known['before']:.4f} before, {known['after']:.4f} after.",
    ]
    lines += [f"- {warning}" for warning in record["warnings"]]
    return "\n\n".join(lines)


def _share(value: float) -> str:
    return f"{value:.3f}"


def new_leaves(parent: Manifest, taxonomy: Taxonomy) -> tuple[str, ...]:
    """Return the classes of a bundle with further nodes in its tree, in the order of a classifier.

    First those of the classified type, then those of other objects, each in the order of the tree.
    """
    cells = taxonomy.leaves_under(parent.roles.classified)
    tops = other_tops(parent)
    others = [n for n in taxonomy.leaves if any(taxonomy.is_under(n, top) for top in tops)]
    return (*cells, *(n for n in others if n not in cells))


def other_tops(parent: Manifest) -> Sequence[str]:
    """Return the highest nodes below which the classifier names every leaf, and no cell."""
    tree, root = parent.taxonomy, parent.roles.classified
    whole = [
        name
        for name in tree.names
        if not tree.is_under(root, name)
        and not tree.is_under(name, root)
        and set(tree.leaves_under(name)) <= set(parent.leaves)
    ]
    return [name for name in whole if tree.parent(name) not in whole]
