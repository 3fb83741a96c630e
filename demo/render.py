"""The page's words and tables: values in, HTML out. Everything that comes from outside is escaped."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np

from demo.charts import Mark, Series, line_chart
from demo.estimate import words as duration_words
from sfmttr.sfm import another_try
from sfmttr.types import DepthKind

if TYPE_CHECKING:
    from demo.estimate import Look
    from demo.results import RunView
    from sfmttr.networks import NetworkSummary
    from sfmttr.networks.info import NetworkInfo

STEPS = (
    ("frames", "Choose sharp frames"),
    ("sfm", "Find the camera's path and 3D points"),
    ("before", "Depth before"),
    ("refine", "Teach the network this place"),
    ("outputs", "Depth after, pictures and 3D"),
)
_STEP_OF = {
    "weights": "frames",
    "disparity": "before",
    "aligned": "before",
    **dict.fromkeys(("after", "before_fused", "after_fused", "compare"), "outputs"),
}
EXPORT_STEPS = {
    "starting": "Starting",
    "torch": "Reading the refined network",
    "fp32": "Freezing it to ONNX (fp32), and checking every pixel",
    "fp16": "Half precision, checked",
    "int8": "Eight bits, calibrated on your clip, checked",
    "timing": "Timing all of them on this machine",
    "kit": "Packing the kit",
}


def plain(text: str) -> str:
    """A message of the package in the words of the page: it has buttons, not options."""
    for option, button in (
        ("; --force refines all the same", ""),
        ("set a start and an end", "set a start and an end under Advanced"),
        ("leave --device at auto, or use --device cpu", "choose another machine"),
        ("Leave it out with --variants.", ""),
    ):
        text = text.replace(option, button)
    return text


def picture_uri(rgb: np.ndarray, width: int = 640, quality: int = 82) -> str:
    """A small picture as a data URI."""
    from demo.results import encode_webp

    return "data:image/webp;base64," + base64.b64encode(encode_webp(rgb, width, quality)).decode()


def _sentence(text: str) -> str:
    """With a capital letter, unless it begins with a name."""
    first = text.partition(" ")[0]
    return text[:1].upper() + text[1:] if first.isalpha() and first.islower() else text


def notice(text: str, kind: str = "error") -> str:
    """One sentence in a box: kind is error, warning or note."""
    role = "alert" if kind == "error" else "status"
    return f'<div class="notice {kind}" role="{role}">{escape(_sentence(plain(text)))}</div>'


# ---------------------------------------------------------------------------------------- networks

_KINDS = {
    DepthKind.METRIC: "gives metres",
    DepthKind.SCALE_INVARIANT: "gives depth up to scale",
    DepthKind.AFFINE_DISPARITY: "gives inverse depth, which your clip turns into depth",
}


def about(network: NetworkSummary) -> str:
    """What a network is, what it gives, its size, and its terms."""
    info = network.info
    facts = [info.description, _KINDS[info.kind], f"{network.parameters / 1e6:.1f} M parameters"]
    facts += [] if network.weights_here else ["its weights are fetched first"]
    words = "; ".join(escape(each) for each in facts)
    terms = f"Licence: <b>{escape(info.licence)}</b>{_page(info)}"
    return f'<p class="caption about" role="status"><b>{escape(info.name)}</b>: {words}. {terms}</p>'


def _page(info: NetworkInfo) -> str:
    if not info.source.startswith("https://"):
        return "."
    return f' (<a href="{escape(info.source)}" target="_blank" rel="noopener">its page</a>).'


def looking_up(name: str) -> str:
    """While a model's small files are read."""
    return (
        f'<p class="caption about" role="status">Looking up {escape(name)}: its licence will stand here, and in the '
        "report. You need not wait.</p>"
    )


# ----------------------------------------------------------------------------------------- preview


