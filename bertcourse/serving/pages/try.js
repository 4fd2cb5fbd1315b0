"use strict";

const WORDS = {
  en: { text: "Text", text_pair: "Second text", question: "Question", context: "Passage", go: "Ask the model", docs: "How to call it",
    token: "Token", other: "中文", waiting: "…", cut: "A part of the text was cut off before the model saw it.", none: "The passage holds no answer.",
    nothing: "No entity was found.", away: "The service does not answer.", task: "task", lang: "language", longest: "longest input", pieces: "pieces",
    sure: "probability", took: "ms", optional: "(optional)" },
  zh: { text: "文本", text_pair: "第二段文本", question: "问题", context: "段落", go: "问一问模型", docs: "如何调用",
    token: "令牌", other: "English", waiting: "…", cut: "文本有一部分被截掉，模型没有看到。", none: "段落里没有答案。",
    nothing: "没有找到实体。", away: "服务没有应答。", task: "任务", lang: "语言", longest: "最长输入", pieces: "个子词",
    sure: "概率", took: "毫秒", optional: "（可不填）" },
};
const EXAMPLES = {
  en: { text: "The music was not very good.", text_pair: "I did not enjoy the concert.", ner: "Mary went to Paris in May.",
    question: "Where did Mary go?", context: "Mary went to Paris. Tom stayed at home." },
  zh: { text: "音乐不太好。", text_pair: "我不喜欢这场音乐会。", ner: "小红五月去了北京。",
    question: "小红去了哪里？", context: "小红去了北京。小明留在家里。" },
};
const SVG = "http://www.w3.org/2000/svg";
const at = (id) => document.getElementById(id);
let lang = (localStorage.getItem("lang") || navigator.language || "en").toLowerCase().startsWith("zh") ? "zh" : "en";
let model = null;
let last = null;

function make(name, properties, ...children) {
  const made = document.createElement(name);
  Object.assign(made, properties || {});
  made.append(...children);
  return made;
}

function bar(share, best) {
  const drawn = document.createElementNS(SVG, "svg");
  drawn.setAttribute("aria-hidden", "true");
  for (const [kind, width] of [["track", 100], ["bar" + (best ? " best" : ""), 100 * share]]) {
    const rect = document.createElementNS(SVG, "rect");
    for (const [key, value] of [["class", kind], ["width", width + "%"], ["height", "100%"], ["rx", 3]]) rect.setAttribute(key, value);
    drawn.append(rect);
  }
  return drawn;
}

const percent = (p) => (100 * p).toFixed(1) + " %";

function bars(said) {
  const rows = Object.entries(said.scores).sort((a, b) => b[1] - a[1]).slice(0, 12);
  const drawn = make("div", { className: "bars" });
  for (const [label, p] of rows) {
    const best = label === said.label;
    drawn.append(make("span", { className: "label" + (best ? " best" : ""), textContent: label }), bar(p, best),
      make("span", { className: "number", textContent: percent(p) }));
  }
  return drawn;
}

// Places count Unicode code points, JavaScript's strings do not.
function marked(text, spans, kinds) {
  const points = Array.from(text);
  const shown = make("div", { className: "shown" });
  let end = 0;
  for (const span of spans) {
    shown.append(points.slice(end, span.start).join(""));
    const mark = make("mark", { className: "k" + (Math.max(0, kinds.indexOf(span.label)) % 6), title: percent(span.probability) },
      points.slice(span.start, span.end).join(""));
    if (span.label) mark.append(make("small", { textContent: span.label }));
    shown.append(mark);
    end = span.end;
  }
  shown.append(points.slice(end).join(""));
  return shown;
}

// What a model tells apart: of B-PER and I-PER, PER.
function kinds() {
  return [...new Set(model.labels.map((label) => (model.task === "ner" ? label.replace(/^[BI]-/, "") : label)))].filter(
    (label) => model.task !== "ner" || label !== "O");
}

