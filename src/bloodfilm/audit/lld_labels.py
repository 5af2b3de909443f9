"""Judge LLD's labels as they stand on disk: as a table for the checks, and findings on the files.

The reader corrects what it can; an audit must see what there is. Boxes, repeats and classes go into
the table as the files have them; what a table cannot hold becomes a finding here.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from bloodfilm.audit.boxes import outside, repeats_and_conflicts, slivers, zero_size
from bloodfilm.audit.lld_consistency import Places, compare_with_json
from bloodfilm.core import DEFAULT_TAXONOMY, LLD_SCHEMA, DataError, Domain
from bloodfilm.core.cell_table import CellTable, CellTableBuilder, FieldRow
from bloodfilm.core.findings import Finding
from bloodfilm.formats import coco
from bloodfilm.formats.lld.codes import CLASSES, NOT_APPLICABLE_JSON, is_none
from bloodfilm.formats.lld.names import parse_name
from bloodfilm.formats.lld.raw import RawLabels
from bloodfilm.formats.lld.raw_json import JsonLabels, RawAnnotation
from bloodfilm.formats.lld.raw_text import TextLabels, attributes_of, class_of, usual_order
from bloodfilm.formats.shared.label_faults import LabelFault
from bloodfilm.formats.shared.parsing import to_int
from bloodfilm.formats.shared.paths import is_file
from bloodfilm.formats.shared.yolo_rows import Row
from bloodfilm.imaging.discovery import is_image
from bloodfilm.imaging.headers import image_size

NAME = "LLD"
_STRAY = re.compile(r"[^0-9A-Za-z_.\-]")
LINE_CHECKS = (zero_size, outside, slivers, repeats_and_conflicts)


def judge(labels: RawLabels) -> tuple[CellTable, list[Finding]]:
    """Return the labels as a table, one row per image, and the findings on their files."""
    builder = CellTableBuilder(NAME, LLD_SCHEMA, DEFAULT_TAXONOMY)
    findings = [_of_fault(path, fault) for path, fault in labels.faults]
    places: Places = {}
    for file in labels.json:
        findings += _judge_json(file, builder, places)
    for folder in labels.texts:
        if folder.is_main:
            _add_lines(builder, folder.files, by_image=True)
            findings += _judge_texts(folder.files)
            for text in folder.files:
                findings += _judge_image(text.image, text.path.name)
    findings += _unlabelled(labels, {row.path for row in builder.rows})
    table = builder.table(source=str(labels.root))
    with_json = {file.subset.path for file in labels.json}
    for folder in labels.texts:
        if folder.subset.path in with_json:
            findings += _judge_texts(folder.files)
            for text in folder.files:
                findings += compare_with_json(text, table, places)
    return table, findings


def line_findings(labels: RawLabels) -> list[Finding]:
    """Return the findings on the lines of every folder of text labels, each by its own lines.

    They name the label file and its lines, where an audit names the image: they are for repairs.
    """
    found: list[Finding] = []
    for folder in labels.texts:
        builder = CellTableBuilder("text labels", LLD_SCHEMA)
        _add_lines(builder, folder.files, by_image=False)
        table = builder.table()
        found += _judge_texts(folder.files)
        found += [finding for check in LINE_CHECKS for finding in check(table)]
    return found


def _of_fault(path: Path, fault: LabelFault, advice: str = "") -> Finding:
    return Finding(
        fault.code,
        "error" if fault.code != "empty-subset" else "warning",
        f"{fault.place} {fault.message}".strip(),
        fault.data,
        file=str(path),
        advice=advice or fault.advice or "correct the file",
        annotations=() if fault.annotation is None else (fault.annotation,),
    )


# ---- images ----------------------------------------------------------------------------------


def _unlabelled(labels: RawLabels, labelled: set[str]) -> Iterator[Finding]:
    for subset in labels.subsets:
        for base in subset.folders("images"):
            for image in sorted(p for p in base.rglob("*") if is_image(p)):
                if str(image) not in labelled:
                    yield Finding(
                        "unlabelled-image",
                        "info",
                        "no label file refers to this image",
                        file=str(image),
                        advice="label it, or take it out: nothing in it counts as background",
                    )


def _judge_image(image: Path, labels: str) -> Iterator[Finding]:
    """Yield what is wrong with an image's presence and name."""
    if not is_file(image):
        yield Finding(
            "missing-image",
            "error",
            f"{labels} refers to this image; it is not on disk",
            {"labels": labels},
            file=str(image),
            advice="unpack the archive it came in again: such losses come in thousands",
        )
    parts = parse_name(image.name)
    if parts is None or _STRAY.search(image.name):
        message = "the file name does not follow LLD's pattern"
        if parts is not None:
            message = "the file name holds stray characters"
        advice = "rename image and labels together"
        yield Finding("odd-file-name", "warning", message, file=str(image), advice=advice)


