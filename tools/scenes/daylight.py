"""Sun, sky and haze."""

from __future__ import annotations

import numpy as np

from tools.scenes.scene import Light, ShadowLight


def daylight(rng: np.random.Generator, target: np.ndarray) -> Light:
    """A random sky: clear, partly cloudy or overcast; shadows for the 60 m about `target` (3,)."""
    overcast = rng.random() < 0.3
    height, way = np.radians(rng.uniform(18, 62)), rng.uniform(0, 2 * np.pi)
    sun = np.array([np.cos(way) * np.cos(height), np.sin(way) * np.cos(height), np.sin(height)])
    warm = np.clip((np.radians(40) - height) / np.radians(25), 0, 1)
    sun_colour = np.array([1.0, 0.93 - 0.12 * warm, 0.84 - 0.3 * warm]) * (0.5 if overcast else rng.uniform(2.4, 4.2))
    sky = np.array([0.42, 0.55, 0.8]) if not overcast else np.array([0.72, 0.76, 0.82])
    level = rng.uniform(0.7, 1.1) * (1.7 if overcast else 0.8)
    horizon = np.array([0.85, 0.92, 1.0]) * (1.25 if overcast else rng.uniform(1.0, 1.9))
    zenith = np.array([0.2, 0.38, 0.8]) * rng.uniform(0.7, 1.1) if not overcast else horizon * rng.uniform(0.65, 0.9)
    return Light(
        shadow=(ShadowLight(sun, True, sun_colour, target, 66.0, 0.05 if not overcast else 0.6),),
        lamps=(),
        ambient_up=sky * level,
        ambient_down=np.array([0.3, 0.27, 0.22]) * level * (0.7 if overcast else 1.0),
        zenith=zenith,
        horizon=horizon,
        sun_glow=np.array([1.0, 0.9, 0.7]) * (0.1 if overcast else 1.0),
        cloud=(float(rng.uniform(0.1, 0.75)), float(rng.uniform(1.0, 1.6)), float(rng.random()), float(rng.random())),
        haze_m=float(rng.uniform(350, 1800)),
        exposure=float(rng.uniform(0.65, 1.1)),
        contrast=float(rng.uniform(0.95, 1.35)),
    )
