"""The attacker of defended updates: the most probable pictures, given how the update was blurred."""

from gradleak.attacks.posterior.attack import MostProbable, map

__all__ = ["MostProbable", "map"]
