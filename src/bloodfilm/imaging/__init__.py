"""Images in, canonical pixels out: open a field, find its scale, cut it into tiles."""

import logging

# tifffile logs what is wrong with a file; the readers say it once, in one line with the file's
# name. Without a handler of its own Python would print it as well.
logging.getLogger("tifffile").addHandler(logging.NullHandler())
