"""Make the README's pictures: the bundled clips, refined with the bundled network.

    python -m benchmarks.picture [--out results/picture]

Everything in them is generated, so that they can be shown anywhere.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from sfmttr.config import OutputConfig, RunConfig
from sfmttr.run import pipeline
from tools.clips import CLIPS

DOCS = Path(__file__).resolve().parents[1] / "docs"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/picture"))
    options = parser.parse_args()
    DOCS.mkdir(exist_ok=True)
    for name in ("street", "room"):
        run = options.out / name
        result = pipeline.run(CLIPS[name].path, run, RunConfig(output=OutputConfig(clouds=False)))
        for column, errors in (result.comparisons["ground_truth"] or exit("no truth")).columns.items():
            print(f"{name:<7} {column:<13} AbsRel {errors.overall.abs_rel:.4f}")
        shutil.copy(run / "pictures" / "compare.png", DOCS / f"{name}.png")


if __name__ == "__main__":
    main()
