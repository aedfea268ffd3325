"""The first room: what a client sends, what the server sees, and how that is kept on disk."""

from gradleak.observe.capture import load, save
from gradleak.observe.client import CLIENTS, Client, OneGradient, OpenClient, Summed, Trained
from gradleak.observe.domain import Domain
from gradleak.observe.layers import Head, head
from gradleak.observe.local import LocalAdam, LocalSGD, LocalTraining
from gradleak.observe.observation import Observation
from gradleak.observe.observing import observe
from gradleak.observe.task import Loss, Task, cross_entropy, logistic

__all__ = [
    "CLIENTS",
    "Client",
    "Domain",
    "Head",
    "LocalAdam",
    "LocalSGD",
    "LocalTraining",
    "Loss",
    "Observation",
    "OneGradient",
    "OpenClient",
    "Summed",
    "Task",
    "Trained",
    "cross_entropy",
    "head",
    "load",
    "logistic",
    "observe",
    "save",
]
