"""The regression gate: base and head of a repository, measured in turn and told apart."""
