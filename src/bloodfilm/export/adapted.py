"""Write an adapted classifier as a bundle: everything else is its parent's."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bloodfilm.core.errors import BundleError
from bloodfilm.core.files import write_text
from bloodfilm.core.text import plural
from bloodfilm.export.card import CARD, model_card
from bloodfilm.export.class_graph import ClassRows, check_rows, with_rows
from bloodfilm.export.onnx_graphs import ClassifierGraph, classifier_onnx
from bloodfilm.export.parity import crop_parity
from bloodfilm.export.quantize import quantize_bundle
from bloodfilm.inference.bundle import Bundle, load_bundle
from bloodfilm.inference.checksums import SUMS
from bloodfilm.inference.manifest import MANIFEST, Manifest
from bloodfilm.models.classifier import CellClassifierNet
from bloodfilm.training.marked_correction import ClassCorrection
from bloodfilm.training.tasks.classifier import predict_images

FAR = 1e3
"""A prototype whose values are this large is of a class never trained."""


@dataclass(frozen=True)
class WrittenBundle:
    """What was written.

    Attributes:
        parity: largest differences between torch and ONNX Runtime, and agreement of eight bits.
        eight_bit: whether the classifier is in eight bits.
    """

    parity: Mapping[str, float]
    eight_bit: bool


def write_adapted(
    parent: Bundle,
    original: CellClassifierNet,
    model: CellClassifierNet,
    probes: NDArray[np.uint8],
    out: Path,
    record: Mapping[str, Any],
    *,
    eight_bit: bool,
) -> WrittenBundle:
    """Write a bundle with another classifier and the parent's detector, thresholds and licence.

    The prototypes of the classes move with the descriptions of the probes, and the novelty
    threshold is set so that as many of these are unfamiliar as before. Where the eight-bit form
    disagrees with the float one, the float one is written.

    Args:
        parent: the bundle that was adapted.
        original, model: its classifier, before and after.
        probes: (n, S, S, 3) crops of the new microscope.
        out: the folder, which must be there.
        record: of the adaptation, for the manifest.
        eight_bit: store the classifier in eight bits.

    Raises:
        BundleError: if torch and ONNX Runtime differ.
    """
    threshold = _move_prototypes(parent.manifest, original, model, probes)
    graph = ClassifierGraph(model, parent.manifest.classifier.verifies)
    onnx = classifier_onnx(graph, torch.from_numpy(probes[:2]))
    parity: dict[str, float] = crop_parity(graph, onnx, probes, parent.manifest.classifier.file)
    # What names cells by their film was fitted to the parent's descriptions.
    named_alone = parent.manifest.with_film_offset(None)
    manifest = adapted_manifest(named_alone, threshold, record, parity)
    files = [spec.file for spec in manifest.graphs.values()]
    graphs = {name: (parent.path / name).read_bytes() for name in files}
    graphs[manifest.classifier.file] = onnx
    manifest.write(out, graphs)
    stored = False
    if eight_bit:
        try:
            parity |= quantize_bundle(out, None, list(probes))
            stored = True
        except BundleError:
            pass  # the float bundle is whole
    write_text(out / CARD, model_card(load_bundle(out).manifest, _notes(record)))
    return WrittenBundle(parity, stored)


def write_corrected(
    parent: Bundle,
    correction: ClassCorrection,
    out: Path,
    record: Mapping[str, Any],
    probes: NDArray[np.uint8],
    expected: NDArray[np.float64],
) -> None:
    """Write a bundle whose class logits are corrected; its networks stay, and so do exemplars.

    Args:
        parent: the bundle that was adapted.
        correction: of its classes.
        out: the folder, which must be there.
        record: of the adaptation, for the manifest.
        probes: (n, S, S, 3) crops of the new microscope.
        expected: (n, leaves) their class probabilities with the correction.

    Raises:
        BundleError: if the graph does not give them; nothing is written then.
    """
    m = parent.manifest
    rows = zip(m.leaves, correction.weight, correction.bias, strict=True)
    corrected = {leaf: (weight, float(bias)) for leaf, weight, bias in rows if weight.any()}
    graph = with_rows(parent, m.leaves, ClassRows({}, corrected), {})
    manifest = m.adapted(m.classifier.novelty_threshold).with_training(adaptation=dict(record))
    check_rows(graph, parent, manifest, probes, expected)
    files = {name: (parent.path / name).read_bytes() for name in manifest.files}
    manifest.write(out, files | {m.classifier.file: graph})
    write_text(out / CARD, model_card(load_bundle(out).manifest, _notes(record)))


def copy_bundle(parent: Bundle, out: Path) -> None:
    """Copy a bundle's own files, byte for byte, into a folder that is there."""
    m = parent.manifest
    for name in (*m.files, SUMS, CARD, MANIFEST):
        if (parent.path / name).is_file():
            shutil.copyfile(parent.path / name, out / name)
    load_bundle(out)


