"""Ways of training and sharing: every client, bare and with each defense around it."""

from collections.abc import Mapping, Sequence

from gradleak.errors import InvalidInput
from gradleak.observe import Client
from gradleak.sources.defenses import defended


def ways_of(clients: Mapping[str, Client], defenses: Sequence[tuple[str, ...]]) -> dict[str, Client]:
    """By what they are called: the client's name, and then the defenses, the outermost last."""
    found: dict[str, Client] = {}
    for name, client in clients.items():
        more = {called(name, specs): defended(client, specs) for specs in defenses}
        for way, one in ({name: client} | more).items():
            if way in found:
                raise InvalidInput(
                    f"expected ways of training with names of their own; two are called '{way}'"
                )
            found[way] = one
    return found


def called(client: str, specs: tuple[str, ...]) -> str:
    return ", ".join((client, *specs))
