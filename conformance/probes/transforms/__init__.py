"""The checks of lookups under torch's transforms."""
