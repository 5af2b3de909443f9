"""Label Studio: one JSON file of tasks, shapes in per cent of the image; JSON-MIN is read too.

A task's results that share an id are one region: its shape with a label, and what was chosen for
it. Cells are `rectanglelabels`, the field's region is `polygonlabels` with the label `annotated
region`, attributes are `choices` named after them. Properties that Label Studio
cannot represent (patient, split, domain) are in the task's `data`, which it keeps.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, Unpack
from urllib.parse import unquote, urlsplit

from bloodfilm.core import BloodfilmError, Box, Cell, DataError, Dataset, Field, Region
from bloodfilm.core import dataset_codes as codes
from bloodfilm.core.arrays import Json
from bloodfilm.formats.label_studio.write import (
    EXTRA,
    IMAGE,
    LOCAL,
    PLANNED,
    TO_IGNORE,
    UNCERTAIN,
    Size,
    address,
    region_result,
    write,
)
from bloodfilm.formats.native.records import origin_from_json
from bloodfilm.formats.shared.context import ReadContext, ReadOptions
from bloodfilm.formats.shared.frames import Frame, same_shape
from bloodfilm.formats.shared.masks import MaskBudget, drawn_runs, unpack_brush
from bloodfilm.formats.shared.parsing import peek, read_json, to_floats, to_int
from bloodfilm.formats.shared.paths import image_folders, is_file
from bloodfilm.formats.shared.shapes import NOTHING, SHAPES, UNNAMED, DrawnShape, Ellipse, is_region
from bloodfilm.imaging.discovery import is_image

__all__ = ["address", "read", "recognises", "region_result", "write"]

LABEL_KEYS = ("rectanglelabels", "polygonlabels", "ellipselabels", "brushlabels", "labels")
SAID = {"choices": "choices", "textarea": "text", "number": "number", "rating": "rating"}
BOX, OVAL = ("x", "y", "width", "height"), ("x", "y", "radiusX", "radiusY")
SAME_PX = 1.0
"""How far a corner of a region may lie from where it was planned."""
_UPLOAD = re.compile(r"^[0-9a-f]{8}-")
_UPLOADED = re.compile(r"(^|/)data/upload(/[0-9]+)?$|(^|/)upload(/[0-9]+)?$")
_TASK = re.compile(rb'"(annotations|predictions|completions|data)"\s*:')
_LABELS = re.compile(rb'"(rectanglelabels|polygonlabels|ellipselabels)"\s*:')


def recognises(path: Path) -> bool:
    """Whether it is a file of tasks, or a folder with one."""
    return bool(_files(path))


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path] if _looks_like_tasks(path) else []
    inside = sorted(p for p in path.glob("*.json") if p.is_file() and not p.name.startswith("."))
    return [p for p in inside if _looks_like_tasks(p)]


def _looks_like_tasks(path: Path) -> bool:
    if path.suffix.lower() != ".json":
        return False
    text = peek(path).removeprefix(b"\xef\xbb\xbf").lstrip()
    if not text.startswith(b"["):
        return False
    keys = {match.group(1) for match in _TASK.finditer(text)}
    return (b"data" in keys and len(keys) > 1) or _LABELS.search(text) is not None


def read(path: Path, **options: Unpack[ReadOptions]) -> Dataset:
    """Read a file of tasks, or every such file in a folder.

    Of several annotations of a task the one marked as ground truth counts, else the latest that
    was not cancelled. A task without an annotation is a field of which nothing is known;
    predictions are no annotations.
    """
    path = Path(path)
    files = [path] if path.is_file() else _files(path)
    if not files:
        raise DataError(f"{path}: no Label Studio tasks here; export them as JSON")
    reading = ReadContext(path, **options)
    fields = [f for file in files for f in _fields(reading, file)]
    if not fields:
        why = reading.issues[0] if reading.issues else f"{path.name}: lists none"
        raise DataError(f"{path}: no task is read from it ({why}); export it as JSON again")
    return reading.dataset(path.stem, fields)


def _fields(reading: ReadContext, file: Path) -> Iterator[Field]:
    content = read_json(file)
    tasks = [content] if isinstance(content, dict) else content
    if not isinstance(tasks, list):
        raise DataError(f"{file}: holds no list of tasks; export them from Label Studio as JSON")
    raw = [t for n, r in enumerate(tasks, 1) if (t := _raw_task(reading, file, r, f"task {n}"))]
    places = _locate(reading, file, (task.name for task in raw))
    predicted = 0
    for task in raw:
        results = _chosen(reading, file, task.content, task.place)
        predicted += results is None and bool(task.content.get("predictions"))
        yield _Task(reading, file, task.place, places[task.name], task.data, results).field()
    if predicted:
        reading.note(
            codes.PREDICTIONS_ONLY,
            f"{predicted} of {len(raw)} tasks hold predictions only, which are no annotations; "
            "nothing is known of their images",
            file,
        )


class _RawTask(NamedTuple):
    """A task as the file has it: where, its content, its data, the address of its image."""

    place: str
    content: Mapping[str, Any]
    data: Mapping[str, Any]
    name: str


# ---- one task --------------------------------------------------------------------------------


@dataclass
class _Task:
    """A task being read: where it stands, its image, its data, the results that count."""

    reading: ReadContext
    file: Path
    place: str
    image: Path
    data: Mapping[str, Any]
    results: Sequence[Mapping[str, Any]] | None
    regions: list[Region] = field(default_factory=list)
    meta: dict[str, str] = field(default_factory=dict)

    def field(self) -> Field:
        """Return the field it describes."""
        frame = self._frame()
        cells: list[Cell] = []
        for ident, group in _grouped(self.results or ()).items():
            cell = self._region_of(ident, group, frame.size)
            if cell is not None:
                cells.append(cell)
        region = self._region()
        self._compare_with_plan(region, frame)
        plain = Field(self.image, frame.width, frame.height, tuple(cells), region, meta=self.meta)
        return self._with_extra(plain)

    def report(self, code: str, what: str, place: str = "") -> None:
        """Note what cannot be used."""
        self.reading.report(code, self.file, f"{self.place}{place and ', ' + place}", what)

    def _frame(self) -> Frame:
        """Return the picture's frame; shapes are in per cent, so that its size is all they need."""
        extra = self.data.get(EXTRA)
        stated = [extra] if isinstance(extra, Mapping) else []
        keys = [("width", "height"), ("original_width", "original_height")]
        for item, (across, down) in [(s, keys[0]) for s in stated] + [
            (r, keys[1]) for r in self.results or ()
        ]:
            width, height = to_int(item.get(across)), to_int(item.get(down))
            if width and height and width > 0 and height > 0:
                return self.reading.frame(self.image, (width, height))
        return self.reading.frame(self.image)

    def _compare_with_plan(self, region: Region, frame: Frame) -> None:
        """Report a region that was moved since it was written: dragging over it does that."""
        extra = self.data.get(EXTRA)
        if not isinstance(extra, Mapping) or PLANNED not in extra or self.results is None:
            return
        try:
            planned = Region.from_json(extra[PLANNED])
        except DataError as error:
            self.report(
                codes.ILL_FORMED_METADATA, f"data.{EXTRA}.{PLANNED} cannot be read ({error})"
            )
            return
        if not _alike(planned, region, frame.size):
            self.report(
                codes.REGION_CHANGED,
                "its region is not the one that was planned: moved, changed or deleted in Label "
                "Studio; the one that was drawn is taken",
            )

    def _region(self) -> Region:
        extra = self.data.get(EXTRA)
        said = extra.get("region") if isinstance(extra, Mapping) else None
        if self.regions:
            return Region.union(self.regions)
        unknown = self.results is None or said in (NOTHING, SHAPES)
        return Region.nothing() if unknown else Region.everything()

    def _with_extra(self, plain: Field) -> Field:
        extra = self.data.get(EXTRA)
        if not isinstance(extra, Mapping):
            return plain
        record = {k: v for k, v in extra.items() if k != "region"}
        try:
            origin = origin_from_json(record)
        except (BloodfilmError, TypeError, ValueError, AttributeError) as error:
            self.report(codes.ILL_FORMED_METADATA, f"data.{EXTRA} cannot be read ({error})")
            return plain
        origin["meta"] |= plain.meta
        return replace(plain, **origin | {"region": plain.region})

    def _region_of(
        self, ident: str, group: Sequence[Mapping[str, Any]], size: Size | None
    ) -> Cell | None:
        """Return the cell that results of one id describe; take regions and remarks aside."""
        place = f"region {ident!r}"
        shapes = [r for r in group if _kind(r) not in SAID and _has_shape(r)]
        name = next((n for r in group if (n := _label_of(r))), None)
        if not shapes:
            self._remarks(group, place)
            return None
        if size is None:
            self.report(
                codes.UNUSABLE_SHAPE,
                "no size of the image is stated or can be read, left out",
                place,
            )
            return None
        if shapes[0].get("image_rotation"):
            self.report(
                codes.LOOK_AT,
                "the picture was turned while it was labelled; look at the box",
                place,
            )
        try:
            drawn = _shape_of(shapes[0], size, self.reading.mask_budget(self.file))
        except DataError as error:
            self.report(codes.UNUSABLE_SHAPE, f"{error}; left out", place)
            self.regions += [Region.nothing()] if is_region(name) else []
            return None
        if is_region(name):
            self.regions.append(drawn.region)
            return None
        box = self.reading.box(drawn.box, size, self.file, f"{self.place}, {place}")
        return None if box is None else self._cell(ident, group, name, box, drawn.outline)

    def _cell(
        self,
        ident: str,
        group: Sequence[Mapping[str, Any]],
        name: str | None,
        box: Box,
        outline: Region | None,
    ) -> Cell:
        said = dict(_said(group))
        ignore = said.pop(TO_IGNORE, None) is not None
        said.pop(UNCERTAIN, None)
        metas = (r["meta"] for r in group if isinstance(r.get("meta"), Mapping))
        own: Any = next((meta["id"] for meta in metas if "id" in meta), ident)
        own_id = None if own is None else str(own)
        if any(r.get("score") is not None for r in group):
            self.reading.unread("score")
        return self.reading.cell(
            name or UNNAMED, box, said, ignore=ignore, id=own_id, outline=outline
        )

    def _remarks(self, group: Sequence[Mapping[str, Any]], place: str) -> None:
        """Keep what was said of the whole image; report what has a label but no usable shape."""
        for name, value in _said(group):
            self.meta[name] = value
        for result in group:
            if _kind(result) not in (*SAID, "relation"):
                self.regions += [Region.nothing()] if is_region(_label_of(result)) else []
                what = f"{_kind(result)!r} has no box or outline of numbers, left out"
                self.report(codes.UNUSABLE_SHAPE, what, place)


