"""Data sets that the package can make itself."""
