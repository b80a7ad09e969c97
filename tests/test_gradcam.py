"""Grad-CAM equals captum's, and leaves no trace."""

from __future__ import annotations

import gc
from concurrent.futures import ThreadPoolExecutor

import pytest
import timm
import torch
from torch import nn

import fer_zoo
from fer_zoo.gradcam import flat_maps, gradcam, scale_maps

ARCHITECTURES = timm.list_models("fer_*")


@pytest.fixture(scope="module")
def x():
    return torch.randn(3, 1, 48, 48, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module", params=ARCHITECTURES)
def model(request, x):
    torch.manual_seed(0)
    model = fer_zoo.create_model(request.param).eval()
    for module in model.modules():  # as after some training: running statistics that do something
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    with torch.no_grad():  # maps of about 1, beside which the tolerances below are small
        model.get_classifier().weight /= gradcam(model, x).amax()
    return model


def test_equals_captum_for_every_class(model, x):
    captum = pytest.importorskip("captum.attr", reason="captum, a development dependency, is not installed")
    reference = captum.LayerGradCam(model, model.stages)
    maps = gradcam(model, x)
    assert maps.shape[:2] == (3, 7)
    assert maps.dtype == torch.float32
    for label in range(7):
        expected = reference.attribute(x, target=label, relu_attributions=True)
        torch.testing.assert_close(maps[:, label : label + 1], expected.detach(), atol=1e-5, rtol=0)
    assert maps.amax() > 0.9


def test_equals_the_definition(model, x):
    """Selvaraju et al., equations 1 and 2, written out for one class of one face."""
    features = model.forward_features(x[:1]).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(model.forward_head(features)[0, 3], features)
    expected = torch.zeros(features.shape[2:])
    for k in range(features.shape[1]):
        expected += gradient[0, k].mean() * features[0, k].detach()
    torch.testing.assert_close(gradcam(model, x)[0, 3], expected.clamp_min(0), atol=1e-5, rtol=1e-4)


def test_features_with_the_channels_last_are_refused():
    model = timm.create_model(
        "swin_tiny_patch4_window7_224", img_size=56, embed_dim=16, depths=(1, 1), num_heads=(1, 2)
    )
    with pytest.raises(ValueError, match=r"needs feature maps \(B, D, h, w\)"):
        gradcam(model.eval(), torch.zeros(1, 3, 56, 56))


def test_a_face_is_explained_alike_alone_and_in_a_batch(model, x):
    torch.testing.assert_close(gradcam(model, x)[1:2], gradcam(model, x[1:2]), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_callers_without_gradients(model, x, context):
    with context():
        inside = gradcam(model, x.clone())
    torch.testing.assert_close(inside.clone(), gradcam(model, x))


def test_rgb_model_explains_a_gray_picture_alike(x):
    torch.manual_seed(0)
    gray = fer_zoo.create_model("fer_cbam").eval()
    rgb = fer_zoo.create_model("fer_cbam", in_chans=3).eval()
    rgb.load_state_dict(gray.state_dict())
    torch.testing.assert_close(gradcam(rgb, x.expand(-1, 3, -1, -1)), gradcam(gray, x), atol=1e-5, rtol=1e-3)


def test_leaves_no_trace(model, x):
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    trained = [p.requires_grad for p in model.parameters()]
    gradcam(model, x)
    assert not model.training
    assert all(p.grad is None for p in model.parameters())
    assert [p.requires_grad for p in model.parameters()] == trained
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert not any(m._forward_hooks or m._backward_hooks for m in model.modules())
    assert not x.requires_grad


def test_200_calls_leak_nothing():
    model = fer_zoo.create_model("fer_cnn").eval()
    x = torch.randn(1, 1, 48, 48)

    def tensors() -> int:
        gc.collect()
        return sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())

    gradcam(model, x)
    before = tensors()
    for _ in range(200):
        gradcam(model, x)
    assert tensors() == before


def test_threads_share_a_model(model):
    inputs = torch.randn(24, 1, 1, 48, 48)
    serial = [gradcam(model, x) for x in inputs]
    with ThreadPoolExecutor(8) as pool:
        parallel = list(pool.map(lambda x: gradcam(model, x), inputs))
    for one, other in zip(serial, parallel, strict=True):
        torch.testing.assert_close(one, other)


def test_frozen_model():
    model = fer_zoo.create_model("fer_cnn").eval().requires_grad_(False)
    assert gradcam(model, torch.randn(1, 1, 48, 48)).amax() > 0


def test_other_timm_networks():
    model = timm.create_model("resnet10t", num_classes=7, in_chans=1).eval()
    assert gradcam(model, torch.randn(2, 1, 64, 64)).shape == (2, 7, 2, 2)


def test_models_without_feature_maps_are_refused():
    with pytest.raises(ValueError, match="forward_features"):
        gradcam(nn.Linear(1, 1).eval(), torch.zeros(1, 1, 48, 48))
    tokens = timm.create_model("vit_tiny_patch16_224", img_size=48, num_classes=7, in_chans=1).eval()
    with pytest.raises(
        ValueError, match=r"feature maps \(B, D, h, w\); VisionTransformer gives \(1, 10, 192\)"
    ):
        gradcam(tokens, torch.zeros(1, 1, 48, 48))


def test_training_mode_is_refused():
    with pytest.raises(ValueError, match=r"call model\.eval\(\) first"):
        gradcam(fer_zoo.create_model("fer_cnn").train(), torch.zeros(1, 1, 48, 48))


def test_nan_is_said_to_be_one(model):
    with pytest.raises(ValueError, match="not finite"):
        gradcam(model, torch.full((1, 1, 48, 48), torch.nan))


def test_classes_of_a_face_share_one_scale():
    maps = torch.rand(4, 7, 6, 6) * torch.tensor([1.0, 10.0, 1e-4, 0.0]).view(4, 1, 1, 1)
    scaled = scale_maps(maps)
    torch.testing.assert_close(scaled.amax((1, 2, 3)), torch.tensor([1.0, 1.0, 1.0, 0.0]))
    torch.testing.assert_close(scaled[1] * maps[1].amax(), maps[1])


def test_flat_maps():
    maps = torch.zeros(1, 5, 6, 6)
    maps[0, 1, 2, 3] = 1  # one place
    maps[0, 2, 2, 3] = 0.005  # too faint beside it to be seen
    maps[0, 3] = 0.7  # the same everywhere
    maps[0, 4, :3] = 0.1
    assert flat_maps(maps).tolist() == [[True, False, True, True, False]]
    assert flat_maps(maps * 1e-6).tolist() == [[True, False, True, True, False]]
    assert flat_maps(torch.zeros(1, 2, 6, 6)).tolist() == [[True, True]]
