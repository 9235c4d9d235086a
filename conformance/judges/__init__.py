"""The judge of every clause, one module a clause group."""
