// When each backend was up, down, ejected or taken out: a line for each, on one axis of time.

import { get, has } from '../api.js';
import { choice, field, fill, h, mark, say, svg } from '../dom.js';
import { ago, clock, minute, ms, plural, since, span, whole, words } from '../format.js';
import { isFailing } from '../problems.js';
import { keyOf, store } from '../store.js';
import { badge, setBadge, table } from '../table.js';
import { condition } from './backends.js';
import { toneOf } from './events.js';

export const title = 'Health';

const RANGES = [['900', '15 minutes'], ['3600', '1 hour'], ['21600', '6 hours'], ['86400', '1 day']];
const KINDS = {
  backend_up: 'up',
  backend_readmitted: 'up',
  backend_down: 'down',
  backend_ejected: 'ejected',
  backend_added: 'up',
  backend_unresolved: 'down',
};

/** What an event turns its backend into; `ready` leads back to what it was before. */
function turnOf({ kind, backend, message }) {
  if (kind !== 'changed' || !backend) return KINDS[kind];
  // An order has no kind of event of its own.
  const order = /(?:: |, )state \w+ to (ready|drain|maint)\b/.exec(message)?.[1];
  return order && order !== 'ready' ? 'out' : order;
}

/** The order that an event tells, as a word; other events by their kind. */
const nameOf = (event) =>
  event.kind === 'changed' ? /state \w+ to (\w+)/.exec(event.message)[1] : words(event.kind);

/** What a backend is now. */
function present(backend) {
  if (backend.ejected_s != null) return 'ejected';
  if (backend.health === 'down' || backend.health === 'unresolved') return 'down';
  if (!backend.in_rotation) return 'out';
  return backend.health === 'unchecked' ? 'unchecked' : 'up';
}

/** The stretches of time of a backend within a range, the oldest first, from its events. */
export function stretches(backend, events, from, until) {
  const turns = events
    .map((event) => ({ at: event.ms ?? ms(event.at), to: turnOf(event) }));
  const changed = ms(backend.last_change?.at);
  const now = present(backend);
  if (Number.isFinite(changed) && !turns.some((turn) => Math.abs(turn.at - changed) < 1_500)) {
    turns.push({ at: changed, to: now });
  }
  turns.sort((one, other) => one.at - other.at);
  // What was so before the first turn that is known.
  const opposite = {
    up: 'unknown', unchecked: 'unknown', down: 'up', ejected: 'up', out: 'up', ready: 'out',
  };
  let state = turns.length ? opposite[turns[0].to] : now;
  let before = 'up';
  // Before this run of the balancer nothing is known.
  let start = turns[0]?.at < ms(store.status?.started_at) ? from : Math.max(from, ms(store.status?.started_at) || from);
  const found = [];
  for (const turn of turns) {
    if (turn.at > start) {
      found.push({ from: start, until: turn.at, state });
      start = turn.at;
    }
    if (state !== 'out' && state !== 'unknown') before = state;
    state = turn.to === 'ready' ? before : turn.to;
  }
  found.push({ from: start, until, state: turns.length ? state : now });
  // What an order changed has no event of its own.
  if (found.at(-1).state !== now) found.at(-1).state = now;
  const isUnchecked = (part) => part.state === 'up' && backend.health === 'unchecked';
  return found.map((part) => (isUnchecked(part) ? { ...part, state: 'unchecked' } : part));
}

function strip() {
  return svg('svg', { class: 'strip', viewBox: '0 0 1000 12', preserveAspectRatio: 'none', role: 'img' });
}

function drawStrip(element, backend, events, from, until) {
  const parts = stretches(backend, events, from, until);
  const x = (at) => (1000 * (at - from)) / (until - from);
  const known = parts.filter((part) => part.state !== 'unknown');
  const heights = { up: 8, unchecked: 4 };
  const rects = known.map((part) =>
    svg(
      'rect',
      {
        x: x(part.from).toFixed(1), width: Math.max(1.5, x(part.until) - x(part.from)).toFixed(1),
        y: 6 - (heights[part.state] ?? 12) / 2, height: heights[part.state] ?? 12,
        'data-state': part.state,
      },
      svg('title', null, `${WORDS[part.state]} from ${clock(part.from)} to ${clock(part.until)} (${span((part.until - part.from) / 1000)})`),
    ),
  );
  element.replaceChildren(...rects);
  const worse = known.filter((part) => !heights[part.state]).map((part) => `${WORDS[part.state]} for ${span((part.until - part.from) / 1000)}`);
  mark(element, 'aria-label', `${backend.name}: ${worse.length ? worse.join(', ') : `${WORDS[known.at(-1)?.state ?? 'unknown']} all the time`}`);
}

