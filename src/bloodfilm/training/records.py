"""What `run.json` says of a finished or running training: typed, for the export.

Each task contributes its part (`Task.record`); the loop adds the version and the configuration.
Names of older versions are accepted.
"""

import json
from pathlib import Path
from typing import Any, TypeVar

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError

from bloodfilm.core.attributes import Schema
from bloodfilm.core.errors import ConfigError
from bloodfilm.core.taxonomy import Taxonomy
from bloodfilm.inference.manifest import ColourSpec, UntrainedParts

RECORD = "run.json"


class RunRecord(BaseModel):
    """The record of any task.

    Attributes:
        version: of the program that trained.
        config: the configuration, as plain data.
        sources: per side (`train`, `validation`, ...), data sets with licence and field counts.
        split: the proof that training and validation are disjoint.
    """

    model_config = ConfigDict(frozen=True, populate_by_name=True)

    version: str
    config: dict[str, Any]
    sources: dict[str, list[dict[str, Any]]]
    split: dict[str, Any] = {}


class DetectorRecord(RunRecord):
    """The record of a detector, also of one trained by task `sparse`.

    Attributes:
        object_types: in the order of the network's outputs.
        um_per_px: of the images that the network sees.
    """

    object_types: tuple[str, ...] = Field(validation_alias=AliasChoices("object_types", "kinds"))
    um_per_px: float


class ClassifierRecord(RunRecord):
    """The record of a cell classifier.

    Attributes:
        leaves: classes in the order of the network's outputs.
        taxonomy_data, schema_data: the vocabulary as plain data; see `taxonomy` and `attributes`.
        untrained: leaves and attributes without a training example.
        verifies: whether the verification head was trained.
        size, um_per_px: of the crops that the network sees.
        colours: what their colours are normalised to; `None`: balanced by the field's white point.
    """

    leaves: tuple[str, ...]
    taxonomy_data: list[dict[str, Any]] = Field(validation_alias="taxonomy")
    schema_data: dict[str, Any] = Field(validation_alias="schema")
    untrained: UntrainedParts = Field(validation_alias=AliasChoices("untrained", "unlearnt"))
    verifies: bool = Field(False, validation_alias=AliasChoices("verifies", "confirms"))
    size: int
    um_per_px: float
    colours: ColourSpec | None = None

    @property
    def taxonomy(self) -> Taxonomy:
        """The tree of classes."""
        return Taxonomy.from_json(self.taxonomy_data)

    @property
    def attributes(self) -> Schema:
        """The attributes, in the order of the network's outputs."""
        return Schema.from_json(self.schema_data)


Record = TypeVar("Record", bound=RunRecord)


def read_record(run: Path, kind: type[Record]) -> Record:
    """Read the record in a run's folder.

    Raises:
        ConfigError: if there is none, or it is not of that kind.
    """
    path = run / RECORD
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read ({error})") from None
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        key = ".".join(str(part) for part in first["loc"]) or "the file"
        raise ConfigError(
            f"{path}: is not the record of such a run ({key}: {first['msg'].lower()})"
        ) from None
