"""Tables made by hand, for checks that need no pixels."""

from bloodfilm.core import Domain
from bloodfilm.core.cell_table import IGNORE, UNNAMED, CellTable, CellTableBuilder, FieldRow


def row(path="a/1.png", patient="1", split="train", diagnosis="AML", subset="H_40X_C2", **more):
    microscope, power, camera = subset.split("_")
    domain = Domain(microscope, float(power[:-1]), camera, 0.5625, 0.144)
    return FieldRow(path, 640, 640, patient, split, diagnosis, domain, **more)


def table(*fields, name="LLD") -> CellTable:
    """Each field is (row, [(box, class) or (box, class, attributes), ...])."""
    builder = CellTableBuilder(name)
    number = 0
    for one, cells in fields:
        builder.add_field(one)
        for box, label, *attributes in cells:
            number += 1
            named = None if label in (IGNORE, UNNAMED) else label
            values = attributes[0] if attributes else {}
            builder.add_cell(box, named, values, str(number), label == IGNORE)
    return builder.table()


def codes(findings):
    return [(f.code, f.severity) for f in findings]
