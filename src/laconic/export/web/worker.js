// Captions photos beside the page, which stays alive meanwhile: one after the other, in the order that they come.
// It fetches nothing, since the page's Content-Security-Policy does not reach into workers: files come from the page.
//
//   {id, kind: "open", module, plan, planBytes, beam, maxLength}  ->  {id}
//   {id, kind: "photo", file}  ->  {id, result: {captions, milliseconds}}
//
// Where something is wrong the answer is {id, problem}, in words.

import { Captioner } from "./captioner.js";
import { pixelsOf } from "./photo.js";

let captioner;
let work = Promise.resolve();

const answers = {
  async open({ module, plan, planBytes, beam, maxLength }) {
    captioner = await Captioner.open(module, await unpacked(plan, planBytes), { beam, maxLength });
  },
  async photo({ file }) {
    const begun = performance.now();
    const pixels = await pixelsOf(file, captioner.side);
    const read = performance.now();
    const captions = captioner.caption(pixels);
    return { captions, milliseconds: { reading: read - begun, captioning: performance.now() - read } };
  },
};

self.onmessage = ({ data }) => {
  work = work.then(async () => self.postMessage(await answerTo(data)));
};

async function answerTo({ id, kind, ...question }) {
  try {
    return { id, result: await answers[kind](question) };
  } catch (error) {
    return { id, problem: error.message };
  }
}

/** A gzip file's content, so many bytes. */
async function unpacked(gzip, bytes) {
  let found;
  try {
    const stream = new Blob([gzip]).stream().pipeThrough(new DecompressionStream("gzip"));
    found = new Uint8Array(await new Response(stream).arrayBuffer());
  } catch {
    throw new Error("its file is damaged or cut off");
  }
  if (found.length !== bytes) throw new Error("its file is not the one that this page was made with");
  return found;
}
