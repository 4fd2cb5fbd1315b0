// Draws what happens inside a BERT: tokens, embeddings, attention, hidden states, predictions where a word is masked.
// It only draws: the numbers come with the page (`bertcourse.plots.attention_view`) or from the model in the browser (live.js).
(() => {
  "use strict"; // each output brings its own version: it is mounted right after its own script

  const SVG = "http://www.w3.org/2000/svg";
  const fill = (text, values = {}) => text.replace(/\{(\w+)\}/g, (whole, name) => values[name] ?? whole);
  const shown = (value) => value.toFixed(2);
  const percent = (value) => (100 * value).toFixed(1) + "%";

  function make(tag, attributes = {}, ...children) {
    return put(document.createElement(tag), attributes, children);
  }

  function draw(tag, attributes = {}, ...children) {
    return put(document.createElementNS(SVG, tag), attributes, children);
  }

  function put(element, attributes, children) {
    for (const [name, value] of Object.entries(attributes)) {
      if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
      else if (value !== null && value !== undefined) element.setAttribute(name, value);
    }
    element.append(...children);
    return element;
  }

  // Arrow keys move inside a group of buttons, of which one can be reached by Tab.
  function rove(group, buttons, columns, current) {
    buttons.forEach((button, i) => (button.tabIndex = i === current ? 0 : -1));
    group.addEventListener("keydown", (event) => {
      if (event.altKey || event.ctrlKey || event.metaKey) return; // the browser's own
      const at = buttons.indexOf(group.getRootNode().activeElement);
      const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns }[event.key];
      const to = event.key === "Home" ? 0 : event.key === "End" ? buttons.length - 1 : at + step;
      if (at < 0 || !(to >= 0 && to < buttons.length)) return;
      event.preventDefault();
      buttons.forEach((button) => (button.tabIndex = -1));
      buttons[to].tabIndex = 0;
      buttons[to].focus();
    });
  }

  class View {
    constructor(host, css, words) {
      this.words = words;
      this.root = host.shadowRoot ?? host.attachShadow({ mode: "open" });
      this.controls = make("div", { class: "controls" });
      this.body = make("div", { class: "body" });
      this.readout = make("p", { class: "readout", "aria-live": "polite" }); // one for all: a new one would not be read aloud
      this.said = make("p", { class: "unseen", "aria-live": "polite" });
      this.probe = make("span", { class: "probe" }); // its colour is that of weights, mixed with the page's ink
      this.root.replaceChildren(make("style", {}, css), this.controls, this.body, this.said, this.probe);
      this.onMask = null;
      this.layer = this.head = this.token = this.mapLayer = 0;
      this.masked = this.shared = null;
    }

    say(name, values) {
      return fill(this.words[name], values);
    }

    // Show other numbers. What was chosen (layer, head, token) stays chosen where it still exists; `choice` chooses anew.
    show(data, choice = {}) {
      const changed = !this.data || this.data.tokens.join(" ") !== data.tokens.join(" ");
      this.parts = data.parts ?? this.parts;
      this.data = data;
      Object.assign(this, choice);
      this.layers = data.attention.length;
      this.heads = data.attention[0].length;
      if (changed && data.layer) [this.layer, this.head] = [data.layer - 1, data.head - 1];
      this.layer = Math.min(this.layer, this.layers - 1);
      this.head = Math.min(this.head, this.heads - 1);
      this.token = Math.min(changed && data.token !== undefined ? data.token : this.token, data.tokens.length - 1);
      if (changed || this.mapLayer > this.layers) this.mapLayer = this.layers;
      if (changed && !this.onMask) this.masked = data.masked ?? null;
      if (data.map && !(this.shared in data.map.cosines)) this.shared = data.map.word ?? Object.keys(data.map.cosines)[0] ?? null;
      this.render();
    }

    render() {
      const focused = this.root.activeElement?.dataset.key;
      const draw = { input: this.inputPart, masked: this.maskPart, attention: this.attentionPart, states: this.statesPart, next: this.nextPart };
      const wanted = Object.keys(draw).filter((name) => !this.parts || this.parts.includes(name));
      this.body.replaceChildren(...wanted.map((name) => draw[name].call(this)).filter(Boolean));
      this.markToken();
      if (focused) this.root.querySelector(`[data-key="${focused}"]`)?.focus();
    }

    section(name, ...children) {
      return make("section", { "aria-label": this.words[name], class: name }, make("div", { class: "title" }, this.words[name]), ...children);
    }

    // What the model was given at a place: in the browser a masked token is [MASK].
    label(i) {
      return this.onMask && this.masked === i ? "[MASK]" : this.data.tokens[i];
    }

    // --- input ---------------------------------------------------------------------------------------------------

    inputPart() {
      const { tokens, ids, segments } = this.data;
      const buttons = tokens.map((token, i) => {
        const special = this.data.special[i];
        const button = make("button", {
          type: "button", class: `token segment${segments[i]}${special ? " special" : ""}`, "data-key": `token${i}`, "data-token": i,
          "aria-pressed": this.masked === i, onclick: () => this.mask(i), onfocus: () => this.choose(i), onpointerenter: () => this.choose(i),
        });
        const hidden = (text) => make("i", { class: "unseen" }, text); // for those who hear it: the row's names are not read with it
        button.append(make("span", {}, this.label(i), hidden(this.label(i) === token ? ", " : `, ${token}, `)));
        for (const [name, value] of [["id", ids[i]], ["segment", segments[i]], ["position", i]]) {
          button.append(make("span", {}, hidden(`${this.words[name]} `), String(value), hidden(name === "position" ? "" : ", ")));
        }
        return button;
      });
      const names = make("div", { class: "names", "aria-hidden": "true" });
      names.append(...["token", "id", "segment", "position"].map((name) => make("span", {}, this.words[name])));
      const row = make("div", { class: "tokens", role: "group", "aria-label": this.words.input }, names, ...buttons);
      rove(row, buttons, buttons.length, this.token);
      const help = make("p", { class: "help" }, this.data.predictions || this.onMask ? this.words.input_help : this.words.input_only);
      if (this.data.predictions && !this.onMask) help.append(" ", this.words.stored);
      return this.section("input", help, row, this.sumPart());
    }

    // A token that is masked by a click is shown again by a second one.
    mask(i) {
      if (this.data.special[i] && this.masked !== i) return;
      this.masked = this.masked === i ? null : i;
      this.choose(i);
      if (this.onMask) this.onMask(this.masked);
      else this.render();
    }

    choose(i) {
      if (this.token === i) return;
      this.token = i;
      this.markToken();
    }

    // What belongs to the chosen token, without drawing the rest anew.
    markToken() {
      for (const element of this.root.querySelectorAll("[data-token]")) element.classList.toggle("chosen", Number(element.dataset.token) === this.token);
      for (const line of this.root.querySelectorAll(".lines line")) line.classList.toggle("away", Number(line.dataset.from) !== this.token);
      this.sayWeight(this.token, this.largest(this.token));
      const strips = this.root.querySelector(".strips");
      if (strips) strips.replaceWith(this.strips());
    }

    sumPart() {
      const data = this.data;
      if (!data.embeddings) return "";
      const note = this.say("strips", { n: data.embeddings.word[0].length, h: data.width });
      return make("details", { class: "sum", ...(this.sumOpen ? { open: "" } : {}), ontoggle: (event) => (this.sumOpen = event.target.open) },
        make("summary", {}, this.words.sum), this.strips(), make("p", { class: "help" }, note));
    }

    strips() {
      const { word, position, segment, normed } = this.data.embeddings;
      const at = this.token;
      const added = word[at].map((value, i) => value + position[at][i] + segment[at][i]);
      const rows = { word: word[at], positions: position[at], segments: segment[at], added, normed: normed[at] };
      const figure = make("div", { class: "strips", role: "img", "aria-label": `${this.words.sum}: ${this.data.tokens[at]}` });
      for (const [name, values] of Object.entries(rows)) figure.append(make("span", {}, this.words[name]), this.strip(values));
      return figure;
    }

    // Numbers as coloured squares: one colour above zero, another below.
    strip(values) {
      const largest = Math.max(...values.map(Math.abs)) || 1;
      const squares = values.map((value, i) => draw("rect", {
        x: i, y: 0, width: 1, height: 6, class: value < 0 ? "below" : "above", "fill-opacity": Math.abs(value) / largest,
      }));
      const range = make("span", { class: "range" }, `±${shown(largest)}`);
      return make("span", { class: "strip" }, draw("svg", { viewBox: `0 0 ${values.length} 6`, preserveAspectRatio: "none" }, ...squares), range);
    }

    // --- attention -----------------------------------------------------------------------------------------------

    attentionPart() {
      const weights = this.data.attention[this.layer][this.head];
      const names = { l: this.layer + 1, h: this.head + 1 };
      const chosen = make("p", { class: "head" }, this.say("head", names));
      const lines = make("div", { class: "scroll", tabindex: 0, role: "group", "aria-label": this.words.lines }, this.lines(weights));
      return this.section("attention", make("div", { class: "pair" },
        make("div", { class: "choice" }, make("p", { class: "help" }, this.words.choose_head), this.headGrid()), make("div", {}, chosen, lines),
        make("div", { class: "scroll" }, this.heatMap(weights), this.scale())), this.readout, make("p", { class: "help" }, this.words.lines, " ", this.words.read_help));
    }

    scale() {
      return make("p", { class: "scale", "aria-hidden": "true" }, "0", make("span"), "1 ", this.words.weight);
    }

    headGrid() {
      const buttons = [];
      const grid = make("div", { class: "heads", role: "group", "aria-label": this.words.choose_head, style: `--heads:${this.heads}` });
      const colour = getComputedStyle(this.probe).color;
      grid.append(make("span"), ...this.data.attention[0].map((_, h) => make("span", { "aria-hidden": "true" }, String(h + 1))));
      this.data.attention.forEach((heads, l) => heads.forEach((weights, h) => {
        if (h === 0) grid.append(make("span", { "aria-hidden": "true" }, String(l + 1)));
        const chosen = l === this.layer && h === this.head;
        const button = make("button", {
          type: "button", "data-key": `head${l}.${h}`, "aria-pressed": chosen, "aria-label": this.say("head", { l: l + 1, h: h + 1 }),
          title: this.say("head", { l: l + 1, h: h + 1 }), onclick: () => { [this.layer, this.head] = [l, h]; this.render(); },
        }, thumbnail(weights, colour));
        buttons.push(button);
        grid.append(button);
      }));
      rove(grid, buttons, this.heads, this.layer * this.heads + this.head);
      return make("div", { class: "scroll" }, grid);
    }

    lines(weights) {
      const tokens = this.data.tokens.map((_, i) => this.label(i));
      const edge = 14 + 8 * Math.min(10, Math.max(...tokens.map(width)));
      const [step, left, right] = [24, edge, edge + 110];
      const figure = draw("svg", { class: "lines", width: right + edge, height: tokens.length * step, role: "img",
        "aria-label": this.say("head", { l: this.layer + 1, h: this.head + 1 }) });
      weights.forEach((row, i) => row.forEach((weight, j) => {
        if (weight < 0.02) return;
        figure.append(draw("line", { x1: left + 6, y1: (i + 0.5) * step, x2: right - 6, y2: (j + 0.5) * step, "data-from": i,
          "stroke-width": 0.5 + 4 * weight, "stroke-opacity": 0.15 + 0.85 * weight }));
      }));
      tokens.forEach((token, i) => {
        const point = { onpointerenter: () => this.choose(i), "data-token": i };
        figure.append(draw("text", { x: left, y: (i + 0.7) * step, "text-anchor": "end", ...point }, token));
        figure.append(draw("text", { x: right, y: (i + 0.7) * step, "text-anchor": "start" }, token));
      });
      return figure;
    }

    heatMap(weights) {
      const tokens = this.data.tokens.map((_, i) => this.label(i));
      const n = tokens.length;
      const labels = 14 + 8 * Math.min(9, Math.max(...tokens.map(width)));
      const edge = labels + 18;
      const cell = this.cellSize(n, edge, labels);
      const figure = draw("svg", { class: "heat", width: edge + n * cell + 4, height: edge + n * cell + 4, tabindex: 0, role: "application", "data-key": "heat", style: `font-size: ${Math.min(13, cell)}px`,
        "aria-label": this.say("heat", { l: this.layer + 1, h: this.head + 1 }) });
      figure.append(draw("text", { class: "axis", x: edge + (n * cell) / 2, y: 12, "text-anchor": "middle" }, this.words.to));
      figure.append(draw("text", { class: "axis", transform: `translate(12 ${edge + (n * cell) / 2}) rotate(-90)`, "text-anchor": "middle" }, this.words.from));
      tokens.forEach((token, i) => {
        const middle = edge + (i + 0.5) * cell;
        figure.append(draw("text", { x: edge - 5, y: middle + 4, "text-anchor": "end", "data-token": i }, token));
        figure.append(draw("text", { transform: `translate(${middle + 4} ${edge - 5}) rotate(-90)` }, token));
      });
      weights.forEach((row, i) => row.forEach((weight, j) => {
        const [x, y] = [edge + j * cell, edge + i * cell];
        figure.append(draw("rect", { x, y, width: cell, height: cell, "fill-opacity": weight, onpointerenter: () => this.read(figure, i, j) }));
        if (cell >= 32) figure.append(draw("text", { x: x + cell / 2, y: y + cell / 2 + 4, class: weight > 0.55 ? "value strong" : "value" }, shown(weight)));
      }));
      figure.append(draw("rect", { class: "cursor", width: cell, height: cell, visibility: "hidden" }));
      this.place = { edge, cell, at: null };
      figure.addEventListener("keydown", (event) => this.moveCursor(event, figure, n));
      return figure;
    }

    // As large as the room beside the heads and lines allows, or below them.
    cellSize(n, edge, labels) {
      const room = this.body.clientWidth || 900;
      const beside = room - 215 - (2 * labels + 110) - 50;
      const fits = (width) => (width - edge - 8) / n;
      return Math.max(11, Math.min(32, Math.floor(fits(beside) >= 16 ? fits(beside) : fits(room))));
    }

    moveCursor(event, figure, n) {
      const step = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] }[event.key];
      if (!step || event.altKey || event.ctrlKey || event.metaKey) return;
      event.preventDefault();
      const [i, j] = this.place.at ? [this.place.at[0] + step[0], this.place.at[1] + step[1]] : [0, 0];
      this.read(figure, Math.min(n - 1, Math.max(0, i)), Math.min(n - 1, Math.max(0, j)));
    }

    read(figure, i, j) {
      const { edge, cell } = this.place;
      this.place.at = [i, j];
      const cursor = figure.querySelector(".cursor");
      for (const [name, value] of Object.entries({ x: edge + j * cell, y: edge + i * cell, visibility: "visible" })) cursor.setAttribute(name, value);
      this.choose(i);
      this.sayWeight(i, j);
    }

    // Where a token's largest weight goes.
    largest(i) {
      const row = this.data.attention[this.layer][this.head][i];
      return row.indexOf(Math.max(...row));
    }

    sayWeight(i, j) {
      const weight = this.data.attention[this.layer][this.head][i][j];
      this.readout.textContent = this.say("readout", { l: this.layer + 1, h: this.head + 1, a: this.label(i), b: this.label(j), w: weight.toFixed(3) });
    }

    // --- masked word, next sentence ------------------------------------------------------------------------------

    maskPart() {
      if (!this.data.predictions) return null;
      const found = this.masked !== null && this.data.predictions[this.masked];
      if (!found) return this.section("masked", make("p", { class: "help" }, this.words.choose));
      const said = found.top.map(([name, value]) => `${name} ${percent(value)}`).join(", ");
      if (this.said.textContent !== said) this.said.textContent = said;
      const literal = found.token === "[MASK]";
      const title = this.say(literal ? "predictions_here" : "predictions", { w: found.token, p: this.masked });
      const was = literal ? "" : make("p", { class: "help" }, this.say("was", { w: found.token, p: percent(found.probability) }));
      return this.section("masked", make("p", {}, title), bars(found.top), was);
    }

    nextPart() {
      if (this.data.next === null || this.data.next === undefined) return null;
      return this.section("next", make("p", { class: "help" }, this.words.next_text), bars([["", this.data.next]]));
    }

    // --- hidden states -------------------------------------------------------------------------------------------

    statesPart() {
      const map = this.data.map;
      if (!map) return null;
      const [help, name, figure] = [make("p", { class: "help" }), make("span"), make("div", { class: "plane" })];
      const slider = make("input", { type: "range", min: 0, max: this.layers, value: this.mapLayer, "data-key": "map", "aria-label": this.words.layers });
      const redraw = () => { // not the slider: it would be lost under the pointer
        const where = this.mapLayer ? this.say("layer_name", { l: this.mapLayer }) : this.words.layer_zero;
        help.textContent = `${this.say("map", { where, share: percent(map.share[this.mapLayer]) })} ${this.words.map_help}`;
        name.textContent = this.say("layer", { l: this.mapLayer });
        slider.setAttribute("aria-valuetext", where);
        figure.replaceChildren(this.scatter(map));
      };
      slider.addEventListener("input", () => { this.mapLayer = Number(slider.value); redraw(); });
      redraw();
      const legend = map.tokens[1].length ? [make("span", { class: "first" }, "● ", this.words.first), make("span", { class: "second" }, "■ ", this.words.second)] : [];
      return this.section("states", help, make("p", { class: "legend" }, make("label", {}, name, slider), ...legend),
        make("div", { class: "pair" }, figure, this.cosinePart(map)));
    }

    scatter(map) {
      const points = map.points[this.mapLayer];
      const tokens = map.tokens.flat();
      const [w, h] = [420, 300];
      const place = fit(points, w, h);
      const figure = draw("svg", { class: "map", viewBox: `0 0 ${w} ${h}`, role: "img", "aria-label": this.words.states });
      const twins = [map.tokens[0].indexOf(this.shared), map.tokens[1].indexOf(this.shared)];
      const ends = Math.min(...twins) < 0 ? [] : [twins[0], map.tokens[0].length + twins[1]];
      if (ends.length) {
        const [a, b] = ends.map((i) => place[i]);
        figure.append(draw("line", { x1: a[0], y1: a[1], x2: b[0], y2: b[1] }));
      }
      const labels = labelPlaces(place, tokens, ends, w, h);
      place.forEach(([x, y], i) => {
        const kind = i < map.tokens[0].length ? "first" : "second";
        const mark = kind === "first" ? draw("circle", { cx: x, cy: y, r: 4.5 }) : draw("rect", { x: x - 4, y: y - 4, width: 8, height: 8 });
        const group = draw("g", { class: `${kind}${ends.includes(i) ? " twin" : ""}` }, draw("title", {}, tokens[i]), mark);
        if (labels[i]) group.append(draw("text", labels[i], tokens[i]));
        figure.append(group);
      });
      return figure;
    }

    cosinePart(map) {
      if (!map.tokens[1].length) return make("p", { class: "help" }, this.words.need_pair);
      const shared = Object.keys(map.cosines);
      if (!shared.length) return make("p", { class: "help" }, this.words.no_shared);
      const options = shared.map((word) => make("option", { value: word, ...(word === this.shared ? { selected: "" } : {}) }, word));
      const select = make("select", { "data-key": "shared", "aria-label": this.words.compare, onchange: (event) => { this.shared = event.target.value; this.render(); } }, ...options);
      const rows = map.cosines[this.shared].map((value, layer) => [this.say("layer", { l: layer }), value]);
      return make("div", { class: "cosines" }, make("label", {}, this.words.compare, " ", select), make("p", {}, this.say("cosine", { w: this.shared })), bars(rows, shown));
    }
  }

  // Points with the same scale in both directions, as large as the figure allows.
  function fit(points, w, h) {
    const [low, high] = [Math.min, Math.max].map((end) => [0, 1].map((axis) => end(...points.map((point) => point[axis]))));
    const scale = Math.min((w - 90) / (high[0] - low[0] || 1), (h - 50) / (high[1] - low[1] || 1));
    const middle = [0, 1].map((axis) => (low[axis] + high[axis]) / 2);
    return points.map(([x, y]) => [w / 2 + (x - middle[0]) * scale, h / 2 - (y - middle[1]) * scale]);
  }

  // A place for each label that covers no other one; none where there is no room. The compared tokens come first.
  function labelPlaces(place, tokens, first, w, h) {
    const taken = place.map(([x, y]) => [x - 5, y - 5, x + 5, y + 5]);
    const labels = [];
    for (const i of [...first, ...tokens.keys()]) {
      if (labels[i]) continue;
      const [x, y] = place[i];
      const size = 7 * width(tokens[i]);
      const beside = [[x + 8, y + 4, "start"], [x - 8, y + 4, "end"]];
      const across = [[x, y - 8, "middle"], [x, y + 17, "middle"]];
      const choices = first.includes(i) ? [...across, ...beside] : [...beside, ...across]; // beside the compared ones there is a line
      for (const [tx, ty, anchor] of choices) {
        const left = anchor === "start" ? tx : anchor === "end" ? tx - size : tx - size / 2;
        const box = [left, ty - 10, left + size, ty + 2];
        const inside = box[0] >= 0 && box[2] <= w && box[1] >= 0 && box[3] <= h;
        if (!inside || taken.some((other) => box[0] < other[2] && box[2] > other[0] && box[1] < other[3] && box[3] > other[1])) continue;
        taken.push(box);
        labels[i] = { x: tx, y: ty, "text-anchor": anchor };
        break;
      }
    }
    return labels;
  }

  const width = (text) => [...text].reduce((sum, sign) => sum + (sign.codePointAt(0) > 0x2e7f ? 1.7 : 1), 0);

  function bars(rows, text = percent) {
    const table = make("div", { class: "bars", role: "list" });
    for (const [name, value] of rows) {
      const bar = make("span", { class: "bar", "aria-hidden": "true", style: `--share:${Math.max(0, value)}` });
      table.append(make("div", { role: "listitem" }, make("span", { class: "name" }, name), bar, make("span", { class: "number" }, text(value))));
    }
    return table;
  }

  function thumbnail(weights, colour) {
    const n = weights.length;
    const canvas = make("canvas", { width: n, height: n, "aria-hidden": "true" });
    const context = canvas.getContext("2d");
    context.fillStyle = colour;
    weights.forEach((row, i) => row.forEach((weight, j) => {
      context.globalAlpha = weight;
      context.fillRect(j, i, 1, 1);
    }));
    return canvas;
  }

  // The view in an element. `words`: what it says, in one language (words.toml).
  function mount(host, data, css, words) {
    const view = new View(host, css, words);
    view.show(data);
    host.replaceChildren(); // the table for readers without scripts
    host.bertcourseView = view;
    watch(host, view);
    return view;
  }

  // Draw again where the page turned dark or light, or the width changed. A view that was taken off the page is forgotten.
  function watch(host, view) {
    let [colour, width] = [getComputedStyle(host).color, view.body.clientWidth];
    const look = () => {
      if (!host.isConnected) return [colours, sizes].forEach((observer) => observer.disconnect());
      const now = [getComputedStyle(host).color, view.body.clientWidth];
      if (now[0] === colour && Math.abs(now[1] - width) <= 20) return;
      [colour, width] = now;
      view.render();
    };
    const [colours, sizes] = [new MutationObserver(look), new ResizeObserver(look)];
    sizes.observe(host);
    for (const element of [document.documentElement, document.body]) {
      colours.observe(element, { attributes: true, attributeFilter: ["class", "data-jp-theme-light", "data-bs-theme"] });
    }
  }

  globalThis.bertcourseView = { mount, make, fill };
})();
