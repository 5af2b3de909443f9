"""A Parquet index of fields and cells: millions of cells without reading them all."""
