"""A classifier's graph with what names cells by their film.

The graph gets an input more, the offset of a film, and two outputs: by how much each cell differs
from what its classes look like in training, of which the offset is the mean, and the class logits
of cells of a film with that offset (`CellClassifierNet.film_residual` and `film_classes`). All
other outputs are what they were, to the last bit.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bloodfilm.core.errors import BundleError
from bloodfilm.export.class_graph import (
    CLASSES,
    GraphExtension,
    description_tensor,
    float_tensor,
    parse_graph,
)
from bloodfilm.inference.bundle import load_bundle, open_session
from bloodfilm.inference.manifest import (
    FILM_CLASSES,
    FILM_OFFSET,
    FILM_RESIDUAL,
    FilmOffsetSpec,
)
from bloodfilm.models.classifier import NOT_NAMED, CellClassifierNet

LEAST_CELLS = 20
"""Cells of a film that its offset is worth following from; see docs/training.md."""
HIDDEN = -1e9
"""Added to a logit that has no probability."""
TINY = 1e-30
TOLERANCE = 1e-3
"""Largest difference of a probability between the graph and torch."""


def add_film_offset(folder: Path, model: CellClassifierNet, probes: NDArray[np.uint8]) -> float:
    """Let the classifier of a bundle name cells by their film.

    Args:
        folder: of the bundle, whose classifier is this network; changed.
        model: in evaluation mode, with all that was applied to it at export.
        probes: (n, S, S, 3) crops to compare graph and network on.

    Returns:
        the largest difference of a probability between torch and ONNX Runtime.

    Raises:
        BundleError: if they differ by more than rounding; the bundle is unchanged then.
    """
    bundle = load_bundle(folder)
    manifest = bundle.manifest
    place = folder / manifest.classifier.file
    graph = with_film_offset(place.read_bytes(), model, place)
    difference = _difference(graph, model, probes, place)
    spec = FilmOffsetSpec(size=model.size, least_cells=LEAST_CELLS)
    whole = manifest.with_film_offset(spec).with_figures(
        parity={"film": float(f"{difference:.3g}")}
    )
    whole.write(folder, {manifest.classifier.file: graph})
    return difference


def with_film_offset(graph: bytes, model: CellClassifierNet, place: Path) -> bytes:
    """Return a classifier's graph with the input and the outputs of a film's offset.

    Args:
        graph: ONNX bytes of this network.
        model: the network.
        place: of the graph, for messages.

    Raises:
        BundleError: if the graph was not exported by this program.
    """
    proto = parse_graph(graph, place)
    description = description_tensor(proto, place)
    nodes = GraphExtension(proto, description, "film")
    learnt, named, groups = (
        model.get_buffer(name).cpu().numpy()
        for name in ("film_learnt", "film_named", "film_groups")
    )
    means = model.get_buffer("film_means").cpu().numpy() * learnt[:, None]

    def head(of: str) -> str:
        hidden = _linear(nodes, of, model.class_head[0])
        # Written out: ONNX Runtime inlines HardSwish under the names of an eight-bit graph's own.
        gate = nodes.op("HardSigmoid", hidden, alpha=1 / 6, beta=0.5)
        return _linear(nodes, nodes.op("Mul", hidden, gate), model.class_head[2])

    def hide(logits: str, shown: NDArray[np.bool_]) -> str:
        return nodes.op(
            "Add", logits, nodes.constant(np.where(shown, 0, HIDDEN).astype(np.float32))
        )

    expected = nodes.op("Softmax", hide(head(description), learnt), axis=1)
    expected = nodes.op("MatMul", expected, nodes.constant(means.astype(np.float32)))
    nodes.op("Sub", description, expected, name=FILM_RESIDUAL)

    nodes.optional_input(FILM_OFFSET, np.zeros(model.size, np.float32))
    recentred = nodes.op("Sub", description, FILM_OFFSET)
    by_film = nodes.op("Add", head(recentred), _linear(nodes, recentred, model.film_correction))
    same_group = (groups[:, None] == groups) & named[:, None] & named
    together = nodes.constant(same_group.astype(np.float32))

    def log_of_group(logits: str) -> tuple[str, str]:
        own = nodes.op("LogSoftmax", hide(logits, named), axis=1)
        total = nodes.op("MatMul", nodes.op("Exp", own), together)
        floor = nodes.constant(np.float32(TINY))
        return own, nodes.op("Log", nodes.op("Max", total, floor))

    own, group_by_cell = log_of_group(CLASSES)
    _, group_by_film = log_of_group(by_film)
    moved = nodes.op("Add", own, nodes.op("Sub", group_by_film, group_by_cell))
    absent = nodes.constant(np.float32(NOT_NAMED))
    nodes.op("Where", nodes.constant(named), moved, absent, name=FILM_CLASSES)
    proto.graph.output.append(float_tensor(FILM_RESIDUAL, ["n", model.size]))
    proto.graph.output.append(float_tensor(FILM_CLASSES, ["n", len(named)]))
    return nodes.finish(len(named))


def _linear(nodes: GraphExtension, of: str, layer: nn.Module) -> str:
    assert isinstance(layer, nn.Linear)
    weight, bias = (v.detach().cpu().numpy() for v in (layer.weight, layer.bias))
    return nodes.op("Gemm", of, nodes.constant(weight), nodes.constant(bias), transB=1)


@torch.no_grad()
def _difference(
    graph: bytes, model: CellClassifierNet, probes: NDArray[np.uint8], place: Path
) -> float:
    """Return by how much the graph's answers to probes differ from the network's."""
    proto: Any = parse_graph(graph, place)
    name = description_tensor(proto, place)
    proto.graph.output.append(float_tensor(name, None))
    session = open_session(proto.SerializeToString(), place, "cpu", 1)
    wanted = [name, CLASSES, FILM_RESIDUAL, FILM_CLASSES]
    crops = {"crops": probes}
    description, classes, residual, _ = session.run(wanted, crops)
    offset = residual.mean(0)
    found = session.run([FILM_CLASSES], {**crops, FILM_OFFSET: offset})[0]
    cells = torch.from_numpy(description)
    pairs: list[tuple[NDArray[np.float32], Tensor]] = [
        (classes, model.class_head(cells) + model.class_correction(cells)),
        (found, model.film_classes(cells, torch.from_numpy(offset))),
    ]
    apart = [float((torch.from_numpy(a).softmax(1) - b.softmax(1)).abs().max()) for a, b in pairs]
    apart.append(float(np.abs(residual - model.film_residual(cells).numpy()).max()))
    if not max(apart) < TOLERANCE:
        raise BundleError(
            f"{place}: names cells by their film otherwise than the network (by "
            f"{max(apart):.3g}); please report it"
        )
    return max(apart)
