"""Settings of all stages with their defaults. Command line, page and tests read them from here.

All are frozen; each stage gets only its own. `RECIPES` holds the presets.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from sfmttr.errors import ConfigError
from sfmttr.types import Camera


@dataclass(frozen=True)
class VideoConfig:
    """Selection and size of frames."""

    max_frames: int = 80
    """Most frames that are selected, evenly spaced in time."""
    long_side: int = 1280
    """Frames are stored at most this wide or high; all outputs have the size of the stored frames."""
    start_s: float = 0.0
    """Skip the clip before this time."""
    end_s: float | None = None
    """Skip the clip after this time; None: use it to its end."""
    duplicate_threshold: float = 0.6
    """Frames that differ less from the last selected one are dropped (mean gray levels of 255, on a small copy)."""
    max_duration_s: float = 3600.0
    """Longer clips are rejected unless start and end are set."""
    max_source_pixels: int = 40_000_000
    """Larger frames are rejected."""
    max_archive_bytes: int = 2_000_000_000
    """Largest size of an unpacked archive."""
    max_archive_files: int = 5_000
    """Most files in an archive."""


@dataclass(frozen=True)
class SfmConfig:
    """Settings of structure-from-motion."""

    long_side: int = 880
    """Features are detected in images at most this wide or high, upsampled once by 2 as in SIFT's first octave."""
    max_features: int = 4096
    """Most SIFT features in an image."""
    contrast: float = 0.0133
    """Smallest contrast of a feature (1: black to white)."""
    # COLMAP's 0.02 finds a quarter fewer points in RedKitchen.
    overlap: int = 3
    """Each frame is matched with those less than this many after it, and with as many at distances 1, 2, 4, ..."""
    exhaustive_up_to: int = 30
    """Up to this many unordered images are matched exhaustively; videos always sequentially."""
    intrinsics: Camera | None = None
    """Known camera, held fixed; None: self-calibration."""
    model_folder: Path | None = None
    """Existing COLMAP model (text or binary) to use instead of a reconstruction."""
    time_limit_s: float = 900.0
    """For all attempts together."""
    min_registered: int = 5
    """With fewer registered frames than this, or than a third of all, there is no model."""
    seed: int = 0
    threads: int = -1
    """-1: all cores. With 1 the reconstruction is reproducible bit for bit."""


@dataclass(frozen=True)
class SplitConfig:
    """Split of the 3D points, and so of whole tracks, into training, validation and test."""

    validation: float = 0.10
    """Share of the points that the best step is chosen on."""
    test: float = 0.10
    """Share of the points for the comparison only."""
    hold_out_frames: int = 0
    """Length in frames of the blocks of which every second one is held out; 0: none."""


class InlierTest(StrEnum):
    """Inlier test of the strict model."""

    RELATIVE = "relative"
    """|s z - d| / (s z) <= tau: independent of the unit."""
    PAPER = "printed"
    """(s z - d)^2 / (s z) <= tau, as printed in the paper: it depends on the unit."""


class BestTrial(StrEnum):
    """Criterion that selects the best trial of the strict model."""

    RANSAC = "most_inliers"
    """Largest number of strict inliers, as in the paper. Where many points err by more than the strict threshold,
    several scales have about the same number, and the choice between them is random."""
    MSAC = "least_relaxed"
    """Smallest squared error over all points, truncated at the threshold of the relaxed model (Torr and Zisserman, CVIU
    2000): the scale that keeps most of the clip for training."""


@dataclass(frozen=True)
class AlignConfig:
    """Strict and relaxed models of the alignment (Izquierdo and Civera, CVPR 2023, section 3.2)."""

    inlier_test: InlierTest = InlierTest.RELATIVE
    strict_tau: float = 0.15
    """Threshold of the strict model, in the unit of `inlier_test`."""
    relaxed_tau: float = 0.5
    """Relative error below which a point is trained on."""
    trials: int = 200
    """RANSAC trials; the reference code makes 20."""
    best_trial: BestTrial = BestTrial.MSAC
    """For alignment by scale; alignment by scale and shift always takes the most inliers."""
    keep_reliable_outliers: bool = True
    """When the clip is outside the network's domain, also train on points that fail the relaxed model but are reliable
    in a healthy reconstruction."""
    # Such a network has most to learn where it is most wrong. Within the domain, points that fail the relaxed model are
    # mostly wrong themselves, or out of the network's range.


@dataclass(frozen=True)
class WeightConfig:
    """Weights of points: the paper's `exp(-e^2)`, and an optional factor for depth uncertainty."""

    sigma_scale: float | None = None
    """Relative depth uncertainty at which a point's weight is halved; None: the paper's weights alone."""


