// Curves of any recipes in one chart. Their points are those of the charts in the articles.
{
  const section = $("#curves");
  const plot = $(".plot", section);
  const [LEFT, RIGHT, TOP, BOTTOM, MOST] = [56, 14, 12, 28, 24];
  const stored = () => { try { return JSON.parse(sessionStorage.getItem("curves")) || {}; } catch { return {}; } };
  const state = { picked: null, curve: "mean", along: "step", smooth: 0, log: false, ...stored() };
  let zoom = null; // the shown section of the horizontal axis, null for the whole
  let reading = null; // position of the line of reading
  let drawn = null; // the newest drawing: curves, ends of both axes

  const keep = () => { try { sessionStorage.setItem("curves", JSON.stringify(state)); } catch { /* no storage: until the page is closed */ } };
  const cards = () => $$(".card").filter((card) => $(".spark", card));
  const short = (value) => (value === 0 ? "0" : Math.abs(value) < 0.001 ? value.toExponential(2).replace(/\.?0+e/, "e") : String(Number(value.toPrecision(4))));

  const points = (name) => {
    for (const svg of $$(`#${CSS.escape(`loss-${name}`)} [data-chart]`)) {
      const data = svg.chartData || (svg.chartData = JSON.parse(svg.dataset.chart));
      const curve = data.curves.find((each) => each.label === state.curve);
      const last = data.x[1];
      if (curve) return curve.points.map(([x, y]) => [state.along === "share" ? (x / last) * 100 : x, y]);
    }
    return [];
  };
  // Exponential moving average without the bias of its beginning; gaps of thinned curves count by their length.
  const smoothed = (raw) => {
    if (!state.smooth || raw.length < 3) return raw;
    const mean = (raw.at(-1)[0] - raw[0][0]) / (raw.length - 1) || 1;
    let [sum, weight] = [0, 0];
    return raw.map(([x, y], number) => {
      const keeps = (state.smooth / 100) ** (number ? (x - raw[number - 1][0]) / mean : 1);
      [sum, weight] = [sum * keeps + y * (1 - keeps), weight * keeps + (1 - keeps)];
      return [x, sum / weight];
    });
  };
  const ticks = (low, high, count) => {
    if (!(high > low)) return [low];
    const power = 10 ** Math.floor(Math.log10((high - low) / count));
    const step = [1, 2, 2.5, 5, 10].map((factor) => factor * power).find((each) => each >= ((high - low) / count) * 0.999);
    const first = Math.ceil(low / step - 1e-9);
    return Array.from({ length: Math.floor(high / step + 1e-9) - first + 1 }, (_, number) => Number(((first + number) * step).toPrecision(12)));
  };
  const at = (curve, x) => curve.line.reduce((best, point) => (Math.abs(point[0] - x) < Math.abs(best[0] - x) ? point : best));

  const draw = () => {
    const chosen = cards().filter((card) => state.picked.includes(card.dataset.name));
    const curves = chosen
      .map((card) => ({ name: card.dataset.name, look: card.dataset.look, raw: points(card.dataset.name) }))
      .filter((curve) => curve.raw.length)
      .map((curve) => ({ ...curve, line: smoothed(curve.raw) }));
    const [width, height] = [Math.max(280, plot.clientWidth), plot.clientWidth < 600 ? 260 : 380];
    const svg = element("svg", { class: "chart", viewBox: `0 0 ${width} ${height}`, role: "img" });
    plot.replaceChildren(svg);
    const title = $("[data-set=curve]", section).selectedOptions[0].text;
    if (!curves.length) {
      drawn = null;
      const text = chosen.length ? `No chosen recipe has a ${title}.` : "Choose recipes below.";
      svg.append(element("text", { class: "missing", x: width / 2, y: height / 2, "text-anchor": "middle" }, text));
      svg.setAttribute("aria-label", text);
      readout();
      return;
    }
    const xs = curves.flatMap((curve) => [curve.raw[0][0], curve.raw.at(-1)[0]]);
    const whole = [Math.min(...xs), Math.max(...xs)];
    const [left, right] = zoom || whole;
    const shown = curves.flatMap((curve) => curve.line.filter(([x]) => x >= left && x <= right)).map(([, y]) => y);
    const logs = state.log && shown.length > 0 && Math.min(...shown) > 0;
    const scale = logs ? Math.log10 : (value) => value;
    let [low, high] = shown.length ? [scale(Math.min(...shown)), scale(Math.max(...shown))] : [0, 1];
    const pad = (high - low) * 0.06 || Math.abs(high) * 0.1 || 1;
    [low, high] = [logs || low < 0 ? low - pad : Math.max(0, low - pad), high + pad];
    const xAt = (value) => LEFT + ((value - left) / (right - left || 1)) * (width - LEFT - RIGHT);
    const yAt = (value) => TOP + ((high - scale(value)) / (high - low)) * (height - TOP - BOTTOM);
    for (const mark of ticks(low, high, 5)) {
      const value = logs ? 10 ** mark : mark;
      svg.append(element("line", { class: "grid", x1: LEFT, x2: width - RIGHT, y1: yAt(value), y2: yAt(value) }));
      svg.append(element("text", { x: LEFT - 6, y: yAt(value) + 4, "text-anchor": "end" }, short(logs ? Number(value.toPrecision(3)) : value)));
    }
    for (const value of ticks(left, right, Math.max(3, width / 110))) {
      svg.append(element("text", { x: xAt(value), y: height - 8, "text-anchor": "middle" }, state.along === "share" ? `${value} %` : String(value)));
    }
    const clip = element("clipPath", { id: "plot-clip" });
    clip.append(element("rect", { x: LEFT - 4, y: 0, width: width - LEFT - RIGHT + 8, height: height - BOTTOM }));
    const inside = element("g", { "clip-path": "url(#plot-clip)" });
    const path = (line) => line.map(([x, y]) => `${xAt(x).toFixed(1)},${yAt(y).toFixed(1)}`).join(" ");
    for (const curve of curves) {
      if (state.smooth && curves.length <= 6) inside.append(element("polyline", { class: `curve raw ${curve.look}`, points: path(curve.raw.filter(([, y]) => !logs || y > 0)) }));
    }
    for (const curve of curves) {
      inside.append(element("polyline", { class: `curve ${curve.look}`, points: path(curve.line), "data-name": curve.name }));
      for (const [x, y] of curve.line.length < 40 ? curve.line : []) inside.append(element("circle", { class: `dot ${curve.look}`, cx: xAt(x), cy: yAt(y), r: 3 }));
    }
    svg.append(clip, inside);
    svg.setAttribute("aria-label", `${title} of ${curves.map((curve) => `${curve.name}: ${short(curve.line[0][1])} to ${short(curve.line.at(-1)[1])}`).join("; ")}`);
    drawn = { svg, curves, whole, left, right, width, height, xAt };
    readout();
  };

  const readout = () => {
    const values = new Map();
    for (const part of drawn ? $$(".cross, .read", drawn.svg) : []) part.remove();
    const visible = drawn && reading !== null && reading >= drawn.left && reading <= drawn.right;
    for (const curve of drawn ? drawn.curves : []) {
      const [x, y] = visible ? at(curve, reading) : curve.line.at(-1);
      values.set(curve.name, `${short(y)} at ${state.along === "share" ? `${Math.round(x)} %` : x}`);
    }
    for (const item of $$(".picks li", section)) $("output", item).value = values.get($("input", item).value) || "";
    if (!visible) return;
    const x = drawn.xAt(reading);
    drawn.svg.append(element("line", { class: "cross", x1: x, x2: x, y1: TOP, y2: drawn.height - BOTTOM }));
  };

  const list = () => {
    const ready = cards();
    section.hidden = !ready.length;
    $('nav a[href="#curves"]').parentElement.hidden = !ready.length;
    const names = ready.map((card) => card.dataset.name);
    const first = $$(".subject .member").map((article) => article.parentElement).find((subject) => $$(".member", subject).length > 1);
    if (!state.picked) state.picked = (first ? $$(".member", first).map((article) => article.id.slice(2)) : names).filter((name) => names.includes(name)).slice(0, 6);
    const box = $(".picks", section);
    if (names.join("\n") !== box.dataset.names) {
      box.dataset.names = names.join("\n");
      box.replaceChildren(...ready.map((card) => {
        const item = document.createElement("li");
        const label = document.createElement("label");
        const input = Object.assign(document.createElement("input"), { type: "checkbox", value: card.dataset.name });
        const text = Object.assign(document.createElement("span"), { textContent: card.dataset.name });
        label.append(input, $(".key", card).cloneNode(true), text, document.createElement("output"));
        item.append(label);
        return item;
      }));
    }
    for (const [number, item] of $$("li", box).entries()) {
      $("input", item).checked = state.picked.includes(ready[number].dataset.name);
      item.hidden = ready[number].hidden && !$("input", item).checked; // a chosen curve keeps its key
    }
    $(".count", section).textContent = `${names.filter((name) => state.picked.includes(name)).length} of ${names.length} recipes with curves`;
    if (!section.hidden) draw();
  };
  const pick = (picked) => { state.picked = picked; keep(); list(); };

  const move = (left, right) => {
    const [low, high] = drawn.whole;
    const span = Math.min(high - low, Math.max(right - left, (high - low) / 500));
    const from = Math.min(high - span, Math.max(low, left));
    zoom = span >= high - low ? null : [from, from + span];
    draw();
  };
  const press = (key, shift) => {
    if (!drawn) return;
    const { left, right } = drawn;
    const [middle, span] = [reading !== null && reading >= left && reading <= right ? reading : (left + right) / 2, right - left];
    if (key === "+") move(middle - (middle - left) / 2, middle + (right - middle) / 2);
    if (key === "-") move(middle - (middle - left) * 2, middle + (right - middle) * 2);
    if (key === "0") { zoom = null; draw(); }
    const way = { ArrowLeft: -1, ArrowRight: 1 }[key];
    if (way && shift) move(left + (way * span) / 4, right + (way * span) / 4);
    if (way && !shift) { reading = Math.min(right, Math.max(left, middle + (way * span) / 50)); readout(); }
  };

  for (const input of $$("[data-set]", section)) {
    const name = input.dataset.set;
    if (input.type === "checkbox") input.checked = state[name];
    else input.value = state[name];
    input.addEventListener("input", () => {
      state[name] = input.type === "checkbox" ? input.checked : input.type === "range" ? Number(input.value) : input.value;
      if (name === "along") [zoom, reading] = [null, null];
      keep();
      draw();
    });
  }
  section.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    if (button.dataset.key) press(button.dataset.key);
    if (button.dataset.pick === "none") pick([]);
    if (button.dataset.pick === "listed") pick([...new Set([...state.picked, ...cards().filter((card) => !card.hidden).map((card) => card.dataset.name)])].slice(0, MOST));
  });
  $(".picks", section).addEventListener("change", (event) => {
    const others = state.picked.filter((name) => name !== event.target.value);
    pick(event.target.checked ? [...others, event.target.value] : others);
  });
  plot.addEventListener("keydown", (event) => {
    const key = { "=": "+", "_": "-", Escape: "0" }[event.key] || event.key;
    if (event.ctrlKey || event.metaKey || event.altKey || !["+", "-", "0", "ArrowLeft", "ArrowRight"].includes(key)) return;
    event.preventDefault();
    press(key, event.shiftKey);
  });

  let start = null;
  const under = (event) => {
    const bounds = drawn.svg.getBoundingClientRect();
    const x = ((event.clientX - bounds.left) / bounds.width) * drawn.width;
    return drawn.left + (Math.min(1, Math.max(0, (x - LEFT) / (drawn.width - LEFT - RIGHT)))) * (drawn.right - drawn.left);
  };
  plot.addEventListener("pointerdown", (event) => { if (drawn && event.button === 0) { start = under(event); plot.setPointerCapture(event.pointerId); } });
  plot.addEventListener("pointermove", (event) => {
    if (!drawn) return;
    reading = under(event);
    readout();
    for (const part of $$(".chosen", drawn.svg)) part.remove();
    if (start === null) return;
    const [from, to] = [drawn.xAt(Math.min(start, reading)), drawn.xAt(Math.max(start, reading))];
    drawn.svg.append(element("rect", { class: "chosen", x: from, width: to - from, y: TOP, height: drawn.height - TOP - BOTTOM }));
  });
  plot.addEventListener("pointerup", (event) => {
    if (start === null || !drawn) return;
    const [from, to] = [start, under(event)].sort((a, b) => a - b);
    start = null;
    if (drawn.xAt(to) - drawn.xAt(from) > 8) move(from, to);
    else for (const part of $$(".chosen", drawn.svg)) part.remove(); // the same drawing stays, for a double click
  });
  plot.addEventListener("pointercancel", () => { start = null; draw(); });
  plot.addEventListener("pointerleave", () => { if (start === null) { reading = null; readout(); } });
  plot.addEventListener("dblclick", () => { zoom = null; draw(); });

  new ResizeObserver(() => { if (drawn && drawn.width !== Math.max(280, plot.clientWidth)) draw(); }).observe(plot);
  document.addEventListener("filtered", list);
  list();
}
