// Starts the page: charts in place of the drawings, tables, sliders, the theme.

function startCharts(page) {
  const charts = [];
  for (const figure of document.querySelectorAll("figure[data-chart]")) {
    const specs = page.charts[figure.dataset.chart] || [];
    if (!specs.length) continue;
    const panels = element("div", { class: `panels of-${specs.length}` });
    figure.prepend(panels);
    figure.classList.add("is-live");
    for (const spec of specs) {
      const chart = new Chart(spec, page, (run, from) => goToRun(page, run, from));
      panels.append(chart.element);
      chart.start();
      charts.push(chart);
    }
  }
  return charts;
}

const THEMES = ["auto", "light", "dark"];

function startTheme(redraw) {
  const root = document.documentElement;
  const choose = button("theme: auto", "theme: automatic, light or dark", () => {
    const theme = THEMES[(THEMES.indexOf(root.dataset.theme || "auto") + 1) % THEMES.length];
    if (theme === "auto") delete root.dataset.theme;
    else root.dataset.theme = theme;
    choose.textContent = `theme: ${theme}`;
    redraw();
  });
  choose.className = "theme";
  document.body.prepend(choose);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
}

// Paper shows everything: what is folded away is opened, the drawings take the place of the charts.
function startPrinting() {
  let closed = [];
  addEventListener("beforeprint", () => {
    closed = [...document.querySelectorAll("details:not([open])")];
    for (const one of closed) one.open = true;
  });
  addEventListener("afterprint", () => {
    for (const one of closed) one.open = false;
  });
}

function start() {
  const page = pageData();
  document.body.append(element("div", { id: "announcer", class: "away", "aria-live": "polite" }));
  startRuns(page);
  startTables();
  const charts = startCharts(page);
  startExplore(page.explore, charts);
  startParameters(page.sensitivity);
  startTheme(() => {
    inks.clear();
    for (const chart of charts) chart.redraw();
  });
  startPrinting();
}

start();
