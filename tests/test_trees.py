import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gradleak import trees

shapes = st.dictionaries(
    st.sampled_from(["conv.weight", "conv.bias", "fc.weight", "scale"]),
    st.lists(st.integers(0, 3), max_size=3).map(tuple),
    min_size=1,
)
seeds = st.integers(0, 2**32)
quick = settings(max_examples=60, deadline=None)


def draw(shape: dict[str, tuple[int, ...]], seed: int) -> dict[str, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return {name: torch.randn(size, generator=rng, dtype=torch.float64) for name, size in shape.items()}


def vector(tree: dict[str, Tensor]) -> Tensor:
    """The slow twin: every number in turn, in the tree's order."""
    return torch.tensor([v for leaf in tree.values() for v in leaf.reshape(-1).tolist()], dtype=torch.float64)


@given(shapes, seeds, st.floats(-3, 3))
@quick
def test_trees_compute_as_flat_vectors_do(
    shape: dict[str, tuple[int, ...]], seed: int, factor: float
) -> None:
    a, b = draw(shape, seed), draw(shape, seed + 1)
    assert torch.equal(trees.flatten(a), vector(a))
    assert torch.equal(vector(trees.add(a, b)), vector(a) + vector(b))
    assert torch.equal(vector(trees.subtract(a, b)), vector(a) - vector(b))
    assert torch.equal(vector(trees.scale(a, factor)), vector(a) * factor)
    assert torch.equal(vector(trees.scale(a, torch.tensor(factor, dtype=torch.float64))), vector(a) * factor)
    assert torch.allclose(trees.dot(a, b), vector(a) @ vector(b), rtol=1e-12, atol=1e-12)
    assert torch.allclose(trees.squared_norm(a), vector(a) @ vector(a), rtol=1e-12)
    assert torch.allclose(trees.norm(a), torch.linalg.vector_norm(vector(a)), rtol=1e-12)


@given(shapes, seeds)
@quick
def test_names_count_and_positions_do_not(shape: dict[str, tuple[int, ...]], seed: int) -> None:
    a, b = draw(shape, seed), draw(shape, seed + 1)
    shuffled = dict(reversed(b.items()))
    assert torch.equal(vector(trees.subtract(a, shuffled)), vector(a) - vector(b))
    assert list(trees.add(a, shuffled)) == list(a)
    assert torch.equal(trees.dot(a, shuffled), trees.dot(a, b))


def test_a_missing_name_is_an_error_and_no_zero() -> None:
    with pytest.raises(KeyError, match="b"):
        trees.dot({"a": torch.ones(1), "b": torch.ones(1)}, {"a": torch.ones(1)})


def test_detached_shares_no_memory_and_no_graph() -> None:
    leaf = torch.ones(3, requires_grad=True)
    tree = {"doubled": leaf * 2, "leaf": leaf}
    copy = trees.detached(tree)
    assert not any(t.requires_grad or t.grad_fn for t in copy.values())
    copy["leaf"].zero_()
    assert leaf.tolist() == [1, 1, 1]


def test_sums_are_differentiable() -> None:
    a = torch.tensor([1.0, 2.0], dtype=torch.float64, requires_grad=True)
    tree = {"a": a, "b": 3 * a}
    (slope,) = torch.autograd.grad(trees.squared_norm(tree), a)
    assert torch.equal(slope, 20 * a)  # d(a² + 9a²)


def test_total_takes_tensors_of_one_number_only() -> None:
    assert trees.total(torch.tensor(float(i)) for i in range(4)).item() == 6
    with pytest.raises(RuntimeError):
        trees.total([])
