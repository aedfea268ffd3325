"""One thread, so that times and bits are the same everywhere; tests that need a GPU say so."""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported, which reads them once
os.environ["OMP_WAIT_POLICY"] = "PASSIVE"

import pytest
import torch

torch.set_num_threads(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))
