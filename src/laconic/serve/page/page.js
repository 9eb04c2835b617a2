// The page: photos go to the server one by one, a few at a time, and their captions appear in cards.

const AT_ONCE = 4; // photos on their way; the server captions together what arrives together
const PICTURES_AT_ONCE = 2; // that the browser decodes, beside the page itself
const TRIES = 6; // of a photo, while the server has its hands full
const PICTURE_WIDTH = 560; // pixels, twice what a card shows

const find = (selector, within = document) => within.querySelector(selector);
const photos = find("#photos");
const limits = { bytes: Infinity };

const upload = atMost(AT_ONCE);
const draw = atMost(PICTURES_AT_ONCE);

// Files come in three ways: chosen, dropped and pasted.

find("#files").addEventListener("change", (event) => {
  add([...event.target.files]);
  event.target.value = ""; // so that the same file can be chosen again
});

let depth = 0; // of elements that what is dragged is over
window.addEventListener("dragenter", () => document.body.classList.toggle("dragging", (depth += 1) > 0));
window.addEventListener("dragleave", () => document.body.classList.toggle("dragging", (depth -= 1) > 0));
window.addEventListener("dragover", (event) => event.preventDefault());
window.addEventListener("drop", (event) => {
  event.preventDefault();
  depth = 0;
  document.body.classList.remove("dragging");
  const items = [...event.dataTransfer.items].filter((item) => item.kind === "file");
  const folders = items.filter((item) => item.webkitGetAsEntry?.()?.isDirectory);
  add(items.filter((item) => !folders.includes(item)).map((item) => item.getAsFile()));
  if (folders.length) {
    say("Folders cannot be dropped. Open the folder and select the photos in it.");
  }
});

window.addEventListener("paste", (event) => add([...(event.clipboardData?.files ?? [])]));

find("#clear").addEventListener("click", () => {
  photos.replaceChildren();
  say("");
  find("#clear").hidden = true;
  find("#files").focus();
});

find("#form").addEventListener("submit", (event) => event.preventDefault());

function add(files) {
  for (const file of files) {
    const card = find("#card").content.firstElementChild.cloneNode(true);
    find(".name", card).textContent = file.name;
    find(".kind", card).textContent = file.name.includes(".") ? file.name.split(".").pop().slice(0, 5).toUpperCase() : "";
    find(".again", card).addEventListener("click", () => start(card, file));
    find(".copy", card).addEventListener("click", (event) => copy(event.target, find(".caption", card).textContent));
    photos.append(card);
    draw(() => picture(card, file));
    start(card, file);
  }
  find("#clear").hidden = !photos.children.length;
}

function start(card, file) {
  card.className = "card photo waiting";
  find(".caption", card).textContent = "Waiting …";
  find(".again", card).hidden = true;
  tell();
  upload(async () => {
    if (!card.isConnected) return; // removed while it waited
    find(".caption", card).textContent = "Looking …";
    show(card, file, await caption(file));
    tell();
  });
}

// What the server says

async function caption(file) {
  if (file.size > limits.bytes) {
    return { error: `This file has ${size(file.size)}, and the server takes ${size(limits.bytes)} at most.` };
  }
  const address = new URL("caption", document.baseURI);
  for (const name of ["beam", "max_length"]) {
    const chosen = find(`#${name}`);
    if (chosen.value && chosen.checkValidity()) address.searchParams.set(name, chosen.value);
  }
  for (let tries = 1; ; tries += 1) {
    try {
      const body = new FormData();
      body.append("image", file);
      const response = await fetch(address, { method: "POST", body });
      if (response.status === 503 && tries < TRIES) {
        await pause(1000 * (Number(response.headers.get("Retry-After")) || 1));
        continue;
      }
      const said = await response.json();
      return said.images ? said.images[0] : { error: said.error, again: response.status >= 500 || response.status === 408 };
    } catch {
      return { error: "The server did not answer. Is it still running?", again: true };
    }
  }
}

function show(card, file, answer) {
  const failed = "error" in answer;
  card.className = failed ? "card photo wrong" : "card photo done";
  find(".caption", card).textContent = failed ? sentence(answer.error) : answer.caption || "(The captioner says nothing.)";
  find(".again", card).hidden = !answer.again;
  find(".copy", card).hidden = failed;
  const facts = failed ? [] : [`${answer.milliseconds} ms`, logarithm(answer)];
  find(".facts", card).textContent = [size(file.size), ...facts].join(" · ");
  const others = answer.alternatives ?? [];
  const details = find("details", card);
  details.hidden = !others.length;
  find("summary", details).textContent = others.length === 1 ? "One other caption" : `${others.length} other captions`;
  find("ol", details).replaceChildren(...others.map(other));
}

function other(found) {
  const item = document.createElement("li");
  const small = document.createElement("small");
  small.textContent = logarithm(found);
  item.append(found.caption, small);
  return item;
}

function logarithm({ log_probability }) {
  return `log-probability ${log_probability.toFixed(2).replace("-", "\u2212")}`;
}

function tell() {
  const [all, waiting, wrong] = ["", ".waiting", ".wrong"].map((kind) => photos.querySelectorAll(`.photo${kind}`).length);
  const done = `${all - waiting} of ${all} photos done`;
  say(wrong ? `${done}, ${wrong} of them could not be captioned.` : `${done}.`);
}

function say(text) {
  find("#status").textContent = text;
}

// Pictures and words

async function picture(card, file) {
  try {
    const bitmap = await createImageBitmap(file, { resizeWidth: PICTURE_WIDTH, resizeQuality: "medium" });
    const canvas = find("canvas", card);
    canvas.width = bitmap.width;
    canvas.height = bitmap.height;
    canvas.getContext("2d").drawImage(bitmap, 0, 0);
    bitmap.close();
    canvas.role = "img";
    canvas.ariaLabel = file.name;
    canvas.hidden = false;
    find(".kind", card).hidden = true;
  } catch {
    // the browser cannot show it: the card shows what kind of file it is
  }
}

async function copy(button, text) {
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
  } catch {
    button.textContent = "The browser does not allow it";
  }
  await pause(1500);
  button.textContent = "Copy";
}

function size(bytes) {
  if (bytes < 1000) return `${bytes} bytes`;
  return bytes < 1e6 ? `${Math.round(bytes / 1000)} kB` : `${(bytes / 1e6).toFixed(1)} MB`;
}

function sentence(text) {
  return text.charAt(0).toUpperCase() + text.slice(1) + (/[.?!]$/.test(text) ? "" : ".");
}

function pause(milliseconds) {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}

// Runs what it is given, so many at a time, in order.
function atMost(count) {
  const waiting = [];
  let running = 0;
  const next = async () => {
    if (running >= count || !waiting.length) return;
    running += 1;
    await waiting.shift()();
    running -= 1;
    next();
  };
  return (task) => {
    waiting.push(task);
    next();
  };
}

// What captions, and how

try {
  const info = await (await fetch(new URL("info", document.baseURI))).json();
  limits.bytes = info.limits.bytes;
  for (const name of ["beam", "max_length"]) {
    find(`#${name}`).max = info.limits[name];
    find(`#${name}`).value = info[name];
  }
  find("#about").textContent = `Captioned by ${info.captioner}, laconic ${info.version}.`;
} catch {
  say("The server did not answer. Is it still running?");
}
