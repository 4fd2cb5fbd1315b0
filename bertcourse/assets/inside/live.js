// Runs the course's BERT in the reader's browser and gives its numbers to the view (view.js). What is written never leaves the page.
// The numbers are those of `bertcourse.inside.numbers`; tests/slow/test_inside_browser.py compares the two.

const HERE = new URL(".", import.meta.url);
const LONGEST = 64; // tokens, and
const SHOWN = 64; // numbers of a vector that are drawn
const PREDICTIONS = 5;
const RUNS = 5; // timed forward passes, of which the median is shown

// --- files ---------------------------------------------------------------------------------------------------------

let manifest;
const readManifest = () => (manifest ??= fetch(new URL("manifest.json", HERE)).then((answer) => {
  if (!answer.ok) throw new Error(`manifest.json: ${answer.status}`);
  return answer.json();
}).catch((error) => {
  manifest = undefined; // another try may succeed
  throw error;
}));

const downloadSize = (files) => Object.values(files).reduce((sum, file) => sum + file.packed, 0);

// The bytes of a file that is stored compressed. A server may have decompressed it on the way.
async function fetchPacked(file, onBytes, signal) {
  const answer = await fetch(new URL(`${file.name}?${file.version}`, HERE), { signal });
  if (!answer.ok) throw new Error(`${file.name}: ${answer.status}`);
  const parts = [];
  const reader = answer.body.getReader();
  for (let read = await reader.read(); !read.done; read = await reader.read()) {
    parts.push(read.value);
    onBytes(read.value.length);
  }
  const blob = new Blob(parts);
  const [first, second] = new Uint8Array(await blob.slice(0, 2).arrayBuffer());
  const packed = first === 0x1f && second === 0x8b;
  return packed ? new Response(blob.stream().pipeThrough(new DecompressionStream("gzip"))).arrayBuffer() : blob.arrayBuffer();
}

// --- arithmetic ----------------------------------------------------------------------------------------------------

const softmax = (logits) => {
  const largest = logits.reduce((a, b) => Math.max(a, b), -Infinity);
  const powers = Array.from(logits, (value) => Math.exp(value - largest));
  const sum = powers.reduce((a, b) => a + b, 0);
  return powers.map((value) => value / sum);
};

const dot = (a, b) => a.reduce((sum, value, i) => sum + value * b[i], 0);

const largestDifference = (a, b) => a.reduce((most, value, i) => Math.max(most, Math.abs(value - b[i])), 0);

// A tensor as nested arrays.
function nested(values, dims) {
  if (dims.length === 1) return Array.from(values);
  const size = values.length / dims[0];
  return Array.from({ length: dims[0] }, (_, i) => nested(values.subarray(i * size, (i + 1) * size), dims.slice(1)));
}

// Eigenvalues and eigenvectors (as columns) of a symmetric matrix, by Jacobi's rotations.
function eigen(matrix) {
  const n = matrix.length;
  const a = matrix.map((row) => [...row]);
  const vectors = a.map((_, i) => a.map((_, j) => Number(i === j)));
  for (let sweep = 0; sweep < 60; sweep++) {
    let outside = 0;
    for (let p = 0; p < n; p++) {
      for (let q = p + 1; q < n; q++) {
        outside += a[p][q] ** 2;
        if (Math.abs(a[p][q]) < 1e-14) continue;
        const theta = (a[q][q] - a[p][p]) / (2 * a[p][q]);
        const t = (theta < 0 ? -1 : 1) / (Math.abs(theta) + Math.sqrt(theta * theta + 1));
        const c = 1 / Math.sqrt(t * t + 1);
        const s = t * c;
        for (let k = 0; k < n; k++) [a[k][p], a[k][q]] = [c * a[k][p] - s * a[k][q], s * a[k][p] + c * a[k][q]];
        for (let k = 0; k < n; k++) [a[p][k], a[q][k]] = [c * a[p][k] - s * a[q][k], s * a[p][k] + c * a[q][k]];
        for (let k = 0; k < n; k++) [vectors[k][p], vectors[k][q]] = [c * vectors[k][p] - s * vectors[k][q], s * vectors[k][p] + c * vectors[k][q]];
      }
    }
    if (outside < 1e-22) break;
  }
  return { values: a.map((row, i) => row[i]), vectors };
}