class LossForm(StrEnum):
    """Residual at a point with reference depth `r = scale * z` and prediction `d`."""

    ABSOLUTE = "absolute"
    """|r - d|, as in the paper: far points dominate."""
    RELATIVE = "relative"
    """|r - d| / r"""
    LOG = "log"
    """|log r - log d|"""


class TrainableScope(StrEnum):
    """Parameters that are trained."""

    ENCODER = "encoder"
    """The whole encoder, as in the paper."""
    ENCODER_BUT_STEM = "late_encoder"
    """The encoder without its stem. Stem features are then computed once a frame and cached, so steps are cheaper.
    Networks that declare no stem train the whole encoder."""
    DECODER = "decoder"
    ALL_BUT_STEM = "late"
    """All parameters but the stem's."""
    ALL = "all"
    LORA = "lora"
    """Low-rank updates of the encoder's linear layers, merged into their weights at the end."""


@dataclass(frozen=True)
class FinetuneSetting:
    """Scope of the training and its learning rate."""

    trained: TrainableScope
    learning_rate: float


class Schedule(StrEnum):
    """Learning rate schedule."""

    CONSTANT = "constant"
    ONE_CYCLE = "one_cycle"
    """Linear warm-up, then cosine to zero."""


class Sampling(StrEnum):
    """Interpolation of a prediction at a point."""

    NEAREST = "nearest"
    BILINEAR = "bilinear"


class Objective(StrEnum):
    """Objective that a refinement minimizes."""

    SFM = "sfm"
    """Depth error at the SfM points: SfM-TTR."""
    PHOTOMETRIC = "photometric"
    """Photometric error to source frames: Ph-TTR, the paper's baseline."""
    BOTH = "both"
    """Sum of the two."""


@dataclass(frozen=True)
class PhotometricConfig:
    """Photometric error (Godard et al., ICCV 2019; docs/method.md)."""

    ssim_weight: float = 0.85
    """Weight of the SSIM term; L1 gets the rest."""
    joint_weight: float = 1.0
    """Factor on the photometric error in objective "both"."""


class Preset(StrEnum):
    PAPER = "paper"
    """The paper's recipe, unchanged."""
    DEFAULT = "default"
    """Lower error than `paper` in about the same time."""
    FAST = "fast"
    """For interactive use: done within about two minutes."""


@dataclass(frozen=True)
class RefineConfig:
    """Test-time loop (Izquierdo and Civera, CVPR 2023, section 3.3). Defaults are the paper's."""

    steps: int = 200
    match_time_budget: bool = False
    """With cached stem features, make as many steps as take the time of `steps` full ones."""
    domain_gap_steps_factor: float = 1.0
    """Factor on the number of steps when the clip is outside the network's domain: there is more to learn."""
    learning_rate: float | None = 1e-4
    """None: the network's recommendation (`DepthNetwork.finetune_settings`)."""
    loss: LossForm = LossForm.ABSOLUTE
    schedule: Schedule = Schedule.CONSTANT
    sampling: Sampling = Sampling.NEAREST
    trained: TrainableScope | None = TrainableScope.ENCODER
    """None: the network's recommendation (`DepthNetwork.finetune_settings`)."""
    lora_rank: int = 8
    objective: Objective = Objective.SFM
    photometric: PhotometricConfig = PhotometricConfig()
    frames_per_step: int = 1
    """Frames whose gradients are averaged in a step; at most `DepthNetwork.max_batch_size` are predicted at once."""
    # A small network computes two frames in 1.5 times the time of one.
    warm_up: float = 0.1
    """Share of the steps in which the one-cycle rate rises."""
    num_validations: int = 5
    """Number of validations, evenly spaced over the steps."""
    validation_frames: int = 12
    """Most frames that a validation uses, evenly spaced."""


@dataclass(frozen=True)
class FuseConfig:
    """Fusion of predictions with sparse points (`refinement.fusion`)."""

    long_side: int = 640
    """Fused depth is computed at most this wide or high."""
    sigmas: tuple[float, ...] = (64 / 1242, 32 / 1242, 16 / 1242, 8 / 1242)
    """Standard deviations of the Gaussians as shares of the image width, coarse to fine."""
    sigma_log: float = 0.2
    """Standard deviation in log depth: points hardly influence pixels whose depth differs by more."""
    prior: float = 0.5
    """Weight of zero correction, in points of full weight."""
    max_factor: float = 5.0
    """Points that need a larger correction factor than this are ignored as outliers."""
    outlier_scale: float = 6.0
    """Log residual, in multiples of the clip's median, at which Cauchy's weight is 1/2."""
    # Errors of SfM points have heavy tails.


