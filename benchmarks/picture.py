"""Make the README's picture: a rendered street, refined with METER-XXS.

    python -m benchmarks.picture [--out results/picture]

Everything in it is synthetic, so that it can be shown anywhere.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from benchmarks.clips import WEIGHTS
from sfmttr import pipeline
from sfmttr.config import OutputConfig, RunConfig, TruthConfig
from tests import synthetic

PICTURE = Path(__file__).resolve().parents[1] / "docs" / "compare.png"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/picture"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    street = synthetic.render_street(48, hw=(240, 640), horizontal_view_deg=80.0)
    clip = synthetic.write_video(street, options.out / "street.mp4")
    truth = synthetic.write_ground_truth(street, options.out / "truth")
    config = RunConfig(
        network="meter-xxs-kitti",
        weights_dir=WEIGHTS,
        truth=TruthConfig(truth),
        output=OutputConfig(clouds=False),
    )
    result = pipeline.run(clip, options.out / "run", config)
    for column, errors in (result.comparisons["ground_truth"] or exit("no truth")).columns.items():
        print(f"{column:<13} AbsRel {errors.overall.abs_rel:.4f}")
    PICTURE.parent.mkdir(exist_ok=True)
    shutil.copy(options.out / "run" / "pictures" / "compare.png", PICTURE)


if __name__ == "__main__":
    main()
