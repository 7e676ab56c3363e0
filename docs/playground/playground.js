// The playground of docs/playground.md: the codec in WebAssembly on shipped rows.
import { load } from "./sqs.mjs";

const VOCAB = { smollm2: 49152, gemma3: 262144 };
const NAMES = { smollm2: "SmolLM2", gemma3: "Gemma 3" };
const KINDS = {
  ar: "Arabic", code: "code", de: "German", en: "English", es: "Spanish", fr: "French",
  hi: "Hindi", ja: "Japanese", ru: "Russian", zh: "Chinese",
  list: "a list", rewrite: "a text rewritten", summary: "a summary",
};
const RULES = { // the parameter, its values, the one to begin with, the rule in Python
  top_k: ["K", [1, 2, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256], 64, "TopK"],
  threshold: ["β", [.1, .05, .02, .01, .005, .002, .001, 5e-4, 2e-4, 1e-4], .01, "Threshold"],
};
const RESOLUTIONS = [10, 16, 20, 30, 50, 70, 100, 150, 200, 300, 400, 700, 1000];
const PARTS = {
  counts: "which counts there are, and so how many",
  arrangement: "which token has which of them",
  class: "which of the prior's classes the ids are in",
  ids: "which tokens",
  padding: "nothing: the last byte is whole",
};

const FORM = `
<label class="wide">Distribution <select name="row"></select></label>
<p class="text wide">… <bdi id="text"></bdi> <span aria-hidden="true">▁</span></p>
<label>Temperature <b class="shown" aria-hidden="true"></b>
  <input name="temperature" type="range" min="0.1" max="1.2" step="0.1" value="0.7"></label>
<label>Keep rule <select name="rule">
  <option value="top_k">top-K (K-SQS)</option><option value="threshold">threshold β</option>
  </select></label>
<label><span id="name"></span> <b class="shown" aria-hidden="true"></b>
  <input name="value" type="range" min="0" step="1"></label>
<label>Resolution ℓ <b class="shown" aria-hidden="true"></b>
  <input name="resolution" type="range" min="0" step="1"></label>
<label class="check"><input name="prior" type="checkbox" checked> Prior of the tokenizer
</label>
<p class="wide" id="said" role="status"></p>
<div class="wide tables"><table class="bars" id="tokens">
  <caption>The likeliest tokens: <b class="q">q</b> as the model has it, and
    <b class="sent">q̂</b> as it is sent</caption>
  <thead><tr><th scope="col">token</th><td></td><th scope="col">q</th>
    <th scope="col">q̂</th></tr></thead><tbody></tbody></table>
<div><table class="bars" id="parts"><caption>What the packet's bits say</caption>
  <tbody></tbody></table>
<div class="stack" aria-hidden="true"></div>
<table class="bars" id="others"><caption>The same in other ways, in bits</caption>
  <tbody></tbody></table></div></div>
<div class="wide"><p>The packet, and the line of Python that writes the same:</p>
<pre><code id="packet"></code></pre><pre><code id="python"></code></pre></div>`;

const fetched = async (name) => {
  const answer = await fetch(new URL(name, import.meta.url));
  if (!answer.ok) throw new Error(`${name}: ${answer.status}`);
  return answer;
};
const bytes = async (name) => new Uint8Array(await (await fetched(name)).arrayBuffer());

function element(tag, text = "", attributes = {}) {
  const made = Object.assign(document.createElement(tag), attributes);
  made.append(text);
  return made;
}

