"""The Space under input that is broken, hostile or simultaneous; the long forms run by `pytest -m long`."""

from __future__ import annotations

import asyncio
import base64
import io
import random
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import urlparse

import gradio as gr
import httpx
import numpy as np
import pytest
import safehttpx
from gradio.state_holder import SessionState
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image

from app import build
from fer_zoo.images import ImageError, load_image
from space.fetch import fetch
from space.live import read_frame
from space.programs import predict, predict_batch
from space.readers import MODELS, recognizer
from space.server import refuse, sweep


def mutated(photo: bytes, dice: random.Random) -> bytes:
    """The photo with some bytes changed, cut out, doubled or cut off, the head as often as the rest."""
    data = bytearray(photo)
    for _ in range(dice.randint(1, 20)):
        at = dice.randrange(min(len(data), dice.choice([64, 700, len(data)])))
        match dice.randrange(4):
            case 0:
                data[at] = dice.randrange(256)
            case 1:
                del data[at : at + dice.randrange(1, 64)]
            case 2:
                data[at:at] = data[at : at + dice.randrange(1, 64)]
            case 3 if dice.random() < 0.2:
                del data[max(at, 100) :]
        data = data or bytearray(1)
    return bytes(data)


def read_mutated(photos: list[bytes], count: int) -> tuple[int, int]:
    """How many of `count` mutated photos were read and how many refused in one sentence."""
    dice, read, refused = random.Random(0), 0, 0
    reader = recognizer(MODELS[0], "whole")
    for number in range(count):
        try:
            reader(load_image(mutated(photos[number % len(photos)], dice)))
            read += 1
        except ImageError as error:
            refused += 1
            assert "\n" not in str(error) and str(error).endswith(".")
    return read, refused


@pytest.fixture
def photos(examples, tmp_path) -> list[bytes]:
    """One photo as a JPEG, PNG, WebP, GIF and TIFF file, small, so that damage is felt."""
    photo = load_image(examples / "astronaut.jpg").resize((96, 96))
    files = []
    for kind in ("jpeg", "png", "webp", "gif", "tiff"):
        photo.save(tmp_path / f"photo.{kind}")
        files.append((tmp_path / f"photo.{kind}").read_bytes())
    return files


@pytest.mark.filterwarnings("ignore::UserWarning:PIL", "ignore::PIL.Image.DecompressionBombWarning")
def test_mutated_photos_are_read_or_refused(photos):
    read, refused = read_mutated(photos, 50)
    assert read and refused


@pytest.mark.long
@pytest.mark.filterwarnings("ignore::UserWarning:PIL", "ignore::PIL.Image.DecompressionBombWarning")
def test_a_thousand_mutated_photos_leave_nothing_behind(photos):
    import psutil

    read_mutated(photos, 200)
    before = psutil.Process().memory_info().rss
    read, refused = read_mutated(photos, 1000)
    assert read and refused
    assert psutil.Process().memory_info().rss - before < 50 * 2**20


def test_threads_and_models_at_once_give_no_wrong_map(examples):
    check_maps(examples, rounds=2)


@pytest.mark.long
def test_threads_and_models_for_long_give_no_wrong_map(examples):
    check_maps(examples, rounds=50)


def check_maps(examples, rounds: int) -> None:
    faces = [recognizer(MODELS[0])(examples / name)[0] for name in ("astronaut.jpg", "grace_hopper.jpg")]
    jobs = [(model, face) for model in MODELS for face in faces]
    alone = [recognizer(model).explain(face) for model, face in jobs]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda job: recognizer(job[0]).explain(job[1]), jobs * rounds))
    for found, wanted in zip(together, alone * rounds, strict=True):
        assert found.flat == wanted.flat
        for name, heat in wanted.maps.items():
            np.testing.assert_allclose(found.maps[name], heat, atol=1e-5)


