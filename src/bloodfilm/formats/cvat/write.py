"""Write CVAT's XML for images, and the labels that a task needs before it can be imported."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from bloodfilm.core import Cell, Dataset, Field
from bloodfilm.core.issues import Issue
from bloodfilm.formats.native.records import origin_to_json
from bloodfilm.formats.shared.class_names import name_of
from bloodfilm.formats.shared.output import (
    Losses,
    WriteOptions,
    finish,
    outline_for_writing,
    output_file,
    size_for_writing,
    unique_names,
)
from bloodfilm.formats.shared.paths import relative
from bloodfilm.formats.shared.shapes import (
    FIELD,
    IGNORE,
    NOTHING,
    REGION,
    UNKNOWN,
    UNNAMED,
    colours,
    hexadecimal,
)
from bloodfilm.formats.shared.xml import element

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

FILE_NAME = "annotations.xml"
ID, TO_IGNORE, OCCLUDED = "id", "ignore", "occluded"
SCORE, CLASS_SCORE, UNCERTAIN = "score", "class_score", "uncertain"
PROPOSAL = (SCORE, CLASS_SCORE, UNCERTAIN)
"""Attributes of a box that a model proposes."""
RESERVED = frozenset({ID, TO_IGNORE, *PROPOSAL})
IMAGE = "image"
ORIGIN = ("patient", "split", "diagnosis", "domain", "meta", "region", IMAGE)
PACKED = frozenset({"domain", "meta"})
"""Attributes of the tag `field` that hold JSON."""


def write(dataset: Dataset, path: Path, **options: Unpack[WriteOptions]) -> list[Issue]:
    """Write CVAT's XML (`*.xml`, or `annotations.xml` in a folder); return what was lost.

    Beside it goes `*.labels.json`: the labels and attributes to create the task with, before the
    XML is uploaded to it. Whether an object is to be ignored, and its identity, are attributes.

    CVAT finds an image of the XML by its name, and failing that by its number in the order of
    names. So names are those of the files, without folders unless two files share a name, images
    are numbered in that order, and a split is no `subset`, for a task has none.
    """
    from xml.etree import ElementTree

    losses = Losses(keeps_predictions=True)
    losses.vocabulary(dataset, "taxonomy", "schema", "licence")
    labels = _Labels(dict.fromkeys([*dataset.taxonomy.names, IGNORE, UNNAMED]))
    for attribute in dataset.schema.attributes:
        labels.attributes[attribute.name] = dict.fromkeys(attribute.values)
    with output_file(Path(path), ".xml", FILE_NAME, options) as (out, name):
        fields = list(dataset)
        names = unique_names(fields) if out.images else _task_names(fields)
        images: list[Element] = []
        for called, item in sorted(zip(names, fields, strict=True), key=lambda pair: pair[0]):
            place = None if out.images else relative(item.path, out.root)
            if place is None:
                out.image(item.path, f"images/{called}")
            size = size_for_writing(item, losses)
            if size is not None:
                made = _image(item, (called, place), size, labels, losses)
                made.set("id", str(len(images)))
                images.append(made)
        tree = element("annotations", {"version": "1.1"})
        tree.append(_meta(dataset.name, len(images), labels))
        tree.extend(images)
        ElementTree.indent(tree)
        content = ElementTree.tostring(tree, encoding="unicode")
        out.text(name, f'<?xml version="1.0" encoding="utf-8"?>\n{content}\n')
        out.json(f"{Path(name).stem}.labels.json", labels.to_json())
    return finish(out, losses)


def _task_names(fields: Sequence[Field]) -> list[str]:
    """Return CVAT's names of the images: file names, with folders where these tell them apart."""
    depth = dict.fromkeys(range(len(fields)), 1)

    def name(number: int) -> str:
        return "/".join(fields[number].path.absolute().parts[-depth[number] :])

    while True:
        groups: dict[str, list[int]] = {}
        for number in depth:
            groups.setdefault(name(number), []).append(number)
        deeper = [
            number
            for same in groups.values()
            if len({fields[i].path for i in same}) > 1
            for number in same
            if depth[number] < len(fields[number].path.absolute().parts) - 1
        ]
        if not deeper:
            return [name(number) for number in depth]
        for number in deeper:
            depth[number] += 1


def _meta(name: str, count: int, labels: "_Labels") -> "Element":
    task = element("task", {"name": name, "size": count, "mode": "annotation"})
    listed = element("labels")
    for entry in labels.to_json():
        label = element("label", {k: entry[k] for k in ("name", "color", "type")})
        attributes = element("attributes")
        for spec in entry["attributes"]:
            values = "\n".join(spec["values"])
            attributes.append(element("attribute", spec | {"mutable": False, "values": values}))
        label.append(attributes)
        listed.append(label)
    task.append(listed)
    meta = element("meta")
    meta.append(task)
    return meta


# ---- one image -------------------------------------------------------------------------------


