"""Every registered architecture honours timm's model contract."""

import json

import pytest
import timm
import torch
from launch import run
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from timm.models._manipulate import reinit_non_persistent_buffers

import fer_zoo
from fer_zoo.models import WEIGHTS_DIR
from fer_zoo.models.layers import FixedKernels
from fer_zoo.onnx_model import as_onnx
from train.evaluate import golden_input
from train.files import RESULTS_DIR, sha256

MODELS = ("fer_cbam", "fer_cnn", "fer_kernel_cnn", "fer_net", "fer_net_tiny", "fer_resnet")
PACKAGED = sorted(path.stem for path in WEIGHTS_DIR.glob("*.safetensors"))

every_model = pytest.mark.parametrize("name", MODELS)


def faces(n: int = 2, chans: int = 1) -> torch.Tensor:
    return torch.rand(n, chans, 48, 48, generator=torch.Generator().manual_seed(0)) * 2 - 1


def create(name: str, **kwargs) -> torch.nn.Module:
    torch.manual_seed(0)
    return timm.create_model(name, **kwargs).eval()


def test_importing_the_package_loads_nothing_more_than_timm():
    code = "import timm, sys; before = set(sys.modules); import fer_zoo; offered = dir(fer_zoo); "
    code += "print(*(set(sys.modules) - before)); assert set(fer_zoo.__all__) <= set(offered)"
    done = run("-c", code)
    assert done.returncode == 0, done.stderr
    names = done.stdout.split()
    assert names and {name.partition(".")[0] for name in names} == {"fer_zoo"}
    assert not {"fer_zoo.recognizer", "fer_zoo.faces"} & set(names)


def test_zoo_is_listed_in_timm():
    assert tuple(timm.list_models("fer_*")) == MODELS


@every_model
def test_forward_and_backward(name):
    model = create(name).train()
    logits = model(faces())
    assert logits.shape == (2, 7)
    logits.sum().backward()
    without = [key for key, parameter in model.named_parameters() if parameter.grad is None]
    assert not without
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


@every_model
def test_features_then_head_is_forward(name):
    model = create(name)
    features = model.forward_features(faces())
    assert features.ndim == 4 and features.shape[1] == model.num_features
    assert torch.equal(model.forward_head(features), model(faces()))
    pre_logits = model.forward_head(features, pre_logits=True)
    assert pre_logits.shape == (2, model.head_hidden_size)
    assert torch.equal(model.get_classifier()(pre_logits), model(faces()))


@every_model
def test_reset_classifier(name):
    model = create(name)
    model.reset_classifier(3)
    assert model.num_classes == 3 and model(faces()).shape == (2, 3)
    model.reset_classifier(0)
    assert model(faces()).shape == (2, model.head_hidden_size)
    assert create(name, num_classes=5)(faces()).shape == (2, 5)
    double = create(name).double()
    double.reset_classifier(4)
    assert double(faces().double()).dtype == torch.float64


@every_model
def test_cfg_names_exist(name):
    model = create(name)
    cfg = model.pretrained_cfg
    assert f"{cfg['classifier']}.weight" in model.state_dict()
    assert cfg["input_size"] == (1, 48, 48)
    assert tuple(cfg["label_names"]) == fer_zoo.EXPRESSIONS
    assert cfg["hf_hub_id"] == f"fer-zoo/{name}.{cfg['tag']}"
    if cfg["pool_size"]:
        assert model.forward_features(faces()).shape[-2:] == cfg["pool_size"]


@every_model
def test_gray_as_rgb_gives_the_same_logits(name):
    gray, rgb = create(name), create(name, in_chans=3)
    rgb.load_state_dict(gray.state_dict())
    torch.testing.assert_close(rgb(faces().repeat(1, 3, 1, 1)), gray(faces()), atol=1e-5, rtol=1e-5)


@every_model
def test_built_without_memory_then_loaded(name):
    """What transformers does: fixed buffers are in no weight file and must come back by timm's hook."""
    model = create(name, in_chans=3)
    with torch.device("meta"):
        empty = create(name, in_chans=3)
    empty.to_empty(device="cpu").load_state_dict(model.state_dict())
    assert reinit_non_persistent_buffers(empty)
    assert torch.equal(empty(faces(chans=3)), model(faces(chans=3)))


@every_model
def test_other_channel_counts_are_refused(name):
    with pytest.raises(ValueError, match="1 \\(gray\\) or 3 \\(RGB\\)"):
        create(name, in_chans=2)


