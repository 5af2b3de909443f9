"""What a run records of the model that made it: vocabulary, thresholds, identity."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bloodfilm.core.attributes import LLD_SCHEMA, Attribute, Schema
from bloodfilm.core.errors import DataError
from bloodfilm.core.figures import number, number_or_none, share
from bloodfilm.core.taxonomy import DEFAULT_TAXONOMY, NUCLEATED, PLATELET, RED_CELL, Taxonomy


@dataclass(frozen=True)
class ModelInfo:
    """A model as a result needs it: enough to count, tabulate and report without the bundle.

    Attributes:
        identity: name, created, licence, sha256 of the bundle and of its graphs.
        taxonomy: the tree that labels are nodes of.
        schema: the attributes.
        object_types: the detector's classes.
        classified: the object type that the classifier names: nucleated cells.
        untrained_classes: leaves that no training example had: the model cannot name them.
        untrained_attributes: attributes that no training example had.
        class_confidence: a cell gets the deepest node whose probability reaches it.
        class_coverage: where class sets decide instead, the share of cells whose true class is in
            their set; `None` without class sets.
        attribute_confidence: a value below it is not given.
        reports_unfamiliar: whether the model can tell that a cell is unlike its training cells.
        crop_um: side of the square window that the classifier sees, micrometres.
        metrics: the model's own figures, as its makers recorded them.
    """

    identity: Mapping[str, str]
    taxonomy: Taxonomy = DEFAULT_TAXONOMY
    schema: Schema = LLD_SCHEMA
    object_types: tuple[str, ...] = (NUCLEATED, RED_CELL, PLATELET)
    classified: str = NUCLEATED
    untrained_classes: tuple[str, ...] = ()
    untrained_attributes: tuple[str, ...] = ()
    class_confidence: float = 0.0
    attribute_confidence: float = 0.0
    reports_unfamiliar: bool = False
    crop_um: float = 22.4
    metrics: Mapping[str, Any] = field(default_factory=dict)
    class_coverage: float | None = None

    def __repr__(self) -> str:
        able = len(self.taxonomy.leaves) - len(self.untrained_classes)
        attributes = len(self.trained_attributes)
        return f"<ModelInfo {self.name!r}: {able} classes, {attributes} attributes>"

    @property
    def name(self) -> str:
        """The bundle's name."""
        return self.identity.get("name", "unnamed")

    @property
    def created(self) -> str:
        """When the bundle was made, ISO 8601; empty if not recorded."""
        return self.identity.get("created", "")

    @property
    def licence(self) -> str:
        """Of the bundle."""
        return self.identity.get("licence", "not recorded")

    @property
    def trained_attributes(self) -> tuple[Attribute, ...]:
        """The attributes that the model can judge."""
        unknown = self.untrained_attributes
        return tuple(a for a in self.schema.attributes if a.name not in unknown)

    def to_json(self) -> dict[str, Any]:
        """Return everything but the identity as plain data."""
        return {
            "taxonomy": self.taxonomy.to_json(),
            "schema": self.schema.to_json(),
            "object_types": list(self.object_types),
            "classified": self.classified,
            "untrained": {
                "classes": list(self.untrained_classes),
                "attributes": list(self.untrained_attributes),
            },
            "class_confidence": self.class_confidence,
            **({} if self.class_coverage is None else {"class_coverage": self.class_coverage}),
            "attribute_confidence": self.attribute_confidence,
            "reports_unfamiliar": self.reports_unfamiliar,
            "crop_um": self.crop_um,
            "metrics": dict(self.metrics),
        }

    def _check_names(self) -> None:
        """Refuse names of other lists that taxonomy, object types or schema do not have."""
        lists = (
            ("object_types", self.object_types, self.taxonomy.names),
            ("classified", (self.classified,), self.object_types),
            ("untrained.classes", self.untrained_classes, self.taxonomy.names),
            ("untrained.attributes", self.untrained_attributes, self.schema.names),
        )
        for key, names, known in lists:
            unknown = [name for name in names if name not in known]
            if unknown:
                raise DataError(f"model: {key}: {unknown[0][:40]!r} is no name of the model")

    @classmethod
    def from_json(cls, identity: Mapping[str, Any], data: Mapping[str, Any]) -> "ModelInfo":
        """Read what `to_json` wrote; `DataError` if it is no model."""
        try:
            model = cls(
                identity={str(k): str(v) for k, v in identity.items()},
                taxonomy=Taxonomy.from_json(data["taxonomy"]),
                schema=Schema.from_json(data["schema"]),
                object_types=tuple(map(str, data["object_types"])),
                classified=str(data["classified"]),
                untrained_classes=tuple(map(str, data["untrained"]["classes"])),
                untrained_attributes=tuple(map(str, data["untrained"]["attributes"])),
                class_confidence=share(data["class_confidence"], "class_confidence"),
                attribute_confidence=share(data["attribute_confidence"], "attribute_confidence"),
                reports_unfamiliar=bool(data["reports_unfamiliar"]),
                crop_um=number(data["crop_um"], "crop_um", 1e-3, 1e6),
                metrics=dict(data["metrics"]),
                class_coverage=number_or_none(data.get("class_coverage"), "class_coverage", 0, 1),
            )
            model._check_names()
            return model
        except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
            raise DataError(f"model: not the record of one ({error!r})") from None
