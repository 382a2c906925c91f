// Draws Gaussians with WebGL 2: sorted from back to front, each as a rectangle around its ellipse (Zwicker et al. 2001;
// Kerbl et al. 2023), with the conventions of backend/splatting/reference.py.

import { STRIDE } from './poser.js';
import { sortByDepth } from './projection.js';

const TEXELS = STRIDE / 4;
const WIDTH = 1024; // texels in a row of the texture of Gaussians
const NEAR = 0.01;

const VERTEX = `#version 300 es
precision highp float;
precision highp sampler2D;
precision highp usampler2D;
uniform sampler2D gaussians;
uniform usampler2D order;
uniform mat4 view;
uniform vec2 focal;  // pixels
uniform vec2 size;  // pixels
out vec2 offset;
out vec4 colour;
flat out vec3 conic;

vec4 texel(int index, int number) {
  int at = index * ${TEXELS} + number;
  return texelFetch(gaussians, ivec2(at % ${WIDTH}, at / ${WIDTH}), 0);
}

void main() {
  int rank = gl_VertexID >> 2;
  int index = int(texelFetch(order, ivec2(rank % ${WIDTH}, rank / ${WIDTH}), 0).x);
  vec4 a = texel(index, 0), b = texel(index, 1), c = texel(index, 2), d = texel(index, 3);
  vec3 place = (view * vec4(a.xyz, 1.0)).xyz;
  float depth = -place.z;
  gl_Position = vec4(2.0, 2.0, 0.0, 1.0);
  if (depth < ${NEAR}) return;
  mat3 spread = mat3(b.x, b.y, b.z, b.y, b.w, c.x, b.z, c.x, c.y);
  // Slopes of the projection, kept within 1.3 times the field of view.
  vec2 limit = 0.5 * 1.3 * size / focal;
  vec2 slope = clamp(place.xy / depth, -limit, limit);
  mat3 turn = mat3(view);
  vec3 right = transpose(turn) * vec3(focal.x / depth, 0.0, focal.x * slope.x / depth);
  vec3 up = transpose(turn) * vec3(0.0, focal.y / depth, focal.y * slope.y / depth);
  vec3 across = spread * right;
  float xx = dot(right, across) + 0.3, xy = dot(up, across), yy = dot(up, spread * up) + 0.3;
  float determinant = xx * yy - xy * xy;
  conic = vec3(yy, -xy, xx) / determinant;
  // Where the Gaussian falls below 1/255.
  float reach = sqrt(2.0 * log(255.0 * a.w));
  vec2 corner = vec2(gl_VertexID & 1, (gl_VertexID >> 1) & 1) * 2.0 - 1.0;
  offset = corner * ceil(reach * sqrt(vec2(xx, yy)));
  colour = vec4(c.zw, d.x, a.w);
  gl_Position = vec4((place.xy / depth * focal + offset) / (0.5 * size), 0.0, 1.0);
}`;

const FRAGMENT = `#version 300 es
precision highp float;
in vec2 offset;
in vec4 colour;
flat in vec3 conic;
out vec4 result;

void main() {
  float power = 0.5 * (conic.x * offset.x * offset.x + conic.z * offset.y * offset.y) + conic.y * offset.x * offset.y;
  float alpha = min(colour.a * exp(-power), 0.999);
  if (alpha < 1.0 / 255.0) discard;
  result = vec4(colour.rgb * alpha, alpha);
}`;

