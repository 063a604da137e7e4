// What the Vercel AI SDK gets of a server. Arguments: its URL with /v1, the key, the model. Prints one JSON object.

import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { embed, generateText, streamText, jsonSchema, tool, Output } from "ai";

const [url, key, model] = process.argv.slice(2);
const provider = (apiKey = key) =>
  createOpenAICompatible({ name: "headrace", baseURL: url, apiKey, includeUsage: true });
const settings = { temperature: 0, maxOutputTokens: 12, maxRetries: 0 };
const system = "You are a friendly assistant.";
const messages = [
  { role: "user", content: "My name is Ada." },
  { role: "assistant", content: "Hello Ada!" },
  { role: "user", content: [{ type: "text", text: "What is my name?" }] },
];
const chat = (changes = {}, chosen = model, apiKey = key) =>
  generateText({ model: provider(apiKey)(chosen), ...settings, system, messages, ...changes });

async function refused(call) {
  try {
    await call();
  } catch (error) {
    return { class: error.name, status: error.statusCode, message: error.message };
  }
  return null;
}

async function streamed(languageModel, asked) {
  const stream = streamText({ model: languageModel, ...settings, ...asked });
  const pieces = [];
  for await (const piece of stream.textStream) pieces.push(piece);
  return { text: pieces.join(""), pieces: pieces.length, usage: await stream.usage, reason: await stream.finishReason };
}

async function stopped() {
  const controller = new AbortController();
  const stream = streamText({
    model: provider()(model), messages, temperature: 0, maxOutputTokens: 1500, abortSignal: controller.signal,
  });
  let pieces = 0;
  try {
    for await (const piece of stream.textStream) if (++pieces === 3) controller.abort();
  } catch {}
  return pieces;
}

async function errorInStream(apiKey, chosen) {
  let seen = null;
  const stream = streamText({
    model: provider(apiKey)(chosen), ...settings, messages, onError: ({ error }) => { seen = error.statusCode; },
  });
  for await (const _ of stream.textStream);
  return seen;
}

const whole = await chat();
const prompt = "Once upon a";
const results = {
  chat: { text: whole.text, usage: whole.usage, reason: whole.finishReason },
  stream: await streamed(provider()(model), { system, messages }),
  completion: {
    whole: (await generateText({ model: provider().completionModel(model), ...settings, prompt })).text,
    stream: await streamed(provider().completionModel(model), { prompt }),
  },
  parallel: (await Promise.all([chat(), chat(), chat()])).map((answer) => answer.text),
  options: (await chat({ seed: 5, topP: 0.9, presencePenalty: 0.1, frequencyPenalty: 0.1, stopSequences: ["\n\n"] })).finishReason,
  stopped: await stopped(),
  "wrong key": await refused(() => chat({}, model, "wrong")),
  "unknown model": await refused(() => chat({}, "nobody")),
  "too long": await refused(() => chat({ maxOutputTokens: 1e6 })),
  tools: await refused(() =>
    chat({ tools: { f: tool({ description: "f", inputSchema: jsonSchema({ type: "object", properties: {} }) }) } })),
  object: await refused(() => chat({ output: Output.object({ schema: jsonSchema({ type: "object", properties: {} }) }) })),
  embedding: await refused(() => embed({ model: provider().textEmbeddingModel(model), value: "Hi", maxRetries: 0 })),
  "error in a stream": await errorInStream("wrong", model),
};
console.log(JSON.stringify(results));
