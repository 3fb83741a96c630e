"""Every setting and its default, once. Command line, page and tests read them from here.

All are frozen; a stage gets exactly the one that it needs. Derived presets are made by `refine_preset`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from sfmttr.errors import ConfigError
from sfmttr.types import Camera


@dataclass(frozen=True)
class VideoConfig:
    """Which frames of the clip are used, and at what size they are kept."""

    max_frames: int = 80
    """Most frames chosen, evenly in time."""
    long_side: int = 1280
    """Frames are stored at most this wide or high; everything that comes out has this size."""
    start_s: float = 0.0
    """Skip the clip's beginning."""
    end_s: float | None = None
    """Stop here; None: the clip's end."""
    duplicate_threshold: float = 0.6
    """Frames that differ less from the last chosen one (mean grey levels of 255, on a small copy) are dropped."""
    max_duration_s: float = 3600.0
    """Longer clips are refused (set start and end)."""
    max_source_pixels: int = 40_000_000
    """Larger frames are refused."""
    max_archive_bytes: int = 2_000_000_000
    """Most bytes that an archive may unpack to."""
    max_archive_files: int = 5_000
    """Most files that an archive may hold."""


@dataclass(frozen=True)
class SfmConfig:
    """How the reconstruction is made."""

    long_side: int = 880
    """Images are searched for features at most this wide or high, and doubled once more."""
    max_features: int = 4096
    """SIFT features an image."""
    contrast: float = 0.0133
    """Least contrast of a feature (1: black to white). COLMAP's 0.02 finds a quarter fewer points in RedKitchen."""
    overlap: int = 3
    """Each frame is matched with those less than this many after it, and as many at distances 1, 2, 4, ..."""
    exhaustive_up_to: int = 30
    """Unordered images up to this many are matched each with each; videos always in sequence."""
    intrinsics: Camera | None = None
    """Known camera; kept fixed."""
    model_folder: Path | None = None
    """A ready COLMAP model (text or binary) instead of a reconstruction."""
    time_limit_s: float = 900.0
    """For all rungs together."""
    min_registered: int = 5
    """Fewer registered frames than this (or than a third of them all) count as no model."""
    seed: int = 0
    threads: int = -1
    """-1: all cores. With 1 the reconstruction repeats bit for bit."""


@dataclass(frozen=True)
class SplitConfig:
    """Which points are trained on. Split by 3D point, so that no track is on two sides."""

    validation: float = 0.10
    """Share of the points that choose the best step."""
    test: float = 0.10
    """Share of the points that the comparison is made on, and nothing else."""
    hold_out_frames: int = 0
    """Length of the alternate blocks of frames that are left out altogether; 0: none."""


class InlierTest(StrEnum):
    """How a point's residual is judged in the strict model."""

    RELATIVE = "relative"
    """|s z - d| / (s z) <= tau: the same in any unit."""
    PAPER = "printed"
    """(s z - d)^2 / (s z) <= tau, as the paper prints it: its meaning changes with the unit."""


class BestTrial(StrEnum):
    """What makes a trial of the strict model the best one."""

    RANSAC = "most_inliers"
    """The largest set of strict inliers, as in the paper. Where a network errs by more than the strict threshold at
    many points, several scales have sets of about the same size, and which is largest is chance."""
    MSAC = "least_relaxed"
    """The least squared error over all points, cut off where the relaxed model leaves a point out (MSAC: Torr and
    Zisserman, 2000): the scale under which most of the clip can be learnt from."""


@dataclass(frozen=True)
class AlignConfig:
    """Strict and relaxed models (paper, section 3.2)."""

    inlier_test: InlierTest = InlierTest.RELATIVE
    strict_tau: float = 0.15
    """Threshold of the strict model, in the unit of `inlier_test`."""
    relaxed_tau: float = 0.5
    """Relative error below which a point is trained on."""
    trials: int = 200
    """RANSAC trials; the reference makes 20."""
    best_trial: BestTrial = BestTrial.MSAC
    """For one scale; lines of scale and shift are judged by their inliers."""
    keep_reliable_outliers: bool = True
    """Where network and reconstruction disagree on the whole, keep points that a healthy reconstruction is sure of,
    too: the network is far from its domain, and what it got most wrong is what it has to learn. (Where they agree,
    points that fail the relaxed model are mostly wrong, or out of the network's range.)"""


@dataclass(frozen=True)
class WeightConfig:
    """How much a point counts. The paper's `exp(-e^2)` always; the second factor can be turned off."""

    sigma_scale: float | None = None
    """Points whose depth is uncertain by this share count half; None: the paper's weights alone."""


class LossForm(StrEnum):
    """What is minimised at a point with reference depth `r = scale * z` and prediction `d`."""

    ABSOLUTE = "absolute"
    """|r - d|, as printed in the paper: far points count most."""
    RELATIVE = "relative"
    """|r - d| / r"""
    LOG = "log"
    """|log r - log d|"""


