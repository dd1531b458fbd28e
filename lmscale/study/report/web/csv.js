// A table of the page as CSV, as `study/tables/writing.py` writes one: a spreadsheet executes none of its cells.

const ACTIVE = "=+-@\t\r"; // with which a formula begins
const PLAIN = /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i;

function csvCell(text) {
  const bare = text.replace(/^'+/, "");
  const risky = bare !== "" && ACTIVE.includes(bare[0]) && !PLAIN.test(text);
  const safe = risky ? `'${text}` : text;
  return /[,"\n\r\t;']/.test(safe) || safe !== safe.trim() ? `"${safe.replaceAll('"', '""')}"` : safe;
}

function csvText(rows) {
  return rows.map((cells) => cells.map(csvCell).join(",")).join("\n") + "\n";
}
