// Statistics from the history: a range of time, and the same time of the day before beside it.

import { get, has } from '../api.js';
import { chart } from '../charts.js';
import { choice, field, fill, h, say, setOptions } from '../dom.js';
import { bytesRate, clock, count, micros, percent, rate, span } from '../format.js';
import { store } from '../store.js';
import { eventLine } from './events.js';

export const title = 'History';

const RANGES = [
  ['900', '15 minutes'], ['3600', '1 hour'], ['21600', '6 hours'], ['86400', '1 day'],
  ['604800', '1 week'], ['2592000', '30 days'],
];
const DAY = 86_400;
const WEEK = 7 * DAY;

const PER_SECOND = (value) => `${rate(value)}/s`;
/** The least difference that a form shows. */
const STEPS = new Map([[count, 1], [bytesRate, 1], [PER_SECOND, 0.1]]);

/** The figures of each kind of subject: where they come from, and how they are written. */
const CHARTS = {
  process: [
    ['Connections', { gauge: ['connections'] }, count],
    ['New clients', { counter: ['worker_accepted', 'accepted'] }, PER_SECOND],
    ['Bytes to clients', { counter: ['worker_traffic.down', 'traffic.down'] }, bytesRate],
    ['Bytes from clients', { counter: ['worker_traffic.up', 'traffic.up'] }, bytesRate],
    ['First byte, p99', { quantile: ['worker_first_byte', 'first_byte'] }, micros],
    ['Sessions that failed', { counter: ['worker_closed.connect_failed', 'worker_closed.no_backend'], isSum: true }, PER_SECOND],
  ],
  listener: [
    ['Connections', { gauge: ['connections'] }, count],
    ['Bytes to clients', { counter: ['traffic.down'] }, bytesRate],
    ['Bytes from clients', { counter: ['traffic.up'] }, bytesRate],
    ['Refused clients', { prefix: 'refused' }, PER_SECOND],
  ],
  pool: [
    ['Connections', { gauge: ['connections'] }, count],
    ['Waiting clients', { gauge: ['queued'] }, count],
    ['Bytes to clients', { counter: ['traffic.down'] }, bytesRate],
    ['Bytes from clients', { counter: ['traffic.up'] }, bytesRate],
  ],
  backend: [
    ['Connections', { gauge: ['connections'] }, count],
    ['New connections', { counter: ['opened'] }, PER_SECOND],
    ['Bytes to clients', { counter: ['traffic.down'] }, bytesRate],
    ['Failed connects', { prefix: 'connect_failures' }, PER_SECOND],
  ],
};

/** The values of a figure per interval, of the first name that there is. */
function values(figures, { gauge, counter, quantile, prefix, isSum }, step) {
  const perSecond = (list) => list.map((value) => (value == null ? null : value / step));
  if (prefix) {
    const named = Object.entries(figures).filter(([name, its]) => its.sum && (name === prefix || name.startsWith(`${prefix}.`)));
    return named.length ? perSecond(sums(named.map(([, its]) => its.sum))) : null;
  }
  if (isSum) {
    const lists = counter.map((name) => figures[name]?.sum).filter(Boolean);
    return lists.length ? perSecond(sums(lists)) : null;
  }
  const found = (gauge ?? counter ?? quantile).map((name) => figures[name]).find(Boolean);
  if (!found) return null;
  if (gauge) return found.mean;
  if (counter) return perSecond(found.sum);
  return found.p99.map((value) => (value == null ? null : value * 1e6));
}

const sums = (lists) =>
  lists[0].map((_, place) => {
    const known = lists.map((list) => list[place]).filter((value) => value != null);
    return known.length ? known.reduce((sum, value) => sum + value, 0) : null;
  });

/** Without the last interval while that goes on: it would look like a fall. */
function finished(answer) {
  const last = answer.at.at(-1);
  if (last + answer.step > Date.now() / 1000) answer.at.pop();
  return answer;
}