// Vectors projected onto their first two principal components; the largest coordinate of each is positive.
function principalComponents(rows) { // { points, share of the variance }
  const mean = rows[0].map((_, i) => rows.reduce((sum, row) => sum + row[i], 0) / rows.length);
  const centred = rows.map((row) => row.map((value, i) => value - mean[i]));
  const { values, vectors } = eigen(centred.map((a) => centred.map((b) => dot(a, b))));
  const order = values.map((_, i) => i).sort((i, j) => values[j] - values[i]);
  const axes = [0, 1].map((k) => {
    if (k >= order.length) return rows.map(() => 0);
    const axis = vectors.map((row) => row[order[k]] * Math.sqrt(Math.max(0, values[order[k]])));
    const largest = axis.reduce((a, b) => (Math.abs(b) > Math.abs(a) ? b : a), 0);
    return axis.map((value) => (largest < 0 ? -value : value));
  });
  const all = values.reduce((sum, value) => sum + Math.max(0, value), 0);
  const kept = order.slice(0, 2).reduce((sum, k) => sum + Math.max(0, values[k]), 0);
  return { points: rows.map((_, i) => [axes[0][i], axes[1][i]]), share: all > 0 ? kept / all : 1 };
}

// --- the model -----------------------------------------------------------------------------------------------------

class Model {
  static async load(onProgress, onStart) {
    const { files } = await readManifest();
    const total = downloadSize(files);
    let done = 0;
    const bytes = {};
    const others = new AbortController();
    const get = async ([name, file]) => {
      bytes[name] = await fetchPacked(file, (count) => onProgress(Math.min(total, (done += count)), total), others.signal);
    };
    await Promise.all(Object.entries(files).map(get)).catch((error) => {
      others.abort();
      throw error;
    });
    onStart();
    const ort = await import(new URL("ort.wasm.bundle.min.mjs", HERE));
    const { Tokenizer } = await import(new URL("tokenizers.min.mjs", HERE));
    ort.env.wasm.numThreads = 1; // more need headers that a static site cannot set
    ort.env.wasm.wasmBinary = bytes.wasm;
    const model = new Model();
    model.ort = ort;
    model.sizes = { fp32: files.fp32.bytes, int8: files.int8.bytes };
    const open = (data) => ort.InferenceSession.create(new Uint8Array(data), { executionProviders: ["wasm"] });
    model.sessions = { fp32: await open(bytes.fp32), int8: await open(bytes.int8) };
    const json = (data) => JSON.parse(new TextDecoder().decode(data));
    model.tokenizer = new Tokenizer(json(bytes.tokenizer), json(bytes.tokenizer_config));
    const id = (token) => model.tokenizer.token_to_id(token);
    model.mask = id("[MASK]");
    model.special = new Set([id("[CLS]"), id("[SEP]"), id("[PAD]")]);
    return model;
  }

  encode(text, pair) {
    const { ids, tokens, token_type_ids } = this.tokenizer.encode(text, { text_pair: pair || null, return_token_type_ids: true });
    return { ids, tokens, segments: token_type_ids };
  }

  // All outputs of one forward pass, by name: { data, dims } without the dimension of the batch.
  run(encoded, weights) {
    return (this.queue = (this.queue ?? Promise.resolve()).catch(() => {}).then(() => this.runNow(encoded, weights))); // one at a time
  }

  async runNow(encoded, weights) {
    const { Tensor } = this.ort;
    const tensor = (values) => new Tensor("int64", BigInt64Array.from(values, BigInt), [1, values.length]);
    const outputs = await this.sessions[weights].run({ input_ids: tensor(encoded.ids), token_type_ids: tensor(encoded.segments) });
    return Object.fromEntries(Object.entries(outputs).map(([name, { data, dims }]) => {
      const batch = name === "hidden_states" || name === "attentions" ? 1 : 0;
      return [name, { data, dims: dims.filter((_, i) => i !== batch) }];
    }));
  }

  // What the view draws, as `bertcourse.inside.numbers.inspect` gives it; predictions for the masked token only.
  async inspect(text, pair, masked, weights) {
    const encoded = this.encode(text, pair);
    const input = { ...encoded, ids: encoded.ids.map((id, i) => (i === masked ? this.mask : id)) };
    const output = await this.run(input, weights);
    const read = (name) => nested(output[name].data, output[name].dims);
    const states = read("hidden_states");
    const short = (rows) => rows.map((row) => row.slice(0, SHOWN));
    return {
      tokens: encoded.tokens,
      ids: input.ids,
      segments: encoded.segments,
      special: encoded.ids.map((id) => Number(this.special.has(id))),
      width: states[0][0].length,
      attention: read("attentions"),
      embeddings: { word: short(read("word")), position: short(read("position")), segment: short(read("segment")), normed: short(states[0]) },
      map: await this.map([text, pair].filter(Boolean), weights),
      predictions: encoded.ids.map((id, i) => (i === masked ? this.predict(read("prediction_logits")[i], id) : null)),
      next: pair ? softmax(output.seq_relationship_logits.data)[0] : null,
    };
  }

