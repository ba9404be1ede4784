import assert from "node:assert/strict";
import { test } from "node:test";
import OpenAI from "openai";
import { connect, counted, failure, GREETING, mark, user } from "./support.mjs";

const { UNKNOWN_KEY, REVOKED_KEY, PENNILESS_KEY, SLOW_KEY, SINGLE_KEY, IMPATIENT_URL, IMPATIENT_KEY } = process.env;
const client = connect();
const hello = { model: "deepseek-chat", messages: user("Hello!") };
const ask = (more) => () => client.chat.completions.create({ ...hello, ...more });

const REFUSALS = {
  "a temperature too high": [ask({ temperature: 3 }), OpenAI.BadRequestError, 400, "bad_request", "temperature"],
  "empty messages": [ask({ messages: [] }), OpenAI.BadRequestError, 400, "bad_request", "messages"],
  "an unknown role": [
    ask({ messages: [{ role: "robot", content: "" }] }),
    OpenAI.BadRequestError,
    400,
    "bad_request",
    "messages[0].role",
  ],
  "an unknown model": [ask({ model: "gpt-4o" }), OpenAI.NotFoundError, 404, "model_not_found", "model"],
  "an unknown model, streamed": [
    ask({ model: "gpt-4o", stream: true }),
    OpenAI.NotFoundError,
    404,
    "model_not_found",
    "model",
  ],
  "an unknown model, retrieved": [
    () => client.models.retrieve("gpt-4o"),
    OpenAI.NotFoundError,
    404,
    "model_not_found",
    "model",
  ],
  "an unknown route": [
    () => client.batches.list(),
    OpenAI.NotFoundError,
    404,
    "not_found",
    null,
  ],
  "a wrong method": [() => client.post("/models", { body: {} }), OpenAI.APIError, 405, "method_not_allowed", null],
};

for (const [what, [call, kind, status, code, param]] of Object.entries(REFUSALS)) {
  test(`${what} is the SDK's own error`, async () => {
    const error = await failure(call);
    assert.equal(error.constructor, kind, error);
    assert.deepEqual([error.status, error.code, error.param], [status, code, param]);
    assert.equal(error.type, "invalid_request_error");
    assert.match(error.requestID, /^req_/);
    assert.ok(error.message.startsWith(`${status} `) && error.message.length > 10, error.message);
  });
}

for (const [what, apiKey] of Object.entries({
  "another company's key": "sk-proj-1234567890abcdef",
  "a key of nobody": UNKNOWN_KEY,
  "a revoked key": REVOKED_KEY,
})) {
  test(`${what} is an authentication error and not retried`, async () => {
    const { client, sentMs } = counted({ apiKey });
    const error = await failure(() => client.chat.completions.create(hello));
    assert.ok(error instanceof OpenAI.AuthenticationError, error);
    assert.equal(error.code, "invalid_api_key");
    assert.equal(sentMs.length, 1);
  });
}

test("an account without credit may call the free model only", async () => {
  const { client, sentMs } = counted({ apiKey: PENNILESS_KEY });
  const error = await failure(() => client.chat.completions.create(hello));
  assert.ok(error instanceof OpenAI.APIError, error);
  assert.deepEqual([error.status, error.code, error.type], [402, "insufficient_credit", "insufficient_quota"]);
  assert.equal(sentMs.length, 1);
  const reply = await client.chat.completions.create({ ...hello, model: "glm-4-flash" });
  assert.equal(reply.choices[0].message.content, GREETING);
});

test("a model announced is not implemented and not retried", async () => {
  const { client, sentMs } = counted();
  for (const model of ["kimi-k2", "qwen3-max", "minimax-text-01"]) {
    const error = await failure(() => client.chat.completions.create({ ...hello, model }));
    assert.ok(error instanceof OpenAI.InternalServerError, error);
    assert.deepEqual([error.status, error.code], [501, "not_implemented"]);
  }
  assert.equal(sentMs.length, 3);
});

test("the rate limit says when to come back", async () => {
  const client = connect({ apiKey: SLOW_KEY });
  await client.chat.completions.create(hello);
  const error = await failure(() => client.chat.completions.create(hello));
  assert.ok(error instanceof OpenAI.RateLimitError, error);
  assert.equal(error.code, "rate_limited");
  const wait = Number(error.headers.get("retry-after"));
  assert.ok(wait >= 50 && wait <= 60, `${wait}`);
});

test("the SDK waits as long as a full account is told to", async () => {
  const { client, sentMs } = counted({ apiKey: SINGLE_KEY });
  const slow = { ...hello, messages: user("[[tokens=60 pace_ms=10]]"), stream: true };
  const running = await connect({ apiKey: SINGLE_KEY }).chat.completions.create(slow);
  const [reply] = await Promise.all([
    client.chat.completions.create(hello),
    (async () => {
      for await (const _ of running);
    })(),
  ]);
  assert.equal(reply.choices[0].message.content, GREETING);
  assert.equal(sentMs.length, 2);
  assert.ok(sentMs[1] - sentMs[0] >= 999, `${sentMs[1] - sentMs[0]} ms`);
});

test("a failing upstream is tried again by the gateway and not by the SDK", async () => {
  const { client, sentMs } = counted();
  const error = await failure(() =>
    client.chat.completions.create({ ...hello, messages: user(`${mark()} [[fault=status:500]]`) }),
  );
  assert.ok(error instanceof OpenAI.InternalServerError, error);
  assert.deepEqual([error.status, error.code], [502, "upstream_error"]);
  assert.equal(sentMs.length, 1);
});

test("a retry that succeeds is all the caller sees", async () => {
  const { client, sentMs } = counted();
  const word = mark();
  const messages = user(`Say ${word} [[fault=status:503,first:1]]`);
  assert.equal((await client.chat.completions.create({ ...hello, messages })).choices[0].message.content, word);
  assert.equal(sentMs.length, 1);
});

test("a silent upstream is a time out", async () => {
  const client = connect({ apiKey: IMPATIENT_KEY, baseURL: IMPATIENT_URL });
  for (const stream of [false, true]) {
    const messages = user("Hello! [[fault=hang]]");
    const error = await failure(() => client.chat.completions.create({ ...hello, messages, stream }));
    assert.ok(error instanceof OpenAI.InternalServerError, error);
    assert.deepEqual([error.status, error.code, error.type], [504, "upstream_timeout", "timeout_error"]);
  }
});
