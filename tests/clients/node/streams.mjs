import assert from "node:assert/strict";
import { test } from "node:test";
import OpenAI from "openai";
import { CANCEL_WITHIN_MS, connect, ended, failure, GREETING, mark, textOf, user } from "./support.mjs";

const client = connect();
const ask = (content, more = {}) => ({ model: "deepseek-chat", messages: user(content), stream: true, ...more });

test("a stream begins with the role and ends with the reason and the usage", async () => {
  const chunks = [];
  for await (const chunk of await client.chat.completions.create(ask("Count to 5"))) chunks.push(chunk);
  assert.equal(new Set(chunks.map((chunk) => chunk.id)).size, 1);
  assert.ok(chunks.every((chunk) => chunk.choices.length === 1));
  assert.equal(chunks[0].choices[0].delta.role, "assistant");
  assert.equal(chunks.map((chunk) => chunk.choices[0].delta.content ?? "").join(""), "1, 2, 3, 4, 5");
  assert.equal(chunks.at(-1).choices[0].finish_reason, "stop");
  assert.ok(chunks.at(-1).usage.total_tokens > 0);
});

test("the usage chunk comes once and last when asked for", async () => {
  const chunks = [];
  const stream = await client.chat.completions.create(ask("Hello!", { stream_options: { include_usage: true } }));
  for await (const chunk of stream) chunks.push(chunk);
  assert.deepEqual(chunks.at(-1).choices, []);
  assert.ok(chunks.at(-1).usage.total_tokens > 0);
  assert.ok(chunks.slice(0, -1).every((chunk) => chunk.choices.length === 1 && chunk.usage === null));
});

test("a stream arrives as it is made", async () => {
  const arrivedMs = [];
  const stream = await client.chat.completions.create(ask("[[tokens=20 pace_ms=50]]"));
  for await (const chunk of stream) if (chunk.choices[0].delta.content) arrivedMs.push(performance.now());
  assert.equal(arrivedMs.length, 20);
  assert.ok(arrivedMs.at(-1) - arrivedMs[0] > 800);
});

test("the stream helper tells of the text and puts it together", async () => {
  const heard = [];
  const stream = client.chat.completions.stream(ask("Hello!")).on("content", (delta) => heard.push(delta));
  assert.equal(await stream.finalContent(), GREETING);
  assert.equal(heard.join(""), GREETING);
  assert.equal((await stream.finalChatCompletion()).choices[0].finish_reason, "stop");
  assert.ok((await stream.totalUsage()).total_tokens > 0);
});

test("streamed reasoning comes before the answer, and no chunk wipes it", async () => {
  const kinds = [];
  const stream = await client.chat.completions.create(ask("Hello!", { model: "deepseek-reasoner" }));
  for await (const chunk of stream) {
    const { delta } = chunk.choices[0];
    assert.notEqual(delta.reasoning_content, null);
    if (delta.reasoning_content) kinds.push("reasoning");
    if (delta.content) kinds.push("content");
  }
  assert.equal(kinds.lastIndexOf("reasoning") + 1, kinds.indexOf("content"));
});

test("a stream teed is read twice", async () => {
  const [left, right] = (await client.chat.completions.create(ask("Count to 5"))).tee();
  assert.deepEqual(await Promise.all([textOf(left), textOf(right)]), ["1, 2, 3, 4, 5", "1, 2, 3, 4, 5"]);
});

for (const fault of ["cut:3", "eof:3", "error:3", "malformed:3"]) {
  test(`a stream that breaks off (${fault}) throws after what was said`, async () => {
    let heard = "";
    const error = await failure(async () => {
      for await (const chunk of await client.chat.completions.create(ask(`Count to 9 [[fault=${fault}]]`))) {
        heard += chunk.choices[0].delta.content ?? "";
      }
    });
    assert.equal(heard, "1, 2");
    assert.ok(error instanceof OpenAI.APIError, error);
    assert.equal(error.code, "upstream_interrupted");
    assert.equal(error.status, undefined);
  });
}

test("leaving a stream's loop cancels its upstream", async () => {
  const word = mark();
  let count = 0;
  for await (const _ of await client.chat.completions.create(ask(`${word} [[tokens=400 pace_ms=20]]`))) {
    if (++count === 5) break;
  }
  const { entry, afterMs } = await ended(word);
  assert.equal(entry.outcome, "cancelled");
  assert.ok(afterMs < CANCEL_WITHIN_MS, `${afterMs} ms`);
});

test("aborting a stream's controller cancels its upstream", async () => {
  const word = mark();
  const stream = await client.chat.completions.create(ask(`${word} [[tokens=400 pace_ms=20]]`));
  setTimeout(() => stream.controller.abort(), 100);
  await textOf(stream); // the SDK ends the loop without an error
  const { entry, afterMs } = await ended(word);
  assert.equal(entry.outcome, "cancelled");
  assert.ok(afterMs < CANCEL_WITHIN_MS, `${afterMs} ms`);
});

test("an abort signal ends a request that has no answer yet", async () => {
  const word = mark();
  const controller = new AbortController();
  setTimeout(() => controller.abort(), 200);
  const error = await failure(() =>
    client.chat.completions.create(ask(`${word} [[fault=hang]]`), { signal: controller.signal }),
  );
  assert.ok(error instanceof OpenAI.APIUserAbortError, error);
  assert.equal((await ended(word)).entry.outcome, "cancelled");
});
