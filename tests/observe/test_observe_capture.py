"""What is saved is what is loaded, bit for bit, and nothing else can be loaded."""

import json
import os
import pickle
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import gradleak as gl
from gradleak import Observation, load, observe, save, zoo
from gradleak.errors import CannotWrite, GradleakError, InvalidCapture, InvalidModel


def net(dtype: torch.dtype = torch.float64, seed: int = 0) -> nn.Sequential:
    return zoo.lenet(5, 1, 8, seed=seed).to(dtype)


def look(model: nn.Module, **kwargs: Any) -> Observation:
    x, y = zoo.pictures("digits", size=8, n=1)
    return observe(model, x, y % 5, **kwargs)


def alike(a: Observation, b: Observation) -> bool:
    def bits(obs: Observation) -> list[Any]:
        groups = (obs.params, obs.update, obs.constants, {"y": obs.labels} if obs.labels is not None else {})
        return [[(n, t.dtype, t.shape, t.tolist()) for n, t in sorted(g.items())] for g in groups]

    facts = [(o.x_shape, o.classes, o.loss, o.client, o.domain, o.knows) for o in (a, b)]
    return bits(a) == bits(b) and facts[0] == facts[1]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "capture.safetensors"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_there_and_back_bit_for_bit(path: Path, dtype: torch.dtype) -> None:
    seen = look(net(dtype), reveal=["labels"], normalization=((0.5,), (0.3,)))
    save(seen, path)
    back = load(path, net(dtype, seed=9))
    assert alike(seen, back)
    assert back.like.dtype == dtype
    x, y = torch.rand(seen.x_shape, dtype=dtype), torch.tensor([1])
    ours, theirs = seen.simulate(x, y), back.simulate(x, y)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("attack", [gl.attacks.dlg(evaluations=12), gl.attacks.inverting_gradients(steps=6)])
def test_an_attack_on_what_was_loaded_gives_the_same_bits(path: Path, attack: Any) -> None:
    seen = look(net(torch.float32))
    save(seen, path)
    a, b = attack(seen, rng=3), attack(load(path, net(torch.float32, seed=4)), rng=3)
    assert torch.equal(a.x, b.x)
    assert (a.score, a.outcome, a.cost.matching_gradients) == (b.score, b.outcome, b.cost.matching_gradients)


def test_modes_buffers_and_frozen_parameters_come_back(path: Path) -> None:
    model = zoo.resnet(5, 1, 8, depth=8, width=4, norm="batch", seed=0).double()
    for parameter in list(model.parameters())[:2]:
        parameter.requires_grad_(False)
    model.linear.train()
    seen = look(model)
    save(seen, path)
    fresh = zoo.resnet(5, 1, 8, depth=8, width=4, norm="batch", seed=1).double()
    for start in (fresh.train(), fresh.eval()):
        back = load(path, start)
        assert alike(seen, back)
        assert len(back.constants) == 2 + len(list(model.buffers()))
        modes = [[(n, m.training) for n, m in o.named_modules()] for o in (back.model, seen.model, model)]
        assert modes[0] == modes[1] == modes[2]
    assert not fresh.training


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.out = nn.Linear(64, 64), nn.Linear(64, 64), nn.Linear(64, 5)
        self.b.weight = self.a.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.b(self.a(x.flatten(1)).tanh()))


def test_tied_weights_come_back_tied(path: Path) -> None:
    seen = look(Tied().double())
    save(seen, path)
    back = load(path, Tied().double())
    assert alike(seen, back)
    x, y = torch.rand(1, 1, 8, 8, dtype=torch.float64), torch.tensor([0])
    assert torch.equal(back.simulate(x, y)["a.weight"], seen.simulate(x, y)["a.weight"])


def test_labels_are_written_only_where_they_are_revealed(path: Path) -> None:
    save(look(net()), path)
    assert load(path, net()).labels is None
    assert "labels" not in safetensors.torch.load_file(path)
    save(look(net(), reveal=["labels"]), path)
    assert load(path, net()).labels is not None


def test_what_is_frozen_in_the_model_at_hand_changes_nothing(path: Path) -> None:
    seen = look(net())
    save(seen, path)
    model = net(seed=2)
    model.conv1.requires_grad_(False)
    back = load(path, model)
    assert alike(seen, back)
    assert list(back.params) == list(back.update) == list(seen.update)


