"""Reports side by side: clauses by backends, on a page and on a terminal."""
