"""Ways of training and sharing: every client, bare and with each defense around it."""

from collections.abc import Mapping, Sequence

from gradleak.observe import Client
from gradleak.sources.defenses import defended


def ways_of(clients: Mapping[str, Client], defenses: Sequence[tuple[str, ...]]) -> dict[str, Client]:
    """By what they are called: the client's name, and then the defenses, the outermost last."""
    found: dict[str, Client] = {}
    for name, client in clients.items():
        found[name] = client
        for specs in defenses:
            found[called(name, specs)] = defended(client, specs)
    return found


def called(client: str, specs: tuple[str, ...]) -> str:
    return ", ".join((client, *specs))
