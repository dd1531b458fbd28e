// A run's row in the table of runs, with its exact command below it.

const RUN_SEPARATOR = "; "; // as in marks.py

// The runs of a point: one, or several that it joins.
function runsOf(page, text) {
  return page.runs[text] ? [text] : text.split(RUN_SEPARATOR);
}

function rowOf(id) {
  return document.querySelector(`tr[data-run="${CSS.escape(id)}"]`);
}

function openAround(node) {
  for (let up = node.parentElement; up; up = up.parentElement) if (up.tagName === "DETAILS") up.open = true;
}

// The row below a run's that holds its command; null where it is folded away.
function detailOf(row) {
  const below = row.nextElementSibling;
  return below && below.classList.contains("command") ? below : null;
}

function unfold(page, row) {
  const { command } = page.runs[row.dataset.run] || {};
  const cell = element("td", { colspan: String(row.cells.length), class: "word" });
  if (command) cell.append(element("code", {}, command), " ", copyButton(command), " ");
  const detail = element("tr", { class: "command" }, cell);
  row.after(detail);
  return detail;
}

function copyButton(command) {
  const copy = button("copy", "copy the command", async () => {
    copy.textContent = (await copyText(command)) ? "copied" : "select it and copy";
  });
  return copy;
}

function toggleCommand(page, row) {
  const detail = detailOf(row);
  if (detail) detail.remove();
  else unfold(page, row);
}

// Goes to a run's row; of a point that joins several, to the first.
function goToRun(page, runs, from) {
  const [id] = runsOf(page, runs);
  const row = rowOf(id);
  if (!row) {
    announce(`run ${id} has no row on this page; table.csv beside it holds all`);
    return;
  }
  openAround(row);
  showAllRows(row.closest("table"));
  for (const old of document.querySelectorAll("tr.chosen")) old.classList.remove("chosen");
  row.classList.add("chosen");
  row.tabIndex = -1;
  backLink(detailOf(row) || unfold(page, row), from);
  row.focus({ preventScroll: true });
  row.scrollIntoView({ block: "center" });
}

// A way back to the figure that the reader came from.
function backLink(detail, from) {
  for (const old of document.querySelectorAll(".back")) old.remove();
  const back = button("back to the figure", "back to the figure", () => {
    from.focus({ preventScroll: true });
    from.scrollIntoView({ block: "center" });
    back.remove();
  });
  back.className = "back";
  detail.cells[0].append(back);
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
