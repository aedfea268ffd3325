"""An attack by its name, with the hyper-parameters that a command line may set."""

import inspect
from difflib import get_close_matches

from gradleak.attacks import ATTACKS, Attack
from gradleak.errors import InvalidInput


def named(name: str, *, trials: int | None = None, steps: int | None = None) -> Attack:
    """None leaves an attack its own default. Closed forms have no random start, and so no trials."""
    if name not in ATTACKS:
        near = get_close_matches(name, ATTACKS, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise InvalidInput(f"expected an attack among {', '.join(ATTACKS)}; came '{name}'{hint}")
    takes = inspect.signature(ATTACKS[name]).parameters
    if trials not in (None, 1) and "trials" not in takes:
        raise InvalidInput(f"{name} computes its answer and has no starts to try; leave --trials away")
    if steps is not None and "steps" not in takes:
        others = [n for n, build in ATTACKS.items() if "steps" in inspect.signature(build).parameters]
        raise InvalidInput(
            f"{name} has no number of steps to set; leave --steps away, or take one of {', '.join(others)}"
        )
    said = {"trials": trials, "steps": steps}
    return ATTACKS[name](**{key: value for key, value in said.items() if value is not None and key in takes})
