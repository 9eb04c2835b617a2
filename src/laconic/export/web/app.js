// The page: takes photos from wherever they come, and shows what the captioner says of each.

import { openViewfinder, hasCamera, isPhone } from "./camera.js";
import { startCaptioner } from "./captioning.js";
import { addCard } from "./cards.js";
import { keepOffline } from "./offline.js";

const settings = JSON.parse(document.getElementById("settings").textContent);
const element = (id) => document.getElementById(id);
const progress = element("progress");
const captioner = startCaptioner(settings, (share) => (progress.value = share));

document.body.dataset.state = "opening"; // the other states are loading, ready and broken
captioner.opened.then(showReady, (error) => showProblem(`The captioner cannot be started: ${error.message}.`));
takePhotos();
showFacts();

async function showReady() {
  document.body.dataset.state = "ready";
  say("Ready.");
  await keepOffline(showFacts, offerNewer);
}

function say(message) {
  element("status").textContent = message;
}

function showProblem(message) {
  element("problem").textContent = `${message} Reload the page; if that does not help, export it again.`;
  document.body.dataset.state = "broken";
}

function showFacts(offline) {
  const megabytes = ((settings.module.bytes + settings.plan.bytes) / 1e6).toFixed(1);
  const { captioner, beam, maxLength } = settings;
  const facts = [captioner, `${megabytes} MB`, `beam ${beam}`, `at most ${maxLength} words`, offline];
  element("facts").textContent = facts.filter(Boolean).join(" · ");
}

function offerNewer(take) {
  element("newer").hidden = false;
  element("newer").querySelector("button").onclick = take;
}

// Photos

function takePhotos() {
  element("choose").disabled = false;
  element("choose").onclick = () => element("files").click();
  element("camera").onclick = takePhoto;
  element("camera").hidden = !isPhone() && !hasCamera();
  for (const input of [element("files"), element("shot")]) {
    input.onchange = () => {
      caption([...input.files]);
      input.value = ""; // so that the same photo can be chosen again
    };
  }
  addEventListener("paste", (event) => captionAll(event.clipboardData, "pasted"));
  addEventListener("drop", (event) => {
    event.preventDefault();
    document.body.classList.remove("dragging");
    captionAll(event.dataTransfer, "dropped");
  });
  addEventListener("dragover", (event) => {
    event.preventDefault(); // else the browser opens what is dropped
    document.body.classList.add("dragging");
  });
  addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) document.body.classList.remove("dragging");
  });
}

async function takePhoto() {
  if (isPhone()) return element("shot").click();
  try {
    await openViewfinder(element("viewfinder"), caption);
  } catch (error) {
    say(error.message);
  }
}

function captionAll({ files }, how) {
  if (!files.length) say(`No photo is among what was ${how}: give files, not addresses.`);
  caption([...files]);
}

/** A card for each file, above those that are there already. */
function caption(files) {
  if (files.length && document.body.dataset.state === "ready") say("");
  const before = element("cards").firstElementChild;
  for (const file of files) {
    const card = addCard(element("cards"), element("card"), before, file);
    captioner.caption(file).then(card.show, (error) => card.fail(error.message));
  }
}
