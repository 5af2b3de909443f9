"""The errors a user may see: one line that names the file, the place and the remedy."""


class BloodfilmError(Exception):
    """Something the user can mend; its text is one line that says what, where and how."""


class DataError(BloodfilmError):
    """An image, a label file or a folder cannot be used as it is."""


class ConfigError(BloodfilmError):
    """A configuration file or an option is wrong."""


class BundleError(BloodfilmError):
    """A model bundle is missing, damaged, or of a version this program does not read."""
