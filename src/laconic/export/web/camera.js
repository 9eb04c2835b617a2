// The camera: a phone opens its own, elsewhere a dialog shows what it sees until a photo is taken.

export const isPhone = () => matchMedia("(pointer: coarse)").matches;
export const hasCamera = () => Boolean(navigator.mediaDevices?.getUserMedia);

/** Opens the dialog; `take` gets a list of the file of the photo that is taken. Throws an Error for the user. */
export async function openViewfinder(dialog, take) {
  const video = dialog.querySelector("video");
  const stream = await streamOf({ facingMode: "environment", width: { ideal: 1280 } });
  dialog.onclose = () => {
    for (const track of stream.getTracks()) track.stop();
    video.srcObject = null;
  };
  dialog.querySelector(".close").onclick = () => dialog.close();
  dialog.querySelector(".take").onclick = async () => {
    take([await photographed(video)]);
    dialog.close();
  };
  dialog.querySelector(".take").disabled = true;
  video.onloadeddata = () => (dialog.querySelector(".take").disabled = false);
  video.srcObject = stream;
  dialog.showModal();
}

async function streamOf(video) {
  try {
    return await navigator.mediaDevices.getUserMedia({ video });
  } catch (error) {
    if (error.name === "NotFoundError") throw new Error("There is no camera.");
    throw new Error(`The camera cannot be used (${error.message}). Allow it in the browser, or choose a photo.`);
  }
}

async function photographed(video) {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [video.videoWidth, video.videoHeight];
  canvas.getContext("2d").drawImage(video, 0, 0);
  const blob = await new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
  return new File([blob], "photo.png", { type: "image/png" });
}
