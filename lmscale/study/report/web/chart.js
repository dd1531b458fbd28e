// One interactive chart: uPlot draws axes and zooms, `painter.js` the marks.
//
// uPlot's axes are linear, in log10 of the values where an axis is logarithmic: its own logarithmic axis draws nothing
// for numbers of more than 17 digits, such as training FLOPs.

const CHART_HEIGHT = 360;
const LEAST_HEIGHT = 260;
const NEAR = 14; // CSS pixels within which the pointer is at a point
const DRAGGED = 6; // CSS pixels from which a drag is a zoom
const ZOOM_STEP = 0.7;
const MOST_TICKS = 9;
const MOST_KEYS = 24; // lines of a key: of more, so many, evenly
const MOST_NAMED = 5; // runs of one point that its tip names
const ROW_HINT = document.querySelector("tr[data-run]") ? "; a click on a run goes to its row" : "";
const PIXELS_A_TICK = { x: 70, y: 40 };

function scaleOf(axis) {
  return {
    to: axis.log ? Math.log10 : (value) => value,
    from: axis.log ? (value) => 10 ** value : (value) => value,
    text: NUMERALS[axis.numerals],
  };
}

function tickValues(axis, low, high, most) {
  if (!axis.log) return linearTicks(low, high, most);
  const ticks = logTicks(low, high, most);
  return ticks.length > 2 ? ticks : linearTicks(low, high, most);
}

function axisOptions(axis, name, side) {
  const { to, from, text } = scaleOf(axis);
  return {
    scale: name,
    side,
    stroke: () => ink("--ink-text"),
    grid: { stroke: () => ink("--ink-line"), width: 0.5 },
    ticks: { stroke: () => ink("--ink-muted"), width: 1, size: 4 },
    font: `12px ${getComputedStyle(document.body).fontFamily}`,
    size: side === 2 ? 32 : 62,
    splits: (plot, _, low, high) => {
      const pixels = side === 2 ? plot.bbox.width : plot.bbox.height;
      const room = pixels / devicePixelRatio / PIXELS_A_TICK[name];
      return tickValues(axis, from(low), from(high), Math.max(2, Math.min(MOST_TICKS, Math.floor(room)))).map(to);
    },
    values: (_, splits) => splits.map((value) => text(from(value))),
  };
}

class Chart {
  constructor(spec, page, onChoose) {
    Object.assign(this, { spec, page, onChoose, chosen: {}, near: null, line: null });
    this.x = scaleOf(spec.x);
    this.y = scaleOf(spec.y);
    this.holder = element("div", { class: "canvas", tabindex: "0", role: "group", "aria-label": this.description() });
    this.tip = element("div", { class: "tip", hidden: true });
    this.element = element(
      "div",
      { class: "live" },
      ...(spec.titled ? [element("p", { class: "panel-title" }, spec.title)] : []),
      switchBar(spec, this.chosen, () => this.redraw()),
      element("p", { class: "axis-title" }, spec.y.label),
      this.holder,
      element("p", { class: "axis-title across" }, spec.x.label),
      this.key(),
      this.zoomBar(),
    );
  }

  description() {
    return `${this.spec.title || "chart"}: ${this.spec.y.label} against ${this.spec.x.label}. Arrow keys go from run to run.`;
  }

  // Draws the chart once its element stands on the page and has a width.
  start() {
    this.plot = new uPlot(this.options(), this.corners(), this.holder);
    this.plot.over.append(this.tip);
    this.plot.over.addEventListener("mousemove", (event) => this.point(event));
    this.plot.over.addEventListener("mouseleave", () => this.show(null));
    this.plot.over.addEventListener("click", (event) => this.click(event));
    this.holder.addEventListener("keydown", (event) => this.press(event));
    new ResizeObserver(() => requestAnimationFrame(() => this.resize())).observe(this.element);
  }

  options() {
    return {
      ...this.size(),
      padding: [12, 16, 0, 0],
      legend: { show: false },
      drawOrder: ["axes"],
      cursor: { x: false, y: false, points: { show: false }, drag: { x: true, y: true, dist: DRAGGED } },
      scales: {
        x: { time: false, range: (_, low, high) => [low, high] },
        y: { range: () => this.corners()[1] },
      },
      series: [{}, { show: false, scale: "y" }],
      axes: [axisOptions(this.spec.x, "x", 2), axisOptions(this.spec.y, "y", 3)],
      hooks: { draw: [(plot) => this.paint(plot)] },
    };
  }

