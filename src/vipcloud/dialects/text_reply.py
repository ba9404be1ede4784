"""A whole reply of one text, which nearly all are: the bytes that `replies.encode_reply` would write, in fewer steps.

What does not change from answer to answer is a constant here; `replies.Reply` is this as a type.
"""

from typing import Final

import msgspec

from vipcloud.dialects.openai import FinishReason
from vipcloud.dialects.replies import Reply, ReplyChoice, ReplyMessage
from vipcloud.dialects.tokens import Tokens

_encode: Final = msgspec.json.Encoder().encode
_decode_name: Final = msgspec.json.Decoder(str).decode


class TextReply:
    """`model` is as JSON, and so is `raw`, the content. Its escapes may be the upstream's: `\u00e9` for é.

    `reasoning` is empty where there is none, or none is shown; `used` is None until it is counted.
    """

    def __init__(
        self,
        id: str,  # noqa: A002
        created: int,
        model: bytes,
        content: str,
        raw: bytes,
        reasoning: str,
        finish_reason: FinishReason,
        used: Tokens | None,
    ) -> None:
        self.id = id
        self.created = created
        self.model = model
        self.content = content
        self.raw = raw
        self.reasoning = reasoning
        self.finish_reason = finish_reason
        self.used = used

    def encode(self) -> bytes:
        """The body of a `200`."""
        reasoning = b',"reasoning_content":' + _encode(self.reasoning) if self.reasoning else b""
        return (
            b'{"id":"%b","object":"chat.completion","created":%d,"model":%b,"choices":[{"index":0,"message":'
            b'{"role":"assistant","content":%b,"refusal":null,"annotations":[]%b},"logprobs":null,"finish_reason":"%b"}],'
            b'"usage":%b,"service_tier":"default","system_fingerprint":null}'
            % (
                self.id.encode(),
                self.created,
                self.model,
                self.raw,
                reasoning,
                self.finish_reason.encode(),
                b"null" if self.used is None else self.used.encode(),
            )
        )

    def whole(self) -> Reply:
        """The same as a value that may become more than a text."""
        message = ReplyMessage("assistant", self.content)
        if self.reasoning:
            message.reasoning_content = self.reasoning
        choice = ReplyChoice(0, message, None, self.finish_reason)
        usage = None if self.used is None else self.used.usage()
        return Reply(self.id, "chat.completion", self.created, _decode_name(self.model), [choice], usage)
