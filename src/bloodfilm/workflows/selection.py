"""Open a data set that a person annotated, and choose the fields of it that a command works on."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bloodfilm.core import dataset_codes
from bloodfilm.core.dataset import Dataset
from bloodfilm.core.errors import DataError
from bloodfilm.core.field import Field
from bloodfilm.formats import open_dataset
from bloodfilm.formats.judged import refuse_unjudged


@dataclass(frozen=True, kw_only=True)
class SelectionJob:
    """An annotated data set, the fields of it to work on, and where the set goes that is made.

    Attributes:
        dataset: that a person annotated.
        out: folder for the new set.
        format: of the labels, if it is not recognised.
        splits: use fields of these splits only; empty uses all.
        microscopes: use fields of these microscopes only; empty uses all.
        clean_splits: leave out images that leak from one split into another (TXL-PBC, PBC).
        bundle: the model; `None` for the shipped one.
        overwrite: replace a set in `out`.
    """

    dataset: Path
    out: Path
    format: str | None = None
    splits: tuple[str, ...] = ()
    microscopes: tuple[str, ...] = ()
    clean_splits: bool = False
    bundle: Path | None = None
    overwrite: bool = False

    def open(self) -> Dataset:
        """Open the set; errors as of `open_selected`."""
        return open_selected(
            self.dataset,
            self.format,
            splits=self.splits,
            microscopes=self.microscopes,
            clean_splits=self.clean_splits,
        )


def open_selected(
    path: Path,
    format: str | None = None,
    *,
    splits: Sequence[str] = (),
    microscopes: Sequence[str] = (),
    clean_splits: bool = False,
) -> Dataset:
    """Open an annotated data set with the fields that were asked for.

    Fields whose image is not there are kept: whoever opens it names it among the failures.

    Args:
        path: of the set.
        format: of the labels, if it is not recognised.
        splits: fields of these only; empty takes all.
        microscopes: fields of these only; empty takes all.
        clean_splits: leave out images that leak from one split into another, where the format
            knows them.

    Raises:
        DataError: if nobody annotated the set, or it has no such field.
    """
    dataset = open_annotated(path, format, clean_splits=clean_splits)
    chosen = select_fields(dataset.fields, path, splits=splits, microscopes=microscopes)
    return replace(dataset, fields=tuple(chosen))


def open_annotated(path: Path, format: str | None = None, *, clean_splits: bool = False) -> Dataset:
    """Open a data set that a person annotated; arguments and errors as of `open_selected`."""
    options = {"clean_splits": True} if clean_splits else {}
    dataset = open_dataset(path, format, missing="keep", **options)
    refuse_unjudged(dataset, path)
    known = tuple(i for i in dataset.issues if i.code != dataset_codes.MISSING_IMAGE)
    return replace(dataset, issues=known)


def select_fields(
    fields: Sequence[Field],
    place: Path,
    *,
    splits: Sequence[str] = (),
    microscopes: Sequence[str] = (),
) -> list[Field]:
    """Return the fields of these splits and microscopes; of all, where none is named.

    Args:
        fields: of a data set.
        place: of the data set, for messages.
        splits, microscopes: that are wanted.

    Raises:
        DataError: that says what there is, if no field is left.
    """
    for what, asked, there in (
        ("split", splits, {f.split for f in fields}),
        ("microscope", microscopes, {f.domain.microscope for f in fields}),
    ):
        absent = [a for a in asked if a not in there]
        if absent:
            known = ", ".join(sorted(t for t in there if t)) or "none"
            raise DataError(f"{place}: no field of {what} '{absent[0]}'; there: {known}")
    found = [
        f
        for f in fields
        if (not splits or f.split in splits)
        and (not microscopes or f.domain.microscope in microscopes)
    ]
    if not found:
        why = "no field of these splits is of these microscopes" if fields else "holds no field"
        raise DataError(f"{place}: {why}")
    return found
