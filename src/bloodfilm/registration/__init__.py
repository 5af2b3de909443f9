"""Transfer annotations between images of the same field by registration."""
