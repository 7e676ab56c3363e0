// openai, and ai with two of its providers: node --input-type=module - URL KEY < clients.mjs
import assert from "node:assert/strict";

import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateText, jsonSchema, streamText, tool } from "ai";
import OpenAI from "openai";

const [baseURL, apiKey] = process.argv.slice(2);
const prompt = "Why is the sea salty?", maxRetries = 0, seed = 7, paths = /\/v1\/chat\/completions/;

async function tryOpenAI() {
    const client = new OpenAI({ baseURL, apiKey, maxRetries });
    const given = { model: "sqs", messages: [{ role: "user", content: prompt }], max_tokens: 12, seed };
    const ask = (more) => client.chat.completions.create({ ...given, ...more });
    const whole = await ask({ tools: [{ type: "function", function: { name: "clock" } }] });
    let streamed = "", usage;
    for await (const chunk of await ask({ stream: true, stream_options: { include_usage: true } })) {
        streamed += chunk.choices[0]?.delta.content ?? "";
        usage = chunk.usage;
    }
    assert.ok(streamed);
    assert.equal(streamed, whole.choices[0].message.content);
    assert.equal(usage.completion_tokens, whole.usage.completion_tokens);
    assert.deepEqual((await client.models.list()).data.map(({ id }) => id), ["sqs"]);
    await assert.rejects(ask({ model: "gpt-5" }), OpenAI.NotFoundError);
    await assert.rejects(ask({ n: 2 }), OpenAI.BadRequestError);
    await assert.rejects(client.responses.create({ model: "sqs", input: prompt }), paths);
}

async function tryAi(provider) {
    const given = { model: provider("sqs"), prompt, maxOutputTokens: 12, seed, maxRetries };
    const inputSchema = jsonSchema({ type: "object", properties: {} });
    const tools = { clock: tool({ description: "The time.", inputSchema }) };
    const whole = await generateText({ ...given, tools });
    const stream = streamText(given);
    let streamed = "";
    for await (const piece of stream.textStream) streamed += piece;
    assert.ok(streamed);
    assert.equal(streamed, whole.text);
    assert.equal((await stream.usage).outputTokens, whole.usage.outputTokens);
    for (const [more, failure] of [
        [{ model: provider("gpt-5") }, { statusCode: 404 }],
        [{ frequencyPenalty: 1 }, /frequency_penalty/],
        [{ tools, toolChoice: "required" }, /tool_choice/],
    ]) await assert.rejects(generateText({ ...given, ...more }), failure);
}

const own = createOpenAI({ baseURL, apiKey });
await tryOpenAI();
await tryAi(createOpenAICompatible({ name: "sqs", baseURL, apiKey, includeUsage: true }));
await tryAi(own.chat);
await assert.rejects(generateText({ model: own("sqs"), prompt, maxRetries }), paths);
