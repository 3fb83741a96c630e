"""The boundary to ZeroGPU, with a stand-in for `spaces` that forks and pickles as the real one does."""

from __future__ import annotations

import functools
import inspect
import multiprocessing
import pickle
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from demo import zerogpu
from demo.zerogpu import ZeroGpuBackend
from sfmttr.config import RECIPES, OutputConfig, Preset, RunConfig, TrainableScope, VideoConfig
from sfmttr.errors import Cancelled
from sfmttr.io.depth_maps import read_maps
from sfmttr.networks.base import DepthNetwork, state_dict_cpu
from sfmttr.networks.huggingface import activation_memory
from sfmttr.refinement.backend import LiveNetwork, LocalBackend
from sfmttr.refinement.targets import Targets
from sfmttr.refinement.task import RefineStep, RefineTask
from sfmttr.run import pipeline
from sfmttr.run.results import RunResult
from tests.support.fakes import TINY, FakeSfm, TinyNetwork, fit, register_tiny
from tools.synthetic import RenderedClip, write_frames

CONFIG = RunConfig(
    network=TINY,
    steps=30,
    device="cpu",
    video=VideoConfig(duplicate_threshold=0.0),
    output=OutputConfig(pictures=False, clouds=False),
)
FORK = multiprocessing.get_context("fork")


