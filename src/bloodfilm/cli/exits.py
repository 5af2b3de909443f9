"""Exit codes of the commands."""

OK = 0
SOME_FAILED = 1
"""Some files failed (each is named), or an audit found errors; the rest is done."""
NOTHING_DONE = 2
"""Nothing was done: wrong options, unusable input or output, every file failed."""
INTERNAL_ERROR = 70
INTERRUPTED = 130
BROKEN_PIPE = 141
TERMINATED = 143
