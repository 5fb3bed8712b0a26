"""rowferry carries rows between databases and proves that they arrived."""

__version__ = "0.1.0"
