// The page is an ordinary client: it streams /v1/chat/completions. Its metrics are in the
// object `sqs` of each chunk.

const $ = (id) => document.getElementById(id);
const WINDOW = [16, 1.5]; // minimum tokens and seconds to measure a rate
const LEAST = 0.5; // minimum seconds to show a rate at the beginning
const LINK = { rate: 100_000, trip: 0.1 }; // bit/s up, round-trip time in seconds
const WAYS = {
  alone: "Alone: the cloud decodes",
  rounds: "Rounds: drafted here, verified by the cloud",
  hints: "Hints: the cloud decodes, predicted tokens save forward passes",
};

let messages = [];
let answering = null; // an AbortController
let model; // undefined: the endpoint's first

function headers() {
  const key = $("key").value;
  return {
    "content-type": "application/json",
    ...(key && { authorization: `Bearer ${key}` }),
  };
}

async function* stream(body, signal) {
  const answer = await fetch("v1/chat/completions", {
    method: "POST",
    headers: headers(),
    body: JSON.stringify(body),
    signal,
  });
  if (!answer.ok) throw await failure(answer);
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const events = (text + value).split("\n\n");
    text = events.pop();
    for (const event of events) {
      const data = event.replace(/^data: /, "");
      if (data === "[DONE]") return;
      const chunk = JSON.parse(data);
      if (chunk.error) throw new Error(chunk.error.message);
      yield chunk;
    }
  }
}

async function failure(answer) {
  if (answer.status === 401) {
    $("keyed").hidden = false;
    $("key").focus();
  }
  try {
    return new Error((await answer.json()).error.message);
  } catch {
    return new Error(`the endpoint answered with HTTP status ${answer.status}`);
  }
}

function say(role, text) {
  const said = document.createElement("p");
  said.className = `said ${role}`;
  said.textContent = text;
  $("log").append(said);
  follow(true);
  return said;
}

function follow(always) {
  const log = $("log");
  const left = log.scrollHeight - log.scrollTop - log.clientHeight;
  if (always || left < 120) log.scrollTop = log.scrollHeight;
  // On phones the whole page scrolls; the form stays visible over the text.
  const end = log.lastElementChild.getBoundingClientRect().bottom;
  const under = end - $("ask").getBoundingClientRect().top;
  if (under > 0 && (always || under < 120)) scrollBy(0, under);
}

function request(fields) {
  const [seed, temperature] = [$("seed").value, $("temperature").value];
  return {
    model,
    messages,
    stream: true,
    max_tokens: Number($("max_tokens").value),
    ...(temperature && { temperature: Number(temperature) }),
    ...(seed && { seed: Number(seed) }),
    ...fields,
  };
}

async function ask(prompt) {
  $("hint")?.remove();
  say("user", prompt);
  messages.push({ role: "user", content: prompt });
  busy(new AbortController());
  const { text } = await ($("thin").checked ? race() : answer());
  if (text) messages.push({ role: "assistant", content: text });
  else messages.pop();
  busy(null);
}

async function answer(fields) {
  const said = say("assistant busy", "");
  said.setAttribute("aria-busy", "true");
  const figures = new Figures();
  let [text, whole] = ["", false];
  try {
    for await (const chunk of stream(request(fields), answering.signal)) {
      const piece = chunk.choices[0].delta.content ?? "";
      text += piece;
      if (piece) said.append(token(piece, chunk.sqs.origin));
      figures.add(chunk.sqs, Boolean(piece));
      follow(false);
    }
    whole = true;
    tell(`The answer is complete. ${figures.summary()}`);
  } catch (error) {
    if (error.name !== "AbortError") fail(error);
    else tell("Stopped.");
  }
  said.classList.remove("busy");
  said.removeAttribute("aria-busy");
  if (!text) said.remove();
  return { text, whole, figures };
}

// Answers in each mode, over a slow link that the endpoint simulates.
async function race() {
  const seed = Number($("seed").value || Math.floor(Math.random() * 2 ** 32));
  const found = {};
  let last = { text: "" };
  for (const [mode, title] of Object.entries(WAYS)) {
    say("way", title);
    const drawn = mode === "rounds" ? undefined : seed; // rounds take no seed
    const got = await answer({ seed: drawn, sqs: { mode, link: LINK } });
    if (got.text) last = got;
    if (!got.whole) return last;
    found[mode] = got;
  }
  conclude(found);
  return last;
}

function conclude(found) {
  const card = say("race", "");
  const add = (kind, text, className = "") => {
    const part = document.createElement(kind);
    [part.textContent, part.className] = [text, className];
    card.append(part);
    return part;
  };
  const speed = ({ figures }) => figures.speed() || 1e-9;
  const most = Math.max(...Object.values(found).map(speed));
  for (const [way, got] of Object.entries(found)) {
    add("span", way);
    const bar = document.createElement("i");
    bar.style.width = `${(100 * speed(got)) / most}%`;
    add("span", "", `bar${way === "hints" ? " ours" : ""}`).append(bar);
    add("b", `${speed(got).toFixed(1)} /s`);
    add("span", `${size(got.figures.last.bytes_up)} up`);
  }
  const { alone, rounds, hints } = found;
  const times = (got) => `${(speed(got) / speed(alone)).toFixed(2)} times`;
  const same = alone.text === hints.text ? "the same" : "a different";
  const said = `Compared with alone, hints were ${times(hints)} as fast, and rounds \
${times(rounds)}. Hints and alone gave ${same} text.`;
  add("p", said);
  add("small", `Simulated: the link (100 kbit/s up, 100 ms round trip). Real: models, \
sessions, bytes.`);
  follow(true);
  tell(said);
}

