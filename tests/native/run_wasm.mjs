// Captions images with the WebAssembly module: what laconic.h says, from JavaScript.
//
//   node run_wasm.mjs laconic.wasm '{"plan": "a.plan", "pixels": "a.rgb", "count": 1, "beam": 3, "max_length": 20}'
//
// Instead of `pixels` there may be `features`, a file of float32, `positions`, the regions of each image, and `boxes`, a
// file of float32. Prints {"tokens": [[[ids], ..], ..], "scores": [[..], ..], "words": [[..], ..]}, images by beams, or
// {"error": number, "message": text}. The module allocates nothing: everything is placed behind __heap_base here.
import { readFileSync } from "node:fs";

const [, , module, json] = process.argv;
const asked = { count: 1, beam: 3, max_length: 20, allow_unknown: false, length_penalty: 0, ...JSON.parse(json) };
const { exports: native } = new WebAssembly.Instance(new WebAssembly.Module(readFileSync(module)), {});
let end = native.__heap_base.value;

function place(bytes) {
  const at = Math.ceil(end / 64) * 64;
  end = at + bytes;
  const missing = end - native.memory.buffer.byteLength;
  if (missing > 0) native.memory.grow(Math.ceil(missing / 65536));
  return at;
}

function placeBytes(bytes) {
  const at = place(bytes.length);
  new Uint8Array(native.memory.buffer, at, bytes.length).set(bytes);
  return at;
}

const placeFile = (path) => (path ? placeBytes(readFileSync(path)) : 0);
const placeWords = (words) => placeBytes(new Uint8Array(Uint32Array.from(words).buffer));

function text(at, length) {
  const bytes = new Uint8Array(native.memory.buffer, at);
  return new TextDecoder().decode(bytes.slice(0, length ?? bytes.indexOf(0)));
}

function finish(result) {
  console.log(JSON.stringify(result));
  process.exit(0);
}

function refuse(error) {
  if (error) finish({ error, message: text(native.laconic_message(error)) });
}

const plan = readFileSync(asked.plan);
const planAt = placeBytes(plan);
refuse(native.laconic_check(planAt, plan.length));

const decodingAt = placeWords([asked.beam, asked.max_length, Number(asked.allow_unknown), 0, 0, 0]);
new DataView(native.memory.buffer).setFloat64(decodingAt + 16, asked.length_penalty, true);
const positions = asked.positions ?? [];
const [pixelsAt, featuresAt, boxesAt] = [asked.pixels, asked.features, asked.boxes].map(placeFile);
const positionsAt = positions.length ? placeWords(positions) : 0;
const imagesAt = placeWords([asked.count, pixelsAt, featuresAt, boxesAt, positionsAt]);
const slots = asked.count * asked.beam;
const tokensAt = place(4 * slots * asked.max_length);
const logProbsAt = place(4 * slots * asked.max_length);
const scoresAt = place(8 * slots);
const lengthsAt = place(4 * slots);
const captionsAt = placeWords([tokensAt, logProbsAt, scoresAt, lengthsAt]);
const bytes = native.laconic_workspace(planAt, decodingAt, asked.count, Math.max(0, ...positions)) >>> 0;
const workspaceAt = place(bytes);
refuse(native.laconic_caption(planAt, decodingAt, imagesAt, workspaceAt, bytes, captionsAt, 0));

const sizeAt = place(4);
const memory = new DataView(native.memory.buffer);

function word(token) {
  const at = native.laconic_word(planAt, token, sizeAt);
  return text(at, memory.getUint32(sizeAt, true));
}

const range = (count, make) => Array.from({ length: count }, (_, i) => make(i));
const slot = (make) => range(asked.count, (i) => range(asked.beam, (j) => make(i * asked.beam + j)));
const tokens = slot((at) =>
  range(memory.getUint32(lengthsAt + 4 * at, true), (w) =>
    memory.getInt32(tokensAt + 4 * (at * asked.max_length + w), true),
  ),
);
const scores = slot((at) => memory.getFloat64(scoresAt + 8 * at, true));
finish({ tokens, scores, words: tokens.map((image) => image.map((caption) => caption.map(word))) });
