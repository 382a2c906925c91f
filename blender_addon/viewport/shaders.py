"""The shaders. `splat_shader` projects and blends Gaussians into an off-screen framebuffer, `composite_shader`
composites that framebuffer over a view, `mesh_shader` draws the depths of the rigs' meshes.

The projection is that of `backend.splatting.cpu_project` (EWA splatting, Zwicker et al. 2001, with the conventions of
gsplat 1.5.3), in OpenGL's axes: the view looks along -Z and pixels count upwards. For an orthographic view only the
Jacobian differs: it has no perspective terms.

Blender compiles the same text as GLSL for OpenGL and Vulkan, and as C++ for Metal. So vector functions get vectors in
every argument, a matrix is built from columns, no name is that of a built-in function, and push constants stay within
the 128 bytes that Vulkan guarantees.
"""

# fake-bpy-module 5.0 declares the types of `gpu` without constructors and its context managers as None.
# pyright: reportCallIssue=false, reportGeneralTypeIssues=false
from __future__ import annotations

from typing import Final

import gpu

TEXTURE_WIDTH: Final = 1024
"""Texels in a row of the textures of the splats and of their drawing order."""

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
"""NEAR (metres), MARGIN, LOW_PASS (square pixels), ALPHA_MIN and ALPHA_MAX are those of `backend.splatting.reference`;
ELLIPSOIDS, POINTS and DEPTH are indices in `splats.DRAW_KINDS`; POINT_SIZE is the radius of a point in pixels."""

_VERTEX: Final = """
void main()
{
  int index = int(texelFetch(order, ivec2(gl_InstanceID & 1023, gl_InstanceID >> 10), 0).r);
  ivec2 texel = ivec2((index & 255) * 4, index >> 8);
  vec4 a = texelFetch(splats, texel, 0);
  vec4 b = texelFetch(splats, texel + ivec2(1, 0), 0);
  vec4 c = texelFetch(splats, texel + ivec2(2, 0), 0);
  vec4 d = texelFetch(splats, texel + ivec2(3, 0), 0);
  vec3 mean = (view * vec4(a.xyz, 1.0)).xyz;
  float z = -mean.z;
  /* depth_range: the nearest and the farthest depth, whether the view is orthographic, unused. */
  bool orthographic = depth_range.z > 0.5;
  bool drawn = orthographic || z >= NEAR;

  /* The rows of the Jacobian of the projection, multiplied by the view's rotation. */
  float inverse_depth = orthographic ? 1.0 : 1.0 / max(z, NEAR);
  vec2 slope = mean.xy * inverse_depth;
  vec2 guard_band = 0.5 * MARGIN * size;
  vec2 slope_min = (-intrinsics.zw - guard_band) / intrinsics.xy;
  vec2 slope_max = (size - intrinsics.zw + guard_band) / intrinsics.xy;
  vec2 clamped_slope = orthographic ? vec2(0.0) : clamp(slope, slope_min, slope_max);
  mat3 rotation = mat3(view[0].xyz, view[1].xyz, view[2].xyz);
  vec3 jacobian_x = vec3(inverse_depth, 0.0, clamped_slope.x * inverse_depth) * intrinsics.x * rotation;
  vec3 jacobian_y = vec3(0.0, inverse_depth, clamped_slope.y * inverse_depth) * intrinsics.y * rotation;
  vec3 row_x = b.xyz, row_y = vec3(b.y, b.w, c.x), row_z = vec3(b.z, c.x, c.y);
  vec3 covariance_x = vec3(dot(jacobian_x, row_x), dot(jacobian_x, row_y), dot(jacobian_x, row_z));
  vec3 covariance_y = vec3(dot(jacobian_y, row_x), dot(jacobian_y, row_y), dot(jacobian_y, row_z));
  float xx = dot(covariance_x, jacobian_x) + LOW_PASS;
  float xy = dot(covariance_x, jacobian_y);
  float yy = dot(jacobian_y, covariance_y) + LOW_PASS;

  int kind = int(d.y);
  if (kind == POINTS) {
    xx = yy = POINT_SIZE * POINT_SIZE;
    xy = 0.0;
  }
  /* The ellipse's axes, and the extent in standard deviations up to which it is visible. */
  float half_trace = 0.5 * (xx + yy);
  float half_difference = length(vec2(0.5 * (xx - yy), xy));
  float major = half_trace + half_difference;
  float minor = max((xx * yy - xy * xy) / major, 0.5 * LOW_PASS);
  vec2 major_axis = xx >= yy ? vec2(major - yy, xy) : vec2(xy, major - xx);
  major_axis = half_difference > 1e-6 * half_trace ? normalize(major_axis) : vec2(1.0, 0.0);
  float extent = kind == POINTS || kind == ELLIPSOIDS ? 1.0 : sqrt(2.0 * log(a.w / ALPHA_MIN));
  unit = corner * extent;
  vec2 offset = major_axis * (unit.x * sqrt(major)) + vec2(-major_axis.y, major_axis.x) * (unit.y * sqrt(minor));
  vec2 pixel = slope * intrinsics.xy + intrinsics.zw + offset;
  gl_Position = drawn ? vec4((pixel - window.xy) / window.zw * 2.0 - 1.0, 0.0, 1.0) : vec4(2.0, 2.0, 2.0, 1.0);

  splat_color = vec4(c.zw, d.x, a.w);
  depth_and_kind = vec2(z, d.y);
  if (kind == DEPTH) {
    splat_color.rgb = vec3(mix(0.95, 0.05, clamp((z - depth_range.x) / (depth_range.y - depth_range.x), 0.0, 1.0)));
  }
}
"""

