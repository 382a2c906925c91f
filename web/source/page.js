// The page: an avatar that turns with the pointer and moves with sliders.

import { PerspectiveCamera } from 'three';
import { OrbitControls } from 'three/examples/jsm/controls/OrbitControls.js';
import { parsed, unpacked } from './avatar_file.js';
import { EXPRESSIONS, grouped, label } from './expressions.js';
import { Painter } from './painter.js';
import { Poser } from './poser.js';
import { ProcessorPainter } from './processor_painter.js';

const FIELD_OF_VIEW = 24; // degrees
const DISTANCE = 0.85; // metres from the camera to the head
const MOVE_SECONDS = 0.35; // from one expression to another
const AROUND = 0.6; // radians beyond the views of the film from which the head can still be seen
const SHARPEST = 2; // device pixels for one of the page
const SLOW = 30, FAST = 18; // milliseconds of a redraw, beyond which a moving head is drawn coarser or finer
const PATIENCE = 12; // fast redraws before it is drawn finer, lest it flickers
const SHARES = [1, 0.7, 0.5, 0.35, 0.25]; // of the resolution
const REST = 200; // milliseconds without a redraw, after which the head is drawn in full resolution

const find = (id) => document.getElementById(id);
const canvas = find('view'), camera = new PerspectiveCamera(FIELD_OF_VIEW, 1, 0.05, 20);
let poser, painter, controls, values = [], shown = [], inputs = [];
let neck = [0, 0, 0], torso = { turn: [0, 0, 0], shift: [0, 0, 0] }, posed = null, dirty = false, move = null, fixedSize = null;
let level = 0, quick = 0, began = 0, asked = 0, painted = 0, resting = 0; // level: in SHARES

// Draws before the next refresh of the screen.
function redraw() {
  if (dirty || !poser) return;
  dirty = true;
  asked = performance.now();
  requestAnimationFrame(draw);
}

function draw(now) {
  dirty = false;
  if (move) advance(now);
  if (asked - painted < REST) {
    const took = now - began;
    quick = took < FAST ? quick + 1 : 0;
    if (took > SLOW) level = Math.min(level + 1, SHARES.length - 1);
    else if (quick > PATIENCE) [level, quick] = [Math.max(level - 1, 0), 0];
  }
  began = now;
  paint(SHARES[level]);
  painted = performance.now();
  clearTimeout(resting);
  if (move) redraw();
  else if (level) resting = setTimeout(() => paint(1), REST);
}

// Draws at a share of the full resolution.
function paint(resolution) {
  const pixels = resolution * Math.min(devicePixelRatio, SHARPEST);
  const [width, height] = fixedSize ?? [canvas.clientWidth, canvas.clientHeight].map((side) => Math.max(Math.round(side * pixels), 1));
  if (canvas.width !== width || canvas.height !== height) [canvas.width, canvas.height] = [width, height];
  camera.aspect = width / height;
  camera.updateProjectionMatrix();
  camera.updateMatrixWorld();
  const eye = camera.position.toArray(), bust = find('bust').checked ? torso : null;
  const wanted = [...shown, ...neck, ...eye, ...(bust ? [...bust.turn, ...bust.shift] : [])].join();
  if (wanted !== posed) {
    poser.pose(shown, neck, eye, bust);
    painter.load(poser.gaussians, poser.drawn);
    posed = wanted;
  }
  painter.draw(camera, [width, height]);
}

// Moves the face on the way to the sliders' values.
function advance(now) {
  move.began ??= now;
  const share = Math.min((now - move.began) / (1000 * MOVE_SECONDS), 1), eased = share * share * (3 - 2 * share);
  shown = values.map((value, i) => move.from[i] + eased * (value - move.from[i]));
  if (share === 1) move = null;
}

// Sets sliders by their names, and all others to zero.
function setSliders(named) {
  values = poser.sliders.map((name) => named[name] ?? 0);
  inputs.forEach(([input, slider]) => { input.value = values[slider]; });
}

function turnTo(expression) {
  setSliders(expression);
  move = { from: [...shown] };
  redraw();
}

function addSliders() {
  const list = find('sliders');
  list.replaceChildren();
  inputs = [];
  for (const [title, names] of grouped(poser.sliders)) {
    const group = document.createElement('details'), summary = document.createElement('summary');
    group.open = list.childElementCount === 0;
    summary.textContent = title;
    group.append(summary);
    for (const name of names) {
      const row = document.createElement('label'), input = document.createElement('input'), slider = poser.sliders.indexOf(name);
      Object.assign(input, { type: 'range', min: 0, max: 1, step: 0.01, value: 0, name });
      input.addEventListener('input', () => {
        values[slider] = Number(input.value);
        [shown, move] = [[...values], null];
        redraw();
      });
      row.append(label(name), input);
      group.append(row);
      inputs.push([input, slider]);
    }
    list.append(group);
  }
  find('expressions').replaceChildren(...Object.entries(EXPRESSIONS).map(([name, expression]) => {
    const button = document.createElement('button');
    button.textContent = name;
    button.addEventListener('click', () => turnTo(expression));
    return button;
  }));
}

