"""Write Label Studio's tasks, and the labelling set-up that a project needs to show them."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Unpack
from urllib.parse import quote

from bloodfilm.core import Cell, DataError, Dataset, Field
from bloodfilm.core.arrays import Json
from bloodfilm.core.issues import Issue
from bloodfilm.formats.native.records import origin_to_json
from bloodfilm.formats.shared.class_names import name_of
from bloodfilm.formats.shared.output import (
    Losses,
    Output,
    WriteOptions,
    finish,
    outline_for_writing,
    output_file,
    size_for_writing,
    unique_names,
)
from bloodfilm.formats.shared.shapes import (
    IGNORE,
    NOTHING,
    REGION,
    SHAPES,
    UNNAMED,
    colours,
    hexadecimal,
)

Size = tuple[int, int]
FILE_NAME = "label-studio.json"
EXTRA = "bloodfilm"
"""Key of a task's `data` under which stands what Label Studio has no place for."""
CELL, OUTLINE, REGION_TAG, TO_IGNORE, IMAGE = "cell", "outline", "region", "to_ignore", "image"
UNCERTAIN = "uncertain"
"""Choice of a cell that a model proposes and a person should look at."""
RESERVED = frozenset({CELL, OUTLINE, REGION_TAG, TO_IGNORE, IMAGE, UNCERTAIN})
PLANNED = "planned"
"""Key under a task's `bloodfilm`: its region as it was written, to see whether it was moved."""
LOCAL = "/data/local-files/?d="
_SAFE_ID = re.compile(r"[A-Za-z0-9_-]+")


def address(path: str) -> str:
    """Return a file's address as Label Studio's local storage serves it."""
    return LOCAL + quote(path.lstrip("/"))


def write(
    dataset: Dataset,
    path: Path,
    *,
    offer_classes: Sequence[str] | None = None,
    offer_attributes: Sequence[str] | None = None,
    **options: Unpack[WriteOptions],
) -> list[Issue]:
    """Write tasks (`*.json`, or `label-studio.json` in a folder) that Label Studio imports.

    Beside them goes the labelling set-up for the project, `*.config.xml`. Images are addressed as
    local files: seen from the tasks' folder where they lie below it, otherwise from the disk's
    root. Returns what was lost.

    Args:
        dataset: to write.
        path: the file, or a folder for it.
        offer_classes: the classes that the set-up offers, in this order: the first ten get keys.
            By default all, those without sub-classes first. Classes that occur are always offered.
        offer_attributes: the attributes that it asks for; by default all of the schema.
        options: see `WriteOptions`.

    Raises:
        DataError: if a class or an attribute to offer is not one of the data set's.
    """
    losses = Losses(keeps_predictions=True)
    losses.vocabulary(dataset, "taxonomy", "schema", "licence")
    tags = _Tags(dict.fromkeys(_offered_classes(dataset, offer_classes)), {})
    for attribute in dataset.schema.attributes:
        if offer_attributes is None or attribute.name in offer_attributes:
            tags.choices[attribute.name] = dict.fromkeys(attribute.values)
    for name in offer_attributes or ():
        if name not in tags.choices:
            known = ", ".join(dataset.schema.names)
            raise DataError(f"{path}: no attribute {name!r} to offer; attributes: {known}")
    with output_file(Path(path), ".json", FILE_NAME, options) as (out, name):
        names = unique_names(dataset.fields) if out.images else None
        tasks = []
        for number, item in enumerate(dataset):
            image = out.image(item.path, f"images/{names[number]}") if names else item.path
            size = size_for_writing(item, losses)
            if size is not None:
                tasks.append(_task_of(item, _address_of(image, out), size, tags, losses))
        out.json(name, tasks)
        out.text(f"{Path(name).stem}.config.xml", tags.set_up())
    return finish(out, losses)


def _offered_classes(dataset: Dataset, wanted: Sequence[str] | None) -> list[str]:
    """Return the classes to offer; by default the tree's leaves, then what lies above them."""
    tree = dataset.taxonomy
    if wanted is None:
        inner = [name for name in tree.names if name not in tree.leaves]
        return [*tree.leaves, *reversed(inner)]
    return [found if (found := tree.find(name)) else tree.node(name).name for name in wanted]


def _address_of(image: Path, out: Output) -> str:
    absolute, root = Path(image).absolute(), out.root.absolute()
    inside = absolute.is_relative_to(root)
    return address((absolute.relative_to(root) if inside else absolute).as_posix())


def _task_of(item: Field, image: str, size: Size, tags: "_Tags", losses: Losses) -> Json:
    extra: Json = {"width": size[0], "height": size[1]}
    extra |= {k: v for k, v in origin_to_json(item).items() if k != "region"}
    if item.region.is_nothing:
        extra["region"] = NOTHING
    elif not item.region.is_everything:
        extra |= {"region": SHAPES, PLANNED: item.region.to_json()}
    results = [
        region_result(f"region-{number}", polygon, size)
        for number, polygon in enumerate(item.region.polygons or (), 1)
    ]
    taken = {str(r["id"]) for r in results}
    for number, cell in enumerate(losses.boxed(item), 1):
        own = cell.id if cell.id and _SAFE_ID.fullmatch(cell.id) else None
        ident = own if own and own not in taken else f"cell-{number}"
        while ident in taken:
            ident += "-"
        taken.add(ident)
        results += _cell_results(cell, ident, size, tags, losses)
    task: Json = {"data": {IMAGE: image, EXTRA: extra}}
    scores = [c.prediction.score for c in item.cells if c.prediction is not None]
    if scores:
        # Proposals are shown, and become an annotation when somebody accepts or corrects them.
        mean = round(sum(scores) / len(scores), 4)
        task["predictions"] = [{"model_version": "bloodfilm", "score": mean, "result": results}]
        return task | {"annotations": []}
    unknown = item.region.is_nothing and not results
    annotations: list[Json] = [] if unknown else [{"result": results}]
    return task | {"annotations": annotations}


