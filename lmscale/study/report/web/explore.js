// The slider over compute: N*, D*, D*/N* and the loss of every fit with their intervals, as Python computed them from all
// of the fit's draws at each position. Nothing is interpolated.

const TEXTS = { params: (v) => compact(v), tokens: (v) => compact(v), tokens_per_param: number, loss_nats: (v) => fixed(v, 4) };

function textOf(quantity, value) {
  return value === null || value === undefined ? "–" : TEXTS[quantity](value);
}

function spanOf(quantity, ends) {
  return ends && ends[0] !== null ? `${textOf(quantity, ends[0])} – ${textOf(quantity, ends[1])}` : "–";
}

function exploreCells(approach, quantity, position) {
  const { centre, intervals } = approach.quantities[quantity];
  const cells = { centre: textOf(quantity, centre[position]) };
  for (const [level, ends] of Object.entries(intervals)) cells[level] = spanOf(quantity, ends[position]);
  return cells;
}

function beyondText(flops, largest) {
  const times = flops / largest;
  return times > 1.001 ? `${general(times, 3)} times beyond the largest fitted compute: an extrapolation` : "within the fitted compute";
}

function cellText(explore, name, quantity, part, position) {
  const flops = explore.flops[position];
  if (part === "flops") return power(flops);
  const approach = explore.approaches[name];
  if (quantity === "beyond") return beyondText(flops, approach.largest_flops);
  return exploreCells(approach, quantity, position)[part] ?? "–";
}

function startExplore(explore, charts) {
  const box = document.getElementById("explore");
  if (!explore || !box) return;
  const slider = element("input", { type: "range", min: "0", max: String(explore.flops.length - 1), id: "explore-slider" });
  slider.value = String(explore.start);
  const label = element("label", { for: "explore-slider" }, "training compute C ");
  const output = element("output", { for: "explore-slider" });
  box.prepend(element("div", { class: "controls slider" }, label, slider, output));
  const move = () => showBudget(box, explore, Number(slider.value), output, slider, charts);
  slider.addEventListener("input", move);
  move();
}

function showBudget(box, explore, position, output, slider, charts) {
  const flops = explore.flops[position];
  output.textContent = `${power(flops)} FLOPs`;
  slider.setAttribute("aria-valuetext", output.textContent);
  for (const cell of box.querySelectorAll("[data-cell]")) {
    const [name, quantity, part] = cell.dataset.cell.split(":");
    cell.textContent = cellText(explore, name, quantity, part, position);
  }
  for (const chart of charts) if (chart.spec.follows === "flops") chart.setLine(flops);
}
