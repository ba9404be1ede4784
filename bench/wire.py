"""What travels: the request of 1 KB that an OpenAI SDK sends, and the reply of 0.7 KB that a provider gives."""

import json

PATH = "/v1/chat/completions"

# As openai 3.54.0 for Python sends them, header by header.
SDK_HEADERS = {
    "Accept": "application/json",
    "Content-Type": "application/json",
    "User-Agent": "OpenAI/Python 3.54.0",
    "X-Stainless-Lang": "python",
    "X-Stainless-Package-Version": "3.54.0",
    "X-Stainless-OS": "Linux",
    "X-Stainless-Arch": "x64",
    "X-Stainless-Runtime": "CPython",
    "X-Stainless-Runtime-Version": "3.11.7",
    "X-Stainless-Async": "false",
    "X-Stainless-Retry-Count": "0",
    "X-Stainless-Read-Timeout": "600",
}

SYSTEM_PROMPT = (
    "You are the assistant of a small travel agency. Answer in the language of the question, in at most five "
    "sentences, without headings or lists. Name prices in euros and distances in kilometres. If a question is about "
    "visas, illness or money owed, say that a colleague will call back within a working day, and ask for a "
    "telephone number. Never promise a booking: only an agent confirms one. If you are not sure of a fact, say so "
    "and name the place where the traveller can look it up. Be friendly, but do not use exclamation marks, and do "
    "not repeat the question. Distances on foot are for a family with a small child: allow twenty minutes for a "
    "kilometre, and name a place to rest on any way longer than that. Prefer trams and trains to taxis."
)
QUESTION = (
    "We are two adults and a child of six and would like to see Lisbon in April. Which quarter suits us, and why?"
)

# A reply of DeepSeek's, in its own order of fields: 0.7 KB.
REPLY = {
    "id": "5f0a3c1e-9a57-4a0e-8f0c-3d1c8f6b7a21",
    "object": "chat.completion",
    "created": 1795000000,
    "model": "deepseek-chat",
    "choices": [
        {
            "index": 0,
            "message": {
                "role": "assistant",
                "content": "Look at Alvalade or Parque das Nacoes: both are flat, calm and well served by the metro, "
                "and the aquarium is a short walk from the second. April is mild, 15 to 20 degrees, with some rain.",
            },
            "logprobs": None,
            "finish_reason": "stop",
        }
    ],
    "usage": {
        "prompt_tokens": 187,
        "completion_tokens": 52,
        "total_tokens": 239,
        "prompt_tokens_details": {"cached_tokens": 128},
        "prompt_cache_hit_tokens": 128,
        "prompt_cache_miss_tokens": 59,
    },
    "system_fingerprint": "fp_8802369eaa_prod0425fp8",
}


def chat_body(*, stream: bool) -> bytes:
    messages = [{"role": "system", "content": SYSTEM_PROMPT}, {"role": "user", "content": QUESTION}]
    request: dict[str, object] = {"model": "deepseek-chat", "messages": messages, "temperature": 0.7, "max_tokens": 512}
    return compact(request | ({"stream": True} if stream else {})).encode()


def compact(value: object) -> str:
    """JSON without spaces, as providers and SDKs write it."""
    return json.dumps(value, separators=(",", ":"))
