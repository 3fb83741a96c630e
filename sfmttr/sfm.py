"""Structure-from-motion: frames to a sparse model. pycolmap runs in a child process (`_sfm.worker`) and only there.

The parts: `_sfm.ladder` says what is tried, `_sfm.child` runs one try, `_sfm.sparse` makes its result independent of
the library, `_sfm.health` judges it, `_sfm.store` keeps it.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from sfmttr._sfm import health, store
from sfmttr._sfm.binary import check_binary_model
from sfmttr._sfm.child import run_job
from sfmttr._sfm.halves import halves_disagreement
from sfmttr._sfm.job import Facts, Job, RawModel, Recipe
from sfmttr._sfm.ladder import Climb, climb, in_sequence, ladder
from sfmttr._sfm.sparse import Sparse, sparse_from_raw
from sfmttr._sfm.tries import STAGE, Rung, Tries, reporter
from sfmttr.config import SfmConfig
from sfmttr.errors import ReconstructionError
from sfmttr.types import FrameSet, NoModel, OnProgress, Progress, SfmAttempt, SfmHealth, SparseModel, ignore_progress


def reconstruct(
    frames: FrameSet,
    config: SfmConfig,
    folder: Path,
    on_progress: OnProgress = ignore_progress,
    cache: Path | None = None,
) -> SparseModel | NoModel:
    """Find cameras and points of `frames` and write the model in COLMAP's binary format into `folder`.

    `folder` appears complete or not at all, and replaces what was there. A `cache` folder is looked in first. With
    `config.model_folder` that model is imported instead. `on_progress` is called a few times a second and may raise
    `Cancelled`, which ends the child within a second and leaves no files.
    Raises `ReconstructionError` when structure-from-motion cannot run at all; finding nothing is a `NoModel`.
    """
    if config.model_folder is not None:
        return import_model(frames, config.model_folder, folder, config, on_progress)
    if len(frames) < 2:
        return NoModel((), len(frames), "One frame alone has no motion to learn from: give a clip.", 0.0)
    spaced = [file for file in frames.files if any(character.isspace() for character in file)]
    if spaced:
        raise ReconstructionError(f'The frame file "{spaced[0]}" has white space in its name; rename it.')
    key = store.cache_key(frames, config, ladder(frames, config))
    if cache is not None and store.restore(cache / key, folder):
        on_progress(Progress(STAGE, 1, 1, "from the cache"))
        return load_model(frames, folder)
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="sfmttr-sfm-", ignore_cleanup_errors=True) as temporary:
        tries = Tries(frames, config, Path(temporary), on_progress, start)
        found: Climb[Rung] = climb(ladder(frames, config), tries.run, total=len(frames), time_left_s=tries.time_left_s)
        if found.best is None or found.best.model is None or not _enough(found.best.attempt, frames, config):
            return NoModel(found.attempts, len(frames), tries.advice(found), time.monotonic() - start)
        best = found.best.model
        model = _assemble(
            frames, config, best, found.best.attempt.rung, found.attempts, time.monotonic() - start, folder
        )
        store.publish(best.folder, folder, model)
    if cache is not None and not tries.timed_out:  # another day the machine may have more time
        store.keep(folder, cache / key)
    return model


def import_model(
    frames: FrameSet,
    model_folder: Path,
    folder: Path,
    config: SfmConfig | None = None,
    on_progress: OnProgress = ignore_progress,
) -> SparseModel:
    """Take a COLMAP model (text or binary) of these frames instead of a reconstruction; written into `folder`.

    Images are matched to frames by file name, by name without extension, or by number; cameras may be of another
    image size of the same aspect. Raises `ReconstructionError` when nothing matches or a camera model is unsupported.
    """
    config = config or SfmConfig()
    start = time.monotonic()
    found = store.find_model(model_folder).resolve()
    check_binary_model(found)
    with tempfile.TemporaryDirectory(prefix="sfmttr-sfm-", ignore_cleanup_errors=True) as temporary:
        output = Path(temporary) / "given"
        job = Job("import", str(output), model=str(found))
        outcome = run_job(job, Path(temporary), reporter(on_progress, "given"), config.time_limit_s)
        if not outcome.ok:
            raise ReconstructionError(f"The given model cannot be used: {outcome.complaint}.")
        model = _assemble(frames, config, Rung(output, Facts()), "given", (), time.monotonic() - start, folder)
        store.publish(output, folder, model)
    return model


def load_model(frames: FrameSet, folder: Path) -> SparseModel:
    """The model that `reconstruct` or `import_model` wrote into `folder`. Raises `ReconstructionError`."""
    card = store.read_card(folder)
    sparse = _sparse(frames, folder)
    return SparseModel(sparse.views, sparse.points, card.health, card.rung, card.attempts, card.seconds, folder)


@dataclass(frozen=True)
class Trial:
    """One recipe, run once (for benchmarks)."""

    attempt: SfmAttempt
    facts: Facts
    sparse: Sparse | None
    health: SfmHealth | None


def try_recipe(frames: FrameSet, config: SfmConfig, recipe: Recipe, on_progress: OnProgress = ignore_progress) -> Trial:
    """Run one recipe without the ladder, and keep nothing on disk."""
    with tempfile.TemporaryDirectory(prefix="sfmttr-sfm-", ignore_cleanup_errors=True) as temporary:
        tries = Tries(frames, config, Path(temporary), on_progress, time.monotonic())
        result = tries.run(recipe, config.time_limit_s)
        if result.model is None:
            return Trial(result.attempt, tries.facts, None, None)
        sparse = _sparse(frames, result.model.folder)
        facts, ordered = result.model.facts, in_sequence(frames, config)
        card = health_card(frames, sparse, facts, focal_given=config.intrinsics is not None, ordered=ordered)
        return Trial(result.attempt, facts, sparse, card)


def depth_agreement_of_halves(frames: FrameSet, config: SfmConfig, on_progress: OnProgress = ignore_progress) -> float:
    """How well depths from the even frames agree with depths from the odd ones: median |log ratio|, less one scale.

    Three mappings of one database: all frames, the even ones, the odd ones. Each half's depth of a point is taken
    relative to the whole model's at the same observations, so that points can be compared though no frame is shared.
    nan when one of the three finds no model. Costs about twice the time of one rung.
    """
    with tempfile.TemporaryDirectory(prefix="sfmttr-sfm-", ignore_cleanup_errors=True) as temporary:
        tries = Tries(frames, config, Path(temporary), on_progress, time.monotonic())
        standard = ladder(frames, config)[0]
        models = []
        for name, subset in (
            ("all frames", frames.files),
            ("even frames", frames.files[::2]),
            ("odd frames", frames.files[1::2]),
        ):
            result = tries.run(replace(standard, name=name), max(tries.time_left_s(), 1.0), subset)
            if result.model is None:
                return float("nan")
            models.append(RawModel.read(result.model.folder))
    return halves_disagreement(*models)


def _enough(attempt: SfmAttempt, frames: FrameSet, config: SfmConfig) -> bool:
    return attempt.registered >= max(config.min_registered, len(frames) / 3)


# ------------------------------------------------------------------------------------ result and its card


def _sparse(frames: FrameSet, folder: Path) -> Sparse:
    raw = RawModel.read(folder)
    return sparse_from_raw(raw, store.match_images(raw, frames), frames)


def _assemble(
    frames: FrameSet,
    config: SfmConfig,
    rung: Rung,
    name: str,
    attempts: tuple[SfmAttempt, ...],
    seconds: float,
    folder: Path,
) -> SparseModel:
    sparse = _sparse(frames, rung.folder)
    if not sparse.views or len(sparse.points) == 0:
        raise ReconstructionError("The model has no points that its images see; give another one.")
    given = config.intrinsics is not None or name == "given"
    card = health_card(frames, sparse, rung.facts, focal_given=given, ordered=in_sequence(frames, config))
    return SparseModel(sparse.views, sparse.points, card, name, attempts, seconds, folder)


def health_card(frames: FrameSet, sparse: Sparse, facts: Facts, *, focal_given: bool, ordered: bool) -> SfmHealth:
    """The health card of a model. An unordered photo set (`ordered` false) has no camera path to be even or not."""
    views, points = sparse.views, sparse.points
    camera = views[len(views) // 2].camera
    centres = np.array([-v.cam_from_world[:3, :3].T @ v.cam_from_world[:3, 3] for v in views])
    evenness = health.step_evenness(centres, np.array([frames.time_s[v.frame] for v in views]))
    figures = health.HealthFigures(
        reprojection_px=float(points.error_px.mean()),
        step_evenness=evenness if ordered else float("nan"),
        horizontal_view_deg=float("nan") if focal_given else camera.horizontal_view_deg,
        triangulation_angle_deg=float(np.median(points.triangulation_angle_deg)),
        degenerate_pair_ratio=facts.degenerate_ratio,
        registered_ratio=len(views) / len(frames),
        track_length=float(points.track_length.mean()),
    )
    verdict = health.health_score(figures)
    return SfmHealth(
        registered=len(views),
        total=len(frames),
        points=len(points),
        mean_track_length=figures.track_length,
        mean_reprojection_error_px=figures.reprojection_px,
        focal_px=camera.fx,
        focal_given=focal_given,
        horizontal_view_deg=camera.horizontal_view_deg,
        median_triangulation_angle_deg=figures.triangulation_angle_deg,
        step_evenness=evenness,
        degenerate_pair_ratio=facts.degenerate_ratio,
        **asdict(verdict),
    )