def preview(look: Look, seconds: float | None, waiting: int, warnings: Sequence[str]) -> str:
    """What is known of a clip before anything is done with it."""
    info = look.info
    facts = [("Frames used", f"{look.frames}" + (f" of {info.frames}" if info.frames else ""))]
    if look.used_s is not None:
        facts.insert(0, ("Length", f"{look.used_s:.1f} s"))
    facts.append(("Size", f"{info.hw[1]} × {info.hw[0]}"))
    facts.append(("Time here", "depends on the network" if seconds is None else duration_words(seconds)))
    if waiting:
        facts.append(("In line", f"{waiting} before you"))
    pictures = "".join(f'<img alt="" src="{picture_uri(each, 320)}">' for each in look.pictures)
    cells = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in facts)
    boxes = "".join(notice(each, "warning") for each in warnings)
    return f'<div class="preview"><div class="strip">{pictures}</div><dl class="facts">{cells}</dl>{boxes}</div>'


# ---------------------------------------------------------------------------------------- progress


@dataclass
class Live:
    """What is known of a run that is going on."""

    stage: str = ""
    done: int = 0
    total: int = 0
    note: str = ""
    place: int | None = None
    left_s: float | None = None
    validation: list[tuple[int, float]] = field(default_factory=list)
    steps: int = 0
    first: str = ""
    """Data URI: the first frame's depth before."""
    now: str = ""
    """Data URI: and as the network sees it now."""
    stopping: bool = False

    @property
    def share(self) -> float:
        return min(1.0, self.done / self.total) if self.total else 0.0


def live(state: Live) -> str:
    """Stages, bar, time left, the validation curve and the first frame's depth."""
    if state.stopping:
        return '<div class="live" aria-live="polite"><p class="headline">Stopping…</p></div>'
    if state.place:
        people = "One run is" if state.place == 1 else f"{state.place} runs are"
        return (
            f'<div class="live" aria-live="polite"><p class="headline">You are number {state.place} in line</p>'
            f"<p>{people} before you; yours starts by itself. The page may stay in the background.</p></div>"
        )
    current = _STEP_OF.get(state.stage, state.stage)
    names = [name for name, _ in STEPS]
    at = names.index(current) if current in names else -1
    items = "".join(_step_item(i, at, title, state) for i, (_, title) in enumerate(STEPS))
    left = f"{duration_words(state.left_s)} left" if state.left_s is not None and state.left_s > 0 else ""
    return (
        f'<div class="live"><ol class="steps">{items}</ol>'
        f'<p class="left" aria-live="polite">{escape(left)}</p>{_live_pictures(state)}</div>'
    )


def _step_item(i: int, at: int, title: str, state: Live) -> str:
    kind = "done" if i < at else "now" if i == at else "later"
    bar = note = ""
    if kind == "now":
        known = state.total > 0
        style = f"width:{100 * state.share:.1f}%" if known else ""
        bar = f'<span class="bar{"" if known else " unknown"}"><span style="{style}"></span></span>'
        note = f'<span class="note">{escape(_note(state))}</span>'
    current = ' aria-current="step"' if kind == "now" else ""
    return f'<li class="{kind}"{current}><span class="title">{escape(title)}</span>{note}{bar}</li>'


_SFM_WORDS = {
    "start": "starting",
    "features": "looking for corners",
    "matching": "matching frames",
    "mapping": "placing cameras",
}


def _note(state: Live) -> str:
    if state.stage == "sfm" and state.note:
        what, rung = state.note.partition(", ")[0], another_try(state.note)
        again = f" (another try: {rung})" if rung else ""
        count = f", {state.done} of {state.total}" if state.total else ""
        return _SFM_WORDS.get(what, what) + count + again
    if state.stage == "refine":
        return f"step {state.done} of {state.total}"
    if state.stage == "weights":
        return f"fetching {state.note}, {100 * state.share:.0f} %" if state.total else state.note
    return state.note if state.note != "already done" else ""


def _live_pictures(state: Live) -> str:
    curve = validation_chart(state.validation, state.steps)
    parts = []
    if state.now:
        parts.append(
            '<div class="pair">'
            f'<figure><img alt="depth before" src="{state.first}"><figcaption>before</figcaption></figure>'
            f'<figure><img alt="depth now" src="{state.now}"><figcaption>now</figcaption></figure></div>'
        )
    if curve:
        parts.append(f'<div class="curve"><h4>Error at points it does not learn from</h4>{curve}</div>')
    return f'<div class="live-pictures">{"".join(parts)}</div>' if parts else ""


