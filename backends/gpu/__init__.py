"""The operator with GPU kernels of our own: one meaning, two sets of kernels."""