export function show(box, query) {
  const range = choice(RANGES, query.get('range') ?? '3600', () => load());
  const subject = choice([['process', 'the whole balancer']], 'process', () => load());
  const against = h('input', { type: 'checkbox', onchange: () => load() });
  const error = h('p', { class: 'error', role: 'alert' });
  const note = h('p', { class: 'hint', role: 'status' });
  const charts = h('div', { class: 'charts' });
  const figures = h('div', { class: 'tablebox', role: 'region', 'aria-label': 'This time range', tabindex: 0 });
  const events = h('ol', { class: 'eventlist' });
  const parts = h(
    'div',
    null,
    h('form', { class: 'filters', onsubmit: (event) => event.preventDefault() },
      field('Time', range), field('Of', subject),
      h('label', { class: 'check' }, against, 'Compare with the day before')),
    error, note, charts,
    h('section', { class: 'below' }, h('h2', null, 'In figures'), figures),
    h('section', { class: 'below' }, h('h2', null, 'What happened in this time'), events),
  );
  box.append(parts);
  let drawn = [];
  let isGone = false;
  let turn = 0;

  async function load() {
    turn += 1;
    const mine = turn;
    try {
      if (!(await has('/v1/history'))) {
        say(note, 'This balancer keeps no history: its version has none.');
        return;
      }
      const seconds = Number(range.value);
      const until = Math.floor(Date.now() / 1000);
      const before = seconds > DAY ? WEEK : DAY;
      say(against.parentElement.lastChild, seconds > DAY ? 'Compare with the week before' : 'Compare with the day before');
      const [now, then, happened] = await Promise.all([
        ask(until - seconds, until),
        against.checked ? ask(until - seconds - before, until - before) : null,
        get('/v1/history/events', { since: until - seconds, limit: 50, ...names() }),
      ]);
      // A later choice has overtaken this answer.
      if (isGone || mine !== turn) return;
      say(error, '');
      draw(now, then, before, seconds);
      fill(events, happened.length ? happened.map(eventLine) : h('li', { class: 'empty' }, 'Nothing is known to have happened.'));
    } catch (failure) {
      if (!isGone && mine === turn) say(error, failure.message);
    }
  }

  /** What the events are about. */
  const names = () => {
    const [kind, pool, backend] = chosen();
    if (kind === 'pool') return { pool };
    return kind === 'backend' ? { pool, backend } : {};
  };

  async function ask(since, until) {
    const [kind, name, backend] = chosen();
    const of = { of: kind, since, until };
    if (kind === 'listener') of.listener = name;
    if (kind === 'pool' || kind === 'backend') of.pool = name;
    if (kind === 'backend') of.backend = backend;
    return finished(await get('/v1/history', of));
  }

  const chosen = () => (subject.value === 'process' ? ['process'] : JSON.parse(subject.value));

  function draw(now, then, before, seconds) {
    const [kind] = chosen();
    const its = now.subjects.find((one) => one.kind === kind)?.figures ?? {};
    const old = then?.subjects.find((one) => one.kind === kind)?.figures;
    drawn.forEach((one) => one.destroy());
    const shown = CHARTS[kind].map(([name, what, format]) => {
      const line = values(its, what, now.step);
      return line && { name, format, what, line, past: old && then.step === now.step ? values(old, what, then.step) : null };
    }).filter(Boolean);
    const word = before === DAY ? 'day before' : 'week before';
    drawn = shown.map(({ name, format, line, past }) => {
      const series = [{ label: then ? 'this time range' : undefined, colour: 'line-1', fill: true }];
      if (then) series.push({ label: word, colour: 'line-2', dash: [5, 4] });
      const its = chart({ title: name, series, format, step: STEPS.get(format) });
      const fit = (list) => now.at.map((_, place) => list?.[place] ?? null);
      setTimeout(() => !isGone && its.update([now.at, fit(line), ...(then ? [fit(past)] : [])], seconds));
      return its;
    });
    fill(charts, drawn.map((one) => one.element));
    drawTotals(shown, word, Boolean(then));
    const known = now.at.length && shown.some(({ line }) => line.some((value) => value != null));
    const each = `a point for each ${span(now.step)}`;
    say(note, known ? `${clock(now.since * 1000)} to ${clock(now.until * 1000)}, ${each}` : 'Nothing was recorded in this time.');
  }

  function drawTotals(shown, word, isCompared) {
    const mean = (list) => {
      const known = (list ?? []).filter((value) => value != null);
      return known.length ? known.reduce((sum, value) => sum + value, 0) / known.length : null;
    };
    const most = (list) => Math.max(...(list ?? []).filter((value) => value != null));
    const write = (format, value) => (value == null || !Number.isFinite(value) ? '–' : format(value));
    const heads = ['Figure', 'Mean', 'Maximum', ...(isCompared ? [`Mean, ${word}`, 'Change'] : [])];
    const rows = shown.map(({ name, format, line, past }) => {
      const [now, then] = [mean(line), mean(past)];
      const change = now != null && then > 0 ? `${now >= then ? '+' : '−'}${percent(Math.abs(now - then), then)}` : '–';
      const cells = [write(format, now), write(format, most(line)), ...(isCompared ? [write(format, then), change] : [])];
      return h('tr', null, h('th', { scope: 'row' }, name), cells.map((text) => h('td', { class: 'number' }, text)));
    });
    fill(
      figures,
      h('table', null,
        h('caption', { class: 'hidden' }, 'This time range'),
        h('thead', null, h('tr', null, heads.map((text, place) => h('th', { scope: 'col', class: place ? 'number' : '' }, text)))),
        h('tbody', null, rows)),
    );
  }

  function drawSubjects() {
    const backends = store.pools.flatMap((pool) => pool.backends.map((one) => [JSON.stringify(['backend', pool.name, one.name]), `backend ${pool.name}/${one.name}`]));
    setOptions(subject, [
      ['process', 'the whole balancer'],
      ...store.listeners.map((its) => [JSON.stringify(['listener', its.name]), `listener ${its.name}`]),
      ...store.pools.map((its) => [JSON.stringify(['pool', its.name]), `pool ${its.name}`]),
      ...backends,
    ]);
  }

  const timer = setInterval(() => !document.hidden && Number(range.value) <= 3_600 && load(), 15_000);
  load();
  return {
    update: (what) => (what === 'poll' || what === 'show') && drawSubjects(),
    leave() {
      isGone = true;
      clearInterval(timer);
      drawn.forEach((one) => one.destroy());
    },
  };
}