function show() {
  const words = WORDS[lang];
  at("answer").replaceChildren();
  if (!last) return;
  const { said, given } = last;
  if ("scores" in said) at("answer").append(bars(said));
  else if ("score" in said) at("answer").append(make("p", { className: "big", textContent: said.score.toFixed(3) }));
  else if ("spans" in said) {
    at("answer").append(marked(given.text, said.spans, kinds()));
    if (!said.spans.length) at("answer").append(make("p", { className: "note", textContent: words.nothing }));
  } else {
    const found = said.start === null ? [] : [{ label: "", start: said.start, end: said.end, probability: said.probability }];
    at("answer").append(marked(given.context, found, []));
    at("answer").append(make("p", { className: "note", textContent: (found.length ? "" : words.none + " ") + words.sure + " " + percent(said.probability) }));
  }
  if (said.truncated) at("answer").append(make("p", { className: "note", textContent: words.cut }));
}

function speak() {
  const words = WORDS[lang];
  document.documentElement.lang = lang;
  at("go").textContent = words.go;
  at("switch").textContent = words.other;
  at("docs").textContent = words.docs;
  at("docs").href = "/docs?lang=" + lang;
  document.querySelector("#secret label").textContent = words.token;
  for (const label of document.querySelectorAll("#fields label")) {
    label.textContent = words[label.dataset.name] + (label.dataset.optional ? " " + words.optional : "");
  }
  if (model) {
    const parts = [words.task + " " + model.task, words.longest + " " + model.max_length + " " + words.pieces];
    if (kinds().length && kinds().length <= 12) parts.splice(1, 0, kinds().join(" · "));
    at("about").textContent = parts.join(lang === "zh" ? "，" : ", ");
  }
  show();
}

function tell(text, bad) {
  at("status").textContent = text;
  at("status").className = bad ? "bad" : "";
}

async function call(path, options) {
  const headers = { "Content-Type": "application/json" };
  if (at("token").value) headers.Authorization = "Bearer " + at("token").value;
  const answer = await fetch(path, { ...options, headers });
  const said = await answer.json();
  if (answer.status === 401) at("secret").hidden = false;
  if (!answer.ok) throw new Error(said.error.message);
  return said;
}

async function load() {
  model = await call("/model");
  document.title = model.name;
  at("name").textContent = model.name;
  const example = EXAMPLES[model.language === "zh" ? "zh" : "en"];
  for (const [names, optional] of [[model.fields.required, false], [model.fields.optional, true]]) {
    for (const name of names) {
      const label = make("label", { htmlFor: name });
      label.dataset.name = name;
      if (optional) label.dataset.optional = "yes";
      at("fields").append(label, make(name === "question" ? "input" : "textarea", { id: name, value: optional ? "" : example[model.task === "ner" ? "ner" : name] }));
    }
  }
}

async function ask(event) {
  event.preventDefault();
  at("go").disabled = true;
  tell(WORDS[lang].waiting);
  const begin = performance.now();
  try {
    if (!model) await load();
    const given = {};
    for (const name of [...model.fields.required, ...model.fields.optional]) {
      if (at(name).value || model.fields.required.includes(name)) given[name] = at(name).value;
    }
    const said = (await call("/predict", { method: "POST", body: JSON.stringify(given) })).predictions[0];
    last = { said, given };
    tell(Math.round(performance.now() - begin) + " " + WORDS[lang].took);
  } catch (error) {
    last = null;
    tell(error instanceof TypeError ? WORDS[lang].away : error.message, true);
  }
  at("go").disabled = false;
  speak();
}

at("form").addEventListener("submit", ask);
at("switch").addEventListener("click", () => {
  lang = lang === "zh" ? "en" : "zh";
  localStorage.setItem("lang", lang);
  speak();
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) at("form").requestSubmit();
});
speak();
load().catch((error) => tell(error instanceof TypeError ? WORDS[lang].away : error.message, true)).finally(speak);
