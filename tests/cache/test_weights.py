"""A module's tensors as a value."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from multipass.cache import memory, weights

CPU = torch.device("cpu")


class Wrapper(nn.Module):
    """As hosts wrap a part of a model to patch it."""

    def __init__(self, wrapped: nn.Module) -> None:
        super().__init__()
        self.wrapped = wrapped


class Model(nn.Module):
    """Two parts, with parameters, a buffer and a parameter that is not there."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.unet = nn.Sequential(nn.Linear(3, 4, bias=False), nn.BatchNorm1d(4))
        self.vae = nn.Linear(4, 2)
        self.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        return self.vae(self.unet(x))


def answer(model: nn.Module) -> Tensor:
    return model.eval()(torch.ones(2, 3))


def test_a_module_answers_as_the_one_whose_tensors_it_has_and_back() -> None:
    one, other = Model(1), Model(2)
    own, expected, theirs = weights.take(one), answer(one), answer(other)
    held = dict(one.named_parameters())
    weights.point(one, weights.take(other), CPU)
    assert torch.equal(answer(one), theirs)
    weights.point(one, own, CPU)
    assert torch.equal(answer(one), expected)
    assert all(parameter is held[name] for name, parameter in one.named_parameters()), "the very tensors, no copies"


def test_what_is_written_after_detaching_reaches_no_one_else() -> None:
    one, other = Model(1), Model(2)
    own, expected = weights.take(one), answer(one)
    weights.detach(one)
    one.load_state_dict(other.state_dict())
    assert torch.equal(answer(one), answer(other))
    weights.point(one, own, CPU)
    assert torch.equal(answer(one), expected)


def test_only_a_part_is_detached() -> None:
    model = Model(1)
    before = weights.take(model)
    weights.detach(model, under="vae.")
    after = weights.take(model)
    assert {name for name in before if after[name] is not before[name]} == {"vae.weight", "vae.bias"}
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_names_are_the_same_with_and_without_a_wrapper() -> None:
    one, other = Model(1), Model(2)
    theirs = answer(other)
    one.vae = Wrapper(one.vae)  # type: ignore[assignment]
    assert weights.take(one).keys() == weights.take(other).keys()
    weights.point(one, weights.take(other), CPU)
    one.vae = one.vae.wrapped  # type: ignore[assignment]
    assert torch.equal(answer(one), theirs)


def test_what_the_other_has_not_stays() -> None:
    one, other = Model(1), Model(2)
    one.register_parameter("extra", nn.Parameter(torch.ones(1)))
    weights.point(one, weights.take(other), CPU)
    assert torch.equal(dict(one.named_parameters())["extra"], torch.ones(1))
    assert torch.equal(answer(one), answer(other))


def test_on_another_device_it_has_copies_and_the_set_stays_in_ram() -> None:
    """The device without memory stands in for a GPU."""
    model = Model(1)
    own = weights.take(model)
    weights.point(model, own, torch.device("meta"))
    assert {tensor.device.type for tensor in model.parameters()} == {"meta"}
    assert {tensor.device.type for tensor in own.values()} == {"cpu"}
    assert all(isinstance(tensor, nn.Parameter) for tensor in model.parameters())
    weights.point(model, own, CPU)
    assert torch.equal(answer(model), answer(Model(1)))


FORMS = [
    torch.zeros(3, 5, dtype=torch.float64),
    torch.zeros(4, 3, 2, 2).to(memory_format=torch.channels_last),
    torch.zeros((), dtype=torch.int64),
    torch.zeros(0, 3),
    nn.Parameter(torch.zeros(7, dtype=torch.float16), requires_grad=False),
]


@pytest.mark.parametrize("piece", [64, 100, 1 << 20])
def test_cast_to_the_type_and_the_strides_that_are_wanted(monkeypatch: pytest.MonkeyPatch, piece: int) -> None:
    monkeypatch.setattr(weights, "_PIECE", piece)
    wanted = {str(number): form.to("meta") for number, form in enumerate(FORMS)}
    contents = {name: (torch.randn(form.shape) * 9).contiguous() for name, form in wanted.items()}
    expected = {name: contents[name].to(form.dtype) for name, form in wanted.items()}
    given = dict(contents)
    found = weights.cast_to(wanted, given)
    assert given == {}
    for name, form in wanted.items():
        assert torch.equal(found[name], expected[name])
        assert (found[name].dtype, found[name].stride()) == (form.dtype, form.stride())
        assert isinstance(found[name], nn.Parameter) == isinstance(form, nn.Parameter)
    for name in found:  # no two in the same place
        with torch.no_grad():
            found[name].zero_()
    assert all(torch.equal(tensor, torch.zeros_like(tensor)) for tensor in found.values())


def test_what_is_as_wanted_is_taken_as_it_is() -> None:
    content = torch.randn(3)
    assert weights.cast_to({"a": torch.empty(3, device="meta")}, {"a": content})["a"] is content


def test_as_fp8_matrices_take_a_byte_a_number_and_are_near_to_what_they_were() -> None:
    model = Model(1)
    with torch.no_grad():
        model.vae.weight[0, 0] = 1e6  # more than fp8 can say
    forms = {name: tensor.detach().to("meta") for name, tensor in weights.held(model).items()}
    exact = {name: tensor.clone() for name, tensor in weights.held(model).items()}
    contents = weights.take(model)
    stored = weights.as_fp8({**contents})
    assert weights.has_fp8(stored)
    assert not weights.has_fp8(contents)
    matrices = {"unet.0.weight", "vae.weight"}
    assert {name for name in stored if stored[name] is contents[name]} == stored.keys() - matrices
    assert weights.nbytes({name: stored[name] for name in matrices}) == 3 * 4 + 4 * 2
    weights.point(model, stored, CPU, forms)
    for name, tensor in weights.held(model).items():
        assert (tensor.dtype, tensor.stride()) == (exact[name].dtype, exact[name].stride())
        assert torch.allclose(tensor, exact[name].clamp(-448, 448), rtol=1 / 16, atol=2**-9)
        assert isinstance(tensor, nn.Parameter) == isinstance(contents[name], nn.Parameter)


# --- on a GPU --------------------------------------------------------------------------------------------------------

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")


@needs_cuda
def test_copies_on_a_gpu_are_the_same_and_so_is_what_comes_back() -> None:
    model, gpu = Model(1), torch.device("cuda")
    own = weights.take(model)
    there = weights.copied_beside(own, gpu)
    assert {tensor.device.type for tensor in there.values()} == {"cuda"}
    weights.point(model, there, gpu)
    back = weights.take(model)
    assert all(torch.equal(back[name], own[name]) for name in own)
    weights.point(model, own, gpu)
    assert all(torch.equal(tensor.cpu(), own[name]) for name, tensor in weights.held(model).items())


@needs_cuda
def test_what_is_registered_can_be_copied_while_the_gpu_computes_and_freed_right_after() -> None:
    memory.register_for(torch.device("cuda"))
    buffer = memory.fresh(64 << 20)
    buffer[:] = 7
    memory.register(buffer)
    tensor = torch.frombuffer(buffer, dtype=torch.uint8)
    assert tensor.is_pinned()
    copy = tensor.to("cuda", non_blocking=True)
    del tensor, buffer
    again = memory.fresh(64 << 20)
    again[:] = 1
    memory.register(again)
    assert bool((copy == 7).all())
