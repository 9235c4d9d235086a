"""A report as people and machines read it: terminal, JSON, JUnit, Markdown, repro scripts."""