export function show(box, query) {
  const range = choice(RANGES, '900', () => remember());
  const which = choice([['', 'all'], ['changed', 'that changed or fail']], '', () => draw());
  const search = h('input', { type: 'search', placeholder: 'Pool or backend', oninput: () => draw(), value: query.get('pool') ?? '' });
  let from = 0;
  let until = 0;
  // Older than those of the stream.
  let remembered = [];
  let ofBackend = new Map();
  let isScrolled = false;

  /** Asks the history for what the stream of events no longer has. */
  async function remember() {
    draw();
    const since = Math.floor(Date.now() / 1000) - Number(range.value);
    try {
      if (!(await has('/v1/history/events'))) return;
      const found = await get('/v1/history/events', { since, limit: 1000 });
      remembered = found.map((event) => ({ ...event, ms: ms(event.at) })).reverse();
    } catch {
      remembered = [];
    }
    draw();
  }

  /** All events that are known, the oldest first, each once. */
  function known() {
    const first = store.events[0]?.ms ?? Infinity;
    return [...remembered.filter((event) => event.ms < first), ...store.events];
  }
  const lines = table({
    caption: 'Health of backends over time',
    key: keyOf,
    columns: [
      { id: 'name', title: 'Backend', header: true, node: (its) => h('span', null, `${its.pool}/`, h('wbr'), its.name), sort: (its) => `${its.pool}/${its.name}` },
      { id: 'now', title: 'Now', node: badge, update: (node, its) => setBadge(node, condition(its)), sort: (its) => condition(its).tone },
      { id: 'line', title: 'Time', node: strip, update: (node, its) => drawStrip(node, its, ofBackend.get(keyOf(its)) ?? [], from, until), class: 'course' },
      { id: 'times', title: 'Times down', numeric: true, text: (its) => String(its.times_down), sort: (its) => its.times_down, less: 1 },
      { id: 'down', title: 'Down in all', numeric: true, text: (its) => (its.times_down ? span(its.down_s) : '–'), sort: (its) => its.down_s, less: 1, class: 'nowrap' },
      { id: 'ejected', title: 'Ejected', numeric: true, text: (its) => String(its.times_ejected), sort: (its) => its.times_ejected, less: 1 },
      { id: 'probes', title: 'Failed probes', numeric: true, text: (its) => String(its.checks_failed), sort: (its) => its.checks_failed, less: 2 },
    ],
    empty: 'No backend matches.',
  });
  const legend = h('ul', { class: 'legend' }, Object.entries(WORDS).map(([name, word]) => h('li', null, h('i', { class: 'chip', 'data-state': name }), word)));
  const axis = lines.element.querySelector('thead .course');
  const turns = h('ol', { class: 'eventlist' });
  const note = h('p', { class: 'hint' });
  box.append(
    h('form', { class: 'filters', onsubmit: (event) => event.preventDefault() }, field('Search', search), field('Time', range), field('Backends', which)),
    legend,
    lines.element,
    note,
    h('section', { class: 'below' }, h('h2', null, 'Transitions, the newest first'), turns),
  );

  const isTurn = (event) => turnOf(event) || ['panic', 'panic_over', 'pool_down', 'pool_up'].includes(event.kind);

  function draw() {
    until = Date.now();
    from = until - Number(range.value) * 1000;
    ofBackend = Map.groupBy(known().filter(turnOf), keyOfEvent);
    const sought = search.value.toLowerCase();
    const all = store.pools.flatMap((its) => its.backends);
    const shown = all.filter((its) => {
      const text = `${its.pool}/${its.name}`.toLowerCase();
      const isChanged = isFailing(its) || ms(its.last_change?.at) > from;
      return text.includes(sought) && (which.value === '' || isChanged);
    });
    lines.update(shown);
    // The newest is at the right, where a narrow screen does not begin.
    if (!isScrolled && shown.length) lines.element.scrollLeft = lines.element.scrollWidth;
    isScrolled ||= shown.length > 0;
    const marks = [0, 0.25, 0.5, 0.75, 1].map((part) => minute(from + part * (until - from)));
    fill(axis, h('span', { class: 'axis' }, marks.map((text) => h('span', null, text))));
    const first = known()[0];
    say(note, first && first.ms > from ? `Events are known since ${since(first.ms)}; before that a line shows the last known state.` : '');
  }

  function drawTurns() {
    const found = known().filter(isTurn).slice(-100).reverse();
    fill(
      turns,
      found.length
        ? found.map((event) => h('li', { 'data-tone': toneOf(event) }, h('time', { datetime: event.at, title: `${whole(event.ms)}, ${ago(event.ms)}` }, clock(event.ms)), h('span', { class: 'badge', 'data-tone': toneOf(event) }, nameOf(event)), h('span', null, event.message)))
        : h('li', { class: 'empty' }, `Nothing has changed in the last ${plural(store.events.length, 'event')}.`),
    );
  }

  remember();
  return {
    update(what) {
      if (what !== 'stream') draw();
      if (what === 'events' || what === 'show') drawTurns();
    },
  };
}

const keyOfEvent = ({ pool, backend }) => keyOf({ pool, name: backend });
const WORDS = {
  up: 'up',
  down: 'down',
  ejected: 'ejected',
  out: 'takes no new sessions',
  unchecked: 'unchecked',
  unknown: 'unknown',
};
