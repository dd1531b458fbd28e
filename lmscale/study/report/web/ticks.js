// Round numbers for an axis, as `study/plots/axes.py` chooses them.

const TENTHS = [
  ...Array.from({ length: 10 }, (_, step) => (10 + step) / 10),
  ...Array.from({ length: 5 }, (_, step) => (20 + 2 * step) / 10),
  ...Array.from({ length: 14 }, (_, step) => (30 + 5 * step) / 10),
];
const STEPS = [TENTHS, [1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8], [1, 1.5, 2, 3, 5, 7], [1, 2, 5], [1, 3], [1]];

function logTicks(low, high, most) {
  const first = Math.floor(Math.log10(low)) - 1;
  const last = Math.ceil(Math.log10(high));
  let ticks = [];
  for (const steps of STEPS) {
    ticks = [];
    for (let decade = first; decade <= last; decade += 1) {
      for (const step of steps) {
        const tick = step * 10 ** decade;
        if (low <= tick && tick <= high) ticks.push(tick);
      }
    }
    if (ticks.length <= most) return ticks;
  }
  const every = Math.ceil(ticks.length / most);
  return ticks.filter((_, index) => index % every === 0);
}

function linearTicks(low, high, most) {
  const rough = (high - low) / Math.max(1, most);
  const decade = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((one) => one * decade).find((one) => one >= rough);
  const ticks = [];
  for (let index = Math.ceil(low / step); index * step <= high; index += 1) {
    ticks.push(Number((index * step).toPrecision(12)));
  }
  return ticks;
}