def test_the_users_model_is_only_read(path: Path) -> None:
    save(look(net()), path)
    model = net(seed=5).train()
    before = [(id(p), p.tolist(), p.requires_grad) for p in model.parameters()]
    state = torch.get_rng_state()
    load(path, model)
    assert before == [(id(p), p.tolist(), p.requires_grad) for p in model.parameters()]
    assert all(module.training for module in model.modules())
    assert torch.equal(torch.get_rng_state(), state)


def test_what_is_loaded_owns_its_memory(path: Path) -> None:
    save(look(net()), path)
    back = load(path, net())
    for leaf in (*back.params.values(), *back.update.values()):
        leaf.add_(1)  # would fail, or warn, in the file's own read-only bytes


def test_only_the_owner_can_read_it_and_it_is_written_whole(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = look(net())
    save(seen, path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    old = path.read_bytes()

    def fail(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(CannotWrite, match="No space left"):
        save(look(net(seed=1)), path)
    assert path.read_bytes() == old
    assert list(path.parent.iterdir()) == [path]


def test_a_folder_that_is_a_file_is_named(path: Path) -> None:
    path.write_bytes(b"")
    with pytest.raises(CannotWrite, match="cannot write"):
        save(look(net()), path / "below")


def test_another_model_is_refused_with_every_name_that_differs(path: Path) -> None:
    save(look(net()), path)
    with pytest.raises(
        InvalidCapture, match=r"another model than Sequential: .*linear\.bias has .*linear\.weight has"
    ):
        load(path, zoo.lenet(6, 1, 8))
    with pytest.raises(InvalidCapture, match=r"another model than Sequential: .*norm.*and .* more"):
        load(path, zoo.resnet(5, 1, 8, depth=8))
    with pytest.raises(InvalidCapture, match="another model than Flatten"):
        load(path, nn.Flatten())
    with pytest.raises(InvalidModel, match=r"expected a torch\.nn\.Module; came str"):
        load(path, "lenet")  # type: ignore[arg-type]


def squares(output: Tensor, y: Tensor) -> Tensor:
    return (output - nn.functional.one_hot(y, 5)).square().mean()


def cross_entropy(output: Tensor, y: Tensor) -> Tensor:
    return nn.functional.cross_entropy(output, y, label_smoothing=0.1)


def test_a_loss_of_ones_own_is_asked_for_by_name(path: Path) -> None:
    for loss in (squares, cross_entropy):  # the second must not be taken for ours
        save(look(net(), loss=loss), path)
        with pytest.raises(InvalidCapture, match=rf"its loss is '.*{loss.__name__}'.* pass loss="):
            load(path, net())
        assert load(path, net(), loss=loss).loss is loss


class OneGradient(gl.OneGradient):
    """Has the name of one of gradleak's, and is none."""


class Halved(gl.OneGradient):
    def __call__(self, *args: Any) -> dict[str, Tensor]:
        return {name: leaf / 2 for name, leaf in super().__call__(*args).items()}


def test_a_client_of_ones_own_is_asked_for_by_name(path: Path) -> None:
    for client in (Halved(), OneGradient()):
        save(look(net(), client=client), path)
        with pytest.raises(InvalidCapture, match=rf"its client is '{type(client).__name__}'.* pass client="):
            load(path, net())
        assert load(path, net(), client=client).client is client


# ---- files that are no capture ----------------------------------------------------------------------


def refused(path: Path, content: bytes, says: str | None = None) -> None:
    path.write_bytes(content)
    start = time.perf_counter()
    with pytest.raises(InvalidCapture, match=says) as caught:
        load(path, net())
    assert str(path) in str(caught.value)
    assert time.perf_counter() - start < 2


@pytest.fixture(scope="module")
def capture(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("capture") / "good"
    save(look(net(), reveal=["labels"]), path)
    return path.read_bytes()


def header_of(capture: bytes) -> dict[str, Any]:
    return json.loads(capture[8 : 8 + int.from_bytes(capture[:8], "little")])


def data_of(capture: bytes) -> bytes:
    return capture[8 + int.from_bytes(capture[:8], "little") :]


def packed(header: str | bytes, data: bytes) -> bytes:
    head = header.encode() if isinstance(header, str) else header
    return len(head).to_bytes(8, "little") + head + data


def with_facts(capture: bytes, edit: Callable[[dict[str, Any]], Any]) -> bytes:
    header = header_of(capture)
    facts = json.loads(header["__metadata__"]["gradleak"])
    edited = edit(facts)
    facts = facts if edited is None else edited
    text = facts if isinstance(facts, str) else json.dumps(facts)
    return packed(json.dumps({**header, "__metadata__": {"gradleak": text}}), data_of(capture))


def with_tensors(capture: bytes, edit: Callable[[dict[str, Tensor]], Any]) -> bytes:
    tensors = safetensors.torch.load(capture)
    edit(tensors)
    return safetensors.torch.save(tensors, header_of(capture)["__metadata__"])


def test_these_tools_make_a_capture_that_is_good(capture: bytes, path: Path) -> None:
    for content in (
        with_facts(capture, lambda facts: None),
        with_tensors(capture, lambda tensors: None),
        packed(json.dumps(header_of(capture)), data_of(capture)),
    ):
        path.write_bytes(content)
        assert alike(load(path, net()), look(net(), reveal=["labels"]))


def test_a_file_that_was_cut_off(capture: bytes, path: Path) -> None:
    end = 8 + int.from_bytes(capture[:8], "little")
    for length in (0, 1, 7, 8, 9, 100, end - 1, end, end + 1, len(capture) - 8, len(capture) - 1):
        refused(path, capture[:length])
    refused(path, capture + b"\0", "claims .* bytes of tensors")


def test_files_of_another_kind(path: Path, tmp_path: Path) -> None:
    torch.save({"update": torch.ones(3)}, path)
    refused(path, path.read_bytes(), "no safetensors file")
    refused(path, pickle.dumps({"a": 1}), "no safetensors file")
    refused(path, b"The quick brown fox jumps over the lazy dog.\n" * 9, "no safetensors file")
    refused(path, b"\xff" * 64, "no safetensors file")
    refused(path, safetensors.torch.save({"a": torch.ones(3)}), "it holds no capture")
    refused(path, safetensors.torch.save({"a": torch.ones(3)}, {"format": "pt"}), "it holds no capture")
    for missing in (tmp_path / "missing", path / "below", Path("nul\0byte")):
        with pytest.raises(InvalidCapture, match="cannot read"):
            load(missing, net())
    with pytest.raises(InvalidCapture, match="no regular file"):
        load(tmp_path, net())
    os.mkfifo(tmp_path / "pipe")
    for special in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(InvalidCapture, match="no regular file"):
            load(special, net())


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return (pytest.fail, ("a file was unpickled",))


def test_nothing_is_unpickled(path: Path) -> None:
    refused(path, pickle.dumps(Bomb()))
    torch.save(Bomb(), path)
    refused(path, path.read_bytes())


def entry(shape: list[int], begin: int, end: int, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def test_headers_that_lie(capture: bytes, path: Path) -> None:
    meta = {"__metadata__": header_of(capture)["__metadata__"]}
    liars: dict[str, tuple[Any, bytes]] = {
        "huge shape, small data": ({"params/a": entry([10**12], 0, 8)}, bytes(8)),
        "huge shape, huge offsets": ({"params/a": entry([10**12], 0, 4 * 10**12)}, bytes(8)),
        "a shape that overflows": ({"params/a": entry([2**40, 2**40, 2**40], 0, 8)}, bytes(8)),
        "a number of thousands of digits": ({"params/a": entry([10**4000], 0, 8)}, bytes(8)),
        "overlapping": ({"params/a": entry([2], 0, 8), "params/b": entry([2], 4, 12)}, bytes(12)),
        "the same bytes twice": ({"params/a": entry([2], 0, 8), "params/b": entry([2], 0, 8)}, bytes(8)),
        "a hole": ({"params/a": entry([1], 0, 4), "params/b": entry([1], 8, 12)}, bytes(12)),
        "negative": ({"params/a": entry([2], -8, 0)}, b""),
        "backwards": ({"params/a": entry([2], 8, 0)}, bytes(8)),
        "negative shape": ({"params/a": entry([-2], 0, 8)}, bytes(8)),
        "decimal offsets": ({"params/a": {**entry([2], 0, 8), "data_offsets": [0.0, 8.0]}}, bytes(8)),
        "three offsets": ({"params/a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4, 8]}}, bytes(8)),
        "no offsets": ({"params/a": {"dtype": "F32", "shape": [2]}}, bytes(8)),
        "unknown dtype": ({"params/a": entry([2], 0, 8, "F31")}, bytes(8)),
        "a dtype that is no text": ({"params/a": {**entry([2], 0, 8), "dtype": 7}}, bytes(8)),
        "a list for a tensor": ({"params/a": [1]}, bytes(8)),
        "a shape that is no list": ({"params/a": {**entry([2], 0, 8), "shape": {}}}, bytes(8)),
    }  # fmt: skip
    for entries, data in liars.values():
        refused(path, packed(json.dumps({**meta, **entries}), data))
    for header in (
        "[]",
        "7",
        "null",
        '"x"',
        "{",
        "",
        "\xff",
        '{"__metadata__": []}',
        '{"__metadata__": {"gradleak": 1}}',
    ):
        refused(path, packed(header.encode("latin1"), b""))
    refused(path, packed('{"a":' * 50_000 + "1" + "}" * 50_000, b""), "its header is no JSON")
    refused(path, packed("[" * 500_000, b""), "its header is no JSON")
    refused(path, packed('{"a":' + "1" * 10_000 + "}", b""))


def test_duplicate_names_are_refused(capture: bytes, path: Path) -> None:
    header = header_of(capture)
    text = json.dumps(header)
    first = next(name for name in header if name != "__metadata__")
    twice = json.dumps({first: header[first]})[1:-1]
    refused(path, packed(f"{text[:-1]}, {twice}}}", data_of(capture)), f"the key '{first}' stands twice")
    metadata = json.dumps({"__metadata__": header["__metadata__"]})[1:-1]
    refused(path, packed(f"{text[:-1]}, {metadata}}}", data_of(capture)), "'__metadata__' stands twice")
    shape = json.dumps({first: header[first]})[1:-2] + ', "shape": [1]}'
    others = json.dumps({k: v for k, v in header.items() if k != first})[1:-1]
    refused(path, packed(f"{{{shape}, {others}}}", data_of(capture)), "the key 'shape' stands twice")
    ours = header["__metadata__"]["gradleak"]
    refused(
        path, with_facts(capture, lambda _: ours[:-1] + ', "classes": 5}'), "the key 'classes' stands twice"
    )
    nested = ours.replace('"mean"', '"mean": [0], "mean"')
    refused(path, with_facts(capture, lambda _: nested), "the key 'mean' stands twice")


WRONG: dict[str, list[Any]] = {
    "format": ["gradleak", None, 1],
    "version": [0, 1, "1", None, [1]],
    "x_shape": [None, 5, "x", [], [1], [1, 0, 8, 8], [1, -1, 8, 8], [1.0, 1, 8, 8], [True, 1, 8, 8],
                [1, 1, 8, "8"], [10**12, 1, 8, 8], [1, 1, 10**6, 10**6], [1, 3, 8, 8], [2, 1, 8, 8], [1, 64],
                [[1], 1, 8, 8]],
    "classes": [0, -1, 1.5, "5", [5], True, 4, 6, 10**12],
    "loss": [None, 5, ["cross_entropy"], "focal", {}],
    "client": [None, "OneGradient", {}, {"name": 1}, {"name": "OneGradient"},
               {"name": "OneGradient", "fields": []}, {"name": "OneGradient", "fields": {"lr": 1}},
               {"name": "Nobody", "fields": {}}],
    "domain": [None, [], {}, {"mean": [0]}, {"mean": [0], "std": [1], "more": 1}, {"mean": 0, "std": 1},
               {"mean": [0], "std": [0]}, {"mean": [0, 0], "std": [1]}, {"mean": ["0"], "std": ["1"]},
               {"mean": [True], "std": [True]}, {"mean": [float("nan")], "std": [1]},
               {"mean": [0], "std": [float("inf")]}, {"mean": [10**400], "std": [1]}, {"mean": [], "std": []},
               {"mean": [0, 0], "std": [1, 1]}],
    "training": [None, "conv1", [1], [None], {"conv1": True}, 0],
}  # fmt: skip


@pytest.mark.parametrize("key", WRONG)
def test_a_description_that_is_wrong(capture: bytes, path: Path, key: str) -> None:
    for value in WRONG[key]:
        refused(path, with_facts(capture, lambda facts, v=value: facts.update({key: v})))
    refused(path, with_facts(capture, lambda facts: facts.pop(key) and None))


def test_a_batch_that_is_larger_than_any_is_refused(path: Path) -> None:
    save(look(net()), path)
    content = path.read_bytes()
    path.write_bytes(with_facts(content, lambda facts: facts.update(x_shape=[3, 1, 8, 8])))
    assert load(path, net()).x_shape == (3, 1, 8, 8)  # nothing else in the file says how many there were
    for shape in ([10**12, 1, 8, 8], [2**31, 1, 8, 8]):
        refused(path, with_facts(content, lambda facts, s=shape: facts.update(x_shape=s)), "'x_shape'")


def test_a_description_that_is_none(capture: bytes, path: Path) -> None:
    for text in (
        "",
        "x",
        "[]",
        "null",
        "7",
        "{}",
        "[" * 100_000,
        '{"a":' * 100_000,
        '{"format": "gradleak-capture"',
    ):
        refused(path, with_facts(capture, lambda _, t=text: t), "its description is no")


TENSORS: dict[str, tuple[Callable[[dict[str, Tensor]], Any], str]] = {
    "NaN in the update": (lambda t: t["update/conv1.bias"].fill_(float("nan")), r"NaN or .* conv1\.bias"),
    "infinity": (lambda t: t["update/conv1.bias"].fill_(float("inf")), r"infinite entries in conv1\.bias"),
    "a missing update": (lambda t: t.pop("update/conv1.bias"), r"update.*conv1\.bias is missing"),
    "no update": (lambda t: [t.pop(n) for n in list(t) if "update" in n], "is missing"),
    "a missing parameter": (lambda t: t.pop("params/conv1.bias"), r"another model .*conv1\.bias is missing"),
    "one parameter more": (lambda t: t.update({"params/x": torch.ones(1)}), "x is not expected"),
    "one update more": (lambda t: t.update({"update/x": torch.ones(1)}), "x is not expected"),
    "one constant more": (lambda t: t.update({"constants/x": torch.ones(1)}), "x is not expected"),
    "a group more": (lambda t: t.update({"secrets/x": torch.ones(1)}), "secrets/x"),
    "a wrong shape": (lambda t: t.update({"update/conv1.bias": torch.ones(3).double()}), r"shape \[3\]"),
    "an integer parameter": (lambda t: t.update({"params/conv1.bias": torch.ones(12).long()}), "torch.int64"),
    "an integer update": (lambda t: t.update({"update/conv1.bias": torch.ones(12).long()}), "torch.int64"),
    "an update of another dtype": (
        lambda t: t.update({"update/conv1.bias": torch.ones(12)}), "torch.float32 where .* torch.float64"
    ),
    "labels of another number": (lambda t: t.update(labels=torch.tensor([1, 2])), "class indices"),
    "labels that are no classes": (lambda t: t.update(labels=torch.tensor([5])), "labels from 0 to 4"),
    "labels in decimals": (lambda t: t.update(labels=torch.tensor([1.0])), "class indices"),
}  # fmt: skip


@pytest.mark.parametrize(("edit", "says"), TENSORS.values(), ids=TENSORS.keys())
def test_tensors_that_do_not_fit(capture: bytes, path: Path, edit: Any, says: str) -> None:
    refused(path, with_tensors(capture, edit), says)


def test_a_capture_of_nothing_is_refused_for_a_model_of_nothing(capture: bytes, path: Path) -> None:
    meta = header_of(capture)["__metadata__"]
    for tensors in ({}, {"labels": torch.tensor([1])}):
        path.write_bytes(safetensors.torch.save(tensors, meta))
        with pytest.raises(InvalidCapture, match="parameters before the step"):
            load(path, nn.Flatten())


def test_a_parameter_that_is_twice_in_it(capture: bytes, path: Path) -> None:
    edit = lambda t: t.update({"constants/conv1.bias": t["params/conv1.bias"].clone()})  # noqa: E731
    refused(path, with_tensors(capture, edit), r"conv1\.bias")


@settings(max_examples=400, deadline=None)
@given(data=st.data())
def test_a_damaged_capture_loads_in_its_shapes_or_is_refused(
    data: st.DataObject, capture: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    head = 8 + int.from_bytes(capture[:8], "little")
    damaged = bytearray(capture)
    # Most of a file is numbers; most of what can go wrong is in its header.
    places = st.integers(0, head - 1) | st.integers(0, len(capture) - 1)
    for place, mask in data.draw(st.lists(st.tuples(places, st.integers(1, 255)), max_size=4)):
        damaged[place] ^= mask
    if data.draw(st.booleans()):
        del damaged[data.draw(st.integers(0, len(damaged))) :]
    path = tmp_path_factory.getbasetemp() / "damaged"
    path.write_bytes(damaged)
    model = net()
    try:
        back = load(path, model)
    except GradleakError:
        return
    expected = {name: p.shape for name, p in model.named_parameters()}
    assert {name: leaf.shape for name, leaf in back.update.items()} == expected
    assert {name: leaf.shape for name, leaf in back.params.items()} == expected
    assert back.classes == 5
