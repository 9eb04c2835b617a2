// Shrinks photos to what an encoder reads, byte for byte as laconic does in Python, where Pillow resizes: captions hang
// on it. Knows neither canvas nor files.
//
// An image is {width, height, rows}; rows(top, count) gives some of its rows as bytes, four to a pixel: red, green, blue,
// and one that nobody looks at. So no more than a few rows need to be in memory at once.

const BITS = 22; // of the fraction of a weight, as in Pillow
const HALF = 1 << (BITS - 1);
const BAND = 32; // rows that are asked for at once

/** The image as side x side RGB bytes: bilinear, each pixel a mean over all that it covers, first along rows. */
export function resized({ width, height, rows }, side) {
  const across = meansOf(width, side);
  const middle = new Uint8Array(height * side * 3);
  for (let top = 0; top < height; top += BAND) {
    const count = Math.min(BAND, height - top);
    shrinkAcross(rows(top, count), width, across, middle.subarray(top * side * 3, (top + count) * side * 3));
  }
  return shrinkDown(middle, side, meansOf(height, side));
}

/** The image at 1/scale of its size, each pixel the mean of a square: what JPEG decoders give that decode less. */
export function averaged({ width, height, rows }, scale) {
  const smaller = { width: Math.ceil(width / scale), height: Math.ceil(height / scale) };
  const averageRows = (top, count) => {
    const lines = Math.min(count * scale, height - top * scale);
    return averageSquares(rows(top * scale, lines), width, lines, scale);
  };
  return { ...smaller, rows: averageRows };
}

/** By how much laconic has a JPEG's decoder shrink an image of this size that `side` pixels are wanted of. */
export function draftScale(width, height, side) {
  const ratio = side / Math.min(width, height);
  const times = [width, height].map((size) => Math.floor(size / Math.trunc(size * ratio)));
  return [8, 4, 2].find((scale) => Math.min(...times) >= scale) ?? 1;
}

/** Which of `size` pixels each of `side` is the mean of, and with what weights: first, count, and `most` weights each. */
function meansOf(size, side) {
  const scale = size / side;
  const reach = Math.max(scale, 1); // of the triangle around a pixel's centre
  const most = Math.ceil(reach) * 2 + 1;
  const first = new Int32Array(side);
  const count = new Int32Array(side);
  const weights = new Int32Array(side * most);
  for (let i = 0; i < side; i++) {
    const centre = (i + 0.5) * scale;
    first[i] = Math.max(0, Math.trunc(centre - reach + 0.5));
    count[i] = Math.min(size, Math.trunc(centre + reach + 0.5)) - first[i];
    const triangle = Array.from({ length: count[i] }, (_, j) =>
      Math.max(0, 1 - Math.abs((j + first[i] - centre + 0.5) * (1 / reach))),
    );
    const sum = triangle.reduce((total, weight) => total + weight, 0);
    triangle.forEach((weight, j) => (weights[i * most + j] = Math.trunc(0.5 + (weight / sum) * (1 << BITS))));
  }
  return { side, most, first, count, weights };
}

/** Rows become shorter rows of RGB. The weights of a pixel are one in sum, so that no sum leaves a byte. */
function shrinkAcross(rgba, width, { side, most, first, count, weights }, rgb) {
  for (let row = 0, to = 0; row * width * 4 < rgba.length; row++) {
    for (let i = 0; i < side; i++, to += 3) {
      let [red, green, blue] = [HALF, HALF, HALF];
      let from = (row * width + first[i]) * 4;
      for (let j = i * most; j < i * most + count[i]; j++, from += 4) {
        red += rgba[from] * weights[j];
        green += rgba[from + 1] * weights[j];
        blue += rgba[from + 2] * weights[j];
      }
      rgb[to] = red >> BITS;
      rgb[to + 1] = green >> BITS;
      rgb[to + 2] = blue >> BITS;
    }
  }
}

/** Rows of `side` RGB pixels become fewer rows. */
function shrinkDown(middle, side, { most, first, count, weights }) {
  const line = side * 3;
  const rgb = new Uint8Array(side * line);
  for (let i = 0; i < side; i++) {
    for (let x = 0; x < line; x++) {
      let sum = HALF;
      for (let j = 0; j < count[i]; j++) sum += middle[(first[i] + j) * line + x] * weights[i * most + j];
      rgb[i * line + x] = sum >> BITS;
    }
  }
  return rgb;
}

/** Rows become fewer and shorter ones; squares at the right and the lower edge may lack pixels. */
function averageSquares(rgba, width, lines, scale) {
  const [across, down] = [Math.ceil(width / scale), Math.ceil(lines / scale)];
  const means = new Uint8Array(across * down * 4);
  for (let y = 0; y < down; y++) {
    for (let x = 0; x < across; x++) {
      const [right, bottom] = [Math.min((x + 1) * scale, width), Math.min((y + 1) * scale, lines)];
      const pixels = (right - x * scale) * (bottom - y * scale);
      let [red, green, blue] = [pixels >> 1, pixels >> 1, pixels >> 1];
      for (let line = y * scale; line < bottom; line++) {
        for (let at = (line * width + x * scale) * 4; at < (line * width + right) * 4; at += 4) {
          red += rgba[at];
          green += rgba[at + 1];
          blue += rgba[at + 2];
        }
      }
      const to = (y * across + x) * 4;
      means[to] = red / pixels;
      means[to + 1] = green / pixels;
      means[to + 2] = blue / pixels;
    }
  }
  return means;
}
