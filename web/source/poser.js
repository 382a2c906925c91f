// From sliders and a viewpoint to Gaussians: the steps and the words of docs/format.md.

import { nearFaces, nearestFilmed, revealed } from './filmed.js';
import {
  IDENTITY, matrixOf, matrixOfQuaternion, nearestRotation, product, quaternionOf, rotationAbout, transposed, turned,
} from './rotations.js';

const [NECK, JAW, EYE_L, EYE_R] = [1, 2, 3, 4];
const PARENTS = [-1, 0, 1, 1, 1];
// A distance within which an avatar without filmed faces has every face.
const UNKNOWN = 1e5;
const ALPHA_MIN = 1 / 255;
const C0 = 0.28209479177387814, C1 = 0.4886025119029199;
const C2 = [1.0925484305920792, 0.31539156525252005, 0.5462742152960396];
const C3 = [0.5900435899266435, 2.890611442640554, 0.4570457994644658, 0.3731763325901154, 1.445305721320277];

// Numbers of a Gaussian: mean 3, opacity 1, covariance xx xy xz yy yz zz 6, colour 3, unused 3.
export const STRIDE = 16;

// Matrices -> quaternions whose signs are the neck's: one and its negative are the same rotation.
function alignedQuaternions(turns) {
  const quaternions = turns.map(quaternionOf), neck = quaternions[NECK];
  return quaternions.map((q) => (q.reduce((sum, value, i) => sum + value * neck[i], 0) < 0 ? q.map((value) => -value) : q));
}

const sigmoid = (x) => 1 / (1 + Math.exp(-x));

export class Poser {
  constructor({ header, tensors }) {
    const baked = (name) => tensors[`baked.${name}`].values;
    const network = (name) => tensors[`networks.blendshapes.${name}`];
    this.sliders = header.baked.sliders;
    this.rest = { vertices: baked('vertices'), joints: baked('joints') };
    this.skinning = baked('skinning');
    this.turning = tensors['baked.turning'];
    this.baseScale = baked('base_scale');
    this.features = baked('features');
    this.sliderExpression = baked('slider_expression');
    this.sliderRotations = baked('slider_rotations');
    this.deltas = { starts: baked('delta_starts'), vertices: baked('delta_vertices'), steps: baked('delta_steps'), units: baked('delta_units') };
    this.views = tensors['networks.views'].values;
    this.performed = tensors['networks.performed'].values;
    // Files from before these were stored have none.
    this.filmed = tensors['networks.filmed']?.values;
    this.weightLimits = network('weight_limits')?.values;
    this.reveals = network('reveals')?.values;
    this.materials = network('materials')?.values;
    const region = (name) => network(`regions.${name}`)?.values;
    // Without them the whole head has one face.
    this.regions = region('reach')?.[0] < UNKNOWN
      ? { shares: region('shares'), emphasis: region('emphasis'), faces: region('faces'), reach: region('reach') } : null;
    this.mean = network('mean').values;
    this.shapes = network('shapes').values;
    this.positions = network('positions').values;
    [this.shapeCount, this.featureCount, this.outputs] = network('shapes').shape;
    this.layers = Object.keys(tensors).filter((name) => /mix\.\d+\.weight$/.test(name))
      .map((name) => Number(name.split('.')[3])).sort((a, b) => a - b)
      .map((number) => ({ weight: network(`mix.${number}.weight`).values, bias: network(`mix.${number}.bias`).values }));
    this.degree = header.settings.sh_degree;
    this.spawned = header.settings.neural_per_anchor;
    this.count = this.baseScale.length;
    this.expressions = this.sliderExpression.length / this.sliders.length;
    this.vertices = new Float32Array(3 * this.count);
    this.posed = new Float32Array(3 * this.count);
    this.turns = new Float32Array(4 * this.count);
    this.attributes = new Float32Array(this.count * this.outputs);
    this.used = new Int32Array(this.count + 1);
    this.conditions = null;
    const bust = (name) => tensors[`baked.bust_${name}`]?.values;
    this.bust = bust('means') ? {
      means: bust('means'), scales: bust('scales'), quaternions: bust('quaternions'),
      opacities: bust('opacities'), colors: bust('colors'), weights: bust('weights'),
    } : null;
    const most = this.count * (1 + this.spawned) + (this.bust?.opacities.length ?? 0);
    this.gaussians = new Float32Array(STRIDE * most);
    // How many of `gaussians` are in use.
    this.drawn = 0;
    // The middle of the eyes at rest.
    this.eyes = [0, 1, 2].map((axis) => (this.rest.joints[9 + axis] + this.rest.joints[12 + axis]) / 2);
  }

