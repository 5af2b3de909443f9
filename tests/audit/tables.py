"""Tables made by hand, for checks that need no pixels."""

from bloodfilm.audit.cell_table import Builder, FieldRow, Table
from bloodfilm.core import Domain


def row(path="a/1.png", patient="1", split="train", diagnosis="AML", subset="H_40X_C2", **more):
    microscope, power, camera = subset.split("_")
    domain = Domain(microscope, float(power[:-1]), camera, 0.5625, 0.144)
    return FieldRow(path, 640, 640, patient, split, diagnosis, domain, **more)


def table(*fields, name="LLD") -> Table:
    """Each field is (row, [(box, class) or (box, class, attributes), ...])."""
    builder = Builder(name)
    number = 0
    for one, cells in fields:
        builder.add(one)
        for box, label, *attributes in cells:
            number += 1
            builder.cell(box, label, attributes[0] if attributes else {}, str(number))
    return builder.table()


def kinds(findings):
    return [(f.kind, f.severity) for f in findings]
