"""Style and script of the page: pointing at a token shades what a head reads and lists what each layer predicts."""

STYLE = """
body{max-width:96rem}
.models{display:flex;flex-wrap:wrap;gap:1rem 1.6rem}
.model{flex:1 1 22rem;min-width:0}
.tokens{border:1px solid var(--ink-line);border-radius:4px;padding:.7rem .8rem;line-height:1.9}
.tokens button{font:.9rem/1.4 ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace;color:inherit;
white-space:pre-wrap;background:color-mix(in srgb,var(--ink-3) calc(var(--w,0)*70%),transparent);border:0;
padding:.1rem 0;margin:0;border-radius:2px;cursor:pointer}
.tokens button.query{outline:2px solid var(--ink-2)}
.maps{display:grid;gap:3px;overflow-x:auto;margin:.6rem 0}
.maps canvas{width:2.6rem;height:2.6rem;image-rendering:pixelated;border:1px solid var(--ink-line);cursor:pointer;
background:var(--ink-paper)}
.maps canvas.chosen{outline:2px solid var(--ink-2);outline-offset:-2px}
table.lens{min-width:0}
.lens td{font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace;vertical-align:top}
.lens tr>:last-child{text-align:left;white-space:normal}
.lens tr>:last-child span{display:inline-block;white-space:pre;margin-right:1.2em}
table.grid{min-width:0}
.grid td{width:1.1rem;min-width:.5rem;height:1.1rem;padding:0;border:1px solid var(--ink-line);
background:color-mix(in srgb,var(--ink-3) calc(var(--e)*100%),transparent)}
.grid td.less{background:color-mix(in srgb,var(--ink-2) calc(var(--e)*100%),transparent)}
"""

SCRIPT = """
"use strict";
const models = [];
for (const model of document.querySelectorAll(".model")) {
  const numbers = JSON.parse(model.querySelector(".numbers").textContent);
  const weights = Uint8Array.from(atob(numbers.attention), c => c.charCodeAt(0));
  const [layers, heads, time] = numbers.shape;
  const tokens = [...model.querySelectorAll(".tokens button")];
  const chosen = model.querySelector(".chosen"), lens = model.querySelector(".lens");
  const maps = model.querySelector(".maps");
  let layer = numbers.layer, head = numbers.head, query = time - 1;
  const at = (l, h, t, s) => weights[((l * heads + h) * time + t) * time + s] / 255;
  const cell = (row, text, kind) => {
    const made = document.createElement(kind || "td");
    made.textContent = text;
    row.append(made);
  };
  const quoted = token => token ? JSON.stringify(token) : "\\u220e";

  function show() {
    tokens.forEach((token, s) => {
      token.style.setProperty("--w", s <= query ? at(layer, head, query, s) : 0);
      token.classList.toggle("query", s === query);
      token.title = s <= query ? at(layer, head, query, s).toFixed(2) : "";
    });
    chosen.textContent = `Head ${layer}.${head}, from token ${query}`;
    [...maps.children].forEach((map, i) => map.classList.toggle("chosen", i === layer * heads + head));
    lens.replaceChildren();
    const top = lens.insertRow();
    for (const name of ["after", "next, nats", "would predict"]) cell(top, name, "th");
    numbers.names.forEach((name, point) => {
      const row = lens.insertRow();
      cell(row, name);
      cell(row, query < time - 1 ? numbers.nats[point][query].toFixed(2) : "");
      const likeliest = document.createElement("td");
      for (const [token, p] of numbers.likeliest[point][query])
        cell(likeliest, `${quoted(token)} ${(100 * p).toFixed(1)}%`, "span");
      row.append(likeliest);
    });
  }

  maps.style.gridTemplateColumns = `repeat(${heads},max-content)`;
  for (let l = 0; l < layers; l++) for (let h = 0; h < heads; h++) {
    const map = document.createElement("canvas");
    map.width = map.height = time;
    map.title = `head ${l}.${h}`;
    map.tabIndex = 0;
    map.setAttribute("role", "button");
    map.setAttribute("aria-label", map.title);
    const pen = map.getContext("2d"), image = pen.createImageData(time, time);
    for (let t = 0; t < time; t++) for (let s = 0; s <= t; s++) {
      const i = 4 * (t * time + s);
      image.data.set([47, 125, 205, Math.round(255 * Math.sqrt(at(l, h, t, s)))], i);
    }
    pen.putImageData(image, 0, 0);
    const choose = () => { layer = l; head = h; show(); };
    map.addEventListener("click", choose);
    map.addEventListener("keydown", event => { if (event.key === "Enter" || event.key === " ") choose(); });
    maps.append(map);
  }
  const text = JSON.stringify(tokens.map(token => token.textContent));
  models.push({text, point: t => { query = t; show(); }});
  tokens.forEach((token, t) => {
    const point = () => { for (const other of models) if (other.text === text) other.point(t); };
    for (const name of ["mouseenter", "focus"]) token.addEventListener(name, point);
  });
  show();
}
"""
