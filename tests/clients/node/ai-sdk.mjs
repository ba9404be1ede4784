// Vercel's AI SDK over its two providers that speak chat completions, on every model that says it can.
import assert from "node:assert/strict";
import { test } from "node:test";
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateObject, generateText, stepCountIs, streamObject, streamText, tool } from "ai";
import { z } from "zod";
import { API_KEY, BASE_URL, GREETING, modelsWith } from "./support.mjs";

const openai = createOpenAI({ baseURL: BASE_URL, apiKey: API_KEY });
const compatible = createOpenAICompatible({
  name: "vipcloud",
  baseURL: BASE_URL,
  apiKey: API_KEY,
  includeUsage: true,
  supportsStructuredOutputs: true,
});
const PROVIDERS = { openai: (model) => openai.chat(model), compatible: (model) => compatible(model) };
const OPTIONS = { maxRetries: 0, abortSignal: AbortSignal.timeout(40_000) };
const Person = z.object({ name: z.string(), age: z.number().int() });
const JANE = { name: "Jane Doe", age: 32 };
const NOTE = "Note down: the new engineer is Jane Doe, 32.";
const PLACES = "What is the weather in Paris and Tokyo?";

function weather() {
  const asked = [];
  const get_weather = tool({
    description: "The weather in a city.",
    inputSchema: z.object({ city: z.string() }),
    execute: async ({ city }) => {
      asked.push(city);
      return `${city}: 21 °C`;
    },
  });
  return { asked, tools: { get_weather } };
}

async function failOn(stream) {
  for await (const part of stream) if (part.type === "error") throw part.error;
}

for (const [name, of] of Object.entries(PROVIDERS)) {
  for (const model of await modelsWith()) {
    test(`streamText says what the model says, with its usage, on ${model} over ${name}`, async () => {
      const run = streamText({ ...OPTIONS, model: of(model), prompt: "Hello!" });
      let text = "";
      for await (const delta of run.textStream) text += delta;
      assert.equal(text, GREETING);
      assert.equal(await run.finishReason, "stop");
      assert.ok((await run.usage).outputTokens > 0);
    });
  }

  for (const model of await modelsWith("tools")) {
    test(`streamText calls tools and goes on with their results on ${model} over ${name}`, async () => {
      const { asked, tools } = weather();
      const run = streamText({ ...OPTIONS, model: of(model), prompt: PLACES, tools, stopWhen: stepCountIs(5) });
      await failOn(run.fullStream);
      assert.deepEqual(asked.sort(), ["Paris", "Tokyo"]);
      assert.equal((await run.steps).length, 2);
      assert.match(await run.text, /Paris: 21 °C[^]*Tokyo: 21 °C/);
      assert.ok((await run.totalUsage).totalTokens > 0);
    });
  }

  for (const model of await modelsWith("structured_outputs")) {
    test(`generateObject and streamObject fill in a schema on ${model} over ${name}`, async () => {
      const ask = { ...OPTIONS, model: of(model), schema: Person, prompt: NOTE };
      assert.deepEqual((await generateObject(ask)).object, JANE);
      const run = streamObject(ask);
      await failOn(run.fullStream);
      assert.deepEqual(await run.object, JANE);
    });
  }
}

for (const model of await modelsWith("reasoning_effort")) {
  test(`reasoning comes beside the text on ${model}`, async () => {
    const reply = await generateText({ ...OPTIONS, model: compatible(model), prompt: "Hello!" });
    assert.match(reply.reasoningText, /^The user writes/);
    assert.equal(reply.text, GREETING);
  });
}
