"""Images in, canonical pixels out: open a field, find its scale, cut it into tiles."""