def export_progress(step: str, done: int, total: int, place: int | None = None) -> str:
    """One line and a bar."""
    if place:
        return f'<div class="live"><p class="headline">You are number {place} in line</p></div>'
    share = 100 * done / total if total else 0
    title = EXPORT_STEPS.get(step, step)
    bar = f'<span class="bar{"" if total else " unknown"}"><span style="width:{share:.0f}%"></span></span>'
    item = f'<li class="now"><span class="title">{escape(title)}</span>{bar}</li>'
    return f'<div class="live"><ol class="steps">{item}</ol></div>'


# ----------------------------------------------------------------------------------------- results


def verdict(view: RunView, link: str) -> str:
    """What came of it, in one glance."""
    report, run = view.report, f' data-run="{escape(view.session.id)}"'
    if not view.refined:
        title = "Not refined: this reconstruction is not to be trusted" if view.gate_closed else "Not refined"
        body = f'<p class="why">{escape(plain(report["advice"]))}</p><p>{_unrefined_words(view)}</p>'
        return f'<div class="verdict closed"{run}><h2>{title}</h2>{body}{_link(link)}</div>'
    if view.rolled_back:
        body = (
            "No step was better than the network as it was, at points that it did not learn from: it is kept as it was."
        )
        return f'<div class="verdict closed"{run}><h2>Nothing to gain here</h2><p>{body}</p>{_link(link)}</div>'
    before, aligned, after = (view.held_out(column) for column in (view.before, "aligned", "after"))
    if before is None or after is None or aligned is None:
        return f'<div class="verdict"{run}><h2>Refined</h2>{_link(link)}</div>'
    arrow = "<span class='arrow' aria-hidden='true'>→</span>"
    times = aligned / after if after > 0 else float("inf")
    caution = (
        ""
        if view.trusted
        else notice("Refined although the reconstruction is not trusted: mind what you see.", "warning")
    )
    return (
        f'<div class="verdict"{run}>'
        f"<h2>Depth is {_factor(times)} more accurate in this place</h2>"
        f'<div class="figures">{_figure("before", before)}{arrow}{_figure("after", after, "good")}</div>'
        f"<p>Mean relative error at {_held_out_count(view)} points of the reconstruction that the network never saw. "
        f"{_alignment_words(view)}</p>{caution}{_link(link)}</div>"
    )


def _alignment_words(view: RunView) -> str:
    """What alignment alone does, which is no gain."""
    if view.before_words:
        return f"Before is the network {view.before_words}: what only they would have gained is no gain."
    return f"Scale alone would have given {_percent(view.held_out('aligned'))}."


def _unrefined_words(view: RunView) -> str:
    forced = " You can refine all the same, below." if view.gate_closed else ""
    return f"Below is the depth that the network gives as it is, and what structure-from-motion found.{forced}"


def _factor(times: float) -> str:
    return f"{times:.1f} times" if times < 10 else f"{times:.0f} times"


def _percent(value: float | None) -> str:
    return "–" if value is None or not math.isfinite(value) else f"{100 * value:.1f} %"


def _figure(name: str, value: float, kind: str = "") -> str:
    return (
        f'<div class="figure {kind}"><span class="value">{_percent(value)}</span><span class="name">{name}</span></div>'
    )


def _held_out_count(view: RunView) -> str:
    return f"{view.report['comparison']['held_out']['after']['count']:,}"


def _link(link: str) -> str:
    return (
        f'<p class="link">This result stays a day: <a href="{escape(link)}">link to come back to it</a></p>'
        if link
        else ""
    )


def compare(view: RunView, key: str) -> str:
    """The slider over every frame, with the video and how to read it."""
    left, right = (str(view.before), "after") if view.refined else ("photo", str(view.before))
    element = depth_compare(view, [each for each in view.layers if each != "points"], left, right)
    said = f'<p class="caption">{_before_words(view)}</p>' if view.gave_disparity else ""
    film = ""
    if (view.folder / "comparison.mp4").is_file():
        film = (
            '<h3>Whole clip</h3><video class="film" controls muted loop playsinline preload="metadata" '
            f'poster="view/{escape(key)}/file/compare.png" src="view/{escape(key)}/file/comparison.mp4"></video>'
        )
    return f"{element}{said}{film}"


