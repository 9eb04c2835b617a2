// A card for a photo: the picture, what is said of it, and how long that took.

/** Adds the card of a file to a list, before a card of it or at its end; {show, fail} fill it. */
export function addCard(list, template, before, file) {
  const card = template.content.cloneNode(true).firstElementChild;
  const part = (name) => card.querySelector(name);
  const address = URL.createObjectURL(file);
  part("img").src = address;
  part("img").onerror = () => card.classList.add("unseen");
  part(".name").textContent = file.name;
  part(".remove").onclick = () => {
    URL.revokeObjectURL(address);
    const next = card.nextElementSibling ?? card.previousElementSibling;
    card.remove();
    next?.querySelector(".remove").focus(); // where the keyboard goes on
  };
  list.insertBefore(card, before);

  const show = ({ captions: [best, ...others], milliseconds: { reading, captioning } }) => {
    card.dataset.state = "captioned";
    part(".caption").textContent = best.text || "(no words)";
    part("img").alt = best.text;
    part("ol").append(...others.map(lineOf));
    part("details").hidden = !others.length;
    part(".time").textContent = `${Math.round(reading + captioning)} ms`;
    part(".time").title = `${reading.toFixed(1)} ms to read the photo, ${captioning.toFixed(1)} ms to caption it`;
    part(".copy").hidden = !navigator.clipboard;
    part(".copy").onclick = () => copy(best.text, part(".copy"));
  };

  const fail = (message) => {
    card.dataset.state = "failed";
    part(".caption").textContent = message;
  };

  return { show, fail };
}

function lineOf({ text }) {
  const line = document.createElement("li");
  line.textContent = text || "(no words)";
  return line;
}

async function copy(text, button) {
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
  } catch {
    button.textContent = "Not allowed";
  }
  setTimeout(() => (button.textContent = "Copy"), 1500);
}
