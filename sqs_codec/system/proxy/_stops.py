"""Strings that end a text, also across what comes at once."""

from collections.abc import Sequence


class Stops:
    """Lets a text through up to the first of some strings.

    >>> stops = Stops(["END"])
    >>> stops.add("a, E"), stops.add("N"), stops.add("T, b EN"), stops.add("D, c")
    ('a, ', '', 'ENT, b ', '')
    >>> stops.found
    True
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = stops
        self._held = ""  # which may be the beginning of one
        self.found = False

    def add(self, text: str) -> str:
        """Return what can be shown now."""
        text = self._held + text
        places = [at for stop in self._stops if (at := text.find(stop)) >= 0]
        if places:
            self.found, self._held = True, ""
            return text[: min(places)]
        held = max((_begun(text, stop) for stop in self._stops), default=0)
        shown = len(text) - held
        self._held = text[shown:]
        return text[:shown]

    def rest(self) -> str:
        """Return what was held back, once the text is whole."""
        held, self._held = self._held, ""
        return held


def _begun(text: str, stop: str) -> int:
    """Return how many characters of `stop` a text ends with."""
    for length in range(min(len(stop) - 1, len(text)), 0, -1):
        if text.endswith(stop[:length]):
            return length
    return 0