// A row of rows.json, and its logits as float32.
export class Row {
  constructor(row) {
    Object.assign(this, row);
    this.vocabSize = VOCAB[row.model];
    this.dense = new Float32Array(this.vocabSize).fill(row.rest);
    row.ids.forEach((id, i) => { this.dense[id] = row.logits[i] / 1024; });
    this.others = this.vocabSize - row.ids.length;
  }
  // softmax(logits / temperature): of the ids, of each other token, of any id.
  softmax(temperature) {
    const weigh = (logit) => Math.exp(logit / temperature);
    const weights = this.logits.map((logit) => weigh(logit / 1024));
    const sum = weights.reduce((a, b) => a + b) + this.others * weigh(this.rest);
    return { known: weights.map((w) => w / sum), rest: weigh(this.rest) / sum,
             of: (id) => weigh(this.dense[id]) / sum };
  }
  // How many tokens a rule keeps.
  kept([rule, value], { known, rest }) {
    if (rule === "top_k") return Math.min(value, this.vocabSize);
    const n = known.filter((q) => q >= value).length + (rest >= value ? this.others : 0);
    return Math.max(1, n);
  }
}

// ceil(log2 C(n, k)). A binomial other than C(n, 1) is no power of two, so the sum's
// rounding can only mislead where one is within 1e-10 of it.
function binomialBits(n, k) {
  let bits = 0;
  for (let i = 0; i < Math.min(k, n - k); i++) bits += Math.log2((n - i) / (i + 1));
  return Math.ceil(bits - 1e-10);
}
function paperBits(vocabSize, kept, resolution, steered) {
  return binomialBits(vocabSize, kept) + binomialBits(resolution + kept - 1, kept - 1) +
    (steered ? Math.ceil(Math.log2(vocabSize)) : 0);
}

// What a setting makes of a row; `prior` is the row's, and used if `withPrior`.
export function measure(sqs, row, { keep, temperature, resolution, withPrior }, prior) {
  const codec = (coding, known = null) =>
    new sqs.Codec(row.vocabSize, resolution, coding, known);
  const chosen = codec("entropy", withPrior ? prior : null);
  const sent = chosen.quantize(row.dense, keep, temperature), packet = chosen.encode(sent);
  const q = row.softmax(temperature), kept = row.kept(keep, q);
  const excess = [...sent.tokenIds].map(
    (id, i) => Math.max(0, sent.counts[i] / resolution - q.of(id)));
  const size = (coding, known) => 8 * codec(coding, known).encode(sent).length;
  const idBits = row.vocabSize > 65536 ? 32 : 16;
  return {
    q, sent, kept, packet, parts: chosen.parts(packet), tv: excess.reduce((a, b) => a + b),
    others: {
      "this packet": 8 * packet.length,
      [withPrior ? "without the prior" : "with the prior"]:
        size("entropy", withPrior ? null : prior),
      "the rank of it: enumerative": size("enumerative"),
      "fields of bits: bitpack": size("bitpack"),
      "the paper's formula":
        paperBits(row.vocabSize, kept, resolution, keep[0] !== "top_k"),
      [`raw: fp16 and ids of ${idBits} bits`]: kept * (16 + idBits),
    },
  };
}

const place = document.getElementById("try");
const form = element("form", "", { innerHTML: FORM, onsubmit: () => false });
const at = (selector) => form.querySelector(selector);
const field = form.elements, labels = form.querySelectorAll(".shown");
let sqs, rows, latest = 0;
const priors = {};
const priorOf = (model) =>
  priors[model] ??= bytes(`${model}.sqsprior`).then((file) => new sqs.Prior(file));

const percent = (x) =>
  x < 5e-6 ? "< 0.001 %" : `${(100 * x).toFixed(x < .001 ? 3 : x < .1 ? 2 : 0)} %`;
const marked = (text) => text.replaceAll("\n", "↵").replaceAll("\t", "⇥");

function tableRow(label, bars, ...cells) {
  const row = element("tr"), cell = element("td");
  for (const [kind, width] of bars) {
    const bar = element("i", "", { className: kind });
    bar.style.width = `${100 * width}%`;
    cell.append(bar);
  }
  row.append(element("th", label, { scope: "row" }), cell);
  row.append(...cells.map((text) => element("td", text)));
  return row;
}