@dataclass(frozen=True)
class DenseConfig:
    """Dense targets: the unrefined network's depth, corrected by training points (docs/method.md)."""

    weight: float = 0.0
    """Weight of the mean over a frame's pixels, relative to the mean over its points; 0: no dense targets. Clips
    outside the network's domain get none."""
    # 0.1, on a generated street that is not among the examples: 5 % less error over the whole picture (true depth), a
    # little more at held-out points.
    pixels: int = 2048
    """Random pixels of each frame."""
    fuse: FuseConfig = FuseConfig(long_side=320)
    """Correction of the depth; smaller than for display, since only few pixels are sampled."""


@dataclass(frozen=True)
class Recipe:
    """All settings of a preset, from sparse points to refined weights."""

    align: AlignConfig
    weight: WeightConfig
    refine: RefineConfig
    propagate_frames: int = 0
    """Points detected in a frame are also training points of this many frames before and after it, at their projection.
    For videos only."""
    # Detectors miss most points that are visible; unordered photos have no neighbors.
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
        # 240 frames: METER-XXS takes less time for them than for 200 one by one, with a lower validation error;
        # networks that gain less from batches of two take up to a fifth longer.
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
    """Ground-truth depth for the comparison."""

    folder: Path
    scale: float | None = None
    """Depth in meters = value / scale; None: the scale stated in each file, else millimeters."""
    protocol: str = "plain"
    """Name of an evaluation protocol (`evaluation.metrics.protocol`)."""
    median_scaling: bool = True


@dataclass(frozen=True)
class OutputConfig:
    """Optional output files."""

    exr: bool = False
    """Write depth also as OpenEXR."""
    pictures: bool = True
    """Write colored depth, video, overlays and curves."""
    clouds: bool = True
    """Write point clouds and meshes."""
    video_fps: float = 10.0


@dataclass(frozen=True)
class RunConfig:
    """All settings of a run."""

    network: str = "bundled"
    weights_dir: Path | None = None
    preset: Preset = Preset.DEFAULT
    steps: int | None = None
    """Number of steps; None: the preset's."""
    objective: Objective = Objective.SFM
    trained: TrainableScope | None = None
    """Parameters to train; None: the choice of preset and network."""
    learning_rate: float | None = None
    lora_rank: int | None = None
    train_frames: tuple[str, ...] | None = None
    """Names of the frames to train on; None: all. Others still serve as source frames."""
    video: VideoConfig = VideoConfig()
    sfm: SfmConfig = SfmConfig()
    split: SplitConfig = SplitConfig()
    fuse: FuseConfig = FuseConfig()
    output: OutputConfig = OutputConfig()
    ground_truth: GroundTruthConfig | None = None
    """None: the ground truth next to the clip, if there is any (`ground_truth.find_companion_ground_truth`)."""
    intrinsics: str | None = None
    """Camera as "fx,fy,cx,cy[,k1,k2]" at the clip's size, or the path of a JSON file."""
    device: str = "auto"
    seed: int = 0
    force: bool = False
    """Refine even when the trust gate is closed."""

    def __post_init__(self) -> None:
        try:
            object.__setattr__(self, "objective", Objective(self.objective))  # accepts its value too
        except ValueError:
            raise ConfigError(f"There is no objective {self.objective!r}: choose {', '.join(Objective)}.") from None
        if self.learning_rate is not None and not 0 < self.learning_rate < 1:
            raise ConfigError(f"The learning rate is {self.learning_rate}; choose more than 0 and less than 1.")
        if self.lora_rank is not None and self.lora_rank < 1:
            raise ConfigError(f"The LoRA rank is {self.lora_rank}; choose 1 or more.")
        if self.steps is not None and self.steps < 1:
            raise ConfigError(f"The number of steps is {self.steps}; choose 1 or more.")
        if self.seed < 0:
            raise ConfigError(f"The seed is {self.seed}; choose 0 or more.")

    @property
    def recipe(self) -> Recipe:
        """Recipe of the preset with the settings of this run."""
        recipe = RECIPES[self.preset]
        refine = replace(recipe.refine, objective=self.objective)
        given = {"trained": self.trained, "learning_rate": self.learning_rate, "lora_rank": self.lora_rank}
        refine = replace(refine, **{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]
        if self.steps is not None:
            refine = replace(refine, steps=self.steps, match_time_budget=False, domain_gap_steps_factor=1.0)
        return replace(recipe, refine=refine)