def _before_words(view: RunView) -> str:
    """What "before" is, where the network gives inverse depth."""
    if view.before_words:
        return f"“Before”, here and in video, pictures and 3D, is the network {view.before_words} for this clip."
    return "The network gives inverse depth up to scale and shift; what is shown leaves the shift out."


def points(view: RunView) -> str:
    """Points over every frame, and the scale of every frame."""
    known = view.points
    if known is None:
        return '<p class="empty">There are no points: structure-from-motion found no model.</p>'
    words = _CLASS_WORDS | ({"strict": _STRICT_DISPARITY} if view.gave_disparity else {})
    legend = "".join(
        f'<li><span class="mark {kind}" aria-hidden="true"></span><b>{count:,}</b> {words[str(kind)]}</li>'
        for kind, count in known.counts().items()
    )
    player = depth_compare(view, ["points"], "points", "points")
    scale = view.report["alignment"]["frame_scale"]
    series = Series("scale", sorted((float(frame), float(value)) for frame, value in scale.items()), dots=True)
    chart = line_chart(
        [series], "frame", "scale of the frame over that of the clip", from_zero=True, level=(1.0, "whole clip")
    )
    return (
        f'<ul class="legend">{legend}</ul>{player}<h3>Scale, frame by frame</h3>'
        "<p>The scale that fits each frame alone, over the one that fits the clip: the flatter, the better network and "
        f"reconstruction agree.</p>{chart}"
    )


_CLASS_WORDS = {
    "strict": "strict: fit the one scale of the clip, and set it",
    "relaxed": "relaxed: the network had them wrong, and learns from them",
    "rejected": "rejected: too far off to be believed",
    "held_out": "held out: never learnt from, used to judge",
}
_STRICT_DISPARITY = "strict: fit the one scale and shift of the clip, and set them"


def depth_compare(view: RunView, layers: Sequence[str], left: str, right: str) -> str:
    """The element of `page.js`: two layers over each other with a divider, and every frame."""
    from sfmttr import viz

    hw = view.frames.hw
    config = {
        "base": f"view/{view.session.id}/",
        "frames": [str(name) for name in view.frames.names],
        "hw": list(hw),
        "layers": [{"key": key, "title": view.titles[key]} for key in layers],
        "left": left,
        "right": right,
        "bar": {
            "stops": ["rgb({},{},{})".format(*colour) for colour in viz.palette()[:-1:17]],
            "ticks": [
                {"at": float(viz.colour_position(np.array(value), view.colours)), "text": f"{value:g}"}
                for value in viz._round_depths(view.colours, 7)
            ],
            "unit": view.unit,
        },
        "errorBar": {"most": f"{viz.MAX_ERROR:.0%}+"},
        "fps": 10,
    }
    return f"<depth-compare data-config='{escape(json.dumps(config), quote=True)}'></depth-compare>"


# ------------------------------------------------------------------------------------------ report

_MEASURES = (
    ("abs_rel", "AbsRel", "mean of |error| / true depth"),
    ("rmse", "RMSE", "root of the mean squared error"),
    ("rmse_log", "RMSE log", "the same in log depth"),
    ("a1", "δ < 1.25", "share of depths less than 25 % off"),
)
_COLUMNS = ("before", "aligned", "before_fused", "after", "after_fused")
_FUSED = {"before_fused": "before + points", "after_fused": "after + points"}
_COMPARISONS = (
    ("held_out", "At held-out points of the reconstruction"),
    ("held_out_frames", "At held-out frames"),
    ("ground_truth", "Against true depth"),
)


def report(view: RunView) -> str:
    """Tables, curves, health card and timings."""
    parts = []
    for name, title in _COMPARISONS:
        comparison = view.report["comparison"].get(name)
        if comparison:
            columns = [(key, _FUSED.get(key, view.titles[key])) for key in _COLUMNS if key in comparison]
            tables = _table(comparison, columns) + _distance_table(comparison, columns)
            parts.append(f"<section><h3>{title}</h3>{tables}</section>")
    parts.append(_curves(view))
    parts.append(f"<section><h3>Reconstruction</h3>{health(view)}</section>")
    parts.append(f"<section><h3>Time</h3>{_timings(view)}</section>")
    return f'<div class="report">{"".join(parts)}</div>'


