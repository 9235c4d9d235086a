"""Makes the planted bugs (mutants) and the right embeddings (right) importable by name."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

pytest_plugins = ["pytester"]
