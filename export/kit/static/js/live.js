/** Videos and cameras, frame by frame. */

/** A camera or video cannot be used. The message is for the person at the page. */
export class SourceError extends Error {}

/**
 * Call `onFrame` for the newest frame of `video`, and again when that is done, until `signal` is aborted. Frames that
 * pass meanwhile are left out. While the video stands still, nothing is called.
 *
 * @param {HTMLVideoElement} video
 * @param {AbortSignal} signal
 * @param {() => Promise<void>} onFrame
 */
export async function follow(video, signal, onFrame) {
  while (await nextFrame(video, signal)) await onFrame();
}

/** Whether another frame came, rather than the end. */
function nextFrame(video, signal) {
  return new Promise((resolve) => {
    if (signal.aborted) return resolve(false);
    const end = () => resolve(false);
    signal.addEventListener('abort', end, { once: true });
    const come = () => {
      signal.removeEventListener('abort', end);
      resolve(!signal.aborted);
    };
    if ('requestVideoFrameCallback' in video) video.requestVideoFrameCallback(come);
    else requestAnimationFrame(come);
  });
}

const CAMERA_PROBLEMS = {
  NotAllowedError: 'The camera may not be used. Allow it for this page in the browser’s site settings, then try again.',
  NotFoundError: 'No camera was found. Connect one, then try again.',
  NotReadableError: 'The camera is in use by another program. Close that, then try again.',
  OverconstrainedError: 'That camera is gone. Choose another one.',
};

/**
 * Ask for a camera; this may wait long for the user.
 *
 * @param {string} deviceId empty: the one that looks away from the user, where there are several
 * @returns {Promise<MediaStream>}
 */
export async function requestCamera(deviceId) {
  if (!navigator.mediaDevices?.getUserMedia) {
    throw new SourceError(
      window.isSecureContext
        ? 'This browser gives pages no access to cameras.'
        : 'Browsers give a camera to secure pages only: open this page by https://, or from localhost.',
    );
  }
  const device = deviceId ? { deviceId: { exact: deviceId } } : { facingMode: 'environment' };
  try {
    return await navigator.mediaDevices.getUserMedia({ video: { ...device, width: { ideal: 1280 } }, audio: false });
  } catch (error) {
    throw new SourceError(CAMERA_PROBLEMS[error.name] ?? `The camera did not start: ${error.message}.`, { cause: error });
  }
}

/** @param {MediaStream} stream */
export function stopStream(stream) {
  for (const track of stream.getTracks()) track.stop();
}

/** @returns {Promise<MediaDeviceInfo[]>} */
export async function listCameras() {
  const devices = await navigator.mediaDevices.enumerateDevices();
  return devices.filter((device) => device.kind === 'videoinput');
}

/**
 * Play a video file, over and over, in `video`.
 *
 * @param {HTMLVideoElement} video
 * @param {File} file
 * @param {AbortSignal} signal something else is to be shown, while this is being opened
 */
export async function playClip(video, file, signal) {
  video.loop = true;
  video.src = URL.createObjectURL(file);
  await new Promise((resolve, reject) => {
    signal.addEventListener('abort', () => reject(signal.reason), { once: true });
    video.onloadeddata = resolve;
    video.onerror = () => {
      reject(new SourceError(`${file.name} is not a video that this browser can play. Try H.264 in an MP4 file.`));
    };
  });
  if (!video.videoWidth) throw new SourceError(`${file.name} has sound but no pictures that this browser can play.`);
  await video.play();
  signal.throwIfAborted();
}

/** Stop whatever `video` shows, and give the camera back. */
export function release(video) {
  video.pause();
  if (video.srcObject) stopStream(video.srcObject);
  if (video.src) URL.revokeObjectURL(video.src);
  Object.assign(video, { srcObject: null, onloadeddata: null, onerror: null });
  video.removeAttribute('src');
}

/** Frames a second, over the last ones. */
export class FrameRate {
  #times = [];

  /** Count a frame; gives frames a second, or null while there is too little to say. */
  count(now = performance.now()) {
    const last = this.#times.at(-1);
    // After a pause the old frames say nothing.
    if (last !== undefined && now - last > 2000) this.#times = [];
    this.#times.push(now);
    if (this.#times.length > 20) this.#times.shift();
    if (this.#times.length < 3) return null;
    return (1000 * (this.#times.length - 1)) / (now - this.#times[0]);
  }
}
