import subprocess
import sys

import gradleak as gl


def test_the_public_names_are_exactly_these():
    assert sorted(gl.__all__) == [
        "GradleakError",
        "LocalAdam",
        "LocalSGD",
        "Observation",
        "OneGradient",
        "Outcome",
        "Reconstruction",
        "Summed",
        "__version__",
        "attack",
        "attacks",
        "audit",
        "cite",
        "defenses",
        "errors",
        "labels",
        "load",
        "logistic",
        "metrics",
        "observe",
        "predict",
        "risk",
        "save",
        "text",
        "threats",
        "zoo",
    ]
    assert all(hasattr(gl, name) for name in gl.__all__)


def test_the_names_of_the_rooms_are_exactly_these():
    attacks = [
        "bias",
        "cpl",
        "dlg",
        "exact_batch",
        "gdl",
        "gradinversion",
        "idlg",
        "inverting_batches",
        "inverting_gradients",
        "map",
        "r_gap",
        "spear",
        "ssras",
    ]
    assert sorted(gl.attacks.ATTACKS) == attacks
    values = ["ATTACKS", "Attack", "Cost", "Outcome", "Reconstruction"]
    others = ["attack", "feedback_blending", "matching"]
    assert sorted(gl.attacks.__all__) == sorted([*values, *attacks, *others])
    assert sorted(gl.labels.__all__) == [
        "LabelGuess",
        "LabelStrategy",
        "Presence",
        "Unanswerable",
        "best",
        "combined",
        "factorized",
        "idlg",
        "inferred",
        "joint",
        "known",
        "presence",
        "row_minimum",
        "row_sum",
        "simulated",
        "wrong_sign_or_scale",
        "zero_shot",
    ]
    defenses = [
        "Clip",
        "DPSGD",
        "Dropout",
        "GaussianNoise",
        "LaplaceNoise",
        "LowPrecision",
        "Mask",
        "Mixup",
        "Prune",
        "Sign",
        "Soteria",
        "Withhold",
    ]
    assert sorted(kind.__name__ for kind in gl.defenses.DEFENSES.values()) == defenses
    others = ["DEFENSES", "Defense", "LearntMask", "epsilon", "noise_for"]
    costs = ["Course", "Federation", "Spread", "Utility", "utility"]
    assert sorted(gl.defenses.__all__) == sorted([*defenses, *others, *costs])
    assert sorted(gl.threats.__all__) == ["Ladder", "RUNGS", "Rung", "Step", "ladder"]


def test_observe_is_the_function_and_not_the_room():
    assert callable(gl.observe)


def test_errors_hang_on_one_tree():
    kinds = [e for e in vars(gl.errors).values() if isinstance(e, type) and issubclass(e, Exception)]
    assert len(kinds) > 5
    assert all(issubclass(kind, gl.GradleakError) for kind in kinds)
    assert all(kind.__name__ in (gl.errors.__doc__ or "") for kind in kinds)


def test_importing_loads_neither_the_report_nor_the_command_line():
    heavy = ("matplotlib", "click", "jinja2", "sklearn")
    code = f"import sys, gradleak; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