@dataclass
class FakeSpaces:
    """`spaces.GPU`: each call runs in a forked child that ends, and whatever comes back was pickled."""

    asked: list[tuple[str, int]] = field(default_factory=list)
    """Function and seconds of each call."""
    pickled: bool = False
    """Check that values sent to a child are pickled, because its process was forked earlier."""

    def GPU(self, *, duration: Callable[..., int]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:  # noqa: N802
        def wrap(task: Callable[..., Any]) -> Callable[..., Any]:
            @functools.wraps(task)
            def call(*args: Any) -> Any:
                self.asked.append((task.__name__, duration(*args)))
                return _forked(task, self._sent(args))

            @functools.wraps(task)
            def generate(*args: Any) -> Iterator[Any]:
                self.asked.append((task.__name__, duration(*args)))
                yield from _forked_generator(task, self._sent(args))

            return generate if inspect.isgeneratorfunction(task) else call

        return wrap

    def _sent(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return pickle.loads(pickle.dumps(args)) if self.pickled else args


def _forked_generator(task: Callable[..., Any], args: tuple[Any, ...]) -> Iterator[Any]:
    receiver, sender = FORK.Pipe(duplex=False)
    stop = FORK.Event()

    def work() -> None:
        try:
            for value in task(*args):
                if stop.is_set():
                    break
                sender.send(("value", value))
            sender.send(("end", None))
        except Exception as error:  # noqa: BLE001
            sender.send(("error", repr(error)))

    process = FORK.Process(target=work, daemon=True)
    process.start()
    try:
        while True:
            assert receiver.poll(120), "the forked child hangs"
            kind, value = receiver.recv()
            if kind == "end":
                return
            if kind == "error":
                raise RuntimeError(value)
            yield value
    finally:
        stop.set()
        process.join(5)
        ended = not process.is_alive()
        process.kill()
        assert ended


def _forked(task: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    def once(*given: Any) -> Iterator[Any]:
        yield task(*given)

    (value,) = _forked_generator(once, args)
    return value


@pytest.fixture
def clip(room: RenderedClip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_frames(room, tmp_path / "clip")
    torch.manual_seed(0)
    register_tiny(monkeypatch, tmp_path / "weights", state_dict_cpu(fit(TinyNetwork(), room, steps=15)))
    FakeSfm(room).install(monkeypatch)
    # A GPU that is none: the child asks for the best device, as it would there.
    monkeypatch.setattr("sfmttr.utils.device.torch.cuda.is_available", lambda: False)
    return tmp_path / "clip"


def run(clip: Path, name: str, backend: Any, on_step: Any = None, config: RunConfig = CONFIG) -> RunResult:
    more = {} if on_step is None else {"on_step": on_step}
    return pipeline.run(clip, clip.parent / name, config, backend=backend, **more)


def same(one: RunResult, other: RunResult) -> None:
    assert one.refined is not None
    assert other.refined is not None
    assert one.refined.losses == other.refined.losses
    assert one.refined.validation == other.refined.validation
    assert all(torch.equal(value, other.refined.weights[name]) for name, value in one.refined.weights.items())
    for column in ("before", "after", "after_fused"):
        maps = (read_maps(result.folder / "depth" / f"{column}.npz") for result in (one, other))
        np.testing.assert_array_equal(*maps)


def test_forked_functions_give_what_this_process_gives(clip: Path) -> None:
    spaces = FakeSpaces()
    here = run(clip, "here", LocalBackend("cpu"))
    there = run(clip, "there", ZeroGpuBackend(spaces.GPU))
    same(here, there)
    assert here.refined is not None
    assert not here.refined.rolled_back  # or losing what the child learnt would not be noticed
    assert [name for name, _ in spaces.asked] == ["predict_on_gpu", "refine_on_gpu", "predict_on_gpu"]
    assert all(0 < seconds <= zerogpu.MAX_CALL_S for _, seconds in spaces.asked)


def test_pieces_give_what_the_whole_gives(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spaces = FakeSpaces()
    here = run(clip, "here", LocalBackend("cpu"))
    # No time for more than one step in a call: every call is a piece.
    monkeypatch.setattr(zerogpu, "refine_duration", lambda *_: 0)
    monkeypatch.setattr(zerogpu, "END_S", 0.0)
    monkeypatch.setattr(zerogpu, "START_S", 0.0)
    backend = ZeroGpuBackend(spaces.GPU)
    there = run(clip, "there", backend)
    same(here, there)
    assert [name for name, _ in spaces.asked].count("refine_on_gpu") == CONFIG.steps


@pytest.mark.parametrize("recompute", [False, True], ids=["kept features", "features computed again"])
def test_a_model_of_the_hub_travels(
    clip: Path, room_model: Path, monkeypatch: pytest.MonkeyPatch, recompute: bool
) -> None:
    """Inverse depth, its shift, low-rank parts and their checkpoints: all goes to the child and comes back."""
    if recompute:
        monkeypatch.setattr(activation_memory, "MAX_KEPT_BYTES", 0)
    spaces = FakeSpaces(pickled=True)
    config = replace(CONFIG, network=str(room_model), steps=6, trained=TrainableScope.LORA, learning_rate=1e-2)
    here = run(clip, "here", LocalBackend("cpu"), config=config)
    assert here.refined is not None
    assert not here.refined.rolled_back
    monkeypatch.setattr(zerogpu, "refine_duration", lambda *_: 0)  # two steps in a call
    monkeypatch.setattr(zerogpu, "END_S", 0.0)
    monkeypatch.setattr(zerogpu, "START_S", 0.0)
    there = run(clip, "there", ZeroGpuBackend(spaces.GPU), config=config)
    same(here, there)
    assert [name for name, _ in spaces.asked].count("refine_on_gpu") > 1


def test_large_networks_get_more_time(monkeypatch: pytest.MonkeyPatch) -> None:
    images, network = torch.zeros(100, 1, 1, 1), TinyNetwork()
    task = task_of(network)
    before = zerogpu.predict_duration(network, images), zerogpu.refine_duration(task, None, 100, 0.05)
    frames = zerogpu.max_frames_per_call(network)
    count = sum(value.numel() for value in network.parameters())
    monkeypatch.setattr(zerogpu, "LARGE", count / 3)  # as if there were three hundred million
    monkeypatch.setattr(zerogpu, "SENT_A_SECOND", 4 * count / 3)
    assert zerogpu.predict_duration(network, images) == pytest.approx(before[0] + 2 * 5 + 3, abs=1)
    assert zerogpu.refine_duration(task, None, 100, 0.05) == pytest.approx(before[1] + 3 * 3, abs=1)
    assert zerogpu.max_frames_per_call(network) < frames / 3
    assert zerogpu.predict_duration(network, images[: zerogpu.max_frames_per_call(network)]) <= zerogpu.MAX_CALL_S


def test_the_first_frame_is_seen_while_it_learns(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zerogpu, "_LIVE_EVERY_S", 0.0)
    seen: list[np.ndarray] = []

    def look(step: RefineStep, live: LiveNetwork) -> None:
        seen.append(live.depth(zerogpu.LIVE_FRAME))

    run(clip, "run", ZeroGpuBackend(FakeSpaces().GPU), look)
    assert len(seen) == CONFIG.steps
    assert not np.array_equal(seen[0], seen[-1])


def test_stopping_ends_the_child(clip: Path) -> None:
    def stop(step: RefineStep, live: LiveNetwork) -> None:
        if step.index == 3:
            raise Cancelled("stopped")

    with pytest.raises(Cancelled):
        run(clip, "run", ZeroGpuBackend(FakeSpaces().GPU), stop)
    assert multiprocessing.active_children() == []


def test_no_call_asks_for_more_than_a_minute() -> None:
    images, task = torch.zeros(5000, 1, 1, 1), task_of(TinyNetwork())
    assert zerogpu.predict_duration(task.network, images) == zerogpu.MAX_CALL_S
    assert zerogpu.refine_duration(task, None, 10_000, 1.0) == zerogpu.MAX_CALL_S
    assert zerogpu.refine_duration(task, None, 100, 0.05) < 20


def task_of(network: DepthNetwork) -> RefineTask:
    return RefineTask(network, torch.zeros(1, 3, 8, 8), Targets((), (), 1.0), RECIPES[Preset.FAST].refine, 0)


def test_long_clips_are_predicted_in_several_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zerogpu, "PREDICT_S", 20.0)
    spaces, told = FakeSpaces(), []
    torch.manual_seed(0)
    network, images = TinyNetwork().eval(), torch.rand(5, 3, 32, 48)
    maps = ZeroGpuBackend(spaces.GPU).predict(network, images, "before", lambda p: told.append(p.done))
    np.testing.assert_allclose(maps, LocalBackend("cpu").predict(network, images, "before", lambda p: None), rtol=1e-6)
    assert [name for name, _ in spaces.asked] == ["predict_on_gpu"] * 3
    assert told == [0, 2, 4, 5]


def test_elsewhere_spaces_is_not_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SPACES_ZERO_GPU", raising=False)
    monkeypatch.setitem(__import__("sys").modules, "spaces", None)
    assert isinstance(zerogpu.make_backend("cpu")(), LocalBackend)