def _raw_task(reading: ReadContext, file: Path, raw: Any, place: str) -> _RawTask | None:
    if not isinstance(raw, Mapping):
        reading.report(codes.ILL_FORMED_ENTRY, file, place, "is no task, left out")
        return None
    full = raw if isinstance(raw.get("data"), Mapping) else _from_min(reading, file, raw, place)
    data: Mapping[str, Any] = full["data"]
    name = _image_name(data)
    if name is None:
        reading.report(codes.ILL_FORMED_ENTRY, file, place, "its data name no image, left out")
        return None
    return _RawTask(place, full, data, name)


def _from_min(reading: ReadContext, file: Path, raw: Mapping[str, Any], place: str) -> Json:
    """Return a JSON-MIN entry, whose results stand flat under their tags' names, as a task."""
    results: list[Json] = []
    data: Json = {}
    for key, value in raw.items():
        shapes = [v for v in value if isinstance(v, Mapping)] if isinstance(value, list) else []
        kinds = [next((k for k in LABEL_KEYS if k in v), None) for v in shapes]
        if not any(kinds):
            data[key] = value
        results += [
            {"type": kind, "from_name": key, "value": shape} | dict(shape)
            for kind, shape in zip(kinds, shapes, strict=True)
            if kind
        ]
    chosen = [k for k, v in data.items() if isinstance(v, list | Mapping) and k != EXTRA]
    if results and chosen:
        what = f"JSON-MIN does not say which cell {', '.join(map(repr, chosen))} are of, left out"
        reading.report(codes.ILL_FORMED_METADATA, file, place, what, "export as JSON, not JSON-MIN")
    return {"data": data, "annotations": [{"result": results}]}


