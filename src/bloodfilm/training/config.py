"""The configuration of a training run: a TOML file whose every key is known."""

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bloodfilm.core.errors import ConfigError

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    """A table of the file; a key it does not know is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class DatasetConfig(Section):
    """One data set, or some of its splits.

    Attributes:
        path: file or folder, relative to the data root.
        format: of the labels; `None` recognises it.
        splits: which of its splits; empty takes every field.
        split_file: what `bloodfilm data split` wrote, relative to the data root; its splits take
            the place of the data set's own, and fields it does not speak of are left out.
        options: passed to the format's reader.
        repeat: how often an epoch draws from it, relative to its size.
    """

    path: Path
    format: str | None = None
    splits: tuple[str, ...] = ()
    split_file: Path | None = None
    options: dict[str, Any] = {}
    repeat: Positive = 1.0


class ModelSection(Section):
    """The network.

    Attributes:
        backbone: a timm model name.
        start: checkpoint of another run (`best.pt`) to go on from, relative to the working
            folder; the network must be the same. It takes the place of `weights`.
        weights: published weights the backbone starts from (`load_folded` names the layouts): a
            file relative to the data root, or `package:NAME/FILE` of an installed package.
        width: channels of neck and heads (detector), hidden width of each head (reader).
        dropout: on the reader's description.
        reads: `crop` (the found cell at its own resolution) or `roi` (early features of a wide
            view pooled over the box, as AttriDet does).
    """

    backbone: str = "mobilenetv2_100"
    start: Path | None = None
    weights: str | None = None
    width: Count = 80
    dropout: Share = 0.2
    reads: Literal["crop", "roi"] = "crop"


class DataSection(Section):
    """What is learnt from, and what is looked at to choose.

    Attributes:
        train, validation: data sets; no field and no patient may be in both.
        schemas: attribute schemas the reader learns, joined in order.
        size: side of a training image in canonical pixels (detector).
    """

    train: Annotated[tuple[DatasetConfig, ...], Field(min_length=1)]
    validation: Annotated[tuple[DatasetConfig, ...], Field(min_length=1)]
    schemas: tuple[str, ...] = ("lld",)
    size: Annotated[int, Field(ge=64, multiple_of=32)] = 320


class OptimSection(Section):
    """How the weights move.

    Attributes:
        epochs, batch: length of the run and of a step.
        samples: images an epoch (detector mosaics); `None` takes each training item once.
        lr: peak learning rate of AdamW at this batch; `backbone_lr` is a factor on it.
        weight_decay: on weights of two or more dimensions.
        warmup: share of all steps in which the rate rises.
        ema: decay of the averaged weights that are validated and exported.
        clip: largest gradient norm.
        precision: `fp32`, `bf16`, or `auto` (bf16 where the device is fast at it).
        workers: loading processes; `None` takes none on two cores, up to eight on more.
        validate_every: epochs between validations.
    """

    epochs: Count = 20
    batch: Count = 32
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
    """How hard the pixels are varied; 0 switches a part off.

    Attributes:
        stain: mixing and scaling of the dyes' absorption.
        contrast: how far red cells may come near to nuclei in darkness, or fade against them.
        recolour: share of fields whose red cells get another colour, where boxes tell them
            from nuclei.
        permute: share of images whose colour channels are shuffled.
        light: brightness, tint and gradient of the illumination.
        blur: largest sigma of defocus, in pixels of the training image.
        noise: largest standard deviation of sensor noise, grey levels.
        scale: the scale varies by a factor up to `exp(scale)` either way.
        shrink: the middle of that range is `exp(-shrink)`: cells look smaller than they are.
        squeeze: likewise, width against height.
        shift: the reader's crop is off centre by up to this share of its side.
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
    squeeze: NotNegative = 0.06
    shift: Share = 0.05
    mild: Share = 0.3


class AppearanceSection(Section):
    """How a classifier is kept from learning one film's looks; see `training.data.appearance`.

    Attributes:
        normalise: bring every crop to standard colours, in training and wherever the bundle is
            used; the rest of this table and any angle then take the place of the pixel parts of
            `augment`.
        stain: how far dyes vary; 0 switches a part off.
        optics: how far lens, lamp and sensor vary.
        transfer: share of crops that take over colours of another data set's crop.
        transfer_lone: the same, of classes that only one data set has: nothing else parts the
            class from that set's looks.
        mild: share of crops that get a third of stain and optics.
    """

    normalise: bool = False
    stain: NotNegative = 1.0
    optics: NotNegative = 1.0
    transfer: Share = 0.4
    transfer_lone: Share = 0.8
    mild: Share = 0.25


class SamplingSection(Section):
    """How often a classifier's cells are drawn.

    With both at 1 every cell is as likely as any other and comes once an epoch. Below, cells are
    drawn with replacement, `optim.samples` an epoch.

    Attributes:
        sets: a data set is drawn in proportion to its number of cells raised to this; 0 draws all
            sets equally often. `repeat` of the set is a factor on it.
        labels: likewise a label within its set; where patients are known, each label of each.
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
        kind, box, edge: of the detector's terms.
        class_weight: of the reader's class term against the mean over its attributes.
        nucleated: of the reader's term for whether there is a nucleated cell at all.
        smoothing: label smoothing of the class.
        balance: exponent on inverse value frequency within an attribute, 0 = none, 1 = full.
    """

    kind: NotNegative = 1.0
    box: NotNegative = 2.0
    edge: NotNegative = 1.0
    class_weight: NotNegative = 1.0
    nucleated: NotNegative = 0.5
    smoothing: Share = 0.05
    balance: Share = 0.25


