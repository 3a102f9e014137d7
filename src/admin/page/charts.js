// Lines over time, drawn by uPlot: axes with units, a reading at the pointer, and the present
// values in words beside the title.

import { h, mark, say } from './dom.js';
import { clock } from './format.js';

const { uPlot } = globalThis;
const drawn = new Set();

/** The colours of the style sheet as they are now. */
function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

/** Draws all charts again: the colours have changed. */
export function recolour() {
  drawn.forEach((chart) => chart.rebuild());
}

/**
 * A chart. Each of `series` has `label`, `colour` (a variable of the style sheet), maybe `dash` and
 * `fill`. `format` writes a value with its unit, `tick` one of the axis; `step` is the least
 * difference that it shows. `log` is for times, which differ by powers of ten. A single line
 * without a label needs no legend.
 */
export function chart(given) {
  const { title, about, series, format, tick = format, step, log, height = 180, span } = given;
  const legend = h('ul', { class: 'legend', hidden: series.every((line) => !line.label) });
  const values = series.map((line) => {
    const value = h('b');
    const swatch = h('i', { class: 'swatch', 'data-dash': line.dash ? 'dash' : null });
    swatch.style.setProperty('--line', `var(--${line.colour})`);
    legend.append(h('li', null, swatch, h('span', null, `${line.label} `), value));
    return value;
  });
  const canvas = h('div', { class: 'canvas', role: 'img', 'aria-label': title });
  const tip = h('div', { class: 'tip', hidden: true });
  const element = h(
    'figure',
    { class: 'chart' },
    h('figcaption', null, h('h3', null, title), about ? h('span', { class: 'hint' }, about) : null),
    legend,
    canvas,
  );
  let data = [[], ...series.map(() => [])];
  let plot = null;
  let window = span ?? null;
  let seen = false;

  function build() {
    plot?.destroy();
    plot = new uPlot(options(), data, canvas);
    plot.over.append(tip);
  }

  function options() {
    const grid = { stroke: colour('grid'), width: 1 };
    const axis = { stroke: colour('muted'), font: FONT, grid };
    // Of powers of ten only the whole ones are drawn.
    const filter = (_, all) => all.map((value) => (log && !isDecade(value) ? null : value));
    const line = ({ label, colour: name, dash, fill }) => ({
      label,
      stroke: colour(name),
      width: 1.75,
      dash: dash ?? undefined,
      fill: fill ? `${colour(name)}22` : undefined,
      points: { show: false, size: 5, width: 0, fill: colour(name), filter: alone },
      spanGaps: false,
    });
    return {
      width: Math.max(canvas.clientWidth, 160),
      height,
      padding: [8, 18, 0, 0],
      legend: { show: false },
      cursor: { sync: { key: 'time' }, drag: { x: false, y: false }, points: { size: 6 } },
      scales: {
        x: { time: true, range: (_, least, most) => range(least, most) },
        y: log
          ? { distr: 3, log: 10, range: (_, least, most) => logRange(least, most) }
          : { range: (_, __, most) => [0, most > 0 ? Math.max(most * 1.1, step ?? 0) : 1] },
      },
      axes: [
        { ...axis, space: 56, size: 32, ticks: { show: false }, values: (_, times) => times.map(axisTime) },
        {
          ...axis,
          size: 66,
          ticks: { show: false },
          // Ticks closer than what is written would read 0, 0, 1, 1.
          ...(step ? { incrs: STEPS.filter((its) => its >= step) } : {}),
          filter,
          grid: { ...grid, filter },
          values: (_, all) => all.map((value) => (value == null ? '' : tick(value))),
        },
      ],
      series: [{}, ...series.map(line)],
      hooks: { setCursor: [read] },
    };
  }

  const range = (least, most) => {
    if (most == null) return [Date.now() / 1000 - 60, Date.now() / 1000];
    return window ? [most - window, most] : [least, most];
  };

  const axisTime = (time) => {
    const [first, last] = [data[0][0], data[0].at(-1)];
    if (last - first > 2 * 86_400) return DAY.format(new Date(time * 1000));
    return (last - first > 7_200 || time % 60 === 0 ? MINUTE : SECOND).format(new Date(time * 1000));
  };

  function read(self) {
    const { idx, left } = self.cursor;
    if (idx == null || left < 0 || data[0][idx] == null) {
      tip.hidden = true;
      return;
    }
    const lines = series.map((line, place) => {
      const value = data[place + 1][idx];
      const label = line.label ? `${line.label} ` : '';
      return h('span', null, label, h('b', null, value == null ? '–' : format(value)));
    });
    tip.replaceChildren(h('span', { class: 'when' }, clock(data[0][idx] * 1000)), ...lines);
    tip.hidden = false;
    const isRight = left > self.over.clientWidth / 2;
    tip.style.left = isRight ? 'auto' : `${left + 12}px`;
    tip.style.right = isRight ? `${self.over.clientWidth - left + 12}px` : 'auto';
  }

  const watch = new ResizeObserver(() => {
    const width = canvas.clientWidth;
    if (!plot || width === 0 || width === plot.width) return;
    plot.setSize({ width, height });
  });
  watch.observe(canvas);
  const self = {
    element,
    rebuild: () => plot && build(),
    /** Takes times in seconds, and the values of each series. */
    update(next, seconds) {
      data = next;
      window = seconds ?? window;
      if (!plot) build();
      else plot.setData(data);
      const now = series.map((_, place) => data[place + 1].at(-1));
      now.forEach((value, place) => say(values[place], value == null ? '–' : format(value)));
      // Often enough for those who ask, and not a stream of words.
      if (!seen || Date.now() - self.saidAt > 10_000) {
        const sentence = series.map(({ label = '' }, place) => `${label} ${values[place].textContent}`);
        mark(canvas, 'aria-label', `${title}: ${sentence.join(', ')}`);
        self.saidAt = Date.now();
        seen = true;
      }
    },
    destroy() {
      watch.disconnect();
      plot?.destroy();
      drawn.delete(self);
    },
  };
  drawn.add(self);
  return self;
}