  corners() {
    const { x, y } = this.spec;
    return [
      [this.x.to(x.low), this.x.to(x.high)],
      [this.y.to(y.low), this.y.to(y.high)],
    ];
  }

  size() {
    const width = Math.max(240, Math.floor(this.element.clientWidth));
    return { width, height: Math.max(LEAST_HEIGHT, Math.min(CHART_HEIGHT, Math.round(0.62 * width))) };
  }

  resize() {
    const { width, height } = this.size();
    if (this.element.clientWidth > 0 && (width !== this.plot.width || height !== this.plot.height)) {
      this.plot.setSize({ width, height });
    }
  }

  redraw() {
    if (this.plot) this.plot.redraw(false);
  }

  // Canvas pixels of a value; x null where only the height matters.
  at(x, y) {
    if (y === null) return [NaN, NaN]; // a canvas passes over it
    const left = x === null ? 0 : this.plot.valToPos(this.x.to(x), "x", true);
    return [left, this.plot.valToPos(this.y.to(y), "y", true)];
  }

  shown(mark, index) {
    return isShown(this.page, this.chosen, mark, index);
  }

  paint(plot) {
    this.plot = plot;
    const { ctx: context, bbox } = plot;
    context.save();
    context.beginPath();
    context.rect(bbox.left, bbox.top, bbox.width, bbox.height);
    context.clip();
    const shown = (mark, index) => this.shown(mark, index);
    paintMarks(context, this.spec.marks, (x, y) => this.at(x, y), devicePixelRatio, shown);
    if (this.line !== null) this.paintLine(context, bbox);
    if (this.near) this.paintNear(context);
    context.restore();
  }

  // The budget that the slider is at, across a chart over compute.
  paintLine(context, bbox) {
    const left = this.at(this.line, this.spec.y.low)[0];
    context.strokeStyle = ink("--ink-text");
    context.lineWidth = devicePixelRatio;
    context.setLineDash([2 * devicePixelRatio, 3 * devicePixelRatio]);
    context.beginPath();
    context.moveTo(left, bbox.top);
    context.lineTo(left, bbox.top + bbox.height);
    context.stroke();
    context.setLineDash([]);
  }

  paintNear(context) {
    const [left, top] = this.at(this.near.x, this.near.y);
    context.strokeStyle = ink("--ink-text");
    context.lineWidth = 2 * devicePixelRatio;
    context.beginPath();
    context.arc(left, top, 8 * devicePixelRatio, 0, 2 * Math.PI);
    context.stroke();
  }

  setLine(flops) {
    this.line = flops;
    this.redraw();
  }

  // Every point and vertex of a run's curve that is shown and lies inside the axes, in CSS pixels.
  *targets() {
    const { width, height } = this.plot.over.getBoundingClientRect();
    for (const mark of this.spec.marks) {
      if (!["points", "line"].includes(mark.kind) || (mark.kind === "line" && !mark.run)) continue;
      if (!this.shown(mark)) continue;
      for (let index = 0; index < mark.x.length; index += 1) {
        if (mark.kind === "points" && !this.shown(mark, index)) continue;
        const left = this.plot.valToPos(this.x.to(mark.x[index]), "x");
        const top = this.plot.valToPos(this.y.to(mark.y[index]), "y");
        if (left < 0 || top < 0 || left > width || top > height) continue;
        const run = mark.kind === "points" ? (mark.runs || [])[index] || "" : mark.run;
        yield { mark, run, left, top, x: mark.x[index], y: mark.y[index] };
      }
    }
  }

  nearest(left, top) {
    let best = null;
    for (const target of this.targets()) {
      const handicap = target.mark.kind === "line" ? 3 : 0; // a point wins over the curve that passes it
      const distance = Math.hypot(target.left - left, target.top - top) + handicap;
      if (distance <= NEAR && (best === null || distance < best.distance)) best = { ...target, distance };
    }
    return best;
  }

  point(event) {
    const box = this.plot.over.getBoundingClientRect();
    this.show(this.nearest(event.clientX - box.left, event.clientY - box.top));
  }

  click(event) {
    this.point(event);
    if (this.near && this.near.run) this.onChoose(this.near.run, this.holder);
  }

  press(event) {
    if (event.key === "Enter" && this.near && this.near.run) this.onChoose(this.near.run, this.holder);
    if (event.key === "Escape") this.show(null);
    if (event.key !== "ArrowRight" && event.key !== "ArrowLeft") return;
    event.preventDefault();
    this.step(event.key === "ArrowRight" ? 1 : -1);
  }

