"""Commands of this folder, run one after the other or side by side, each with a log of its own."""

import argparse
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from threading import Event

from joblib import cpu_count
from tqdm import tqdm

from train.cli import add_data_arguments, source_of


def add_step_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what every script that runs such steps takes; `step_options` reads it."""
    add_data_arguments(parser)
    parser.add_argument("--jobs", type=int, default=1, help="trainings side by side (default: %(default)s)")
    parser.add_argument("--epochs", type=int, help="in place of those that are written, for a rehearsal")
    parser.add_argument("--out", type=Path, help="folder (default: one in runs, another for rehearsals)")


def out_of_steps(args: argparse.Namespace, name: str) -> Path:
    """Where --out says, else a folder of that name; rehearsals have another, or the real run were refused."""
    return args.out or Path("runs") / (name if args.epochs is None else f"{name}-rehearsal")


def step_options(args: argparse.Namespace) -> tuple[dict, dict]:
    """Options that name the data, and those besides that every training takes.

    Raises:
        DataError: The data are not named, and do not lie where they are looked for.
        ValueError: No training may run.
    """
    for name in ("jobs", "epochs"):
        if (value := getattr(args, name)) is not None and value < 1:
            raise ValueError(f"--{name} must be at least 1, not {value}")
    data = {"data": source_of(args)}
    return data, data if args.epochs is None else data | {"epochs": args.epochs}


@dataclass(frozen=True)
class Step:
    """A command of this folder.

    Attributes:
        name: Of its log.
        script: File name.
        options: By name, as `--name value`; a list gives several values.
        runs: Positional arguments.
    """

    name: str
    script: str
    options: dict[str, object]
    runs: tuple[Path, ...] = ()

    def command(self) -> list[str]:
        words = [sys.executable, Path(__file__).parent / self.script, *self.runs]
        for name, value in self.options.items():
            words += [f"--{name}", *(value if isinstance(value, list) else [value])]
        return [str(word) for word in words]


def run_all(steps: list[Step], jobs: int, logs: Path) -> None:
    """Runs steps, so many at a time; each writes a log.

    Raises:
        ValueError: One failed; those that run are waited for, no other is started.
        KeyboardInterrupt: Ctrl-C or `kill`; those that run are ended.
    """
    logs.mkdir(parents=True, exist_ok=True)
    env = dict(os.environ)
    if jobs > 1:  # those that run side by side share the cores: each would take all of them
        env.setdefault("OMP_NUM_THREADS", str(max(1, cpu_count(only_physical_cores=True) // jobs)))

    running: dict[str, subprocess.Popen] = {}
    stopped = Event()

    def run_one(step: Step) -> tuple[Step, int | None]:
        """The step and its exit code, None where it was not started."""
        if stopped.is_set():
            return step, None
        with (logs / f"{step.name}.log").open("w") as log:
            process = subprocess.Popen(step.command(), stdout=log, stderr=subprocess.STDOUT, env=env)
        running[step.name] = process
        if code := process.wait():
            stopped.set()  # here, before this thread takes the next step
        return step, code

    failed = None
    with ThreadPoolExecutor(jobs) as pool, tqdm(total=len(steps), unit="step") as bar:
        try:
            for done in as_completed([pool.submit(run_one, step) for step in steps]):
                step, code = done.result()
                if code is None:
                    continue
                bar.set_postfix_str(step.name)
                bar.update()
                if code and not failed:
                    log = logs / f"{step.name}.log"
                    last = (log.read_text().strip().splitlines() or ["it says nothing"])[-1]
                    failed = f"{step.name} failed: {last} (all of it in {log})"
                    if any(process.poll() is None for process in running.values()):
                        bar.write(f"{failed}; waiting for those that run")
        except BaseException as error:
            stopped.set()
            if isinstance(error, KeyboardInterrupt):
                for process in running.values():
                    process.terminate()  # which does nothing to one that has ended
            raise
    if failed:
        raise ValueError(failed)
