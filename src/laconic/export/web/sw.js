// Keeps the page on the device, so that it captions offline. The folder's files are fetched together and only their
// exact bytes are taken: the page is kept whole or not at all, and a newer one takes over when the user says so.

// laconic export writes which files, with their digests, and which version
const FILES = @files@;
const OURS = `laconic ${self.registration.scope} `; // other pages of the same host keep theirs
const CACHE = `${OURS}@version@`;

self.addEventListener("install", (event) => event.waitUntil(keep()));
self.addEventListener("activate", (event) => event.waitUntil(removeOlder()));
self.addEventListener("message", ({ data }) => data === "take over" && self.skipWaiting());

self.addEventListener("fetch", (event) => {
  const { scope } = self.registration;
  const address = event.request.url.split(/[?#]/, 1)[0];
  const name = address.slice(scope.length) || "index.html";
  if (event.request.method === "GET" && address.startsWith(scope) && Object.hasOwn(FILES, name)) {
    event.respondWith(kept(name, event.request));
  }
});

async function keep() {
  const cache = await caches.open(CACHE);
  try {
    await Promise.all(Object.entries(FILES).map(([name, digest]) => keepFile(cache, name, digest)));
  } catch (error) {
    await caches.delete(CACHE);
    throw error;
  }
}

async function keepFile(cache, name, integrity) {
  const response = await fetch(name, { cache: "no-cache", integrity });
  if (!response.ok) throw new Error(`${name}: status ${response.status}`);
  // made anew, since browsers refuse to show a page that was redirected on its way into the cache
  await cache.put(name, new Response(await response.blob(), { headers: response.headers }));
}

async function removeOlder() {
  const names = await caches.keys();
  await Promise.all(names.filter((name) => name.startsWith(OURS) && name !== CACHE).map((name) => caches.delete(name)));
}

async function kept(name, request) {
  const cache = await caches.open(CACHE);
  return (await cache.match(name)) ?? fetch(request);
}