function showTokens(row, q, { tokenIds, counts }, resolution) {
  const sent = new Map([...tokenIds].map((id, i) => [id, counts[i]]));
  const shown = row.tokens.map((token, i) => [element("bdi", marked(token.replace(/^ /, "␣"))), q.known[i],
                                              sent.get(row.ids[i]) ?? 0]);
  const [mass, sum] = shown.reduce(([a, b], [, p, n]) => [a + p, b + n], [0, 0]);
  const most = Math.max(q.known[0], ...shown.map(([, , n]) => n / resolution));
  const made = shown.map(([label, p, n]) => tableRow(
    label, [["q", p / most], ["sent", n / resolution / most]], percent(p),
    n ? `${n}/${resolution}` : "–"));
  const others = resolution - sum;
  made.push(tableRow("all others", [], percent(Math.max(0, 1 - mass)),
                     others ? `${others}/${resolution}` : "–"));
  at("#tokens tbody").replaceChildren(...made);
}

function showParts(parts) {
  const made = Object.entries(parts), most = Math.max(...Object.values(parts));
  at("#parts tbody").replaceChildren(...made.map(([name, n]) =>
    tableRow(PARTS[name], [[name, n / most]], n.toFixed(1))));
  at(".stack").replaceChildren(...made.map(([name, n]) => {
    const part = element("i", "", { className: name });
    part.style.flexGrow = n;
    return part;
  }));
}

function showOthers(others) {
  const most = Math.max(...Object.values(others));
  at("#others tbody").replaceChildren(...Object.entries(others).map(([label, bits]) =>
    tableRow(label, [["sent", bits / most]], `${bits}`)));
}

async function draw() {
  const number = ++latest, row = rows[field.row.value], prior = await priorOf(row.model);
  if (number !== latest) return; // another one has begun
  const [name, values, , rule] = RULES[field.rule.value], value = values[field.value.value];
  const temperature = Number(field.temperature.value), withPrior = field.prior.checked;
  const resolution = RESOLUTIONS[field.resolution.value], keep = [field.rule.value, value];
  const { q, sent, kept, packet, parts, tv, others } =
    measure(sqs, row, { keep, temperature, resolution, withPrior }, prior);

  at("#text").textContent = marked(row.text);
  at("#name").textContent = name;
  const shown = { temperature: temperature.toFixed(1), value, resolution };
  Object.entries(shown).forEach(([control, text], i) => {
    labels[i].textContent = text;
    field[control].setAttribute("aria-valuetext", text);
  });
  at("#said").textContent =
    `Kept: ${kept} of ${row.vocabSize} tokens. Survivors, which have a count: ` +
    `${sent.counts.length}. Total variation: ${tv.toFixed(4)}. Packet: ${packet.length} bytes.`;
  showTokens(row, q, sent, resolution);
  showParts(parts);
  showOthers(others);
  at("#packet").textContent =
    [...packet].map((byte) => byte.toString(16).padStart(2, "0")).join(" ");
  const known = withPrior ? `, prior=sqs.Prior.builtin("${row.model}")` : "";
  at("#python").textContent = `codec = sqs.Codec(${row.vocabSize}, ${resolution}${known})\n` +
    `q = codec.quantize(logits, sqs.${rule}(${value}), temperature=${temperature})\n` +
    "codec.encode(q)";
}

function chooseRule() {
  const [, values, first] = RULES[field.rule.value];
  field.value.max = values.length - 1;
  field.value.value = values.indexOf(first);
}

async function start() {
  sqs = await load(await bytes("sqs.wasm"));
  rows = (await (await fetched("rows.json")).json()).map((row) => new Row(row));
  field.row.append(...rows.map(({ model, what, text }, i) => {
    const end = text.slice(-24).replace(/^\S*\s/, "");
    return new Option(`${NAMES[model]}, ${KINDS[what]}: … ${end}`, i);
  }));
  field.row.value = 3;
  field.resolution.max = RESOLUTIONS.length - 1;
  field.resolution.value = RESOLUTIONS.indexOf(100);
  chooseRule();
  field.rule.addEventListener("input", chooseRule);
  form.addEventListener("input", draw);
  await draw();
  place.replaceChildren(form);
}

start();