_FRAGMENT: Final = """
void main()
{
  int kind = int(depth_and_kind.y);
  float squared_distance = dot(unit, unit);
  float alpha;
  vec3 shade = splat_color.rgb;
  if (kind == POINTS || kind == ELLIPSOIDS) {
    if (squared_distance > 1.0) {
      discard;
    }
    alpha = 1.0;
    shade *= kind == ELLIPSOIDS ? 0.35 + 0.65 * sqrt(1.0 - squared_distance) : 1.0;
  }
  else {
    alpha = min(splat_color.a * exp(-0.5 * squared_distance), ALPHA_MAX);
    if (alpha < ALPHA_MIN) {
      discard;
    }
  }
  color = vec4(shade * alpha, alpha);
  depth = vec4(depth_and_kind.x * alpha, 0.0, 0.0, alpha);
}
"""

_DEPTH_OF_PIXEL: Final = """
/* The splats' mean depth in a pixel of the splat framebuffer, in normalized device coordinates. */
float device_depth(ivec2 texel, float alpha)
{
  /* Where the rig's own mesh is nearer than its splats, the mesh that Blender drew must not hide them. */
  float z = min(texelFetch(depths, texel, 0).r / alpha, texelFetch(mesh_depths, texel, 0).r - MESH_NEARER);
  return (projection.y - projection.x * z) / (projection.z > 0.5 ? 1.0 : z);
}
"""

_WRITE_DEPTH: Final = """
void write_depth(ivec2 texel)
{
  gl_FragDepth = 0.5 + 0.5 * device_depth(texel, texelFetch(colors, texel, 0).a);
}
"""

_WRITE_NO_DEPTH: Final = """
void write_depth(ivec2 texel) {}
"""

_COMPOSITE_VERTEX: Final = """
void main()
{
  gl_Position = vec4(target.xy + corner * target.zw, 0.0, 1.0);
}
"""

_COMPOSITE_VERTEX_BY_PIXEL: Final = """
void main()
{
  ivec2 size = textureSize(colors, 0);
  int index = int(gl_InstanceID);
  ivec2 texel = ivec2(index % size.x, index / size.x);
  float alpha = texelFetch(colors, texel, 0).a;
  vec2 place = (vec2(texel) + corner) / vec2(size);
  gl_Position = alpha < ALPHA_MIN ? vec4(2.0, 2.0, 2.0, 1.0) :
                                    vec4(target.xy + place * target.zw, device_depth(texel, alpha), 1.0);
}
"""

