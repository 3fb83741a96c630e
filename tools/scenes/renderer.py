"""Renders scenes with OpenGL, off screen; Mesa's software rasteriser is enough.

Colour is rendered larger and averaged; depth is rendered by itself at the size of the picture, so that each
value belongs exactly to its pixel's centre.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import TracebackType
from typing import Any

import numpy as np

from sfmttr.types import HW, Camera
from tools.scenes import shaders
from tools.scenes.mesh import Mesh
from tools.scenes.projection import clip_from_cam, shadow_clip, visible_parts
from tools.scenes.scene import Scene, SceneKind
from tools.scenes.textures import MACRO, TextureBank


class NoContextError(RuntimeError):
    """OpenGL cannot be had; the message says what to install."""


@dataclass(frozen=True)
class View:
    """A picture and its depth."""

    rgb: np.ndarray
    """(H, W, 3) uint8, sRGB, before the sensor's noise."""
    depth_m: np.ndarray
    """(H, W) float32, camera z at pixel centres; 0 where there is only sky."""


@dataclass(frozen=True)
class Quality:
    """Settings that trade quality for time."""

    texture_px: int
    shadow_px: int
    supersampling: float
    """Shaded pixels per image pixel, in each direction; 1 to 2. (Multisampling takes longer than 2.)"""
    hollow_pairs: int
    """Pairs of neighbors sampled by ambient occlusion."""
    shadow_taps: int
    """Samples of the shadow map: 1 or 4."""
    bump: bool
    """Shade surfaces with bump maps."""


# No anisotropic filtering: in Mesa's rasteriser it takes minutes a picture.
CLIP = Quality(texture_px=512, shadow_px=4096, supersampling=2.0, hollow_pairs=10, shadow_taps=4, bump=True)
TRAINING = Quality(texture_px=256, shadow_px=1024, supersampling=1.5, hollow_pairs=5, shadow_taps=1, bump=False)

_ATTRIBUTES = (
    ("in_position", "3f", "3x4"),
    ("in_uv", "2f", "2x4"),
    ("in_normal", "4f1", "1x4"),
    ("in_tint", "4f1", "1x4"),
    ("in_layer", "1f", "1x4"),
)


_ARRAYS = frozenset({"shadow_from_world", "light_at", "light_colour", "shadow_soft", "lamp_at", "lamp_colour"})
"""Uniforms that are arrays."""


