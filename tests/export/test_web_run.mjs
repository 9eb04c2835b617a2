// Runs the exported page's modules in node: node test_web_run.mjs FOLDER JOBS, the page's folder and a JSON list.
//
//   {"shrink": file of RGBA, "width", "height", "side", "scale"}  writes side x side RGB beside the file, as .rgb
//   {"draft": [width, height, side]}  gives the scale
//   {"caption": file of RGB pixels, "count"}  gives the captions of each image
//
// Prints a JSON list of what each gives.
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { gunzipSync } from "node:zlib";

const [, , folder, jobs] = process.argv;
const load = (name) => import(pathToFileURL(join(folder, name)));
const { averaged, draftScale, resized } = await load("resize.js");
const { Captioner } = await load("captioner.js");

function shrink({ shrink: file, width, height, side, scale }) {
  const bytes = readFileSync(file);
  const rows = (top, count) => bytes.subarray(top * width * 4, (top + count) * width * 4);
  const image = { width, height, rows };
  writeFileSync(`${file}.rgb`, resized(scale > 1 ? averaged(image, scale) : image, side));
}

async function caption({ caption: file, count, beam, maxLength }) {
  const plan = gunzipSync(readFileSync(join(folder, "captioner.bin")));
  const captioner = await Captioner.open(readFileSync(join(folder, "laconic.wasm")), plan, { beam, maxLength });
  const pixels = readFileSync(file);
  const size = pixels.length / count;
  return Array.from({ length: count }, (_, i) => captioner.caption(pixels.subarray(i * size, (i + 1) * size)));
}

const answers = [];
for (const job of JSON.parse(jobs)) {
  if (job.shrink) answers.push(shrink(job) ?? null);
  if (job.draft) answers.push(draftScale(...job.draft));
  if (job.caption) answers.push(await caption(job));
}
console.log(JSON.stringify(answers));
