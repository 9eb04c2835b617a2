// Looks whether this browser can run the page, and starts app.js or says what is missing. An ordinary script, because
// modules do not even begin where a page was opened as a file.
{
  // a WebAssembly module whose one function makes a vector
  const head = [0x00, 0x61, 0x73, 0x6d, 1, 0, 0, 0];
  const vector = [...head, 1, 5, 1, 0x60, 0, 1, 0x7b, 3, 2, 1, 0, 10, 8, 1, 6, 0, 0x41, 0, 0xfd, 0x0f, 0x0b];
  const needs = [
    [
      () => location.protocol !== "file:",
      "This page was opened as a file, from where browsers load no programs. Run “python3 -m http.server” in its folder, " +
        "and open http://localhost:8000/. Any other web server will do as well.",
    ],
    [
      () => WebAssembly.validate(new Uint8Array(vector)),
      "This browser does not run WebAssembly with vectors (SIMD), which captioning needs. Use a newer one: Chrome or " +
        "Edge 91, Firefox 114, Safari 16.4, or later. A strict or “lockdown” mode may switch it off.",
    ],
    [
      () => Worker && OffscreenCanvas && createImageBitmap && DecompressionStream,
      "This browser cannot work on photos beside the page. Use a newer one: Chrome or Edge 91, Firefox 114, Safari 16.4, " +
        "or later.",
    ],
  ];

  const say = (message) => {
    document.getElementById("problem").textContent = message;
    document.body.dataset.state = "broken";
  };

  const isMet = (need) => {
    try {
      return Boolean(need());
    } catch {
      return false; // there is no such name
    }
  };

  const [, lacking] = needs.find(([need]) => !isMet(need)) ?? [];
  if (lacking) say(lacking);
  else {
    import("./app.js").catch((error) =>
      say(`The page's program cannot be loaded (${error.message}). Reload the page; if that does not help, copy the whole folder of the export to the server again.`),
    );
  }
}
