"""The shaders. `splats` projects and blends Gaussians into a picture of their own, `composite` lays that over a view.

The projection is that of `backend.splatting.cpu_project` (EWA splatting, Zwicker et al. 2001, with the conventions of
gsplat 1.5.3), in OpenGL's axes: the view looks along -z, pixels count upwards. An orthographic view has no perspective
in its Jacobian, and nothing else changes.
"""

from __future__ import annotations

from typing import Final

import gpu

WIDTH: Final = 1024
"""Texels in a row of the splats' texture and of the order's."""

_CONSTANTS: Final = (
    ("NEAR", "0.01"),
    ("MARGIN", "0.3"),
    ("LOW_PASS", "0.3"),
    ("ALPHA_MIN", "(1.0 / 255.0)"),
    ("ALPHA_MAX", "0.999"),
    ("ELLIPSOIDS", "1"),
    ("POINTS", "2"),
    ("DEPTH", "3"),
    ("POINT_SIZE", "1.5"),
)
"""Those of `backend.splatting.reference`; the places of `splats.KINDS`; pixels; metres."""

_VERTEX: Final = """
void main()
{
  int index = int(texelFetch(order, ivec2(gl_InstanceID & 1023, gl_InstanceID >> 10), 0).r);
  ivec2 at = ivec2((index & 255) * 4, index >> 8);
  vec4 a = texelFetch(numbers, at, 0);
  vec4 b = texelFetch(numbers, at + ivec2(1, 0), 0);
  vec4 c = texelFetch(numbers, at + ivec2(2, 0), 0);
  vec4 d = texelFetch(numbers, at + ivec2(3, 0), 0);
  vec3 mean = (view * vec4(a.xyz, 1.0)).xyz;
  float z = -mean.z;
  bool flat_view = lens_kind.z > 0.5;
  bool drawn = flat_view || z >= NEAR;

  /* The rows of the Jacobian, in view space, then in the splats' own axes. */
  float share = flat_view ? 1.0 : 1.0 / max(z, NEAR);
  vec2 slope = mean.xy * share;
  vec2 spread = 0.5 * MARGIN * size;
  vec2 bent = flat_view ? vec2(0.0) : clamp(slope, (-lens.zw - spread) / lens.xy, (size - lens.zw + spread) / lens.xy);
  vec3 across = vec3(share, 0.0, bent.x * share) * lens.x * mat3(view);
  vec3 upward = vec3(0.0, share, bent.y * share) * lens.y * mat3(view);
  vec3 moved = vec3(dot(across, b.xyz), dot(across, vec3(b.y, b.w, c.x)), dot(across, vec3(b.z, c.x, c.y)));
  float xx = dot(moved, across) + LOW_PASS;
  float xy = dot(moved, upward);
  float yy = dot(upward, vec3(dot(upward, b.xyz), dot(upward, vec3(b.y, b.w, c.x)), dot(upward, vec3(b.z, c.x, c.y))))
             + LOW_PASS;

  int how = int(d.y);
  if (how == POINTS) {
    xx = yy = POINT_SIZE * POINT_SIZE;
    xy = 0.0;
  }
  /* The ellipse's axes, and along them a box as large as the falloff is visible. */
  float middle = 0.5 * (xx + yy);
  float apart = length(vec2(0.5 * (xx - yy), xy));
  float major = middle + apart;
  float minor = max((xx * yy - xy * xy) / major, 0.5 * LOW_PASS);
  vec2 along = xx >= yy ? vec2(major - yy, xy) : vec2(xy, major - xx);
  along = apart > 1e-6 * middle ? normalize(along) : vec2(1.0, 0.0);
  float reach = how == POINTS || how == ELLIPSOIDS ? 1.0 : sqrt(2.0 * log(a.w / ALPHA_MIN));
  place = corner * reach;
  vec2 offset = along * (place.x * sqrt(major)) + vec2(-along.y, along.x) * (place.y * sqrt(minor));
  vec2 pixel = slope * lens.xy + lens.zw + offset;
  gl_Position = drawn ? vec4((pixel - window.xy) / window.zw * 2.0 - 1.0, 0.0, 1.0) : vec4(2.0, 2.0, 2.0, 1.0);

  tint = vec4(c.zw, d.x, a.w);
  distance_and_kind = vec2(z, d.y);
  if (how == DEPTH) {
    tint.rgb = vec3(mix(0.95, 0.05, clamp((z - lens_kind.x) / (lens_kind.y - lens_kind.x), 0.0, 1.0)));
  }
}
"""

_FRAGMENT: Final = """
void main()
{
  int how = int(distance_and_kind.y);
  float square = dot(place, place);
  float alpha;
  vec3 shade = tint.rgb;
  if (how == POINTS || how == ELLIPSOIDS) {
    if (square > 1.0) {
      discard;
    }
    alpha = 1.0;
    shade *= how == ELLIPSOIDS ? 0.35 + 0.65 * sqrt(1.0 - square) : 1.0;
  }
  else {
    alpha = min(tint.a * exp(-0.5 * square), ALPHA_MAX);
    if (alpha < ALPHA_MIN) {
      discard;
    }
  }
  color = vec4(shade * alpha, alpha);
  depth = vec4(distance_and_kind.x * alpha, 0.0, 0.0, alpha);
}
"""

_COMPOSITE_VERTEX: Final = """
void main()
{
  gl_Position = vec4(target.xy + corner * target.zw, 0.0, 1.0);
}
"""

_MESH_VERTEX: Final = """
void main()
{
  gl_Position = placed * vec4(pos, 1.0);
  distance_along = dot(axis, vec4(pos, 1.0));
}
"""

