"""Rendered clips with exact depth and poses: real frames for real structure-from-motion, made in a second or two.

Conventions are those of `sfmttr.geometry`: OpenCV axes, camera z in meters, COLMAP's pixels. World axes: x right, y
down (the ground is y = 0, so heights are negative y), z forward.
"""

from tools.synthetic.clip import RenderedClip, pinhole, pose
from tools.synthetic.degenerate import render_rotation, render_static, render_textureless
from tools.synthetic.files import write_frames, write_ground_truth, write_video
from tools.synthetic.rendering import render
from tools.synthetic.room import render_room
from tools.synthetic.scene import Scene
from tools.synthetic.street import render_street
from tools.synthetic.traffic import render_traffic

__all__ = [
    "RenderedClip",
    "Scene",
    "pinhole",
    "pose",
    "render",
    "render_room",
    "render_rotation",
    "render_static",
    "render_street",
    "render_textureless",
    "render_traffic",
    "write_frames",
    "write_ground_truth",
    "write_video",
]
