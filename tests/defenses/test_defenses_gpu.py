"""A seed means the same dice on every device."""

import pytest
import torch
from defended import STRONG, batch, network

import gradleak as gl


@pytest.mark.gpu
@pytest.mark.parametrize("name", STRONG)
def test_what_goes_out_is_the_same_on_a_gpu(name):
    x, y = batch(3)
    here = gl.observe(network(), x, y, client=STRONG[name], rng=1)
    there = gl.observe(network().cuda(), x.cuda(), y.cuda(), client=STRONG[name], rng=1)
    pairs = [
        (there.update, here.update),
        (there.uncertainty, here.uncertainty),
        (there.simulate(x.cuda(), y.cuda()), here.simulate(x, y)),
    ]
    for theirs, ours in pairs:
        for key, leaf in ours.items():
            torch.testing.assert_close(theirs[key].cpu(), leaf, rtol=1e-6, atol=1e-9)
