// The captioner as the page sees it: files are fetched, a worker is started, and photos become captions.

import { fetched } from "./loading.js";

/** {opened, caption}: a promise that it can caption, and a function from a file to a promise of what worker.js says. */
export function startCaptioner(settings, progress) {
  const ask = startWorker();
  const opened = open(settings, ask, progress);
  opened.catch(() => {}); // whoever waits for it is told
  const caption = async (file) => {
    await opened.catch(() => {
      throw new Error("Not captioned, because the captioner cannot be started.");
    });
    return ask({ kind: "photo", file });
  };
  return { opened, caption };
}

async function open({ module, plan, planBytes, beam, maxLength }, ask, progress) {
  let received = 0;
  const count = (bytes) => progress((received += bytes) / (module.bytes + plan.bytes));
  const files = await Promise.all([fetched(module, count), fetched(plan, count)]);
  await ask({ kind: "open", module: files[0], plan: files[1], planBytes, beam, maxLength }, files);
}

/** A function that asks the worker something and gives a promise of the answer. */
function startWorker() {
  const worker = new Worker(new URL("worker.js", import.meta.url), { type: "module" });
  const waiting = new Map();
  let last = 0;
  let dead;
  worker.onmessage = ({ data: { id, result, problem } }) => {
    const { resolve, reject } = waiting.get(id);
    waiting.delete(id);
    if (problem === undefined) resolve(result);
    else reject(new Error(problem));
  };
  worker.onerror = ({ message }) => {
    dead = new Error(`its worker stopped (${message || "a part of its program is missing"})`);
    for (const { reject } of waiting.values()) reject(dead);
    waiting.clear();
  };
  return (question, moved = []) =>
    new Promise((resolve, reject) => {
      if (dead) throw dead;
      waiting.set(++last, { resolve, reject });
      worker.postMessage({ ...question, id: last }, moved);
    });
}