  predict(logits, id) {
    const probabilities = softmax(logits);
    const order = probabilities.map((_, i) => i).sort((i, j) => probabilities[j] - probabilities[i]).slice(0, PREDICTIONS);
    const name = (i) => this.tokenizer.id_to_token(i);
    return { token: name(id), probability: probabilities[id], top: order.map((i) => [name(i), probabilities[i]]) };
  }

  // Each sentence goes through the model alone.
  async map(texts, weights) {
    const tokens = [[], []];
    const layers = [];
    for (const [number, text] of texts.entries()) {
      const encoded = this.encode(text);
      const { data, dims } = (await this.run(encoded, weights)).hidden_states;
      const kept = encoded.ids.map((_, i) => i).filter((i) => !this.special.has(encoded.ids[i]));
      tokens[number] = kept.map((i) => encoded.tokens[i]);
      nested(data, dims).forEach((rows, l) => (layers[l] ??= []).push(...kept.map((i) => rows[i])));
    }
    const cosines = {};
    for (const word of new Set(tokens[0])) {
      const [i, j] = [tokens[0].indexOf(word), tokens[0].length + tokens[1].indexOf(word)];
      if (j >= tokens[0].length) cosines[word] = layers.map((rows) => dot(rows[i], rows[j]) / Math.sqrt(dot(rows[i], rows[i]) * dot(rows[j], rows[j])));
    }
    const reduced = layers.map(principalComponents);
    return { tokens, points: reduced.map(({ points }) => points), share: reduced.map(({ share }) => share), cosines };
  }

  // The median time of a forward pass, and how far its hidden states are from those of FP32.
  async facts(text, pair, weights) {
    const encoded = this.encode(text, pair);
    const times = [];
    let output;
    for (let i = 0; i < RUNS; i++) {
      const start = performance.now();
      output = await this.run(encoded, weights);
      times.push(performance.now() - start);
    }
    const exact = weights === "fp32" ? output : await this.run(encoded, "fp32");
    return { ms: times.sort((a, b) => a - b)[RUNS >> 1], difference: largestDifference(output.hidden_states.data, exact.hidden_states.data) };
  }
}

let loading; // one model for all views of a page

// --- controls ------------------------------------------------------------------------------------------------------

const megabytes = (bytes) => (bytes / 1e6).toFixed(1);

class Live {
  constructor(host) {
    const { make, fill } = globalThis.bertcourseView;
    Object.assign(this, { make, view: host.bertcourseView, say: (name, values) => fill(this.view.words[name], values) });
    this.language = host.closest("[lang]")?.lang.startsWith("zh") ? "zh" : "en";
    this.message = make("p", { "aria-live": "polite", class: "help" });
  }

  async offer() {
    if (typeof WebAssembly !== "object") return this.fail(this.say("no_wasm"));
    const { files } = await readManifest();
    this.message.className = "help";
    const button = this.make("button", { type: "button", onclick: () => this.start(button) }, this.say("load"));
    this.message.textContent = this.say("size", { size: megabytes(downloadSize(files)) });
    this.view.controls.replaceChildren(this.make("div", { class: "row" }, button, this.message));
  }

  fail(why, again = false) {
    this.message.className = "error";
    this.message.textContent = this.say("failed", { why });
    const button = this.make("button", { type: "button", onclick: () => this.start(button) }, this.say("load"));
    this.view.controls.replaceChildren(...(again ? [button] : []), this.message);
  }

  async start(button) {
    button.disabled = true;
    this.message.className = "help";
    const onProgress = (done, total) => {
      if (button.isConnected) this.message.textContent = this.say("loading", { done: megabytes(done), size: megabytes(total) });
    };
    try {
      loading ??= Model.load(onProgress, () => (this.message.textContent = this.say("starting")));
      this.model = await loading;
      await this.open();
    } catch (error) {
      loading = undefined;
      this.fail(error.message ?? String(error), true);
    }
  }

