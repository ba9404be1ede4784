import assert from "node:assert/strict";
import { test } from "node:test";
import { connect, GREETING, user } from "./support.mjs";

const client = connect();
const PIXEL =
  "data:image/png;base64," +
  "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";

test("a completion has the documented shape", async () => {
  const reply = await client.chat.completions.create({ model: "deepseek-chat", messages: user("Hello!") });
  assert.equal(reply.object, "chat.completion");
  assert.equal(reply.model, "deepseek-chat");
  assert.equal(reply.choices[0].message.content, GREETING);
  assert.equal(reply.choices[0].finish_reason, "stop");
  assert.equal(reply.usage.total_tokens, reply.usage.prompt_tokens + reply.usage.completion_tokens);
});

for (const model of ["deepseek-v3.2", "deepseek-reasoner", "glm-4-flash", "glm-4-air", "glm-4-plus", "glm-4"]) {
  test(`${model} answers under its name`, async () => {
    const reply = await client.chat.completions.create({ model, messages: user("Hello!") });
    assert.equal(reply.model, model);
    assert.equal(reply.choices[0].message.content, GREETING);
  });
}

test("an answer cut by its limit says so", async () => {
  const reply = await client.chat.completions.create({
    model: "deepseek-chat",
    messages: user("Count to 100"),
    max_completion_tokens: 5,
  });
  assert.equal(reply.choices[0].finish_reason, "length");
});

test("JSON mode answers JSON", async () => {
  const reply = await client.chat.completions.create({
    model: "deepseek-chat",
    messages: user('Answer in JSON with the keys "city" and "country".'),
    response_format: { type: "json_object" },
  });
  assert.deepEqual(Object.keys(JSON.parse(reply.choices[0].message.content)).sort(), ["city", "country"]);
});

test("parse reads an answer after a JSON schema", async () => {
  const reply = await client.chat.completions.parse({
    model: "deepseek-chat",
    messages: user("Alice goes to a fair on 2026-12-04."),
    response_format: {
      type: "json_schema",
      json_schema: {
        name: "event",
        strict: true,
        schema: {
          type: "object",
          properties: { name: { type: "string" }, date: { type: "string" } },
          required: ["name", "date"],
          additionalProperties: false,
        },
      },
      $brand: "auto-parseable-response-format",
      $parseRaw: JSON.parse,
    },
  });
  assert.equal(reply.choices[0].message.parsed.date, "2026-12-04");
});

test("images are seen", async () => {
  const reply = await client.chat.completions.create({
    model: "glm-4-plus",
    messages: user([
      { type: "text", text: "What is this?" },
      { type: "image_url", image_url: { url: PIXEL } },
    ]),
  });
  assert.match(reply.choices[0].message.content, /^I can see 1 image: image\/png/);
});

test("a reasoner shows its reasoning", async () => {
  const reply = await client.chat.completions.create({ model: "deepseek-reasoner", messages: user("Hello!") });
  assert.match(reply.choices[0].message.reasoning_content, /^The user writes: Hello!/);
  assert.ok(reply.usage.completion_tokens_details.reasoning_tokens > 0);
});

test("models are listed and each can be retrieved", async () => {
  const listed = [];
  for await (const model of client.models.list()) listed.push(model);
  assert.ok(listed.length >= 10);
  for (const model of listed) {
    const { _request_id, ...retrieved } = await client.models.retrieve(model.id);
    assert.match(_request_id, /^req_/);
    assert.deepEqual(retrieved, model);
  }
});

test("request ids and headers can be read", async () => {
  const asked = client.chat.completions.create({ model: "deepseek-chat", messages: user("Hello!") });
  const { data, response, request_id } = await asked.withResponse();
  assert.match(request_id, /^req_/);
  assert.equal(data._request_id, request_id);
  assert.equal(response.headers.get("content-type"), "application/json");
  const raw = await client.models.list().asResponse();
  assert.equal(raw.status, 200);
  await raw.text();
});
