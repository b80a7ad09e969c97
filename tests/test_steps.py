"""One step of a training: loss, gradients, the optimizer, and its recording as a CUDA graph."""

from contextlib import contextmanager, nullcontext
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from tqdm import tqdm

from train import engine, hardware
from train.dataset import Arrays
from train.engine import Split, Trainer, compile_pays
from train.graphs import WARM_UP, Graphed
from train.hardware import create_accelerator, start_trackers
from train.loss import FORGET_EPOCHS, Loss, class_weights
from train.networks import create_network
from train.optim import create_average, create_optimizer, uphill
from train.predict import predict
from train.recipe import Recipe, RecipeError
from train.run_dir import RunError

CPU = torch.device("cpu")


def faces(n: int) -> Arrays:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (n, 48, 48), generator=generator, dtype=torch.uint8)
    return Arrays(images.numpy(), (torch.arange(n) ** 2 % 7).numpy())


def test_a_step_is_the_mean_cross_entropy_of_its_batch():
    recipe = Recipe(batch_size=8, label_smoothing=0.1, class_weights=True, precision="fp32", drop_rate=0.0)
    split = Split(faces(8), CPU)
    model = create_network("fer_cnn", drop_rate=0.0)
    trainer = Trainer(model, split, recipe, create_accelerator(recipe))
    x = torch.randn(8, 1, 48, 48, generator=torch.Generator().manual_seed(1))
    weight = class_weights(split.labels, 7)

    def expected(labels: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(model(x), labels, weight, label_smoothing=0.1, reduction="sum")

    mixed = 0.3 * expected(split.labels) + 0.7 * expected(split.labels.flip(0))
    gradients = torch.autograd.grad(mixed / 8, list(model.parameters()))
    loss = trainer.backward(x, torch.lerp(trainer.targets.flip(0), trainer.targets, 0.3))
    torch.testing.assert_close(loss, mixed.detach())
    torch.testing.assert_close([p.grad for p in model.parameters()], list(gradients))
    torch.testing.assert_close(trainer.backward(x, trainer.targets), expected(split.labels).detach())


def test_a_live_teacher_is_asked_about_what_the_network_sees(monkeypatch):
    """Augmented, mixed and normalized; its share of the targets comes on top of their mixing."""
    recipe = Recipe(batch_size=8, precision="fp32", mixup=1.0, noise=0.1, teacher_share=0.75)
    asked, seen, learnt = [], [], []

    class Teacher:
        def to(self, device: torch.device) -> "Teacher":
            return self

        def __call__(self, x: torch.Tensor) -> torch.Tensor:
            asked.append(x.clone())
            return torch.eye(7)[torch.full((len(x),), 3)]

    split, accelerator = Split(faces(16), CPU), create_accelerator(recipe)
    trainer = Trainer(create_network("fer_cnn"), split, recipe, accelerator, teacher=Teacher())
    backward = trainer.backward

    def watched(x: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        seen.append(x.clone())
        learnt.append(targets)
        return backward(x, targets)

    monkeypatch.setattr(trainer, "backward", watched)
    with tqdm(disable=True) as bar:
        trainer.epoch(0, bar)
    assert len(asked) == 2 and all(map(torch.equal, asked, seen))
    learnt = torch.cat(learnt)
    torch.testing.assert_close(learnt.sum(1), torch.ones(16))
    assert (learnt[:, 3] >= 0.75).all() and ((learnt > 0).sum(1) == 3).any()


@pytest.mark.parametrize("ahead", [0, 3 * 8 * 48**2])
@pytest.mark.parametrize("mixing", [{}, {"mixup": 1.0, "cutmix": 1.0}])
def test_batches_are_alike_for_any_number_of_processes_and_drawn_ahead(monkeypatch, ahead, mixing):
    recipe = Recipe(batch_size=8, precision="fp32", blur=1.0, noise=0.1, jitter=0.1, erasing=0.5, **mixing)
    split, accelerator = Split(faces(43), CPU), create_accelerator(recipe)
    trainer = Trainer(create_network("fer_cnn"), split, recipe, accelerator)

    def batches(rank: int = 0, world: int = 1) -> list[tuple[torch.Tensor, torch.Tensor]]:
        trainer.accelerator = SimpleNamespace(device=CPU, process_index=rank, num_processes=world)
        return list(trainer.batches(2))

    expected = batches()  # each augmented by itself
    assert [len(x) for x, _ in expected] == [8] * 5
    monkeypatch.setitem(engine.AHEAD, "cpu", ahead)
    for rank, world in ((0, 1), (0, 3), (1, 3), (2, 3)):
        for (x, targets), (share, theirs) in zip(expected, batches(rank, world), strict=True):
            torch.testing.assert_close(share, x[rank::world])
            torch.testing.assert_close(theirs, targets[rank::world])
    assert not torch.equal(expected[0][0], expected[1][0])


@pytest.mark.parametrize(
    ("name", "fused"), [("sgd", True), ("adamw", True), ("lookahead_adamw", True), ("nadam", None)]
)
def test_an_optimizer_is_fused_where_it_can_be_and_goes_on_exactly(name, fused):
    recipe = Recipe(optimizer=name, lr=0.1, weight_decay=1e-2)

    def steps(model, optimizer, count):
        for _ in range(count):
            model(torch.linspace(-1, 1, 12).view(3, 4)).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()

    torch.manual_seed(0)
    straight = torch.nn.Linear(4, 2)
    stopped = torch.nn.Linear(4, 2)
    stopped.load_state_dict(straight.state_dict())
    optimizer = create_optimizer(straight, recipe)
    assert optimizer.param_groups[0].get("fused") is fused
    steps(straight, optimizer, 6)
    first = create_optimizer(stopped, recipe)
    steps(stopped, first, 3)
    again = create_optimizer(stopped, recipe)
    again.load_state_dict(first.state_dict())
    steps(stopped, again, 3)
    assert torch.equal(straight.weight, stopped.weight)


def test_an_optimizer_that_needs_what_is_not_here_is_one_sentence():
    with pytest.raises(RecipeError, match=r"'fusedsgd' cannot be had here: \w"):  # of a package on GPUs
        create_optimizer(torch.nn.Linear(4, 2), Recipe(optimizer="fusedsgd"))


def test_sam_takes_the_gradient_from_uphill_and_puts_all_back():
    model = torch.nn.Sequential(torch.nn.BatchNorm1d(2), torch.nn.Linear(2, 1))
    x = torch.randn(5, 2, generator=torch.Generator().manual_seed(0))
    x[:, 1] += 3

    def loss(weights):
        return torch.func.functional_call(model, weights, (x,)).square().mean()

    weights = dict(model.named_parameters())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():  # BatchNorm learns what it sees, in training mode
        model(x)
    seen = {name: value.clone() for name, value in model.state_dict().items()}
    assert not torch.equal(before["0.running_mean"], seen["0.running_mean"])
    gradients = torch.autograd.grad(loss(weights), weights.values())
    norm = torch.cat([gradient.flatten() for gradient in gradients]).norm()
    uphill_weights = {
        name: (weight + 0.5 * gradient / norm).detach().requires_grad_()
        for (name, weight), gradient in zip(weights.items(), gradients, strict=True)
    }
    expected = torch.autograd.grad(loss(uphill_weights), uphill_weights.values())
    model.load_state_dict(seen)
    for weight, gradient in zip(weights.values(), gradients, strict=True):
        weight.grad = gradient
    with uphill(model, 0.5):
        model.zero_grad()
        loss(weights).backward()
    torch.testing.assert_close([weight.grad for weight in weights.values()], list(expected))
    assert all(torch.equal(value, seen[name]) for name, value in model.state_dict().items())


def test_the_last_epochs_weights_are_averaged_alike():
    model = torch.nn.Linear(1, 1, bias=False)
    average = create_average(model, Recipe(epochs=4, late_average=0.5), steps=3)
    means = []
    for step in range(12):
        torch.nn.init.constant_(model.weight, step)
        average.update(model, step=step)
        means.append(average.module.weight.item())
    assert means == pytest.approx([0, 1, 2, 3, 4, 5, 6, 6.5, 7, 7.5, 8, 8.5])
    assert create_average(model, Recipe(), steps=3) is None


def test_images_of_the_highest_loss_are_left_out():
    """By a network alone by its own, by a pair by the other's."""
    labels = torch.zeros(4, dtype=torch.int64)
    targets = F.one_hot(labels, 2).float()
    loss = Loss(labels, 2, Recipe(forget_rate=0.5))
    loss.begin(FORGET_EPOCHS)
    wrong = torch.tensor([3.0, 0.0, 2.0, 1.0])  # how far from its label each image is thought to be
    other = torch.tensor([0.0, 3.0, 1.0, 2.0])
    logits, theirs = (torch.stack([-value, value], 1) for value in (wrong, other))

    def of(logits: torch.Tensor, images: list[int]) -> torch.Tensor:
        return F.cross_entropy(logits[images], targets[images], reduction="sum")

    torch.testing.assert_close(loss(logits, targets), 2 * of(logits, [1, 3]))
    pair = torch.stack([logits, theirs], 2)
    torch.testing.assert_close(loss(pair, targets), 2 * (of(logits, [0, 2]) + of(theirs, [1, 3])))
    loss.begin(FORGET_EPOCHS // 2 - 1)  # half way there
    torch.testing.assert_close(loss(logits, targets), 4 / 3 * of(logits, [1, 2, 3]))


def test_a_pair_learns_side_by_side_with_all_that_a_step_may_do():
    recipe = Recipe(epochs=6, batch_size=4, sam=0.05, forget_rate=0.9, late_average=0.5, mixup=0.2, lr=0.1)
    model = create_network("trial_pair")
    trainer = Trainer(model, Split(faces(8), CPU), recipe, create_accelerator(recipe))
    before = {name: value.clone() for name, value in model.named_parameters()}
    with tqdm(disable=True) as bar:
        losses = [trainer.epoch(epoch, bar) for epoch in range(6)]
    assert all(0 < loss < 100 for loss in losses)
    after = dict(model.named_parameters())
    assert not any(
        torch.equal(after[name], before[name]) for name in ("head.fc.weight", "peer.head.fc.weight")
    )
    assert predict(trainer.scored, Split(faces(8), CPU).images).shape == (8, 7)


def test_a_step_is_recorded_once_it_is_warm_and_again_for_another_shape(monkeypatch):
    """On no GPU: what is asked of one is written down."""
    asked = []

    class Graph:
        def replay(self):
            asked.append("replay")

    @contextmanager
    def graph(recording, stream):
        asked.append("record")
        yield

    stream = SimpleNamespace(wait_stream=lambda other: None)
    monkeypatch.setattr(torch.cuda, "Stream", lambda: stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: stream)
    monkeypatch.setattr(torch.cuda, "stream", nullcontext)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", graph)

    def step(x, targets):
        asked.append("step")
        return x.sum() + targets.sum()

    graphed = Graphed(step)
    for value in range(WARM_UP):
        assert graphed(torch.full((2, 1), value), torch.zeros(2)) == 2 * value
    assert asked == ["step"] * WARM_UP
    for value in (5, 6):
        graphed(torch.full((2, 1), value), torch.full((2,), 7))
        assert (graphed.x == value).all() and (graphed.targets == 7).all()  # what a replay reads
    assert asked[WARM_UP:] == ["record", "step", "replay", "replay"]
    asked.clear()
    for _ in range(WARM_UP + 1):
        graphed(torch.zeros(2, 3), torch.zeros(2))
    assert asked == ["step"] * WARM_UP + ["record", "step", "replay"]


def test_what_is_compiled_needs_a_compiler_and_headers(monkeypatch, tmp_path):
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    (tmp_path / "Python.h").touch()
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(tmp_path))
    model = create_network("fer_cbam")
    assert compile_pays(model, CPU, 10**6) and not compile_pays(model, CPU, 1000)
    assert not compile_pays(create_network("fer_cnn"), CPU, 10**6)
    (tmp_path / "Python.h").unlink()
    assert not compile_pays(model, CPU, 10**6)
    (tmp_path / "Python.h").touch()
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert not compile_pays(model, CPU, 10**6)


def test_a_launched_process_on_a_cpu_takes_its_cores(monkeypatch):
    """`accelerate launch` leaves it one thread."""
    threads = []
    monkeypatch.setattr(torch, "set_num_threads", threads.append)
    monkeypatch.setattr(hardware, "cpu_count", lambda only_physical_cores: 6)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.delenv("ACCELERATE_MIXED_PRECISION", raising=False)
    create_accelerator(Recipe(precision="fp32"))
    assert threads == []
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    create_accelerator(Recipe(precision="fp32"))
    assert threads == [6]
    create_accelerator(Recipe(precision="fp32"), alone=False)
    assert threads == [6]
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    create_accelerator(Recipe(precision="fp32"))
    assert threads == [6]


def test_what_accelerate_cannot_do_here_is_one_sentence(monkeypatch):
    def init_trackers(*args: object) -> None:
        raise ConnectionError("no account")

    with pytest.raises(RunError, match="the tracker cannot be started: no account"):
        start_trackers(SimpleNamespace(log_with=["wandb"], init_trackers=init_trackers), "run", {}, "fer_cnn")
    monkeypatch.setattr(hardware, "SUPPORTED", ())
    with pytest.raises(RunError, match="data parallelism alone"):
        create_accelerator(Recipe(precision="fp32"))
