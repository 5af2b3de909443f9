"""The key of a training sample: the epoch it is drawn in, and its number."""

Key = tuple[int, int]