class TrainableScope(StrEnum):
    """Which parameters move."""

    ENCODER = "encoder"
    """The paper's."""
    ENCODER_BUT_STEM = "late_encoder"
    """The encoder but its early part, whose features are then computed once a frame: several steps for the price of
    one. Networks that name no early part train the whole encoder."""
    DECODER = "decoder"
    ALL_BUT_STEM = "late"
    """All but the early part."""
    ALL = "all"
    LORA = "lora"
    """The encoder's linear layers, each by a matrix of low rank that is added into its weight in the end."""


@dataclass(frozen=True)
class FinetuneSetting:
    """What of a network is trained, and how fast."""

    trained: TrainableScope
    learning_rate: float


class Schedule(StrEnum):
    """How the learning rate moves."""

    CONSTANT = "constant"
    ONE_CYCLE = "one_cycle"
    """Linear warm-up, then cosine to zero."""


class Sampling(StrEnum):
    """How a prediction is read at a point."""

    NEAREST = "nearest"
    BILINEAR = "bilinear"


class Objective(StrEnum):
    """What a refinement minimises."""

    SFM = "sfm"
    """The depth of structure-from-motion's points: SfM-TTR."""
    PHOTOMETRIC = "photometric"
    """What neighbouring frames look like: Ph-TTR, which the paper compares with."""
    BOTH = "both"


@dataclass(frozen=True)
class PhotometricConfig:
    """How pictures are compared (DESIGN section 4)."""

    ssim_weight: float = 0.85
    """The rest is L1's."""
    joint_weight: float = 1.0
    """What it is multiplied with in objective "both"."""


class Preset(StrEnum):
    PAPER = "paper"
    """The published recipe to the letter."""
    DEFAULT = "default"
    """Better at about equal time."""
    FAST = "fast"
    """For two minutes of patience."""


@dataclass(frozen=True)
class RefineConfig:
    """The test-time loop (paper, section 3.3). Field defaults are the paper's."""

    steps: int = 200
    match_time_budget: bool = False
    """Make as many steps as take the time of `steps` whole ones, when early features are kept."""
    domain_gap_steps_factor: float = 1.0
    """Make this many times the steps where network and reconstruction disagree on the whole: a network far from its
    domain has more to learn."""
    learning_rate: float | None = 1e-4
    """None: what the network is best trained with (`DepthNetwork.finetune_settings`)."""
    loss: LossForm = LossForm.ABSOLUTE
    schedule: Schedule = Schedule.CONSTANT
    sampling: Sampling = Sampling.NEAREST
    trained: TrainableScope | None = TrainableScope.ENCODER
    """None: what of the network is best trained."""
    lora_rank: int = 8
    objective: Objective = Objective.SFM
    photometric: PhotometricConfig = PhotometricConfig()
    frames_per_step: int = 1
    """A small network computes two frames in 1.5 times the time of one; see `DepthNetwork.max_batch_size`."""
    warm_up: float = 0.1
    """Share of the steps in which a one-cycle rate rises."""
    num_validations: int = 5
    """How often the validation points are looked at."""
    validation_frames: int = 12
    """On at most this many frames, evenly spaced."""


@dataclass(frozen=True)
class FuseConfig:
    """Fused depth."""

    long_side: int = 640
    """It is computed at most this wide or high."""
    sigmas: tuple[float, ...] = (64 / 1242, 32 / 1242, 16 / 1242, 8 / 1242)
    """Widths of the Gaussians, as shares of the image width, coarse to fine."""
    sigma_log: float = 0.2
    """Width in log depth: pixels whose depths differ by about this share more speak little for each other."""
    prior: float = 0.5
    """Weight of "no correction", in points of full weight."""
    max_factor: float = 5.0
    """Points that ask for more than this are taken for outliers."""
    outlier_scale: float = 6.0
    """Points whose log residual is this many times the clip's median count half (Cauchy's weights): errors of SfM
    points have heavy tails."""


@dataclass(frozen=True)
class DenseConfig:
    """Dense targets: the unrefined network's depth, corrected by the training points around (DESIGN section 4)."""

    weight: float = 0.0
    """What all pixels of a frame count together, where all its points count 1; 0: there are no dense targets. On a
    generated street that is no example, 0.1 made the whole picture better by a twentieth (true depth) and held-out
    points a little worse. Networks far from their domain are taught none."""
    pixels: int = 2048
    """Of each frame, at random."""
    fuse: FuseConfig = FuseConfig(long_side=320)
    """How depth is corrected; smaller than what is shown, since it is read at a few places only."""


