// How connections are spread over the backends of a pool, and over the workers.

import { bar, setBar } from '../charts.js';
import { choice, field, h, say, setOptions } from '../dom.js';
import { bytesRate, count, percent, rate } from '../format.js';
import { minuteOf, store } from '../store.js';
import { table } from '../table.js';
import { expectedShare } from './backends.js';

export const title = 'Distribution';

const MEASURES = [
  ['opened', 'new connections, last minute'],
  ['connections', 'connections now'],
  ['traffic', 'bytes, last minute'],
];

/** What is compared; `counter` counts new connections. */
function measured(kind, minute, connections, counter) {
  if (kind === 'connections') return connections;
  if (kind === 'traffic') return (minute?.rise('up') ?? 0) + (minute?.rise('down') ?? 0);
  return minute?.rise(counter) ?? 0;
}

/** A table of parts of a whole, as bars on one scale. */
function shares({ caption, name, expected, empty, more }) {
  return table({
    caption,
    key: (its) => its.key,
    columns: [
      { id: 'name', title: name, header: true, text: (its) => its.name, sort: (its) => its.name },
      {
        id: 'share', title: 'Share', sort: (its) => its.part, class: 'wide',
        node: () => h('span', { class: 'share wide' }, bar(), h('b')),
        update: (node, its) => {
          // The greatest share fills most of the room, so that small ones can be compared.
          setBar(node.firstChild, its.part / its.scale, its.expected == null ? null : its.expected / its.scale);
          say(node.lastChild, percent(its.part, 1));
        },
      },
      { id: 'expected', title: expected, numeric: true, text: (its) => (its.expected == null ? '–' : percent(its.expected, 1)), less: 1 },
      ...more,
    ],
    empty,
  });
}

export function show(box) {
  let wanted = '';
  const pool = choice([''], '', () => draw());
  const kind = choice(MEASURES, 'opened', () => draw());
  const verdict = h('p', { class: 'hint', role: 'status' });
  const backends = shares({
    caption: 'Shares of backends',
    name: 'Backend',
    expected: 'By weight',
    empty: 'This pool has no backend.',
    more: [
      { id: 'weight', title: 'Weight', numeric: true, text: (its) => String(its.one.weight), sort: (its) => its.one.weight, less: 1 },
      { id: 'connections', title: 'Connections', numeric: true, text: (its) => count(its.one.connections), sort: (its) => its.one.connections },
      { id: 'new', title: 'New/s', numeric: true, text: (its) => rate(its.minute?.rate('opened')), sort: (its) => its.minute?.rate('opened'), less: 1 },
      { id: 'traffic', title: 'Traffic', numeric: true, text: (its) => bytesRate(its.one.bytes_up_per_s + its.one.bytes_down_per_s), less: 1, class: 'nowrap' },
    ],
  });
  const workers = shares({
    caption: 'Shares of workers',
    name: 'Worker',
    expected: 'If even',
    empty: 'There is no worker.',
    more: [
      { id: 'connections', title: 'Sessions', numeric: true, text: (its) => count(its.one.numbers.sessions), sort: (its) => its.one.numbers.sessions },
      { id: 'new', title: 'New/s', numeric: true, text: (its) => rate(its.minute?.rate('accepted')), sort: (its) => its.minute?.rate('accepted'), less: 1 },
      { id: 'traffic', title: 'Traffic', numeric: true, text: (its) => bytesRate(its.one.bytes_up_per_s + its.one.bytes_down_per_s), less: 1, class: 'nowrap' },
      { id: 'waiting', title: 'Waiting', numeric: true, text: (its) => count((its.one.numbers.arriving ?? 0) + (its.one.numbers.parked ?? 0)), about: 'Accepted clients that wait for their turn or for a place', less: 1 },
      { id: 'pauses', title: 'Pauses', numeric: true, text: (its) => count(its.one.numbers.accept_pauses), about: 'Times that it stopped accepting, at a limit', less: 2 },
      { id: 'failures', title: 'Failed connects', numeric: true, text: (its) => count(its.one.numbers.connect_failures), less: 2 },
      { id: 'snapshot', title: 'Snapshot', numeric: true, text: (its) => String(its.one.snapshot), less: 2, tone: (its) => (its.one.snapshot < store.status.snapshot ? 'warn' : '') },
    ],
  });
  box.append(
    h('form', { class: 'filters', onsubmit: (event) => event.preventDefault() }, field('Pool', pool), field('Measured by', kind)),
    h('section', null, h('h2', null, 'Over backends'), verdict, backends.element),
    h('section', null, h('h2', null, 'Over workers'), h('p', { class: 'hint' }, 'The kernel gives each client to a worker by a hash of its address and port: the parts are even only where clients are many.'), workers.element),
  );

  function parts(items) {
    const total = items.reduce((sum, its) => sum + its.value, 0);
    const rows = items.map((its) => ({ ...its, part: total > 0 ? its.value / total : 0 }));
    const scale = 1.1 * Math.max(0.01, ...rows.map((its) => Math.max(its.part, its.expected ?? 0)));
    return rows.map((its) => ({ ...its, scale }));
  }

  function draw() {
    setOptions(pool, store.pools.map((its) => its.name), wanted || pool.value);
    wanted = '';
    const its = store.pools.find((one) => one.name === pool.value);
    const rows = parts(
      (its?.backends ?? []).map((one) => {
        const minute = minuteOf(one);
        const value = measured(kind.value, minute, one.connections, 'opened');
        return { key: one.name, name: one.name, one, minute, value, expected: expectedShare(one, its) };
      }),
    );
    backends.update(rows);
    const farthest = rows
      .filter((row) => row.expected > 0)
      .sort((one, other) => Math.abs(other.part - other.expected) - Math.abs(one.part - one.expected))[0];
    const off = farthest ? Math.abs(farthest.part - farthest.expected) : 0;
    const total = rows.reduce((sum, row) => sum + row.value, 0);
    const says = off < 0.02
      ? 'Every backend has the part that its weight stands for.'
      : `${farthest?.name} has ${percent(farthest?.part, 1)} where its weight stands for ${percent(farthest?.expected, 1)}. The strategy is ${its?.strategy}.`;
    say(verdict, total > 0 ? says : 'Nothing was measured yet.');
    const all = store.status?.workers ?? [];
    workers.update(
      parts(
        all.map((one) => {
          const minute = store.workers.get(one.worker);
          const value = measured(kind.value, minute, one.numbers.sessions ?? 0, 'accepted');
          return { key: one.worker, name: `worker ${one.worker}`, one, minute, value, expected: 1 / all.length };
        }),
      ),
    );
  }

  return { update: (what) => (what === 'poll' || what === 'show') && draw() };
}

