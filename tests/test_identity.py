import copy
import functools
import importlib
import sys
from dataclasses import dataclass

import pytest
import torch
from torch import nn

import gradleak as gl
from gradleak import identity as room
from gradleak.identity import identity


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.scale, self.act = nn.Linear(4, 3), 1.0, torch.tanh
        self.norm = nn.BatchNorm1d(3)
        self.register_buffer("hidden", torch.ones(3), persistent=False)

    def forward(self, x):
        return self.act(self.norm(self.first(x))) * self.scale


def _net():
    torch.manual_seed(0)
    return Net()


def _scaled(net):
    net.scale = 3.0


def _relu(net):
    net.act = torch.relu


def _buffer(net):
    net.hidden[0] = 2


def _weight(net):
    with torch.no_grad():
        net.first.weight[0, 0] += 1e-6


def _frozen(net):
    net.first.bias.requires_grad_(False)


def _mode(net):
    net.norm.eval()


def _hooked(net):
    net.register_forward_hook(lambda module, given, out: 2 * out)


@pytest.mark.parametrize("change", [_scaled, _relu, _buffer, _weight, _frozen, _mode, _hooked])
def test_whatever_a_network_computes_with_is_part_of_it(change):
    net = _net()
    assert identity(net) == identity(_net()) == identity(copy.deepcopy(net))
    changed = _net()
    change(changed)
    assert identity(changed) != identity(net)


def test_a_changed_line_in_the_file_of_a_network_is_a_change(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    file, found = tmp_path / "stranger_net.py", []
    for line in ("x", "x.mean()"):
        file.write_text(
            "from torch import nn\n"
            "def helped(x):\n"
            f"    return {line}\n"
            "class Stranger(nn.Module):\n"
            "    def forward(self, x):\n"
            "        return helped(x)\n"
        )
        sys.modules.pop("stranger_net", None)
        importlib.invalidate_caches()
        room._file.cache_clear()
        found.append(identity(importlib.import_module("stranger_net").Stranger()))
    assert found[0] != found[1]


def _closed(amount):
    return lambda output, y: output.sum() * amount


def test_functions_are_told_apart_by_what_they_do_and_what_they_hold():
    assert identity(_closed(1)) == identity(_closed(1)) != identity(_closed(2))
    assert identity(functools.partial(_closed, 1)) != identity(functools.partial(_closed, 2))
    smooth = [nn.CrossEntropyLoss(label_smoothing=s) for s in (0.0, 0.0, 0.9)]
    assert identity(smooth[0]) == identity(smooth[1]) != identity(smooth[2])
    assert identity(torch.tanh) != identity(torch.relu)


@dataclass(frozen=True)
class Masked:
    mask: torch.Tensor

    def __call__(self, task, params, x, y):
        return task.gradient(params, x, y)


class Plain:
    def __init__(self, rate):
        self.rate, self.itself = rate, self


def test_clients_are_told_apart_by_every_number_and_by_no_address():
    holes = torch.ones(64, 64)
    holes[30:34, 30:34] = 0
    assert repr(Masked(torch.ones(64, 64))) == repr(Masked(holes))
    assert identity(Masked(torch.ones(64, 64))) != identity(Masked(holes))
    assert identity(Plain(1)) == identity(Plain(1)) != identity(Plain(2))
    assert identity(gl.LocalSGD(1, 1, 0.1)) != identity(gl.LocalSGD(1, 1, 0.2))
    assert identity([1, "1"]) != identity(["1", 1])
    assert identity(torch.zeros(2)) != identity(torch.zeros(2, dtype=torch.float64))