def _move_prototypes(
    manifest: Manifest,
    original: CellClassifierNet,
    model: CellClassifierNet,
    probes: NDArray[np.uint8],
) -> float | None:
    """Move the class prototypes with the descriptions; return the novelty threshold."""
    cpu = torch.device("cpu")
    before = torch.from_numpy(predict_images(original, probes, cpu)["description"])
    after = torch.from_numpy(predict_images(model, probes, cpu)["description"])
    with torch.no_grad():
        prototypes = model.get_buffer("prototypes")
        prototypes.copy_(original.get_buffer("prototypes"))
        learnt = prototypes.abs().amax(1) < FAR
        prototypes[learnt] += (after - before).mean(0)
        limit = manifest.classifier.novelty_threshold
        if limit is None:
            return None
        share = float((original.novelty(before) <= limit).float().mean())
        return float(torch.quantile(model.novelty(after), share))


def adapted_manifest(
    parent: Manifest,
    threshold: float | None,
    record: Mapping[str, Any],
    parity: Mapping[str, float],
) -> Manifest:
    """Return the manifest of an adapted bundle.

    Args:
        parent: of the original.
        threshold: of novelty.
        record: of the adaptation.
        parity: largest differences between torch and ONNX Runtime.
    """
    figures = {k: float(f"{v:.3g}") for k, v in parity.items()}
    # Exemplars describe cells as the parent's classifier saw them.
    adapted = parent.adapted(threshold).with_exemplars(None)
    return adapted.with_training(adaptation=dict(record)).with_figures(parity=figures)


def _notes(record: Mapping[str, Any]) -> str:
    """Return what a model card says of an adaptation: what was judged, and by how many cells."""
    target, marked = record["target"], record["labelled"]
    parts = [
        "## Adaptation",
        f"Adapted from {record['parent']['name']} ({record['parent']['sha256'][:12]}) to "
        f"{target['fields']} fields of another microscope, {target['cells']} cells, by "
        f"{record['method']}. Figures above are the parent's.",
    ]
    if marked is None:
        parts.append("No figure below proves that names are right: annotate a few fields.")
    else:
        parts.append(
            f"A person named {plural(marked['cells'], 'cell')} of "
            f"{plural(marked['fields'], 'field')} ({marked['name']}, {marked['licence']}); no "
            "change is judged by cells that it was fitted on."
        )
    return "\n\n".join([*parts, *map(_candidate_note, record["candidates"])]) + "\n"


def _candidate_note(candidate: Mapping[str, Any]) -> str:
    """Return the figures of one candidate as a table, and why it was not returned."""
    rows = []
    if (marked := candidate["marked"]) is not None:
        n = marked["cells"]
        rows.append(f"| marked cells named rightly | {n} | {_pair(marked['right'])} |")
        rows.append(f"| balanced accuracy on marked cells | {n} | {_pair(marked['accuracy'])} |")
    if (figures := candidate["unlabelled"]) is not None:
        before, after = figures["before"], figures["after"]
        rows += [
            f"| {name}, without labels | {after['cells']} | {_pair((before[name], after[name]))} |"
            for name in after
            if name != "cells"
        ]
    rows += [
        f"| balanced accuracy on {c['name']} | | {_pair((c['before'], c['after']))} |"
        for c in candidate["checks"]
    ]
    table = "\n".join(["| | cells | before | after |", "|---|---|---|---|", *rows])
    title = f"### {candidate['name']}: " + ("this bundle" if candidate["returned"] else "not taken")
    whys = list(candidate["reasons"])
    if candidate["returned"] and candidate["unjudged"]:
        whys.append(
            f"No labelled cell says whether it still names {', '.join(candidate['unjudged'])}."
        )
    why = "\n".join(f"- {reason}" for reason in whys)
    return "\n\n".join([title, *([table] if rows else []), *([why] if why else [])])


def _pair(values: Sequence[float | int | None]) -> str:
    return " | ".join("–" if value is None else str(value) for value in values)
