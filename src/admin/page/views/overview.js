// What is wrong, and how much there is of everything, now and in the last minutes.

import { chart } from '../charts.js';
import { choice, fill, h, mark, say } from '../dom.js';
import { ago, bytes, bytesRate, clock, count, harmless, micros, percent, rate, whole } from '../format.js';
import { isFailing, problems } from '../problems.js';
import { store } from '../store.js';
import { eventLine, toneOf } from './events.js';

export const title = 'Overview';
export const wide = true;

const TILES = {
  'Connections': () => [
    count(store.status.connections),
    `${percent(store.status.connections, store.status.max_connections)} of ${count(store.status.max_connections)}`,
  ],
  'New': () => [`${rate(store.rates?.accepted)}/s`, `${count(store.status.accepted)} since the start`],
  'To clients': () => [bytesRate(store.rates?.down), `${bytes(store.status.bytes_down)} since the start`],
  'From clients': () => [bytesRate(store.rates?.up), `${bytes(store.status.bytes_up)} since the start`],
  'First byte, p99': () => {
    const its = store.status.latencies.find((one) => one.name === 'first_byte')?.last_10s;
    return its?.count ? [micros(its.p99_us), `half within ${micros(its.p50_us)}`] : ['–', 'no session in 10 s'];
  },
  'Refused': () => [`${rate(store.rates?.refused)}/s`, 'by rules and limits', store.rates?.refused > 0 && 'warn'],
  'Backends': () => {
    const all = store.pools.flatMap((pool) => pool.backends).filter((one) => !one.leaving);
    const usable = all.filter((one) => one.in_rotation).length;
    const failing = all.filter(isFailing).length;
    const rest = failing > 1 ? `${failing} fail` : failing ? '1 fails' : 'none fails';
    return [`${usable} of ${all.length}`, `take new sessions; ${rest}`, failing > 0 && 'bad'];
  },
};

const KINDS = [
  ['first_byte', 'first byte of the backend'],
  ['connect', 'connection to the backend'],
  ['session', 'end of the session'],
];

