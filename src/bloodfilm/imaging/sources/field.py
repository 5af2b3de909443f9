"""The image of an annotated field: opened where labels and pixels must belong together."""

from bloodfilm.core.errors import DataError
from bloodfilm.core.field import Field
from bloodfilm.imaging.sources import ImageSource, open_source


def open_field(field: Field) -> ImageSource:
    """Open the image that a field's boxes and region are in the pixels of.

    Raises:
        DataError: if the image cannot be read, or has another size than the field: then another
            picture lies in its place, and the boxes are not in its pixels.
    """
    source = open_source(field.path)
    try:
        check_size(field, source.size)
    except DataError:
        source.close()
        raise
    return source


def check_size(field: Field, size: tuple[int, int]) -> None:
    """Raise `DataError` if an image, of a width and height in px, is not the one labelled."""
    labelled = (field.width, field.height)
    if None not in labelled and labelled != size:
        raise DataError(
            f"{field.path}: is {size[0]} x {size[1]} px, its labels are of an image "
            f"of {field.width} x {field.height} px; put that image back, or read the data set again"
        )
