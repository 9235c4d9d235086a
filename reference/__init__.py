"""What an embedding layer must do: clauses, oracle and error bounds, in NumPy."""
