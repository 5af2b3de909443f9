"""The same image, glass or cell more than once: identical files, overlaps, reacquired cells."""
