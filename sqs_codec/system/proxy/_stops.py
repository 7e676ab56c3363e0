"""Stop strings, also across pieces of a text."""

from collections.abc import Sequence


class Stops:
    """Returns a text, piece by piece, up to the first stop string.

    >>> stops = Stops(["END"])
    >>> stops.add("a, E"), stops.add("N"), stops.add("T, b EN"), stops.add("D, c")
    ('a, ', '', 'ENT, b ', '')
    >>> stops.found
    True
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = stops
        self.held = ""  # may be the beginning of a stop string
        self.found = False

    def add(self, text: str) -> str:
        """Return the text that can be shown now."""
        text = self.held + text
        places = [at for stop in self._stops if (at := text.find(stop)) >= 0]
        if places:
            self.found, self.held = True, ""
            return text[: min(places)]
        held = max((_begun(text, stop) for stop in self._stops), default=0)
        shown = len(text) - held
        self.held = text[shown:]
        return text[:shown]


def _begun(text: str, stop: str) -> int:
    """Return the number of characters of `stop` that a text ends with."""
    for length in range(min(len(stop) - 1, len(text)), 0, -1):
        if text.endswith(stop[:length]):
            return length
    return 0