export function show(box) {
  const wrong = h('ul', { class: 'problems' });
  const calm = h('p', { class: 'calm' });
  const tiles = Object.keys(TILES).map(() => ({ value: h('b'), note: h('span'), tile: null }));
  const strip = h(
    'dl',
    { class: 'tiles' },
    Object.keys(TILES).map((name, place) => {
      const its = tiles[place];
      its.tile = h('div', { class: 'tile' }, h('dt', null, name), h('dd', null, its.value, its.note));
      return its.tile;
    }),
  );
  const minutes = choice(SPANS, '300', () => update('show'));
  const kind = choice(KINDS, 'first_byte', () => update('show'));
  const traffic = chart({
    title: 'Throughput',
    series: [
      { label: 'to clients', colour: 'line-1', fill: true },
      { label: 'from clients', colour: 'line-2', dash: [5, 4] },
    ],
    format: bytesRate,
    step: 1,
  });
  const open = chart({
    title: 'Connections',
    series: [
      { label: 'open', colour: 'line-1', fill: true },
      { label: 'waiting for a place', colour: 'warn', dash: [5, 4] },
    ],
    format: count,
    step: 1,
  });
  const fresh = chart({
    title: 'New clients',
    series: [
      { label: 'accepted', colour: 'line-1', fill: true },
      { label: 'refused', colour: 'bad', dash: [5, 4] },
      { label: 'reached no backend', colour: 'warn', dash: [2, 3] },
    ],
    format: (value) => `${rate(value)}/s`,
    step: 0.1,
  });
  const waits = chart({
    title: 'Waiting time of clients',
    about: 'until …, over the last 10 s',
    series: [
      { label: 'p50', colour: 'line-3' },
      { label: 'p99', colour: 'line-1' },
      { label: 'p99.9', colour: 'line-4', dash: [5, 4] },
    ],
    format: micros,
    log: true,
  });
  const charts = [traffic, fresh, open, waits];
  waits.element.querySelector('figcaption').replaceChildren(
    h('h3', null, 'Waiting time of clients'),
    h('label', { class: 'inline' }, h('span', null, 'until the '), kind),
  );
  const costs = h('ul', { class: 'costs' });
  const cost = h(
    'section',
    { 'aria-labelledby': 'cost', hidden: true },
    h('h2', { id: 'cost' }, 'What settings have cost clients since the start'),
    costs,
  );
  const last = h('ol', { class: 'eventlist' });
  box.append(
    h('section', { 'aria-labelledby': 'wrong' }, h('h2', { id: 'wrong' }, 'What is wrong now'), calm, wrong),
    h('section', { 'aria-labelledby': 'figures' }, h('h2', { id: 'figures' }, 'Now'), strip),
    cost,
    h(
      'section',
      { 'aria-labelledby': 'course' },
      h('div', { class: 'bar-of-tools' }, h('h2', { id: 'course' }, 'Last minutes'), h('label', { class: 'inline' }, h('span', null, 'Show '), minutes)),
      h('div', { class: 'charts' }, charts.map((its) => its.element)),
    ),
    h('section', { 'aria-labelledby': 'news' }, h('h2', { id: 'news' }, 'Last events'), last, h('p', null, h('a', { href: '#/events' }, 'All events'))),
  );

  function update(what) {
    if (what !== 'stream') drawProblems(wrong, calm);
    if (what === 'events' || what === 'show') {
      const latest = store.events.slice(-6).reverse();
      fill(last, latest.length ? latest.map(eventLine) : h('li', { class: 'empty' }, 'Nothing has happened yet.'));
    }
    if (!store.status || what === 'events' || what === 'stream') return;
    Object.values(TILES).forEach((read, place) => {
      const [value, note, tone] = read();
      say(tiles[place].value, value);
      say(tiles[place].note, note);
      mark(tiles[place].tile, 'data-tone', tone || null);
    });
    const { regrets = [] } = store.status;
    cost.hidden = regrets.length === 0;
    const told = JSON.stringify(regrets);
    if (costs.dataset.shown !== told) {
      costs.dataset.shown = told;
      fill(costs, regrets.map((sentence) => h('li', null, sentence)));
    }
    const seconds = Number(minutes.value);
    const { points } = store;
    traffic.update([points.time, points.down, points.up], seconds);
    open.update([points.time, points.connections, points.queued], seconds);
    fresh.update([points.time, points.accepted, points.refused, points.failed], seconds);
    const times = ['p50', 'p99', 'p999'].map((name) => points[`${kind.value}.${name}`]);
    waits.update([points.time, ...times], seconds);
  }

  return { update, leave: () => charts.forEach((its) => its.destroy()) };
}

function drawProblems(list, calm) {
  const found = problems();
  const before = store.events.findLast((event) => ['bad', 'warn'].includes(toneOf(event)));
  const last = before ? ` The last warning was ${ago(before.ms)}: ${before.message}` : '';
  const tells = store.status ? `Nothing is wrong.${last}` : 'Asking the balancer …';
  say(calm, found.some((problem) => problem.tone !== 'note') ? '' : tells);
  calm.hidden = calm.textContent === '';
  const wanted = JSON.stringify(found.map(({ tone, text, todo }) => [tone, text, todo]));
  if (list.dataset.shown !== wanted) {
    list.dataset.shown = wanted;
    fill(list, found.map(problemItem));
  }
  found.forEach((problem, place) => {
    const item = list.children[place];
    say(item.querySelector('.why'), problem.why ?? '');
    const from = problem.isSeen ? 'seen' : 'since';
    say(item.querySelector('time'), `${from} ${clock(problem.since)}, ${ago(problem.since)}`);
  });
}

function problemItem(problem) {
  const names = { bad: 'Problem', warn: 'Warning', note: 'Note' };
  return h(
    'li',
    { 'data-tone': problem.tone },
    h('span', { class: 'badge', 'data-tone': problem.tone }, names[problem.tone]),
    h('div', null, h('p', { class: 'what' }, harmless(problem.text)), h('p', { class: 'why' }), h('time', { title: whole(problem.since) })),
    h('p', { class: 'todo' }, (problem.todo ?? []).map(({ text, href }) => h('a', { href }, text))),
  );
}

const SPANS = [['120', '2 minutes'], ['300', '5 minutes'], ['900', '15 minutes']];
