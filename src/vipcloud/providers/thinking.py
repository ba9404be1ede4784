"""Reasoning that an upstream puts into the answer's text, `<think>…</think>`, lifted out of it.

Only tags with which the text begins are the upstream's (MiniMax without `reasoning_split`, seen 2026-11): one that
stands behind other text was asked for and stays. Pieces may be cut anywhere: whatever may yet become a tag, or white
space beside one, is held back until it is clear.
"""

_OPEN, _CLOSE = "<think>", "</think>"


class Thinking:
    """Takes a text apart. White space around a block of reasoning belongs to neither side of it.

    `over`: the answer proper has begun, and all that is fed comes back as it is.
    """

    __slots__ = ("_blocks", "_held", "_inside", "_trims", "over")

    def __init__(self) -> None:
        self.over = False
        self._held = ""
        self._inside = False
        self._trims = False  # of what is next, white space at the start is left out
        self._blocks = 0  # of reasoning, that held any

    def feed(self, text: str) -> tuple[str, str]:
        """What `text` adds to the reasoning, and to the answer."""
        if self.over:
            return "", text
        self._held += text
        reasoning = ""
        while True:
            if self._inside:
                reasoning += self._reasoning()
                if self._inside:
                    return reasoning, ""
            begin = self._held.lstrip()
            if begin.startswith(_OPEN):
                self._inside = self._trims = True
                self._held = begin[len(_OPEN) :]
            elif _OPEN.startswith(begin):
                return reasoning, ""  # white space, or a beginning of the tag, or both
            else:
                self.over = True
                return reasoning, self._rest()

    def end(self) -> tuple[str, str]:
        """What was held back, now that nothing more comes; again reasoning and answer."""
        if self.over:
            return "", ""
        self.over = True
        rest = self._rest()
        return (rest.rstrip(), "") if self._inside else ("", rest)

    def _rest(self) -> str:
        rest = self._held.lstrip() if self._trims else self._held
        self._held = ""
        return rest

    def _reasoning(self) -> str:
        """What of the text held may be shown as reasoning: not the tag that ends it, nor what may begin it."""
        if self._trims:
            self._held = self._held.lstrip()
        at = self._held.find(_CLOSE)
        if at >= 0:
            text, self._held = self._held[:at].rstrip(), self._held[at + len(_CLOSE) :]
            self._inside = False
        else:
            edge = len(self._held) - beginning(self._held, _CLOSE)
            text = self._held[:edge].rstrip()
            self._held = self._held[len(text) :]
        if text and self._trims:
            self._trims = False
            self._blocks += 1
            if self._blocks > 1:
                text = "\n" + text
        self._trims = self._trims or not self._inside
        return text


def beginning(text: str, word: str) -> int:
    """How many characters at the end of `text` may be the first ones of `word`; not all of it."""
    at = text.find(word[0], max(0, len(text) - len(word) + 1))
    while at >= 0 and not word.startswith(text[at:]):
        at = text.find(word[0], at + 1)
    return len(text) - at if at >= 0 else 0
