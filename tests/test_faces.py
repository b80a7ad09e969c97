"""Detectors find faces wherever they are; crops frame them as FER2013 does."""

from __future__ import annotations

import io
import pickle
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fer_zoo.faces import (
    YUNET_FILE,
    Detection,
    DetectorError,
    Mtcnn,
    WholePicture,
    YuNet,
    crop_face,
    get_detector,
)

ROOT = Path(__file__).resolve().parent.parent
FER2013 = ROOT / "../shared/fer2013"
YUNET = ROOT / "../shared/yunet" / YUNET_FILE

# Looked up by hand in examples/astronaut.jpg.
ASTRONAUT_BOX = (178, 60, 268, 175)
ASTRONAUT_EYES = ((202, 104), (245, 104))


@pytest.fixture(scope="module")
def astronaut() -> np.ndarray:
    return np.asarray(Image.open(ROOT / "examples/astronaut.jpg").convert("RGB"))


@pytest.fixture(scope="module")
def hopper() -> np.ndarray:
    return np.asarray(Image.open(ROOT / "examples/grace_hopper.jpg").convert("RGB"))


@pytest.fixture(scope="module", params=["mtcnn", "yunet"])
def detector(request):
    if request.param == "mtcnn":
        return Mtcnn()
    if not YUNET.is_file():
        pytest.skip("YuNet's file is not here: the detector 'yunet' is not tested")
    return YuNet(YUNET)


