"""The codes of everything an analysis reports about a cell, a field, a file or a run.

Programs compare codes, never messages. `CODES` lists every code once, with its severity and its
meaning; `issue` builds an `Issue` with the severity of its code.
"""

from bloodfilm.core.issues import IssueCodes

CUT_BY_EDGE = "cut-by-edge"
UNFAMILIAR = "unfamiliar"
LOW_STAIN_CONTRAST = "low-stain-contrast"
LOW_NUCLEATED_PROBABILITY = "low-nucleated-probability"
ATTRIBUTES_NOT_MEASURED = "attributes-not-measured"

SCALE_ASSUMED = "scale-assumed"
ASPECT_ASSUMED = "aspect-assumed"
FIXED_INPUT = "fixed-input"
SCALE_CONFLICT = "scale-conflict"
ASPECT_CONFLICT = "aspect-conflict"
METADATA_CONFLICT = "metadata-conflict"
METADATA_IGNORED = "metadata-ignored"
SCALE_CORRECTED = "scale-corrected"
SCALE_UNCERTAIN = "scale-uncertain"
ASPECT_ROUNDED = "aspect-rounded"
FEW_RED_CELLS = "few-red-cells"
LOW_SHARPNESS = "low-sharpness"
NO_CELLS = "no-cells"
NOT_A_FILM = "not-a-film"
UNFAMILIAR_FILM = "unfamiliar-film"
DETECTIONS_LIMITED = "detections-limited"

FIRST_PAGE_ONLY = "first-page-only"
BIT_DEPTH = "bit-depth"
FLOAT_PIXELS = "float-pixels"
NON_FINITE_PIXELS = "non-finite-pixels"
EXTRA_BYTES = "extra-bytes"
SAMPLES_LEFT_OUT = "samples-left-out"
ALPHA_UNUSED = "alpha-unused"
DUPLICATE_IMAGE = "duplicate-image"

PIXEL_SIZE_MISSING = "pixel-size-missing"
LEVELS_MISSING = "levels-missing"
LEVELS_LEFT_OUT = "levels-left-out"
SLIDE_BOUNDS = "slide-bounds"
COLOUR_PROFILE = "colour-profile"
AREA_UNREADABLE = "area-unreadable"
TILES_FAILED = "tiles-failed"
ZONE_UNCERTAIN = "zone-uncertain"
SAMPLE_REDUCED = "sample-reduced"

COPIED_FIELD = "copied-field"
SAME_PLACE = "same-place"
NOT_COMPARED = "not-compared"
VIEWS_DISAGREE = "views-disagree"
SEVERAL_PATIENTS = "several-patients"
SEVERAL_CAMERAS = "several-cameras"
SHARED_IMAGE = "shared-image"
NOTHING_COUNTED = "nothing-counted"
FAILED_FIELDS = "failed-fields"

IMAGE_NOT_FOUND = "image-not-found"
IMAGE_NOT_LISTED = "image-not-listed"
LISTED_TWICE = "listed-twice"
PATIENT_MISSING = "patient-missing"

UNREADABLE_IMAGE = "unreadable-image"
OUT_OF_MEMORY = "out-of-memory"
INTERNAL_ERROR = "internal-error"

OWN_DRAWINGS = "own-drawings"
REPEATED_IMAGE = "repeated-image"
FIELD_FAILED = "field-failed"
RUN_STOPPED = "run-stopped"
NO_OCCLUSION_MAP = "no-occlusion-map"
NO_PICTURE = "no-picture"
ADAPTATION_REFUSED = "adaptation-refused"
ADAPTATION_UNPROVEN = "adaptation-unproven"
EPOCH_DONE = "epoch"

MODEL_NOT_RECORDED = "model-not-recorded"
UNCODED = "uncoded"

