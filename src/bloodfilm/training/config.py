"""The configuration of a training run: a TOML file in which every key is known.

`load_config` reads a file, or one of the configurations that the package ships (`shipped_configs`);
`parse_config` validates data that are already read. Keys of older versions are accepted: see
`bloodfilm.training.config_versions`.
"""

import logging
import tomllib
from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from bloodfilm.core.errors import ConfigError, DataError
from bloodfilm.core.files import read_regular_file
from bloodfilm.training.config_versions import upgrade_config

MAX_CONFIG_BYTES = 1 << 20
_log = logging.getLogger(__name__)

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    """A table of the file; an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class DatasetConfig(Section):
    """One data set, or some of its splits.

    Attributes:
        path: file or folder, relative to the data root.
        format: of the labels; `None` detects it.
        splits: which of its splits to use; empty uses every field.
        split_file: output of `bloodfilm data split`, relative to the data root. Its splits replace
            those of the data set, and fields that it does not list are left out.
        options: passed to the reader of the format.
        repeat: how often an epoch draws from it, relative to its size.
        omit_attributes: attributes that are not learnt from it.
        most: use at most so many of its fields per class of their first cell, chosen at random;
            `None` uses all. A short training draws few of ten thousand pictures that it would
            have to open.
    """

    path: Path
    format: str | None = None
    splits: tuple[str, ...] = ()
    split_file: Path | None = None
    options: dict[str, Any] = {}
    repeat: Positive = 1.0
    omit_attributes: tuple[str, ...] = ()
    most: Count | None = None


class ModelSection(Section):
    """The network.

    Attributes:
        backbone: a timm model name.
        start: checkpoint of another run (`best.pt`) to initialise the whole network from, relative
            to the working folder; the architecture must be the same. Replaces `weights`.
        weights: pretrained weights of the backbone (`load_folded` lists the layouts): a file
            relative to the data root, or `package:NAME/FILE` of an installed package.
        width: channels of neck and heads (detector), hidden width of each head (classifier).
        dropout: on the classifier's feature vector.
        frozen: the backbone stays as it starts, batch statistics too; only what follows it learns.
            With few patients, whose cells differ by more than their class, this forgets less and
            is three times as fast.
        keep: share of the starting weights (`start`) that a finished classifier goes back to: its
            weights are the mean of both (Wortsman et al., CVPR 2022). What few patients taught
            replaces less of what was known before.
        input: the classifier's input: `crop` (the cell at a resolution of its own) or
            `roi` (early features of a wide view pooled over the box, the AttriDet baseline).
    """

    backbone: str = "mobilenetv2_100"
    start: Path | None = None
    weights: str | None = None
    width: Count = 80
    dropout: Share = 0.2
    frozen: bool = False
    keep: Share = 0.0
    input: Literal["crop", "roi"] = "crop"


class DataSection(Section):
    """Training and validation data, and their vocabulary.

    Attributes:
        train, validation: data sets; no field and no patient may be in both.
        taxonomy: JSON file with the tree of classes, relative to the data root; `None` merges the
            trees of the data sets.
        schemas: attribute schemas, joined in order. Each is the name of a built-in schema, a JSON
            file (`*.json`) relative to the data root, or `data`: those of the data sets.
        object_types: types that the detector distinguishes: nodes of the tree, none above another;
            `None` takes nucleated cell, red cell and platelet, as far as the tree has them.
        classified: the object type that the classifier names; `None` takes nucleated cell, or the
            first type where there is none.
        count_as: what the detector learns a class to be that lies under no object type: an object
            type, or `background`; other such classes are ignored.
        ruler: the object type that is 7.5 um across and round and so gives the scale; `None` takes
            red cell, if the detector finds these.
        other: node of the tree whose leaves the classifier names too: objects that are no intact
            cell but pass for one. They are learnt from `rendered`.
        size: side of a training image in canonical pixels (detector).
    """

    train: Annotated[tuple[DatasetConfig, ...], Field(min_length=1)]
    validation: Annotated[tuple[DatasetConfig, ...], Field(min_length=1)]
    taxonomy: Path | None = None
    schemas: tuple[str, ...] = ("lld",)
    object_types: tuple[str, ...] | None = None
    classified: str | None = None
    count_as: dict[str, str] = {}
    ruler: str | None = None
    other: str | None = None
    size: Annotated[int, Field(ge=64, multiple_of=32)] = 320


class OptimSection(Section):
    """Optimisation.

    Attributes:
        epochs, batch: length of the run; samples that are computed at once. Without an epoch the
            starting weights are validated and finished (see `correction`) only.
        accumulate: batches per optimiser step: gradients are summed over so many.
        samples: images per epoch (detector mosaics); `None` uses each training item once.
        lr: peak learning rate of AdamW at this batch size; `backbone_lr` is a factor on it.
        weight_decay: on weights of two or more dimensions.
        warmup: share of all steps in which the learning rate rises.
        ema: decay of the averaged weights that are validated and exported.
        clip: maximum gradient norm.
        precision: `fp32`, `bf16`, or `auto` (bf16 where the device computes it in hardware).
        workers: data loading processes; `None` uses none on two cores, up to eight on more.
        validate_every: epochs between validations.
    """

    epochs: Annotated[int, Field(ge=0)] = 20
    batch: Count = 32
    accumulate: Count = 1
    samples: Count | None = None
    lr: Positive = 1e-3
    backbone_lr: Positive = 0.5
    weight_decay: NotNegative = 0.02
    warmup: Share = 0.05
    ema: Share = 0.999
    clip: Positive = 10.0
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    workers: Annotated[int, Field(ge=0)] | None = None
    validate_every: Count = 1


class AugmentSection(Section):
    """Strength of augmentation; 0 switches a part off.

    Attributes:
        stain: mixing and scaling of the stains' absorbance.
        contrast: how close red cells may come to nuclei in darkness, or how far they may fade.
        recolour: share of fields whose red cells get another colour, where boxes separate them
            from nuclei.
        permute: share of images whose colour channels are shuffled.
        light: brightness, tint and gradient of the illumination.
        blur: largest sigma of defocus, in pixels of the training image.
        noise: largest standard deviation of sensor noise, grey levels.
        scale: the scale varies by a factor of up to `exp(scale)` either way.
        shrink: the centre of that range is `exp(-shrink)`: cells appear smaller than they are.
        aspect: the same for width against height.
        shift: the classifier's crop is off centre by up to this share of its side.
        optics: strength of what cheap lenses, lamps and cameras do: fewer pixels, halos, chromatic
            fringes, coloured shading, haze, sharpening, JPEG (detector).
        aim: share of a mosaic's pieces that are cut around a cell of the classified type, where
            the field does not fit whole (detector).
        mild: share of images that get a quarter of all this.
    """

    stain: NotNegative = 0.3
    contrast: NotNegative = 0.0
    recolour: Share = 0.0
    permute: Share = 0.1
    light: NotNegative = 0.5
    blur: NotNegative = 1.2
    noise: NotNegative = 6.0
    scale: NotNegative = 0.25
    shrink: float = 0.0
    aspect: NotNegative = 0.06
    shift: Share = 0.05
    optics: NotNegative = 0.0
    aim: Share = 0.0
    mild: Share = 0.3


class AppearanceSection(Section):
    """How the classifier is made independent of one film's appearance.

    See `bloodfilm.training.data.appearance`.

    Attributes:
        normalise: normalise every crop to standard colours, in training and wherever the bundle is
            used; the rest of this table and rotation by any angle then replace the pixel parts of
            `augment`.
        stain: strength of stain augmentation; 0 switches it off.
        optics: strength of the augmentation of lens, lamp and sensor.
        transfer: share of crops that take over colours of a crop of another data set.
        transfer_lone: the same for classes that only one data set has: nothing else separates the
            class from the appearance of that set.
        mild: share of crops that get a third of stain and optics.
    """

    normalise: bool = False
    stain: NotNegative = 1.0
    optics: NotNegative = 1.0
    transfer: Share = 0.4
    transfer_lone: Share = 0.8
    mild: Share = 0.25


class SamplingSection(Section):
    """How often each of the classifier's cells is drawn.

    With both at 1 every cell is drawn once per epoch. Below, cells are drawn with replacement,
    `optim.samples` per epoch.

    Attributes:
        sets: a data set is drawn in proportion to its number of cells raised to this; 0 draws all
            sets equally often. `repeat` of the set is a factor on it.
        labels: the same for a label within its set; where patients are known, each label of each.
    """

    sets: Share = 1.0
    labels: Share = 1.0

    @property
    def even(self) -> bool:
        """Whether every cell is as likely as any other."""
        return self.sets == 1 and self.labels == 1


class LossSection(Section):
    """Weights of the loss terms.

    Attributes:
        object_type, box, edge: of the detector's terms.
        class_weight: of the classifier's class term against the mean over its attributes.
        nucleated: of the classifier's verification term (is there a nucleated cell at all).
        smoothing: label smoothing of the class.
        balance: exponent on inverse value frequency within an attribute, 0 = none, 1 = full.
    """

    object_type: NotNegative = 1.0
    box: NotNegative = 2.0
    edge: NotNegative = 1.0
    class_weight: NotNegative = 1.0
    nucleated: NotNegative = 0.5
    smoothing: Share = 0.05
    balance: Share = 0.25


class HardNegativeSection(Section):
    """How the classifier learns to reject what is not a nucleated cell; off without data.

    Attributes:
        train, validation: data sets with boxes of red cells or platelets, or images of one
            centred cell each. Nothing else is learnt from them.
        red_cells: red cells per field.
        empty: places per field where nothing is boxed.
        share: of the crops drawn with `sampling` that are hard negatives.
        augment: strength of augmentation of these crops.
    """

    train: tuple[DatasetConfig, ...] = ()
    validation: tuple[DatasetConfig, ...] = ()
    red_cells: Annotated[int, Field(ge=0)] = 4
    empty: Annotated[int, Field(ge=0)] = 1
    share: Share = 0.15
    augment: AugmentSection = AugmentSection()


class CorrectionSection(Section):
    """Linear corrections of a classifier's answers, fitted after training: `training.corrections`.

    They suit few patients on top of a classifier that has learnt from many: the fit keeps to that
    classifier's answers where the patients do not speak against them.

    Attributes:
        samples: crops, drawn and augmented as in training, whose descriptions are fitted; 0 is off.
        classes, attributes: penalty on how far the answers move away from those of the heads.
    """

    samples: Annotated[int, Field(ge=0)] = 0
    classes: Positive = 0.03
    attributes: Positive = 0.03


class FilmOffsetSection(Section):
    """Naming by the film: its cells are compared with those of all films, see `training.films`.

    Needs `correction`: a second one is fitted to cells whose film's offset has been taken away.

    Attributes:
        sets: data sets whose films are recentred, a film being one domain and patient; empty is
            off. The cells of all other sets are what films are compared with: they are learnt as
            they are and recentred, in equal parts.
        groups: nodes of the taxonomy, each a group together with its leaves that no earlier group
            has; the other leaves are one group more. The group of a cell follows from what is left
            without the offset, the class within it from its description as it is.
        priors: by leaf, how many times as frequent the class is on films as in training.
    """

    sets: tuple[str, ...] = ()
    groups: tuple[tuple[str, ...], ...] = ()
    priors: dict[str, Positive] = {}


class RenderedSection(Section):
    """Rendered crops from which the classifier learns the classes of `data.other`.

    They are objects that no data set labels. Beside them rendered white cells are shown, of which
    only that they are cells is learnt, so that a rendered picture does not mean an artefact.

    Attributes:
        objects: rendered crops per class of `data.other`.
        cells: rendered white cells, of all classes in equal parts.
        validation: crops of every class, and as many cells, to judge by.
        share: of the crops drawn with `sampling` that are rendered, half of them cells.
        over_real: share of them, cells and objects alike, drawn over real red cells, platelets and
            background (the training's hard negatives) in place of drawn ones.
    """

    objects: Annotated[int, Field(ge=2)] = 400
    cells: Annotated[int, Field(ge=2)] = 1600
    validation: Annotated[int, Field(ge=1)] = 40
    share: Share = 0.15
    over_real: Share = 0.0


class SparseSection(Section):
    """How task `sparse` learns from fields of which only regions are annotated.

    Attributes:
        unmarked: what an area without annotation is: `unknown`, or `background` (the naive
            assumption).
        border: a location in a region, nearer to its border than this and in no annotated box, is
            unknown, canonical px: an unannotated cell from outside may reach in.
        patches: share of the epochs, the first ones, that use cut-outs of annotated regions only.
        mix: share of the training images that are such cut-outs in the later epochs.
        context: margin of a cut-out around a region and its cells, canonical px; it stays unknown.
        balance: repeat factor of cut-outs and fields with rare object types: a type annotated in a
            share f of all makes one count (most common type's f / f) ** balance, at least 1; 0
            is off.
        copy_paste: annotated cells pasted into each whole field, on average, where they hide no
            annotated cell; every object type equally often.
        teacher: source of pseudo labels: `none`, the `student` itself, or the `average` (EMA) of
            its weights.
        begin: share of the epochs before pseudo labels are used.
        weight: of pseudo labels against annotations.
        boxes: weight of the teacher's box edges against its object types; 0 learns box edges from
            annotations alone.
        calibrated: a pseudo label weighs as much as boxes of its type and score proved right in
            annotated regions; otherwise it weighs 1.
        confidence: a pseudo label is used if its score (calibrated: its measured precision)
            reaches this.
        nms: boxes with a greater IoU are one cell.
        background: a location is background where no type's score reaches this; between it and a
            used box nothing is known. 0 never, 1 everywhere.
        views: the student sees an augmented view of what the teacher saw unaugmented (`average`
            only).
        turn: the teacher sees each image randomly rotated and mirrored (`average` only).
        similarity: weight of the term that draws features of pseudo-labelled cells to those of
            annotated cells of their type and away from other types, in the first two thirds.
        attributes: weight of the attributes of the schemas, predicted from the detector's early
            levels at the detected cells; 0 predicts none.
        asymmetric: use the asymmetric loss for attributes instead of the cross entropy.
        teacher_attributes: learn the attributes of pseudo-labelled cells from the teacher.
    """

    unmarked: Literal["unknown", "background"] = "unknown"
    border: Annotated[float, Field(ge=0)] = 6.0
    patches: Share = 0.33
    mix: Share = 0.6
    context: Annotated[float, Field(ge=0)] = 3.0
    balance: Share = 0.5
    copy_paste: NotNegative = 3.0
    teacher: Literal["none", "student", "average"] = "average"
    begin: Share = 0.33
    weight: Annotated[float, Field(ge=0)] = 0.15
    boxes: NotNegative = 0.0
    calibrated: bool = True
    confidence: Share = 0.5
    nms: Share = 0.5
    background: Share = 1.0
    views: bool = True
    turn: bool = True
    similarity: Annotated[float, Field(ge=0)] = 0.0
    attributes: NotNegative = 0.0
    asymmetric: bool = False
    teacher_attributes: bool = True


class OutlinesSection(Section):
    """What task `outlines` draws and learns: it needs no data set.

    Attributes:
        cells, validation_cells: number of drawn cells to learn from and to judge by.
        widths: channels of the network's levels, from half the crop's resolution down.
        size: side of the network's crops, px.
        share: of that side that the longer side of a cell's box takes.
        deform: standard deviation of a random elongation of the cells (natural logarithm).
        stretch: standard deviation of the error of a box's size (natural logarithm); half of it
            of the aspect.
        shift: standard deviation of the error of a box's centre, as a share of its longer side.
        bend: standard deviation of a smooth random shift of a cell's parts, as a share of its box.
        bare: chance that a cell of little cytoplasm shows none; its nucleus is not learnt then.
        neighbour: chance that a second cell is laid against a cell.
        cytoplasm: chance that cytoplasm is made paler, darker or grainier.
        plasma: chance that the glass is stained.
        dice: weight of the soft Dice term against the binary cross entropy.
    """

    cells: Count = 5000
    validation_cells: Count = 500
    widths: Annotated[tuple[Count, ...], Field(min_length=2)] = (16, 32, 64, 96)
    size: Annotated[int, Field(ge=32, multiple_of=16)] = 96
    share: Annotated[float, Field(gt=0.2, lt=1)] = 0.625
    deform: NotNegative = 0.12
    stretch: NotNegative = 0.17
    shift: NotNegative = 0.05
    bend: NotNegative = 0.03
    bare: Share = 0.25
    neighbour: Share = 0.2
    cytoplasm: Share = 0.7
    plasma: Share = 0.7
    dice: NotNegative = 1.0


NO_DATA = DataSection.model_construct(train=(), validation=())
"""The data of a task that draws its own."""


class Config(Section):
    """A whole training run."""

    task: Literal["detector", "classifier", "sparse", "outlines"]
    seed: Annotated[int, Field(ge=0)] = 0
    model: ModelSection = ModelSection()
    data: DataSection = NO_DATA
    optim: OptimSection = OptimSection()
    augment: AugmentSection = AugmentSection()
    appearance: AppearanceSection = AppearanceSection()
    sampling: SamplingSection = SamplingSection()
    loss: LossSection = LossSection()
    hard_negatives: HardNegativeSection = HardNegativeSection()
    rendered: RenderedSection = RenderedSection()
    correction: CorrectionSection = CorrectionSection()
    film_offset: FilmOffsetSection = FilmOffsetSection()
    sparse: SparseSection = SparseSection()
    outlines: OutlinesSection = OutlinesSection()

    @model_validator(mode="before")
    @classmethod
    def _data_as_needed(cls, data: Any) -> Any:
        """Ask every task but `outlines` for data."""
        if not isinstance(data, dict):
            return data
        given = data.get("data")
        if data.get("task") != "outlines":
            return {"data": {}, **data}
        if isinstance(given, dict) and not given.get("train") and not given.get("validation"):
            return {key: value for key, value in data.items() if key != "data"}
        return data


# ---- files -----------------------------------------------------------------------------------


def shipped_configs() -> dict[str, str]:
    """Return the configurations that the package ships: file name to TOML text, by name."""
    folder = files("bloodfilm") / "configs"
    found = sorted((f for f in folder.iterdir() if f.name.endswith(".toml")), key=lambda f: f.name)
    return {f.name: f.read_text(encoding="utf-8") for f in found}


def shipped_config(name: str) -> str:
    """Return the text of a shipped configuration; its name with or without `.toml`.

    Raises:
        ConfigError: if none has that name.
    """
    known = shipped_configs()
    text = known.get(name) or known.get(f"{name}.toml")
    if text is None:
        raise ConfigError(f"{name}: no such configuration is shipped; there are {', '.join(known)}")
    return text


def load_config(path: Path) -> Config:
    """Read a configuration file.

    A bare name that is no file in the working folder is looked up among the shipped configurations,
    with or without `.toml`. Keys of older versions are reported as warnings.

    Raises:
        ConfigError: one line with the file, the key and the remedy.
    """
    try:
        if path.name == str(path) and not path.exists():
            text = _shipped_or_missing(path)
        else:
            text = read_regular_file(path, MAX_CONFIG_BYTES).decode("utf-8")
        data = tomllib.loads(text)
    except DataError as error:
        raise ConfigError(str(error)) from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: not a TOML file: {error}") from None
    config, notes = _validated(data, str(path))
    for note in notes:
        _log.warning("%s: %s", path, note)
    return config


def _shipped_or_missing(path: Path) -> str:
    known = shipped_configs()
    text = known.get(path.name) or known.get(f"{path.name}.toml")
    if text is None:
        raise ConfigError(
            f"{path}: cannot be read (no such file, nor is it one of the shipped configurations "
            f"{', '.join(known)})"
        )
    return text


def parse_config(data: dict[str, Any], name: str) -> Config:
    """Validate configuration data, of any version; `name` is how errors refer to them."""
    return _validated(data, name)[0]


def _validated(data: dict[str, Any], name: str) -> tuple[Config, list[str]]:
    """Return the configuration, and a note per key of an older version."""
    try:
        data, notes = upgrade_config(data)
    except ConfigError as error:
        raise ConfigError(f"{name}: {error}") from None
    try:
        return Config.model_validate(data), notes
    except ValidationError as error:
        every = error.errors()
        # A misspelt table also leaves the right one missing: report the spelling.
        first = next((e for e in every if e["type"] == "extra_forbidden"), every[0])
        key = ".".join(str(part) for part in first["loc"]) or "the file"
        if first["type"] == "extra_forbidden":
            raise ConfigError(f"{name}: {key} is no known key{_hint(first['loc'])}") from None
        raise ConfigError(f"{name}: {key}: {first['msg'].lower()}") from None


def _hint(location: tuple[int | str, ...]) -> str:
    """Name the key that a misspelt one may have been."""
    section: Any = Config
    for part in location[:-1]:
        if isinstance(part, int):
            continue
        annotation = section.model_fields[part].annotation
        section = getattr(annotation, "__args__", (annotation,))[0]
        if not (isinstance(section, type) and issubclass(section, BaseModel)):
            return ""
    close = get_close_matches(str(location[-1]), list(section.model_fields), n=1)
    return f"; did you mean {close[0]}?" if close else ""
