import assert from "node:assert/strict";
import { test } from "node:test";
import { connect, GET_WEATHER, user } from "./support.mjs";

const client = connect();
const PLACES = "What is the weather in Paris and Tokyo?";
const cities = (calls) => calls.map((call) => JSON.parse(call.function.arguments).city);

for (const model of ["deepseek-chat", "deepseek-reasoner", "glm-4-air"]) {
  test(`tools go there and back on ${model}`, async () => {
    const messages = user("What is the weather in Paris?");
    const asked = await client.chat.completions.create({ model, messages, tools: [GET_WEATHER] });
    assert.equal(asked.choices[0].finish_reason, "tool_calls");
    const { message } = asked.choices[0];
    assert.deepEqual(cities(message.tool_calls), ["Paris"]);
    messages.push(message, { role: "tool", tool_call_id: message.tool_calls[0].id, content: "21 °C" });
    const told = await client.chat.completions.create({ model, messages, tools: [GET_WEATHER] });
    assert.match(told.choices[0].message.content, /21 °C/);
  });

  test(`streamed parallel calls are put together on ${model}`, async () => {
    const stream = client.chat.completions.stream({ model, messages: user(PLACES), tools: [GET_WEATHER] });
    const done = [];
    stream.on("tool_calls.function.arguments.done", (event) => done.push([event.index, event.name]));
    const { message, finish_reason } = (await stream.finalChatCompletion()).choices[0];
    assert.equal(finish_reason, "tool_calls");
    assert.deepEqual(cities(message.tool_calls), ["Paris", "Tokyo"]);
    assert.equal(new Set(message.tool_calls.map((call) => call.id)).size, 2);
    assert.deepEqual(done, [[0, "get_weather"], [1, "get_weather"]]); // prettier-ignore
  });
}

test("the tool runner talks until it has an answer", async () => {
  const asked = [];
  const runner = client.chat.completions.runTools({
    model: "deepseek-chat",
    messages: user(PLACES),
    tools: [
      {
        type: "function",
        function: {
          ...GET_WEATHER.function,
          parse: JSON.parse,
          function: ({ city }) => {
            asked.push(city);
            return `${city}: 21 °C`;
          },
        },
      },
    ],
  });
  const said = await runner.finalContent();
  assert.deepEqual(asked, ["Paris", "Tokyo"]);
  assert.match(said, /Paris: 21 °C/);
  assert.match(said, /Tokyo: 21 °C/);
});

test("tool_choice is honoured", async () => {
  const ask = { model: "deepseek-chat", messages: user("Hello!"), tools: [GET_WEATHER] };
  const named = { type: "function", function: { name: "get_weather" } };
  for (const [tool_choice, count] of [["none", 0], ["auto", 0], ["required", 1], [named, 1]]) { // prettier-ignore
    const reply = await client.chat.completions.create({ ...ask, tool_choice });
    assert.equal((reply.choices[0].message.tool_calls ?? []).length, count, JSON.stringify(tool_choice));
  }
});

test("legacy functions go there and back, whole and streamed", async () => {
  const { strict, ...definition } = GET_WEATHER.function;
  const ask = { model: "deepseek-chat", functions: [definition] };
  const messages = user("What is the weather in Paris?");
  const asked = (await client.chat.completions.create({ ...ask, messages })).choices[0];
  assert.equal(asked.finish_reason, "function_call");
  assert.deepEqual(JSON.parse(asked.message.function_call.arguments), { city: "Paris" });
  const streamed = await client.chat.completions.stream({ ...ask, messages }).finalChatCompletion();
  assert.deepEqual(JSON.parse(streamed.choices[0].message.function_call.arguments), { city: "Paris" });
  messages.push(asked.message, { role: "function", name: "get_weather", content: "21 °C" });
  const told = await client.chat.completions.create({ ...ask, messages });
  assert.match(told.choices[0].message.content, /21 °C/);
});
