"""A bundle's manifest: the vocabulary, thresholds and calibration that its graphs need.

Format versions:

- 1: the first.
- 2: a bundle must have `SHA256SUMS`.
- 3: `classifier`, `object_types` and `untrained` are what used to be called `reader`, `kinds` and
  `unlearnt`; `roles` gives the function of each object type, so that code depends on no name.
- 4: `outlines`, an optional third graph, later also with `box_agreement`; `untrained.values`.
- 5: `exemplars`, an optional file of descriptions of training cells; `detector.fusion`, later also
  with `limits`.

Older versions are converted to the newest form when they are read, and written as the newest.
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    PlainSerializer,
    ValidationError,
    model_validator,
)
from pydantic_core import CoreSchema, core_schema

from bloodfilm.core.attributes import Schema
from bloodfilm.core.errors import BundleError, DataError
from bloodfilm.core.figures import checked, checked_whole
from bloodfilm.core.files import write_together
from bloodfilm.core.json_text import loads
from bloodfilm.core.taxonomy import Taxonomy
from bloodfilm.core.text import shortened
from bloodfilm.imaging.colour_normalisation import ColourStandard
from bloodfilm.inference.checksums import SUMS, sums_of
from bloodfilm.inference.fusion import EvidenceLimits, Fusion, LogisticFusion, ProductFusion

MANIFEST = "manifest.json"
FORMAT = "bloodfilm-bundle"
VERSION = 5
OLDEST_VERSION = 1
SUMMED_VERSION = 2
"""From this version on a bundle must have `SHA256SUMS`."""
PRE_NMS_TOP_K = 1000
MAX_MANIFEST_BYTES = 16 << 20
MAX_MESSAGE = 240
CORRECTION = "correction"
"""The method of an adaptation by marked fields, in the record of the training."""
"""Characters of a complaint about a value, beside its file and key."""
MOST_VALUES, MOST_MEASURES = 256, 256
MOST_WEIGHT = 1e4
SHARES_OFF = 1e-2
"""How far shares may be from 1 in sum, by rounding."""

_OLD_KEYS = {"reader": "classifier", "kinds": "object_types", "unlearnt": "untrained"}
# Versions 1 and 2 had no roles; these were the only types there were.
_OLD_ROLES = {"classified": "nucleated cell", "ruler": "red cell"}


class Within:
    """Marks a number of the manifest: finite, and from `least` to `most`, both included.

    Each number of a manifest has such a range, wide enough for any microscope and network, and
    narrow enough that no value costs much time or memory, or overflows in arithmetic.
    """

    def __init__(self, least: float, most: float) -> None:
        self.least = least
        self.most = most

    def __get_pydantic_core_schema__(self, kind: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        def read(value: Any) -> float:
            if kind is int:
                return checked_whole(value, int(self.least), int(self.most))
            return checked(value, self.least, self.most)

        return core_schema.no_info_before_validator_function(read, handler(kind))


Share = Annotated[float, Within(0, 1)]
Grey = Annotated[int, Within(0, 255)]
PixelUm = Annotated[float, Within(0.005, 10)]
"""Canonical pixels, micrometres."""
Temperature = Annotated[float, Within(1e-3, 1e3)]
Weight = Annotated[float, Within(0, 1e3)]
Figure = Annotated[float, Within(-1e9, 1e9)]
Spread = Annotated[float, Within(1e-9, 1e9)]
Count = Annotated[int, Within(0, 1e12)]
Bounded = Annotated[float, Within(-MOST_WEIGHT, MOST_WEIGHT)]
Name = Annotated[str, Field(max_length=500)]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}$")]


def _taxonomy(value: Any) -> Taxonomy:
    try:
        return value if isinstance(value, Taxonomy) else Taxonomy.from_json(value)
    except DataError as error:
        raise ValueError(str(error)) from None


def _schema(value: Any) -> Schema:
    try:
        return value if isinstance(value, Schema) else Schema.from_json(value)
    except DataError as error:
        raise ValueError(str(error)) from None


TaxonomyField = Annotated[Taxonomy, BeforeValidator(_taxonomy), PlainSerializer(Taxonomy.to_json)]
SchemaField = Annotated[Schema, BeforeValidator(_schema), PlainSerializer(Schema.to_json)]


class _Strict(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, arbitrary_types_allowed=True, populate_by_name=True
    )


_Probability = Annotated[float, Within(1e-9, 1 - 1e-9)]
_Contrast = Annotated[float, Within(1e-6, 1e3)]


class EvidenceLimitsSpec(_Strict):
    """Beyond which values evidence for a nucleated cell says no more: see `EvidenceLimits`."""

    score: tuple[_Probability, _Probability]
    probability: tuple[_Probability, _Probability]
    contrast: tuple[_Contrast, _Contrast]
    unknown_contrast: _Contrast

    @property
    def limits(self) -> EvidenceLimits:
        """As an analysis uses them."""
        return EvidenceLimits(**self.model_dump())

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        _ = self.limits
        return self


class FusionSpec(_Strict):
    """How the evidence for a nucleated cell becomes one score: see `LogisticFusion`.

    Attributes:
        limits: of the evidence; without any, those of `EvidenceLimits` that need no record.
    """

    detector: Annotated[float, Within(1e-3, 1e3)]
    verification: Weight
    contrast: Weight
    bias: Annotated[float, Within(-1e3, 1e3)]
    limits: EvidenceLimitsSpec | None = None

    @property
    def fusion(self) -> LogisticFusion:
        """As an analysis uses it."""
        limits = EvidenceLimits() if self.limits is None else self.limits.limits
        return LogisticFusion(self.detector, self.verification, self.contrast, self.bias, limits)


class DetectorSpec(_Strict):
    """The detector graph: pixels in (uint8, B x H x W x 3), dense scores and distances out.

    Attributes:
        um_per_px, background: the canonical view it expects (scale, white point).
        stride: canonical pixels per output location.
        multiple: height and width must be multiples of it; pad right and bottom with `background`.
        thresholds: lowest score that is reported, by object type.
        vote_thresholds: lowest score, by object type, from which a detection takes part in box
            voting and serves as context of others. Fixed, so that no threshold of the user moves
            a box or changes a score. Defaults to the thresholds.
        nms_iou: of two boxes of one type that overlap more, the better stays.
        pre_nms_top_k: of what lies below `vote_thresholds`, the number of best candidates
            considered per tile and object type.
        tile, overlap: how larger fields are cut, canonical pixels.
        fusion: of the detector's score of the classified type with stain and verification; its
            threshold is one of the fused score. `None`: a bundle without an operating point.
    """

    file: FileName
    sha256: Sha256
    um_per_px: PixelUm
    background: Grey
    stride: Annotated[int, Within(1, 256)]
    multiple: Annotated[int, Within(1, 1024)]
    thresholds: dict[str, Share]
    vote_thresholds: dict[str, Share]
    nms_iou: Share
    pre_nms_top_k: Annotated[int, Within(0, 10_000)] = PRE_NMS_TOP_K
    tile: Annotated[int, Within(32, 8192)]
    overlap: Annotated[int, Within(0, 4096)]
    fusion: FusionSpec | None = None

    @property
    def score_fusion(self) -> Fusion:
        """How the evidence for cells of the classified type is weighed."""
        return ProductFusion() if self.fusion is None else self.fusion.fusion

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, data: Any) -> Any:
        if isinstance(data, dict) and "thresholds" in data:
            data = {"vote_thresholds": data["thresholds"], **data}
        return data

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.multiple % self.stride:
            raise ValueError("multiple must be a multiple of stride")
        if 8 * self.overlap > 3 * self.tile:  # else every pixel would be seen over and over again
            raise ValueError("tile must be longer than two overlaps by a quarter of it, or more")
        return self


_Chromaticity = Annotated[float, Within(-255, 255)]


class ColourSpec(_Strict):
    """The colours that crops are normalised to: see `ColourStandard`."""

    white: Annotated[float, Within(1, 255)]
    depth: Annotated[float, Within(0.1, 255)]
    chroma: Annotated[float, Within(0.1, 255)]
    nucleus: tuple[_Chromaticity, _Chromaticity] | None

    @property
    def standard(self) -> ColourStandard:
        """The target colours of crops."""
        return ColourStandard(**self.model_dump())


class ConformalSpec(_Strict):
    """Which classes a cell may be, so that the true one is among them with stated coverage.

    A leaf is in a cell's set where its calibrated probability reaches `least`. The cell is named by
    the deepest node that holds its whole set: where the set holds several classes, that is an inner
    node, and the cell is left open. Vovk, Gammerman, Shafer, Algorithmic learning in a random
    world, 2005; fitted on sites left out of training. A class that a lab added has its own limit.

    Attributes:
        coverage: share of cells whose true class is in their set.
        least: by leaf; leaves that are not listed are in no set.
        cells: by leaf, the cells that its limit was chosen on.
        sites: that were left out of training.
    """

    coverage: Share
    least: dict[str, Share]
    cells: dict[str, Count] = {}
    sites: tuple[str, ...] = ()


class LookAgainSpec(_Strict):
    """When the classifier looks at a cell again, and how often.

    A cell has no upper side, but a network answers a little differently for each. Where the first
    answer leaves the class open, the crop is turned and classified again, and the probabilities of
    all views are averaged.

    Attributes:
        below: a cell is looked at again unless a class, or a group of kindred ones, reaches this
            calibrated probability.
        turns: by how many right angles it is turned for each further look.
    """

    below: Share
    turns: Annotated[
        tuple[Annotated[int, Within(1, 3)], ...], Field(min_length=1, max_length=3)
    ] = (2,)


FILM_OFFSET, FILM_RESIDUAL, FILM_CLASSES = "film_offset", "film_residual", "film_classes"
"""Input and outputs of a classifier graph that names cells by their film."""


class FilmOffsetSpec(_Strict):
    """Names follow the film: what its cells have in common is taken from what describes each.

    The graph has two outputs more: `film_residual` (N x size), by how much a cell differs from what
    its classes look like in training, and `film_classes`, the class logits (N x leaves) of cells of
    a film whose offset is the optional input `film_offset` (size): the mean of its cells'
    residuals. A film is a folder of fields, or a slide.

    Attributes:
        size: of the offset.
        least_cells: of a film; with fewer its cells are named one by one.
    """

    size: Annotated[int, Within(1, 1e6)]
    least_cells: Annotated[int, Within(1, 1e6)]


_Diameter = Annotated[float, Within(0.1, 1000)]
_LogSpread = Annotated[float, Within(1e-3, 10)]


class DiameterSpec(_Strict):
    """How large the cells of each size are, by measured diameter.

    The logarithm of the diameter is taken for normally distributed. Its density multiplies the
    probability that the classifier gives a value; a value that is not listed gets none.

    Attributes:
        attribute: the size of a cell, of the schema.
        values: by value, the median of the diameter in um and the spread of its logarithm.
    """

    attribute: str
    values: Annotated[dict[str, tuple[_Diameter, _LogSpread]], Field(min_length=2)]

    def densities(self, diameter_um: float) -> dict[str, float]:
        """Return the density of a diameter for each value, up to a common factor.

        >>> spec = DiameterSpec(attribute="size", values={"small": (8, 0.1), "large": (16, 0.1)})
        >>> spec.densities(8.0)["small"]
        1.0
        """
        logs = {
            value: -((math.log(diameter_um / median) / spread) ** 2) / 2 - math.log(spread)
            for value, (median, spread) in self.values.items()
        }
        highest = max(logs.values())
        return {value: math.exp(log - highest) for value, log in logs.items()}


class MeasuredAttribute(_Strict):
    """How one attribute follows a cell's measures and its class.

    See `inference.measured_attributes`.

    Attributes:
        values: those that enough training cells have, in the order of the schema.
        centre, spread: mean and standard deviation of each measure over these cells.
        weights: (values, measures) of the logistic regression on standardised measures.
        bias: by value.
        classes: by leaf, the share of each value among training cells of that class.
        network: weight of the logarithm of what the classifier graph answers, beside measures and
            class; 0 where its answer counts for nothing.
        temperature: what the logits are divided by.
        cells: that it was fitted on.
    """

    values: Annotated[tuple[Name, ...], Field(min_length=2, max_length=MOST_VALUES)]
    centre: tuple[Bounded, ...]
    spread: tuple[Spread, ...]
    weights: tuple[tuple[Bounded, ...], ...]
    bias: tuple[Bounded, ...]
    classes: dict[str, tuple[Share, ...]]
    network: Weight = 0.0
    temperature: Temperature
    cells: Annotated[int, Within(1, 1e12)]

    @model_validator(mode="after")
    def _fits(self) -> Self:
        count = len(self.values)
        if len(set(self.values)) != count:
            raise ValueError("values must be distinct")
        if len(self.weights) != count or len(self.bias) != count:
            raise ValueError("weights and bias need one row per value")
        if any(len(row) != len(self.centre) for row in (*self.weights, self.spread)):
            raise ValueError("centre, spread and weights need one number per measure")
        for leaf, shares in self.classes.items():
            if len(shares) != count or abs(sum(shares) - 1) > SHARES_OFF:
                raise ValueError(f"classes.{leaf}: needs one share per value, 1 in sum")
        return self


class MeasuredAttributesSpec(_Strict):
    """Attributes that follow what is measured on a cell's outlines.

    Where a cell cannot be outlined, the answer is that of the classifier graph.

    Attributes:
        measures: names of what is measured, see `inference.measured_attributes`.
        attributes: by attribute of the schema.
    """

    measures: Annotated[tuple[Name, ...], Field(min_length=1, max_length=MOST_MEASURES)]
    attributes: Annotated[dict[str, MeasuredAttribute], Field(min_length=1)]

    @model_validator(mode="after")
    def _fits(self) -> Self:
        for name, model in self.attributes.items():
            if len(model.centre) != len(self.measures):
                raise ValueError(f"attributes.{name}: needs {len(self.measures)} measures")
        return self


class ClassifierSpec(_Strict):
    """The classifier graph: crops in (uint8, N x size x size x 3); classes and attributes out.

    Attributes:
        size, um_per_px, background: the crop it expects.
        colours: what each crop's colours are normalised to; `None` balances them by the field's
            white point.
        verifies: it also has an output `nucleated`, the logit of the crop showing a cell of the
            classified type at all.
        temperatures: what the logits of `class`, of `nucleated` and of each attribute are divided
            by; 1 if absent.
        class_confidence: a cell gets the deepest node whose summed probability reaches it.
        attribute_confidence: an attribute's value below it is not reported.
        novelty_threshold: a cell above it is unlike the training data; `None`: never.
        red_cell_novelty: the most that the red cells of a film have (median over some of a field's
            red cells); `None`: the film score does without.
        conformal: which classes a cell may be; decides instead of `class_confidence`, if given.
        look_again: which cells are classified in several orientations; `None`: none.
        diameters: what a measured diameter tells of a cell's size; `None`: not known.
        measured: attributes that follow measured shape and colour, and the class, in place of the
            graph's answer and of `diameters`; `None`: none do.
        film_offset: how names follow the film; `None`: cells are named one by one.
    """

    file: FileName
    sha256: Sha256
    size: Annotated[int, Within(16, 1024)]
    um_per_px: PixelUm
    background: Grey
    colours: ColourSpec | None = None
    verifies: bool = False
    temperatures: dict[str, Temperature]
    class_confidence: Share
    attribute_confidence: Share
    novelty_threshold: Figure | None
    red_cell_novelty: Spread | None = None
    conformal: ConformalSpec | None = None
    look_again: LookAgainSpec | None = None
    diameters: DiameterSpec | None = None
    measured: MeasuredAttributesSpec | None = None
    film_offset: FilmOffsetSpec | None = None

    @property
    def colour_standard(self) -> ColourStandard | None:
        """The target colours of crops, if they are normalised."""
        return None if self.colours is None else self.colours.standard


class OutlineSpec(_Strict):
    """The outline graph: crops in (uint8, N x size x size x 3), maps out (N x 2 x size/2 x size/2).

    The maps are logits of a place lying in the cell, and in its nucleus.

    Attributes:
        size, background: the crop it expects.
        share: of the crop's side that the longer side of the cell's box takes, in micrometres.
        colours: what each crop's colours are normalised to.
        box_agreement: where the box around a cell's outline and the detector's box have an IoU
            below it, the cell's box is the mean of the two; 0 leaves each as the detector drew it.
    """

    file: FileName
    sha256: Sha256
    size: Annotated[int, Within(16, 1024), Field(multiple_of=2)]
    background: Grey
    share: Annotated[float, Within(0.05, 1)]
    colours: ColourSpec
    box_agreement: Share = 0.0


class ExemplarSpec(_Strict):
    """Descriptions of training cells, from which the classifier can be taught further classes.

    Only `bloodfilm learn` reads them. They hold for the classifier beside them and no other.

    Attributes:
        labels: by class or group of classes, how many cells are described.
        domains: the acquisitions they are from.
    """

    file: FileName
    sha256: Sha256
    labels: Annotated[dict[str, Annotated[int, Within(1, 1e9)]], Field(min_length=1)]
    domains: tuple[str, ...] = ()


class ObjectRoles(_Strict):
    """The functions of the object types of a bundle.

    Attributes:
        classified: detections of this type are named by the classifier.
        ruler: detections of this type are red cells, 7.5 um across and round: they check the scale
            and are what stain is compared with. `None` if the detector does not find them.
    """

    classified: str
    ruler: str | None = None


class UntrainedParts(_Strict):
    """Leaves, attributes, and values of other attributes, that no training example has."""

    classes: tuple[str, ...] = ()
    attributes: tuple[str, ...] = ()
    values: dict[str, tuple[str, ...]] = {}


class FilmStatistics(_Strict):
    """Stain and optics of the films that the classifier was trained on.

    Attributes:
        features: names of the figures of a profile, see `imaging.film_profile`.
        sites: by film of a training set, where its patients are known and have fields enough, else
            by training set: the mean of each figure over its fields.
        spread: of each figure, its standard deviation within these.
        limit: distance from the nearest of them beyond which a field is far from all.
        class_confidence: takes the place of the classifier's on such a field.
    """

    features: tuple[str, ...]
    sites: Annotated[dict[str, tuple[Figure, ...]], Field(min_length=1)]
    spread: tuple[Spread, ...]
    limit: Spread
    class_confidence: Share

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if any(len(row) != len(self.features) for row in (*self.sites.values(), self.spread)):
            raise ValueError("films: every row needs one figure per feature")
        return self

    def nearest(self, profile: Sequence[float]) -> tuple[str, float]:
        """Return the nearest site and the distance from it, in standard deviations.

        The distance is the root of the mean squared deviation over the figures.

        >>> films = FilmStatistics(features=("a", "b"), sites={"x": (0, 0), "y": (9, 9)},
        ...     spread=(1, 2), limit=3, class_confidence=0.9)
        >>> films.nearest([3, 8])
        ('x', 3.5355339059327378)
        """
        distances = {
            name: math.sqrt(
                sum(((p - m) / s) ** 2 for p, m, s in zip(profile, mean, self.spread, strict=True))
                / len(self.features)
            )
            for name, mean in self.sites.items()
        }
        name = min(distances, key=lambda site: distances[site])
        return name, distances[name]


class Manifest(_Strict):
    """All of `manifest.json`. An unknown key is refused, so that none is overlooked.

    Attributes:
        taxonomy: the tree that object types and classes are nodes of.
        attributes: the schema of the attributes that the classifier predicts.
        object_types: types that the detector distinguishes, in the order of its outputs.
        roles: functions of the object types.
        leaves: the classes, in the order of the classifier's outputs: all leaves under the
            classified type, and those of objects that are no cells of it but may pass for one.
        untrained: classes, attributes and values that cannot be predicted.
        outlines: the graph that outlines cells and nuclei; `None` without one.
        training: how the networks were trained, as plain data.
        metrics: their performance, as plain data.
        films: stain and optics of the training films; `None`: not known.
        exemplars: descriptions of training cells; `None`: the bundle has none, and cannot be taught
            further classes.
    """

    format: Literal["bloodfilm-bundle"]
    version: Literal[1, 2, 3, 4, 5]
    name: Name
    created: Name
    licence: Name
    taxonomy: TaxonomyField
    attributes: Annotated[SchemaField, Field(alias="schema")]
    object_types: tuple[str, ...]
    roles: ObjectRoles
    leaves: tuple[str, ...]
    untrained: UntrainedParts
    detector: DetectorSpec
    classifier: ClassifierSpec
    outlines: OutlineSpec | None = None
    training: dict[str, Any]
    metrics: dict[str, Any]
    films: FilmStatistics | None = None
    exemplars: ExemplarSpec | None = None

    @model_validator(mode="before")
    @classmethod
    def _newest_form(cls, data: Any) -> Any:
        return _upgraded(data) if isinstance(data, dict) else data

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        types, classified = self.object_types, self.roles.classified
        if len(set(types)) != len(types):
            raise ValueError("object_types must be distinct names")
        _only(types, self.taxonomy.names, "object_types", "the taxonomy")
        named = [role for role in (classified, self.roles.ruler) if role is not None]
        _only(named, types, "roles", "object_types")
        if self.roles.ruler == classified:
            raise ValueError("roles: the ruler cannot be the classified type")
        for name in ("thresholds", "vote_thresholds"):
            if set(getattr(self.detector, name)) != set(types):
                raise ValueError(f"detector.{name} needs exactly one score per object type")
        if self.classifier.conformal is not None:
            _only(self.classifier.conformal.least, self.leaves, "classifier.conformal", "leaves")
        self._check_diameters()
        self._check_measured()
        heads = ("class", "nucleated", *self.attributes.names)
        _only(self.classifier.temperatures, heads, "classifier.temperatures", "the schema")
        if self.exemplars is not None:
            _only(self.exemplars.labels, self.taxonomy.names, "exemplars.labels", "the taxonomy")
        self._check_leaves()
        self._check_untrained()
        return self

    def _check_leaves(self) -> None:
        classified = self.roles.classified
        under = self.taxonomy.leaves_under(classified)
        if not set(under) <= set(self.leaves) or len(self.leaves) != len(set(self.leaves)):
            raise ValueError(f"leaves must be the taxonomy's leaves under {classified!r}, and more")
        _only(self.leaves, self.taxonomy.leaves, "leaves", "the taxonomy's leaves")
        for name in set(self.leaves) - set(under):
            above = [t for t in self.object_types if self.taxonomy.is_under(name, t)]
            if above:
                raise ValueError(f"leaves: {name!r} is a {above[0]}, which the detector finds")

    def _check_diameters(self) -> None:
        given = self.classifier.diameters
        if given is not None:
            _only([given.attribute], self.attributes.names, "classifier.diameters", "schema")
            values = self.attributes[given.attribute].values
            _only(given.values, values, "classifier.diameters", f"values of {given.attribute}")

    def _check_measured(self) -> None:
        given = self.classifier.measured
        if given is None:
            return
        where = "classifier.measured"
        _only(given.attributes, self.attributes.names, where, "schema")
        _only(given.attributes, self.described, where, "attributes that were trained")
        for name, model in given.attributes.items():
            absent = self.untrained.values.get(name, ())
            offered = tuple(v for v in self.attributes[name].values if v not in absent)
            _only(model.values, offered, where, f"values of {name} that were trained")
            _only(model.classes, self.leaves, where, "leaves")

    def _check_untrained(self) -> None:
        untrained, schema = self.untrained, self.attributes
        _only(untrained.classes, self.leaves, "untrained.classes", "leaves")
        _only(untrained.attributes, schema.names, "untrained.attributes", "schema")
        _only(untrained.values, schema.names, "untrained.values", "schema")
        if set(untrained.classes) == set(self.leaves):
            raise ValueError("untrained.classes names every leaf: the classifier knows no class")
        for attribute in schema.attributes:
            values = untrained.values.get(attribute.name, ())
            _only(values, attribute.values, f"untrained.values.{attribute.name}", "its values")
            if set(values) == set(attribute.values):
                raise ValueError(f"untrained.values names every value of {attribute.name!r}")

    @property
    def trained_leaves(self) -> tuple[str, ...]:
        """The classes that the classifier can name."""
        return tuple(leaf for leaf in self.leaves if leaf not in self.untrained.classes)

    @property
    def described(self) -> tuple[str, ...]:
        """The attributes that the classifier answers."""
        absent = self.untrained.attributes
        return tuple(name for name in self.attributes.names if name not in absent)

    @property
    def graphs(self) -> dict[str, DetectorSpec | ClassifierSpec | OutlineSpec]:
        """The graphs of the bundle, by part."""
        parts = {
            "detector": self.detector,
            "classifier": self.classifier,
            "outlines": self.outlines,
        }
        return {part: spec for part, spec in parts.items() if spec is not None}

    @property
    def files(self) -> dict[str, str]:
        """The bundle's files beside its manifest, and their checksums."""
        specs = [*self.graphs.values(), *([] if self.exemplars is None else [self.exemplars])]
        return {spec.file: spec.sha256 for spec in specs}

    def with_threshold(self, object_type: str, score: float) -> "Manifest":
        """Return a manifest with another reporting threshold; box voting is unchanged."""
        thresholds = {**self.detector.thresholds, object_type: score}
        return self._with(detector={**self.detector.model_dump(), "thresholds": thresholds})

    def with_operating_point(
        self, fusion: LogisticFusion, threshold: float, red_cell_novelty: float | None = None
    ) -> "Manifest":
        """Return a manifest with another score of the classified type, and limits of it.

        Args:
            fusion: of the evidence for a cell of the classified type.
            threshold: of its score.
            red_cell_novelty: the most that films have; `None` leaves it as it is.
        """
        thresholds = {**self.detector.thresholds, self.roles.classified: threshold}
        changed = {"thresholds": thresholds, "fusion": asdict(fusion)}
        classifier = self.classifier.model_dump()
        if red_cell_novelty is not None:
            classifier["red_cell_novelty"] = red_cell_novelty
        return self._with(detector={**self.detector.model_dump(), **changed}, classifier=classifier)

    def with_figures(
        self,
        *,
        validation: Mapping[str, Mapping[str, Any]] | None = None,
        parity: Mapping[str, float] | None = None,
        **records: Any,
    ) -> "Manifest":
        """Return a manifest with figures added; those of the same name are replaced.

        Args:
            validation: on validation data, by part; a part that is named loses its former ones.
            parity: of the graphs with the networks that they were made from.
            records: of evaluations, by name.
        """
        metrics = {**self.metrics, **records}
        if validation is not None:
            parts = {part: dict(figures) for part, figures in validation.items()}
            metrics["validation"] = {**metrics.get("validation", {}), **parts}
        if parity is not None:
            metrics["parity"] = {**metrics.get("parity", {}), **parity}
        return self._with(metrics=metrics)

    def with_training(self, **records: Any) -> "Manifest":
        """Return a manifest with records of trainings added, by part; others are kept."""
        return self._with(training={**self.training, **records})

    def with_outlines(self, outlines: OutlineSpec) -> "Manifest":
        """Return a manifest with another network of outlines."""
        return self._with(outlines=outlines.model_dump(mode="json"))

    def adapted(self, novelty_threshold: Figure | None) -> "Manifest":
        """Return a manifest for an adapted classifier, made now."""
        classifier = {**self.classifier.model_dump(), "novelty_threshold": novelty_threshold}
        created = datetime.now(UTC).isoformat(timespec="seconds")
        return self._with(name=f"{self.name}, adapted", created=created, classifier=classifier)

    def with_films(self, films: FilmStatistics) -> "Manifest":
        """Return a manifest with other statistics of the training films."""
        return self._with(films=films.model_dump())

    def with_diameters(self, diameters: DiameterSpec) -> "Manifest":
        """Return a manifest that tells the size of cells by other diameters."""
        spec = self.classifier.model_dump() | {"diameters": diameters.model_dump()}
        return self._with(classifier=spec)

    def with_measured(
        self, measured: MeasuredAttributesSpec, attribute_confidence: float | None = None
    ) -> "Manifest":
        """Return a manifest with other attributes that follow measured shape and colour.

        Args:
            measured: the attributes.
            attribute_confidence: takes the place of the classifier's; `None` leaves it.
        """
        spec = self.classifier.model_dump() | {"measured": measured.model_dump()}
        if attribute_confidence is not None:
            spec["attribute_confidence"] = attribute_confidence
        return self._with(classifier=spec)

    def with_film_offset(self, spec: FilmOffsetSpec | None) -> "Manifest":
        """Return a manifest of a classifier whose names follow the film, or do not."""
        offset = None if spec is None else spec.model_dump()
        return self._with(classifier={**self.classifier.model_dump(), "film_offset": offset})

    def with_exemplars(self, exemplars: ExemplarSpec | None) -> "Manifest":
        """Return a manifest with other exemplars, or with none."""
        return self._with(exemplars=None if exemplars is None else exemplars.model_dump())

    def cautious(self) -> "Manifest":
        """Return a manifest that names cells as on films far from all training films."""
        if self.films is None:
            return self
        confidence = max(self.films.class_confidence, self.classifier.class_confidence)
        changed = {"class_confidence": confidence}
        return self._with(classifier={**self.classifier.model_dump(), **changed})

    def with_graphs(self, graphs: Mapping[str, bytes]) -> "Manifest":
        """Return a manifest with the checksums of graphs, by file name."""
        changes = {}
        for part, spec in self.graphs.items():
            if spec.file in graphs:
                digest = hashlib.sha256(graphs[spec.file]).hexdigest()
                changes[part] = {**spec.model_dump(), "sha256": digest}
        return self._with(**changes)

    def _with(self, **changes: Any) -> "Manifest":
        return Manifest.model_validate({**self.to_json(), **changes})

    def to_json(self) -> dict[str, Any]:
        """Return all of it as plain data, in the newest form."""
        data = {**self.model_dump(mode="json", by_alias=True), "version": VERSION}
        for name in ("conformal", "look_again", "diameters", "measured", "film_offset"):
            if data["classifier"][name] is None:
                del data["classifier"][name]
        if self.detector.fusion is None:
            del data["detector"]["fusion"]
        elif self.detector.fusion.limits is None:
            del data["detector"]["fusion"]["limits"]
        if self.outlines is not None and self.outlines.box_agreement == 0:
            del data["outlines"]["box_agreement"]
        absent = [name for name in ("films", "exemplars") if data[name] is None]
        return {key: value for key, value in data.items() if key not in absent}

    def write(self, folder: Path, graphs: Mapping[str, bytes] | None = None) -> None:
        """Write the manifest, graphs and all checksums of a bundle, all or none.

        Args:
            folder: of the bundle.
            graphs: to write with it, and exemplars, by file name; those left out must be there
                already.
        """
        content = dict(graphs or {})
        whole = self.with_graphs(content)
        content[MANIFEST] = (json.dumps(whole.to_json(), indent=2) + "\n").encode()
        names = (MANIFEST, *whole.files)
        content[SUMS] = sums_of(folder, names, content).encode()
        write_together({folder / name: data for name, data in content.items()})


