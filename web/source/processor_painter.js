// Draws Gaussians without a graphics card: several times as fast as WebGL by software that stands in for one. They are
// blended from front to back, in floats, so that a pixel that is covered costs nothing more.

import { STRIDE } from './poser.js';
import { project, sortByDepth } from './projection.js';

const COVERED = 1 / 512; // of the light that still comes through a pixel
const MOST_ALPHA = 0.999;
const TILE = 3; // the sides of a tile have 2 ** TILE pixels

export class ProcessorPainter {
  constructor(canvas) {
    this.context = canvas.getContext('2d');
    this.count = 0;
    this.pixels = new Float32Array(0);
    this.sorted = new Uint32Array(0);
  }

  // `gaussians`: room for all, of which the first `count` are drawn; STRIDE numbers each.
  load(gaussians, count) {
    [this.gaussians, this.count] = [gaussians, count];
    if (STRIDE * this.sorted.length < gaussians.length) this.sorted = new Uint32Array(gaussians.length / STRIDE);
  }

  // `camera`: a camera of three.js, at `size` [width, height] pixels.
  draw(camera, [width, height]) {
    const view = camera.matrixWorldInverse.elements, projection = camera.projectionMatrix.elements;
    if (this.pixels.length !== 4 * width * height) {
      this.pixels = new Float32Array(4 * width * height);
      this.image = new ImageData(width, height);
      // How many pixels of each tile let light through.
      this.columns = Math.ceil(width / 2 ** TILE);
      this.open = new Int32Array(this.columns * Math.ceil(height / 2 ** TILE));
    }
    this.pixels.fill(0);
    this.#openTiles(width, height);
    sortByDepth(this.gaussians, this.count, view, this.sorted);
    this.#blend(view, 0.5 * width * projection[0], 0.5 * height * projection[5], width, height);
    this.#show();
  }

  #openTiles(width, height) {
    const { open, columns } = this, side = 2 ** TILE;
    for (let tile = 0; tile < open.length; tile++) {
      const column = tile % columns, row = (tile - column) / columns;
      open[tile] = Math.min(side, width - side * column) * Math.min(side, height - side * row);
    }
  }

  // Whether a pixel of a rectangle may let light through: of what lies behind the rest, nothing is seen.
  #isOpen(left, right, first, last) {
    const { open, columns } = this;
    for (let row = first >> TILE; row <= last >> TILE; row++) {
      for (let tile = row * columns + (left >> TILE); tile <= row * columns + (right >> TILE); tile++) if (open[tile]) return true;
    }
    return false;
  }

  // `pixels` gets premultiplied colours and alpha, from the top left.
  #blend(view, fx, fy, width, height) {
    const { gaussians, sorted, count, pixels, open, columns } = this, ellipse = new Float64Array(5);
    for (let rank = count - 1; rank >= 0; rank--) {
      const at = STRIDE * sorted[rank];
      if (!project(gaussians, at, view, fx, fy, width, height, ellipse)) continue;
      const x = ellipse[0], y = height - ellipse[1], xx = ellipse[2], xy = -ellipse[3], yy = ellipse[4];
      const opacity = gaussians[at + 3], red = gaussians[at + 10], green = gaussians[at + 11], blue = gaussians[at + 12];
      const determinant = xx * yy - xy * xy, a = yy / determinant, b = -xy / determinant, c = xx / determinant;
      // Where the Gaussian falls below 1/255.
      const reach = 2 * Math.log(255 * opacity), tall = Math.sqrt(reach * yy);
      const first = Math.max(Math.ceil(y - tall - 0.5), 0), last = Math.min(Math.floor(y + tall - 0.5), height - 1);
      const side = Math.sqrt(reach * xx);
      const left = Math.max(Math.ceil(x - side - 0.5), 0), right = Math.min(Math.floor(x + side - 0.5), width - 1);
      if (first > last || left > right || !this.#isOpen(left, right, first, last)) continue;
      const bend = Math.exp(-a);
      for (let row = first; row <= last; row++) {
        const dy = row + 0.5 - y, middle = -b * dy / a;
        const wide = Math.sqrt(Math.max(middle * middle - (c * dy * dy - reach) / a, 0));
        const begin = Math.max(Math.ceil(x + middle - wide - 0.5), 0);
        const end = Math.min(Math.floor(x + middle + wide - 0.5), width - 1);
        if (begin > end) continue;
        const dx = begin + 0.5 - x;
        let value = opacity * Math.exp(-0.5 * (a * dx * dx + 2 * b * dx * dy + c * dy * dy));
        // From pixel to pixel the value changes by a factor that itself changes by a constant one.
        let factor = Math.exp(-0.5 * a - a * dx - b * dy);
        const start = 4 * row * width;
        for (let pixel = start + 4 * begin, stop = start + 4 * end; pixel <= stop; pixel += 4) {
          const light = 1 - pixels[pixel + 3];
          if (light > COVERED) {
            const share = light * (value < MOST_ALPHA ? value : MOST_ALPHA);
            pixels[pixel] += share * red;
            pixels[pixel + 1] += share * green;
            pixels[pixel + 2] += share * blue;
            pixels[pixel + 3] += share;
            if (light - share <= COVERED) open[(row >> TILE) * columns + ((pixel - start) >> (2 + TILE))]--;
          }
          value *= factor;
          factor *= bend;
        }
      }
    }
  }

  #show() {
    const { pixels, image } = this, bytes = image.data;
    for (let i = 0; i < pixels.length; i += 4) {
      const alpha = pixels[i + 3];
      if (alpha) {
        const scale = 255 / alpha;
        bytes[i] = scale * pixels[i];
        bytes[i + 1] = scale * pixels[i + 1];
        bytes[i + 2] = scale * pixels[i + 2];
      }
      bytes[i + 3] = 255 * alpha;
    }
    this.context.putImageData(image, 0, 0);
  }
}