def region_result(
    ident: str, polygon: Sequence[tuple[float, float]], size: Size, label: str = REGION
) -> Json:
    """Return the result that draws a region's polygon, given in pixels.

    It is read-only: dragging a box inside it would otherwise move it.
    """
    points = [[100 * x / size[0], 100 * y / size[1]] for x, y in polygon]
    value = {"points": points, "closed": True, "polygonlabels": [label]}
    return _result(ident, "polygonlabels", REGION_TAG, size, value) | {"readonly": True}


def _cell_results(
    cell: Cell, ident: str, size: Size, tags: "_Tags", losses: Losses
) -> Iterator[Json]:
    x, y, w, h = cell.box or (0.0, 0.0, 0.0, 0.0)
    shape: Json = {
        "x": 100 * x / size[0],
        "y": 100 * y / size[1],
        "width": 100 * w / size[0],
        "height": 100 * h / size[1],
        "rotation": 0,
    }
    label = tags.label(name_of(cell, IGNORE, UNNAMED))
    polygon = outline_for_writing(cell, losses)
    if polygon is None:
        result = _result(ident, "rectanglelabels", CELL, size, shape | {"rectanglelabels": [label]})
    else:
        tags.outlines = True
        points = [[100 * x / size[0], 100 * y / size[1]] for x, y in polygon]
        shape = {"points": points, "closed": True}
        result = _result(ident, "polygonlabels", OUTLINE, size, shape | {"polygonlabels": [label]})
    if cell.id != ident:
        result["meta"] = {"id": cell.id}
    if cell.prediction is not None:
        result["score"] = cell.prediction.score
        if cell.prediction.issues:
            result.setdefault("meta", {})["text"] = list(cell.prediction.issues)
    yield result
    said = {TO_IGNORE: "yes"} if cell.ignore else {}
    if cell.prediction is not None and cell.prediction.uncertain:
        said[UNCERTAIN] = "yes"
    for name, answer in cell.attributes.items():
        if name in RESERVED:
            losses.add(f"attribute {name} (Label Studio's tags bear that name)")
        else:
            said[name] = answer
    for name, answer in said.items():
        tags.add(name, answer)
        yield _result(ident, "choices", name, size, shape | {"choices": [answer]})


def _result(ident: str, kind: str, tag: str, size: Size, value: Json) -> Json:
    return {
        "id": ident,
        "type": kind,
        "from_name": tag,
        "to_name": IMAGE,
        "original_width": size[0],
        "original_height": size[1],
        "image_rotation": 0,
        "value": value,
    }


@dataclass
class _Tags:
    """The labels and choices a labelling set-up has to offer, in order."""

    labels: dict[str, None]
    choices: dict[str, dict[str, None]]
    outlines: bool = False

    def label(self, name: str) -> str:
        """Note a label and return it."""
        self.labels.setdefault(name)
        return name

    def add(self, name: str, answer: str) -> None:
        """Note an answer."""
        self.choices.setdefault(name, {}).setdefault(answer)

    def set_up(self) -> str:
        """Return the labelling set-up, to be pasted into a project's settings.

        The picture takes the left of the page; on its right stand the questions for the selected
        cell, each under its name, and only for cells.
        """
        from xml.etree import ElementTree

        def under(above: "ElementTree.Element", tag: str, **words: str) -> "ElementTree.Element":
            return ElementTree.SubElement(above, tag, words)

        view = ElementTree.Element("View", {"style": "display: flex; gap: 12px"})
        left = under(view, "View", style="flex: 1 1 auto; min-width: 0")
        right = under(view, "View", style="flex: 0 0 260px; max-height: 85vh; overflow-y: auto")
        names = list(dict.fromkeys([*self.labels, IGNORE, UNNAMED]))
        shades = colours(names)
        kinds = [("RectangleLabels", CELL)] + [("PolygonLabels", OUTLINE)] * self.outlines
        for kind, name in kinds:
            cell = under(left, kind, name=name, toName=IMAGE)
            for label in names:
                under(cell, "Label", value=label, background=hexadecimal(shades[label]))
        region = under(left, "PolygonLabels", name=REGION_TAG, toName=IMAGE, opacity="0.05")
        under(region, "Label", value=REGION, background="#808080")
        under(left, "Image", name=IMAGE, value=f"${IMAGE}", zoom="true", zoomControl="true")
        shown = {"visibleWhen": "region-selected", "whenTagName": ",".join(n for _, n in kinds)}
        for name, answers in ({TO_IGNORE: {"yes": None}} | self.choices).items():
            block = under(right, "View", **shown)
            under(block, "Header", value=name.replace("_", " "), size="5")
            choices = under(
                block, "Choices", name=name, toName=IMAGE, perRegion="true", showInline="true"
            )
            for answer in answers:
                under(choices, "Choice", value=answer)
        ElementTree.indent(view)
        return ElementTree.tostring(view, encoding="unicode") + "\n"