/** Whole decades, so that the axis stays put while times move within them. */
function logRange(least, most) {
  if (!(most > 0)) return [1, 1000];
  const first = 10 ** Math.floor(Math.log10(Math.max(least, 0.1)));
  const last = 10 ** Math.ceil(Math.log10(most * 1.05));
  return [first, Math.max(last, first * 10)];
}

/** The places of points without neighbours: no line shows them. */
function alone({ data }, line) {
  const values = data[line];
  const found = [];
  values.forEach((value, place) => {
    if (value != null && values[place - 1] == null && values[place + 1] == null) found.push(place);
  });
  return found.length ? found : null;
}

/** 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 25, 50 and so on. */
const STEPS = Array.from({ length: 18 }, (_, power) =>
  [1, 2, ...(power > 1 ? [2.5] : []), 5].map((digit) => (digit * 10 ** power) / 10),
).flat();
const isDecade = (value) => Math.abs(Math.log10(value) - Math.round(Math.log10(value))) < 1e-6;
const FONT = '11px system-ui, sans-serif';
const format = (options) => new Intl.DateTimeFormat('en-GB', options);
const SECOND = format({ hour: '2-digit', minute: '2-digit', second: '2-digit' });
const MINUTE = format({ hour: '2-digit', minute: '2-digit' });
const DAY = format({ day: 'numeric', month: 'short' });

/** A bar of a part of 100, with a mark where it is expected to end. */
export function bar() {
  return h('span', { class: 'bar' }, h('i'), h('u'));
}

export function setBar(element, part, expected) {
  const width = (value) => `${Math.min(100, Math.max(0, 100 * value)).toFixed(2)}%`;
  const [done, target] = element.children;
  const wanted = width(part ?? 0);
  if (done.style.width !== wanted) done.style.width = wanted;
  target.hidden = expected == null;
  if (expected != null) target.style.left = width(expected);
}
