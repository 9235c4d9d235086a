"""Whether GPU kernels reach the speed that they are meant to reach: one table, one run."""
