"""A bundle's manifest: everything two graphs need around them to be used rightly."""

import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from bloodfilm.core.attributes import Schema
from bloodfilm.core.errors import BundleError, DataError
from bloodfilm.core.taxonomy import Taxonomy
from bloodfilm.imaging.colour_normalisation import ColourStandard

FORMAT = "bloodfilm-bundle"
VERSION = 2
OLDEST_VERSION = 1
SUMMED_VERSION = 2
"""From this version on a bundle must have `SHA256SUMS`; nothing else changed."""
NUCLEATED = "nucleated cell"
RED_CELL = "red cell"
PLATELET = "platelet"

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$")]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DetectorSpec(_Strict):
    """The detector graph: pixels in (uint8, B x H x W x 3), dense scores and distances out.

    Attributes:
        um_per_px, background: the canonical view it wants (scale, white point).
        stride: canonical pixels per output location.
        multiple: height and width must be multiples of it; pad right and bottom with `background`.
        thresholds: lowest score that counts, by kind.
        nms_iou: of two boxes of one kind that overlap more, the better stays.
        tile, overlap: how larger fields are cut, canonical pixels.
    """

    file: FileName
    sha256: Sha256
    um_per_px: Positive
    background: Annotated[int, Field(ge=0, le=255)]
    stride: Annotated[int, Field(ge=1)]
    multiple: Annotated[int, Field(ge=1)]
    thresholds: dict[str, Share]
    nms_iou: Share
    tile: Annotated[int, Field(ge=32)]
    overlap: Annotated[int, Field(ge=0)]

    @model_validator(mode="after")
    def _fits(self) -> "DetectorSpec":
        if self.multiple % self.stride:
            raise ValueError("multiple must be a multiple of stride")
        if self.tile <= 2 * self.overlap:
            raise ValueError("tile must be longer than two overlaps")
        return self


class ColourSpec(_Strict):
    """The colours a graph's crops are brought to: see `ColourStandard`."""

    white: Annotated[float, Field(gt=0, le=255)]
    depth: Positive
    chroma: Positive
    nucleus: tuple[float, float] | None


class ReaderSpec(_Strict):
    """The reader graph: crops in (uint8, N x size x size x 3), classes, attributes, novelty out.

    Attributes:
        size, um_per_px, background: the crop it wants.
        colours: what each crop's colours are normalised to; `None` balances them by the field's
            white point.
        confirms: it also has an output `nucleated`, the logit of there being a nucleated cell.
        temperatures: what the logits of `class`, of `nucleated` and of each attribute are divided
            by; 1 if absent.
        class_confidence: a cell gets the deepest node whose summed probability reaches it.
        attribute_confidence: an attribute's value below it is not given.
        novelty_threshold: a cell above it is like nothing learnt; `None` says never.
    """

    file: FileName
    sha256: Sha256
    size: Annotated[int, Field(ge=16)]
    um_per_px: Positive
    background: Annotated[int, Field(ge=0, le=255)]
    colours: ColourSpec | None = None
    confirms: bool = False
    temperatures: dict[str, Positive]
    class_confidence: Share
    attribute_confidence: Share
    novelty_threshold: float | None

    @property
    def colour_standard(self) -> ColourStandard | None:
        """What to normalise every crop to, if to anything."""
        return None if self.colours is None else ColourStandard(**self.colours.model_dump())


class UntrainedParts(_Strict):
    """Leaves and attributes that no training example ever named."""

    classes: tuple[str, ...] = ()
    attributes: tuple[str, ...] = ()


class Manifest(_Strict):
    """All of `manifest.json`; a key nobody knows is refused, so that none is overlooked."""

    format: Literal["bloodfilm-bundle"]
    version: Literal[1, 2]
    name: str
    created: str
    licence: str
    taxonomy: list[dict[str, Any]]
    schema_: Annotated[dict[str, Any], Field(alias="schema")]
    kinds: tuple[str, ...]
    leaves: tuple[str, ...]
    unlearnt: UntrainedParts
    detector: DetectorSpec
    reader: ReaderSpec
    training: dict[str, Any]
    metrics: dict[str, Any]

    @model_validator(mode="after")
    def _agrees(self) -> "Manifest":
        tree, schema = self.read_taxonomy(), self.read_schema()
        if NUCLEATED not in self.kinds or len(set(self.kinds)) != len(self.kinds):
            raise ValueError(f"kinds must be unlike names, {NUCLEATED!r} among them")
        _only(self.kinds, tree.names, "kinds", "the taxonomy")
        if set(self.leaves) != set(tree.leaves_under(NUCLEATED)) or len(self.leaves) != len(
            set(self.leaves)
        ):
            raise ValueError(f"leaves must be the taxonomy's leaves under {NUCLEATED!r}")
        if set(self.detector.thresholds) != set(self.kinds):
            raise ValueError("detector.thresholds needs exactly one score per kind")
        _only(self.unlearnt.classes, self.leaves, "unlearnt.classes", "leaves")
        _only(self.unlearnt.attributes, schema.names, "unlearnt.attributes", "the schema")
        heads = ("class", "nucleated", *schema.names)
        _only(self.reader.temperatures, heads, "reader.temperatures", "the schema")
        if set(self.unlearnt.classes) == set(self.leaves):
            raise ValueError("unlearnt.classes names every leaf; a reader that learnt none is none")
        return self

    def read_taxonomy(self) -> Taxonomy:
        """The tree the classes are nodes of; ValueError if malformed."""
        try:
            return Taxonomy.from_json(self.taxonomy)
        except DataError as error:
            raise ValueError(str(error)) from None

    def read_schema(self) -> Schema:
        """The attributes the reader answers; ValueError if malformed."""
        try:
            return Schema.from_json(self.schema_)
        except DataError as error:
            raise ValueError(str(error)) from None


def _only(names: Any, known: tuple[str, ...], what: str, where: str) -> None:
    strangers = [name for name in names if name not in known]
    if strangers:
        raise ValueError(f"{what}: {strangers[0]!r} is not in {where}")


def read_manifest(text: bytes, place: str) -> Manifest:
    """Check the bytes of a manifest; `BundleError` (one line, begins with `place`) if wrong."""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        raise BundleError(f"{place}: not JSON; the bundle is damaged, get it again") from None
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise BundleError(f'{place}: not a bloodfilm bundle (no "format": "{FORMAT}")')
    if data.get("version") not in range(OLDEST_VERSION, VERSION + 1):
        raise BundleError(
            f"{place}: bundle version {data.get('version')!r}, but this program reads versions "
            f"{OLDEST_VERSION} to {VERSION}; use a bloodfilm that matches the bundle"
        )
    try:
        return Manifest.model_validate(data)
    except ValidationError as error:
        raise BundleError(f"{place}: {_first(error)}") from None


def _first(error: ValidationError) -> str:
    """The first complaint of pydantic as one short line."""
    complaint = error.errors(include_url=False, include_context=False, include_input=False)[0]
    at = ".".join(str(part) for part in complaint["loc"])
    message = str(complaint["msg"]).removeprefix("Value error, ")
    if complaint["type"] == "extra_forbidden":
        message = "this program does not know this key"
    more = "" if error.error_count() == 1 else f" (and {error.error_count() - 1} more)"
    return f"{at}: {message}{more}" if at else f"{message}{more}"
