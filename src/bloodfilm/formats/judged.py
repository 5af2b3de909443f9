"""Which data sets hold what a person annotated: only these are learnt from, or taken for truth."""

from bloodfilm.core import Dataset
from bloodfilm.core.dataset_codes import refuse_planned
from bloodfilm.core.errors import DataError
from bloodfilm.formats.result import Proposals


def refuse_unjudged(dataset: Dataset, place: object) -> None:
    """Refuse a plan of regions, and the results of an analysis.

    Args:
        dataset: that is to be learnt from, or measured against.
        place: its file, for the message.

    Raises:
        DataError: that names the set and the remedy.
    """
    refuse_planned(dataset.issues, place)
    if isinstance(dataset.fields, Proposals):
        raise DataError(
            f"{place}: the results of an analysis are proposals, and no truth; correct them in an "
            "annotation program (bloodfilm data convert) and take what it exports"
        )
