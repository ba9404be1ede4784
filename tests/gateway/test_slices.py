"""Streams that are held for in slices: as long as there is credit, however fast they come."""

from front_door import House


async def test_a_fast_long_stream_with_credit_comes_whole(open_house) -> None:
    house: House = await open_house(guard={"hold_slice_tokens": 256}, journal={"progress_interval_s": 0.02})
    reply = await house.chat("[[tokens=6000]]", stream=True, max_tokens=8000)
    assert reply.done
    assert reply.chunks[-1]["choices"][0]["finish_reason"] == "stop"
    row = house.usage(reply.request_id)
    assert row is not None
    assert row.completion_tokens == 6000
