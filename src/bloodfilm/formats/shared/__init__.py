"""What several formats need: parsing, paths, shapes, staged output."""
