"""OpenRouter's own SDK, which refuses an answer that lacks a field: keys, activity, credit, one request, models."""

import os
from collections.abc import Iterator

import pytest
from customer import API_KEY, BASE_URL, GREETING
from openrouter import OpenRouter, errors
from openrouter.operations import CreateKeysResponse

manager = OpenRouter(api_key=os.environ["MANAGEMENT_KEY"], server_url=BASE_URL)
customer = OpenRouter(api_key=API_KEY, server_url=BASE_URL)


@pytest.fixture
def made() -> Iterator[CreateKeysResponse]:
    answer = manager.api_keys.create(name="sdk", limit=12.5, limit_reset="monthly")
    yield answer
    assert manager.api_keys.delete(hash=answer.data.hash).DELETED is True


def test_a_key_is_made_listed_changed_and_deleted(made: CreateKeysResponse) -> None:
    assert made.key.startswith("vc-sk-")
    assert (made.data.limit, made.data.limit_remaining, made.data.limit_reset) == (12.5, 12.5, "monthly")
    listed = {key.hash: key for key in manager.api_keys.list(include_disabled=True, offset=0).data}
    assert listed[made.data.hash].model_dump() == made.data.model_dump()
    changed = manager.api_keys.update(hash=made.data.hash, name="renamed", disabled=True, limit_reset="daily").data
    assert (changed.name, changed.disabled, changed.limit_reset) == ("renamed", True, "daily")
    assert manager.api_keys.get(hash=made.data.hash).data.updated_at is not None
    assert changed.hash not in [key.hash for key in manager.api_keys.list().data]


def test_the_key_that_was_made_works_and_is_told_of(made: CreateKeysResponse) -> None:
    user = OpenRouter(api_key=made.key, server_url=BASE_URL)
    reply = user.chat.send(model="deepseek-chat", messages=[{"role": "user", "content": "Hello"}])
    assert reply.choices[0].message.content == GREETING
    told = user.generations.get_generation(id=reply.id).data
    assert (told.model, told.provider_name, told.is_byok) == ("deepseek-chat", "DeepSeek", False)
    assert told.total_cost > 0
    key = user.api_keys.get_current_key_metadata().data
    assert (key.label, key.is_management_key, key.limit) == (made.data.label, False, 12.5)


def test_a_stream() -> None:
    asked = [{"role": "user", "content": "Hello"}]
    with customer.chat.send(model="deepseek-chat", messages=asked, stream=True) as stream:
        text = "".join(choice.delta.content or "" for event in stream for choice in event.choices)
    assert text == GREETING


def test_what_the_account_has_and_did() -> None:
    assert manager.credits.get_credits().data.total_credits > 0
    assert manager.api_keys.get_current_key_metadata().data.is_management_key is True
    assert manager.analytics.get_user_activity().data == []  # of days that are over


def test_models() -> None:
    found = {model.id: model for model in customer.models.list().result.data}
    assert found["deepseek-chat"].pricing.prompt == "0.00000031"


def test_a_refusal_is_an_error_with_its_status() -> None:
    """Its kind stays unknown to the SDK: `code` is a word here, as with OpenAI, and a number there."""
    with pytest.raises(errors.OpenRouterError) as refused:
        manager.chat.send(model="deepseek-chat", messages=[{"role": "user", "content": "Hello"}])
    assert refused.value.status_code == 403
    with pytest.raises(errors.OpenRouterError) as absent:
        manager.api_keys.get(hash="0" * 64)
    assert absent.value.status_code == 404