NONSENSE = [
    [],
    ["text", None, False],
    [5, 5, 5],
    [{"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}, MODELS[0], False],
    [{"path": "\0", "meta": {"_type": "gradio.FileData"}}, MODELS[0], False],
    [{"url": "data:image/png;base64,AAAA", "meta": {"_type": "gradio.FileData"}}, MODELS[0], False],
    [{"path": None, "meta": {"_type": "gradio.FileData"}}, ["a"], {"b": 1}],
    [[{"path": "../../x", "meta": {"_type": "gradio.FileData"}}], MODELS[0], False],
]


def test_nonsense_gives_neither_path_nor_traceback(app):
    answers = []
    with httpx.Client(base_url=f"{app.url}/gradio_api", timeout=60) as http:
        for name in ("predict", "predict_batch", "video"):
            for data in NONSENSE:
                call = http.post(f"/call/{name}", json={"data": data}).json()
                answers.append(http.get(f"/call/{name}/{call['event_id']}").text)
                assert answers[-1].startswith("event: error")
        events = len(http.get("/../config").json()["dependencies"])
        for number in [*range(events), 999, -1]:  # the screens' own events, too
            for data in ([], [None] * 9):
                body = {"data": data, "fn_index": number, "session_hash": "nonsense"}
                answers.append(http.post("/queue/join", json=body).text)
        answers.append(http.get("/queue/data", params={"session_hash": "nonsense"}).text)
        answers.append(http.get("/file=/etc/passwd").text.replace("/etc/passwd", ""))
    for text in [*answers, app.log.read_text()]:
        assert "Traceback" not in text
        assert not any(place in text for place in ("/gradio/", "/space/", "site-packages", "/etc/"))


def test_newest_camera_frame_wins(app):
    """Frames come faster than they are read: some are passed over, the last one is not."""
    shades = range(0, 240, 8)
    with httpx.Client(base_url=f"{app.url}/gradio_api", timeout=60) as http:
        events = http.get("/../config").json()["dependencies"]
        (stream,) = (event["id"] for event in events if event["connection"] == "stream")

        def body(shade: int) -> dict:
            file = io.BytesIO()
            Image.new("RGB", (640, 480), (shade,) * 3).save(file, "JPEG")
            url = f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"
            data = [{"url": url, "path": None, "is_stream": True}, MODELS[-1], 0.5, False, None]
            return {"data": data, "fn_index": stream, "session_hash": "camera"}

        bodies = [body(shade) for shade in shades]
        event = http.post("/queue/join", json=bodies[0]).json()["event_id"]
        answers = []
        with http.stream("GET", "/queue/data", params={"session_hash": "camera"}) as lines:
            for line in filter(None, lines.iter_lines()):
                for data in re.findall(r"data:image/jpeg;base64,([\w+/=]+)", line):
                    with Image.open(io.BytesIO(base64.b64decode(data))) as picture:
                        answers.append(picture.convert("L").getpixel((0, 0)))
                if len(answers) == 1:
                    for later in bodies[1:]:
                        http.post(f"/stream/{event}", json=later)
                if answers and answers[-1] >= shades[-1] - 1:
                    http.post(f"/stream/{event}/close")
                    break
    assert answers == sorted(answers)
    assert 2 <= len(answers) < len(shades)


def test_upload_cut_short_leaves_no_traceback(app):
    address = urlparse(app.url)
    with socket.create_connection((address.hostname, address.port)) as visitor:
        visitor.sendall(
            b"POST /gradio_api/upload HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 2000000\r\n"
            b"Content-Type: multipart/form-data; boundary=x\r\n\r\n--x\r\n"
            b'Content-Disposition: form-data; name="files"; filename="cut.png"\r\n\r\n' + bytes(1_000_000)
        )
        visitor.shutdown(socket.SHUT_WR)
        while visitor.recv(4096):  # until the server has had enough of it, too
            pass
    httpx.get(app.url)
    assert "Traceback" not in app.log.read_text()


PUBLIC = "93.184.215.14"
NAMES = {"photos.example": [PUBLIC], "both.example": [PUBLIC, "10.0.0.1"], "none.example": []}
PRIVATE = ["127.0.0.1", "localhost", "[::1]", "10.0.0.1", "[fe80::1]", "224.0.0.1", "0x7f.1"]
PRIVATE += [
    "[::7f00:1]",
    "[::ffff:0:7f00:1]",
    "[64:ff9b::a00:1]",
    "[64:ff9b:1::a00:1]",
    "[2002:a00:1::]",
    "[fec0::1]",
]  # of this machine or 10.0.0.1 by a gateway, and a site's own


@pytest.fixture
def elsewhere(monkeypatch, tmp_path) -> Iterator[SimpleNamespace]:
    """A server of files on this machine, `photos.example`, which passes for a public one.

    Its `moved` says where a path leads to, its `asked` what it was asked for.
    """
    resolve, transport = socket.getaddrinfo, safehttpx.AsyncSecureTransport
    moved, asked = {}, []

    class Files(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(302 if self.path in moved else 200)
            if self.path in moved:
                self.send_header("Location", moved[self.path])
            if self.path == "/packed":
                self.send_header("Content-Encoding", "gzip")
            self.end_headers()
            self.wfile.write(b"" if self.path in moved else bytes(1000))

        def log_message(self, *args):
            pass

    def named(host: str, *args, **kwargs) -> list:
        found = [place for name in NAMES.get(host, [host]) for place in resolve(name, *args, **kwargs)]
        if not found:
            raise socket.gaierror("no such name")
        return found

    def pinned(address: str) -> httpx.AsyncBaseTransport:
        return transport({PUBLIC: "127.0.0.1"}[address])

    monkeypatch.setattr("socket.getaddrinfo", named)
    monkeypatch.setattr("safehttpx.AsyncSecureTransport", pinned)
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), Files) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield SimpleNamespace(port=server.server_port, moved=moved, asked=asked)
        server.shutdown()


def test_files_are_fetched_only_so_large(elsewhere):
    elsewhere.moved["/moved"] = "/a/photo.jpg?size=full"
    path = Path(asyncio.run(fetch(f"http://photos.example:{elsewhere.port}/moved", 1000)))
    assert (path.name, path.read_bytes()) == ("photo.jpg", bytes(1000))
    with pytest.raises(gr.Error, match="at most 0 MB"):
        asyncio.run(fetch(f"http://photos.example:{elsewhere.port}/photo.jpg", 999))
    with pytest.raises(gr.Error, match="could not be fetched from its address"):
        asyncio.run(fetch(f"http://photos.example:{elsewhere.port}/packed", 1000))


@pytest.mark.parametrize("host", [*PRIVATE, "both.example", "none.example"])
def test_no_address_leads_to_a_private_one(elsewhere, host):
    elsewhere.moved["/moved"] = f"http://{host}:{elsewhere.port}/inside"
    with pytest.raises(gr.Error, match="could not be fetched from its address"):
        asyncio.run(fetch(f"http://photos.example:{elsewhere.port}/moved", 1000))
    assert elsewhere.asked == ["/moved"]


def test_addresses_of_this_machine_are_not_asked(app):
    client = Client(app.url, verbose=False)
    photo = {"path": f"{app.url}/theme.css", "meta": {"_type": "gradio.FileData"}}
    with pytest.raises(AppError, match=r"^The file could not be fetched from its address\.$"):
        client.predict(photo, api_name="/predict")


@pytest.mark.parametrize("route", ["file=", "file/", "file=http%3A%2F%2Fphotos.example%2Fa.jpg?"])
def test_the_space_hands_on_no_address(app, route):
    answer = httpx.get(f"{app.url}/gradio_api/{route}http://photos.example/a.jpg")
    assert answer.status_code == 404


def test_files_that_nobody_deletes_are_deleted(tmp_path):
    example, cut = tmp_path / "example" / "photo.jpg", tmp_path / "visitor" / "cut.png"
    for folder in (example.parent, cut.parent, tmp_path / "empty"):
        folder.mkdir()
    example.touch()
    cut.touch()
    sweep(tmp_path, {example.parent, example}, before=cut.stat().st_ctime)
    assert cut.exists(), "it is young"
    sweep(tmp_path, {example.parent, example}, before=time.time() + 1)
    assert [*tmp_path.rglob("*")] == [example.parent, example]


@pytest.fixture(scope="module")
def ask() -> Callable:
    """Asks a Space that is built here: `ask(function, inputs)` -> its outputs, the visitor's state."""
    space = build()
    space.max_file_size = None  # which is given at its launch

    def ask(function: Callable, inputs: list) -> tuple[list, SessionState]:
        (event,) = (event for event in space.fns.values() if event.fn is function)
        state = SessionState(space)
        return asyncio.run(space.process_api(event, inputs, state))["data"], state

    return ask


def test_a_camera_picture_is_not_kept_for_deep_links(ask, examples):
    url = f"data:image/jpeg;base64,{base64.b64encode((examples / 'astronaut.jpg').read_bytes()).decode()}"
    frame = {"path": None, "url": url, "meta": {"_type": "gradio.FileData"}}
    (shown, *_), state = ask(read_frame, [frame, MODELS[0], 0.6, False, None])
    assert "data:image" in shown
    assert "data:image" not in repr([*state.components])


def test_only_so_many_files_are_fetched_and_only_where_files_belong(ask, monkeypatch):
    fetched = []

    async def note(url: str, limit: int) -> str:
        fetched.append(url)
        raise gr.Error("It is not there.")

    monkeypatch.setattr("space.server.fetch", note)
    monkeypatch.setattr("gradio.processing_utils.async_ssrf_protected_download", note)
    photos = [
        {"path": f"https://photos.example/{i}.jpg", "meta": {"_type": "gradio.FileData"}} for i in range(33)
    ]
    with pytest.raises(gr.Error, match="at most 32 files by their address, not 33"):
        ask(predict_batch, [photos, MODELS[0], False])
    for misplaced in ([None, photos[0], False], [None, MODELS[0], photos[0]]):
        with pytest.raises(gr.Error, match="what its input should be"):
            ask(predict, misplaced)
    assert not fetched
    with pytest.raises(gr.Error, match="It is not there"):
        ask(predict, [photos[0], MODELS[0], False])
    assert fetched == ["https://photos.example/0.jpg"]


def test_what_a_route_cannot_make_sense_of_is_logged_without_its_words(caplog):
    try:
        {}["a visitor's words"]
    except KeyError as error:
        answer = asyncio.run(refuse(None, error))
    assert answer.status_code == 400
    assert re.fullmatch(r"KeyError in test_hardening\.py:\d+", caplog.messages[0])


@pytest.mark.parametrize("name", ["ä ö.jpg", "a'b\"c.jpg", "<b>x</b>.jpg", "x" * 200 + ".jpg", "%2e%2e.jpg"])
def test_odd_names_are_only_names(app, examples, tmp_path, name):
    client = Client(app.url, verbose=False)
    (tmp_path / name.replace("/", "")).write_bytes((examples / "astronaut.jpg").read_bytes())
    assert client.predict(handle_file(tmp_path / name.replace("/", "")), api_name="/predict")


def test_too_many_photos_are_refused(app, examples):
    client = Client(app.url, verbose=False)
    with pytest.raises(AppError, match="1 to 32 photos"):
        client.predict([handle_file(examples / "astronaut.jpg")] * 33, api_name="/predict_batch")
