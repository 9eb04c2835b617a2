// Fetches the files that make a captioner, and looks whether they are those that the page was exported with.

/** The bytes of a file {name, bytes, digest}; `progress` is told of bytes as they come. Throws an Error for the user. */
export async function fetched({ name, bytes, digest }, progress) {
  const content = await received(new URL(name, import.meta.url), name, progress);
  if (content.byteLength !== bytes || (await digestOf(content, digest)) !== digest) {
    throw new Error(`${name} is damaged, or not the one that this page was made with`);
  }
  return content;
}

async function received(address, name, progress) {
  let response;
  try {
    response = await fetch(address);
  } catch {
    throw new Error(`${name} cannot be fetched: there is no connection, or the server is gone`);
  }
  if (!response.ok) throw new Error(`${name} is not on the server (status ${response.status})`);
  const counted = new TransformStream({
    transform(chunk, to) {
      progress(chunk.byteLength);
      to.enqueue(chunk);
    },
  });
  try {
    return await new Response(response.body.pipeThrough(counted)).arrayBuffer();
  } catch {
    throw new Error(`${name} came only in part: the connection broke off`);
  }
}

/** As in an integrity attribute; what is expected where the browser computes none, which it does on safe pages only. */
async function digestOf(content, expected) {
  if (!crypto.subtle) return expected;
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", content));
  return `sha256-${btoa(String.fromCharCode(...digest))}`;
}
