"""Live: the camera, frame by frame; faces keep their numbers, their probabilities are smoothed over time."""

from __future__ import annotations

import base64
import time
from collections import deque
from dataclasses import dataclass, field

import gradio as gr
from gradio.data_classes import ImageData
from PIL import Image

from fer_zoo.drawing import draw_faces, overlay
from fer_zoo.faces import Detection, face_frame
from fer_zoo.images import ImageError, load_image
from fer_zoo.labels import COLORS
from fer_zoo.tracking import Track, Tracker

from .html import bars, picture
from .readers import model_input, recognizer

TIME_LIMIT = 120  # seconds of one recording; who wants more clicks again
EVERY = 0.08  # seconds between two frames that the browser sends; a newer one takes an older one's place
VISITORS = 2  # who are served at the same time; others wait their turn
MAX_FRAME = 4_000_000  # characters of a frame as it arrives
PAUSE = 2.0  # seconds without a frame, before which none counts for the speed
STRIP_SECONDS = 30
STRIP_STEP = 0.25  # seconds; a column of the strip
STRIP_GAP = 1.0  # seconds; who was not seen for longer leaves a gap in it
STRIP_FACES = 4  # the latest

START = (
    "Allow the camera, then click Record. It ends when you click Stop or open another tab, and by itself "
    "after two minutes. "
    f"{VISITORS} visitors are served at a time; others wait for their turn.\n\n"
    "A question mark after an expression: the model is unsure."
)
WHAT_COMES = "<p>Here the camera's picture will show a numbered box around every face, with bars below.</p>"

# No frame leaves while another is on its way, so that none queue up where the line is slow. Stop is clicked
# when the time is up: where Gradio ends a recording by itself, a frame that just leaves can begin another.
# Says how long it took from a frame's departure to its answer on the screen: the server always reads the
# newest frame it has, so that was the last one to leave before it began.
SCRIPT = """
const left = [], fetch = window.fetch;
let underway = false, stream, last;
const stop = () => // the button that starts is the same one
  document.querySelector("#camera .capture-button:not(:has([title='start recording']))")?.click();
document.addEventListener("click", ({ target }) => {
  const tab = target.closest("[role=tab], .overflow-dropdown button");
  if (tab && tab.innerText.trim() !== "Live") stop();
}, true);
window.fetch = async (...request) => {
  const url = String(request[0]);
  if (!/\\/stream\\/\\w+$/.test(url)) return fetch(...request);
  if (url !== stream) {
    stream = url;
    setTimeout(() => {
      if (url === stream) stop();
    }, props.milliseconds);
  }
  last = performance.now();
  if (underway) return new Response("{}");
  underway = true;
  left.push(last);
  left.splice(0, left.length - 50);
  try { return await fetch(...request); } finally { underway = false; }
};
element.addEventListener("load", ({ target }) => {
  const now = performance.now(), began = now - target.dataset.milliseconds;
  const latency = now - (left.findLast((time) => time < began) ?? began);
  document.querySelector("#live-speed p").textContent =
    `${target.dataset.rate} frames/s · ${latency.toFixed()} ms from camera to screen`;
}, true);
"""


@dataclass
class Session:
    """What is kept of one visitor between two frames: numbers, never a picture."""

    tracker: Tracker = field(default_factory=Tracker)
    answered: deque[float] = field(default_factory=lambda: deque(maxlen=20))
    strip: deque[tuple[float, dict[int, tuple[str, float]]]] = field(default_factory=deque)

    def answer(self, now: float) -> None:
        """Counts a frame; what was before a pause does not count for the speed."""
        if self.answered and now - self.answered[-1] > PAUSE:
            self.answered.clear()
        self.answered.append(now)

    def frames_per_second(self) -> float:
        seconds = self.answered[-1] - self.answered[0]
        return (len(self.answered) - 1) / seconds if seconds else 0.0

    def remember(self, tracks: list[Track], now: float) -> None:
        """Add a column to the strip when it is time for one, drop those that are too old."""
        if not self.strip or now - self.strip[-1][0] >= STRIP_STEP:
            self.strip.append((now, {t.number: (t.face.label, t.face.confidence) for t in tracks}))
        while now - self.strip[0][0] > STRIP_SECONDS:
            self.strip.popleft()


def frame_bytes(frame: ImageData | None) -> bytes | None:
    """A frame as the browser sends it, inside the request; it is never written to a file."""
    if frame is None:
        return None
    head, _, data = (frame.url or "")[:MAX_FRAME].partition(";base64,")
    if not head.startswith("data:image/"):
        raise gr.Error("A frame must be a data URL of an image.")
    return base64.b64decode(data)


