"""GLSL of the renderer: surfaces, depth, shadow, sky, and the pass that makes the picture."""

from __future__ import annotations

VERTEX = """
#version 330
uniform mat4 clip_from_world;
uniform mat4 cam_from_world;
in vec3 in_position; in vec2 in_uv; in vec4 in_normal; in vec4 in_tint; in float in_layer;
out vec3 position; out vec3 uvl; out vec4 normal_gloss; out vec4 tint_glow; out float depth_m;
void main() {
    position = in_position; uvl = vec3(in_uv, in_layer);
    normal_gloss = vec4((in_normal.xyz * 255.0 - 128.0) / 127.0, in_normal.w); tint_glow = in_tint;
    depth_m = (cam_from_world * vec4(in_position, 1.0)).z;
    gl_Position = clip_from_world * vec4(in_position, 1.0);
}
"""

CUT = "if (texture(bank, uvl).a < 0.4) discard;"

DEPTH = """
#version 330
uniform sampler2DArray bank;
in vec3 uvl; in float depth_m;
out float value;
void main() { CUT value = depth_m; }
"""
"""Camera z of what the pixel's centre sees."""

SHADOW = """
#version 330
uniform sampler2DArray bank;
in vec3 uvl;
void main() { CUT }
"""

SKY_FUNCTION = """
uniform vec3 zenith; uniform vec3 horizon; uniform vec3 sun_way; uniform vec3 sun_glow; uniform vec3 ground;
uniform vec4 cloud;  // cover, brightness, offset x, offset y
vec3 sky(vec3 way) {
    float up = max(way.z, 0.0);
    vec3 colour = mix(horizon, zenith, sqrt(up));
    float toward = max(dot(way, sun_way), 0.0);
    toward *= toward * toward;
    colour += sun_glow * (0.25 * toward * toward);
    return way.z < 0.0 ? mix(horizon, ground, clamp(-6.0 * way.z, 0.0, 1.0)) : colour;
}
"""

