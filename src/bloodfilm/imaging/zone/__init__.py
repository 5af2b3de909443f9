"""The zone of morphology of a slide: the monolayer, in which cells are counted."""

from bloodfilm.imaging.zone.features import BlockFeatures, RedCellReference
from bloodfilm.imaging.zone.find import find_zone
from bloodfilm.imaging.zone.picture import zone_picture
from bloodfilm.imaging.zone.zone import Zone, whole_slide, zone_of_region

__all__ = [
    "BlockFeatures",
    "RedCellReference",
    "Zone",
    "find_zone",
    "whole_slide",
    "zone_of_region",
    "zone_picture",
]