def _row_of(
    path: Path,
    image: Path,
    size: tuple[int | None, int | None],
    split: str | None,
    domain: Domain,
) -> FieldRow:
    parts = parse_name(image.name)
    return FieldRow(
        str(path),
        *size,
        parts.patient if parts else None,
        split,
        parts.diagnosis if parts else None,
        domain,
        parts.field if parts else None,
        parts.photograph if parts else None,
        checked=True,
        present=is_file(image),
    )


# ---- JSON ------------------------------------------------------------------------------------


def _judge_json(file: JsonLabels, builder: CellTableBuilder, places: Places) -> Iterator[Finding]:
    """Add a file's images and annotations to the table; yield what is wrong with them."""
    for fault in file.coco.faults:
        orphan = fault.code == "orphan"
        yield _of_fault(file.path, fault, "delete it, or restore the image entry" if orphan else "")
    yield from _categories(file)
    for record in file.coco.records:
        image = file.subset.find_image(record.name, file.split)
        if record.entries > 1:
            yield Finding(
                "repeated-image-entry",
                "warning",
                f"{record.name} is listed {record.entries} times, with different image ids",
                {"image": record.name, "entries": record.entries},
                file=str(file.path),
                advice="list it once: `bloodfilm data fix` does",
            )
        yield from _judge_image(image, file.path.name)
        places.setdefault((file.subset.path, image.stem), len(builder.rows))
        size = _size_of(record, image)
        builder.add_field(_row_of(image, image, size, file.split, file.subset.domain))
        for annotation in file.annotations(record):
            yield from _judge_annotation(annotation, image)
            if annotation.box is not None:
                name = annotation.name or "unnamed"
                label, ignore = _class(name), is_none(name)
                attributes = annotation.attributes
                builder.add_cell(annotation.box, label, attributes, annotation.id, ignore)


def _class(name: str) -> str | None:
    """Return the node a class name means; `None` for one to ignore or unknown."""
    return None if is_none(name) else DEFAULT_TAXONOMY.find(name)


def _same_class(one: str, other: str) -> bool:
    return (is_none(one), _class(one)) == (is_none(other), _class(other))


def _size_of(record: coco.ImageRecord, image: Path) -> tuple[int | None, int | None]:
    width, height = to_int(record.entry.get("width")), to_int(record.entry.get("height"))
    if width and height and width > 0 and height > 0:
        return width, height
    try:
        return image_size(image) if is_file(image) else (None, None)
    except DataError:
        return None, None  # the check that opens it will report why


def _categories(file: JsonLabels) -> Iterator[Finding]:
    """Yield the class ids whose name is not the one in LLD's list."""
    for ident, name in file.coco.categories.items():
        usual = CLASSES.get(ident)
        if usual is not None and not _same_class(name, usual):
            yield Finding(
                "id-and-name-differ",
                "error",
                f"category {ident} is {name!r} in this file, {usual!r} in LLD's list",
                {"category": ident, "name": name, "usual": usual},
                file=str(file.path),
                advice="the name is used; check one cell of it, then renumber",
                confidence=0.9,
            )


