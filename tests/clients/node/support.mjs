// What the programs of this folder share. They are run by test_node_sdk.py, which passes where the gateway is.
import assert from "node:assert/strict";
import OpenAI from "openai";

export const { BASE_URL, API_KEY, SIMULATOR_URL } = process.env;
export const GREETING = "Hello! How can I help you today?";
export const CANCEL_WITHIN_MS = 250;

export const user = (content) => [{ role: "user", content }];
export const mark = () => `mark${Math.random().toString(16).slice(2)}`;
export const connect = (options = {}) =>
  new OpenAI({ apiKey: API_KEY, baseURL: BASE_URL, maxRetries: 0, timeout: 15_000, ...options });

export const GET_WEATHER = {
  type: "function",
  function: {
    name: "get_weather",
    description: "The weather in a city.",
    strict: true,
    parameters: {
      type: "object",
      properties: { city: { type: "string" } },
      required: ["city"],
      additionalProperties: false,
    },
  },
};

/** The models on sale that say they take all of these parameters. */
export async function modelsWith(...parameters) {
  const models = [];
  for await (const model of connect().models.list()) {
    const takes = new Set(model.supported_parameters);
    if (model.status !== "soon" && parameters.every((name) => takes.has(name))) models.push(model.id);
  }
  assert.ok(models.length > 0, `no model takes ${parameters}`);
  return models;
}

/** A client with the SDK's own number of retries, and the times at which it really sent something. */
export function counted(options = {}) {
  const sentMs = [];
  const client = connect({
    maxRetries: 2,
    fetch: (url, init) => {
      sentMs.push(performance.now());
      return fetch(url, init);
    },
    ...options,
  });
  return { client, sentMs };
}

/** The error that `call` ends with; fails if there is none. */
export async function failure(call) {
  try {
    await call();
  } catch (error) {
    return error;
  }
  throw new Error("it did not fail");
}

/** The simulator's only log entry with `word`, once it has ended, and how long after now that was noticed. */
export async function ended(word) {
  const leftMs = performance.now();
  while (performance.now() - leftMs < 5000) {
    const log = await (await fetch(`${SIMULATOR_URL}/_sim/log`)).json();
    const entries = log.filter((entry) => entry.body_text.includes(word));
    if (entries.length === 1 && entries[0].ended_s !== null) {
      return { entry: entries[0], afterMs: performance.now() - leftMs };
    }
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  throw new Error("the upstream's request did not end");
}

export async function textOf(stream) {
  let text = "";
  for await (const chunk of stream) text += chunk.choices[0]?.delta.content ?? "";
  return text;
}
