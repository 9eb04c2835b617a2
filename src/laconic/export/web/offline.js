// Has the service worker keep the page on the device, and offers a newer page where the server has one.

/** `say` is told in words whether the page works offline; `offer` gets a function that takes the newer page. */
export async function keepOffline(say, offer) {
  if (!navigator.serviceWorker) {
    say(isSecureContext ? "needs a connection: this browser keeps no pages" : "needs a connection: not served by https");
    return;
  }
  try {
    const registration = await navigator.serviceWorker.register("sw.js", { updateViaCache: "none" });
    registration.addEventListener("updatefound", () => watch(registration, say, offer));
    await watch(registration, say, offer);
  } catch (error) {
    say(`needs a connection: the page could not be kept (${error.message})`);
  }
}

function watch(registration, say, offer) {
  const { installing, waiting, active } = registration;
  if (active) say("works offline");
  if (waiting) offer(() => take(waiting));
  installing?.addEventListener("statechange", () => {
    if (installing.state === "installed" && registration.active) offer(() => take(installing));
    if (installing.state === "activated") say("works offline");
    if (installing.state === "redundant" && !registration.active) {
      say("needs a connection: the files on the server are not those of one export");
    }
  });
}

function take(worker) {
  worker.addEventListener("statechange", () => worker.state === "activated" && location.reload());
  worker.postMessage("take over");
}
