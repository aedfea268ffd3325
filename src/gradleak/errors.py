"""What gradleak raises on purpose.

GradleakError                 catch this to catch them all
├── InvalidInput              something handed in cannot be used; also a ValueError
│   ├── InvalidModel          no parameters, none that need gradients, a dead or in-place layer
│   ├── InvalidBatch          pictures or labels that do not fit the model
│   ├── InvalidUpdate         an entry is missing, extra, misshaped, NaN or infinite
│   ├── InvalidCapture        a file is truncated, foreign, or does not fit the model
│   └── InvalidPlan           an audit's plan cannot be run; it tells all of its mistakes
├── NotDeterministic          the same batch gave two different updates; names the module
├── MissingInformation        the observation lacks what was asked of it
├── UnsupportedLayer          a closed form meets a layer that it has no rule for; names its path
├── NotInstalled              an optional package is needed for this
└── CannotWrite               an output folder or file cannot be written

Every message says what was expected, what came, and what to do about it.
"""


class GradleakError(Exception):
    """The root: ``except GradleakError`` catches whatever the library raises on purpose."""


class InvalidInput(GradleakError, ValueError):
    """Something that was handed in cannot be used."""


class InvalidModel(InvalidInput):
    """The model cannot be trained, or cannot be differentiated twice."""


class InvalidBatch(InvalidInput):
    """Pictures or labels do not fit the model."""


class InvalidUpdate(InvalidInput):
    """An update does not fit the model it is said to come from."""


class InvalidCapture(InvalidInput):
    """A file is not a capture, is damaged, or belongs to another model."""


class InvalidPlan(InvalidInput):
    """An audit's plan cannot be run; its message has a line for every mistake, with its place in the file."""


class NotDeterministic(GradleakError):
    """One batch gave two different updates, so nothing could be matched."""


class MissingInformation(GradleakError):
    """An observation does not hold what was asked of it."""


class UnsupportedLayer(GradleakError, NotImplementedError):
    """A closed form meets a layer, a branch or a skip connection that it has no rule for."""


class NotInstalled(GradleakError, ImportError):
    """An optional package is needed for this."""


class CannotWrite(GradleakError, OSError):
    """An output folder or file cannot be written."""