def _image(
    item: Field,
    named: tuple[str, str | None],
    size: tuple[int, int],
    labels: "_Labels",
    losses: Losses,
) -> "Element":
    name, place = named
    made = element("image", None, id="", name=name, width=str(size[0]), height=str(size[1]))
    origin = {k: v for k, v in origin_to_json(item).items() if k != "region"}
    if not item.region.is_everything:
        origin["region"] = NOTHING if item.region.is_nothing else "shapes"
    if place is not None:
        origin[IMAGE] = place  # the name alone does not say where it lies
    said = {k: json.dumps(v) if k in PACKED else str(v) for k, v in origin.items()}
    kept = {k: v for k, v in said.items() if _fits(v)}
    for key in said.keys() - kept.keys():
        losses.add(f"{key} (XML cannot hold its characters)", "fields")
    if kept:
        made.append(_with_attributes(element("tag", None, label=FIELD, source="manual"), kept))
    for polygon in item.region.polygons or ():
        made.append(_shape("polygon", REGION, points=_points(polygon)))
    for cell in losses.boxed(item):
        made.append(_cell(cell, labels, losses))
    return made


def _cell(cell: Cell, labels: "_Labels", losses: Losses) -> "Element":
    x, y, w, h = (float(v) for v in cell.box or (0, 0, 0, 0))
    said = {}
    if cell.ignore:
        said[TO_IGNORE] = "true"
    if cell.id is not None and _fits(cell.id):
        said[ID] = cell.id
    elif cell.id is not None:
        losses.add("identity (XML cannot hold its characters)")
    occluded = False
    for name, value in cell.attributes.items():
        if name == OCCLUDED and value == "yes":
            occluded = True
        elif name in RESERVED or not (_fits(name) and _fits(value)):
            losses.add("attributes that CVAT cannot hold (reserved names, odd characters)")
        else:
            said[name] = value
            labels.add(name, value)
    label = labels.label(losses.printable(name_of(cell, IGNORE, UNNAMED)))
    polygon = outline_for_writing(cell, losses)
    if cell.prediction is not None:
        labels.proposed = True
        said[SCORE] = f"{cell.prediction.score:g}"
        said[CLASS_SCORE] = f"{cell.prediction.class_score:g}"
        said[UNCERTAIN] = str(cell.prediction.uncertain).lower()
    if polygon is not None:
        shape = _shape("polygon", label, occluded, points=_points(polygon))
    else:
        place = {"xtl": x, "ytl": y, "xbr": x + w, "ybr": y + h}
        shape = _shape("box", label, occluded, **{k: repr(v) for k, v in place.items()})
    if cell.prediction is not None:
        shape.set("source", "auto")
    return _with_attributes(shape, said)


def _points(polygon: Sequence[tuple[float, float]]) -> str:
    return ";".join(f"{float(x)!r},{float(y)!r}" for x, y in polygon)


def _fits(text: str) -> bool:
    """Whether XML gives a text back as it was, and CVAT does not take it for "not said"."""
    return text.isprintable() and text not in ("", UNKNOWN)


def _shape(kind: str, label: str, occluded: bool = False, **place: str) -> "Element":
    fixed = {"label": label, "source": "manual", "occluded": str(int(occluded)), "z_order": "0"}
    return element(kind, None, **fixed, **place)


def _with_attributes(shape: "Element", said: dict[str, str]) -> "Element":
    for name, value in said.items():
        shape.append(element("attribute", value, name=name))
    return shape


# ---- labels ----------------------------------------------------------------------------------


@dataclass
class _Labels:
    """The labels and attributes that a task must offer, in order."""

    names: dict[str, None]
    attributes: dict[str, dict[str, None]] = field(default_factory=dict)
    proposed: bool = False

    def label(self, name: str) -> str:
        """Note a label and return it."""
        self.names.setdefault(name)
        return name

    def add(self, name: str, value: str) -> None:
        """Note an attribute's value."""
        self.attributes.setdefault(name, {}).setdefault(value)

    def to_json(self) -> list[dict[str, Any]]:
        """Return the labels as the raw editor of CVAT's task page takes them."""
        shared = [_spec(ID, "text"), _spec(TO_IGNORE, "checkbox", ("false",))]
        if self.proposed:
            shared += [_spec(SCORE, "text"), _spec(CLASS_SCORE, "text")]
            shared += [_spec(UNCERTAIN, "checkbox", ("false",))]
        shared += [_spec(n, "select", (UNKNOWN, *v)) for n, v in self.attributes.items()]
        shades = colours([*self.names, REGION])
        origin = [_spec(name, "text") for name in ORIGIN]
        kinds = [(name, "any", shared) for name in self.names]
        kinds += [(REGION, "any", []), (FIELD, "tag", origin)]
        return [
            {"name": n, "color": hexadecimal(shades[n]), "type": kind, "attributes": specs}
            for n, kind, specs in kinds
        ]


def _spec(name: str, kind: str, values: tuple[str, ...] = ("",)) -> dict[str, Any]:
    return {
        "name": name,
        "input_type": kind,
        "mutable": False,
        "values": list(values),
        "default_value": values[0],
    }
