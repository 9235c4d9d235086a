"""The calls that a target is put through, as plain data, and how they are drawn."""
