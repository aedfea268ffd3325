"""iDLG (Zhao, Mopuri and Bilen 2020): the label of a single record, read off the last layer's gradient."""

from dataclasses import dataclass

from torch import Generator, Tensor

from gradleak.labels.guess import LabelGuess, Unanswerable
from gradleak.observe import Observation, head


@dataclass(frozen=True)
class SignRule:
    """Under cross entropy dL/dlogit_i = p_i − 1[i = label]: negative for the label alone.

    With a bias that is the bias's own gradient. Without one, the weight's row i is that number times
    the features, so the label's row is the one whose product with every other row is not positive.
    """

    citations: tuple[str, ...] = ("idlg",)

    def __call__(self, obs: Observation, *, rng: Generator) -> LabelGuess | Unanswerable:
        if obs.batch_size != 1:
            return Unanswerable(
                f"the sign rule reads one record's label, and this batch holds {obs.batch_size}"
            )
        last = head(obs)
        if last is None:
            return Unanswerable("the model does not end in a linear layer whose gradient was sent")
        signs = obs.update[last.bias] if last.bias is not None else row_products(obs.update[last.weight])
        if float(signs.min()) >= 0:
            return Unanswerable(
                f"some class should stand out below zero in the gradient of '{last.weight}', and none does: "
                "the record is fitted to the last bit, or this is no plain cross entropy"
            )
        # Exactly one negative entry is a proof; under noise the lowest is still the best guess.
        return LabelGuess(y=signs.argmin().reshape(1), certain=int((signs < 0).sum()) == 1)


def row_products(rows: Tensor) -> Tensor:
    """Each row's summed products with all the others.

    Row i is d_i h with the features h and d summing to zero, so this is −d_i² |h|² and lowest for the
    label, whose |d| is the sum of all the others.
    """
    products = rows @ rows.T
    return products.sum(1) - products.diagonal()


def idlg() -> SignRule:
    """Read one record's label off the sign of the last layer's gradient (Zhao et al. 2020)."""
    return SignRule()