def _judge_annotation(annotation: RawAnnotation, image: Path) -> Iterator[Finding]:
    def finding(code: str, message: str, advice: str, **data: object) -> Finding:
        return Finding(
            code,
            "error",
            message,
            data,
            file=str(image),
            advice=advice,
            annotations=(annotation.id,),
            boxes=() if annotation.box is None else (annotation.box,),
        )

    name, by_id, class_id = annotation.name, annotation.class_by_id, annotation.class_id
    if by_id is None:
        message = f"class {class_id!r} has no name"
        yield finding("stray-code", message, "look it up", class_id=class_id)
    if (
        annotation.class_name is not None
        and by_id
        and not _same_class(annotation.class_name, by_id)
    ):
        named = annotation.class_name
        message = f"class {class_id} is {by_id!r} in this file, but the cell is named {named!r}"
        advice = "the name is used; correct the id"
        facts = {"class_id": class_id, "class": by_id, "name": named}
        yield finding("id-and-name-differ", message, advice, **facts)
    if name is not None and name != "unnamed" and not is_none(name) and _class(name) is None:
        message = f"class {name!r} is none of the taxonomy"
        yield finding("stray-code", message, "state what it is", name=name)
    for stray in annotation.stray_codes:
        last = len(LLD_SCHEMA[stray.attribute].values) - 1
        message = f"{stray}; known: 0 to {last}, and {NOT_APPLICABLE_JSON}"
        advice = f"look at the cell, or write {NOT_APPLICABLE_JSON} (not applicable)"
        facts = {"attribute": stray.attribute, "attribute_code": stray.code}
        yield finding("stray-code", message, advice, **facts)
    if annotation.box is None:
        message = "the annotation has no box of four numbers"
        yield finding("unreadable-labels", message, "delete it")


# ---- text ------------------------------------------------------------------------------------


def _add_lines(builder: CellTableBuilder, files: Iterable[TextLabels], by_image: bool) -> None:
    """Add files and their lines to a table; rows bear the image's path or the file's."""
    for file in files:
        path = file.image if by_image else file.path
        builder.add_field(_row_of(path, file.image, file.size, file.split, file.subset.domain))
        for row in file.rows:
            name = class_of(row) or "unnamed"
            known, _ = attributes_of(row)
            builder.add_cell(row.box, _class(name), known, row.place, is_none(name))


def _judge_texts(files: Sequence[TextLabels]) -> Iterator[Finding]:
    """Yield what is wrong with the files of one folder and with their lines."""
    usual, _ = usual_order(files)
    for file in files:
        for fault in file.faults:
            yield _of_fault(file.path, fault, "correct the line" if fault.place else "")
        for row in file.rows:
            yield from _judge_line(file, row)
        if file.patched:
            yield from _judge_patches(file, usual)


def _judge_line(file: TextLabels, row: Row) -> Iterator[Finding]:
    def finding(message: str, **data: object) -> Finding:
        return Finding(
            "stray-code",
            "error",
            f"{row.place} {message}",
            data,
            file=str(file.path),
            advice="correct the line",
            annotations=(row.place,),
        )

    if class_of(row) is None:
        yield finding(f"has class {row.class_id}", class_id=row.class_id)
    for stray in attributes_of(row)[1]:
        message = f"has {stray.attribute} {stray.code:g}"
        yield finding(message, attribute=stray.attribute, attribute_code=stray.code)


def _judge_patches(file: TextLabels, usual: str) -> Iterator[Finding]:
    """Yield whether a file's patches fit no order, or not the one of most files."""
    data = {"orders": list(file.orders), "usual_order": usual}
    if not file.orders:
        yield Finding(
            "patch-order",
            "error",
            "box centres lie outside the patch whichever way its columns are read",
            data,
            file=str(file.path),
            advice="correct the patch columns; the reader leaves the file out",
        )
    elif usual not in file.orders:
        yield Finding(
            "patch-order",
            "warning",
            f"patch columns are {file.orders[0]}, in most files {usual}",
            data,
            file=str(file.path),
            advice="write them like the others: `bloodfilm data fix` does",
            confidence=0.98,
        )