_MESH_VERTEX: Final = """
void main()
{
  gl_Position = model_view_projection * vec4(pos, 1.0);
  view_depth = dot(axis, vec4(pos, 1.0));
}
"""

_MESH_FRAGMENT: Final = """
void main()
{
  depth = vec4(view_depth);
}
"""

_COMPOSITE_FRAGMENT: Final = """
vec3 to_linear(vec3 encoded)
{
  return mix(encoded / 12.92, pow((encoded + 0.055) / 1.055, vec3(2.4)), step(vec3(0.04045), encoded));
}

void main()
{
  vec2 pixel = gl_FragCoord.xy - origin.xy;
  ivec2 texel = ivec2(floor(pixel / origin.z));
  vec4 found = texelFetch(colors, texel, 0);
  if (origin.z > 1.0) {
    /* A framebuffer of lower resolution is interpolated bilinearly. */
    vec2 position = pixel / origin.z - 0.5;
    ivec2 first = ivec2(floor(position));
    ivec2 last = textureSize(colors, 0) - 1;
    vec2 weight = position - vec2(first);
    vec4 lower = mix(texelFetch(colors, clamp(first, ivec2(0), last), 0),
                     texelFetch(colors, clamp(first + ivec2(1, 0), ivec2(0), last), 0), weight.x);
    vec4 upper = mix(texelFetch(colors, clamp(first + ivec2(0, 1), ivec2(0), last), 0),
                     texelFetch(colors, clamp(first + ivec2(1, 1), ivec2(0), last), 0), weight.x);
    vec4 filled = mix(lower, upper, weight.y);
    found = found.a < ALPHA_MIN ? found : filled;
  }
  if (found.a < ALPHA_MIN) {
    discard;
  }
  write_depth(texel);
  vec3 shade = clamp(found.rgb / found.a, vec3(0.0), vec3(1.0));
  if (projection.w < 0.5) {
    color = vec4(shade * found.a, found.a);
    return;
  }
  /* The view's buffer is encoded as sRGB on writing, and Blender blends it with the scene in linear values, whereas
     splats were trained to be blended in encoded values. Opaque pixels keep their colour. For the others alpha is
     changed so that in front of the view's plain background the result equals that of blending encoded values. */
  vec3 behind = to_linear(background.rgb);
  vec3 foreground = to_linear(shade);
  vec3 difference = foreground - behind;
  float squared_length = dot(difference, difference);
  vec3 desired_difference = to_linear(mix(background.rgb, shade, found.a)) - behind;
  float alpha = squared_length > 1e-6 ? clamp(dot(desired_difference, difference) / squared_length, 0.0, 1.0) : found.a;
  color = vec4(foreground * alpha, alpha);
}
"""


def splat_shader() -> gpu.types.GPUShader:
    """Draws one instance per splat, in the order of the texture `order`: colour and depth, both multiplied by alpha.

    Push constants: `view`, world relative to the splats' origin to view; `intrinsics` fx, fy, cx, cy and `size`, both
    of the whole view; `window`, left, bottom, width and height of the framebuffer in the view, all in pixels;
    `depth_range`, see the vertex shader.
    """
    info = gpu.types.GPUShaderCreateInfo()
    interface = gpu.types.GPUStageInterfaceInfo("effigy_splat")
    interface.smooth("VEC2", "unit")
    interface.flat("VEC4", "splat_color")
    interface.flat("VEC2", "depth_and_kind")
    for kind, name in (
        ("MAT4", "view"),
        ("VEC4", "intrinsics"),
        ("VEC4", "window"),
        ("VEC4", "depth_range"),
        ("VEC2", "size"),
    ):
        info.push_constant(kind, name)
    info.sampler(0, "FLOAT_2D", "splats")
    info.sampler(1, "FLOAT_2D", "order")
    info.vertex_in(0, "VEC2", "corner")
    info.vertex_out(interface)
    info.fragment_out(0, "VEC4", "color")
    info.fragment_out(1, "VEC4", "depth")
    for name, value in _CONSTANTS:
        info.define(name, value)
    info.vertex_source(_VERTEX)
    info.fragment_source(_FRAGMENT)
    return gpu.shader.create_from_info(info)


