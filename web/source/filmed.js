// Faces that were never filmed, as docs/format.md describes it.

const MARGIN = 0.1, FAR = [1.25, 2], PULL = 0.4, SOFTNESS = 0.1, NEWTON_STEPS = 12;

const smooth = (x) => x * x * (3 - 2 * x);

// `face` (D numbers) as it is if it was filmed, and the nearest filmed one otherwise, drawn to their mean.
// `filmed` (2 + D rows of D): centre, semi-axes, their directions; undefined in files from before it was stored.
export function nearestFilmed(face, filmed) {
  if (!filmed) return face;
  const size = face.length, offsets = new Float64Array(size), units = new Float64Array(size), curvature = new Float64Array(size);
  for (let axis = 0; axis < size; axis++) {
    for (let i = 0; i < size; i++) offsets[axis] += filmed[(2 + axis) * size + i] * (face[i] - filmed[i]);
    units[axis] = offsets[axis] / filmed[size + axis];
    curvature[axis] = 1 / filmed[size + axis] ** 2;
  }
  const away = Math.hypot(...units);
  if (away <= 1) return face;
  let shift = 0;
  for (let step = 0; step < NEWTON_STEPS; step++) {
    let square = 0, slope = 0;
    for (let axis = 0; axis < size; axis++) {
      const bent = 1 + shift * curvature[axis], found = (units[axis] / bent) ** 2;
      square += found;
      slope += found * curvature[axis] / bent;
    }
    shift += square / Math.max(slope, 1e-12) * Math.max(Math.sqrt(square) - 1, 0);
  }
  const pull = PULL * smooth(Math.min(Math.max((away - FAR[0]) / (FAR[1] - FAR[0]), 0), 1));
  const near = Float64Array.from(face);
  for (let axis = 0; axis < size; axis++) {
    const gone = (1 - (1 - pull) / (1 + shift * curvature[axis])) * offsets[axis];
    for (let i = 0; i < size; i++) near[i] -= gone * filmed[(2 + axis) * size + i];
  }
  return near;
}

// The faces in which the regions of a head are drawn: for each, the asked one where it was filmed, and otherwise the mean
// of the filmed ones that are most like it there.
export function nearFaces(face, { faces, emphasis, reach }) {
  const size = face.length, count = faces.length / size;
  return Array.from({ length: reach.length / 2 }, (_, region) => {
    const distances = Array.from({ length: count }, (_, row) => {
      let sum = 0;
      for (let i = 0; i < size; i++) sum += ((face[i] - faces[row * size + i]) * emphasis[region * size + i]) ** 2;
      return Math.sqrt(sum);
    });
    const nearest = Math.min(...distances), [first, second] = reach.slice(2 * region, 2 * region + 2);
    const weights = distances.map((distance) => Math.exp((nearest - distance) / (SOFTNESS * Math.max(nearest, 1e-6))));
    const total = weights.reduce((sum, weight) => sum + weight, 0);
    const share = smooth(Math.min(Math.max((nearest - first) / (second - first), 0), 1));
    const near = Float64Array.from(face, (value) => (1 - share) * value);
    weights.forEach((weight, row) => {
      for (let i = 0; i < size; i++) near[i] += share * weight / total * faces[row * size + i];
    });
    return near;
  });
}

// How far the mouth shows what the clip never did, 0 to 1; `highest`: the upper limits of a face.
export function revealed(face, highest, reveals) {
  let most = 0;
  reveals?.forEach((share, i) => {
    most = Math.max(most, share * Math.min(Math.max((face[i] - highest[i]) / MARGIN + 1, 0), 1));
  });
  return smooth(most);
}
