// Tables sort by a click on a head, are filtered by words, are copied as CSV, and say when they go on to the right.

const FEW_ROWS = 12; // up to which a table needs no filter

function bodyRows(table) {
  return [...table.tBodies[0].rows].filter((row) => !row.classList.contains("command"));
}

// What a cell is sorted and copied by: its number with all digits where it has one.
function cellValue(cell) {
  return cell.dataset.value === undefined ? cell.textContent.trim() : Number(cell.dataset.value);
}

function isEmpty(value) {
  return value === "" || value === "–";
}

function compareValues(a, b) {
  if (typeof a === "number" && typeof b === "number") return a - b;
  return String(a).localeCompare(String(b), "en", { numeric: true });
}

// Rows without a value stay at the end in both directions.
function compareCells(a, b, direction) {
  if (isEmpty(a) || isEmpty(b)) return isEmpty(a) - isEmpty(b);
  return direction * compareValues(a, b);
}

function sortBy(table, column, head) {
  const direction = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
  for (const other of head.parentElement.cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", direction === 1 ? "ascending" : "descending");
  for (const row of table.querySelectorAll("tr.command")) row.remove();
  const rows = bodyRows(table).map((row) => [cellValue(row.cells[column]), row]);
  rows.sort(([a], [b]) => compareCells(a, b, direction));
  table.tBodies[0].append(...rows.map(([, row]) => row));
}

function startSorting(table) {
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    const label = head.innerText.replace(/\s+/g, " ");
    const sort = element("button", { type: "button", class: "plain", title: `sort by ${label}` }, ...head.childNodes);
    sort.addEventListener("click", () => sortBy(table, column, head));
    head.append(sort);
  });
}

const filters = new WeakMap(); // table -> the field that its rows are filtered by

function showAllRows(table) {
  const filter = filters.get(table);
  if (!filter || filter.value === "") return;
  filter.value = "";
  filter.dispatchEvent(new Event("input"));
}

// Every word must be in the row.
function filterRows(table, text, count) {
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  for (const row of table.querySelectorAll("tr.command")) row.remove();
  const rows = bodyRows(table);
  for (const row of rows) row.hidden = !words.every((word) => row.textContent.toLowerCase().includes(word));
  const left = rows.filter((row) => !row.hidden).length;
  count.textContent = words.length ? `${left} of ${rows.length} rows` : "";
}

function tableCsv(table) {
  const heads = [...table.tHead.rows[0].cells].map((head) => {
    const unit = head.querySelector("span")?.textContent ?? "";
    const name = head.textContent.trim().slice(0, unit ? -unit.length : undefined).trim();
    return unit ? `${name} (${unit})`.trim() : name;
  });
  const rows = bodyRows(table).filter((row) => !row.hidden);
  const text = (cell) => (isEmpty(cellValue(cell)) ? "" : String(cellValue(cell)));
  return csvText([heads, ...rows.map((row) => [...row.cells].map(text))]);
}

function toolbar(table) {
  const bar = element("div", { class: "controls" });
  if (bodyRows(table).length > FEW_ROWS) {
    const count = element("span", { class: "small", role: "status" });
    const input = element("input", { type: "search", placeholder: "filter rows", "aria-label": "filter rows" });
    input.addEventListener("input", () => filterRows(table, input.value, count));
    filters.set(table, input);
    bar.append(input, count);
  }
  const copy = button("copy as CSV", "copy this table as CSV", async () => {
    copy.textContent = (await copyText(tableCsv(table))) ? "copied" : "this browser keeps the clipboard to itself";
  });
  bar.append(copy);
  return bar;
}

// The words of the last heading before an element.
function headingAbove(one) {
  const before = (head) => head.compareDocumentPosition(one) & Node.DOCUMENT_POSITION_FOLLOWING;
  return [...document.querySelectorAll("h1, h2, h3")].filter(before).at(-1)?.textContent ?? document.title;
}

// Says that a table is wider than the page: nothing is cut without a word.
function startHint(wide, index) {
  const hint = element("p", { class: "hint small", hidden: true }, "The table goes on to the right: scroll it sideways →");
  wide.before(hint);
  wide.tabIndex = 0;
  wide.setAttribute("role", "region");
  wide.setAttribute("aria-label", `table ${index + 1}, ${headingAbove(wide)}, scrolls sideways`);
  const judge = () => {
    hint.hidden = wide.scrollWidth <= wide.clientWidth + 1 || wide.scrollLeft + wide.clientWidth >= wide.scrollWidth - 1;
  };
  wide.addEventListener("scroll", judge);
  new ResizeObserver(() => requestAnimationFrame(judge)).observe(wide);
  judge();
}

function startTables() {
  document.querySelectorAll(".wide, .scroll").forEach(startHint);
  for (const wide of document.querySelectorAll(".wide")) {
    const table = wide.querySelector("table");
    startSorting(table);
    wide.previousElementSibling.before(toolbar(table));
  }
}