  // `values`: one number a slider; `neck`: axis-angle; `eye`: the camera's place, head space. `torso`: its motion from
  // rest, axis-angle about the origin and then a shift; null leaves collar and shoulders out.
  pose(values, neck, eye, torso) {
    const expression = new Float64Array(this.expressions);
    const rotations = [[0, 0, 0], neck, [0, 0, 0], [0, 0, 0], [0, 0, 0]];
    const open = this.sliders.indexOf('jawOpen');
    values.forEach((asked, slider) => {
      // The lips of a shut jaw are closed already.
      const value = this.sliders[slider] === 'mouthClose' ? Math.min(asked, Math.max(values[open], 0)) : asked;
      if (!value) return;
      for (let e = 0; e < this.expressions; e++) expression[e] += value * this.sliderExpression[slider * this.expressions + e];
      for (let i = 0; i < 9; i++) rotations[JAW + Math.floor(i / 3)][i % 3] += value * this.sliderRotations[9 * slider + i];
    });
    const { turns, joints } = this.#skin(expression, rotations);
    const { condition, toView } = this.#view(joints, turns[NECK], eye);
    const face = [...expression, ...rotations[JAW], ...rotations[EYE_L], ...rotations[EYE_R]];
    const limits = this.performed, width = face.length;
    const clamped = face.map((value, i) => Math.min(Math.max(value, limits[i]), limits[width + i]));
    const near = this.regions ? nearFaces(clamped, this.regions) : [nearestFilmed(clamped, this.filmed)];
    this.#mix(near.map((own) => [...own, ...condition]), revealed(face, limits.slice(width), this.reveals));
    this.#spread(toView, eye);
    if (this.bust && torso) this.#addBust(turns[NECK], joints[NECK], torso);
  }

