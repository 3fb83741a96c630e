"""From a clip to a refined network: the stages in order, each skipped when its result is already in the run folder.

frames -> sfm -> before -> (align, trust) -> refine -> after -> compare -> outputs -> report.json
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from torch import Tensor

from sfmttr import networks
from sfmttr.config import FuseConfig, GroundTruthConfig, Objective, RunConfig
from sfmttr.errors import AlignmentError, Cancelled, ClipError, ConfigError
from sfmttr.evaluation.comparison import Column, Comparison, Maps, compare_at_points, compare_with_ground_truth
from sfmttr.evaluation.ground_truth import check_folder, find_companion_ground_truth, match_ground_truth
from sfmttr.evaluation.metrics import protocol
from sfmttr.frames import loader
from sfmttr.io import depth_maps
from sfmttr.io.atomic import explain_mkdir_errors
from sfmttr.io.json_files import cache_key
from sfmttr.networks.base import DepthNetwork, state_dict_cpu
from sfmttr.networks.disparity_to_depth import DisparityNetwork
from sfmttr.networks.inference import FeatureCache, prepare_images
from sfmttr.networks.inverse_depth import unshifted_depth
from sfmttr.networks.weights import cache_folder
from sfmttr.refinement.alignment import Alignment, align, align_disparity, relaxed_inliers
from sfmttr.refinement.backend import Backend, LiveNetwork, LocalBackend, OnStep, ignore_step
from sfmttr.refinement.fusion import fuse_clip, fusion_hw
from sfmttr.refinement.observations import (
    Observations,
    Split,
    held_out_frames,
    merge_observations,
    observe,
    propagate_observations,
    sample_at,
)
from sfmttr.refinement.photometric_loss import photometric_views
from sfmttr.refinement.targets import Targets, add_dense_targets, make_targets, select_observations
from sfmttr.refinement.task import RefineResult, RefineStep, RefineTask
from sfmttr.refinement.trainable import can_cache_stem
from sfmttr.refinement.trust_gate import evaluate_trust, measure_consistency
from sfmttr.refinement.weighting import point_weights
from sfmttr.run import outputs, report, weights_file
from sfmttr.run.evaluate import EVALUATION
from sfmttr.run.folder import RunFolder
from sfmttr.run.results import Aligned, RunResult
from sfmttr.sfm import reconstruction
from sfmttr.sfm.intrinsics import parse_intrinsics
from sfmttr.sfm.protocol import SfmPhase
from sfmttr.types import DepthKind, FrameSet, NoModel, OnProgress, Progress, ResultOrigin, SparseModel, ignore_progress
from sfmttr.utils.background import BackgroundTask

T = TypeVar("T")

_EXPORTS = ("export", "kit")
"""What others may have recorded in the run folder, made of the refined network."""
_RESULTS = ("aligned", "refine", "after", "before_fused", "after_fused", *_EXPORTS)
"""What there is only of a clip that was refined."""
DEPENDENTS = {
    "frames": ("sfm", "disparity", "before", *_RESULTS, "outputs"),
    "sfm": (*_RESULTS, "outputs"),
    "disparity": ("before", *_RESULTS, "outputs"),
    "before": (*_RESULTS, "outputs"),
    "aligned": ("outputs",),
    "refine": ("after", "before_fused", "after_fused", *_EXPORTS, "outputs"),
    "after": ("after_fused", "outputs"),
    "before_fused": ("outputs",),
    "after_fused": ("outputs",),
    "outputs": (),
}
"""Which stages are made from a stage, and so are void when it is made anew."""

DOUBTFUL_HEALTH = 0.75
"""Below this health, frames and tracks that disagree grossly with the network are left out."""


def run(
    clip: Path,
    out: Path,
    config: RunConfig,
    on_progress: OnProgress = ignore_progress,
    on_step: OnStep = ignore_step,
    backend: Backend | None = None,
) -> RunResult:
    """Refine `config.network` on `clip` and write everything into the run folder `out`.

    Networks run on `backend`; without one, in this process on `config.device`.
    A second call with the same `out` goes on at the first stage that is missing or whose settings changed.
    Raises subclasses of `SfmttrError` for anything that the user can cause or cure, and leaves no half-written run.
    """
    with explain_mkdir_errors(out):
        new = _new_folders(out)
    is_ours = False
    try:
        with RunFolder(out) as folder:
            is_ours = True  # from here on: another process may be at work in it
            return _Run(clip, folder, config, on_progress, on_step, backend or LocalBackend(config.device)).execute()
    except BaseException as error:
        stopped = (Cancelled, KeyboardInterrupt)
        # Who stopped may go on from the frames; who gave wrong input gets no half-written run.
        worth_keeping = ("frames", "sfm", "depth") if isinstance(error, stopped) else ("sfm", "depth")
        if new and is_ours and not any((out / name).exists() for name in worth_keeping):
            shutil.rmtree(out, ignore_errors=True)
            with contextlib.suppress(OSError):  # another run is in one of them by now
                for folder_above in new[1:]:
                    folder_above.rmdir()
        raise


def _new_folders(out: Path) -> list[Path]:
    """`out` and those above it that there are not yet, innermost first."""
    return list(itertools.takewhile(lambda folder: not folder.exists(), (out, *out.parents)))


def clip_identity(clip: Path) -> tuple[str, list[tuple[str, int, int]]]:
    """What a clip is known by between runs: its name, and name, size and time of change of its file or files."""
    try:
        files = sorted(clip.iterdir()) if clip.is_dir() else [clip]
        stats = [(file.name, file.stat()) for file in files if file.exists()]
    except OSError as error:
        raise ClipError(f"{clip} cannot be read ({error.strerror}): check its permissions.") from error
    return clip.name, [(name, each.st_size, each.st_mtime_ns) for name, each in stats]


def reconstructions() -> Path:
    """Where reconstructions are kept for the next run of the same frames."""
    return cache_folder() / "sfm"


def weights_hash(network: DepthNetwork) -> str:
    """sha256 over names and values of all weights."""
    digest = hashlib.sha256()
    for name, value in sorted(state_dict_cpu(network).items()):
        digest.update(name.encode())
        digest.update(value.contiguous().numpy().tobytes())
    return digest.hexdigest()


class _Run:
    """One execution. Expensive results are cached properties, so that a resumed run computes only what it needs."""

    def __init__(
        self,
        clip: Path,
        folder: RunFolder,
        config: RunConfig,
        on_progress: OnProgress,
        on_step: OnStep,
        backend: Backend,
    ) -> None:
        self._clip, self._folder, self._config = clip, folder, config
        self._on_progress, self._on_step = on_progress, on_step
        self._backend = backend
        self._path = folder.path
        self._timings: dict[str, float] = {}
        self._said_beside: np.ndarray | None = None
        self._early: FeatureCache | None = {}  # None: nobody will need them
        """What the unrefined network says, where that was computed while structure-from-motion was at work."""

    # ------------------------------------------------------------------------------- mechanics

    def _stage(
        self,
        name: str,
        key: str,
        files: Callable[[], list[Path]],
        make: Callable[[], T],
        read: Callable[[], T],
        *,
        at_once: bool = False,
    ) -> T:
        """`read()` when the stage's files are there and were made with this key, else `make()`, and then `files()`.

        `at_once`: what `make` writes appears as a whole, or not at all. Until then, what there was before stays.
        """
        if self._folder.is_fresh(name, key):
            record = self._folder.manifest.stage(name)
            self._timings[name] = record.seconds if record else 0.0
            self._on_progress(Progress(name, 1, 1, "already done", origin=ResultOrigin.RUN_FOLDER))
            return read()
        if not at_once:
            self._void(name)
        started = time.perf_counter()
        value = make()
        self._timings[name] = time.perf_counter() - started
        if at_once:
            self._forget_evaluation()
        self._folder.record(name, key, files(), self._timings[name], invalidates=DEPENDENTS[name])
        return value

    def _void(self, name: str) -> None:
        """`name` is about to be made anew: what was made from it before goes, too."""
        if name != "outputs":  # pictures of the same depth
            self._forget_evaluation()
        self._folder.invalidate((name, *DEPENDENTS[name]))

    def _forget_evaluation(self) -> None:
        """It is of results that are about to be others."""
        (self._path / EVALUATION).unlink(missing_ok=True)

    # ---------------------------------------------------------------------------------- stages

    @cached_property
    def _network(self) -> DepthNetwork:
        return networks.load(self._config.network, self._config.weights_dir, self._on_progress)

    @cached_property
    def _truth(self) -> GroundTruthConfig | None:
        return self._config.ground_truth or find_companion_ground_truth(self._clip)

    @cached_property
    def _frames(self) -> FrameSet:
        folder = self._path / "frames"
        key = cache_key("", [clip_identity(self._clip), self._config.video])
        return self._stage(
            "frames",
            key,
            lambda: [folder],
            lambda: loader.load_frames(self._clip, self._config.video, folder, self._on_progress),
            lambda: loader.frame_set_from_folder(folder),
            at_once=True,  # a clip that cannot be used takes nothing of a run that is there
        )

    @cached_property
    def _sparse(self) -> SparseModel | NoModel:
        folder, config = self._path / "sfm", self._config.sfm
        if self._config.intrinsics is not None:
            camera = parse_intrinsics(self._config.intrinsics, self._frames.source_hw, self._frames.hw)
            config = replace(config, intrinsics=camera)
        given = config.model_folder
        key = cache_key(
            self._frames.content_hash, config if given is None else [config, reconstruction.model_identity(given)]
        )
        if self._folder.is_fresh("sfm", key):
            return self._stage("sfm", key, list, _unreachable, lambda: reconstruction.load_model(self._frames, folder))
        self._void("sfm")
        started = time.perf_counter()
        with BackgroundTask(self._predict_unrefined) as beside:

            def on_progress(progress: Progress) -> None:
                mapping = progress.phase == SfmPhase.MAPPING  # most of it runs on one core
                if mapping and self._backend.is_local and not self._knows_unrefined:
                    beside.start()
                self._on_progress(progress)

            model = reconstruction.reconstruct(self._frames, config, folder, on_progress, reconstructions())
            self._said_beside = beside.result(self._on_progress)
        self._timings["sfm"] = time.perf_counter() - started
        if isinstance(model, SparseModel):  # a failure is not kept: it may have been for want of time
            self._folder.record("sfm", key, [folder], self._timings["sfm"])
        return model

    @cached_property
    def _images(self) -> Tensor:
        return prepare_images(self._network, self._frames)

    def _maps_stage(
        self, name: str, key: str, make: Callable[[], np.ndarray], kind: DepthKind | None = None
    ) -> np.ndarray:
        path = self._path / "depth" / f"{name}.npz"

        def make_and_write() -> np.ndarray:
            maps = make()
            depth_maps.write_maps(path, maps, kind or self._kind, self._frames)
            return maps

        return self._stage(name, key, lambda: [path], make_and_write, lambda: depth_maps.read_maps(path))

    @property
    def _gives_disparity(self) -> bool:
        return self._network.info.kind is DepthKind.AFFINE_DISPARITY

    @property
    def _kind(self) -> DepthKind:
        """Of all results."""
        return self._network.info.kind.as_depth

    @cached_property
    def _network_key(self) -> str:
        return cache_key(self._frames.content_hash, [self._network.info.name, weights_hash(self._network)])

    @cached_property
    def _said(self) -> np.ndarray:
        """(N, h, w): what the unrefined network says, depth or disparity."""

        def predict() -> np.ndarray:
            beside = self._said_beside
            return self._predict_unrefined(self._on_progress) if beside is None else beside

        return self._maps_stage(self._said_name, self._network_key, predict, self._network.info.kind)

    @property
    def _said_name(self) -> str:
        return "disparity" if self._gives_disparity else "before"

    @property
    def _knows_unrefined(self) -> bool:
        return self._folder.is_fresh(self._said_name, self._network_key)

    def _predict_unrefined(self, on_progress: OnProgress) -> np.ndarray:
        early = self._early if self._keeps_early else None
        return self._backend.predict(self._network, self._images, "before", on_progress, early)

    @property
    def _keeps_early(self) -> bool:
        """Whether the refinement will ask for what the early part of the network says now. Not with frames held out:
        of those a network of several frames sees here what it must not see there."""
        config = self._config
        held_out = config.split.hold_out_frames > 0
        return self._backend.is_local and not held_out and can_cache_stem(self._network, config.recipe.refine)

    def _unrefined(self, alignment: Alignment) -> np.ndarray:
        """(N, h, w): depth by the unrefined network, in the unit that `alignment.scale` leads to."""
        return self._said if alignment.inverse is None else alignment.inverse.depth(self._said)

    def _learner(self, alignment: Alignment) -> DepthNetwork:
        """The unrefined network as something that gives depth."""
        inverse = alignment.inverse
        return self._network if inverse is None else DisparityNetwork(self._network, inverse)

    def _before(self, aligned: Aligned | None) -> np.ndarray:
        """(N, h, w): depth by the unrefined network alone.

        Disparity is taken for inverse depth as it is, without the shift that only points can tell; of its scale, which
        means nothing, it gets what fits them best.
        """
        if not self._gives_disparity:
            return self._said

        def convert() -> np.ndarray:
            maps = unshifted_depth(self._said)
            if aligned is None:
                return maps
            rows = aligned.observations.where(aligned.observations.trainable)
            return maps * np.float32(np.median(aligned.alignment.scale * rows.z / sample_at(maps, rows)))

        scale = None if aligned is None else aligned.alignment.scale
        return self._maps_stage("before", cache_key(self._network_key, ["unshifted", scale]), convert)

    def _aligned_maps(self, alignment: Alignment) -> np.ndarray:
        """(N, h, w): the best that alignment alone makes of the unrefined network."""
        maps = self._unrefined(alignment) * np.float32(alignment.network_scale)
        if alignment.inverse is None:  # whoever reads the run folder multiplies by themselves
            return maps
        key = cache_key(self._network_key, [alignment.inverse, alignment.network_scale])
        return self._maps_stage("aligned", key, lambda: maps)

    def _align(self, model: SparseModel) -> Aligned:
        config = self._config
        rng = np.random.default_rng(config.seed)
        observations = observe(model, len(self._frames), self._frames.hw, config.split, rng)
        rows = observations.trainable
        said = sample_at(self._said, observations)[rows]
        fit = align_disparity if self._gives_disparity else align
        alignment = fit(observations.z[rows], said, config.recipe.align, rng)
        maps = self._unrefined(alignment)
        d = sample_at(maps, observations)
        agreed = measure_consistency(observations.frame[rows], observations.z[rows], d[rows], alignment)
        relaxed_fit = partial(
            relaxed_inliers, scale=alignment.scale, config=config.recipe.align, in_inverse_depth=self._gives_disparity
        )
        relaxed = relaxed_fit(observations.z, d)
        trust = evaluate_trust(model.health, agreed)
        low_confidence = model.health.score < DOUBTFUL_HEALTH
        selection = select_observations(
            observations,
            relaxed,
            dict(zip(agreed.frame.tolist(), agreed.frame_scale.tolist(), strict=True)),
            low_confidence=low_confidence,
            keep_reliable_outliers=config.recipe.align.keep_reliable_outliers and trust.out_of_domain,
        )
        usable = self._network.valid_region(observations.grid, self._frames.hw) & self._tuned[observations.frame]
        selection = replace(selection, mask=selection.mask & usable)
        # Points of a doubtful reconstruction are not propagated; and a network far from its domain does not notice that
        # a point is hidden in the neighbouring frame.
        spread = self._frames.from_video and not low_confidence and not trust.out_of_domain
        reach = config.recipe.propagate_frames if spread else 0
        more = propagate_observations(model, observations, len(self._frames), self._frames.hw, reach)
        fits = relaxed_fit(more.z, sample_at(maps, more))
        fits &= self._network.valid_region(more.grid, self._frames.hw) & self._tuned[more.frame]
        return Aligned(observations, alignment, agreed, trust, selection, more.where(fits))

    @property
    def _tuned(self) -> np.ndarray:
        """(N,) bool: frames that may be learnt from."""
        names = self._frames.names if self._config.train_frames is None else self._config.train_frames
        return np.isin(self._frames.names, names)

    @property
    def _refine_key(self) -> str:
        config = self._config
        sparse = self._folder.manifest.stage("sfm")
        settings = [
            config.recipe,
            config.split,
            config.seed,
            self._backend.device,
            self._network.cached_step_cost,
            self._network.finetune_settings,
        ]
        settings.append(config.train_frames)
        return cache_key(self._network_key + (sparse.key if sparse else ""), settings)

    def _refined(self, aligned: Aligned) -> RefineResult:
        weights, curves = self._path / weights_file.REFINED_WEIGHTS, self._path / "refinement.json"

        def make() -> RefineResult:
            result = self._run_refinement(aligned)
            weights_file.write_refinement(weights, curves, result, self._learner(aligned.alignment))
            return result

        return self._stage(
            "refine",
            self._refine_key,
            lambda: [weights, curves],
            make,
            lambda: weights_file.read_refinement(weights, curves),
        )

    def _run_refinement(self, aligned: Aligned) -> RefineResult:
        recipe = self._config.recipe
        lessons = merge_observations(
            aligned.observations.where(aligned.selection.mask), aligned.propagated.where(aligned.propagated.trainable)
        )
        targets = self._with_dense(make_targets(lessons, aligned.alignment, recipe.weight), lessons, aligned)
        config = recipe.refine
        if aligned.trust.out_of_domain:
            config = replace(config, steps=round(config.domain_gap_steps_factor * config.steps))
        excluded_frames = np.flatnonzero(
            held_out_frames(len(self._frames), self._config.split.hold_out_frames)
        ).tolist()
        views = None
        if config.objective is not Objective.SFM:
            assert isinstance(self._sparse, SparseModel), "what is aligned has a model"
            views = photometric_views(self._sparse, aligned.alignment.scale, excluded_frames)

        def on_step(step: RefineStep, live: LiveNetwork) -> None:
            self._on_progress(Progress("refine", step.index, step.total))
            self._on_step(step, live)

        network = self._learner(aligned.alignment)
        early, self._early = self._early or {}, None  # they are large
        task = RefineTask(
            network, self._images, targets, config, self._config.seed, tuple(excluded_frames), views, early
        )
        return self._backend.refine(task, on_step)

    def _with_dense(self, targets: Targets, lessons: Observations, aligned: Aligned) -> Targets:
        """With the recipe's dense targets, which are made of training points only.

        Without them where the network is far from its domain: its own depth is then nothing to keep between the points.
        """
        config = self._config
        dense, objective = config.recipe.dense, config.recipe.refine.objective
        if dense.weight == 0 or objective is Objective.PHOTOMETRIC or aligned.trust.out_of_domain:
            return targets
        known = lessons.where(lessons.trainable)
        maps = self._unrefined(aligned.alignment) * np.float32(aligned.alignment.network_scale)
        fused = self._corrected(
            maps, known, aligned, dense.fuse, lambda _: self._on_progress(Progress("refine", 0, 1, "dense targets"))
        )
        sees = partial(self._network.valid_region, hw=self._frames.hw)
        return add_dense_targets(targets, fused, dense, sees, np.random.default_rng(config.seed))

    def _corrected(
        self,
        maps: np.ndarray,
        known: Observations,
        aligned: Aligned,
        config: FuseConfig,
        tell: Callable[[int], None],
    ) -> np.ndarray:
        """(N, h, w): `maps` fused with what is `known`."""
        reference = (aligned.alignment.scale * known.z).astype(np.float32)
        weight = point_weights(known, self._config.recipe.weight)
        return fuse_clip(maps, known, reference, weight, fusion_hw(self._frames.hw, config), config, tell)

    def _after(self, refined: RefineResult, alignment: Alignment) -> np.ndarray:
        def predict() -> np.ndarray:
            if refined.rolled_back:
                return self._unrefined(alignment)
            network = self._learner(alignment)
            network.load_state_dict(refined.weights)
            return self._backend.predict(network, self._images, "after", self._on_progress)

        return self._maps_stage("after", cache_key(self._refine_key, "after"), predict)

    def _fused(self, name: str, maps: np.ndarray, aligned: Aligned) -> np.ndarray:
        key = cache_key(self._refine_key, [name, self._config.fuse])
        rows = (aligned.selection.mask & ~aligned.observations.test) & ~aligned.observations.frame_held_out
        known = aligned.propagated.split != Split.TEST
        observations = merge_observations(aligned.observations.where(rows), aligned.propagated.where(known))
        tell = partial(self._tell_fused, name, len(maps))
        return self._maps_stage(
            name, key, lambda: self._corrected(maps, observations, aligned, self._config.fuse, tell)
        )

    def _tell_fused(self, name: str, total: int, done: int) -> None:
        self._on_progress(Progress(name, done, total))

    # ------------------------------------------------------------------------------- the whole

    def execute(self) -> RunResult:
        self._check_inputs()
        _ = self._frames
        self._folder.describe(self._config, self._config.seed)  # not before it is known that it can be done
        sparse = self._sparse
        aligned, advice = self._aligned_or_advice(sparse)
        refine = aligned is not None and (aligned.trust.trusted or self._config.force)
        if not refine and aligned is not None:
            advice = aligned.trust.statement
        if not refine:
            self._early = None
        maps: dict[Column, np.ndarray] = {Column.BEFORE: self._before(aligned)}
        refined = None
        if aligned is None or not refine:
            if self._folder.manifest.stage("refine"):  # of an earlier run
                self._forget_evaluation()
            self._folder.invalidate(_RESULTS)
        else:
            refined = self._refined(aligned)
            aligned_maps = self._aligned_maps(aligned.alignment)
            after = self._after(refined, aligned.alignment)
            maps |= {
                Column.ALIGNED: aligned_maps,
                Column.BEFORE_FUSED: self._fused("before_fused", aligned_maps, aligned),
                Column.AFTER: after,
                Column.AFTER_FUSED: self._fused("after_fused", after, aligned),
            }
        comparisons = self._compare(maps, aligned if refine else None)
        result = RunResult(
            self._path,
            self._config,
            self._network.info.name,
            self._network.info.licence,
            self._kind,
            self._frames,
            sparse,
            aligned,
            refined,
            comparisons,
            advice,
        )
        self._write_outputs(result, maps)
        result = replace(result, timings_s=dict(self._timings))
        report.write_report(result)
        return result

    def _check_inputs(self) -> None:
        """Everything that can be wrong with what was asked for, before minutes are spent on it."""
        truth, intrinsics = self._truth, self._config.intrinsics
        _ = self._backend.device, self._network
        if truth is not None:
            check_folder(truth.folder, truth.scale)
        if not self._config.sfm.time_limit_s > 0:
            raise ConfigError(f"a time limit of {self._config.sfm.time_limit_s:g} s leaves none; give one above 0")
        if self._config.sfm.model_folder is not None:
            if intrinsics is not None:
                raise ConfigError("a given model has cameras of its own; leave out the intrinsics, or the model")
            reconstruction.model_identity(self._config.sfm.model_folder)
        if intrinsics is not None:
            hw = loader.probe(self._clip, self._config.video).hw
            parse_intrinsics(intrinsics, hw, hw)
        if truth is not None:
            match_ground_truth(self._frames, truth.folder, truth.scale)

    def _aligned_or_advice(self, sparse: SparseModel | NoModel) -> tuple[Aligned | None, str]:
        if isinstance(sparse, NoModel):
            return None, sparse.advice
        try:
            return self._align(sparse), ""
        except AlignmentError as error:
            return None, str(error)

    def _compare(self, maps: Maps, aligned: Aligned | None) -> dict[str, Comparison | None]:
        started = time.perf_counter()
        held_out = held_out_frames(len(self._frames), self._config.split.hold_out_frames)
        result: dict[str, Comparison | None] = {"held_out": None, "held_out_frames": None}
        if aligned is not None:
            observations, scale = aligned.observations, aligned.alignment.scale
            unit = "m" if self._kind is DepthKind.METRIC else "network units"
            reliable = observations.reliable
            for name, rows in (
                ("held_out", observations.test),
                ("held_out_frames", observations.test_on_held_out_frames),
            ):
                what = name.replace("_", " ")
                result[name] = compare_at_points(maps, observations.where(rows & reliable), scale, unit, what)
        truth_config = self._truth
        if truth_config is not None:
            truth = match_ground_truth(self._frames, truth_config.folder, truth_config.scale)
            rules = protocol(truth_config.protocol, median_scaling=truth_config.median_scaling)
            result["ground_truth"] = compare_with_ground_truth(maps, self._kind, truth, rules)
            if held_out.any():
                result["ground_truth_held_out_frames"] = compare_with_ground_truth(
                    maps, self._kind, truth, rules, held_out
                )
        self._timings["compare"] = time.perf_counter() - started
        return result

    def _write_outputs(self, result: RunResult, maps: Maps) -> None:
        source: list[Any] = [self._network_key, self._refine_key, result.refined is not None, self._config.fuse]
        key = cache_key("outputs", [source, self._config.output])
        self._stage(
            "outputs",
            key,
            lambda: outputs.written_files(self._path),
            lambda: outputs.write_all(result, maps, self._on_progress),
            lambda: None,
        )


def _unreachable() -> Any:
    raise AssertionError("a fresh stage is read, not made")