export class Painter {
  constructor(gl) {
    this.gl = gl;
    this.program = linked(gl);
    this.uniforms = Object.fromEntries(['gaussians', 'order', 'view', 'focal', 'size'].map((name) => [name, gl.getUniformLocation(this.program, name)]));
    [this.texture, this.order] = [0, 1].map((unit) => {
      const texture = gl.createTexture();
      gl.activeTexture(gl.TEXTURE0 + unit);
      gl.bindTexture(gl.TEXTURE_2D, texture);
      for (const side of [gl.TEXTURE_MIN_FILTER, gl.TEXTURE_MAG_FILTER]) gl.texParameteri(gl.TEXTURE_2D, side, gl.NEAREST);
      return texture;
    });
    gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, gl.createBuffer());
    gl.useProgram(this.program);
    gl.uniform1i(this.uniforms.order, 1);
    gl.enable(gl.BLEND);
    gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
    this.count = 0;
  }

  // `gaussians`: `count` times STRIDE numbers.
  load(gaussians, count) {
    const gl = this.gl, rows = Math.ceil((gaussians.length / 4) / WIDTH);
    if (this.padded?.length !== rows * WIDTH * 4) this.#reserve(rows, gaussians.length / STRIDE);
    this.padded.set(gaussians.subarray(0, count * STRIDE));
    this.count = count;
    gl.activeTexture(gl.TEXTURE0);
    gl.texSubImage2D(gl.TEXTURE_2D, 0, 0, 0, WIDTH, Math.ceil(count * TEXELS / WIDTH), gl.RGBA, gl.FLOAT, this.padded);
  }

  // Room for `most` Gaussians. Rectangles are drawn by their corners' numbers rather than as instances, of which software
  // that stands in for a GPU draws one after the other.
  #reserve(rows, most) {
    const gl = this.gl, ranks = Math.ceil(most / WIDTH), corners = new Uint32Array(6 * most);
    this.padded = new Float32Array(rows * WIDTH * 4);
    this.sorted = new Uint32Array(ranks * WIDTH);
    for (let i = 0; i < most; i++) corners.set([0, 1, 2, 2, 1, 3].map((corner) => 4 * i + corner), 6 * i);
    gl.bufferData(gl.ELEMENT_ARRAY_BUFFER, corners, gl.STATIC_DRAW);
    gl.activeTexture(gl.TEXTURE0);
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA32F, WIDTH, rows, 0, gl.RGBA, gl.FLOAT, null);
    gl.activeTexture(gl.TEXTURE1);
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.R32UI, WIDTH, ranks, 0, gl.RED_INTEGER, gl.UNSIGNED_INT, null);
  }

  // `camera`: a camera of three.js, at `size` [width, height] pixels.
  draw(camera, [width, height]) {
    const { gl, uniforms } = this, view = camera.matrixWorldInverse.elements;
    sortByDepth(this.padded, this.count, view, this.sorted);
    gl.viewport(0, 0, width, height);
    gl.clearColor(0, 0, 0, 0);
    gl.clear(gl.COLOR_BUFFER_BIT);
    gl.uniformMatrix4fv(uniforms.view, false, view);
    const [x, y] = [camera.projectionMatrix.elements[0], camera.projectionMatrix.elements[5]];
    gl.uniform2f(uniforms.focal, 0.5 * width * x, 0.5 * height * y);
    gl.uniform2f(uniforms.size, width, height);
    gl.activeTexture(gl.TEXTURE1);
    gl.texSubImage2D(gl.TEXTURE_2D, 0, 0, 0, WIDTH, Math.ceil(this.count / WIDTH), gl.RED_INTEGER, gl.UNSIGNED_INT, this.sorted);
    gl.drawElements(gl.TRIANGLES, 6 * this.count, gl.UNSIGNED_INT, 0);
  }
}

function linked(gl) {
  const program = gl.createProgram();
  for (const [kind, source] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]]) {
    const shader = gl.createShader(kind);
    gl.shaderSource(shader, source);
    gl.compileShader(shader);
    if (!gl.getShaderParameter(shader, gl.COMPILE_STATUS)) throw new Error(gl.getShaderInfoLog(shader));
    gl.attachShader(program, shader);
  }
  gl.linkProgram(program);
  if (!gl.getProgramParameter(program, gl.LINK_STATUS)) throw new Error(gl.getProgramInfoLog(program));
  return program;
}
