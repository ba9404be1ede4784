"""How each simulated provider is asked for a chat: where, with which key, for which model."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Asked:
    """`fields` are what a plain, unthinking answer takes beside model and messages."""

    path: str
    key: str
    model: str
    fields: dict[str, Any] = field(default_factory=dict)


HOW = {
    "deepseek": Asked("/chat/completions", "sk-test", "deepseek-flash", {"thinking": {"type": "disabled"}}),
    "moonshot": Asked("/v1/chat/completions", "sk-test", "kimi-k2.6", {"thinking": {"type": "disabled"}}),
    "zhipu": Asked("/api/paas/v4/chat/completions", "test.secret", "glm-4-flash-250414"),
}