class Renderer:
    """An OpenGL context with what was uploaded last. Use it as a context manager, in one thread."""

    def __init__(self, quality: Quality = CLIP) -> None:
        self.quality = quality
        self._gl = gl = _context()
        self._programs: dict[tuple[str, bool], Any] = {}
        for cut in (False, True):
            for name, source in (("depth", shaders.DEPTH), ("shadow", shaders.SHADOW)):
                fragment = source.replace("CUT", shaders.CUT if cut else "")
                self._programs[name, cut] = gl.program(shaders.VERTEX, fragment)
        self._sky = gl.program(shaders.SCREEN, shaders.SKY)
        self._picture = gl.program(shaders.SCREEN, shaders.PICTURE)
        corners = gl.buffer(np.array([[-1, -1], [3, -1], [-1, 3]], "<f4"))
        self._sky_quad = gl.vertex_array(self._sky, [(corners, "2f", "in_corner")])
        self._picture_quad = gl.vertex_array(self._picture, [(corners, "2f", "in_corner")])
        self._targets: dict[HW, _Targets] = {}
        self._shadow_maps = [_shadow_map(gl, quality.shadow_px) for _ in range(2)]
        self._shadow_clip: list[np.ndarray] = []
        self._bank: Any = None
        self._bank_seed = -1
        self._scene: Scene | None = None
        self._arrays: dict[tuple[str, bool], Any] = {}
        self._buffers: list[Any] = []
        self._indices: list[Any] = []

    def __enter__(self) -> Renderer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give the context back."""
        self._gl.release()

    def render(self, scene: Scene, camera: Camera, cam_from_world: np.ndarray) -> View:
        """The picture that `camera` (without distortion) takes from `cam_from_world` (4, 4)."""
        self._use(scene)
        targets = self._target(camera.hw)
        clip = clip_from_cam(camera) @ cam_from_world
        counts = self._choose(scene.mesh, clip, cam_from_world)
        depth = self._render_depth(targets, clip, cam_from_world, counts)
        self._render_colour(scene, targets, clip, cam_from_world, counts)
        return View(self._render_picture(scene, targets, camera), depth)

    def render_depth(self, scene: Scene, camera: Camera, cam_from_world: np.ndarray) -> np.ndarray:
        """Only the depth (H, W) float32."""
        self._use(scene)
        clip = clip_from_cam(camera) @ cam_from_world
        counts = self._choose(scene.mesh, clip, cam_from_world)
        return self._render_depth(self._target(camera.hw), clip, cam_from_world, counts)

    # ------------------------------------------------------------------------------- what is uploaded

    def _use(self, scene: Scene) -> None:
        """Upload `scene` and its textures unless they are there, and draw its shadows."""
        if scene is self._scene:
            return
        if scene.bank_seed != self._bank_seed:
            self._upload_bank(scene.bank_seed)
        for buffer in self._buffers:
            buffer.release()
        gl, mesh = self._gl, scene.mesh
        vertices = gl.buffer(mesh.vertices)
        self._indices = [gl.buffer(reserve=max(12, part.nbytes), dynamic=True) for part in (mesh.opaque, mesh.cutout)]
        self._arrays = {}
        look = self._look(scene)
        programs = {("surface", cut): self._programs[look, cut] for cut in (False, True)}
        programs |= {(name, cut): self._programs[name, cut] for name in ("depth", "shadow") for cut in (False, True)}
        for (name, cut), program in programs.items():
            # The compiler drops attributes that a program makes no use of; their bytes are stepped over.
            layout = " ".join(form if key in program else skip for key, form, skip in _ATTRIBUTES)
            used = [key for key, _, _ in _ATTRIBUTES if key in program]
            self._arrays[name, cut] = gl.vertex_array(program, [(vertices, layout, *used)], self._indices[cut])
        self._buffers = [*self._arrays.values(), vertices, *self._indices]
        self._scene = scene
        self._draw_shadows(scene)

    def _look(self, scene: Scene) -> str:
        """Name of the programs that shade `scene`, which are made when they are first needed."""
        shadows, lamps, indoor = len(scene.light.shadow), len(scene.light.lamps), scene.kind is SceneKind.ROOM
        name = f"{scene.kind} {shadows} {lamps}"
        for cut in (False, True):
            if (name, cut) not in self._programs:
                source = shaders.surface(cut, indoor, shadows, lamps, self.quality.shadow_taps, self.quality.bump)
                self._programs[name, cut] = self._gl.program(shaders.VERTEX, source)
        return name

    def _upload_bank(self, seed: int) -> None:
        if self._bank is not None:
            self._bank.release()
        pixels = TextureBank(seed, self.quality.texture_px).pixels
        layers, height, width, _ = pixels.shape
        self._bank = self._gl.texture_array((width, height, layers), 4, pixels)
        self._bank.build_mipmaps()
        self._bank.filter = (self._gl.LINEAR_MIPMAP_LINEAR, self._gl.LINEAR)
        self._bank_seed = seed

    def _target(self, hw: HW) -> _Targets:
        if hw not in self._targets:
            self._targets[hw] = _Targets(self._gl, hw, self.quality.supersampling)
        return self._targets[hw]

    # ----------------------------------------------------------------------------------------- passes

    def _choose(self, mesh: Mesh, clip: np.ndarray, cam_from_world: np.ndarray) -> list[int]:
        """Write the triangles of parts in view to the index buffers, nearest first; how many indices there are."""
        order = visible_parts(mesh.bounds, clip, cam_from_world)
        counts = []
        for buffer, triangles, start in zip(
            self._indices, (mesh.opaque, mesh.cutout), (mesh.opaque_start, mesh.cutout_start), strict=True
        ):
            chosen = [triangles[start[i] : start[i + 1]] for i in order if start[i + 1] > start[i]]
            joined = np.concatenate(chosen) if chosen else triangles[:0]
            if len(joined):
                buffer.write(joined)
            counts.append(3 * len(joined))
        return counts

    def _draw(self, name: str, counts: list[int], clip: np.ndarray, cam_from_world: np.ndarray) -> None:
        self._bank.use(0)
        for cut, count in zip((False, True), counts, strict=True):
            if count:
                array = self._arrays[name, cut]
                _set(array.program, "clip_from_world", clip.T)
                _set(array.program, "cam_from_world", cam_from_world.T)
                array.render(vertices=count)

    def _draw_shadows(self, scene: Scene) -> None:
        self._shadow_clip = [shadow_clip(light) for light in scene.light.shadow]
        for (_, buffer), clip in zip(self._shadow_maps, self._shadow_clip, strict=False):
            buffer.use()
            buffer.clear()
            self._gl.enable_only(self._gl.DEPTH_TEST)
            self._draw("shadow", self._choose(scene.mesh, clip, np.eye(4)), clip, np.eye(4))

    def _render_depth(
        self, targets: _Targets, clip: np.ndarray, cam_from_world: np.ndarray, counts: list[int]
    ) -> np.ndarray:
        targets.depth.use()
        targets.depth.clear()
        self._gl.enable_only(self._gl.DEPTH_TEST)
        self._draw("depth", counts, clip, cam_from_world)
        return np.frombuffer(targets.depth.read(components=1, dtype="f4"), np.float32).reshape(targets.hw).copy()

    def _render_colour(
        self, scene: Scene, targets: _Targets, clip: np.ndarray, cam_from_world: np.ndarray, counts: list[int]
    ) -> None:
        gl = self._gl
        targets.colour.use()
        targets.colour.clear(depth=1.0)
        gl.enable_only(gl.DEPTH_TEST)
        for unit, (texture, _) in enumerate(self._shadow_maps, start=1):
            texture.use(unit)
        uniforms = self._light_uniforms(scene) | {"eye": -cam_from_world[:3, :3].T @ cam_from_world[:3, 3]}
        # The way of the ray through (x, y) of clip space: the camera's own matrix without its last column.
        uniforms["world_from_clip"] = np.linalg.inv(clip[[0, 1, 3], :3]).T
        look = self._look(scene)
        for program in (self._programs[look, False], self._programs[look, True], self._sky):
            for name, value in uniforms.items():
                _set(program, name, value)
            for name, unit in (("bank", 0), ("shadow0", 1), ("shadow1", 2)):
                if name in program:
                    program[name].value = unit
        self._draw("surface", counts, clip, cam_from_world)
        gl.depth_func = "<="
        self._sky_quad.render()
        gl.depth_func = "<"

    def _light_uniforms(self, scene: Scene) -> dict[str, np.ndarray]:
        light, quality = scene.light, self.quality
        dark = 2 - len(light.shadow)
        sun = next((s.at for s in light.shadow if s.sun), np.array([0.0, 0.0, 1.0]))
        blur = [max(s.soft_m / max(s.extent_m, 1e-3) / 2, 0.7 / quality.shadow_px) for s in light.shadow]
        out = {
            "shadow_from_world": np.stack([*[m.T for m in self._shadow_clip], *[np.eye(4)] * dark]),
            "light_at": np.array([[*s.at, 0.0 if s.sun else 1.0] for s in light.shadow] + [[0.0] * 4] * dark),
            "light_colour": np.array([list(s.colour) for s in light.shadow] + [[0.0] * 3] * dark),
            "shadow_soft": np.array(blur + [0.0] * dark),
            "lamp_at": np.array([[*s.at, s.soft_m2] for s in light.lamps] + [[0.0] * 4] * (3 - len(light.lamps))),
            "lamp_colour": np.array([list(s.colour) for s in light.lamps] + [[0.0] * 3] * (3 - len(light.lamps))),
            "sun_way": sun / np.linalg.norm(sun),
            "ground": light.ambient_down,
            "macro_layer": np.array(float(MACRO)),
            "macro_m": np.array(scene.macro_m),
        }
        for name in ("ambient_up", "ambient_down", "zenith", "horizon", "sun_glow", "haze_m", "cloud"):
            out[name] = np.asarray(getattr(light, name))
        return out

    def _render_picture(self, scene: Scene, targets: _Targets, camera: Camera) -> np.ndarray:
        gl, program = self._gl, self._picture
        targets.picture.use()
        gl.enable_only(gl.NOTHING)
        targets.linear.use(0)
        targets.depth_map.use(1)
        program["linear"].value, program["depth_map"].value = 0, 1
        program["pairs"].value = self.quality.hollow_pairs
        program["focal_px"].value = camera.fx
        program["reach_m"].value = 0.25 if scene.kind is SceneKind.ROOM else 0.6
        program["strength"].value = 0.85
        program["exposure"].value, program["contrast"].value = scene.light.exposure, scene.light.contrast
        program["size"].value = (camera.hw[1], camera.hw[0])
        self._picture_quad.render()
        pixels = targets.picture.read(components=3, alignment=1)
        return np.frombuffer(pixels, np.uint8).reshape(*targets.hw, 3).copy()


class _Targets:
    """Framebuffers for images of one size."""

    def __init__(self, gl: Any, hw: HW, factor: float) -> None:
        self.hw = hw
        size, large = (hw[1], hw[0]), (round(hw[1] * factor), round(hw[0] * factor))
        self.depth_map = gl.texture(size, 1, dtype="f4")
        self.depth = gl.framebuffer([self.depth_map], gl.depth_renderbuffer(size))
        self.linear = gl.texture(large, 4, dtype="f2")
        self.linear.repeat_x = self.linear.repeat_y = False
        self.colour = gl.framebuffer([self.linear], gl.depth_renderbuffer(large))
        self.picture = gl.framebuffer([gl.texture(size, 4)])


def _context() -> Any:
    try:
        import moderngl
    except ImportError as error:
        raise NoContextError("rendering needs one more package: pip install moderngl") from error
    try:
        settings: dict[str, Any] = {"require": 330, "standalone": True, "backend": "egl"}
        return moderngl.create_context(**settings)
    # Whatever the driver's loader raises, the way out is the same.
    except Exception as error:
        message = f"no OpenGL 3.3 context by EGL ({error}); on Debian: apt-get install libegl1 libgl1-mesa-dri"
        raise NoContextError(message) from error


def _shadow_map(gl: Any, side: int) -> tuple[Any, Any]:
    texture = gl.depth_texture((side, side))
    texture.compare_func = "<="
    texture.filter = (gl.LINEAR, gl.LINEAR)
    texture.repeat_x = texture.repeat_y = False
    return texture, gl.framebuffer(depth_attachment=texture)


def _set(program: Any, name: str, value: np.ndarray) -> None:
    """Set a uniform of floats; the compiler drops those, and ends of arrays, that a program makes no use of."""
    if name in program:
        uniform = program[name]
        used = value[: uniform.array_length] if uniform.array_length > 1 or name in _ARRAYS else value
        uniform.write(np.ascontiguousarray(used, np.float32).tobytes())
