"""Recipes and the augmentation that they ask for."""

import dataclasses

import pytest
import torch
from drawn_fer2013 import draw

from train.augment import Augmentation, augment, draw_augmentation, draw_mix, inside
from train.hardware import choose_precision
from train.recipe import RECIPES_DIR, Recipe, RecipeError, load_recipe

STILL = dict(degrees=0.0, crop_scale=(1.0, 1.0), crop_ratio=(1.0, 1.0), flip=0.0)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def images() -> torch.Tensor:
    return torch.from_numpy(draw(per_class=20)["train"][0]).unsqueeze(1)


def augmented(recipe: Recipe) -> torch.Tensor:
    noise = torch.randn(len(images()), 1, 48, 48, generator=generator())
    return augment(images(), draw_augmentation(len(images()), recipe, generator()), noise=noise)


@pytest.mark.parametrize("name", sorted(file.stem for file in RECIPES_DIR.glob("*.toml")))
def test_every_recipe_loads(name):
    assert load_recipe(name).epochs > 0  # as it stands: fewer epochs would have their warm-up cut short
    assert load_recipe(name, epochs=30).epochs == 30


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("epoch = 3", "did you mean 'epochs'"),
        ("learning_rat = 0.1", "did you mean 'lr'"),
        ("degrees = nan", "degrees must be finite, not nan"),
        ("crop_scale = [0.5, inf]", "crop_scale must be finite, not inf"),
        ('lr = "fast"', "lr must be a number"),
        ("lr = true", "lr must be a number"),
        ("ema = 0.9\nlate_average = 0.5", "one must be 0"),
        ("forget_rate = 0.1\nclass_weights = true", "would leave out rare classes"),
        ("forget_rate = 1.0", "forget_rate must be at least 0 and below 1"),
        ("class_weights = 1", "class_weights must be true or false"),
        ("epochs = 2.5", "epochs must be a whole number"),
        ("crop_scale = [1.0]", "crop_scale must be 2 numbers"),
        ("crop_scale = [1.0, 0.5]", "least and a largest"),
        ("epochs = 0", "at least 1"),
        ("mixup = -1", "must not be negative"),
        ("flip = 1.5", "from 0 to 1"),
        ("noise = 8", "from 0 to 1"),
        ("progressive = 1", "at least 0 and below 1"),
        ("blur = -1", "must not be negative"),
        ("blur = 2.5", "blur must be at most 2, not 2.5"),
        ('precision = "fp8"', "precision must be one of auto, bf16, fp32"),
        ('schedule = "step"', "schedule must be one of constant, cosine, linear"),
        ("warmup_epochs = 20", "fewer than the 20 epochs"),
        ("lr = 0", "above 0"),
        ('optimizer = "adamm"', "one of timm's .*adam"),
        ('optimizer = "adahessian"', "one of timm's"),
        ("epochs = ", "not valid TOML"),
    ],
)
def test_recipes_are_strict(text, says, tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text(text)
    with pytest.raises(RecipeError, match=says):
        load_recipe(str(file))


def test_a_recipe_that_cannot_be_read_is_named(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_bytes("# für mich".encode("latin-1"))
    with pytest.raises(RecipeError, match=r"mine\.toml is not valid TOML"):
        load_recipe(str(file))
    file.write_text('warmup_epochs = "3"')
    with pytest.raises(RecipeError, match="warmup_epochs must be a whole number"):
        load_recipe(str(file), epochs=5)


def test_precision_is_what_the_device_computes_in(monkeypatch):
    paper, asked = load_recipe("paper"), Recipe(precision="bf16")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for native, precision in ((True, "bf16"), (False, "fp32")):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda native=native: {"avx512_bf16": native})
        assert choose_precision(paper) == dataclasses.replace(paper, precision=precision)
        assert choose_precision(asked) == asked
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    assert choose_precision(paper).precision == "fp32"


def test_augmentation_without_range_is_the_identity_or_a_flip():
    torch.testing.assert_close(augmented(Recipe(**STILL)), images().float(), atol=1e-2, rtol=0)
    mirrored = Recipe(**STILL | {"flip": 1.0})
    torch.testing.assert_close(augmented(mirrored), images().flip(3).float(), atol=1e-2, rtol=0)


def test_augmentation_turns_and_crops_within_its_ranges():
    recipe = load_recipe("paper")
    theta = draw_augmentation(2000, recipe, generator()).theta
    area = torch.linalg.det(theta[:, :, :2]).abs()
    assert recipe.crop_scale[0] - 1e-3 <= area.min() and area.max() <= recipe.crop_scale[1] + 1e-3
    angle = torch.atan2(-theta[:, 0, 1], theta[:, 1, 1]).rad2deg().abs()
    assert 9 < angle.max() <= 10 + 1e-3
    assert 0.45 < (theta[:, 0, 0] < 0).float().mean() < 0.55


def test_a_crop_larger_than_the_image_continues_its_border():
    gray = torch.full((1, 1, 48, 48), 200, dtype=torch.uint8)
    recipe = Recipe(crop_scale=(1.4, 1.4), shift=0.2)
    how = draw_augmentation(1, recipe, generator())
    assert torch.linalg.det(how.theta[0, :, :2]).abs() > 1.35
    torch.testing.assert_close(augment(gray, how), gray.float())


def test_enlarged_is_the_same_picture():
    waves = torch.from_numpy(draw(per_class=1, waves=True)["train"][0]).unsqueeze(1)
    how = draw_augmentation(len(waves), Recipe(**STILL), generator())
    large = augment(waves, how, (96, 96))
    expected = torch.nn.functional.interpolate(waves.float(), (96, 96), mode="bilinear")
    torch.testing.assert_close(large, expected, atol=0.05, rtol=0)


def test_jitter_keeps_the_range_and_shifts_the_tone():
    x = augmented(Recipe(**STILL, jitter=0.4))
    assert x.min() >= 0 and x.max() <= 255
    means = x.mean((1, 2, 3))
    assert means.max() - means.min() > 50  # without it they are equal within 2


def test_every_third_image_is_noisy():
    changed = augmented(Recipe(**STILL, noise=0.1)) - images()
    spread = changed.std((1, 2, 3))
    assert 0.2 < (spread > 0.01).float().mean() < 0.5
    assert 15 < spread.max() < 28  # 0.1 of the range is 25.5


def test_every_third_image_is_blurred_and_keeps_its_mean():
    edge = torch.full((600, 1, 48, 48), 50, dtype=torch.uint8)
    edge[..., 24:] = 200
    how = draw_augmentation(600, Recipe(**STILL, blur=2.0), generator())
    x = augment(edge, how)
    torch.testing.assert_close(x.mean((1, 2, 3)), torch.full((600,), 125.0), atol=0.1, rtol=0)
    # across the edge, a Gaussian rises by its density
    steepest = (x.diff(dim=3).amax((1, 2, 3)) / 150).clamp(max=1)
    torch.testing.assert_close(steepest[how.blur > 0.8], 0.3989 / how.blur[how.blur > 0.8], atol=0.02, rtol=0)
    assert 0.28 < (how.blur > 0).float().mean() < 0.38
    assert (steepest[how.blur == 0] > 0.99).all()


def test_a_base_may_have_a_base():
    taught, strong = load_recipe("taught"), load_recipe("strong")
    assert taught.mixup == load_recipe("strong-mix").mixup > strong.mixup
    assert (taught.lr, taught.label_smoothing) == (strong.lr, 0.0)


def test_erasing_covers_the_share_of_images_and_pixels_that_it_says():
    recipe = Recipe(**STILL, erasing=0.5, erasing_scale=(0.1, 0.3))
    how = draw_augmentation(4000, recipe, generator())
    covered = inside(how.erase, 48, 48).float().mean((1, 2, 3))
    erased = covered > 0
    assert 0.46 < erased.float().mean() < 0.54
    assert covered[erased].min() > 0.08 and covered[erased].max() < 0.32
    few = Augmentation(how.theta[:140], erase=how.erase[:140])
    x = augment(images(), few)
    gray = inside(few.erase, 48, 48)
    assert (x[gray] == 127.5).all()
    torch.testing.assert_close(x[~gray], images().float()[~gray], atol=1e-2, rtol=0)


def test_mixup_is_a_weighted_mean():
    one, other = torch.ones(4, 1, 48, 48), torch.zeros(4, 1, 48, 48)
    shares = []
    g = generator()
    for _ in range(200):
        mix = draw_mix(Recipe(mixup=0.4), g, (48, 48))
        assert torch.allclose(mix(one, other), torch.tensor(mix.share, dtype=torch.float32))
        shares.append(mix.share)
    assert min(shares) < 0.1 and max(shares) > 0.9 and 0.4 < sum(shares) / 200 < 0.6


def test_cutmix_labels_by_the_pixels():
    one, other = torch.ones(4, 1, 48, 48), torch.zeros(4, 1, 48, 48)
    g = generator()
    for _ in range(50):
        mix = draw_mix(Recipe(cutmix=1.0), g, (48, 48))
        assert mix(one, other).mean().item() == pytest.approx(mix.share, abs=1e-6)
    both = [draw_mix(Recipe(mixup=1.0, cutmix=1.0), g, (48, 48)).box is None for _ in range(200)]
    assert 0.4 < sum(both) / 200 < 0.6
    assert draw_mix(Recipe(), g, (48, 48)) is None


def test_a_recipe_may_name_only_what_differs(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text('base = "paper"\nweight_decay = 0.5\n')
    mine, paper = load_recipe(str(file)), load_recipe("paper")
    assert mine == dataclasses.replace(paper, weight_decay=0.5)
    file.write_text('base = "papier"\n')
    with pytest.raises(RecipeError, match="no recipe 'papier'"):
        load_recipe(str(file))
    other = tmp_path / "other.toml"
    file.write_text('base = "other.toml"\n')  # beside it
    other.write_text('base = "paper"\nlr = 0.5\n')
    assert load_recipe(str(file)).lr == 0.5
    other.write_text('base = "mine.toml"\n')
    for base in ("mine.toml", "other.toml"):
        file.write_text(f'base = "{base}"\n')
        with pytest.raises(RecipeError, match="is based on itself"):
            load_recipe(str(file))


def test_fewer_epochs_have_a_shorter_warm_up():
    assert load_recipe("strong").warmup_epochs == 2
    assert load_recipe("strong", epochs=2).warmup_epochs == 1
    assert load_recipe("strong", epochs=1).warmup_epochs == 0
