// A photo's file becomes the pixels that an encoder reads, as laconic reads it in Python: upright, in sRGB, transparent
// pixels on white, and a large JPEG at 1/2, 1/4 or 1/8 of its size first, where that is enough.

import { averaged, draftScale, resized } from "./resize.js";

/** side x side RGB bytes of a Blob. Throws an Error where the browser cannot decode it. */
export async function pixelsOf(file, side) {
  const bitmap = await decoded(file);
  try {
    const image = { width: bitmap.width, height: bitmap.height, rows: rowsOf(bitmap) };
    const scale = (await isJpeg(file)) ? draftScale(bitmap.width, bitmap.height, side) : 1;
    return resized(scale > 1 ? averaged(image, scale) : image, side);
  } finally {
    bitmap.close();
  }
}

async function decoded(file) {
  if (!file.size) throw new Error("The file is empty.");
  try {
    return await createImageBitmap(file, { imageOrientation: "from-image", colorSpaceConversion: "default" });
  } catch {
    throw new Error("This browser cannot read it: it is damaged, or no photo. JPEG, PNG and WebP always work.");
  }
}

async function isJpeg(file) {
  const head = new Uint8Array(await file.slice(0, 3).arrayBuffer());
  return head[0] === 0xff && head[1] === 0xd8 && head[2] === 0xff;
}

/** Gives some rows of a bitmap, on white. A canvas of its whole size would be too large on some phones. */
function rowsOf(bitmap) {
  const canvas = new OffscreenCanvas(bitmap.width, 1);
  const context = canvas.getContext("2d", { willReadFrequently: true, colorSpace: "srgb" });
  return (top, count) => {
    if (canvas.height !== count) canvas.height = count;
    context.fillStyle = "white";
    context.fillRect(0, 0, bitmap.width, count);
    context.drawImage(bitmap, 0, top, bitmap.width, count, 0, 0, bitmap.width, count);
    const { data } = context.getImageData(0, 0, bitmap.width, count);
    if (data[3] !== 255) throw new Error("It is too wide for this browser."); // nothing has been drawn, not even white
    return data;
  };
}
