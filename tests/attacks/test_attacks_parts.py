import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gradleak.attacks.matching import (
    INITS,
    AbsoluteError,
    Box,
    Candidate,
    Cosine,
    Energy,
    Flat,
    Gaussian,
    Given,
    Gray,
    LayerNorms,
    LayerwiseSquaredError,
    Patterned,
    SameClass,
    SquaredError,
    TotalVariation,
    Uniform,
    as_init,
)
from gradleak.errors import InvalidInput
from gradleak.labels import LabelGuess
from gradleak.observe import Domain, Task, cross_entropy


def candidate(x, domain=None, progress=0.0, **more):
    task = Task(torch.nn.Flatten(), {}, cross_entropy)
    y = torch.zeros(len(x), dtype=torch.long)
    return Candidate(x, y, domain or Domain(), torch.tensor(progress), task, {}, **more)


OBJECTIVES = [
    SquaredError(),
    LayerwiseSquaredError(),
    LayerwiseSquaredError((1.0, 5.0)),
    Cosine(),
    AbsoluteError(),
    LayerNorms(),
]


def trees(seed=0):
    rng = torch.Generator().manual_seed(seed)
    shapes = {"a": (3, 4), "b": (5,)}
    return [{n: torch.randn(s, generator=rng, dtype=torch.float64) for n, s in shapes.items()} for _ in "12"]


def flat(tree):
    return torch.cat([leaf.flatten() for leaf in tree.values()])


def slow(objective, a, b):
    """Each objective once more, on one long vector or tensor by tensor, as the papers write it."""
    x, g = flat(a), flat(b)
    if isinstance(objective, SquaredError):
        return torch.linalg.norm(x - g) ** 2 / torch.linalg.norm(g) ** 2
    if isinstance(objective, Cosine):
        return 1 - torch.nn.functional.cosine_similarity(x, g, dim=0)
    if isinstance(objective, AbsoluteError):
        return sum(abs(p - q) for p, q in zip(x, g, strict=True)) / sum(abs(q) for q in g)
    if isinstance(objective, LayerNorms):
        return sum(torch.linalg.norm(a[n] - b[n]) for n in b) / sum(torch.linalg.norm(b[n]) for n in b)
    w = dict(zip(b, objective.weights or (1.0, 1.0), strict=True))
    each = {n: torch.linalg.norm(a[n] - b[n]) ** 2 / torch.linalg.norm(b[n]) ** 2 for n in b}
    return sum(w[n] * each[n] for n in b) / sum(w.values())


@pytest.mark.parametrize("objective", OBJECTIVES, ids=repr)
def test_objectives_agree_with_their_slow_twins(objective):
    a, b = trees()
    torch.testing.assert_close(objective(a, b), slow(objective, a, b))


@pytest.mark.parametrize("objective", OBJECTIVES, ids=repr)
def test_a_match_scores_0_and_an_update_of_zeros_1(objective):
    a, _ = trees()
    zeros = {n: torch.zeros_like(leaf) for n, leaf in a.items()}
    assert float(objective(a, a)) == pytest.approx(0, abs=1e-12)
    assert float(objective(zeros, a)) == pytest.approx(1)


def test_the_cosine_keeps_its_digits_near_a_match_in_float32():
    a, b = trees()
    near = {n: 3 * leaf + 1e-5 * b[n] for n, leaf in a.items()}
    exact = float(Cosine()(near, a))
    short = ({n: leaf.float() for n, leaf in tree.items()} for tree in (near, a))
    assert 1e-13 < exact < 1e-9
    assert float(Cosine()(*short)) == pytest.approx(exact, rel=0.05)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_cosine_of_tiny_updates_stays_between_its_ends(dtype):
    a, b = ({n: leaf.to(dtype) for n, leaf in tree.items()} for tree in trees())
    for shrink in (1e-15, 1e-25, 1e-40, 0.0):
        assert 0 <= float(Cosine()({n: shrink * leaf for n, leaf in a.items()}, b)) <= 2


def test_objectives_differ_from_each_other():
    a, b = trees()
    values = [round(float(objective(a, b)), 9) for objective in OBJECTIVES]
    assert len(set(values)) == len(OBJECTIVES)


@given(scale=st.floats(1e-3, 1e3))
@settings(deadline=None)
def test_only_the_cosine_is_blind_to_scale(scale):
    a, b = trees()
    scaled = {n: scale * leaf for n, leaf in a.items()}
    torch.testing.assert_close(Cosine()(scaled, b), Cosine()(a, b))
    if abs(scale - 1) > 0.01:
        assert float((SquaredError()(scaled, b) - SquaredError()(a, b)).abs()) > 1e-4


def test_a_zero_tensor_in_the_update_does_no_harm():
    a, b = trees()
    b["a"] = torch.zeros_like(b["a"])
    a["a"] = torch.zeros_like(a["a"])
    assert all(bool(torch.isfinite(objective(a, b))) for objective in OBJECTIVES)


def test_total_variation_is_the_mean_of_all_steps():
    rng = torch.Generator().manual_seed(0)
    x = torch.rand(2, 3, 4, 5, generator=rng, dtype=torch.float64)
    across = [
        abs(x[b, c, i, j + 1] - x[b, c, i, j])
        for b in range(2)
        for c in range(3)
        for i in range(4)
        for j in range(4)
    ]
    down = [
        abs(x[b, c, i + 1, j] - x[b, c, i, j])
        for b in range(2)
        for c in range(3)
        for i in range(3)
        for j in range(5)
    ]
    expected = 0.7 * (sum(across) / len(across) + sum(down) / len(down))
    torch.testing.assert_close(TotalVariation(0.7)(candidate(x)), expected)
    assert float(TotalVariation(0.7)(candidate(x[:, 0, 0]))) == 0  # no picture, no neighbours


