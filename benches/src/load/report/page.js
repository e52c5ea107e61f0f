"use strict";
(() => {
  const plots = JSON.parse(document.getElementById("plots").textContent);
  const drawn = [];

  const color = (name) => getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();

  /** Three digits that matter, as in the tables. */
  const number = (value) => {
    const size = Math.abs(value);
    const digits = size >= 100 ? 0 : size >= 10 ? 1 : size >= 1 ? 2 : 3;
    return value.toLocaleString("en", { minimumFractionDigits: 0, maximumFractionDigits: digits });
  };

  const clock = (seconds) => {
    const [hours, minutes, rest] = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60, Math.round(seconds % 60)];
    const two = (amount) => String(amount).padStart(2, "0");
    return hours ? `${hours}:${two(minutes)}:${two(rest)}` : `${minutes}:${two(rest)}`;
  };

  /** 0 nines are 0 %, 1 is 90 %, 2.5 are 99.684 %. */
  const percentile = (nines) => {
    const percent = 100 * (1 - 10 ** -nines);
    return "p" + Number(percent.toFixed(Math.max(0, Math.ceil(nines - 1e-9) - 1)));
  };

  /** What is not measured lies in the shade. */
  const shade = (spans) => (u) => {
    u.ctx.save();
    u.ctx.fillStyle = color("shade");
    for (const [from, to] of spans) {
      const left = Math.max(u.valToPos(from, "x", true), u.bbox.left);
      const right = Math.min(u.valToPos(to, "x", true), u.bbox.left + u.bbox.width);
      if (right > left) u.ctx.fillRect(left, u.bbox.top, right - left, u.bbox.height);
    }
    u.ctx.restore();
  };

  /** A logarithmic axis from just below the smallest value to just above the largest. */
  const logRange = (u, low, high) => (low > 0 ? [low / 1.3, high * 1.3] : [0.1, 10]);

  /** 1, 2, 5, 10, 20, … or only powers of ten when there are many. */
  const logSplits = (u, axis, low, high) => {
    const steps = Math.log10(high / low) > 3 ? [1] : [1, 2, 5];
    const splits = [];
    for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power++) {
      for (const step of steps) {
        const split = step * 10 ** power;
        if (split >= low && split <= high) splits.push(split);
      }
    }
    return splits;
  };

  /** A line is no chain of dots; only a point without neighbours would not be seen otherwise. */
  const alone = (u, series) => {
    const values = u.data[series];
    return values.flatMap((value, at) => (value != null && values[at - 1] == null && values[at + 1] == null ? [at] : []));
  };

  const options = (plot, view, width) => {
    const byPercentile = plot.axis === "percentile";
    const axis = { stroke: color("soft"), font: "12px system-ui, sans-serif", grid: { stroke: color("grid"), width: 1 }, ticks: { show: false } };
    const x = byPercentile
      ? { splits: [Math.log10(2), 1, 2, 3, 4, 5], values: (u, splits) => splits.map(percentile) }
      : { values: (u, splits) => splits.map(clock), incrs: [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600, 7200, 14400], space: 60 };
    const y = plot.log
      ? { splits: logSplits, values: (u, splits) => splits.map(number) }
      : { values: (u, splits) => splits.map(number) };
    return {
      width,
      height: plot.wide ? 300 : 220,
      scales: { x: { time: false }, y: plot.log ? { distr: 3, range: logRange } : { range: { min: { pad: 0, hard: 0, soft: 0, mode: 1 }, max: { pad: 0.12, soft: 1, mode: 2 } } } },
      axes: [{ ...axis, ...x, size: 32 }, { ...axis, ...y, size: 58, label: plot.unit, labelSize: 18, labelFont: axis.font, labelGap: 0 }],
      series: [
        { label: byPercentile ? "percentile" : "time", value: (u, value) => (value == null ? "–" : byPercentile ? percentile(value) : clock(value)) },
        ...view.lines.map((line) => ({
          label: line.name,
          stroke: color("c" + line.color),
          width: line.faint ? 1 : 2,
          alpha: line.faint ? 0.65 : 1,
          points: { show: false, filter: alone, size: 5 },
          value: (u, value) => (value == null ? "–" : number(value)),
        })),
      ],
      cursor: { points: { size: 7 }, ...(byPercentile ? {} : { sync: { key: "seconds", scales: ["x", null] } }) },
      legend: { markers: { width: 0, fill: (u, series) => color("c" + (view.lines[series - 1] || { color: 5 }).color) } },
      hooks: { drawClear: [shade(plot.shade)] },
    };
  };

  const place = (plot) => {
    const figure = document.getElementById("plot-" + plot.name);
    const canvas = figure.querySelector(".canvas");
    const buttons = figure.querySelector(".views");
    let shown = 0;
    let chart = null;
    const draw = () => {
      if (chart) chart.destroy();
      const view = plot.views[shown];
      const width = canvas.clientWidth;
      chart = new uPlot(options(plot, view, width), [view.x, ...view.lines.map((line) => line.values)], canvas);
    };
    if (plot.views.length > 1) {
      plot.views.forEach((view, index) => {
        const button = document.createElement("button");
        button.textContent = view.name;
        button.setAttribute("aria-pressed", index === 0);
        button.onclick = () => {
          shown = index;
          for (const other of buttons.children) other.setAttribute("aria-pressed", other === button);
          draw();
        };
        buttons.append(button);
      });
    }
    draw();
    new ResizeObserver(() => {
      const width = canvas.clientWidth;
      if (width > 0 && width !== chart.width) chart.setSize({ width, height: chart.height });
    }).observe(canvas);
    drawn.push(draw);
  };

  const redraw = () => drawn.forEach((draw) => draw());
  plots.forEach(place);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  // Paper is light, whatever the screen is.
  addEventListener("beforeprint", () => { document.documentElement.dataset.print = ""; redraw(); });
  addEventListener("afterprint", () => { delete document.documentElement.dataset.print; redraw(); });
})();