CODES = IssueCodes(
    {
        CUT_BY_EDGE: ("info", "the box touches the edge of the field"),
        UNFAMILIAR: ("warning", "the cell is unlike the training cells"),
        LOW_STAIN_CONTRAST: ("warning", "the stain differs little from that of nearby red cells"),
        LOW_NUCLEATED_PROBABILITY: ("warning", "the classifier's verification head is below 0.5"),
        ATTRIBUTES_NOT_MEASURED: (
            "info",
            "no outline: attributes that follow measures are those of the network alone",
        ),
        SCALE_ASSUMED: ("warning", "no pixel size was provided or measured; a default is used"),
        ASPECT_ASSUMED: ("warning", "no pixel aspect ratio was provided or measured; 1 is used"),
        FIXED_INPUT: ("warning", "analysed at a fixed input size, without a canonical view"),
        SCALE_CONFLICT: ("warning", "red cells contradict the pixel size that is used"),
        ASPECT_CONFLICT: ("warning", "red cells contradict the pixel aspect ratio that is used"),
        METADATA_CONFLICT: (
            "warning",
            "the file's metadata contradict the pixel size that is used",
        ),
        METADATA_IGNORED: ("info", "the file's metadata state a pixel size no blood film has"),
        SCALE_CORRECTED: ("warning", "the pixel size was corrected by the red cells detected"),
        SCALE_UNCERTAIN: ("warning", "the pixel size rests on weak evidence"),
        ASPECT_ROUNDED: ("info", "the measured aspect ratio is within its error of 1; 1 is used"),
        FEW_RED_CELLS: ("warning", "too few whole red cells to measure the pixel size well"),
        LOW_SHARPNESS: ("warning", "the field is blurred"),
        NO_CELLS: ("warning", "nothing was detected"),
        NOT_A_FILM: (
            "error",
            "the picture does not look like a blood film; its cells must not count",
        ),
        UNFAMILIAR_FILM: (
            "warning",
            "stain or optics are far from those of every training set; fewer cells are named",
        ),
        DETECTIONS_LIMITED: (
            "info",
            "of detections below the model's threshold only the best are listed",
        ),
        FIRST_PAGE_ONLY: ("warning", "the file has several pages; only the first was read"),
        BIT_DEPTH: ("info", "pixels of more than 8 bits were scaled"),
        FLOAT_PIXELS: ("info", "floating-point pixels were read as 0..1"),
        NON_FINITE_PIXELS: ("warning", "pixels that are not numbers were set to 0"),
        EXTRA_BYTES: ("info", "the file holds bytes that belong to no picture"),
        SAMPLES_LEFT_OUT: ("info", "samples beyond the colours were left out"),
        ALPHA_UNUSED: ("info", "an alpha channel that is 0 everywhere was not used"),
        DUPLICATE_IMAGE: ("warning", "the same picture was analysed before in this run"),
        PIXEL_SIZE_MISSING: ("info", "the slide states no believable pixel size"),
        LEVELS_MISSING: ("info", "the slide has no reduced levels; overviews take longer"),
        LEVELS_LEFT_OUT: ("info", "pages of the slide show something else and were not used"),
        SLIDE_BOUNDS: (
            "info",
            "only the scanned part of the slide is used; positions count from it",
        ),
        COLOUR_PROFILE: ("info", "the slide has a colour profile, which is not applied"),
        AREA_UNREADABLE: ("warning", "parts of the slide cannot be decoded and hold no cells"),
        TILES_FAILED: ("error", "parts of the slide could not be analysed"),
        ZONE_UNCERTAIN: (
            "warning",
            "no part of the slide is clearly a monolayer; the best was used",
        ),
        SAMPLE_REDUCED: (
            "info",
            "the zone is smaller than the sample asked for; all of it was used",
        ),
        COPIED_FIELD: ("info", "the picture is that of another field of the case, copied"),
        SAME_PLACE: ("info", "another field of the case shows the same place, more sharply"),
        NOT_COMPARED: ("warning", "the field could not be compared with the others of its case"),
        VIEWS_DISAGREE: ("info", "overlapping fields name the cell differently"),
        SEVERAL_PATIENTS: ("warning", "file names of one case tell of several patients"),
        SEVERAL_CAMERAS: ("warning", "fields of one case are of several sizes or scales"),
        SHARED_IMAGE: ("warning", "an image is in several cases"),
        NOTHING_COUNTED: ("warning", "no field of the case can be counted"),
        FAILED_FIELDS: ("error", "files of the case could not be analysed"),
        IMAGE_NOT_FOUND: ("error", "a table of cases names an image that is not there"),
        IMAGE_NOT_LISTED: ("warning", "an image is not in the table of cases, and is left out"),
        LISTED_TWICE: ("warning", "a table of cases lists an image more than once"),
        PATIENT_MISSING: ("error", "a row of a table of cases names no patient"),
        UNREADABLE_IMAGE: ("error", "the file cannot be analysed"),
        OUT_OF_MEMORY: ("error", "the field needs more memory than there is"),
        INTERNAL_ERROR: ("error", "a fault of the program"),
        OWN_DRAWINGS: ("info", "pictures that bloodfilm drew were passed over"),
        REPEATED_IMAGE: ("warning", "a file was reached by several names, and is analysed once"),
        FIELD_FAILED: ("error", "a file could not be analysed; the reason is in the data"),
        RUN_STOPPED: ("info", "the run was stopped; what is done is kept"),
        NO_PICTURE: ("warning", "fields cannot be read again, so a report does not show them"),
        NO_OCCLUSION_MAP: ("warning", "the field cannot be read again, so its cells have no map"),
        ADAPTATION_REFUSED: ("warning", "a rule by which an adaptation was not taken over"),
        ADAPTATION_UNPROVEN: (
            "warning",
            "an adaptation was taken over, and no labelled cell says whether it still names some "
            "classes",
        ),
        EPOCH_DONE: ("info", "an epoch of training is done; its figures are in the data"),
        MODEL_NOT_RECORDED: ("info", "a file of version 1 does not record taxonomy and attributes"),
        UNCODED: ("warning", "a message from a file of version 1, which had no codes"),
    }
)
issue = CODES.issue
UNCOUNTABLE = frozenset({SCALE_ASSUMED, FIXED_INPUT, NOT_A_FILM, DUPLICATE_IMAGE})
"""Issues of a field whose cells belong in no count: it rests on nothing, or was counted before."""
