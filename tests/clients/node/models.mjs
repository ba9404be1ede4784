// What every model that says it can must do with the SDK's helpers: run tools, whole and streamed, and fill in a schema.
import assert from "node:assert/strict";
import { test } from "node:test";
import { zodFunction, zodResponseFormat } from "openai/helpers/zod";
import { z } from "zod";
import { connect, modelsWith, user } from "./support.mjs";

const client = connect();
const Person = z.object({ name: z.string(), age: z.number().int() });
const JANE = { name: "Jane Doe", age: 32 };
const NOTE = user("Note down: the new engineer is Jane Doe, 32.");

/** A tool that remembers which cities it was asked for. */
function weather() {
  const asked = [];
  const tool = zodFunction({
    name: "get_weather",
    description: "The weather in a city.",
    parameters: z.object({ city: z.string() }),
    function: ({ city }) => {
      asked.push(city);
      return `${city}: 21 °C`;
    },
  });
  return { asked, tool };
}

for (const model of await modelsWith("tools")) {
  for (const stream of [false, true]) {
    test(`the tool runner talks until it has an answer on ${model}, ${stream ? "streamed" : "whole"}`, async () => {
      const { asked, tool } = weather();
      const messages = user("What is the weather in Paris and Tokyo?");
      const runner = client.chat.completions.runTools({ model, messages, tools: [tool], stream });
      const said = await runner.finalContent();
      assert.deepEqual(asked, ["Paris", "Tokyo"]);
      assert.match(said, /Paris: 21 °C/);
      assert.match(said, /Tokyo: 21 °C/);
      assert.ok((await runner.totalUsage()).total_tokens > 0 || stream);
    });
  }
}

for (const model of await modelsWith("structured_outputs")) {
  const ask = { model, messages: NOTE, response_format: zodResponseFormat(Person, "person") };

  test(`parse fills in a schema on ${model}`, async () => {
    const reply = await client.chat.completions.parse(ask);
    assert.deepEqual(reply.choices[0].message.parsed, JANE);
  });

  test(`a stream fills in a schema on ${model}`, async () => {
    const stream = client.chat.completions.stream(ask);
    let text = "";
    stream.on("content.delta", ({ delta }) => (text += delta));
    const reply = await stream.finalChatCompletion();
    assert.deepEqual(reply.choices[0].message.parsed, JANE);
    assert.deepEqual(JSON.parse(text), JANE);
  });
}
