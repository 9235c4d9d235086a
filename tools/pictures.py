"""Make the pictures of README anew: the terminal from a real run, the matrix from docs/reports.

Run ``python tools/pictures.py``. The terminal is drawn by Rich; the matrix by Chromium, installed
by ``apt-get install chromium``, beside ``embconform[test]``.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory

from playwright.sync_api import sync_playwright
from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).parents[1]
IMAGES = ROOT / "docs" / "images"
CODE = "def look_up(input, weight):\n    return weight[input]\n"
COMMAND = "embconform validate port.py:look_up --select lookup.rows,errors.negative,errors.int32"
CHROMIUM = "/usr/bin/chromium"
COLUMNS = 118
LOCAL_FONTS = re.sub(r"@font-face \{\{.*?\}\}", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
"""Rich's frame without the fonts that a viewer would have to fetch."""
SHOWN = (
    "eager", "module", "compile", "export", "script", "vmap", "index-select", "one-hot",
    "dtensor-row", "jax", "flax", "keras-torch", "onnxruntime", "openvino", "numba", "mlx",
)  # fmt: skip
"""Backends whose columns fit in the picture."""


def main() -> None:
    """Make both."""
    IMAGES.mkdir(exist_ok=True)
    draw_terminal(IMAGES / "terminal.svg")
    draw_matrix(IMAGES / "matrix.png")


def draw_terminal(picture: Path) -> None:
    """Judge a lookup by a few clauses, and draw what is printed."""
    with TemporaryDirectory() as folder:
        (Path(folder) / "port.py").write_text(CODE)
        wide = {"FORCE_COLOR": "1", "COLUMNS": str(COLUMNS), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [sys.executable, "-m", *COMMAND.split()],
            cwd=folder, env=os.environ | wide, capture_output=True, text=True, check=False,
        )  # fmt: skip
    assert done.returncode == 1, done.stderr
    console = Console(record=True, width=COLUMNS, file=StringIO())
    typed = Text(f"$ cat port.py\n{CODE}\n$ {COMMAND}\n")
    console.print(typed, Text.from_ansi(done.stdout), sep="")
    console.save_svg(str(picture), title="embconform", code_format=LOCAL_FONTS)


def draw_matrix(picture: Path) -> None:
    """Make the page of some saved reports, and take a picture of its top."""
    reports = [str(ROOT / "docs" / "reports" / f"{name}.json") for name in SHOWN]
    with TemporaryDirectory() as folder, sync_playwright() as playwright:
        page_file = Path(folder) / "matrix.html"
        subprocess.run(
            [sys.executable, "-m", "embconform", "matrix", *reports, "--html", str(page_file)],
            check=False,  # some backend is not conformant
        )
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 960})
        page.goto(page_file.as_uri())
        page.screenshot(path=str(picture))
        browser.close()


if __name__ == "__main__":
    main()
