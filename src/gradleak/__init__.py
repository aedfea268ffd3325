"""gradleak finds out how much private training data a run gives away through its gradients.

import gradleak as gl

model = gl.zoo.lenet(classes=10)
x, y = gl.zoo.pictures("faces", n=1)
seen = gl.observe(model, x, y % 10)           # what a server would hold, and nothing else
found = gl.attacks.dlg()(seen, rng=0)         # what it can make of that
print(gl.metrics.score(found.x, found.y, x, y % 10, classes=10))
"""

from gradleak import attacks, defenses, errors, labels, metrics, risk, text, threats, zoo
from gradleak.attacks import Outcome, Reconstruction, attack
from gradleak.audit.call import audit
from gradleak.errors import GradleakError
from gradleak.observe import (
    LocalAdam,
    LocalSGD,
    Observation,
    OneGradient,
    Summed,
    load,
    logistic,
    observe,
    save,
)
from gradleak.references import cite
from gradleak.risk import predict

__version__ = "0.1.0"

__all__ = [
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