def read_frame(
    frame: bytes | None, model: str, smoothing: float, heat: bool, session: Session | None
) -> tuple:
    """The whole screen for the next frame."""
    if frame is None:
        return gr.skip(), gr.skip(), None
    started = time.monotonic()
    try:
        image = load_image(frame)
    except ImageError as error:
        raise gr.Error(str(error)) from None
    session = session or Session()
    session.tracker.smoothing = smoothing
    tracks = session.tracker.update(recognizer(model)(image), started)
    tracks.sort(key=lambda track: track.number)
    session.remember(tracks, started)
    if heat:
        image = with_maps(image, tracks, model)
    drawn = draw_faces(image, tracks)
    now = time.monotonic()
    session.answer(now)
    shown = picture(
        drawn,
        "The camera, with a numbered box around every face",
        data_rate=f"{session.frames_per_second():.1f}",
        data_milliseconds=f"{1000 * (now - started):.0f}",
    )
    found = "".join(
        bars(t.face.probs, f'<b style="color: {t.color}">■</b> Face {t.number}: <b>{t.face.marked}</b>')
        for t in tracks
    )
    return shown, f"{found or '<p>No face in sight.</p>'}{strip(session, started)}", session


def with_maps(image: Image.Image, tracks: list[Track], model: str) -> Image.Image:
    """Lay the Grad-CAM of every face's expression over it, at its place in the frame."""
    faces = [track.face for track in tracks]
    for face, explanation in zip(faces, recognizer(model).explain(faces), strict=True):
        x, y, _ = face_frame(Detection(face.box, face.score, face.landmarks))
        side = face.crop.width
        heat = overlay(face.crop, explanation.maps[face.label], side)
        image.paste(heat, (round(x - side / 2), round(y - side / 2)))
    return image


def strip(session: Session, now: float) -> str:
    """The last half minute, a row a face: the colour is the expression, the height its probability."""
    numbers = sorted({number for _, seen in session.strip for number in seen})
    times = [then for then, _ in session.strip] + [now]
    rows = []
    for number in numbers[-STRIP_FACES:]:
        columns = "".join(
            f'<rect x="{STRIP_SECONDS - (now - then):.2f}" y="{1 - seen[number][1]:.2f}" '
            f'width="{min(after - then, STRIP_GAP):.2f}" height="{seen[number][1]:.2f}" '
            f'fill="{COLORS[seen[number][0]]}"/>'
            for (then, seen), after in zip(session.strip, times[1:], strict=True)
            if number in seen
        )
        rows.append(
            f'<p>Face {number}</p><svg class="strip" role="img" '
            f'aria-label="Expressions of face {number} over the last {STRIP_SECONDS} seconds" '
            f'viewBox="0 0 {STRIP_SECONDS} 1" preserveAspectRatio="none" '
            f'shape-rendering="crispEdges">{columns}</svg>'
        )
    ends = f'<p class="ends"><span>{STRIP_SECONDS} s ago</span><span>now</span></p>'
    return "".join(rows) + ends if rows else ""


def live_tab() -> None:
    session = gr.State(time_to_live=TIME_LIMIT + 60)
    with gr.Row(elem_id="live"):  # on a phone one below another: what is seen right below the camera
        with gr.Column():
            camera = gr.Image(
                label="Camera",
                sources=["webcam"],
                streaming=True,
                webcam_options=gr.WebcamOptions(constraints={"video": {"width": 640, "height": 480}}),
                elem_id="camera",
            )
            camera.preprocess = frame_bytes
        with gr.Column():
            frame = gr.HTML(
                WHAT_COMES,
                js_on_load=SCRIPT,
                milliseconds=1000 * TIME_LIMIT,
                elem_id="live-frame",
                apply_default_css=False,
            )
            gr.HTML("<p></p>", elem_id="live-speed", apply_default_css=False)
            faces = gr.HTML(elem_id="live-faces", apply_default_css=False)
        with gr.Column():
            gr.Markdown(START)
            model = model_input("live-model")
            smoothing = gr.Slider(
                0, 0.95, value=0.6, step=0.05, label="Smoothing over time", elem_id="smoothing"
            )
            heat = gr.Checkbox(label="Show the evidence (Grad-CAM)", elem_id="live-heat")
    camera.stream(
        read_frame,
        [camera, model, smoothing, heat, session],
        [frame, faces, session],
        stream_every=EVERY,
        time_limit=TIME_LIMIT + 10,  # for who does not stop
        concurrency_limit=VISITORS,
        show_progress="hidden",
        api_visibility="private",
    )
