"""The papers' models and bundled pictures, for demos, tests and tables.

Every builder takes ``classes``, ``channels`` and ``size`` first, and returns its model in eval mode: an audit
looks at one gradient of a fixed function, and BatchNorm in train mode would make each picture's gradient
depend on the rest of the batch and change the buffers at every look.
"""

from collections.abc import Callable

from torch import nn

from gradleak.zoo.dense import mlp
from gradleak.zoo.dlg import lenet
from gradleak.zoo.pictures import PICTURES, pictures, public
from gradleak.zoo.plain import convnet
from gradleak.zoo.residual import resnet
from gradleak.zoo.rgap import cnn6, cnn6_d
from gradleak.zoo.texts import bert, gpt2, public_sentences, sentences, tokenizer

__all__ = [
    "MODELS",
    "PICTURES",
    "TEXT_MODELS",
    "bert",
    "cnn6",
    "cnn6_d",
    "convnet",
    "gpt2",
    "lenet",
    "mlp",
    "pictures",
    "public",
    "public_sentences",
    "resnet",
    "sentences",
    "tokenizer",
]

# by the name that a command line says; the first line of a builder's docstring describes it
MODELS: dict[str, Callable[..., nn.Sequential]] = {
    "lenet": lenet,
    "cnn6": cnn6,
    "cnn6_d": cnn6_d,
    "convnet": convnet,
    "mlp": mlp,
    "resnet": resnet,
}

# these need the extra "text"; their models take words
TEXT_MODELS: dict[str, Callable[..., nn.Module]] = {"bert": bert, "gpt2": gpt2}