  async open() {
    const { examples } = await readManifest();
    this.examples = examples[this.language];
    this.weights = "fp32";
    const { make } = this;
    const field = (name) => make("input", { type: "text", id: name, maxlength: 300, autocomplete: "off", spellcheck: "false", oninput: () => this.later() });
    this.fields = ["first_sentence", "second_sentence"].map(field);
    const sentences = make("div", { class: "sentences" });
    for (const input of this.fields) sentences.append(make("label", { for: input.id }, this.say(input.id)), input);
    const options = this.examples.map((example, i) => make("option", { value: i }, example.name));
    const select = make("select", { onchange: () => select.value && this.take(this.examples[select.value]) }, make("option", { value: "" }, "–"), ...options);
    this.select = select;
    const radio = (name) => make("label", {}, make("input", { type: "radio", name: "weights", value: name, ...(name === "fp32" ? { checked: "" } : {}),
      onchange: () => { this.weights = name; this.update(); } }), ` ${name.toUpperCase()}`);
    const row = make("div", { class: "row" }, make("label", {}, this.say("examples"), " ", select),
      make("fieldset", { "aria-label": this.say("weights") }, radio("fp32"), radio("int8")));
    this.message.className = "help";
    this.view.controls.replaceChildren(row, sentences, this.message);
    this.view.onMask = () => this.update();
    select.value = "0";
    await this.begin(this.examples[0]);
    select.focus();
  }

  // The first example: if the stored picture shows it already, perhaps masked, the head and token that are chosen there stay chosen.
  async begin(example) {
    const shown = this.view.data.tokens;
    const { tokens } = this.model.encode(example.text, example.pair);
    const same = tokens.length === shown.length && tokens.every((token, i) => [token, "[MASK]"].includes(shown[i]));
    await this.take(example, same ? { layer: this.view.layer, head: this.view.head, token: this.view.token } : {});
  }

  // `chosen` goes before what the example shows.
  async take(example, chosen = {}) {
    clearTimeout(this.timer);
    [this.fields[0].value, this.fields[1].value] = [example.text, example.pair ?? ""];
    const tokens = this.model.encode(example.text, example.pair).tokens;
    const masked = example.mask ? tokens.indexOf(example.mask) : -1;
    const choice = { masked: masked >= 0 ? masked : null, token: Math.max(0, tokens.indexOf(example.token ?? example.mask)), shared: example.compare ?? null };
    if (example.layer) Object.assign(choice, { layer: example.layer - 1, head: example.head - 1 });
    await this.update({ ...choice, ...chosen });
  }

  // Not at every key: what is typed quickly is computed once.
  later() {
    clearTimeout(this.timer);
    this.select.value = "";
    this.timer = setTimeout(() => this.update(), 200);
  }

  async update(choice = {}) {
    try {
      await this.compute(choice);
    } catch (error) {
      this.message.textContent = error.message ?? String(error);
    }
  }

  // `choice`: what an example shows. Without one a masked token stays masked while it stands at the same place.
  async compute(choice) {
    const number = (this.number = (this.number ?? 0) + 1);
    const [text, pair] = this.fields.map((field) => field.value.trim());
    const { ids, tokens } = this.model.encode(text, pair);
    const empty = [text, pair].some((part) => part && this.model.encode(part).ids.every((id) => this.model.special.has(id)));
    if (!text || empty) return (this.message.textContent = this.say("empty"));
    if (ids.length > LONGEST) return (this.message.textContent = this.say("too_long", { n: ids.length, most: LONGEST }));
    let masked = choice.masked ?? null;
    if (choice.masked === undefined) {
      masked = this.view.masked;
      if (masked !== null && tokens[masked] !== this.view.data.tokens[masked]) masked = null;
    }
    const numbers = await this.model.inspect(text, pair, masked, this.weights);
    if (number !== this.number) return;
    this.view.show(numbers, { ...choice, masked });
    const { ms, difference } = await this.model.facts(text, pair, this.weights);
    if (number !== this.number) return;
    const values = { name: this.weights.toUpperCase(), size: megabytes(this.model.sizes[this.weights]), ms: ms.toFixed(1), difference: difference.toFixed(2) };
    this.message.textContent = this.say(this.weights === "fp32" ? "facts_alone" : "facts", values);
  }
}

for (const host of document.querySelectorAll(".bert-view[data-live]")) {
  if (host.bertcourseView) new Live(host).offer().catch(() => {}); // without the files the stored picture stands as it is
}

globalThis.bertcourseLive = { load: () => (loading ??= Model.load(() => {}, () => {})) };