@dataclass(frozen=True)
class Recipe:
    """What a preset stands for: everything between sparse points and refined weights."""

    align: AlignConfig
    weight: WeightConfig
    refine: RefineConfig
    propagate_frames: int = 0
    """A point that was found in a frame also teaches this many frames before and after it, at the pixel where it must
    lie in them: detectors miss most of what is there to be seen. Videos only: photos in no order share no views."""
    dense: DenseConfig = DenseConfig()


_PAPER = Recipe(
    AlignConfig(
        inlier_test=InlierTest.PAPER,
        strict_tau=0.5,
        trials=20,
        best_trial=BestTrial.RANSAC,
        keep_reliable_outliers=False,
    ),
    WeightConfig(),
    RefineConfig(),
)
_DEFAULT = Recipe(
    AlignConfig(),
    WeightConfig(),
    RefineConfig(
        # 240 frames: METER-XXS takes less time for them than for 200 one by one, and has less error at validation
        # points; networks that gain less by seeing two together take up to a fifth longer.
        steps=120,
        frames_per_step=2,
        match_time_budget=True,
        domain_gap_steps_factor=2.0,
        learning_rate=None,
        loss=LossForm.LOG,
        schedule=Schedule.ONE_CYCLE,
        sampling=Sampling.BILINEAR,
        trained=None,
    ),
    propagate_frames=2,
    dense=DenseConfig(weight=0.1),
)
RECIPES = {
    Preset.PAPER: _PAPER,
    Preset.DEFAULT: _DEFAULT,
    Preset.FAST: replace(_DEFAULT, refine=replace(_DEFAULT.refine, steps=36, domain_gap_steps_factor=1.0)),
}


@dataclass(frozen=True)
class GroundTruthConfig:
    """Ground truth to compare with."""

    folder: Path
    scale: float | None = None
    """depth in metres = value / scale; None: what the files state of themselves, else millimetres."""
    protocol: str = "plain"
    median_scaling: bool = True


@dataclass(frozen=True)
class OutputConfig:
    """What is written beside the report."""

    exr: bool = False
    """Depth as OpenEXR too."""
    pictures: bool = True
    """Coloured depth, video, overlays and curves."""
    clouds: bool = True
    """Point clouds and meshes."""
    video_fps: float = 10.0


@dataclass(frozen=True)
class RunConfig:
    """Everything that a run depends on, apart from the clip."""

    network: str = "bundled"
    weights_dir: Path | None = None
    preset: Preset = Preset.DEFAULT
    steps: int | None = None
    """Instead of the preset's number."""
    objective: Objective = Objective.SFM
    trained: TrainableScope | None = None
    """Instead of what preset and network choose."""
    learning_rate: float | None = None
    lora_rank: int | None = None
    train_frames: tuple[str, ...] | None = None
    """Names of the frames that are learnt from; None: all. Others still serve as neighbours and as source views."""
    video: VideoConfig = VideoConfig()
    sfm: SfmConfig = SfmConfig()
    split: SplitConfig = SplitConfig()
    fuse: FuseConfig = FuseConfig()
    output: OutputConfig = OutputConfig()
    ground_truth: GroundTruthConfig | None = None
    """None: what lies beside the clip (`ground_truth.find_companion_ground_truth`), if anything does."""
    intrinsics: str | None = None
    """As typed: "fx,fy,cx,cy[,k1,k2]" at the clip's size, or a JSON file."""
    device: str = "auto"
    seed: int = 0
    force: bool = False
    """Refine even when the trust gate is closed."""

    def __post_init__(self) -> None:
        try:
            object.__setattr__(self, "objective", Objective(self.objective))  # its value will do
        except ValueError:
            raise ConfigError(f"There is no objective {self.objective!r}: choose {', '.join(Objective)}.") from None
        if self.learning_rate is not None and not 0 < self.learning_rate < 1:
            raise ConfigError(f"the learning rate is {self.learning_rate}; choose more than 0 and less than 1.")
        if self.lora_rank is not None and self.lora_rank < 1:
            raise ConfigError(f"the rank of LoRA is {self.lora_rank}; choose 1 or more.")
        if self.steps is not None and self.steps < 1:
            raise ConfigError(f"steps is {self.steps}; at least one step is needed.")
        if self.seed < 0:
            raise ConfigError(f"seed is {self.seed}; choose 0 or more.")

    @property
    def recipe(self) -> Recipe:
        """The preset's recipe, with what was changed on top of it."""
        recipe = RECIPES[self.preset]
        refine = replace(recipe.refine, objective=self.objective)
        given = {"trained": self.trained, "learning_rate": self.learning_rate, "lora_rank": self.lora_rank}
        refine = replace(refine, **{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]
        if self.steps is not None:
            refine = replace(refine, steps=self.steps, match_time_budget=False, domain_gap_steps_factor=1.0)
        return replace(recipe, refine=refine)