def overlap(a, b) -> float:
    """Intersection over union of two boxes."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    both = max(0, width) * max(0, height)
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)


def test_a_detector_goes_to_another_process(detector, astronaut):
    again = pickle.loads(pickle.dumps(detector))
    assert [face.box for face in again.detect(astronaut)] == [face.box for face in detector.detect(astronaut)]


@pytest.mark.parametrize("factor", [0.25, 0.5, 1, 2, 6])
def test_one_face_at_any_size_in_pixels_of_the_picture(detector, astronaut, factor):
    side = int(512 * factor)
    rgb = np.asarray(Image.fromarray(astronaut).resize((side, side)))
    (face,) = detector.detect(rgb)
    assert overlap(np.array(face.box) / factor, ASTRONAUT_BOX) > 0.75
    assert np.abs(face.landmarks[:2] / factor - ASTRONAUT_EYES).max() < 8
    assert 0.8 < face.score <= 1


def test_several_faces_in_a_wide_picture(detector, astronaut, hopper):
    wide = np.zeros((600, 1600, 3), np.uint8)
    wide[:512, 50:562] = astronaut
    wide[:, 600:1112] = hopper
    wide[:512, 1088:] = astronaut
    faces = sorted(detector.detect(wide), key=lambda face: face.box[0])
    assert len(faces) == 3
    assert overlap(np.array(faces[0].box) - (50, 0, 50, 0), ASTRONAUT_BOX) > 0.7
    assert overlap(np.array(faces[2].box) - (1088, 0, 1088, 0), ASTRONAUT_BOX) > 0.7


def test_a_picture_that_is_all_face(detector, astronaut):
    x1, y1, x2, y2 = ASTRONAUT_BOX
    tiny = Image.fromarray(astronaut[y1:y2, x1:x2]).convert("L").resize((48, 48))
    (face,) = detector.detect(np.asarray(tiny.convert("RGB")))
    assert overlap(face.box, (0, 0, 48, 48)) > 0.6


@pytest.mark.parametrize(
    "shape", [(1, 1), (5, 5), (1, 3000), (3000, 1), (11, 400), (48, 48), (480, 640), (2000, 1500)]
)
@pytest.mark.parametrize("kind", ["black", "white", "noise"])
def test_no_face_is_an_empty_list(detector, shape, kind):
    if kind == "noise":
        rgb = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    else:
        rgb = np.full((*shape, 3), 255 * (kind == "white"), np.uint8)
    assert detector.detect(rgb) == []


def test_a_face_at_the_border_keeps_its_frame(detector, astronaut):
    (whole,) = detector.detect(astronaut)
    cut = 195  # the picture now begins within the face, left of the eye
    (face,) = detector.detect(np.ascontiguousarray(astronaut[:, cut:]))
    assert face.box[0] < 2
    crop = crop_face(astronaut[:, cut:], face)
    assert crop.width == crop.height
    assert crop.width == pytest.approx(crop_face(astronaut, whole).width, rel=0.15)
    pixels = np.asarray(crop)
    assert (pixels[:, :5] == pixels[:, :1]).all(), "what lies outside repeats the edge"
    eyes = face.landmarks[:2].mean(axis=0)[0]
    assert abs(eyes - (ASTRONAUT_EYES[0][0] + ASTRONAUT_EYES[1][0]) / 2 + cut) < 8


def test_threads_find_what_one_thread_finds(detector, astronaut, hopper):
    pictures = [astronaut, hopper, astronaut[:, ::-1].copy(), hopper[::2, ::2].copy()] * 4
    serial = [[face.box for face in detector.detect(picture)] for picture in pictures]
    with ThreadPoolExecutor(8) as pool:
        parallel = [[face.box for face in faces] for faces in pool.map(detector.detect, pictures)]
    assert parallel == serial
    assert all(len(boxes) == 1 for boxes in serial)


def test_whole_takes_the_picture_as_it_is():
    rgb = np.random.default_rng(0).integers(0, 256, (48, 48, 3), dtype=np.uint8)
    (face,) = get_detector("whole").detect(rgb)
    assert (face.box, face.score) == ((0, 0, 48, 48), 1)
    assert np.array_equal(np.asarray(crop_face(rgb, face)), rgb)


def test_whole_loses_nothing_of_a_picture_that_is_not_square():
    rgb = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    (face,) = WholePicture().detect(rgb)
    assert np.array_equal(np.asarray(crop_face(rgb, face))[10:50], rgb)


def detection(x: float, y: float, side: float = 100, landmarks: bool = True) -> Detection:
    """A face as MTCNN sees the median face of FER2013, in a FER2013 image of this side centred on (x, y)."""
    box = (x - 0.41 * side, y - 0.52 * side, x + 0.39 * side, y + 0.53 * side)
    points = np.array([[-0.185, -0.115], [0.185, -0.115], [0, 0.08], [-0.15, 0.284], [0.15, 0.284]])
    return Detection(box, 0.99, points * side + (x, y) if landmarks else None)


@pytest.mark.parametrize("landmarks", [True, False])
def test_crop_finds_the_frame_of_fer2013(landmarks):
    # Every pixel holds its own place, so that the crop tells where it was cut.
    rgb = np.zeros((255, 255, 3), np.uint8)
    rgb[..., 0], rgb[..., 1] = np.meshgrid(np.arange(255), np.arange(255))
    crop = np.asarray(crop_face(rgb, detection(120, 130, landmarks=landmarks))).astype(int)
    assert crop.shape[0] == crop.shape[1] == pytest.approx(100, abs=2)
    assert crop[0, 0, :2] == pytest.approx((70, 80), abs=2)
    assert crop[-1, -1, :2] == pytest.approx((169, 179), abs=2)


@pytest.mark.parametrize("x, y", [(0, 0), (200, 0), (0, 200), (200, 200), (100, -60)])
def test_crop_is_padded_and_never_shifted(x, y):
    rgb = np.random.default_rng(0).integers(0, 256, (201, 201, 3), dtype=np.uint8)
    border = 200
    padded = np.pad(rgb, ((border, border), (border, border), (0, 0)), mode="edge")
    inside = crop_face(padded, detection(x + border, y + border))
    assert np.array_equal(np.asarray(crop_face(rgb, detection(x, y))), np.asarray(inside))


def test_crop_of_a_face_smaller_than_a_pixel():
    assert crop_face(np.zeros((9, 9, 3), np.uint8), detection(4, 4, side=0.1)).size == (1, 1)


def test_fer2013_images_are_cut_to_themselves(detector):
    if not FER2013.is_dir():
        pytest.skip("FER2013 is not here: the calibration of the crop is not tested")
    parquet = pytest.importorskip("pyarrow.parquet")
    column = parquet.read_table(sorted(FER2013.glob("data/validation-*"))[0], columns=["image"])["image"]
    frames = []
    for row in column[:60].to_pylist():
        rgb = np.asarray(Image.open(io.BytesIO(row["bytes"])).convert("RGB"))
        # Every pixel holds its own place, as above; 5 pixels a step tell parts of one.
        place = np.zeros((240, 240, 3), np.uint8)
        place[..., 0], place[..., 1] = np.meshgrid(np.arange(240), np.arange(240))
        for face in detector.detect(rgb)[:1]:
            large = Detection(tuple(5 * v for v in face.box), face.score, 5 * face.landmarks)
            crop = np.asarray(crop_face(place, large)).astype(float)
            frames.append((len(crop) / 240, *(crop[len(crop) // 2, len(crop) // 2, :2] / 240)))
    assert len(frames) > 45
    side, x, y = np.median(frames, axis=0)
    assert side == pytest.approx(1, abs=0.06)
    assert (x, y) == (pytest.approx(0.5, abs=0.03), pytest.approx(0.5, abs=0.03))


@pytest.fixture
def empty_cache(tmp_path, monkeypatch) -> Path:
    """No YuNet anywhere, and no network."""

    def refuse(*_, **__):
        raise OSError("no network in this test")

    monkeypatch.delenv("FER_ZOO_YUNET", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    return tmp_path


def put_in_cache(cache: Path, data: bytes) -> None:
    """Lay a file down as the Hub's client does."""
    repo = cache / "models--opencv--face_detection_yunet"
    commit = "0123456789abcdef0123456789abcdef01234567"
    (repo / "refs").mkdir(parents=True)
    (repo / "refs/main").write_text(commit)
    (repo / "snapshots" / commit).mkdir(parents=True)
    (repo / "snapshots" / commit / YUNET_FILE).write_bytes(data)


