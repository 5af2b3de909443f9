"""Interpret the classifier's output: class at the deepest confident level, attributes, novelty."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bloodfilm.core.arrays import Floats, Pixels
from bloodfilm.core.attributes import Attribute, Schema
from bloodfilm.core.field import Box
from bloodfilm.core.results import AttributeResult, CellShape
from bloodfilm.core.taxonomy import BLAST, Taxonomy
from bloodfilm.imaging.canonical import CanonicalView
from bloodfilm.imaging.colour_normalisation import normalise
from bloodfilm.inference.film_offset import ONE_BY_ONE, FilmNaming, FilmOffset, Residuals
from bloodfilm.inference.graph_run import Outputs, batches, run_graph
from bloodfilm.inference.manifest import FILM_CLASSES, FILM_OFFSET, FILM_RESIDUAL, Manifest
from bloodfilm.inference.measured_attributes import measured_probabilities

EDGE_PX = 1.0
CLASSIFIER_BATCH = 8
"""Crops in one call of the graph: larger batches exceed the processor's cache (measured: 12 % more
time per crop)."""
LEAST_PROBABILITY = 1e-12
"""Averages of probabilities are given as logits no lower than that of this."""


@dataclass(frozen=True)
class CellClassification:
    """The classification of one cell; the fields are those of `CellResult`.

    Attributes:
        nucleated: the probability that it is a nucleated cell at all; `None` if the
            classifier has no verification head.
        residual: (size,) how it differs from what its classes look like in training; `None` if
            nobody asked.
    """

    label: str
    label_score: float
    probabilities: Mapping[str, float] = field(default_factory=dict)
    attributes: Mapping[str, AttributeResult] = field(default_factory=dict)
    novel: bool = False
    nucleated: float | None = None
    residual: Residuals | None = field(default=None, compare=False, repr=False)


def softmax(logits: ArrayLike, temperature: float = 1.0) -> Floats:
    """Probabilities along the last axis; a logit of minus infinity gets exactly 0."""
    x = np.asarray(logits, dtype=np.float64) / temperature
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return np.asarray(e / e.sum(axis=-1, keepdims=True))


def leaf_probabilities(
    logits: ArrayLike, learnt: Sequence[bool], temperature: float = 1.0
) -> Floats:
    """Calibrated probabilities (n, leaves) from logits; leaves never learnt get exactly 0.

    The same for the values of an attribute.
    """
    x = np.asarray(logits, dtype=np.float64)
    return softmax(np.where(np.asarray(learnt), x, -np.inf), temperature)


def kindred_masks(taxonomy: Taxonomy, leaves: Sequence[str], root: str) -> NDArray[np.bool_]:
    """Return which leaves belong together, (groups, leaves): classes, and groups of classes alone.

    A group is a node below or beside `root` that has nothing but classes under it.
    """
    known = set(leaves)
    nodes = [
        node
        for node in taxonomy.names
        if not taxonomy.is_under(root, node)
        and set(taxonomy.leaves_under(node)) <= known
        and not any(taxonomy.children(child) for child in taxonomy.children(node))
    ]
    masks = [taxonomy.leaf_mask(node, leaves) for node in nodes]
    return np.array(masks, dtype=bool).reshape(len(nodes), len(leaves))


def open_cells(probabilities: Floats, groups: NDArray[np.bool_], below: float) -> NDArray[np.intp]:
    """Return which cells (n, leaves) have no group of `kindred_masks` that reaches `below`.

    >>> groups = np.array([[True, True, False], [False, False, True]])
    >>> open_cells(np.array([[0.5, 0.4, 0.1], [0.5, 0.0, 0.5]]), groups, below=0.8)
    array([1])
    """
    return np.flatnonzero((probabilities @ groups.T).max(axis=1, initial=0.0) < below)


def averaged_logits(looks: ArrayLike, known: Sequence[bool]) -> Floats:
    """Return logits of the mean of the probabilities that several looks (k, ..., n) give.

    >>> softmax(averaged_logits([[0.0, np.log(3)], [0.0, 0.0]], [True, True])).round(3).tolist()
    [0.375, 0.625]
    """
    mean = leaf_probabilities(looks, known).mean(axis=0)
    return np.asarray(np.log(np.maximum(mean, LEAST_PROBABILITY)))


class CellClassifier:
    """Interprets the outputs of the classifier graph according to the manifest.

    Args:
        manifest: of the bundle.
        cautious: on a film far from all training films: class sets do not decide alone, but a name
            must reach the confidence for such films, too.

    Attributes:
        outputs: names of the graph outputs to compute, in the order that `read` expects.
        turns: by how many right angles cells are turned that are looked at again.
    """

    def __init__(self, manifest: Manifest, *, cautious: bool = False) -> None:
        manifest = manifest.cautious() if cautious else manifest
        self.taxonomy: Taxonomy = manifest.taxonomy
        self.schema: Schema = manifest.attributes
        self.root = manifest.roles.classified
        self.leaves = manifest.leaves
        self.spec = manifest.classifier
        conformal = self.spec.conformal
        self._floor = self.spec.class_confidence if cautious or conformal is None else 0.0
        self._least = (
            None
            if conformal is None
            else np.array([conformal.least.get(leaf, 2.0) for leaf in self.leaves])
        )
        self.untrained_attributes = frozenset(manifest.untrained.attributes)
        absent = manifest.untrained.values
        self._offered = {
            a.name: [v not in absent.get(a.name, ()) for v in a.values]
            for a in self.schema.attributes
        }
        self.turns = () if self.spec.look_again is None else self.spec.look_again.turns
        self.outputs = ["classes", "attributes", "novelty"]
        self.outputs += ["nucleated"] if self.spec.verifies else []
        self.learnt = [leaf in manifest.trained_leaves for leaf in self.leaves]
        nodes = [n for n in self.taxonomy.names if self._is_named(n)]
        self._masks = {n: np.array(self.taxonomy.leaf_mask(n, self.leaves)) for n in nodes}
        self._children = {
            n: tuple(c for c in self.taxonomy.children(n) if c in self._masks) for n in nodes
        }
        self._others = [n for n in nodes if self.taxonomy.parent(n) not in self._masks]
        self._others.remove(self.root)
        if BLAST in self.taxonomy:
            self._masks[BLAST] = np.array(self.taxonomy.leaf_mask(BLAST, self.leaves))
        kinds = [n for n in self.leaves if self.taxonomy.is_under(n, BLAST)]
        learnt = [n for n in kinds if n in manifest.trained_leaves]
        self._lone_blast = learnt[0] if len(learnt) == 1 < len(kinds) else None
        self._kindred = kindred_masks(self.taxonomy, self.leaves, self.root)

    def _is_named(self, node: str) -> bool:
        """Whether the classifier gives a name at or below a node, and none outside it."""
        if self.taxonomy.is_under(self.root, node):
            return node == self.root
        return set(self.taxonomy.leaves_under(node)) <= set(self.leaves)

    def crops(self, view: CanonicalView, image: Pixels, centres_xy: ArrayLike) -> Pixels:
        """Return crops (n, size, size, 3) for the graph at points (n, 2) of an image."""
        spec = self.spec
        standard = spec.colour_standard
        if standard is None:
            return view.crops(image, centres_xy, spec.size, spec.um_per_px)
        crops = view.crops(image, centres_xy, spec.size, spec.um_per_px, balanced=False)
        for crop in crops:
            crop[:] = normalise(crop, standard)
        return crops

    def shapes(self, n: int) -> dict[str, tuple[int, ...]]:
        """The shape of each output for n crops, in the order that `read` expects."""
        widths = {"classes": (len(self.leaves),), "attributes": (self.schema.width,)}
        return {name: (n, *widths.get(name, ())) for name in self.outputs}

    def classify(
        self, session: Any, crops: Pixels, film: FilmNaming = ONE_BY_ONE
    ) -> list[CellClassification]:
        """Classify crops (n, size, size, 3) by one call of the graph; open ones turned, too.

        Args:
            session: of the graph.
            crops: the cells.
            film: how they are named by their film.

        Raises:
            BundleError: if the graph cannot be run, or gives something else than it should.
        """
        *first, residuals = self._outputs_and_residuals(session, crops, film)
        again = self.to_look_at_again(first[0])
        if len(again):
            turned = np.concatenate([np.rot90(crops[again], k, axes=(1, 2)) for k in self.turns])
            parts = [
                self.outputs_of(session, part, film.offset)
                for part in batches(turned, CLASSIFIER_BATCH)
            ]
            more = [np.concatenate(values) for values in zip(*parts, strict=True)]
            first = self.with_further_looks(first, again, more)
        readings = self.read(*first)
        if film.residuals is None:
            return readings
        return [replace(r, residual=own) for r, own in zip(readings, residuals, strict=True)]

    def outputs_of(self, session: Any, crops: Pixels, offset: FilmOffset | None = None) -> Outputs:
        """Return the graph's answers to crops (n, size, size, 3), as `read` expects them.

        Args:
            session: of the graph.
            crops: the cells.
            offset: of their film; `None` names them one by one.

        Raises:
            BundleError: as for `classify`.
        """
        return self._outputs_and_residuals(session, crops, FilmNaming(offset))[:-1]

    def _outputs_and_residuals(self, session: Any, crops: Pixels, film: FilmNaming) -> Outputs:
        """Return the outputs that `read` expects, and the residuals (n, size) or an empty array."""
        inputs: dict[str, NDArray[Any]] = {"crops": crops}
        shapes = self.shapes(len(crops))
        if film.offset is not None:
            shapes = {FILM_CLASSES if k == "classes" else k: v for k, v in shapes.items()}
            inputs[FILM_OFFSET] = film.offset.values
        if film.residuals is not None and self.spec.film_offset is not None:
            shapes[FILM_RESIDUAL] = (len(crops), self.spec.film_offset.size)
            return run_graph(session, self.spec.file, inputs, shapes)
        return [*run_graph(session, self.spec.file, inputs, shapes), np.zeros((0, 0), np.float32)]

    def to_look_at_again(self, classes: ArrayLike) -> NDArray[np.intp]:
        """Return which cells a first look leaves open, given their logits (n, leaves)."""
        spec = self.spec.look_again
        if spec is None:
            return np.zeros(0, dtype=np.intp)
        return open_cells(leaf_probabilities(classes, self.learnt), self._kindred, spec.below)

    def with_further_looks(self, first: Outputs, again: NDArray[np.intp], more: Outputs) -> Outputs:
        """Return outputs in which the class and attributes of some cells are those of all looks.

        Probabilities are averaged and given as logits. Whether a cell is one at all, and how unlike
        the training data it is, stays as the first look had it: thresholds were chosen by it.

        Args:
            first: outputs of n cells, in the order that `read` expects.
            again: which of them were looked at again, (m,).
            more: outputs of the further looks, turn by turn: m rows for each.
        """
        parts = {
            "classes": [(slice(None), self.learnt)],
            "attributes": [
                (part, self._offered[name]) for name, part in self.schema.slices.items()
            ],
        }
        outputs = list(first)
        for name, groups in parts.items():
            place = self.outputs.index(name)
            outputs[place] = first[place].copy()
            looks = np.stack(
                [first[place][again], *np.split(more[place], len(more[place]) // len(again))]
            )
            for part, known in groups:
                outputs[place][again, part] = averaged_logits(looks[..., part], known)
        return outputs

    def read(
        self,
        classes: ArrayLike,
        attributes: ArrayLike,
        novelty: ArrayLike,
        nucleated: ArrayLike | None = None,
    ) -> list[CellClassification]:
        """Classify n cells.

        Args:
            classes: (n, leaves) logits.
            attributes: (n, schema.width) logits.
            novelty: (n,) larger is less similar to the training data.
            nucleated: (n,) logits of there being a nucleated cell.
        """
        spec, logits = self.spec, np.asarray(attributes, dtype=np.float64)
        leaves = leaf_probabilities(classes, self.learnt, spec.temperatures.get("class", 1.0))
        answers = {
            name: leaf_probabilities(
                logits[:, part], self._offered[name], spec.temperatures.get(name, 1.0)
            )
            for name, part in self.schema.slices.items()
        }
        limit = np.inf if spec.novelty_threshold is None else spec.novelty_threshold
        novel = np.asarray(novelty, dtype=np.float64) > limit
        readings = [
            self._one(p, {k: v[i] for k, v in answers.items()}, bool(novel[i]))
            for i, p in enumerate(leaves)
        ]
        if nucleated is None:
            return readings
        confirmed = self._confirmed(np.asarray(nucleated, dtype=np.float64))
        return [replace(r, nucleated=p) for r, p in zip(readings, confirmed, strict=True)]

    def _confirmed(self, logits: Floats) -> list[float]:
        pair = np.stack([np.zeros_like(logits), logits], axis=1)
        p: list[float] = softmax(pair, self.spec.temperatures.get("nucleated", 1.0))[:, 1].tolist()
        return p

    def _one(
        self, leaves: Floats, answers: Mapping[str, Floats], novel: bool
    ) -> CellClassification:
        label, score = self.deepest_sure(leaves)
        return CellClassification(
            label,
            score,
            {
                n: float(p)
                for n, p, known in zip(self.leaves, leaves, self.learnt, strict=True)
                if known
            },
            {a.name: self._answer(a, answers[a.name]) for a in self.schema.attributes},
            novel,
        )

    def deepest_sure(self, leaves: Floats) -> tuple[str, float]:
        """Return the deepest confident node on the path of most probable children.

        Confident: the summed probability of its leaves reaches `class_confidence`. The top,
        a nucleated cell, always is; what is more probably an object that is none, is named below
        that. Where no leaf is confident but that it is a blast, whichever kind, it is named that;
        so is every blast where the classifier has learnt one kind of several: to it all are alike.
        With conformal sets, a node is confident that holds the whole set of classes that the cell
        may be.
        """
        members = self.class_set(leaves)
        tops = [self.root, *self._others]
        node = max(tops, key=lambda n: float(leaves[self._masks[n]].sum()))
        score = float(leaves[self._masks[node]].sum())
        while self._children[node]:
            sums = [(float(leaves[self._masks[c]].sum()), c) for c in self._children[node]]
            best, child = max(sums, key=lambda pair: pair[0])
            if not self._is_sure(child, best, members):
                break
            node, score = child, best
        if self._children[node] and BLAST in self._masks:
            blast = float(leaves[self._masks[BLAST]].sum())
            if self._is_sure(BLAST, blast, members):
                node, score = BLAST, blast
        if node == self._lone_blast:
            node = BLAST
        return node, min(score, 1.0)

    def class_set(self, leaves: Floats) -> NDArray[np.bool_] | None:
        """Return which leaves a cell may be, (leaves,); `None` without conformal sets."""
        return None if self._least is None else leaves >= self._least

    def _is_sure(self, node: str, score: float, members: NDArray[np.bool_] | None) -> bool:
        if score < self._floor:
            return False
        return members is None or bool(members.any() and not (members & ~self._masks[node]).any())

    def with_shape(self, reading: CellClassification, shape: CellShape) -> CellClassification:
        """Return a classification whose attributes follow the cell's measured shape, too."""
        sized = self.with_diameter(reading, shape.diameter_um)
        spec = self.spec.measured
        if spec is None or not reading.probabilities:
            return sized
        said = {name: answer.probabilities for name, answer in reading.attributes.items()}
        found = measured_probabilities(spec, shape, reading.probabilities, said)
        after = {
            name: self._given({v: p.get(v, 0.0) for v in said[name]}) for name, p in found.items()
        }
        return replace(sized, attributes={**sized.attributes, **after})

    @property
    def follows_shape(self) -> bool:
        """Whether some attribute follows the shape of outlined cells."""
        return self.spec.measured is not None or self.spec.diameters is not None

    def lacks_measures(self, reading: CellClassification, shape: CellShape | None) -> bool:
        """Whether attributes that should follow the cell's shape are the graph's alone."""
        spec = self.spec
        return shape is None and bool(reading.attributes) and spec.measured is not None

    def with_diameter(self, reading: CellClassification, diameter_um: float) -> CellClassification:
        """Return a classification whose size of the cell follows its measured diameter too."""
        spec = self.spec.diameters
        before = None if spec is None else reading.attributes.get(spec.attribute)
        if spec is None or before is None or not before.probabilities or not diameter_um > 0:
            return reading
        density = spec.densities(diameter_um)
        shares = {v: p * density.get(v, 0.0) for v, p in before.probabilities.items()}
        total = sum(shares.values())
        if not total > 0:
            return reading
        after = self._given({v: p / total for v, p in shares.items()})
        return replace(reading, attributes={**reading.attributes, spec.attribute: after})

    def _given(self, shares: dict[str, float]) -> AttributeResult:
        """Return an attribute's answer by the probabilities of its values."""
        best = max(shares, key=lambda v: shares[v])
        sure = shares[best] >= self.spec.attribute_confidence
        return AttributeResult(best if sure else None, shares[best], shares)

    def _answer(self, attribute: Attribute, probabilities: Floats) -> AttributeResult:
        if attribute.name in self.untrained_attributes:
            return AttributeResult(None, 0.0, {})
        best = int(probabilities.argmax())
        sure = float(probabilities[best])
        value = attribute.values[best] if sure >= self.spec.attribute_confidence else None
        offered = self._offered[attribute.name]
        every = {
            v: float(p)
            for v, p, known in zip(attribute.values, probabilities, offered, strict=True)
            if known
        }
        return AttributeResult(value, sure, every)


def touches_edge(box: Box, width: int, height: int) -> bool:
    """Whether a box (original pixels) comes within a pixel of the image's edge."""
    x, y, w, h = box
    return bool(
        x <= EDGE_PX or y <= EDGE_PX or x + w >= width - EDGE_PX or y + h >= height - EDGE_PX
    )
