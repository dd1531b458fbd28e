// Paints the marks of a chart on a canvas. Positions come in canvas pixels from `at`, colours from the style sheet.
//
// A mark is {kind, x, y, low, high, colour, ...}: points, line, band (between low and high), bars (from low to high,
// along x or y), level (a line across) or strip (an area across). `study/report/marks.py` makes them.

const POINT_RADIUS = 4;
const AREAS = ["band", "strip"]; // below every line, whichever fit they are of

function paintMarks(context, marks, at, ratio, shown) {
  const areas = marks.filter(({ kind }) => AREAS.includes(kind));
  for (const mark of [...areas, ...marks.filter((one) => !areas.includes(one))]) {
    if (shown(mark)) PAINTERS[mark.kind](context, mark, at, ratio, shown);
  }
}

const PAINTERS = { band: paintBand, line: paintLine, bars: paintBars, level: paintLevel, strip: paintStrip, points: paintPoints };

function paintBand(context, mark, at) {
  context.globalAlpha = mark.opacity;
  context.fillStyle = ink(mark.colour);
  context.beginPath();
  mark.x.forEach((x, index) => context.lineTo(...at(x, mark.high[index])));
  for (let index = mark.x.length - 1; index >= 0; index -= 1) context.lineTo(...at(mark.x[index], mark.low[index]));
  context.closePath();
  context.fill();
  context.globalAlpha = 1;
}

function setStroke(context, mark, ratio) {
  context.strokeStyle = ink(mark.colour);
  context.lineWidth = mark.width * ratio;
  context.setLineDash((mark.dashed ? [5, 4] : mark.dotted ? [1.5, 3] : []).map((length) => length * ratio));
  context.globalAlpha = mark.opacity;
}

function endStroke(context) {
  context.stroke();
  context.setLineDash([]);
  context.globalAlpha = 1;
}

function paintLine(context, mark, at, ratio) {
  setStroke(context, mark, ratio);
  context.beginPath();
  mark.x.forEach((x, index) => context.lineTo(...at(x, mark.y[index])));
  endStroke(context);
}

function paintBars(context, mark, at, ratio) {
  setStroke(context, mark, ratio);
  context.beginPath();
  mark.low.forEach((low, index) => {
    const alongX = mark.along === "x";
    context.moveTo(...(alongX ? at(low, mark.y[index]) : at(mark.x[index], low)));
    context.lineTo(...(alongX ? at(mark.high[index], mark.y[index]) : at(mark.x[index], mark.high[index])));
  });
  endStroke(context);
}

function paintLevel(context, mark, at, ratio) {
  const y = at(null, mark.y[0])[1];
  setStroke(context, mark, ratio);
  context.beginPath();
  context.moveTo(0, y);
  context.lineTo(context.canvas.width, y);
  endStroke(context);
}

function paintStrip(context, mark, at) {
  const top = at(null, mark.high[0])[1];
  context.globalAlpha = mark.opacity;
  context.fillStyle = ink(mark.colour);
  context.fillRect(0, top, context.canvas.width, at(null, mark.low[0])[1] - top);
  context.globalAlpha = 1;
}

function paintPoints(context, mark, at, ratio, shown) {
  mark.x.forEach((x, index) => {
    if (!shown(mark, index)) return;
    const [left, top] = at(x, mark.y[index]);
    context.beginPath();
    outline(context, mark.shape, left, top, POINT_RADIUS * ratio);
    context.fillStyle = ink(mark.filled[index] ? colourAt(mark, index) : "--ink-paper");
    context.strokeStyle = ink(colourAt(mark, index));
    context.lineWidth = 1.5 * ratio;
    context.fill();
    context.stroke();
  });
}

function colourAt(mark, index) {
  return mark.colours ? mark.colours[index] : mark.colour;
}

function outline(context, shape, left, top, radius) {
  if (shape === "diamond") {
    context.moveTo(left, top - 1.3 * radius);
    context.lineTo(left + 1.3 * radius, top);
    context.lineTo(left, top + 1.3 * radius);
    context.lineTo(left - 1.3 * radius, top);
    context.closePath();
  } else {
    context.arc(left, top, radius, 0, 2 * Math.PI);
  }
}