  step(by) {
    const points = [...this.targets()].filter((one) => one.mark.kind === "points").sort((a, b) => a.left - b.left);
    if (!points.length) return;
    const now = this.near ? points.findIndex((one) => one.x === this.near.x && one.y === this.near.y) : -1;
    const next = now < 0 ? (by > 0 ? 0 : points.length - 1) : (now + by + points.length) % points.length;
    this.show(points[next]);
    announce(this.lines);
  }

  show(target) {
    if (target === null && this.near === null) return;
    this.near = target;
    this.tip.hidden = target === null;
    if (target) this.fillTip(target);
    this.plot.over.style.cursor = target && target.run ? "pointer" : "";
    this.redraw();
  }

  fillTip(target) {
    const lines = describe(this.page, target, this.x.text, this.y.text);
    this.lines = lines.join(", ");
    this.tip.replaceChildren(...lines.map((line, index) => element(index === 0 ? "strong" : "span", {}, line)));
    const width = this.plot.over.clientWidth;
    const right = target.left > width / 2;
    this.tip.style.left = right ? "auto" : `${target.left + 12}px`;
    this.tip.style.right = right ? `${width - target.left + 12}px` : "auto";
    this.tip.style.top = `${Math.max(0, target.top - 20)}px`;
  }

  key() {
    const marks = new Map();
    for (const mark of this.spec.marks) if (mark.key && !marks.has(mark.key)) marks.set(mark.key, mark);
    const all = [...marks.values()];
    const shown = evenly(all, MOST_KEYS);
    const rest = all.length > shown.length ? [element("li", {}, `${shown.length} of ${all.length} are named here`)] : [];
    return element("ul", { class: "key" }, ...shown.map(keyLine), ...rest);
  }

  zoomBar() {
    return element(
      "div",
      { class: "controls zoom" },
      button("+", "zoom in", () => this.zoom(ZOOM_STEP)),
      button("−", "zoom out", () => this.zoom(1 / ZOOM_STEP)),
      button("whole", "show the whole figure", () => this.whole()),
      element("span", { class: "small" }, `drag to zoom, double click for the whole${ROW_HINT}`),
    );
  }

  zoom(factor) {
    for (const name of ["x", "y"]) {
      const { min, max } = this.plot.scales[name];
      const [middle, half] = [(min + max) / 2, (factor * (max - min)) / 2];
      this.plot.setScale(name, { min: middle - half, max: middle + half });
    }
  }

  whole() {
    const [x, y] = this.corners();
    this.plot.setScale("x", { min: x[0], max: x[1] });
    this.plot.setScale("y", { min: y[0], max: y[1] });
  }
}

// At most so many of a list, evenly spaced, the first and the last among them.
function evenly(list, most) {
  if (list.length <= most) return list;
  return Array.from({ length: most }, (_, place) => list[Math.round((place * (list.length - 1)) / (most - 1))]);
}

function keyLine(mark) {
  const more = `${mark.dashed ? " dashed" : ""}${mark.dotted ? " dotted" : ""}${new Set(mark.colours).size > 1 ? " ramp" : ""}`;
  const swatch = element("span", { class: `swatch ${mark.kind}${more}`, "aria-hidden": "true" });
  swatch.style.setProperty("--swatch", `var(${mark.colours ? mark.colours[0] : mark.colour})`);
  return element("li", {}, swatch, mark.key);
}

// What the pointer is at, in lines: a run by its id and name (N, D, rate, seed) with C and loss, or the name of a mark.
function describe(page, target, textX, textY) {
  const place = `${textX(target.x)}, ${textY(target.y)}`;
  const run = target.run ? page.runs[target.run] : null;
  if (!run) return [...(target.run ? describeSeveral(page, target) : [target.mark.name]), place].filter(Boolean);
  const loss = run.loss === null ? "–" : fixed(run.loss, 4);
  const lines = [target.run, run.name, `C ${run.flops ? power(run.flops) : "–"}, loss ${loss}`, run.use];
  return lines.filter((line, index) => line && lines.indexOf(line) === index);
}

// A point that joins several runs: what it is, and the first of them by name.
function describeSeveral(page, target) {
  const runs = runsOf(page, target.run);
  if (runs.length < 2) return [target.run];
  const named = runs.slice(0, MOST_NAMED).map((id) => `${id} ${(page.runs[id] || {}).name || ""}`.trim());
  const rest = runs.length - named.length;
  return [`${target.mark.name}: ${runs.length} runs`, ...named, rest > 0 ? `and ${rest} more` : ""];
}