def test_total_variation_falls_evenly_to_its_final_weight():
    x = torch.rand(1, 1, 5, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    falling, plain = TotalVariation(0.1, 0.001), TotalVariation(1.0)
    weights = [float(falling(candidate(x, progress=p)) / plain(candidate(x))) for p in (0.0, 0.5, 1.0)]
    assert weights == pytest.approx([0.1, 0.01, 0.001])


def test_energy_and_box_look_at_pixels_not_at_what_the_model_takes():
    domain = Domain((0.3,), (0.5,))
    pixels = torch.tensor([[[[-0.5, 0.5], [1.0, 2.0]]]], dtype=torch.float64)
    x = domain.from_pixels(pixels)
    assert float(Box(2.0)(candidate(x, domain))) == pytest.approx(2 * (0.25 + 1.0) / 4)
    assert float(Energy(2.0)(candidate(x, domain))) == pytest.approx(2 * (1 + 0 + 0.25 + 2.25) / 4)
    inside = domain.from_pixels(torch.rand(1, 1, 3, 3, dtype=torch.float64))
    assert float(Box(1.0)(candidate(inside, domain))) == pytest.approx(0, abs=1e-30)


@settings(deadline=None)
@given(
    name=st.sampled_from(sorted(INITS)),
    b=st.integers(1, 3),
    c=st.integers(1, 3),
    side=st.integers(1, 40),
    seed=st.integers(0, 9),
)
def test_inits_have_the_asked_shape_and_follow_their_generator(name, b, c, side, seed):
    def draw():
        return as_init(name)((b, c, side, side), torch.Generator().manual_seed(seed))

    assert draw().shape == (b, c, side, side)
    assert torch.equal(draw(), draw())


def test_inits_draw_what_they_say():
    rng = torch.Generator().manual_seed(0)
    shape = (8, 3, 32, 32)
    gaussian, uniform, gray = (
        init(shape, rng) for init in (Gaussian(0.2, 0.5), Uniform(0.1, 0.3), Gray(0.4, 0.01))
    )
    assert float(gaussian.mean()) == pytest.approx(0.2, abs=0.02)
    assert float(gaussian.std()) == pytest.approx(0.5, abs=0.02)
    assert (float(uniform.min()) >= 0.1, float(uniform.max()) <= 0.3) == (True, True)
    assert float(uniform.mean()) == pytest.approx(0.2, abs=0.01)
    assert float(gray.mean()) == pytest.approx(0.4, abs=0.01)
    pattern = Patterned(8)((2, 3, 20, 20), rng)
    assert torch.equal(pattern[..., :8, :8], pattern[..., 8:16, 8:16])
    assert torch.equal(pattern[..., :8, 16:], pattern[..., 8:16, :4])
    assert not torch.equal(pattern[0], pattern[1])


def test_a_given_start_is_taken_and_copied():
    picture = torch.rand(1, 3, 8, 8)
    start = as_init(picture)((2, 3, 8, 8), torch.Generator())
    assert torch.equal(start[1].float(), picture[0])
    start.zero_()
    assert float(picture.sum()) > 0


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: as_init(None), "a tensor or a function; came None"),
        (lambda: as_init("grey"), "gaussian, uniform, gray, patterned, dark, bright"),
        (lambda: Given(torch.zeros(3, 5))((1, 3, 8, 8), torch.Generator()), r"\[3, 5\].*\[1, 3, 8, 8\]"),
        (lambda: Patterned()((4, 7), torch.Generator()), r"pictures \[B, C, H, W\]"),
    ],
)
def test_a_wrong_init_says_what_was_expected(make, says):
    with pytest.raises(InvalidInput, match=says):
        make()


def test_flat_starts_are_of_one_value():
    dark, bright = (as_init(name)((2, 3, 4, 4), torch.Generator()) for name in ("dark", "bright"))
    assert (set(dark.flatten().tolist()), set(bright.flatten().tolist())) == ({0.0}, {1.0})
    assert set(Flat(0.25)((1, 3, 4, 4), torch.Generator()).flatten().tolist()) == {0.25}


def test_a_start_of_the_same_class_shows_each_records_own_label():
    pictures = torch.arange(6.0)[:, None, None, None].expand(6, 3, 4, 4) / 10
    labels = torch.tensor([0, 0, 1, 1, 2, 2])
    init = SameClass(pictures, labels)
    y = torch.tensor([2, 0, 1, 0])

    def drawn(guess, seed=0):
        start = init.knowing(guess)((4, 3, 4, 4), torch.Generator().manual_seed(seed))
        return (10 * start[:, 0, 0, 0]).round().long()

    assert labels[drawn(LabelGuess(y=y))].tolist() == y.tolist()
    assert labels[drawn(LabelGuess(logits=5 * torch.eye(3)[y]))].tolist() == y.tolist()
    assert len({tuple(drawn(LabelGuess(y=y), seed).tolist()) for seed in range(8)}) > 1
    assert torch.equal(drawn(LabelGuess(y=y)), drawn(LabelGuess(y=y)))
    stranger = drawn(LabelGuess(y=torch.tensor([7, 7, 7, 7])), 3)
    assert set(stranger.tolist()) <= set(range(6))
    with pytest.raises(InvalidInput, match="as many labels"):
        SameClass(pictures, labels[:3])
    with pytest.raises(InvalidInput, match=r"expected \[3, 5, 5\]"):
        init((4, 3, 5, 5), torch.Generator())
