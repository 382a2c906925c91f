// Rotations as arrays: matrices of 9 numbers by rows, quaternions w, x, y, z.

export const IDENTITY = [1, 0, 0, 0, 1, 0, 0, 0, 1];

export function matrixOf([x, y, z]) {
  const angle = Math.hypot(x, y, z);
  if (angle < 1e-12) return IDENTITY;
  return rotationAbout([x / angle, y / angle, z / angle], Math.sin(angle), 1 - Math.cos(angle));
}

// 1 + a [axis] + b [axis]², Rodrigues' formula.
export function rotationAbout([x, y, z], a, b) {
  return [
    1 - b * (y * y + z * z), b * x * y - a * z, b * x * z + a * y,
    b * x * y + a * z, 1 - b * (x * x + z * z), b * y * z - a * x,
    b * x * z - a * y, b * y * z + a * x, 1 - b * (x * x + y * y),
  ];
}

export function product(a, b) {
  const made = new Array(9);
  for (let row = 0; row < 3; row++) {
    for (let column = 0; column < 3; column++) {
      made[3 * row + column] = a[3 * row] * b[column] + a[3 * row + 1] * b[3 + column] + a[3 * row + 2] * b[6 + column];
    }
  }
  return made;
}

export const transposed = (m) => [m[0], m[3], m[6], m[1], m[4], m[7], m[2], m[5], m[8]];

export const turned = (m, [x, y, z]) => [
  m[0] * x + m[1] * y + m[2] * z, m[3] * x + m[4] * y + m[5] * z, m[6] * x + m[7] * y + m[8] * z,
];

// The largest of the four components is computed first, so that no division is by a small number.
export function quaternionOf(m) {
  const [xx, xy, xz, yx, yy, yz, zx, zy, zz] = m;
  const squares = [1 + xx + yy + zz, 1 + xx - yy - zz, 1 - xx + yy - zz, 1 - xx - yy + zz];
  const largest = squares.indexOf(Math.max(...squares));
  const rows = [
    [squares[0], zy - yz, xz - zx, yx - xy],
    [zy - yz, squares[1], xy + yx, xz + zx],
    [xz - zx, xy + yx, squares[2], yz + zy],
    [yx - xy, xz + zx, yz + zy, squares[3]],
  ];
  const length = Math.hypot(...rows[largest]);
  return rows[largest].map((value) => value / length);
}

export function matrixOfQuaternion([w, x, y, z]) {
  return [
    1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
    2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
    2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
  ];
}

// The rotation nearest to a matrix, by Newton's iteration for the polar decomposition; null for one that mirrors.
export function nearestRotation(m) {
  const determinant = determinantOf(m, cofactorsOf(m));
  if (!(determinant > 1e-4)) return null;
  let found = m.map((value) => value / Math.cbrt(determinant));
  for (let step = 0; step < 8; step++) {
    const cofactors = cofactorsOf(found), own = Math.max(determinantOf(found, cofactors), 1e-12);
    found = found.map((value, i) => (value + cofactors[i] / own) / 2);
  }
  return found;
}

const determinantOf = (m, cofactors) => m[0] * cofactors[0] + m[1] * cofactors[1] + m[2] * cofactors[2];

function cofactorsOf([a, b, c, d, e, f, g, h, i]) {
  return [e * i - f * h, f * g - d * i, d * h - e * g, c * h - b * i, a * i - c * g, b * g - a * h, b * f - c * e, c * d - a * f, a * e - b * d];
}
