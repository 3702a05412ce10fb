// The camera of the device that shows the page: one frame at a time, the next when the last one's answer is shown.

import { h } from "./dom.js";

const LONGEST_SIDE = 1280; // pixels
const QUALITY = 0.85; // of the JPEG that is sent

export class Camera {
  // `take(bitmap, file)` resolves when the frame's answer is shown; `tell(running)` when the camera starts or stops.
  constructor(take, tell) {
    this.take = take;
    this.tell = tell;
    this.stream = null;
  }

  toggle() {
    return this.stream ? Promise.resolve(this.stop()) : this.start();
  }

  async start() {
    if (!navigator.mediaDevices?.getUserMedia) {
      throw new Error("A browser gives its camera to pages from this machine (http://localhost) or over HTTPS only.");
    }
    try {
      const video = { facingMode: "environment", width: { ideal: LONGEST_SIDE } };
      this.stream = await navigator.mediaDevices.getUserMedia({ video, audio: false });
    } catch (error) {
      throw new Error(`The camera cannot be used: ${error.message || error.name}`);
    }
    const { stream } = this;
    this.tell(true);
    stream.getVideoTracks()[0].addEventListener("ended", () => this.stop());
    const video = h("video", { playsinline: true, muted: true });
    video.muted = true;
    video.srcObject = stream;
    await video.play();
    this.run(stream, video);
  }

  stop() {
    if (!this.stream) return;
    for (const track of this.stream.getTracks()) track.stop();
    this.stream = null;
    this.tell(false);
  }

  async run(stream, video) {
    const canvas = document.createElement("canvas");
    while (this.stream === stream) {
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
      if (this.stream !== stream) return;
      await this.take(bitmap, new File([blob], "camera.jpg"));
      await new Promise(requestAnimationFrame);
    }
  }
}