class LookalikeSection(Section):
    """How the reader learns what is no nucleated cell; without data it does not.

    Attributes:
        train, validation: data sets with boxes of red cells or platelets, or pictures of one
            centred cell each. They teach nothing else.
        red_cells: how many of a field's red cells are looked at.
        empty: how many places of a field where nothing is boxed.
        share: of all crops that are drawn with `sampling`, so many are these places.
        augment: how hard these crops are varied.
    """

    train: tuple[DatasetConfig, ...] = ()
    validation: tuple[DatasetConfig, ...] = ()
    red_cells: Annotated[int, Field(ge=0)] = 4
    empty: Annotated[int, Field(ge=0)] = 1
    share: Share = 0.15
    augment: AugmentSection = AugmentSection()


class SparseSection(Section):
    """How task `sparse` learns from fields of which only regions are annotated.

    Attributes:
        unmarked: what an area nobody marked is: `unknown`, or `background` (the naive reading).
        border: a location in a region, nearer to its border than this and in no marked box, is
            unknown, canonical px: an unmarked cell from outside may reach in.
        patches: share of the epochs, the first ones, that see the marked regions only, cut out.
        mix: share of the training images cut out likewise in the epochs after.
        context: what is cut out around a region and its cells, canonical px; it stays unknown.
        balance: how far patches and fields with rare kinds are drawn more often: a kind marked in
            a share f of all makes one count (most common kind's f / f) ** balance, at least 1; 0
            is off.
        copies: how many marked cells are copied into each whole field, on average, each where it
            hides no marked one; every kind equally often.
        teacher: who labels the rest: `none`, the `student` itself, or the `average` of its weights.
        begin: share of the epochs that pass before its labels count.
        weight: of its labels against a person's.
        boxes: weight of where the teacher's boxes end against of which kind they are; 0 learns
            where boxes end from people alone.
        calibrated: a box counts as much as boxes of its kind and score proved right where people
            marked; otherwise it counts fully.
        confidence: a box counts if its score (calibrated: its proven precision) reaches this.
        nms: boxes with a greater IoU are one cell.
        background: where no kind's score reaches this the teacher's word is taken that there is no
            cell; between it and a counted box nothing is known. 0 never takes it, 1 takes it
            everywhere.
        views: teach on a varied look what the teacher saw in a plain one (`average` only).
        turn: the teacher sees each image turned and mirrored by chance (`average` only).
        similarity: weight of the term that draws features of the teacher's cells to those of
            marked cells of their kind and from other kinds', in the first two thirds.
        attributes: weight of the attributes of the schemas, read from the detector's early levels
            at the found cells; 0 reads none.
        asymmetric: judge attributes by the asymmetric loss instead of the cross entropy.
        taught_attributes: learn the attributes of the teacher's cells from the teacher.
    """

    unmarked: Literal["unknown", "background"] = "unknown"
    border: Annotated[float, Field(ge=0)] = 6.0
    patches: Share = 0.33
    mix: Share = 0.6
    context: Annotated[float, Field(ge=0)] = 3.0
    balance: Share = 0.5
    copies: NotNegative = 3.0
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
    taught_attributes: bool = True


class Config(Section):
    """A whole training run."""

    task: Literal["detector", "reader", "sparse"]
    seed: Annotated[int, Field(ge=0)] = 0
    model: ModelSection = ModelSection()
    data: DataSection
    optim: OptimSection = OptimSection()
    augment: AugmentSection = AugmentSection()
    appearance: AppearanceSection = AppearanceSection()
    sampling: SamplingSection = SamplingSection()
    loss: LossSection = LossSection()
    lookalikes: LookalikeSection = LookalikeSection()
    sparse: SparseSection = SparseSection()


def load_config(path: Path) -> Config:
    """Read a configuration file.

    Raises:
        ConfigError: in one line, with the file, the key and what would be right.
    """
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not a TOML file: {error}") from None
    return parse_config(data, str(path))


def parse_config(data: dict[str, Any], name: str) -> Config:
    """Check configuration data; `name` is what errors call it."""
    try:
        return Config.model_validate(data)
    except ValidationError as error:
        every = error.errors()
        # A misspelt table also leaves the right one missing: the spelling is the thing to mend.
        first = next((e for e in every if e["type"] == "extra_forbidden"), every[0])
        key = ".".join(str(part) for part in first["loc"]) or "the file"
        if first["type"] == "extra_forbidden":
            raise ConfigError(f"{name}: {key} is no known key{_hint(first['loc'])}") from None
        raise ConfigError(f"{name}: {key}: {first['msg'].lower()}") from None


def _hint(location: tuple[int | str, ...]) -> str:
    """Name the keys a misspelt one could have been."""
    from difflib import get_close_matches

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
