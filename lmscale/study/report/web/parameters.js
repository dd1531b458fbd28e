// Sliders over the parameters of a law: how far a small error in one of them carries, moved alone and with the others
// following as they do in the fit's draws. Python computed the optimum at every position.

function startParameters(sensitivity) {
  const box = document.getElementById("parameters");
  if (!sensitivity || !box) return;
  const moved = Object.fromEntries(Object.keys(sensitivity.parameters).map((name) => [name, sensitivity.start]));
  const budget = element("select", { id: "parameters-budget" });
  sensitivity.flops.forEach((flops, index) => budget.append(element("option", { value: String(index) }, `${power(flops)} FLOPs`)));
  const bar = element("div", { class: "controls" }, element("label", {}, "at C = ", budget));
  const sliders = Object.keys(sensitivity.parameters).map((name) => parameterSlider(sensitivity, name, moved, () => show()));
  const show = () => showMoved(box, sensitivity, moved, Number(budget.value));
  budget.addEventListener("change", show);
  box.prepend(bar, ...sliders.map(({ line }) => line));
  show();
}

// One slider; the others go back to the fit when it moves, since the table is of one parameter's error.
function parameterSlider(sensitivity, name, moved, changed) {
  const id = `parameter-${name}`;
  const slider = element("input", { type: "range", id, min: "0", max: String(sensitivity.steps.length - 1) });
  slider.value = String(sensitivity.start);
  const output = element("output", { for: id });
  const write = () => {
    const step = sensitivity.steps[moved[name]];
    output.textContent = `${general(sensitivity.parameters[name].values[moved[name]], 4)} (${step > 0 ? "+" : ""}${general(step, 2)} s.e.)`;
  };
  slider.addEventListener("input", () => {
    for (const other of Object.keys(moved)) moved[other] = sensitivity.start;
    moved[name] = Number(slider.value);
    for (const other of slider.closest("#parameters").querySelectorAll("input[type=range]")) {
      if (other !== slider) {
        other.value = String(sensitivity.start);
        other.dispatchEvent(new Event("reset-text"));
      }
    }
    write();
    changed();
  });
  slider.addEventListener("reset-text", write);
  write();
  return { line: element("div", { class: "controls slider" }, element("label", { for: id }, `${name} `), slider, output) };
}

function showMoved(box, sensitivity, moved, budget) {
  const name = Object.keys(moved).find((one) => moved[one] !== sensitivity.start) ?? Object.keys(moved)[0];
  const parameter = sensitivity.parameters[name];
  for (const cell of box.querySelectorAll("[data-cell]")) {
    const [part, quantity] = cell.dataset.cell.split(":");
    const step = part === "fit" ? sensitivity.start : moved[name];
    const way = part === "following" ? "following" : "alone";
    cell.textContent = textOf(quantity, parameter[way][quantity][step][budget]);
  }
}
