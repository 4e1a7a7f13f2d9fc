"use strict";
// Small plots of several runs, as SVG; a plot is a figure that is drawn again as its curves grow.
const charts = (() => {
  const WIDTH = 360;
  const HEIGHT = 210;
  const LEFT = 46;
  const RIGHT = 8;
  const TOP = 8;
  const BOTTOM = 34;
  const NUM_COLOURS = 6;

  const shape = (name, attributes, ...children) => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.append(...children);
    return made;
  };
  const element = (name, text, className = "") => {
    const made = Object.assign(document.createElement(name), { className });
    made.textContent = text;
    return made;
  };
  // The look of a curve by its place: colours, then the same ones dashed.
  const look = (place) => ({
    stroke: `var(--series-${(place % NUM_COLOURS) + 1})`,
    "stroke-dasharray": place < NUM_COLOURS ? "none" : "5 3",
  });
  const swatch = (place) =>
    shape("svg", { viewBox: "0 0 28 8", "aria-hidden": "true" },
      shape("path", { d: "M0 4H28", "stroke-width": 2.5, ...look(place) }));
  const format = (value) => {
    if (value === 0) return "0";
    const size = Math.abs(value);
    if (size < 0.001 || size >= 1e6) return value.toExponential(1).replace("e+", "e");
    return String(parseFloat(value.toPrecision(4)));
  };

  // Round numbers that divide a range into about so many parts.
  const ticks = (low, high, count) => {
    const rough = (high - low) / count;
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = power * [1, 2, 2.5, 5, 10].find((factor) => factor * power >= rough * 0.8);
    const first = Math.ceil(low / step - 1e-9);
    const last = Math.floor(high / step + 1e-9);
    return Array.from({ length: last - first + 1 }, (_, place) => (first + place) * step);
  };
  const range = (values, fallback) => {
    let [low, high] = [Infinity, -Infinity];
    for (const value of values) {
      if (value < low) low = value;
      if (value > high) high = value;
    }
    if (low > high) return fallback;
    const rest = high === low ? Math.abs(low) * 0.1 || 1 : 0;
    return [low - rest, high + rest];
  };

  const path = (curve, x, y) =>
    curve.xs.map((at, place) => `${place ? "L" : "M"}${x(at).toFixed(1)} ${y(curve.ys[place]).toFixed(1)}`)
      .join("");

  const draw = (figure, { title, axis, curves }) => {
    const [left, right] = range(curves.flatMap((curve) => curve.xs), [0, 1]);
    const [low, high] = range(curves.flatMap((curve) => curve.ys), [0, 1]);
    const room = (high - low) * 0.04;
    const x = (value) => LEFT + ((value - left) / (right - left)) * (WIDTH - LEFT - RIGHT);
    const y = (value) =>
      HEIGHT - BOTTOM - ((value - low + room) / (high - low + 2 * room)) * (HEIGHT - TOP - BOTTOM);
    const parts = [];
    for (const value of ticks(low, high, 5)) {
      const at = y(value).toFixed(1);
      parts.push(shape("path", { class: "grid", d: `M${LEFT} ${at}H${WIDTH - RIGHT}` }));
      parts.push(shape("text", { x: LEFT - 6, y: at, "text-anchor": "end", "dominant-baseline": "middle" },
        format(value)));
    }
    for (const value of ticks(left, right, 5)) {
      const at = x(value);
      const anchor = at > WIDTH - 16 ? "end" : "middle";
      parts.push(shape("path", { class: "grid", d: `M${at.toFixed(1)} ${TOP}V${HEIGHT - BOTTOM}` }));
      parts.push(shape("text", { x: at.toFixed(1), y: HEIGHT - BOTTOM + 14, "text-anchor": anchor },
        format(value)));
    }
    parts.push(shape("text", { x: (LEFT + WIDTH - RIGHT) / 2, y: HEIGHT - 4, "text-anchor": "middle" },
      axis));
    for (const curve of curves) {
      parts.push(curve.xs.length === 1
        ? shape("circle", { cx: x(curve.xs[0]), cy: y(curve.ys[0]), r: 3, fill: look(curve.place).stroke })
        : shape("path", { class: "curve", d: path(curve, x, y), ...look(curve.place) }));
    }
    const last = curves.map((curve) => `${curve.name} ${format(curve.ys.at(-1))}`).join(", ");
    const svg = shape("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img",
      "aria-label": `${title} over ${axis}; last ${last}` }, ...parts);
    const cursor = shape("path", { class: "cursor", d: "" });
    svg.append(cursor);
    svg.addEventListener("pointermove", (event) => {
      const box = svg.getBoundingClientRect();
      const at = left + (((event.clientX - box.left) / box.width) * WIDTH - LEFT)
        / (WIDTH - LEFT - RIGHT) * (right - left);
      point(figure, cursor, x, axis, curves, Math.min(Math.max(at, left), right));
    });
    svg.addEventListener("pointerleave", () => leave(figure, cursor));
    const inside = figure.querySelector(".readout");
    figure.replaceChildren(element("figcaption", title), svg);
    if (inside && figure.pointed !== undefined) {
      point(figure, cursor, x, axis, curves, Math.min(Math.max(figure.pointed, left), right));
    }
  };

  const nearest = (curve, at) => {
    let best = 0;
    curve.xs.forEach((value, place) => {
      if (Math.abs(value - at) < Math.abs(curve.xs[best] - at)) best = place;
    });
    return best;
  };
  // Show the values of all curves at a place of the axis.
  const point = (figure, cursor, x, axis, curves, at) => {
    figure.pointed = at;
    const places = curves.map((curve) => nearest(curve, at));
    const found = curves.reduce((best, curve, number) => {
      const value = curve.xs[places[number]];
      return Math.abs(value - at) < Math.abs(best - at) ? value : best;
    }, Infinity);
    cursor.setAttribute("d", `M${x(found).toFixed(1)} ${TOP}V${HEIGHT - BOTTOM}`);
    const box = figure.querySelector(".readout") ?? element("div", "", "readout");
    const head = element("div", `${axis} ${format(found)}`, "head");
    const covers = ({ xs }) => xs[0] <= at && at <= xs.at(-1);
    const rows = curves.map((curve, number) => {
      const row = element("div", "");
      row.append(element("span", curve.name), element("span", covers(curve) ? format(curve.ys[places[number]]) : ""));
      row.firstChild.style.color = look(curve.place).stroke;
      return row;
    });
    box.replaceChildren(head, ...rows);
    figure.append(box);
  };
  const leave = (figure, cursor) => {
    figure.pointed = undefined;
    figure.querySelector(".readout")?.remove();
    cursor.setAttribute("d", "");
  };

  return { draw, swatch, format, element };
})();
