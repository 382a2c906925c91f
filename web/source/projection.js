// Gaussians in the picture of a camera: sorted by depth, and projected to ellipses of pixels (Zwicker et al. 2001), with
// the conventions of backend/splatting/reference.py.

import { STRIDE } from './poser.js';

const KEYS = 65536;
const NEAR = 0.01;
const BLUR = 0.3; // square pixels
const starts = new Uint32Array(KEYS + 1);

// Counting sort of the first `count` Gaussians by depth, the farthest first, into `sorted`; `view`: the matrix of three.js
// from the world to the camera.
export function sortByDepth(gaussians, count, view, sorted) {
  const [x, y, z] = [view[2], view[6], view[10]];
  const depths = new Float32Array(count), keys = new Uint16Array(count);
  let least = Infinity, most = -Infinity;
  for (let i = 0, at = 0; i < count; i++, at += STRIDE) {
    const depth = x * gaussians[at] + y * gaussians[at + 1] + z * gaussians[at + 2];
    depths[i] = depth;
    if (depth < least) least = depth;
    if (depth > most) most = depth;
  }
  const scale = (KEYS - 1) / Math.max(most - least, 1e-9);
  starts.fill(0);
  for (let i = 0; i < count; i++) {
    keys[i] = (depths[i] - least) * scale;
    starts[keys[i] + 1]++;
  }
  for (let key = 0; key < KEYS; key++) starts[key + 1] += starts[key];
  for (let i = 0; i < count; i++) sorted[starts[keys[i]]++] = i;
}

// The Gaussian at `at`: its middle, and the covariance xx, xy, yy, in pixels from the bottom left, go to `out`; false if it
// is not before the camera. `fx`, `fy`: focal lengths, pixels.
export function project(gaussians, at, view, fx, fy, width, height, out) {
  const x = gaussians[at], y = gaussians[at + 1], z = gaussians[at + 2];
  const depth = -(view[2] * x + view[6] * y + view[10] * z + view[14]);
  if (depth < NEAR) return false;
  const px = (view[0] * x + view[4] * y + view[8] * z + view[12]) / depth;
  const py = (view[1] * x + view[5] * y + view[9] * z + view[13]) / depth;
  // Slopes of the projection, kept within 1.3 times the field of view.
  const mostX = 0.65 * width / fx, mostY = 0.65 * height / fy;
  const sx = Math.min(Math.max(px, -mostX), mostX), sy = Math.min(Math.max(py, -mostY), mostY);
  const kx = fx / depth, ky = fy / depth;
  const h0 = kx * (view[0] + sx * view[2]), h1 = kx * (view[4] + sx * view[6]), h2 = kx * (view[8] + sx * view[10]);
  const v0 = ky * (view[1] + sy * view[2]), v1 = ky * (view[5] + sy * view[6]), v2 = ky * (view[9] + sy * view[10]);
  const cxx = gaussians[at + 4], cxy = gaussians[at + 5], cxz = gaussians[at + 6];
  const cyy = gaussians[at + 7], cyz = gaussians[at + 8], czz = gaussians[at + 9];
  const a0 = cxx * h0 + cxy * h1 + cxz * h2, a1 = cxy * h0 + cyy * h1 + cyz * h2, a2 = cxz * h0 + cyz * h1 + czz * h2;
  out[0] = 0.5 * width + fx * px;
  out[1] = 0.5 * height + fy * py;
  out[2] = h0 * a0 + h1 * a1 + h2 * a2 + BLUR;
  out[3] = v0 * a0 + v1 * a1 + v2 * a2;
  out[4] = v0 * (cxx * v0 + cxy * v1 + cxz * v2) + v1 * (cxy * v0 + cyy * v1 + cyz * v2) + v2 * (cxz * v0 + cyz * v1 + czz * v2) + BLUR;
  return true;
}
