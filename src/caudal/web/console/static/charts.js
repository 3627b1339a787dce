// Charts by uPlot: bars and lines, from the page's own numbers or fetched. Loaded by pages that draw, before console.js.
"use strict";
(() => {
  const root = document.documentElement;
  const $$ = (selector, within = document) => [...within.querySelectorAll(selector)];
  const language = root.lang;
  const numbers = new Intl.NumberFormat(language, { maximumFractionDigits: 4 });

  // charts
  const colour = (name) => getComputedStyle(root).getPropertyValue(name).trim();
  const palette = () => [colour("--accent"), "#c2571a", "#7a5bd0", "#3c8f3c", "#c0397a"];

  const axes = (extra) => {
    // In proportion to the page's own letters, which are larger on a wall.
    const letter = 0.75 * parseFloat(getComputedStyle(root).fontSize);
    const common = { font: `${letter}px system-ui, sans-serif`, stroke: colour("--soft"), grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false } };
    return [
      { ...common, size: 20 + letter, grid: { show: false }, ...extra },
      { ...common, size: 14 + 4 * letter, values: (_, splits) => splits.map((value) => numbers.format(value)) },
    ];
  };

  const bars = (place, given, size) => {
    const count = given.values.length;
    return new uPlot(
      {
        ...size,
        legend: { show: false },
        cursor: { drag: { x: false, y: false }, points: { show: false } },
        scales: { x: { time: false, range: [-0.6, count - 0.4] }, y: { range: (_, low, high) => [Math.min(0, low), high > 0 ? high * 1.08 : 1] } },
        axes: axes({
          splits: () => given.values.map((_, place) => place),
          values: (plot, splits) => {
            const step = Math.max(1, Math.ceil((count * 62) / plot.width));
            return splits.map((place) => (place % step ? "" : given.labels[place] || ""));
          },
        }),
        series: [{}, { label: given.label, fill: colour("--accent"), stroke: colour("--accent"), paths: uPlot.paths.bars({ size: [0.7, 48], radius: 0.12 }), points: { show: false } }],
        plugins: [tooltip((plot, index) => [given.labels[index], `${numbers.format(given.values[index])}`])],
      },
      [given.values.map((_, index) => index), given.values],
      place,
    );
  };

  const lines = (place, given, size) => {
    const at = (options) => new Intl.DateTimeFormat(language, { timeZone: given.zone, hourCycle: "h23", ...options });
    const hour = at({ hour: "2-digit", minute: "2-digit" });
    const day = at({ day: "numeric", month: "short" });
    const month = at({ month: "short", year: "numeric" });
    const full = at({ dateStyle: "medium", timeStyle: "medium" });
    const series = [{}];
    const bands = [];
    const data = [given.t];
    const limits = given.series.flatMap((one) => [one.low, one.high].filter((value) => value != null));
    given.series.forEach((one, index) => {
      const stroke = palette()[index % 5];
      if (one.min) {
        const first = data.length;
        data.push(one.max, one.min);
        const edge = { stroke: "transparent", points: { show: false }, spanGaps: false };
        series.push({ ...edge, label: `${one.label} ↑` }, { ...edge, label: `${one.label} ↓` });
        bands.push({ series: [first, first + 1], fill: stroke + "33" });
      }
      data.push(one.values);
      series.push({ label: one.label, stroke, width: 1.5, spanGaps: false, points: { size: 4 }, ...(one.step ? { paths: uPlot.paths.stepped({ align: 1 }) } : {}) });
    });
    return new uPlot(
      {
        ...size,
        tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1000), given.zone),
        axes: axes({
          values: (_, splits, axis, space, step) =>
            splits.map((seconds) => (step < 86400 && hour.format(seconds * 1000) !== "00:00" ? hour : step < 2419200 ? day : month).format(seconds * 1000)),
        }),
        legend: { show: false },
        cursor: { drag: { x: true, y: false } },
        // The whole span that was asked for: that the data ended before it is news, too.
        scales: {
          x: { range: (_, low, high) => (low === given.t[0] && high === given.t.at(-1) ? [given.start, given.end] : [low, high]) },
          y: {
            range: (_, low, high) => {
              if (low == null) return [null, null];
              // A limit far from the data would flatten it; the words below the chart have it all the same.
              const reach = high - low || Math.abs(high) || 1;
              const near = limits.filter((value) => value > low - reach && value < high + reach);
              return uPlot.rangeNum(Math.min(low, ...near), Math.max(high, ...near), 0.1, true);
            },
          },
        },
        hooks: { draw: [(plot) => limits.forEach((value) => limit(plot, value))] },
        series,
        bands,
        plugins: [
          tooltip((_, index) => [
            full.format(data[0][index] * 1000),
            ...series.flatMap((one, place) => (place && data[place][index] != null ? `${one.label} ${numbers.format(data[place][index])}` : [])),
          ]),
        ],
      },
      data,
      place,
    );
  };

  // a limit, dashed, where the scale reaches it
  const limit = ({ ctx, bbox, scales, valToPos }, value) => {
    if (value < scales.y.min || value > scales.y.max) return;
    const width = Math.max(1, Math.round(devicePixelRatio));
    // (the middle of a pixel, where a line is sharp)
    const y = Math.round(valToPos(value, "y", true)) + (width % 2) / 2;
    ctx.save();
    ctx.strokeStyle = colour("--bad");
    ctx.lineWidth = width;
    ctx.setLineDash([6 * devicePixelRatio, 4 * devicePixelRatio]);
    ctx.beginPath();
    ctx.moveTo(bbox.left, y);
    ctx.lineTo(bbox.left + bbox.width, y);
    ctx.stroke();
    ctx.restore();
  };

  function tooltip(words) {
    return {
      hooks: {
        init: (plot) => {
          plot.tip = document.createElement("div");
          plot.tip.className = "tip";
          plot.tip.hidden = true;
          plot.over.append(plot.tip);
        },
        setCursor: (plot) => {
          const index = plot.cursor.idx;
          plot.tip.hidden = index == null || plot.cursor.left < 0;
          if (plot.tip.hidden) return;
          plot.tip.textContent = words(plot, index).join(" · ");
          const left = Math.min(plot.cursor.left + 12, plot.over.clientWidth - plot.tip.offsetWidth - 4);
          plot.tip.style.transform = `translate(${Math.max(0, left)}px, 4px)`;
        },
      },
    };
  }

  const draw = (place, given) => {
    const make = given.kind === "bars" ? bars : lines;
    const size = () => ({ width: Math.max(200, place.clientWidth), height: place.clientHeight });
    let plot = null;
    const again = () => {
      if (plot) plot.destroy();
      place.replaceChildren();
      plot = make(place, given, size());
    };
    again();
    let width = place.clientWidth;
    new ResizeObserver(() => {
      if (place.clientWidth === width) return;
      width = place.clientWidth;
      again();
    }).observe(place);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", again);
    place.dataset.drawn = "yes";
  };

  const charts = (within) => {
    $$("[data-chart]", within).forEach((place) => {
      if (!place.dataset.drawn) draw(place, JSON.parse(place.dataset.chart));
    });
    $$("[data-chart-from]", within).forEach(async (place) => {
      if (place.dataset.drawn) return;
      place.dataset.drawn = "asked";
      const tell = (words, again) => {
        const line = document.createElement("p");
        line.className = "hint";
        line.textContent = words;
        if (again) {
          const press = document.createElement("button");
          press.type = "button";
          press.textContent = document.body.dataset.again;
          press.addEventListener("click", () => {
            delete place.dataset.drawn;
            charts(place.parentElement);
          });
          line.append(" ", press);
        }
        place.replaceChildren(line);
        place.dataset.drawn = "told";
      };
      try {
        const answer = await fetch(place.dataset.chartFrom, { headers: { accept: "application/json" } });
        // Who is no longer signed in is led to the form, and back here.
        if (answer.redirected) return location.reload();
        if (!answer.ok) return tell(document.body.dataset.failed, true);
        const given = await answer.json();
        if (!given.t.length) tell(place.dataset.empty);
        else if (!given.series.some((one) => one.values.some((value) => value != null))) tell(place.dataset.words || place.dataset.empty);
        else {
          draw(place, given);
          const below = (words, lang) => {
            const line = document.createElement("p");
            line.className = "hint";
            line.lang = lang;
            line.textContent = words;
            place.after(line);
          };
          // What was left out or coarsened; the service says it in English.
          given.notes.forEach((words) => below(words, "en"));
          given.series.forEach((one) => one.limits && below(one.limits, language));
        }
      } catch {
        tell(document.body.dataset.network, true);
      }
    });
  };

  if (document.readyState === "complete") charts(document);
  else addEventListener("DOMContentLoaded", () => charts(document));
  document.addEventListener("htmx:load", (event) => charts(event.detail.elt));
})();