  #skin(expression, rotations) {
    const own = rotations.map(matrixOf);
    const vertices = this.vertices, { starts, units, steps, vertices: moved } = this.deltas;
    vertices.set(this.rest.vertices);
    const corrective = own.slice(NECK).flatMap((matrix) => matrix.map((entry, i) => entry - (i % 4 === 0 ? 1 : 0)));
    [...expression, ...corrective].forEach((value, row) => {
      if (!value) return;
      const unit = value * units[row];
      for (let entry = starts[row]; entry < starts[row + 1]; entry++) {
        const v = 3 * moved[entry];
        vertices[v] += unit * steps[3 * entry];
        vertices[v + 1] += unit * steps[3 * entry + 1];
        vertices[v + 2] += unit * steps[3 * entry + 2];
      }
    });
    const turns = [], shifts = [], joints = [];
    for (let joint = 0; joint < 5; joint++) {
      const place = [...this.rest.joints.slice(3 * joint, 3 * joint + 3)], parent = PARENTS[joint];
      let turn = own[joint];
      let shift = turned(turn, place).map((value, axis) => place[axis] - value);
      if (parent >= 0) {
        shift = turned(turns[parent], shift).map((value, axis) => value + shifts[parent][axis]);
        turn = product(turns[parent], turn);
      }
      turns.push(turn);
      shifts.push(shift);
      joints.push(turned(turn, place).map((value, axis) => value + shift[axis]));
    }
    const quaternions = alignedQuaternions(turns);
    const blend = new Float64Array(16), { posed, skinning } = this;
    for (let n = 0; n < this.count; n++) {
      blend.fill(0);
      for (let joint = 0; joint < 5; joint++) {
        const weight = skinning[5 * n + joint];
        if (!weight) continue;
        for (let i = 0; i < 9; i++) blend[i] += weight * turns[joint][i];
        for (let i = 0; i < 3; i++) blend[9 + i] += weight * shifts[joint][i];
        for (let i = 0; i < 4; i++) blend[12 + i] += weight * quaternions[joint][i];
      }
      const x = vertices[3 * n], y = vertices[3 * n + 1], z = vertices[3 * n + 2];
      posed[3 * n] = blend[0] * x + blend[1] * y + blend[2] * z + blend[9];
      posed[3 * n + 1] = blend[3] * x + blend[4] * y + blend[5] * z + blend[10];
      posed[3 * n + 2] = blend[6] * x + blend[7] * y + blend[8] * z + blend[11];
      const length = Math.sqrt(blend[12] ** 2 + blend[13] ** 2 + blend[14] ** 2 + blend[15] ** 2) || 1;
      for (let i = 0; i < 4; i++) this.turns[4 * n + i] = blend[12 + i] / length;
    }
    this.#turnWithSurface();
    return { turns, joints };
  }

  // The lips turn with the mesh around them, all else with the joints.
  #turnWithSurface() {
    if (!this.turning) return;
    const { shape: [count, size], values } = this.turning, { posed, turns } = this, rest = this.rest.vertices;
    for (let row = 0; row < count; row++) {
      const v = values[size * row], matrix = new Array(9).fill(0);
      let squares = 0;
      for (let column = 1; column < size; column++) {
        const other = values[size * row + column];
        for (let b = 0; b < 3; b++) {
          const before = rest[3 * other + b] - rest[3 * v + b];
          squares += before * before;
          for (let a = 0; a < 3; a++) matrix[3 * a + b] += (posed[3 * other + a] - posed[3 * v + a]) * before;
        }
      }
      const own = matrixOfQuaternion(turns.subarray(4 * v, 4 * v + 4));
      const found = nearestRotation(matrix.map((value, i) => value / Math.max(squares, 1e-12) + 0.1 * own[i]));
      if (found) turns.set(quaternionOf(found), 4 * v);
    }
  }

  #view(joints, turn, eye) {
    const back = transposed(turn);
    const towards = turned(back, eye.map((value, axis) => (joints[EYE_L][axis] + joints[EYE_R][axis]) / 2 - value));
    const length = Math.hypot(...towards) || 1;
    const before = towards.map((value) => value / length);
    const angles = [Math.atan2(before[0], -before[2]), Math.asin(Math.min(Math.max(before[1], -1), 1))];
    const [yaw, pitch] = angles.map((angle, i) => Math.min(Math.max(angle, this.views[2 * i]), this.views[2 * i + 1]));
    if (yaw === angles[0] && pitch === angles[1]) return { condition: [before[0], before[1], before[2] + 1], toView: back };
    const after = [Math.sin(yaw) * Math.cos(pitch), Math.sin(pitch), -Math.cos(yaw) * Math.cos(pitch)];
    const cosine = before[0] * after[0] + before[1] * after[1] + before[2] * after[2];
    const cross = [
      before[1] * after[2] - before[2] * after[1],
      before[2] * after[0] - before[0] * after[2],
      before[0] * after[1] - before[1] * after[0],
    ];
    const nearest = cosine < -1 + 1e-5 ? [-1, 0, 0, 0, 1, 0, 0, 0, -1] : rotationAbout(cross, 1, 1 / Math.max(1 + cosine, 1e-6));
    return { condition: [after[0], after[1], after[2] + 1], toView: product(nearest, back) };
  }

  #mix(conditions, shown) {
    const values = conditions.flat();
    if (shown === this.shown && this.conditions?.every((value, i) => value === values[i])) return;
    this.conditions = values;
    this.shown = shown;
    this.attributes.set(this.mean);
    this.#grouped(conditions).forEach(([each, shares]) => this.#add(each, shares));
    if (shown) this.#showMaterials(shown);
  }

  // [conditions, shares of the vertices] of the regions; those with the same conditions, as a face that was filmed has
  // everywhere, are one.
  #grouped(conditions) {
    const shares = this.regions?.shares, regions = conditions.length, groups = new Map();
    if (!shares) return [[conditions[0], null]];
    conditions.forEach((each, region) => {
      const key = each.join();
      if (!groups.has(key)) groups.set(key, [each, new Float32Array(this.count)]);
      const sum = groups.get(key)[1];
      for (let n = 0; n < this.count; n++) sum[n] += shares[regions * n + region];
    });
    return [...groups.values()];
  }

  // What vertices get by conditions, as far as they share them; null: all of them, wholly.
  #add(conditions, shares) {
    let x = conditions;
    this.layers.forEach(({ weight, bias }, layer) => {
      const inputs = x.length, last = layer === this.layers.length - 1, made = new Float64Array(bias.length);
      for (let row = 0; row < bias.length; row++) {
        let sum = bias[row];
        for (let i = 0; i < inputs; i++) sum += weight[row * inputs + i] * x[i];
        made[row] = last || sum > 0 ? sum : Math.expm1(sum);
      }
      x = made;
    });
    const limits = this.weightLimits;
    if (limits) x = x.map((weight, k) => Math.min(Math.max(weight, limits[k]), limits[x.length + k]));
    const { featureCount: width, outputs, shapes } = this, sum = new Float64Array(width * outputs);
    for (let shape = 0; shape < this.shapeCount; shape++) {
      const weight = x[shape], start = shape * sum.length;
      for (let i = 0; i < sum.length; i++) sum[i] += weight * shapes[start + i];
    }
    // Output by output, and as many as a multiple of four.
    const basis = new Float64Array(width * (outputs + 3));
    for (let o = 0; o < outputs; o++) for (let f = 0; f < width; f++) basis[o * width + f] = sum[f * outputs + o];
    this.#multiply(basis, shares);
  }

  // Adds features times `basis`. Two vertices and four outputs at a time: each number that is read is used several times,
  // and the sums stay in registers.
  #multiply(basis, shares) {
    const { features, attributes, count, outputs, featureCount: width } = this, used = this.used;
    let most = 0;
    for (let n = 0; n < count; n++) if (!shares || shares[n]) used[most++] = n;
    // The last one again, where the number is odd, with a share of 0.
    used[most] = used[Math.max(most - 1, 0)];
    for (let i = 0; i < most; i += 2) {
      const n = used[i], m = used[i + 1], first = n * width, second = m * width;
      const ours = shares ? shares[n] : 1, theirs = i + 1 === most ? 0 : shares ? shares[m] : 1;
      for (let o = 0; o < outputs; o += 4) {
        const row0 = o * width, row1 = row0 + width, row2 = row1 + width, row3 = row2 + width;
        let a0 = 0, a1 = 0, a2 = 0, a3 = 0, b0 = 0, b1 = 0, b2 = 0, b3 = 0;
        for (let f = 0; f < width; f++) {
          const a = features[first + f], b = features[second + f];
          const v0 = basis[row0 + f], v1 = basis[row1 + f], v2 = basis[row2 + f], v3 = basis[row3 + f];
          a0 += a * v0; a1 += a * v1; a2 += a * v2; a3 += a * v3;
          b0 += b * v0; b1 += b * v1; b2 += b * v2; b3 += b * v3;
        }
        const at = n * outputs + o, other = m * outputs + o, left = outputs - o;
        attributes[at] += ours * a0;
        attributes[other] += theirs * b0;
        if (left > 1) { attributes[at + 1] += ours * a1; attributes[other + 1] += theirs * b1; }
        if (left > 2) { attributes[at + 2] += ours * a2; attributes[other + 2] += theirs * b2; }
        if (left > 3) { attributes[at + 3] += ours * a3; attributes[other + 3] += theirs * b3; }
      }
    }
  }

  // The mouth's inside becomes that of the rig, by how far it was never filmed.
  #showMaterials(shown) {
    const { attributes, materials, outputs } = this, spawned = 11 + 3 * (this.degree + 1) ** 2;
    for (let n = 0; n < this.count; n++) {
      const share = shown * materials[4 * n + 3];
      if (!share) continue;
      const start = n * outputs;
      for (let o = 0; o < outputs; o++) {
        let rig = o === 6 || (o >= spawned && (o - spawned) % 11 === 7) ? 1 : 0;
        if (o === 10) rig = 3;
        if (o >= 11 && o < 14) rig = (materials[4 * n + o - 11] - 0.5) / C0;
        attributes[start + o] += share * (rig - attributes[start + o]);
      }
    }
  }

  #spread(toView, eye) {
    const { attributes, outputs, posed, turns, spawned, positions } = this;
    const harmonics = (this.degree + 1) ** 2, own = 11 + 3 * harmonics, functions = new Float64Array(16);
    const q = new Float64Array(4);
    let at = 0;
    for (let n = 0; n < this.count; n++) {
      const a = n * outputs, v = 3 * n;
      q[0] = turns[4 * n]; q[1] = turns[4 * n + 1]; q[2] = turns[4 * n + 2]; q[3] = turns[4 * n + 3];
      const base = this.baseScale[n];
      const sx = Math.min(base * Math.exp(attributes[a + 3]), 0.02);
      const sy = Math.min(base * Math.exp(attributes[a + 4]), 0.02);
      const sz = Math.min(base * Math.exp(attributes[a + 5]), 0.02);
      const ox = 0.01 * attributes[a], oy = 0.01 * attributes[a + 1], oz = 0.01 * attributes[a + 2];
      const opacity = sigmoid(attributes[a + 10]);
      if (opacity >= ALPHA_MIN) {
        let dx = posed[v] - eye[0], dy = posed[v + 1] - eye[1], dz = posed[v + 2] - eye[2];
        const length = Math.sqrt(dx * dx + dy * dy + dz * dz) || 1;
        dx /= length; dy /= length; dz /= length;
        this.#harmonics(
          functions,
          toView[0] * dx + toView[1] * dy + toView[2] * dz,
          toView[3] * dx + toView[4] * dy + toView[5] * dz,
          toView[6] * dx + toView[7] * dy + toView[8] * dz,
        );
        let red = 0.5, green = 0.5, blue = 0.5;
        for (let i = 0; i < harmonics; i++) {
          const c = a + 11 + 3 * i;
          red += functions[i] * attributes[c];
          green += functions[i] * attributes[c + 1];
          blue += functions[i] * attributes[c + 2];
        }
        this.#put(at++, posed, v, q, ox, oy, oz, sx, sy, sz, attributes, a + 6, opacity, Math.max(red, 0), Math.max(green, 0), Math.max(blue, 0));
      }
      for (let k = 0; k < spawned; k++) {
        const s = a + own + 11 * k, p = 3 * (n * spawned + k);
        const alpha = Math.tanh(attributes[s]);
        if (alpha < ALPHA_MIN) continue;
        this.#put(
          at++, posed, v, q,
          ox + positions[p] * sx, oy + positions[p + 1] * sy, oz + positions[p + 2] * sz,
          sx * 2 * sigmoid(attributes[s + 4]), sy * 2 * sigmoid(attributes[s + 5]), sz * 2 * sigmoid(attributes[s + 6]),
          attributes, s + 7, alpha, sigmoid(attributes[s + 1]), sigmoid(attributes[s + 2]), sigmoid(attributes[s + 3]),
        );
      }
    }
    this.drawn = at;
  }

  #harmonics(to, x, y, z) {
    to[0] = C0;
    if (this.degree < 1) return;
    to[1] = -C1 * y; to[2] = C1 * z; to[3] = -C1 * x;
    if (this.degree < 2) return;
    const xx = x * x, yy = y * y, zz = z * z;
    to[4] = C2[0] * x * y; to[5] = -C2[0] * y * z; to[6] = C2[1] * (2 * zz - xx - yy);
    to[7] = -C2[0] * x * z; to[8] = C2[2] * (xx - yy);
    if (this.degree < 3) return;
    to[9] = -C3[0] * y * (3 * xx - yy); to[10] = C3[1] * x * y * z; to[11] = -C3[2] * y * (4 * zz - xx - yy);
    to[12] = C3[3] * z * (2 * zz - 3 * xx - 3 * yy); to[13] = -C3[2] * x * (4 * zz - xx - yy);
    to[14] = C3[4] * z * (xx - yy); to[15] = -C3[0] * x * (xx - 3 * yy);
  }

  // Collar and shoulders, after the Gaussians of the head. They follow the neck alone, because nothing moves the rest.
  #addBust(neck, joint, torso) {
    const { means, scales, quaternions, opacities, colors, weights } = this.bust;
    const rest = turned(neck, this.rest.joints.slice(3 * NECK, 3 * NECK + 3));
    // Of root, neck and torso.
    const turns = [IDENTITY, neck, matrixOf(torso.turn)];
    const shifts = [[0, 0, 0], joint.map((value, axis) => value - rest[axis]), torso.shift];
    const wholes = alignedQuaternions(turns);
    const place = new Float32Array(3), q = new Float64Array(4);
    for (let m = 0; m < opacities.length; m++) {
      if (opacities[m] < ALPHA_MIN) continue;
      const v = 3 * m, rested = means.subarray(v, v + 3);
      place.fill(0);
      q.fill(0);
      for (let part = 0; part < 3; part++) {
        const weight = weights[v + part], moved = turned(turns[part], rested);
        for (let axis = 0; axis < 3; axis++) place[axis] += weight * (moved[axis] + shifts[part][axis]);
        for (let i = 0; i < 4; i++) q[i] += weight * wholes[part][i];
      }
      const length = Math.hypot(...q) || 1;
      for (let i = 0; i < 4; i++) q[i] /= length;
      this.#put(
        this.drawn++, place, 0, q, 0, 0, 0, scales[v], scales[v + 1], scales[v + 2],
        quaternions, 4 * m, opacities[m], colors[v], colors[v + 1], colors[v + 2],
      );
    }
  }

  // Stores one Gaussian at an offset from the place `places[place]`, which `q` rotates. `rotations[rotation]` is its own
  // quaternion.
  #put(index, places, place, q, px, py, pz, sx, sy, sz, rotations, rotation, opacity, red, green, blue) {
    const { gaussians } = this, at = STRIDE * index;
    const [w, x, y, z] = q;
    // q rotates the place: p + 2 w (q × p) + 2 q × (q × p).
    const cx = 2 * (y * pz - z * py), cy = 2 * (z * px - x * pz), cz = 2 * (x * py - y * px);
    gaussians[at] = places[place] + px + w * cx + y * cz - z * cy;
    gaussians[at + 1] = places[place + 1] + py + w * cy + z * cx - x * cz;
    gaussians[at + 2] = places[place + 2] + pz + w * cz + x * cy - y * cx;
    gaussians[at + 3] = opacity;
    let rw = rotations[rotation], rx = rotations[rotation + 1], ry = rotations[rotation + 2], rz = rotations[rotation + 3];
    const length = Math.sqrt(rw * rw + rx * rx + ry * ry + rz * rz) || 1;
    rw /= length; rx /= length; ry /= length; rz /= length;
    const qw = w * rw - x * rx - y * ry - z * rz, qx = w * rx + x * rw + y * rz - z * ry;
    const qy = w * ry - x * rz + y * rw + z * rx, qz = w * rz + x * ry - y * rx + z * rw;
    // The axes of the ellipsoid as columns, then their outer products.
    const a0 = sx * (1 - 2 * (qy * qy + qz * qz)), a1 = sx * 2 * (qx * qy + qw * qz), a2 = sx * 2 * (qx * qz - qw * qy);
    const b0 = sy * 2 * (qx * qy - qw * qz), b1 = sy * (1 - 2 * (qx * qx + qz * qz)), b2 = sy * 2 * (qy * qz + qw * qx);
    const c0 = sz * 2 * (qx * qz + qw * qy), c1 = sz * 2 * (qy * qz - qw * qx), c2 = sz * (1 - 2 * (qx * qx + qy * qy));
    gaussians[at + 4] = a0 * a0 + b0 * b0 + c0 * c0;
    gaussians[at + 5] = a0 * a1 + b0 * b1 + c0 * c1;
    gaussians[at + 6] = a0 * a2 + b0 * b2 + c0 * c2;
    gaussians[at + 7] = a1 * a1 + b1 * b1 + c1 * c1;
    gaussians[at + 8] = a1 * a2 + b1 * b2 + c1 * c2;
    gaussians[at + 9] = a2 * a2 + b2 * b2 + c2 * c2;
    gaussians[at + 10] = red;
    gaussians[at + 11] = green;
    gaussians[at + 12] = blue;
  }
}
