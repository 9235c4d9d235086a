"""The checks of a backend's module form."""
