// Numbers as a reader takes them in, as `core/numerals.py` writes them: 26.1k, 1,040, 3×10¹².

const RAISED = { "-": "⁻", 0: "⁰", 1: "¹", 2: "²", 3: "³", 4: "⁴", 5: "⁵", 6: "⁶", 7: "⁷", 8: "⁸", 9: "⁹" };
const LETTERS = [[1e12, "T"], [1e9, "B"], [1e6, "M"], [1e3, "k"]];
const TAIL = 30; // digits after which an exact tie would have ended

// Python rounds an exact tie to the even digit, JavaScript away from zero.
function isTie(digits) {
  return /^50*$/.test(digits);
}

function lastDigitIsEven(text) {
  return "02468".includes(text[text.length - 1]);
}

function fixed(value, places) {
  const long = value.toFixed(Math.min(100, places + TAIL));
  if (!isTie(long.slice(-TAIL))) return value.toFixed(places);
  const cut = long.slice(0, -TAIL).replace(/\.$/, "");
  return lastDigitIsEven(cut) ? cut : value.toFixed(places);
}

function exponential(value, places) {
  const [long, power] = value.toExponential(Math.min(100, places + TAIL)).split("e");
  if (!isTie(long.slice(-TAIL))) return value.toExponential(places);
  const cut = long.slice(0, -TAIL).replace(/\.$/, "");
  return lastDigitIsEven(cut) ? `${cut}e${power}` : value.toExponential(places);
}

function withoutZeros(text) {
  return text.includes(".") ? text.replace(/0+$/, "").replace(/\.$/, "") : text;
}

// Python's format ".3g" for 3 digits.
function general(value, digits) {
  if (value === 0) return "0";
  const [mantissa, exponent] = exponential(value, digits - 1).split("e");
  const power = Number(exponent);
  if (power >= -4 && power < digits) return withoutZeros(fixed(value, digits - 1 - power));
  const size = String(Math.abs(power)).padStart(2, "0");
  return `${withoutZeros(mantissa)}e${power < 0 ? "-" : "+"}${size}`;
}

function withDigits(value, digits) {
  if (value === 0) return "0";
  const power = Number(exponential(Math.abs(value), digits - 1).split("e")[1]);
  return fixed(value, Math.max(0, digits - 1 - power));
}

function compact(value, digits = 3) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  for (const [size, letter] of LETTERS) {
    if (Math.abs(value) >= size * (1 - 0.5 * 10 ** -digits)) {
      return value >= 1e15 ? exponential(value, 2) : withDigits(value / size, digits) + letter;
    }
  }
  return withDigits(value, digits);
}

function power(value, digits = 3) {
  const [mantissa, exponent] = exponential(value, digits - 1).split("e");
  const raised = "10" + [...String(Number(exponent))].map((one) => RAISED[one]).join("");
  const factor = withoutZeros(mantissa);
  return factor === "1" ? raised : `${factor}×${raised}`;
}

function number(value) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  if (Math.abs(value) >= 1e6) return power(value, 1);
  if (Math.abs(value) >= 1000) return fixed(value, 0).replace(/\B(?=(\d{3})+$)/g, ",");
  return Math.abs(value) < 1e-3 || Number.isInteger(value) ? general(value, 3) : withDigits(value, 3);
}

const NUMERALS = {
  power: (value) => power(value),
  compact: (value) => compact(value, 2).replace(".0", ""),
  plain: (value) => general(value, 3),
  percent: (value) => `${general(value, 3)} %`,
};
