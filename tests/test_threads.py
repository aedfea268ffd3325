import pytest
import torch

import gradleak as gl
from gradleak.threads import few_threads

CPU = torch.device("cpu")


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(("parameters", "inside"), [(1000, 1), (50_000_000, 2)])
def test_small_models_get_one_thread_and_give_it_back(two_threads, parameters, inside):
    with few_threads(parameters, CPU):
        assert torch.get_num_threads() == inside
    assert torch.get_num_threads() == 2


def test_an_error_inside_gives_them_back_too(two_threads):
    with pytest.raises(ValueError, match="inside"), few_threads(1, CPU):
        raise ValueError("inside")
    assert torch.get_num_threads() == 2


def test_an_attack_computes_on_one_thread_and_a_caller_never_notices(two_threads):
    x, _ = gl.zoo.pictures("faces", size=8, n=1, channels=1)
    seen = []

    def loss(output, y):
        seen.append(torch.get_num_threads())
        return torch.nn.functional.cross_entropy(output, y)

    obs = gl.observe(
        gl.zoo.mlp(sizes=(64, 16), classes=4, activation="sigmoid"), x, torch.tensor([1]), loss=loss
    )
    seen.clear()
    for _ in gl.attacks.dlg(evaluations=45).iterate(obs):
        assert torch.get_num_threads() == 2
    assert set(seen) == {1}