def test_auto_without_yunet_is_mtcnn(empty_cache):
    assert isinstance(get_detector(), Mtcnn)


def test_auto_takes_yunet_from_the_hubs_cache(empty_cache, astronaut):
    if not YUNET.is_file():
        pytest.skip("YuNet's file is not here: the way over the Hub's cache is not tested")
    put_in_cache(empty_cache, YUNET.read_bytes())
    for name in ("auto", "yunet"):
        found = get_detector(name)
        assert isinstance(found, YuNet)
        assert len(found.detect(astronaut)) == 1


def test_auto_passes_over_another_file_in_the_cache(empty_cache):
    put_in_cache(empty_cache, b"something else")
    assert isinstance(get_detector("auto"), Mtcnn)


def test_yunet_from_the_environment(empty_cache, monkeypatch):
    if not YUNET.is_file():
        pytest.skip("YuNet's file is not here: FER_ZOO_YUNET is not tested")
    monkeypatch.setenv("FER_ZOO_YUNET", str(YUNET))
    assert isinstance(get_detector("auto"), YuNet)


def test_environment_that_names_no_yunet(empty_cache, monkeypatch):
    monkeypatch.setenv("FER_ZOO_YUNET", str(empty_cache / "gone.onnx"))
    with pytest.raises(DetectorError, match=r"FER_ZOO_YUNET names .*gone\.onnx"):
        get_detector("auto")
    text = empty_cache / "text.onnx"
    text.write_text("hello")
    monkeypatch.setenv("FER_ZOO_YUNET", str(text))
    with pytest.raises(DetectorError, match="not a YuNet file"):
        get_detector("auto")


def test_yunet_is_downloaded_only_when_asked_for_and_checked(empty_cache, monkeypatch):
    def offline(*_):
        raise ConnectionError

    monkeypatch.setattr("huggingface_hub.hf_hub_download", offline)
    with pytest.raises(DetectorError, match="could not be downloaded"):
        get_detector("yunet")
    wrong = empty_cache / "wrong.onnx"
    wrong.write_bytes(b"something else")
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda *_: str(wrong))
    with pytest.raises(DetectorError, match="sha256"):
        get_detector("yunet")


def test_unknown_detector():
    with pytest.raises(DetectorError, match="no face detector 'haar'; choose one of auto, yunet"):
        get_detector("haar")


def test_picture_of_one_row_is_cut_out_in_little_memory():
    rgb = np.full((1, 3_000_000, 3), 90, np.uint8)
    (whole,) = get_detector("whole").detect(rgb)
    crop = crop_face(rgb, whole)
    assert crop.width == crop.height <= 4096
    assert set(np.unique(np.asarray(crop))) == {90}
