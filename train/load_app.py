"""Puts visitors on the Space: each sends a photo, checks the answer, pauses, and sends it again.

    python train/load_app.py --seconds 120

Every visitor has a photo of one megapixel of its own, with one face at a place of its own, so a wrong or
another's answer is noticed. With --leaving 0.3, three requests in ten are given up after half a second at
most, unless the answer comes before; only the others' waiting times are kept.
App and visitors share the machine; what the visitors cost is in the table.
"""

import asyncio
import io
import json
import os
import platform
import random
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from space.readers import MODELS, recognizer
from train.app_process import ROOT, running_app
from train.cli import create_parser, run
from train.files import RESULTS_DIR, write_json

MODEL = MODELS[0]  # what visitors are shown first
SIDE = 1000  # pixels of a photo's side
PAUSE = 5.0  # seconds between an answer and the next request


@dataclass
class Tally:
    """What happened to the requests of one run."""

    seconds: list[float] = field(default_factory=list)
    wrong: int = 0
    lost: int = 0
    left: int = 0
    requests: int = 0


def photo(visitor: int) -> bytes:
    """A JPEG with the astronaut at a place that is the visitor's alone."""
    canvas = Image.new("RGB", (SIDE, SIDE), (visitor, 120, 140))
    with Image.open(ROOT / "examples" / "astronaut.jpg") as face:
        canvas.paste(face.resize((700, 700), Image.Resampling.BICUBIC), (6 * visitor, 5 * visitor))
    file = io.BytesIO()
    canvas.save(file, "JPEG", quality=90)
    return file.getvalue()


async def ask(http, image: bytes) -> list[dict]:
    """One request as gradio_client makes it: upload, call, and the stream that brings the answer."""
    path = (await http.post("/upload", files={"files": ("photo.jpg", image)})).raise_for_status().json()[0]
    data = [{"path": path, "meta": {"_type": "gradio.FileData"}}, MODEL, False]
    call = (await http.post("/call/predict", json={"data": data})).raise_for_status().json()
    answer = (await http.get(f"/call/predict/{call['event_id']}")).raise_for_status().text
    kind, _, rest = answer.partition("\ndata: ")
    if kind != "event: complete":
        raise RuntimeError(answer)
    return json.loads(rest)[0]


async def visit(http, image: bytes, wanted: list[dict], ends: float, leaving: float, tally: Tally) -> None:
    import httpx

    dice = random.Random(image)
    await asyncio.sleep(dice.uniform(0, PAUSE))  # visitors do not come all at once
    while time.monotonic() < ends:
        patience = dice.uniform(0.01, 0.5) if dice.random() < leaving else None
        tally.requests += 1
        started = time.monotonic()
        try:
            found = await asyncio.wait_for(ask(http, image), patience)
        except TimeoutError:
            tally.left += 1
        except (httpx.HTTPError, RuntimeError, ValueError) as error:
            tally.lost += 1
            print(f"lost: {error!r}", file=sys.stderr)
        else:
            tally.wrong += not same(found, wanted)
            if patience is None:  # else only what is quick would count
                tally.seconds.append(time.monotonic() - started)
        await asyncio.sleep(PAUSE)


def same(found: list[dict], wanted: list[dict]) -> bool:
    return len(found) == len(wanted) and all(
        a["label"] == b["label"]
        and abs(a["confidence"] - b["confidence"]) < 0.01
        and all(abs(x - y) < 2 for x, y in zip(a["box"], b["box"], strict=True))
        for a, b in zip(found, wanted, strict=True)
    )


async def load(url: str, photos: list[bytes], wanted: list, seconds: float, leaving: float) -> dict:
    """One run's table."""
    import httpx

    tally, cpu, started = Tally(), time.process_time(), time.monotonic()
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=f"{url}/gradio_api", timeout=120, limits=limits) as http:
        await asyncio.gather(
            *(
                visit(http, image, faces, started + seconds, leaving, tally)
                for image, faces in zip(photos, wanted, strict=True)
            )
        )
    elapsed = time.monotonic() - started
    if not tally.seconds:
        raise ValueError("no visitor had an answer: give more --visitors or --seconds, or less --leaving")
    return {
        "visitors": len(photos),
        "seconds": seconds,
        "leaving_share": leaving,
        "requests": tally.requests,
        "answers": len(tally.seconds),
        "wrong": tally.wrong,
        "lost": tally.lost,
        "left": tally.left,
        "seconds_median": round(float(np.median(tally.seconds)), 2),
        "seconds_p95": round(float(np.percentile(tally.seconds, 95)), 2),
        "seconds_max": round(max(tally.seconds), 2),
        "generator_cpu_percent_of_a_core": round(100 * (time.process_time() - cpu) / elapsed, 1),
    }


def main() -> None:
    parser = create_parser(__doc__)
    parser.add_argument("--visitors", type=int, default=50, help="default: %(default)s")
    parser.add_argument("--seconds", type=float, default=120, help="of each run (default: %(default)s)")
    parser.add_argument(
        "--leaving",
        type=float,
        default=0.0,
        help="share of requests whose visitor does not wait (default: 0)",
    )
    parser.add_argument("--out", type=Path, help="the JSON file (default: model_cards/results/load*.json)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    photos = [photo(visitor) for visitor in range(args.visitors)]
    wanted = [[face.to_dict() for face in recognizer(MODEL)(image)] for image in photos]
    if not all(len(faces) == 1 for faces in wanted):
        raise ValueError(f"not each of {args.visitors} photos shows its one face: give fewer --visitors")
    options = f"--visitors {args.visitors} --seconds {args.seconds:g} --leaving {args.leaving:g}"
    results = {
        "command": f"python train/load_app.py {options}",
        "hardware": f"{platform.machine()} CPU, {os.cpu_count()} cores, visitors and app together",
        "model": MODEL,
        "photo": f"{SIDE}x{SIDE} JPEG, one face; {PAUSE:g} s pause between answer and next request",
    }
    with running_app() as app:
        results |= asyncio.run(load(app.url, photos, wanted, args.seconds, args.leaving))
    print(json.dumps(results))
    write_json(args.out or RESULTS_DIR / ("load-leaving.json" if args.leaving else "load.json"), results)


if __name__ == "__main__":
    run(main)
