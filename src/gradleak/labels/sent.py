"""What the update tells of the whole batch's gradient, and how far the client went while it trained."""

from gradleak.observe import LocalTraining, Observation, Summed, Trained
from gradleak.trees import Tree, add


def gradient_of(obs: Observation, update: Tree | None = None) -> Tree | None:
    """The gradient that an update says the client went down; None where a client's update says none."""
    sent = obs.update if update is None else update
    if not isinstance(obs.client, Trained):
        return sent
    return obs.client.gradient_of(obs.params, sent, obs.batch_size)


def drift_of(obs: Observation) -> float:
    """kT, or 0 under one gradient; a model whose drift is unknown has no head to read either."""
    return (obs.drift or 0.0) if isinstance(obs.client, Trained) else 0.0


def weights_after(obs: Observation) -> Tree:
    """The weights that the client ended with; under one gradient it never moved any."""
    return add(obs.params, obs.update) if _moves_weights(obs.client) else obs.params


def _moves_weights(client: object) -> bool:
    if isinstance(client, Summed):
        return any(_moves_weights(one) for one in client.all)
    return isinstance(client, LocalTraining)
