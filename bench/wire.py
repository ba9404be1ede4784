"""What travels: requests of 1 KB that an OpenAI SDK sends, and replies of 0.6 KB that a provider gives.

As in life, requests of one program differ in their question, and replies in id, time, text and counts.
"""

import json
from typing import Any

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
QUESTIONS = (
    "We are two adults and a child of six and would like to see Lisbon in April. Which quarter suits us, and why?",
    "Is the tram up to the castle worth the queue with a pram, or is there another way?",
    'My mother reads "no lift" on the page of our hotel in Alfama. How many steps should she expect from the street?\n'
    "She walks with a stick.",
    "Wie weit ist es vom Flughafen zum Rossio, und fährt nach Mitternacht noch etwas außer Taxis?",
    "我们想从里斯本去辛特拉玩一天，带一个六岁的孩子，坐火车方便吗？",
    "Which day trip by train do you suggest if it rains, for people who have seen Sintra?",
    "What does a week's pass for trams and metro cost for the three of us, and where do we buy it on a Sunday evening "
    "when we come in at Oriente?",
    "We land at 23:40. Can we still get something warm to eat near Alvalade?",
)

# Replies of DeepSeek's, in its own order of fields: 0.6 KB.
ANSWERS = (
    "Look at Alvalade or Parque das Nacoes: both are flat, calm and well served by the metro, and the aquarium is a "
    "short walk from the second. April is mild, 15 to 20 degrees, with some rain.",
    "Take the 737 bus instead: it goes up to the gate and has room for a pram.\n\nIt leaves from Figueira Square about "
    "every quarter of an hour.",
    'About sixty, in three flights with a landing to rest on. Ask the hotel for its "porta de baixo": from there it is '
    "twenty. A colleague can call them for you within a working day.",
    "Es sind rund sieben Kilometer. Nach Mitternacht fährt der Nachtbus 208, etwa zweimal in der Stunde; er hält am "
    "Cais do Sodré, zehn Minuten zu Fuß vom Rossio.",
)
REPLY: dict[str, Any] = {
    "id": "5f0a3c1e-9a57-4a0e-8f0c-3d1c8f6b7a21",
    "object": "chat.completion",
    "created": 1795000000,
    "model": "deepseek-chat",
    "choices": [
        {
            "index": 0,
            "message": {
                "role": "assistant",
                "content": ANSWERS[0],
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


def replies(reply_id: str, created: str) -> list[str]:
    """One for each of ANSWERS. `reply_id` and `created` stand in them as they are: nginx puts its variables there."""
    written = []
    for number, answer in enumerate(ANSWERS):
        choice = REPLY["choices"][0] | {"message": {"role": "assistant", "content": answer}}
        counts = REPLY["usage"] | {"completion_tokens": 52 + 17 * number, "total_tokens": 239 + 17 * number}
        reply = compact(REPLY | {"id": reply_id, "choices": [choice], "usage": counts})
        written.append(reply.replace(str(REPLY["created"]), created))
    return written


def chat_body(*, stream: bool, question: str = QUESTIONS[0]) -> bytes:
    messages = [{"role": "system", "content": SYSTEM_PROMPT}, {"role": "user", "content": question}]
    request: dict[str, object] = {"model": "deepseek-chat", "messages": messages, "temperature": 0.7, "max_tokens": 512}
    return compact(request | ({"stream": True} if stream else {})).encode()


def compact(value: object) -> str:
    """JSON without spaces, as providers and SDKs write it."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
