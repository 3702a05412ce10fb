// The camera of the device that shows the page: one frame at a time, the next when the last one's answer is shown.

import { h } from "./dom.js";

const LONGEST_SIDE = 1280; // pixels
const QUALITY = 0.85; // of the JPEG that is sent
// What a browser says (W3C, Media Capture and Streams, getUserMedia), in words for who looks at the page.
const TROUBLE = {
  NotAllowedError: "The browser does not let this page use the camera. Allow it for this address in the browser's settings, then try again.",
  NotFoundError: "There is no camera on this device.",
  NotReadableError: "The camera does not start: another program may be using it.",
};

export class Camera {
  // `take(bitmap, file)` resolves when the frame's answer is shown; `tell(running)` when the camera starts or stops.
  // `fail(text)` says why it stopped by itself.
  constructor(take, tell, fail) {
    Object.assign(this, { take, tell, fail, turn: null }); // from one start to the next stop
  }

  toggle() {
    if (this.turn) this.stop();
    else this.start();
  }

  async start() {
    if (!navigator.mediaDevices?.getUserMedia) {
      this.fail("A browser gives its camera to pages from this machine (http://localhost) or over HTTPS only.");
      return;
    }
    const turn = (this.turn = { stream: null });
    this.tell(true);
    try {
      const video = { facingMode: "environment", width: { ideal: LONGEST_SIDE } };
      turn.stream = await navigator.mediaDevices.getUserMedia({ video, audio: false });
      if (this.turn === turn) await this.show(turn);
      else release(turn); // it was stopped while the browser asked the user
    } catch (error) {
      if (this.turn === turn) this.stop(TROUBLE[error.name] ?? `The camera cannot be used: ${error.message || error.name}`);
    }
  }

  async show(turn) {
    turn.stream.getVideoTracks()[0].addEventListener("ended", () => this.turn === turn && this.stop("The camera was disconnected."));
    const video = h("video", { playsinline: true });
    video.muted = true;
    video.srcObject = turn.stream;
    await video.play();
    await this.run(turn, video);
  }

  stop(why = "") {
    if (!this.turn) return;
    release(this.turn);
    this.turn = null;
    this.tell(false);
    if (why) this.fail(why);
  }

  async run(turn, video) {
    const canvas = document.createElement("canvas");
    while (this.turn === turn) {
      if (!video.videoWidth) {
        await new Promise(requestAnimationFrame);
        continue;
      }
      const scale = Math.min(1, LONGEST_SIDE / Math.max(video.videoWidth, video.videoHeight));
      canvas.width = Math.round(video.videoWidth * scale);
      canvas.height = Math.round(video.videoHeight * scale);
      canvas.getContext("2d").drawImage(video, 0, 0, canvas.width, canvas.height);
      const blob = await new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", QUALITY));
      const bitmap = await createImageBitmap(canvas);
      if (this.turn !== turn) return;
      await this.take(bitmap, new File([blob], "camera.jpg"));
      await new Promise(requestAnimationFrame);
    }
  }
}

function release({ stream }) {
  for (const track of stream?.getTracks() ?? []) track.stop();
}