function token(text, origin) {
  const span = document.createElement("span");
  span.className = origin;
  span.textContent = text;
  return span;
}

function fail(error) {
  say("error", error.message).setAttribute("role", "alert");
}

function tell(text) {
  $("status").textContent = text;
}

function busy(controller) {
  answering = controller;
  $("send").hidden = Boolean(controller);
  $("stop").hidden = !controller;
}

// Metrics of a completion, updated with each chunk.
class Figures {
  constructor() {
    this.seen = []; // [tokens, seconds, origin] of each chunk that has text
    this.rates = []; // [position, rate], from the second chunk on
    this.first = null;
    $("ticks").replaceChildren();
    $("line").setAttribute("points", "");
  }

  add(sqs, hasText) {
    this.first ??= sqs;
    this.last = sqs;
    if (hasText) {
      this.seen.push([sqs.tokens, sqs.seconds, sqs.origin]);
      this.note();
    }
    this.due ??= requestAnimationFrame(() => this.show());
  }

  note() {
    const last = this.seen.at(-1);
    const near = ([tokens, seconds]) =>
      last[0] - tokens < WINDOW[0] || last[1] - seconds < WINDOW[1];
    let i = this.seen.length - 1;
    while (i > 0 && near(this.seen[i])) i--;
    if (last[1] - this.seen[i][1] < LEAST) return;
    this.rates.push([this.seen.length - 0.5, this.rate(this.seen[i], last)]);
  }

  rate(from, to) {
    const [tokens, seconds] = [to[0] - from[0], to[1] - from[1]];
    return seconds > 0 ? tokens / seconds : 0;
  }

  speed() {
    const [first, last] = [this.first, this.last];
    return this.rate([first.tokens, first.seconds], [last.tokens, last.seconds]);
  }

  summary() {
    this.show();
    return `${this.last.tokens} tokens, ${$("rate").textContent} per second.`;
  }

  show() {
    cancelAnimationFrame(this.due); // it could run after the next completion began
    this.due = null;
    const { first, last } = this;
    const rate = this.speed();
    const alone = last.alone_per_second ?? 0; // null: not measured
    const most = Math.max(rate, alone, 1e-9);
    $("rate").textContent = rate ? rate.toFixed(1) : "–";
    $("alone").textContent = alone ? alone.toFixed(1) : "not measured";
    $("ours").style.width = `${(100 * rate) / most}%`;
    $("theirs").style.width = `${(100 * alone) / most}%`;
    $("drafted").textContent = last.accepted;
    $("own").textContent = last.tokens - last.accepted;
    $("accepted").textContent = last.drafted
      ? `${Math.round((100 * last.accepted) / last.drafted)} % of ${last.drafted}`
      : "nothing drafted";
    $("first").textContent = `${first.seconds.toFixed(2)} s`;
    const tokens = last.tokens - first.tokens;
    const bits = 8 * (last.bytes_up - first.bytes_up);
    $("up").textContent = tokens ? `${Math.round(bits / tokens)} bits` : "–";
    $("bytes").textContent = `${size(last.bytes_up)}, ${size(last.bytes_down)}`;
    $("plan").textContent = last.plan;
    this.draw(alone);
  }

  draw(alone) {
    const { seen } = this;
    const top = 1.15 * this.rates.reduce((most, [, rate]) => Math.max(most, rate), alone);
    const x = (i) => (320 * i) / Math.max(40, seen.length);
    const y = (value) => 96 * (1 - value / (top || 1));
    const points = this.rates.map(([place, rate]) => `${x(place)},${y(rate)}`);
    $("line").setAttribute("points", points.join(" "));
    for (const end of ["y1", "y2"]) $("level").setAttribute(end, y(alone));
    const ticks = $("ticks");
    while (ticks.childElementCount < seen.length) {
      const tick = document.createElementNS(ticks.namespaceURI, "rect");
      tick.setAttribute("class", `tick-${seen[ticks.childElementCount][2]}`);
      tick.setAttribute("x", ticks.childElementCount + 0.1);
      tick.setAttribute("width", 0.8);
      tick.setAttribute("height", 6);
      ticks.append(tick);
    }
    ticks.setAttribute("viewBox", `0 0 ${Math.max(40, seen.length)} 6`);
  }
}

function size(bytes) {
  return bytes < 1000 ? `${bytes} B` : `${(bytes / 1000).toFixed(1)} kB`;
}

$("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  const prompt = $("prompt").value.trim();
  if (!prompt || answering) return;
  $("prompt").value = "";
  ask(prompt);
});

$("prompt").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  $("ask").requestSubmit();
});

addEventListener("keydown", (event) => {
  if (event.key === "Escape") answering?.abort();
});

$("stop").addEventListener("click", () => {
  answering?.abort();
  $("prompt").focus();
});

$("new").addEventListener("click", () => {
  answering?.abort();
  messages = [];
  $("log").replaceChildren();
  $("prompt").focus();
});

const listed = await fetch("v1/models", { headers: headers() });
if (listed.ok) {
  const [{ id, sqs }] = (await listed.json()).data;
  const { temperature, ...cuts } = sqs.sampling;
  model = id;
  $("temperature").placeholder = temperature;
  $("thinned").hidden = !sqs.thin_links;
  $("cuts").textContent = Object.entries(cuts)
    .filter(([name, value]) => value !== { top_k: 0, top_p: 1, min_p: 0 }[name])
    .map(([name, value]) => `${name} ${value}`)
    .join(", ");
} else if (listed.status === 401) $("keyed").hidden = false;