def _chosen(
    reading: ReadContext, file: Path, task: Mapping[str, Any], place: str
) -> list[Mapping[str, Any]] | None:
    """Return the results of the annotation that counts, `None` if there is none."""
    listed = task.get("annotations", task.get("completions"))
    usable = [
        a
        for a in (listed if isinstance(listed, list) else [])
        if isinstance(a, Mapping) and not a.get("was_cancelled")
    ]
    if not usable:
        return None
    truths = [a for a in usable if a.get("ground_truth")]
    best = max(truths or usable, key=lambda a: str(a.get("updated_at") or a.get("created_at")))
    if len(usable) > 1:
        what = f"{len(usable)} annotations; one is taken"
        reading.note(codes.SEVERAL_ANNOTATIONS, what, file, place)
    results = best.get("result")
    return [r for r in results if isinstance(r, Mapping)] if isinstance(results, list) else []


def _grouped(results: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for number, result in enumerate(results, 1):
        groups.setdefault(str(result.get("id") or f"result {number}"), []).append(result)
    return groups


def _kind(result: Mapping[str, Any]) -> str:
    return str(result.get("type"))


def _label_of(result: Mapping[str, Any]) -> str | None:
    value = result.get("value")
    if not isinstance(value, Mapping):
        return None
    for key in LABEL_KEYS:
        listed = value.get(key)
        if isinstance(listed, list) and listed:
            return str(listed[0])
    return None


def _said(group: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    """Yield what was chosen or written, by the name of its tag."""
    for result in group:
        key = SAID.get(_kind(result))
        value = result.get("value")
        if key is None or not isinstance(value, Mapping):
            continue
        answer = value.get(key)
        words = answer if isinstance(answer, list) else [answer]
        if answer is not None and words:
            yield str(result.get("from_name", key)), ", ".join(map(str, words))


def _numbers(value: Mapping[str, Any], *keys: str) -> tuple[float, ...] | None:
    return to_floats([value.get(key) for key in keys], len(keys))


def _has_shape(result: Mapping[str, Any]) -> bool:
    """Whether a result has an outline, a painted mask, an ellipse or a box of numbers."""
    value = result.get("value")
    if not isinstance(value, Mapping):
        return False
    listed = value.get("points")
    if isinstance(listed, list) and listed:
        return all(to_floats(point, 2) for point in listed)
    if isinstance(value.get("rle"), list):
        return True
    return bool(_numbers(value, *OVAL) or _numbers(value, *BOX))


def _shape_of(result: Mapping[str, Any], size: Size, budget: MaskBudget) -> DrawnShape:
    """Return the shape of a result that has one, in pixels.

    A box is turned about its upper left corner, an ellipse about its centre; degrees count
    clockwise, in pixels, not in per cent of two unequal sides.
    """
    value: Mapping[str, Any] = result["value"]
    across, down = size[0] / 100, size[1] / 100
    listed = value.get("points")
    if isinstance(listed, list) and listed:
        points = [p for point in listed if (p := to_floats(point, 2))]
        return DrawnShape.polygons([[(x * across, y * down) for x, y in points]])
    if isinstance(value.get("rle"), list):
        return _painted(result, value["rle"], size, budget)
    turn = _numbers(value, "rotation") or (0.0,)
    oval = _numbers(value, *OVAL)
    if oval:
        x, y, rx, ry = oval
        half = rx * across, ry * down
        return DrawnShape.ellipse(Ellipse(x * across, y * down, *half, degrees=turn[0]))
    x, y, w, h = _numbers(value, *BOX) or (0.0, 0.0, 0.0, 0.0)
    box = x * across, y * down, w * across, h * down
    return DrawnShape.rectangle(box, turn[0], (box[0], box[1]))


def _painted(
    result: Mapping[str, Any], packed: list[Any], size: Size, budget: MaskBudget
) -> DrawnShape:
    """Return what the brush painted: a mask of the size that the picture had then."""
    width, height = (to_int(result.get(f"original_{side}")) for side in ("width", "height"))
    if width is None or height is None or min(width, height) <= 0:
        raise DataError("its mask states no original_width and original_height")
    if not same_shape((width, height), size):
        raise DataError(f"its mask is one of {width}x{height} px, the picture {size[0]}x{size[1]}")
    try:
        runs = unpack_brush(packed, (width, height))
        drawn = drawn_runs(runs, (width, height), budget=budget)
    except DataError as error:
        raise DataError(f"its mask has {error}") from None
    return drawn.into(Frame(size, (size[0] / width, size[1] / height)))


def _alike(planned: Region, drawn: Region, size: Size | None) -> bool:
    """Whether two regions have the same corners but for a pixel, in any order."""
    if size is None or planned.polygons is None or drawn.polygons is None:
        return planned == drawn
    corners = [sorted(p) for p in sorted(planned.polygons)]
    others = [sorted(p) for p in sorted(drawn.polygons)]
    if [len(p) for p in corners] != [len(p) for p in others]:
        return False
    pairs = zip((q for p in corners for q in p), (q for p in others for q in p), strict=True)
    return all(
        abs(a - b) <= SAME_PX for one, other in pairs for a, b in zip(one, other, strict=True)
    )


# ---- images ----------------------------------------------------------------------------------


def _image_name(data: Mapping[str, Any]) -> str | None:
    """Return the address of a task's image: `image`, or the first value that looks like one."""
    values = [data.get(IMAGE), *data.values()]
    texts = [v for v in values if isinstance(v, str) and v]
    return next((v for v in texts if v is data.get(IMAGE) or is_image(_path_of(v))), None)


def _path_of(name: str) -> str:
    """Return the path within an address."""
    if LOCAL in name:
        return unquote(name.partition(LOCAL)[2]).replace("\\", "/")
    try:
        parts = urlsplit(name)
    except ValueError:
        return name
    return unquote(parts.path) if parts.scheme and parts.netloc else name.replace("\\", "/")


def _locate(reading: ReadContext, file: Path, names: Iterable[str]) -> dict[str, Path]:
    """Return where the images of tasks lie: below the disk's root, else by their path's tail.

    An upload is stored under its name with eight digits before it.
    """
    bases = image_folders(file, None, reading.images)
    paths: dict[str, str] = {}
    served: dict[str, Path] = {}
    for name in names:
        path = _path_of(name).replace("\0", "").lstrip("/")
        if LOCAL in name and is_file(Path("/" + path)):
            served[name] = Path("/" + path)
            continue
        folder, _, base = path.rpartition("/")
        plain = _UPLOAD.sub("", base)
        stored = any(is_file(b / base) or is_file(b / path) for b in bases)
        if plain != base and not stored and reading.index.find(base, file) is None:
            folder, base = ("" if _UPLOADED.search(folder) else folder), plain
        elif _UPLOADED.search(folder):
            folder = ""
        paths[name] = f"{folder}/{base}" if folder else base
    places = reading.locate(paths.values(), file, bases)
    return served | {name: places[path] for name, path in paths.items()}
