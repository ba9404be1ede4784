"""Who pays what, as customers are told. The tests of the settlement table replay each row; see docs/architecture.md."""

from typing import NamedTuple


class Row(NamedTuple):
    """`end` is Markdown: the docs show the same rows."""

    end: str
    customer: str
    we: str


ROWS = (
    Row("Complete, or cut by `max_tokens`", "usage × price", "the upstream's cost"),
    Row("You leave before the first token", "nothing", "what the upstream bills"),
    Row("You leave while it streams", "input and the output sent to you", "the rest"),
    Row("Its key is revoked while it streams", "input and the output sent to you", "the rest"),
    Row("One upstream fails before the first token, another answers", "the answer only", "the failed attempt"),
    Row("Every upstream fails, or no output and an error", "nothing", "what they bill"),
    Row("An upstream cuts the stream", "input and the output sent to you", "the rest"),
    Row("The upstream reports no usage", "counted by us, marked estimated", "the difference"),
    Row("We crash", "what was recorded, at most 0.25 s old", "the rest"),
)
