// Elements of the page, made and found.

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== false) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children);
  return made;
}

function button(text, label, action) {
  const made = element("button", { type: "button", "aria-label": label, title: label }, text);
  made.addEventListener("click", action);
  return made;
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

async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return copyBySelection(text);
  }
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
