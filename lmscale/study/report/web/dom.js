// Elements of the page: how they are built, and what all scripts share.

function element(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children);
  return node;
}

function button(text, label, action) {
  const node = element("button", { type: "button", "aria-label": label, title: label }, text);
  node.addEventListener("click", action);
  return node;
}

const inks = new Map();

// The value of a CSS variable as the reader's theme has it now.
function ink(name) {
  if (!inks.has(name)) {
    inks.set(name, getComputedStyle(document.documentElement).getPropertyValue(name).trim() || "#888888");
  }
  return inks.get(name);
}

function pageData() {
  const holder = document.getElementById("page-data");
  return holder ? JSON.parse(holder.textContent) : { runs: {}, charts: {}, explore: null };
}

// Says a sentence to readers who cannot see the page.
function announce(text) {
  const live = document.getElementById("announcer");
  if (live) live.textContent = text;
}

// Whether the text is in the clipboard now.
async function copyText(text) {
  let copied = true;
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    copied = copyBySelection(text);
  }
  announce(copied ? "copied" : "not copied: this browser keeps the clipboard to itself");
  return copied;
}

// For browsers that keep the clipboard from pages on disk.
function copyBySelection(text) {
  const area = element("textarea", { class: "away", "aria-hidden": "true" });
  area.value = text;
  document.body.append(area);
  area.select();
  const done = document.execCommand("copy");
  area.remove();
  return done;
}