@every_model
@pytest.mark.parametrize("in_chans", [1, 3])
def test_features_only(name, in_chans):
    backbone = create(name, features_only=True, in_chans=in_chans)
    maps = backbone(faces(chans=in_chans))
    assert [m.shape[1] for m in maps] == backbone.feature_info.channels()
    assert [48 // m.shape[-1] for m in maps] == backbone.feature_info.reduction()
    assert len(create(name, features_only=True, out_indices=(1,))(faces())) == 1


@every_model
def test_forward_intermediates(name):
    model = create(name)
    last, maps = model.forward_intermediates(faces())
    assert torch.equal(last, model.forward_features(faces())) and len(maps) == 3
    (early,) = model.forward_intermediates(faces(), indices=[1], stop_early=True, intermediates_only=True)
    assert torch.equal(early, maps[1])


@every_model
def test_pruned_to_a_stage(name):
    model = create(name)
    maps = model.forward_intermediates(faces(), intermediates_only=True)
    model.prune_intermediate_layers([2], prune_head=False)
    assert torch.equal(model(faces()), create(name)(faces()))
    model.prune_intermediate_layers([2])
    assert torch.equal(model(faces()), maps[2])
    assert model.prune_intermediate_layers([0, 1], prune_head=False) == [0, 1]
    assert torch.equal(model(faces()), maps[1])
    assert model.num_features == maps[1].shape[1]
    model.reset_classifier(3, "avg")
    assert model(faces()).shape == (len(faces()), 3)


@every_model
def test_feature_getter_agrees_with_intermediates(name):
    maps = create(name).forward_intermediates(faces(), intermediates_only=True)
    getter = create(name, features_only=True, feature_cls="getter")
    for got, expected in zip(getter(faces()), maps, strict=True):
        assert torch.equal(got, expected)


@every_model
def test_gradient_checkpointing_changes_nothing(name):
    model = create(name)
    expected = torch.autograd.grad(model(faces()).sum(), list(model.parameters()))
    model.set_grad_checkpointing()
    for got, grad in zip(
        torch.autograd.grad(model(faces()).sum(), list(model.parameters())), expected, strict=True
    ):
        torch.testing.assert_close(got, grad)


@every_model
def test_parameter_groups_cover_every_parameter_once(name):
    model = create(name)
    groups = timm.models.group_parameters(model, model.group_matcher())
    grouped = [key for group in groups.values() for key in group]
    assert sorted(grouped) == sorted(key for key, _ in model.named_parameters())
    # the head's group, the last one, holds nothing else: every stage can have a learning rate of its own
    assert {key.partition(".")[0] for key in groups[max(groups)]} == {"head"}


@pytest.mark.parametrize("name", ("fer_cnn", "fer_cbam"))
def test_the_size_of_images_is_one_number_or_two(name):
    for size in (96, (96, 96)):
        assert create(name, img_size=size)(torch.zeros(1, 1, 96, 96)).shape == (1, 7)


@every_model
def test_a_row_does_not_depend_on_its_batch(name):
    model = create(name)
    batch = model(faces(8))
    torch.testing.assert_close(model(faces(8)[3:4]), batch[3:4], atol=1e-5, rtol=1e-5)


@every_model
def test_safetensors_round_trip(name, tmp_path):
    model = create(name)
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    torch.manual_seed(1)
    again = timm.create_model(
        name, pretrained=True, pretrained_cfg_overlay={"file": str(tmp_path / "model.safetensors")}
    ).eval()
    assert torch.equal(again(faces()), model(faces()))


@every_model
def test_export_keeps_logits_for_any_batch(name):
    model = create(name)
    batch = torch.export.Dim("batch", min=1, max=64)
    exported = torch.export.export(model, (faces(),), dynamic_shapes=({0: batch},)).module()
    torch.testing.assert_close(exported(faces(5)), model(faces(5)), atol=1e-5, rtol=1e-5)


@every_model
def test_onnx_keeps_logits_for_any_batch(name):
    pytest.importorskip("onnxscript", reason="needs the extra onnx")
    model = create(name)
    torch.testing.assert_close(as_onnx(model)(faces(5)), model(faces(5)), atol=1e-4, rtol=1e-4)


@every_model
def test_unknown_pooling_is_refused_or_applied(name):
    if name in ("fer_net", "fer_net_tiny", "fer_resnet"):
        assert create(name, global_pool="max")(faces()).shape == (2, 7)
        assert create(name)(faces().repeat(1, 1, 2, 2)).shape == (2, 7)
    else:
        assert create(name, num_classes=0, global_pool="")(faces()).ndim == 2
        with pytest.raises(ValueError, match="flattens"):
            create(name).reset_classifier(7, "avg")
        with pytest.raises(ValueError, match="flattens"):
            create(name, global_pool="avg")


def test_fixed_kernels_are_never_trained_and_keep_the_image():
    kernels = FixedKernels()
    assert not list(kernels.parameters()) and not kernels.state_dict()
    maps = kernels(faces())
    torch.testing.assert_close(maps[:, 3] + 4 * maps[:, 2], faces()[:, 0], atol=1e-5, rtol=1e-5)
    flat = kernels(torch.full((1, 1, 8, 8), 0.5))[0, :, 1:-1, 1:-1]
    torch.testing.assert_close(flat[:3], torch.zeros_like(flat[:3]))
    step = kernels(torch.cat([torch.zeros(1, 1, 8, 4), torch.ones(1, 1, 8, 4)], dim=3))
    assert step[0, 0, 4, 3] == 1 and step[0, 1, 4, 3] == 0


@pytest.mark.parametrize("name", PACKAGED)
def test_packaged_weights_load_and_name_themselves(name):
    model = timm.create_model(name, pretrained=True).eval()
    with safe_open(WEIGHTS_DIR / f"{name}.safetensors", "pt") as file:
        metadata = file.metadata()
    assert f"{metadata['architecture']}.{metadata['tag']}" == name
    assert tuple(json.loads(metadata["label_names"])) == fer_zoo.EXPRESSIONS
    stored = load_file(WEIGHTS_DIR / f"{name}.safetensors")
    assert {v.dtype for k, v in stored.items() if "num_batches" not in k} == {torch.float16}
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())
    assert timm.create_model(name, pretrained=True, num_classes=3)(faces()).shape == (2, 3)


@pytest.mark.parametrize("name", PACKAGED)
def test_packaged_file_and_results_file_belong_together(name):
    path = WEIGHTS_DIR / f"{name}.safetensors"
    results = json.loads((RESULTS_DIR / f"{name}.json").read_text())
    assert results["sha256"] == sha256(path)
    assert path.stat().st_size == results["bytes"] < 16 << 20
    assert {"validation_clean", "test", "test_clean"} <= results["splits"].keys()
    logits = timm.create_model(name, pretrained=True).eval()(golden_input())
    torch.testing.assert_close(logits, torch.tensor(results["golden_logits"]), atol=1e-3, rtol=1e-3)
