// A run's row in the table of runs, with its exact command below it.

function rowOf(id) {
  return document.querySelector(`tr[data-run="${CSS.escape(id)}"]`);
}

function openAround(node) {
  for (let up = node.parentElement; up; up = up.parentElement) if (up.tagName === "DETAILS") up.open = true;
}

// The command of a run in a row of its own below the run's; a second call folds it away.
function toggleCommand(page, row, always = false) {
  const below = row.nextElementSibling;
  if (below && below.classList.contains("command")) {
    if (!always) below.remove();
    return;
  }
  const command = (page.runs[row.dataset.run] || {}).command;
  if (!command) return;
  const copy = button("copy", "copy the command", async () => {
    copy.textContent = (await copyText(command)) ? "copied" : "select it and copy";
  });
  const cell = element("td", { colspan: String(row.cells.length), class: "word" }, element("code", {}, command), " ", copy);
  row.after(element("tr", { class: "command" }, cell));
}

function goToRun(page, id, from) {
  const row = rowOf(id);
  if (!row) {
    announce(`run ${id} has no row on this page; table.csv beside it holds all`);
    return;
  }
  openAround(row);
  showAllRows(row.closest("table"));
  toggleCommand(page, row, true);
  for (const old of document.querySelectorAll("tr.chosen")) old.classList.remove("chosen");
  row.classList.add("chosen");
  row.tabIndex = -1;
  row.focus({ preventScroll: true });
  row.scrollIntoView({ block: "center" });
  backLink(row, from);
}

// A way back to the figure that the reader came from.
function backLink(row, from) {
  for (const old of document.querySelectorAll(".back")) old.remove();
  const back = button("back to the figure", "back to the figure", () => {
    from.focus({ preventScroll: true });
    from.scrollIntoView({ block: "center" });
    back.remove();
  });
  back.className = "back";
  const below = row.nextElementSibling;
  const cell = below && below.classList.contains("command") ? below.cells[0] : row.cells[0];
  cell.append(" ", back);
}

// The name of each run in the table becomes a button that shows its command.
function startRuns(page) {
  for (const row of document.querySelectorAll("tr[data-run]")) {
    const record = page.runs[row.dataset.run];
    if (!record || !record.command) continue;
    const cell = row.cells[0];
    const name = button(cell.textContent, `${cell.textContent}: its command`, () => toggleCommand(page, row));
    name.className = "plain";
    cell.replaceChildren(name);
  }
}
