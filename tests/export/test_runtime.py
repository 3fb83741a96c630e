"""`export/runtime.py` stands alone: no torch, nothing of ours, and clear words when it cannot work."""

from __future__ import annotations

import shutil
import subprocess
import sys
import venv
from pathlib import Path

import numpy as np
import onnx
import pytest

from export.runtime import ModelError, OnnxDepth
from export.spec import METADATA_PREFIX, ModelMetadata
from sfmttr.networks.base import DepthPredictor
from tests.support.exported import HW, Exported

ROOT = Path(__file__).resolve().parents[2]
RUNTIME = ROOT / "export" / "runtime.py"
ALONE = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "sfmttr", "export", "onnx"):
            raise ImportError(f"{name} is blocked")

sys.meta_path.insert(0, Blocked())
import numpy as np
from runtime import OnnxDepth

predictor = OnnxDepth(sys.argv[1])
depth = predictor.predict(np.load(sys.argv[2]))
np.save(sys.argv[3], depth)
print(predictor.provider, predictor.unit, predictor.metadata["network"])
"""


def run_alone(python: str, exported: Exported, folder: Path) -> np.ndarray:
    """Depth of a picture, from a process that has nothing but a copy of `runtime.py` beside it."""
    shutil.copy(RUNTIME, folder)
    (folder / "alone.py").write_text(ALONE)
    rgb = np.random.default_rng(0).integers(0, 256, (90, 70, 3), np.uint8)
    np.save(folder / "rgb.npy", rgb)
    model = exported.export / "depth-fp32.onnx"
    command = [python, "alone.py", str(model), "rgb.npy", "depth.npy"]
    ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.strip() == "CPUExecutionProvider network units tiny-test"
    np.testing.assert_array_equal(np.load(folder / "depth.npy"), OnnxDepth(model).predict(rgb))
    return rgb


def test_runs_without_torch_and_without_us(exported: Exported, tmp_path: Path) -> None:
    run_alone(sys.executable, exported, tmp_path)


@pytest.mark.slow
def test_runs_in_a_clean_environment(exported: Exported, tmp_path: Path) -> None:
    venv.create(tmp_path / "venv", with_pip=True)
    python = str(tmp_path / "venv" / "bin" / "python")
    subprocess.run([python, "-m", "pip", "install", "-q", "onnxruntime", "numpy", "pillow"], check=True)
    run_alone(python, exported, tmp_path)


def test_satisfies_the_protocol_of_torch_networks(exported: Exported) -> None:
    predictor: DepthPredictor = OnnxDepth(exported.export / "depth-fp32.onnx")
    assert predictor.kind == "scale_invariant"
    depth = predictor.predict(np.zeros((*HW, 3), np.uint8))
    assert (depth.shape, depth.dtype) == (HW, np.float32)


def test_metadata_are_read_as_spec_wrote_them(exported: Exported) -> None:
    predictor = OnnxDepth(exported.export / "depth-int8.onnx")
    props = {METADATA_PREFIX + name: text for name, text in predictor.metadata.items()}
    found = ModelMetadata.from_props(props)
    assert (found.variant, found.kind, found.unit) == ("int8", predictor.kind, predictor.unit)


def test_layout_of_the_array_does_not_matter(exported: Exported) -> None:
    predictor = OnnxDepth(exported.export / "depth-fp32.onnx", threads=1)
    rgb = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    expected = predictor.predict(rgb)
    np.testing.assert_array_equal(predictor.predict(np.asfortranarray(rgb)), expected)
    np.testing.assert_array_equal(predictor.predict(rgb[::-1][::-1]), expected)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 4, 3), np.float32),
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((1, 4, 4, 3), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
    ],
)
def test_other_arrays_are_refused(exported: Exported, image: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"expected an image \(H, W, 3\) uint8"):
        OnnxDepth(exported.export / "depth-fp32.onnx").predict(image)


def test_files_that_cannot_be_run_are_refused(exported: Exported, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.onnx"
    damaged.write_bytes((exported.export / "depth-fp32.onnx").read_bytes()[:2000])
    for path in (damaged, tmp_path / "missing.onnx"):
        with pytest.raises(ModelError, match="cannot be loaded"):
            OnnxDepth(path)
    model = onnx.load(exported.export / "depth-fp32.onnx")
    onnx.helper.set_model_props(model, {})
    onnx.save(model, tmp_path / "foreign.onnx")
    with pytest.raises(ModelError, match="takes no pictures"):
        OnnxDepth(tmp_path / "foreign.onnx")
    with pytest.raises(ModelError, match="this onnxruntime has no NoSuchProvider; it has"):
        OnnxDepth(exported.export / "depth-fp32.onnx", ["NoSuchProvider"])