def depth_in_vertex_shader() -> bool:
    """Whether the composite's depth must come from its vertex shader.

    A fragment shader writes `gl_FragDepth` only where its create-info declares this, by `depth_write` of Blender 5.
    Before Blender 5, shaders made in Python are declared `depth_unchanged`. In OpenGL the preprocessor can replace that
    word; Metal and Vulkan have no such word, and Metal does not compile the shader at all.
    """
    return not hasattr(gpu.types.GPUShaderCreateInfo, "depth_write") and gpu.platform.backend_type_get() != "OPENGL"


def composite_shader(depth_in_vertex: bool) -> gpu.types.GPUShader:
    """Draws a splat framebuffer over the bound framebuffer, and writes the depth of each pixel.

    With `depth_in_vertex` one instance of the rectangle is drawn per pixel of the splat framebuffer, row by row, at
    that pixel's depth. The result is the same; it costs four vertices a pixel.

    Push constants: `target`, left, bottom, width and height in normalized device coordinates; `projection`, the
    elements (2, 2) and (2, 3) of the projection matrix, whether the view is orthographic, and whether the bound
    framebuffer encodes written values as sRGB; `origin`, left and bottom in pixels of the bound framebuffer, the side
    of a splat framebuffer's pixel in these pixels, unused; `background`, an sRGB-encoded colour, unused.
    """
    info = gpu.types.GPUShaderCreateInfo()
    for name in ("target", "projection", "origin", "background"):
        info.push_constant("VEC4", name)
    info.sampler(0, "FLOAT_2D", "colors")
    info.sampler(1, "FLOAT_2D", "depths")
    info.sampler(2, "FLOAT_2D", "mesh_depths")
    info.vertex_in(0, "VEC2", "corner")
    info.fragment_out(0, "VEC4", "color")
    info.define("ALPHA_MIN", "(1.0 / 255.0)")
    # Metres.
    info.define("MESH_NEARER", "0.003")
    if depth_in_vertex:
        info.vertex_source(_DEPTH_OF_PIXEL + _COMPOSITE_VERTEX_BY_PIXEL)
        info.fragment_source(_WRITE_NO_DEPTH + _COMPOSITE_FRAGMENT)
        return gpu.shader.create_from_info(info)
    if hasattr(info, "depth_write"):
        info.depth_write("ANY")
    else:
        info.define("depth_unchanged", "depth_any")
    info.vertex_source(_COMPOSITE_VERTEX)
    info.fragment_source(_DEPTH_OF_PIXEL + _WRITE_DEPTH + _COMPOSITE_FRAGMENT)
    return gpu.shader.create_from_info(info)


def mesh_shader() -> gpu.types.GPUShader:
    """Writes the depth of a mesh along the view's axis, metres. Push constants: `model_view_projection`, from the
    mesh's local space to the splat framebuffer's clip space; `axis`, whose dot product with a homogeneous local
    position is the depth.
    """
    info = gpu.types.GPUShaderCreateInfo()
    interface = gpu.types.GPUStageInterfaceInfo("effigy_mesh")
    interface.smooth("FLOAT", "view_depth")
    info.push_constant("MAT4", "model_view_projection")
    info.push_constant("VEC4", "axis")
    info.vertex_in(0, "VEC3", "pos")
    info.vertex_out(interface)
    info.fragment_out(0, "VEC4", "depth")
    info.vertex_source(_MESH_VERTEX)
    info.fragment_source(_MESH_FRAGMENT)
    return gpu.shader.create_from_info(info)