SURFACE = (
    """
#version 330
uniform sampler2DArray bank;
uniform sampler2DShadow shadow0; uniform sampler2DShadow shadow1;
uniform mat4 shadow_from_world[2];
uniform vec4 light_at[2];      // xyz: way to the light (w = 0) or where it is (w = 1)
uniform vec3 light_colour[2];
uniform float shadow_soft[2];  // radius of the blur, in parts of the map
uniform vec4 lamp_at[3];       // xyz, and the radius that it is soft over
uniform vec3 lamp_colour[3];
uniform vec3 ambient_up; uniform vec3 ambient_down;
uniform vec3 eye; uniform float haze_m; uniform float macro_layer; uniform float macro_m;
in vec3 position; in vec3 uvl; in vec4 normal_gloss; in vec4 tint_glow; in float depth_m;
out vec4 colour;
"""
    + SKY_FUNCTION
    + """
float lit(sampler2DShadow map, vec4 p, float soft) {
    vec3 q = p.xyz / p.w * 0.5 + 0.5;
    if (any(lessThan(q, vec3(0.0))) || any(greaterThan(q, vec3(1.0)))) return 1.0;
#if TAPS == 1
    return texture(map, q);
#else
    float a = texture(map, q + vec3(0.9, 0.3, 0.0) * soft) + texture(map, q + vec3(-0.3, 0.9, 0.0) * soft)
        + texture(map, q + vec3(-0.9, -0.3, 0.0) * soft) + texture(map, q + vec3(0.3, -0.9, 0.0) * soft);
    return 0.25 * a;
#endif
}
vec3 direct(int i, float shade, vec3 n, vec3 v, float gloss, inout vec3 shine) {
    vec3 l = light_at[i].xyz - light_at[i].w * position;
    float falloff = light_at[i].w > 0.0 ? 1.0 / (0.3 + dot(l, l)) : 1.0;
    l = normalize(l);
    float s = max(dot(n, normalize(l + v)), 0.0);
    float s8 = s * s; s8 *= s8; s8 *= s8;
    float s32 = s8 * s8; s32 *= s32;
    float s128 = s32 * s32; s128 *= s128;
    shine += light_colour[i] * falloff * shade * gloss * (0.15 * s8 * s8 * s8 + 2.0 * gloss * s128);
    return light_colour[i] * falloff * max(dot(n, l), 0.0) * shade;
}
void main() {
    vec4 texel = texture(bank, uvl, -0.7);
    CUT_SURFACE
    vec3 albedo = texel.rgb * texel.rgb * tint_glow.rgb * tint_glow.rgb;
    vec3 v = normalize(eye - position);
    vec3 n = normalize(normal_gloss.xyz);
    if (dot(n, v) < 0.0) n = -n;
    float gloss = normal_gloss.w;
    // Stains larger than the texture, so that it does not show where it repeats.
    vec2 spot = abs(n.z) > 0.7 ? position.xy : vec2(position.x + position.y, position.z);
    float stain = texture(bank, vec3(spot / macro_m, macro_layer)).r;
    albedo *= gloss > 0.5 ? 1.0 : 0.8 + 0.4 * stain;
#if BUMP == 1
    {  // relief from how the height changes over the screen (Mikkelsen 2010)
        vec3 px = dFdx(position), py = dFdy(position);
        vec3 rx = cross(py, n), ry = cross(n, px);
        float det = dot(px, rx);
        float h = BUMP_HEIGHT;
        vec3 gradient = sign(det) * (dFdx(h) * rx + dFdy(h) * ry);
        n = normalize(abs(det) * n - gradient + 1e-12);
    }
#endif
    vec3 shine = vec3(0.0);
    vec4 lifted = vec4(position + n * LIFT, 1.0);
    vec3 sum = vec3(0.0);
#if SHADOWS > 0
    sum += direct(0, lit(shadow0, shadow_from_world[0] * lifted, shadow_soft[0]), n, v, gloss, shine);
#endif
#if SHADOWS > 1
    sum += direct(1, lit(shadow1, shadow_from_world[1] * lifted, shadow_soft[1]), n, v, gloss, shine);
#endif
    vec3 soft = mix(ambient_down, ambient_up, 0.5 + 0.5 * n.z);
    for (int i = 0; i < LAMPS; ++i) {
        vec3 l = lamp_at[i].xyz - position;
        float d2 = dot(l, l);
        soft += lamp_colour[i] * max(0.35 + 0.65 * dot(n, l) * inversesqrt(d2), 0.0) / (lamp_at[i].w + d2);
    }
    CUT_LIGHT
    vec3 from_light = albedo * sum + shine;
    vec3 from_around = albedo * soft;
#if HOLES == 0
    {
        vec3 r = reflect(-v, n);
        float edge = 1.0 - max(dot(n, v), 0.0), edge2 = edge * edge;
        float fresnel = gloss * (0.06 + 0.94 * edge2 * edge2 * edge) + 0.35 * max(gloss - 0.6, 0.0);
        float rough = texture(bank, vec3(r.xy / (abs(r.z) + 0.4) * 0.35, macro_layer)).r;
        from_around = mix(from_around, MIRROR * (0.5 + rough), clamp(fresnel, 0.0, 1.0));
    }
#endif
    from_light += albedo * tint_glow.a * 8.0;
    vec3 all = from_light + from_around;
    float around = from_around.g / max(all.g, 1e-4);
    float haze = 1.0 - exp(-depth_m / haze_m);
    colour = vec4(mix(all, horizon, haze), around * (1.0 - haze));
}
"""
)

SCREEN = """
#version 330
in vec2 in_corner;
out vec2 at;
void main() { at = in_corner; gl_Position = vec4(in_corner, 1.0, 1.0); }
"""

SKY = (
    """
#version 330
uniform sampler2DArray bank; uniform float macro_layer;
uniform mat3 world_from_clip;  // from (x, y, 1) of clip space to the way of the ray
in vec2 at;
out vec4 colour;
"""
    + SKY_FUNCTION
    + """
void main() {
    vec3 way = normalize(world_from_clip * vec3(at, 1.0));
    vec3 c = sky(way);
    if (way.z > 0.01) {
        vec2 p = way.xy / (way.z + 0.15) * 0.16 + cloud.zw;
        float n = 0.65 * textureLod(bank, vec3(p, macro_layer), 0.0).r
            + 0.35 * textureLod(bank, vec3(p * 3.1, macro_layer), 0.0).r;
        float cover = smoothstep(1.0 - cloud.x, 1.25 - cloud.x, n) * smoothstep(0.0, 0.15, way.z);
        c = mix(c, vec3(cloud.y) * (1.25 - 0.6 * n), 0.85 * cover);
        c += sun_glow * 20.0 * smoothstep(0.9994, 0.9998, dot(way, sun_way)) * (1.0 - cover);
    }
    colour = vec4(c, 0.0);
}
"""
)