_MESH_FRAGMENT: Final = """
void main()
{
  depth = vec4(distance_along);
}
"""

_COMPOSITE_FRAGMENT: Final = """
vec3 linear(vec3 encoded)
{
  return mix(encoded / 12.92, pow((encoded + 0.055) / 1.055, vec3(2.4)), step(0.04045, encoded));
}

void main()
{
  vec2 at = gl_FragCoord.xy - origin.xy;
  ivec2 texel = ivec2(floor(at / origin.z));
  vec4 found = texelFetch(picture, texel, 0);
  if (origin.z > 1.0) {
    /* A coarse picture is filled in between its pixels. */
    vec2 between = at / origin.z - 0.5;
    ivec2 first = ivec2(floor(between));
    ivec2 last = textureSize(picture, 0) - 1;
    vec2 share = between - vec2(first);
    vec4 lower = mix(texelFetch(picture, clamp(first, ivec2(0), last), 0),
                     texelFetch(picture, clamp(first + ivec2(1, 0), ivec2(0), last), 0), share.x);
    vec4 upper = mix(texelFetch(picture, clamp(first + ivec2(0, 1), ivec2(0), last), 0),
                     texelFetch(picture, clamp(first + ivec2(1, 1), ivec2(0), last), 0), share.x);
    vec4 filled = mix(lower, upper, share.y);
    found = found.a < ALPHA_MIN ? found : filled;
  }
  if (found.a < ALPHA_MIN) {
    discard;
  }
  /* Where the rig's own mesh is nearer than its splats, what Blender drew of it is not to hide them. */
  float z = min(texelFetch(depths, texel, 0).r / texelFetch(picture, texel, 0).a,
                texelFetch(mesh_depths, texel, 0).r - MESH_NEARER);
  gl_FragDepth = 0.5 + 0.5 * (projection.y - projection.x * z) / (projection.z > 0.5 ? 1.0 : z);
  vec3 shade = clamp(found.rgb / found.a, 0.0, 1.0);
  if (projection.w < 0.5) {
    color = vec4(shade * found.a, found.a);
    return;
  }
  /* The view's buffer is encoded as sRGB when it is written to, and Blender mixes it with what lies behind in linear
     values, where splats were trained to be mixed in encoded ones. Opaque pixels are the picture's own; of the others the
     cover is changed, so that before the view's plain ground the mixture is what encoded values give. */
  vec3 behind = linear(ground);
  vec3 light = linear(shade);
  vec3 apart = light - behind;
  float size = dot(apart, apart);
  vec3 wanted = linear(mix(ground, shade, found.a)) - behind;
  float cover = size > 1e-6 ? clamp(dot(wanted, apart) / size, 0.0, 1.0) : found.a;
  color = vec4(light * cover, cover);
}
"""


def splat_shader() -> gpu.types.GPUShader:
    info = gpu.types.GPUShaderCreateInfo()
    between = gpu.types.GPUStageInterfaceInfo("effigy_splat")
    between.smooth("VEC2", "place")
    between.flat("VEC4", "tint")
    between.flat("VEC2", "distance_and_kind")
    for kind, name in (("MAT4", "view"), ("VEC4", "lens"), ("VEC4", "window"), ("VEC4", "lens_kind"), ("VEC2", "size")):
        info.push_constant(kind, name)
    info.sampler(0, "FLOAT_2D", "numbers")
    info.sampler(1, "FLOAT_2D", "order")
    info.vertex_in(0, "VEC2", "corner")
    info.vertex_out(between)
    info.fragment_out(0, "VEC4", "color")
    info.fragment_out(1, "VEC4", "depth")
    for name, value in _CONSTANTS:
        info.define(name, value)
    info.vertex_source(_VERTEX)
    info.fragment_source(_FRAGMENT)
    return gpu.shader.create_from_info(info)


def composite_shader() -> gpu.types.GPUShader:
    info = gpu.types.GPUShaderCreateInfo()
    for kind, name in (("VEC4", "target"), ("VEC4", "projection"), ("VEC3", "origin"), ("VEC3", "ground")):
        info.push_constant(kind, name)
    info.sampler(0, "FLOAT_2D", "picture")
    info.sampler(1, "FLOAT_2D", "depths")
    info.sampler(2, "FLOAT_2D", "mesh_depths")
    info.vertex_in(0, "VEC2", "corner")
    info.fragment_out(0, "VEC4", "color")
    info.define("ALPHA_MIN", "(1.0 / 255.0)")
    info.define("MESH_NEARER", "0.003")
    if hasattr(info, "depth_write"):
        info.depth_write("ANY")
    else:
        # Before Blender 5, shaders made in Python are declared to leave the depth as it is; the declaration is a word
        # that the preprocessor can still change.
        info.define("depth_unchanged", "depth_any")
    info.vertex_source(_COMPOSITE_VERTEX)
    info.fragment_source(_COMPOSITE_FRAGMENT)
    return gpu.shader.create_from_info(info)


def mesh_shader() -> gpu.types.GPUShader:
    """How far a mesh is from the eye, along the view's axis."""
    info = gpu.types.GPUShaderCreateInfo()
    between = gpu.types.GPUStageInterfaceInfo("effigy_mesh")
    between.smooth("FLOAT", "distance_along")
    info.push_constant("MAT4", "placed")
    info.push_constant("VEC4", "axis")
    info.vertex_in(0, "VEC3", "pos")
    info.vertex_out(between)
    info.fragment_out(0, "VEC4", "depth")
    info.vertex_source(_MESH_VERTEX)
    info.fragment_source(_MESH_FRAGMENT)
    return gpu.shader.create_from_info(info)