def _table(comparison: Mapping[str, Any], columns: Sequence[tuple[str, str]]) -> str:
    head = "".join(f'<th scope="col" title="{escape(words)}">{title}</th>' for _, title, words in _MEASURES)
    best = {
        measure: (max if measure == "a1" else min)(
            (comparison[key][measure] for key, _ in columns if _finite(comparison[key][measure])), default=None
        )
        for measure, _, _ in _MEASURES
    }
    rows = "".join(
        f'<tr class="{key}"><th scope="row">{title}</th>'
        + "".join(_cell(comparison[key][measure], best[measure]) for measure, _, _ in _MEASURES)
        + "</tr>"
        for key, title in columns
    )
    unit = escape(str(comparison["unit"]))
    return (
        f'<div class="scroll"><table><thead><tr><td></td>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
        f'<p class="caption">{escape(str(comparison["protocol"]))}; RMSE in {unit}.</p>'
    )


def _finite(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and math.isfinite(value)


def _cell(value: Any, best: Any) -> str:
    if not _finite(value):
        return "<td>–</td>"
    text = f"{value:.4f}" if value < 10 else f"{value:.2f}"
    return f'<td class="best">{text}</td>' if value == best else f"<td>{text}</td>"


def _distance_table(comparison: Mapping[str, Any], columns: Sequence[tuple[str, str]]) -> str:
    ranges = comparison[columns[0][0]]["by_distance"]
    if not ranges:
        return ""
    head = "".join(f'<th scope="col">{part["near"]:.3g} – {part["far"]:.3g}</th>' for part in ranges)
    rows = "".join(
        f'<tr class="{key}"><th scope="row">{title}</th>'
        + "".join(_cell(part["abs_rel"], None) for part in comparison[key]["by_distance"])
        + "</tr>"
        for key, title in columns
    )
    return (
        "<details><summary>AbsRel by distance</summary>"
        f'<div class="scroll"><table><thead><tr><td>{escape(str(comparison["unit"]))}</td>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div></details>"
    )


def validation_chart(validation: Sequence[tuple[float, float | None]], steps: int) -> str:
    """Error at validation points by step; the unrefined network's as a level, the best step marked."""
    known = [(float(step), float(error)) for step, error in validation if _finite(error)]
    if not known:
        return ""
    best = min(known, key=lambda pair: pair[1])
    level = (known[0][1], f"unrefined {_percent(known[0][1])}") if known[0][0] == 0 else None
    mark = Mark(best[0], best[1], f"{_percent(best[1])} at step {best[0]:.0f}") if len(known) > 1 else None
    return line_chart(
        [Series("validation", known, dots=True)],
        "step",
        "error at validation points",
        x_range=(0.0, float(max(steps, 1))),
        level=level,
        mark=mark,
        percent=True,
    )


def _curves(view: RunView) -> str:
    curves = view.refinement
    if curves is None or not curves["losses"]:
        return ""
    losses = [math.nan if value is None else float(value) for value in curves["losses"]]
    half = max(2, len(losses) // 40)
    windows = (
        (i, [value for value in losses[max(0, i - half) : i + half + 1] if _finite(value)]) for i in range(len(losses))
    )
    median = [(i + 1.0, float(np.median(window))) for i, window in windows if window]
    steps = [(i + 1.0, value) for i, value in enumerate(losses)]
    chart = line_chart([Series("loss", steps, "faint"), Series("median", median)], "step", "training loss")
    error = validation_chart(curves["validation"], len(losses))
    return (
        '<section><h3>Learning</h3><div class="charts">'
        f"<div><h4>Error at points that chose the best step</h4>{error}</div>"
        f"<div><h4>Training loss, and its running median</h4>{chart}</div></div></section>"
    )


def health(view: RunView) -> str:
    """The health card."""
    sfm = view.report["sfm"]
    card = sfm["health"]
    if card is None:
        return f'<div class="health poor"><p>{escape(plain(str(sfm["advice"])))}</p></div>'
    alignment = view.report["alignment"] or {}
    facts = [
        ("Frames placed", f"{card['registered']} of {card['total']}"),
        ("3D points", f"{card['points']:,}"),
        ("Reprojection error", f"{card['mean_reprojection_error_px']:.2f} px"),
        ("A point is seen in", f"{card['mean_track_length']:.1f} frames"),
        ("Field of view", f"{card['horizontal_view_deg']:.0f}°{' (given)' if card['focal_given'] else ''}"),
        ("Focal length", f"{card['focal_px']:.0f} px"),
        ("Triangulation angle", f"{card['median_triangulation_angle_deg']:.1f}°"),
    ]
    if alignment:
        facts += [
            ("Points that fit the network", _percent(alignment["relaxed_inlier_ratio"])),
            ("Agreement on near and far", f"{alignment['rank_correlation']:.2f}"),
            ("Scale varies by", _percent(alignment["scale_spread"])),
        ]
    score = float(card["score"])
    kind = "good" if score >= 0.75 else "fair" if score >= 0.5 else "poor"
    cells = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in facts)
    concerns = "".join(f"<li>{escape(each)}</li>" for each in card["concerns"])
    advice = f"<p>{escape(plain(card['advice']))}</p>" if card["advice"] else ""
    return (
        f'<div class="health {kind}"><p class="score"><b>{100 * score:.0f}</b> of 100: '
        f"{ {'good': 'fits itself well', 'fair': 'usable, with doubts', 'poor': 'does not fit itself'}[kind] }</p>"
        f'<dl class="facts">{cells}</dl>{f"<ul>{concerns}</ul>" if concerns else ""}{advice}</div>'
    )


_STAGE_WORDS = {
    "frames": "frames",
    "sfm": "structure-from-motion",
    "disparity": "inverse depth before",
    "before": "depth before",
    "aligned": "scale and shift",
    "refine": "refinement",
    "after": "depth after",
    "before_fused": "fusing before",
    "after_fused": "fusing after",
    "compare": "comparing",
    "outputs": "pictures, video, 3D",
}


def _timings(view: RunView) -> str:
    timings = {name: float(value) for name, value in view.report["timings_s"].items() if value >= 0.05}
    if not timings:
        return ""
    most = max(timings.values())
    rows = "".join(
        f'<tr><th scope="row">{_STAGE_WORDS.get(name, name)}</th><td>{value:.1f} s</td>'
        f'<td class="wide"><span class="bar"><span style="width:{100 * value / most:.0f}%"></span></span></td></tr>'
        for name, value in timings.items()
    )
    network, preset = escape(str(view.report["network"])), escape(str(view.report["preset"]))
    licence = escape(str(view.report.get("licence") or "not stated"))
    return (
        f'<table class="timings"><tbody>{rows}</tbody></table><p class="caption">{sum(timings.values()):.0f} s in all; '
        f"network {network} (licence: {licence}), preset {preset}, seed {view.report['seed']}.</p>"
    )


# ---------------------------------------------------------------------------------------- download


@dataclass(frozen=True)
class Offer:
    """Something to take home."""

    name: str
    title: str
    words: str
    size: int


def downloads(key: str, offers: Sequence[Offer]) -> str:
    """Links, the kit first."""
    cards = "".join(
        f'<a class="offer" href="view/{escape(key)}/file/{escape(each.name)}" download="{escape(each.name)}">'
        f"<b>{escape(each.title)}</b><span>{escape(each.words)}</span><small>{_bytes(each.size)}</small></a>"
        for each in offers
    )
    return f'<div class="offers">{cards}</div>'


def _bytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{max(size, 1) / 1e3:.0f} kB"


def prediction(photo: np.ndarray, depth: np.ndarray, view: RunView, facts: Sequence[str]) -> str:
    """A photo and its depth, in the clip's colours."""
    from demo.results import TITLES
    from sfmttr import viz

    config = {
        "frames": ["photo"],
        "hw": list(photo.shape[:2]),
        "layers": [
            {"key": "photo", "title": TITLES["photo"], "src": picture_uri(photo, 1280, 88)},
            {
                "key": "depth",
                "title": "depth",
                "src": picture_uri(viz.colourise(depth, view.exported_colours), 1280, 88),
            },
        ],
        "left": "photo",
        "right": "depth",
        "bar": None,
    }
    text = " · ".join(escape(each) for each in facts)
    return (
        f"<depth-compare data-config='{escape(json.dumps(config), quote=True)}'></depth-compare>"
        f'<p class="caption" id="predicted">{text}</p>'
    )
