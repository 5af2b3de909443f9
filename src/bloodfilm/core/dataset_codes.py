"""The codes of what readers of data sets leave out, correct or note, and writers cannot carry.

Programs compare codes, never messages. `CODES` lists every code once, with its severity and its
meaning; `dataset_issue` builds an `Issue` with the severity of its code.
"""

from collections.abc import Iterable

from bloodfilm.core.errors import DataError
from bloodfilm.core.issues import Issue, IssueCodes, codes

UNREADABLE_FILE = "unreadable-file"
ILL_FORMED_ENTRY = "ill-formed-entry"
ILL_FORMED_METADATA = "ill-formed-metadata"
METADATA_LOST = "metadata-lost"
UNUSABLE_SHAPE = "unusable-shape"
BOX_CUT = "box-cut"
AMBIGUOUS_IMAGE = "ambiguous-image"
MISSING_IMAGE = "missing-image"
UNREADABLE_IMAGE = "unreadable-image"
SIZE_SCALED = "size-scaled"
SIZE_CONFLICT = "size-conflict"
SIMILAR_NAME = "similar-name"
LABELLED_TWICE = "labelled-twice"
LINKED_IMAGE = "linked-image"
IDENTICAL_IMAGES = "identical-images"
DUPLICATE_BOXES = "duplicate-boxes"
REPEATED_ENTRY = "repeated-image-entry"
SEVERAL_ANNOTATIONS = "several-annotations"
PREDICTIONS_ONLY = "predictions-only"
UNKNOWN_CLASS = "unknown-class"
UNNAMED_CLASS = "unnamed-class"
NAMES_DIFFER = "id-and-name-differ"
LABELS_DIFFER = "labels-differ"
UNKNOWN_VALUE = "unknown-value"
UNKNOWN_ORIGIN = "unknown-origin"
NOT_KEPT = "not-kept"
UNLABELLED_IMAGE = "unlabelled-image"
WITHOUT_LABELS = "without-labels"
UNREADABLE_LABELS = "unreadable-labels"
ORPHAN = "orphan"
SPLIT_CONFLICT = "split-conflict"
TAKEN_OUT_OF_SPLIT = "taken-out-of-split"
PATCH_ORDER = "patch-order"
REGION_CHANGED = "region-changed"
LOOK_AT = "look-at"
NOT_TRANSFERRED = "not-transferred"
NOT_CARRIED = "not-carried"
FROM_OUTSIDE = "from-outside"
WITHOUT_SPLIT = "without-split"
UNSEALED = "unsealed"
PLANNED = "planned"
UNCODED = "uncoded"

CODES = IssueCodes(
    {
        UNREADABLE_FILE: ("warning", "a file of the set cannot be read; it is left out"),
        ILL_FORMED_ENTRY: ("warning", "an entry of a label file cannot be read; it is left out"),
        ILL_FORMED_METADATA: (
            "warning",
            "what a file states beside its annotations cannot be read",
        ),
        METADATA_LOST: ("warning", "the annotation tool did not keep what was stated of a field"),
        UNUSABLE_SHAPE: ("warning", "a box or outline cannot be used; its cell is left out"),
        BOX_CUT: ("warning", "a box reaches over the image's edge; it is cut there"),
        AMBIGUOUS_IMAGE: ("warning", "a name may be any of several images; none is taken"),
        MISSING_IMAGE: ("warning", "images that the labels name are not there"),
        UNREADABLE_IMAGE: ("warning", "the header of an image cannot be read"),
        SIZE_SCALED: ("info", "a picture has another size than its labels state; boxes are scaled"),
        SIZE_CONFLICT: ("warning", "a picture has another shape than its labels state"),
        SIMILAR_NAME: ("info", "an image is found under a name that differs in stray characters"),
        LABELLED_TWICE: ("warning", "an image is labelled twice; the second labels are left out"),
        LINKED_IMAGE: ("info", "one image file has several names"),
        IDENTICAL_IMAGES: ("info", "images are the same, byte by byte"),
        DUPLICATE_BOXES: ("info", "exact duplicates of boxes were removed"),
        REPEATED_ENTRY: ("info", "a label file lists one image several times; taken together"),
        SEVERAL_ANNOTATIONS: ("warning", "several annotations of one image; one of them is taken"),
        PREDICTIONS_ONLY: ("info", "tasks hold predictions only, which are no annotations"),
        UNKNOWN_CLASS: ("warning", "a class is not in the taxonomy; its cells keep that name"),
        UNNAMED_CLASS: ("warning", "a class id has no name; its cells are unnamed"),
        NAMES_DIFFER: (
            "warning",
            "two names are given to one class; the message says which is used",
        ),
        LABELS_DIFFER: ("warning", "two label files of one field do not agree"),
        UNKNOWN_VALUE: ("warning", "an attribute has a value nobody defined; taken as unknown"),
        UNKNOWN_ORIGIN: ("warning", "the set does not say where an image comes from"),
        NOT_KEPT: ("info", "a file states what a data set has no place for"),
        UNLABELLED_IMAGE: ("warning", "an image has no labels; kept as not annotated"),
        WITHOUT_LABELS: ("warning", "a folder or split has no labels; it is left out"),
        UNREADABLE_LABELS: ("warning", "a line or entry of a label file cannot be read"),
        ORPHAN: ("warning", "labels belong to no image; they are left out"),
        SPLIT_CONFLICT: (
            "warning",
            "an image is in several splits; the message says which is used",
        ),
        TAKEN_OUT_OF_SPLIT: ("info", "images were taken out of a split that they would leak from"),
        PATCH_ORDER: ("info", "in which order the columns of patches were read"),
        REGION_CHANGED: ("warning", "an annotated region is not the planned one"),
        LOOK_AT: ("warning", "an annotation may be wrong; look at it"),
        NOT_TRANSFERRED: ("warning", "annotations were not transferred to an image"),
        NOT_CARRIED: ("warning", "the format that was written has no place for it; it is left out"),
        FROM_OUTSIDE: ("info", "an image was put in place that lies outside of the set"),
        WITHOUT_SPLIT: ("warning", "what was written lacks a split, or has one it gave a name to"),
        UNSEALED: ("info", "an index has no checksums, so that damage may go unnoticed"),
        PLANNED: ("warning", "the regions are planned, and nobody annotated them yet"),
        UNCODED: ("warning", "a message from a file that was written without codes"),
    }
)
dataset_issue = CODES.issue


def refuse_planned(issues: Iterable[Issue], place: object) -> None:
    """Refuse a set whose regions nobody annotated: that they hold no cell says nothing.

    Raises:
        DataError: that names the set and the remedy.
    """
    if PLANNED in codes(issues):
        raise DataError(
            f"{place}: a plan of regions, which nobody annotated yet; annotate them, and take the "
            f"result (in bloodfilm.json, delete the entry {PLANNED!r} of `issues` then)"
        )
