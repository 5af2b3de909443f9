"""Typed content of `run.json` of a training run, for the export.

Each task contributes its part (`Task.record`); the loop adds the version and the configuration.
Records of older versions are brought to the form of today.
"""

from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from bloodfilm.core.attributes import LLD_SCHEMA
from bloodfilm.core.errors import ConfigError, DataError
from bloodfilm.core.json_text import read_json_file
from bloodfilm.core.taxonomy import DEFAULT_TAXONOMY
from bloodfilm.inference.manifest import ColourSpec, UntrainedParts
from bloodfilm.training.vocabulary import (
    DEFAULT_CLASSIFIED,
    DEFAULT_OBJECT_TYPES,
    DEFAULT_RULER,
    Vocabulary,
)

RECORD = "run.json"
_RENAMED = {"unlearnt": "untrained", "confirms": "verifies"}


class RunRecord(BaseModel):
    """The record of any task.

    Attributes:
        version: of the program that trained.
        config: the configuration, as plain data.
        vocabulary: plain data, see `read_vocabulary`.
        sources: per side (`train`, `validation`, ...), data sets with licence and field counts.
        split: the proof that training and validation are disjoint.
        domains: names of the domains that batches refer to.
    """

    model_config = ConfigDict(frozen=True)

    version: str
    config: dict[str, Any]
    vocabulary: dict[str, Any]
    sources: dict[str, list[dict[str, Any]]]
    split: dict[str, Any] = {}
    domains: tuple[str, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _newest_form(cls, data: Any) -> Any:
        """Bring a record without `vocabulary`, of an older version, to the form of today."""
        if not isinstance(data, dict) or "vocabulary" in data:
            return data
        new = {_RENAMED.get(key, key): value for key, value in data.items()}
        new["vocabulary"] = {
            "taxonomy": new.get("taxonomy", DEFAULT_TAXONOMY.to_json()),
            "schema": new.get("schema", LLD_SCHEMA.to_json()),
            "object_types": new.get("object_types", new.get("kinds", list(DEFAULT_OBJECT_TYPES))),
            "roles": {"classified": DEFAULT_CLASSIFIED, "ruler": DEFAULT_RULER},
        }
        return new

    def read_vocabulary(self) -> Vocabulary:
        """Return classes, attributes and object types.

        Raises:
            DataError: if they are malformed.
        """
        try:
            return Vocabulary.from_json(self.vocabulary)
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"vocabulary of the run: malformed ({error!r})") from None


class DetectorRecord(RunRecord):
    """The record of a detector, also of one trained by task `sparse`.

    Attributes:
        um_per_px: of the network's input.
    """

    um_per_px: float


class ClassifierRecord(RunRecord):
    """The record of a cell classifier.

    Attributes:
        untrained: leaves and attributes without a training example.
        verifies: whether the verification head was trained.
        size, um_per_px: of the network's input crops.
        colours: what their colours are normalised to; `None`: balanced by the field's white point.
    """

    untrained: UntrainedParts
    verifies: bool = False
    size: int
    um_per_px: float
    colours: ColourSpec | None = None


class OutlineRecord(RunRecord):
    """The record of an outline network.

    Attributes:
        size: side of the network's crops, px.
        share: of it that the longer side of a cell's box takes.
        colours: what the crops' colours are normalised to.
    """

    size: int
    share: float
    colours: ColourSpec


Record = TypeVar("Record", bound=RunRecord)


def read_record(run: Path, kind: type[Record]) -> Record:
    """Read the record in a run's folder.

    Raises:
        ConfigError: if there is none, or it is not of that kind.
    """
    path = run / RECORD
    try:
        data = read_json_file(path)
    except DataError as error:
        raise ConfigError(str(error)) from None
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        key = ".".join(str(part) for part in first["loc"]) or "the file"
        raise ConfigError(
            f"{path}: is not the record of such a run ({key}: {first['msg'].lower()})"
        ) from None