def _upgraded(data: dict[str, Any]) -> dict[str, Any]:
    """Convert a manifest of version 1 or 2 to the newest form; others are unchanged."""
    if data.get("version") not in (1, 2) or not _OLD_KEYS.keys() & data.keys():
        return data
    new = {_OLD_KEYS.get(key, key): value for key, value in data.items()}
    types = new.get("object_types")
    if isinstance(types, list | tuple):
        new["roles"] = {k: v for k, v in _OLD_ROLES.items() if k == "classified" or v in types}
    new["classifier"] = _renamed(new.get("classifier"), {"confirms": "verifies"})
    new["training"] = _renamed(new.get("training"), {"reader": "classifier"})
    metrics = new.get("metrics")
    if isinstance(metrics, dict) and "validation" in metrics:
        validation = _renamed(metrics["validation"], {"reader": "classifier"})
        new["metrics"] = {**metrics, "validation": validation}
    return {key: value for key, value in new.items() if value is not None}


def _renamed(data: Any, names: Mapping[str, str]) -> Any:
    return {names.get(k, k): v for k, v in data.items()} if isinstance(data, dict) else data


def _only(names: Any, known: tuple[str, ...], what: str, where: str) -> None:
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(f"{what}: {unknown[0]!r} is not in {where}")


def read_manifest(text: bytes, place: str) -> Manifest:
    """Check the bytes of a manifest; `BundleError` (one line, begins with `place`) if wrong."""
    if len(text) > MAX_MANIFEST_BYTES:
        raise BundleError(
            f"{place}: {len(text) / 1e6:.0f} MB, too large for a manifest; the bundle is damaged, "
            "get it again"
        )
    try:
        data = loads(text)
    except (ValueError, RecursionError):
        raise BundleError(f"{place}: not JSON; the bundle is damaged, get it again") from None
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise BundleError(f'{place}: not a bloodfilm bundle (no "format": "{FORMAT}")')
    if data.get("version") not in range(OLDEST_VERSION, VERSION + 1):
        raise BundleError(
            f"{place}: bundle version {shortened(repr(data.get('version')), 40)}, but this program "
            f"reads versions {OLDEST_VERSION} to {VERSION}; use a bloodfilm that matches the bundle"
        )
    try:
        return Manifest.model_validate(data)
    except ValidationError as error:
        old = {new: old for old, new in _OLD_KEYS.items() if old in data}
        raise BundleError(f"{place}: {_first(error, old)}") from None


def _first(error: ValidationError, names: Mapping[str, str]) -> str:
    """Return the first complaint of pydantic as one short line, keys called as in the file."""
    complaint = error.errors(include_url=False, include_context=False, include_input=False)[0]
    keys = [names.get(str(part), str(part)) for part in complaint["loc"]]
    at = shortened(".".join(shortened(key, 40) for key in keys), 120)
    message = shortened(str(complaint["msg"]).removeprefix("Value error, "), MAX_MESSAGE)
    if complaint["type"] == "extra_forbidden":
        message = "this program does not know this key"
    more = "" if error.error_count() == 1 else f" (and {error.error_count() - 1} more)"
    return f"{at}: {message}{more}" if at else f"{message}{more}"