function lookFromTheFront() {
  const [x, y, z] = poser.eyes;
  controls.target.set(x, y - 0.025, z - 0.06);
  camera.position.set(x, y, z - 0.06 + DISTANCE);
  controls.update();
  redraw();
}

// Whether a graphics card draws WebGL 2. Software that stands in for one is slower than the processor by itself.
function hasCard() {
  const gl = document.createElement('canvas').getContext('webgl2', { failIfMajorPerformanceCaveat: true });
  if (!gl) return false;
  const named = gl.getExtension('WEBGL_debug_renderer_info')?.UNMASKED_RENDERER_WEBGL ?? gl.RENDERER;
  const name = gl.getParameter(named);
  gl.getExtension('WEBGL_lose_context')?.loseContext();
  return !/swiftshader|llvmpipe|softpipe|software|basic render/i.test(name);
}

// `#webgl` in the page's address asks for WebGL nevertheless.
function painterOn(canvas) {
  const gl = (location.hash === '#webgl' || hasCard()) && canvas.getContext('webgl2', { antialias: false, depth: false });
  return gl ? new Painter(gl) : new ProcessorPainter(canvas);
}

function show(file) {
  poser = new Poser(parsed(file));
  painter ??= painterOn(canvas);
  setSliders({});
  shown = [...values];
  posed = null;
  addSliders();
  document.body.classList.toggle('head-alone', !poser.bust);
  if (!controls) {
    controls = new OrbitControls(camera, canvas);
    Object.assign(controls, { minDistance: 0.25, maxDistance: 3, enablePan: false, rotateSpeed: 0.6 });
    controls.addEventListener('change', redraw);
  }
  const [left, right, down, up] = poser.views;
  Object.assign(controls, {
    minAzimuthAngle: right + AROUND < Math.PI ? -right - AROUND : -Infinity,
    maxAzimuthAngle: AROUND - left < Math.PI ? AROUND - left : Infinity,
    minPolarAngle: Math.max(Math.PI / 2 + down - AROUND, 0.2), maxPolarAngle: Math.min(Math.PI / 2 + up + AROUND, Math.PI - 0.2),
  });
  lookFromTheFront();
  document.body.classList.add('ready');
}

function say(error) {
  find('message').textContent = error.message;
  document.body.classList.add('told');
}

async function start() {
  const packed = find('avatar').textContent.trim();
  try {
    if (!packed) document.body.classList.add('empty');
    else show(await unpacked(packed).catch(() => { throw new Error('This page is damaged: ask for it again.'); }));
  } catch (error) {
    say(error);
  }
}

find('front').addEventListener('click', lookFromTheFront);
find('file').addEventListener('change', async ({ target }) => {
  document.body.classList.remove('told');
  try {
    show(await target.files[0].arrayBuffer());
    document.body.classList.remove('empty');
  } catch {
    say(new Error('This file is not an avatar, or it has no baked model.'));
  }
});
find('bust').addEventListener('change', redraw);
addEventListener('resize', redraw);

// For those who put the page into another one, and for tests.
window.effigy = {
  ready: start(),
  get sliders() { return poser.sliders; },
  // {name: value}; all other sliders are zero. `turn`: axis-angle of the neck. `torsoTurn` and `torsoShift`: how far
  // collar and shoulders have moved from rest, axis-angle about the origin of head space, then metres.
  setPose(named, turn = [0, 0, 0], torsoTurn = [0, 0, 0], torsoShift = [0, 0, 0]) {
    setSliders(named);
    [shown, neck, torso, move] = [[...values], turn, { turn: torsoTurn, shift: torsoShift }, null];
    redraw();
  },
  // Places in head space, metres; `fieldOfView`: degrees, of the height; `size`: [width, height] pixels.
  setCamera(eye, target, fieldOfView = FIELD_OF_VIEW, size = null) {
    camera.fov = fieldOfView;
    camera.position.set(...eye);
    controls.target.set(...target);
    camera.lookAt(controls.target);
    fixedSize = size;
    redraw();
  },
  // The drawing in full resolution, as the address of a PNG image.
  picture() {
    paint(1);
    return canvas.toDataURL('image/png');
  },
  // Redraws a second while the camera goes around for some seconds, or while a slider moves, and the resolution to which
  // the page came.
  async measure(seconds = 2, slider = null) {
    const place = camera.position.clone(), { target } = controls, began = performance.now();
    const index = poser.sliders.indexOf(slider), asked = [...shown];
    let count = 0;
    for (; performance.now() - began < 1000 * seconds; count++) {
      if (slider) shown[index] = 0.5 - 0.5 * Math.cos(count / 8);
      else camera.position.copy(place).sub(target).applyAxisAngle(camera.up, 0.5 * Math.sin(count / 12)).add(target);
      camera.lookAt(target);
      redraw();
      await new Promise(requestAnimationFrame);
    }
    const rate = 1000 * count / (performance.now() - began);
    shown = asked;
    camera.position.copy(place);
    camera.lookAt(target);
    redraw();
    return { rate, width: canvas.width, height: canvas.height, gaussians: poser.drawn, webgl: painter instanceof Painter };
  },
};
