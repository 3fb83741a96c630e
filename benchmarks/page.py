"""Time until the page opens: seconds from `python app.py` to the first answer.

    python -m benchmarks.page [--times 3] [--out benchmarks/results/page]

Each repetition starts a process of its own with an empty folder for its state. "again": the page is fetched once more
from the same process.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PORT = 7899
TIMEOUT_S = 60.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/page"))
    options = parser.parse_args()
    rows = [_opened() for _ in range(options.times)]
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "page.json").write_text(
        json.dumps({"first_s": [a for a, _ in rows], "again_s": [b for _, b in rows]})
    )
    for name, values in zip(("first answer", "again"), zip(*rows, strict=True), strict=True):
        print(f"{name:<14} {statistics.median(values):6.2f} s   (of {', '.join(f'{value:.2f}' for value in values)})")


def _opened() -> tuple[float, float]:
    """Return the seconds to the first whole page, and of a second one."""
    with tempfile.TemporaryDirectory() as state:
        environment = os.environ | {"GRADIO_SERVER_PORT": str(PORT), "SFMTTR_PAGE": state}
        started = time.perf_counter()
        page = subprocess.Popen([sys.executable, "app.py"], cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
        try:
            while not _answers():
                if page.poll() is not None or time.perf_counter() - started > TIMEOUT_S:
                    raise SystemExit("the page did not open")
                time.sleep(0.02)
            first = time.perf_counter() - started
            _answers()
            return first, time.perf_counter() - started - first
        finally:
            page.terminate()
            page.wait(10)


def _answers() -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{PORT}/", timeout=10) as answer:
            return bool(b"gradio" in answer.read())
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False


if __name__ == "__main__":
    main()
