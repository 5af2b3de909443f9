"""Check that a split does not leak: no patient and no glass on both sides."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from bloodfilm.core.cell_table import CellTable
from bloodfilm.core.findings import Finding
from bloodfilm.splits.grouping import Pairs, place_of
from bloodfilm.splits.split_file import Split


def check_split(
    split: Split, tables: Sequence[CellTable], pairs: Sequence[Pairs] = ()
) -> list[Finding]:
    """Return what is wrong with a split; none of it with severity `error` if it does not leak."""
    found: list[Finding] = []
    placed = {place_of(path): name for path, name in split.splits.items()}
    patients: dict[str, dict[str, str]] = defaultdict(dict)
    for table, linked in zip(tables, [*pairs, *([()] * len(tables))], strict=False):
        for row in table.rows:
            path = place_of(row.path)
            if path not in placed:
                message = "the split does not list this field"
                found.append(
                    Finding("not-checked", "warning", message, file=row.path, advice="split anew")
                )
            elif placed[path] and row.patient is not None:
                patients[f"{table.name}/{row.patient}"].setdefault(str(placed[path]), row.path)
        found += _linked_apart(table, linked, placed)
    for patient, where in sorted(patients.items()):
        if len(where) > 1:
            splits = sorted(where)
            files = [where[s] for s in splits]
            found.append(
                Finding(
                    "patient-leak",
                    "error",
                    f"patient {patient} is in {' and '.join(splits)}",
                    {"patient": patient, "splits": splits},
                    file=files[0],
                    advice="split anew",
                    others=tuple(files[1:]),
                )
            )
    return found


def _linked_apart(
    table: CellTable, linked: Iterable[tuple[int, int]], placed: Mapping[str, str | None]
) -> list[Finding]:
    found = []
    for one, two in linked:
        a, b = table.rows[one].path, table.rows[two].path
        here, there = placed.get(place_of(a)), placed.get(place_of(b))
        if here and there and here != there:
            found.append(
                Finding(
                    "overlapping-fields",
                    "error",
                    f"two fields that show the same glass are in {here} and {there}",
                    {"splits": [here, there]},
                    file=a,
                    advice="split anew",
                    others=(b,),
                )
            )
    return found