PICTURE = """
#version 330
uniform sampler2D linear; uniform sampler2D depth_map;
uniform float focal_px; uniform float reach_m; uniform float strength; uniform float exposure; uniform float contrast;
uniform int pairs; uniform vec2 size;
in vec2 at;
out vec4 colour;
void main() {
    ivec2 pixel = ivec2(gl_FragCoord.xy);
    vec4 mean = vec4(0.0);
    for (int i = 0; i < 4; ++i) {
        // At twice the size these are the centres of the four pixels that make this one.
        vec2 o = vec2(i % 2, i / 2) * 0.5 + 0.25;
        vec4 c = texture(linear, (vec2(pixel) + o) / size);
        mean += 0.25 * vec4(min(c.rgb, vec3(8.0)), c.a);
    }
    float z = texelFetch(depth_map, pixel, 0).r;
    float closed = 0.0;
    if (z > 0.0 && pairs > 0) {
        // On a plane, inverse depth is linear over the picture: what opposite neighbours exceed it by is a hollow.
        float turn = 6.2832 * fract(52.98 * fract(dot(vec2(pixel), vec2(0.0671, 0.00584))));
        float radius = clamp(focal_px * reach_m / z, 1.5, 0.12 * size.x);
        for (int i = 0; i < pairs; ++i) {
            float a = turn + 3.14159 * float(i) / float(pairs);
            vec2 o = radius * (0.25 + 0.75 * (float(i) + 0.5) / float(pairs)) * vec2(cos(a * 3.0), sin(a * 3.0));
            ivec2 limit = ivec2(size) - 1;
            float z1 = texelFetch(depth_map, clamp(pixel + ivec2(o), ivec2(0), limit), 0).r;
            float z2 = texelFetch(depth_map, clamp(pixel - ivec2(o), ivec2(0), limit), 0).r;
            float near1 = z1 > 0.0 ? clamp((z / z1 - 1.0) * z, -reach_m, reach_m) : -reach_m;
            float near2 = z2 > 0.0 ? clamp((z / z2 - 1.0) * z, -reach_m, reach_m) : -reach_m;
            closed += max(near1 + near2, 0.0) / reach_m;
        }
        closed = clamp(closed / float(pairs), 0.0, 1.0);
    }
    vec3 c = mean.rgb * exposure * (1.0 - strength * closed * (0.3 + 0.7 * mean.a));
    c = pow(c, vec3(contrast));
    c = c * (2.51 * c + 0.03) / (c * (2.43 * c + 0.59) + 0.14);
    colour = vec4(pow(clamp(c, 0.0, 1.0), vec3(1.0 / 2.2)), 1.0);
}
"""


def surface(holes: bool, indoor: bool, shadows: int, lamps: int, taps: int, bump: bool) -> str:
    """The shader of surfaces.

    What does not depend on the pixel is chosen here and not by branches: a software rasteriser runs every branch.
    """
    source = SURFACE.replace("CUT_SURFACE", "if (texel.a < 0.4) discard;" if holes else "")
    # Leaves let light through: what shines on their back is seen on their front.
    source = source.replace("CUT_LIGHT", "sum = 0.75 * sum + 0.25 * light_colour[0] * 0.4;" if holes else "")
    source = source.replace("LIFT", "0.015" if indoor else "0.06")
    source = source.replace("BUMP_HEIGHT", "dot(texel.rgb, vec3(0.33)) * 0.02")
    source = source.replace("MIRROR", "(ambient_up + 0.6 * vec3(max(r.z, 0.0)))" if indoor else "sky(r)")
    chosen = {"SHADOWS": shadows, "LAMPS": lamps, "TAPS": taps, "BUMP": int(bump), "HOLES": int(holes)}
    lines = "".join(f"#define {name} {value}\n" for name, value in chosen.items())
    return source.replace("#version 330\n", "#version 330\n" + lines, 1)
