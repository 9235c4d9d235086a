"""Run the command line as ``python -m embconform``."""

from embconform.commands.main import entry_point

if __name__ == "__main__":
    entry_point()
