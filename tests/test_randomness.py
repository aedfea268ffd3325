import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Generator, Tensor

from gradleak.errors import InvalidInput
from gradleak.randomness import generator, reseed, spawn, undisturbed

seeds = st.integers(0, 2**63 - 1)
quick = settings(max_examples=40, deadline=None)


def draws(rngs: list[Generator]) -> list[Tensor]:
    return [torch.rand(4, generator=rng) for rng in rngs]


def alike(a: list[Tensor], b: list[Tensor]) -> bool:
    return len(a) == len(b) and all(map(torch.equal, a, b))


@given(seeds, st.integers(0, 6), st.integers(0, 6))
@quick
def test_fewer_generators_are_the_first_of_more(seed: int, k: int, more: int) -> None:
    assert alike(draws(spawn(seed, k)), draws(spawn(seed, k + more))[:k])


@given(seeds)
@quick
def test_generators_differ_from_each_other_and_from_their_parent(seed: int) -> None:
    seen = {tuple(draw.tolist()) for draw in draws([generator(seed), *spawn(seed, 8)])}
    assert len(seen) == 9


def test_neighbouring_seeds_share_no_stream() -> None:
    first = {rng.initial_seed() for rng in spawn(0, 50)}
    assert not first & {rng.initial_seed() for rng in spawn(1, 50)}


def test_a_generator_is_used_as_it_is_and_moves_on() -> None:
    rng = Generator().manual_seed(3)
    assert generator(rng) is rng
    assert alike(draws(spawn(Generator().manual_seed(3), 2)), draws(spawn(3, 2)))
    assert not alike(draws(spawn(rng, 2)), draws(spawn(rng, 2)))


def test_what_is_drawn_does_not_move_a_sibling() -> None:
    a, b = spawn(5, 2)
    torch.rand(1000, generator=a)
    assert torch.equal(torch.rand(3, generator=b), torch.rand(3, generator=spawn(5, 2)[1]))


def test_the_global_generator_is_not_touched() -> None:
    before = torch.get_rng_state()
    draws([generator(1), *spawn(1, 3)])
    assert torch.equal(torch.get_rng_state(), before)


def test_a_default_device_changes_nothing() -> None:
    with torch.device("meta"):
        there = spawn(7, 2)
    assert alike(draws(there), draws(spawn(7, 2)))


@pytest.mark.parametrize("rng", [-1, 2**63, 1.0, "0", None, True])
def test_what_is_no_seed_is_named(rng: object) -> None:
    with pytest.raises(InvalidInput, match=r"seed from 0 .* came"):
        generator(rng)  # type: ignore[arg-type]


def test_undisturbed_gives_the_global_state_back_even_after_an_error() -> None:
    before = torch.get_rng_state()
    cpu = torch.device("cpu")

    def draw_and_fail() -> None:
        with undisturbed(cpu):
            reseed(11, cpu)
            assert torch.equal(torch.rand(3), torch.rand(3, generator=Generator().manual_seed(11)))
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        draw_and_fail()
    assert torch.equal(torch.get_rng_state(), before)


def test_undisturbed_has_gradients_whatever_mode_the_caller_is_in() -> None:
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            with undisturbed(torch.device("cpu")):
                x = torch.ones(1, requires_grad=True)
                assert (x * x).requires_grad
            assert not torch.is_grad_enabled()


@pytest.mark.gpu
def test_a_seed_means_the_same_beside_a_gpu() -> None:
    device = torch.device("cuda", 0)
    before = torch.cuda.get_rng_state(device)
    with undisturbed(device):
        reseed(1, device)
        first = torch.rand(3, device=device)
        reseed(1, device)
        assert torch.equal(first, torch.rand(3, device=device))
    assert torch.equal(torch.cuda.get_rng_state(device), before)
