// Which marks of a chart are shown: the reader chooses budgets and sizes.
//
// A run has the tags of its record, a mark without a run its own; what has no such tag is always shown. A point that
// joins several runs has the tags of the first.

function tagOf(page, mark, index, name) {
  const id = index === undefined ? mark.run : (mark.runs || [])[index];
  const record = id ? page.runs[runsOf(page, id)[0]] : null;
  return (record && record[name]) || (mark.tags || {})[name] || "";
}

function isShown(page, chosen, mark, index) {
  if (index === undefined && mark.kind === "points") return true; // its points are asked one by one
  return Object.entries(chosen).every(([name, value]) => {
    const tag = tagOf(page, mark, index, name);
    return value === "" || tag === "" || tag === value;
  });
}

function switchBar(spec, chosen, changed) {
  const bar = element("div", { class: "controls" });
  for (const { name, label, values } of spec.switches || []) {
    const select = element("select", {}, element("option", { value: "" }, "all"));
    for (const value of values) select.append(element("option", { value }, value));
    select.addEventListener("change", () => {
      chosen[name] = select.value;
      changed();
    });
    bar.append(element("label", {}, `${label} `, select));
  }
  return bar;
}
