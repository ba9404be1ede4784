"""How fast a route has answered of late: pure. A caller may ask for the quickest first (`provider.sort`)."""

WEIGHT = 0.2  # of the latest answer: about the last ten count


class Pace:
    """`first_token_s` is None until something was measured; so is `tokens_per_s`."""

    __slots__ = ("first_token_s", "tokens_per_s")

    def __init__(self) -> None:
        self.first_token_s: float | None = None
        self.tokens_per_s: float | None = None

    def note(self, first_token_s: float, tokens: int, seconds: float) -> None:
        """A streamed answer: how long until its first token, and its tokens in the time after that."""
        self.first_token_s = _moved(self.first_token_s, max(0.0, first_token_s))
        if tokens > 1 and seconds > 0:
            self.tokens_per_s = _moved(self.tokens_per_s, tokens / seconds)


def _moved(average: float | None, latest: float) -> float:
    return latest if average is None else average + WEIGHT * (latest - average)
