"use strict";
// Everything here makes the page nicer; without it, text, images, charts and tables are all there.
const $ = (selector, from = document) => from.querySelector(selector);
const $$ = (selector, from = document) => [...from.querySelectorAll(selector)];
// The parts that a live page swaps; as the server wrote them, before this script touches any.
const parts = (page) => $$("main > section:not(.subject), .subject > *", page);
let shown = parts(document).map((part) => part.outerHTML);

$("#theme").addEventListener("click", () => {
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
  try { localStorage.setItem("theme", root.dataset.theme); } catch { /* no storage: until the page is closed */ }
});

const compare = (box) => {
  const content = JSON.parse(box.dataset.compare);
  const stage = $(".stage", box);
  const range = $("input", box);
  const chosen = (side) => $(`[data-side=${side}]`, box).value;
  const draw = () => {
    for (const [side, image] of [["left", $(".over", box)], ["right", $(".under", box)]]) {
      const url = content.rows[chosen(side)][chosen("prompt")];
      image.hidden = !url;
      if (url && image.getAttribute("src") !== url) image.src = url;
      image.alt = `${chosen(side)}, ${content.prompts[chosen("prompt")]}`;
    }
  };
  const move = (value) => { stage.style.setProperty("--at", `${value}%`); range.setAttribute("aria-valuetext", `${value} % ${chosen("left")}`); };
  range.addEventListener("input", () => move(range.value));
  for (const select of $$("select", box)) select.addEventListener("change", draw);
  const drag = (event) => {
    if (!(event.buttons & 1)) return;
    const bounds = stage.getBoundingClientRect();
    range.value = Math.round(Math.min(100, Math.max(0, ((event.clientX - bounds.left) / bounds.width) * 100)));
    move(range.value);
  };
  stage.addEventListener("pointerdown", drag);
  stage.addEventListener("pointermove", drag);
  stage.addEventListener("dragstart", (event) => event.preventDefault());
  draw();
  move(range.value);
};
$$("[data-compare]").forEach(compare);

const viewer = $("#viewer");
let row = [];
let at = 0;
const show = () => {
  const button = row[at];
  const image = $("img", viewer);
  image.src = button.dataset.full;
  image.alt = $("img", button).alt;
  $("p", viewer).textContent = button.dataset.text || image.alt;
  $(".turn", viewer).hidden = row.length < 2;
};
const turn = (way) => { at = (at + way + row.length) % row.length; show(); };
document.addEventListener("click", (event) => {
  const button = event.target.closest(".zoom");
  if (button) {
    const strip = button.closest(".strip, .grids");
    row = strip ? $$(".zoom", strip) : [button];
    at = row.indexOf(button);
    show();
    viewer.showModal();
  } else if (event.target === viewer) {
    viewer.close();
  }
});
for (const button of $$("[data-turn]", viewer)) button.addEventListener("click", () => turn(Number(button.dataset.turn)));
viewer.addEventListener("keydown", (event) => {
  if (event.key === "ArrowLeft") turn(-1);
  if (event.key === "ArrowRight") turn(1);
});

// A reading line under the pointer.
const nothing = (svg) => { for (const part of $$(".cross, .read", svg)) part.remove(); };
const element = (name, attributes, text) => {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text) made.textContent = text;
  return made;
};
document.addEventListener("pointermove", (event) => {
  const svg = event.target.closest && event.target.closest("[data-chart]");
  for (const other of $$("[data-chart]")) if (other !== svg && $(".cross", other)) nothing(other);
  if (!svg) return;
  const data = svg.chartData || (svg.chartData = JSON.parse(svg.dataset.chart));
  const bounds = svg.getBoundingClientRect();
  const scale = svg.viewBox.baseVal.width / bounds.width;
  const [left, top, right, bottom] = data.box;
  const x = Math.min(right, Math.max(left, (event.clientX - bounds.left) * scale));
  const value = data.x[0] + ((x - left) / (right - left)) * (data.x[1] - data.x[0]);
  nothing(svg);
  svg.append(element("line", { class: "cross", x1: x, x2: x, y1: top, y2: bottom }));
  data.curves.forEach((curve, number) => {
    if (!curve.points.length) return;
    const near = curve.points.reduce((best, point) => (Math.abs(point[0] - value) < Math.abs(best[0] - value) ? point : best));
    const end = x > (left + right) / 2;
    const text = `${data.curves.length > 1 ? `${curve.label} ` : ""}${near[1]} at ${data.unit} ${near[0]}`;
    svg.append(element("text", { class: "read", x: end ? x - 8 : x + 8, y: top + 14 + number * 17, "text-anchor": end ? "end" : "start" }, text));
  });
});

// A filter: recipes with every word in name, subject, algorithm or state.
const filter = $("#filter");
const matches = (words) => filter.value.toLowerCase().split(/\s+/).every((word) => words.includes(word));
const applyFilter = () => {
  const names = new Set($$(".card").filter((card) => !(card.hidden = !matches(card.dataset.words))).map((card) => card.dataset.name));
  for (const article of $$("article.member")) article.hidden = !names.has(article.id.slice(2));
  for (const subject of $$(".subject")) {
    subject.hidden = !$("article.member:not([hidden])", subject);
    const link = $(`nav a[href="#${CSS.escape(subject.id)}"]`);
    if (link) link.parentElement.hidden = subject.hidden;
  }
  const all = $$(".card").length;
  $(".filter output").value = filter.value.trim() ? `${names.size} of ${all}` : "";
  document.dispatchEvent(new Event("filtered"));
};
filter.addEventListener("input", applyFilter);
document.addEventListener("keydown", (event) => {
  if (event.key === "/" && !event.ctrlKey && !event.metaKey && !event.target.closest("input, select, textarea")) { event.preventDefault(); filter.focus(); }
});
$(".filter").hidden = false;

if (document.body.dataset.live) {
  const refresh = async () => {
    try {
      const answer = await fetch(location.pathname, { cache: "no-store" });
      const fresh = parts(new DOMParser().parseFromString(await answer.text(), "text/html"));
      const old = parts(document);
      if (!viewer.open) {
        if (fresh.length !== old.length) { location.reload(); return; }
        let changed = false;
        fresh.forEach((part, number) => {
          if (part.outerHTML === shown[number]) return;
          changed = true;
          shown[number] = part.outerHTML;
          old[number].replaceWith(part);
          $$("[data-compare]", part).forEach(compare);
        });
        if (changed) applyFilter();
      }
      $(".live").style.opacity = 1;
    } catch {
      $(".live").style.opacity = 0.3; // the orchestrator is gone; the page stays
    }
    setTimeout(refresh, document.hidden ? 10000 : 2000);
  };
  setTimeout(refresh, 2000);
}
