// Backends: their health, what they do, and the controls to drain, ready or weigh them.

import { ask, get, mayWrite, path } from '../api.js';
import { bar, setBar } from '../charts.js';
import { confirm, open } from '../dialog.js';
import { choice, field, fill, h, id, mark, say, setOptions } from '../dom.js';
import { ago, bytes, bytesRate, clock, count, micros, percent, plural, rate, since, span, whole, words } from '../format.js';
import { isFailing } from '../problems.js';
import { askForWrite } from '../signin.js';
import { keyOf, minuteOf, poll, store } from '../store.js';
import { badge, setBadge, table } from '../table.js';

export const title = 'Backends';
export const wide = true;

/** The condition of a backend in words, with its tone; the same words as `mahoraga backends`. */
export function condition(backend) {
  const found = [];
  let tone = 'good';
  if (backend.leaving) {
    found.push('removed');
    tone = 'note';
  } else if (backend.state !== 'ready') {
    found.push(backend.state);
    tone = 'note';
  }
  if (backend.standby) {
    found.push('standby');
    tone = 'note';
  }
  if (backend.ejected_s != null) {
    found.push(`ejected ${span(backend.ejected_s)}`);
    tone = 'warn';
  }
  if (backend.rising != null && !backend.leaving && backend.state === 'ready') {
    found.push(`rising ${backend.rising}%`);
    tone = 'warn';
  }
  const isDown = backend.health === 'down' || backend.health === 'unresolved';
  if (isDown) tone = 'bad';
  if (found.length === 0 && backend.health === 'unchecked') tone = 'note';
  if (isDown || found.length === 0) found.push(backend.health);
  if (backend.backup) found.push('backup');
  if (backend.send_proxy) found.push(`PROXY ${backend.send_proxy}`);
  return { tone, text: found.join(', '), about: backend.check ?? '' };
}

/** The part of its pool's new connections of the last minute that a backend had. */
export function shareOf(backend, pool) {
  const opened = (one) => minuteOf(one)?.rise('opened') ?? 0;
  const total = pool.backends.reduce((sum, one) => sum + opened(one), 0);
  return total > 0 ? opened(backend) / total : null;
}

/** The part that its weight stands for, among the backends that can be selected. */
export function expectedShare(backend, pool) {
  if (!backend.in_rotation) return 0;
  const weights = pool.backends.filter((one) => one.in_rotation);
  const total = weights.reduce((sum, one) => sum + one.weight, 0);
  return total > 0 ? backend.weight / total : null;
}

const errorsOf = (backend) => minuteOf(backend)?.rise('failed') ?? 0;
const p99Of = ({ first_byte_p99_ms: ms }) => (ms == null ? '–' : micros(ms * 1e3));

export function show(box, query) {
  const search = h('input', { type: 'search', placeholder: 'Name or address', oninput: () => draw() });
  const pool = choice([['', 'all pools']], '', () => draw());
  let wanted = query.get('pool') ?? '';
  const state = choice(STATES, query.get('state') ?? '', () => draw());
  const summary = h('p', { class: 'summary', role: 'status' });
  const backends = table({
    caption: 'Backends',
    key: keyOf,
    sorted: { id: 'state', direction: 'descending' },
    rowClass: (backend) => (isFailing(backend) ? 'failing' : backend.in_rotation ? '' : 'resting'),
    columns: [
      {
        id: 'name', title: 'Backend', header: true, sort: (its) => `${its.pool}/${its.name}`,
        node: (its) => h('button', { type: 'button', class: 'link', onclick: () => showPanel(its) }),
        update: (node, its) => say(node, its.name),
      },
      { id: 'pool', title: 'Pool', text: (its) => its.pool, sort: (its) => its.pool, less: 1 },
      {
        id: 'state', title: 'State', sort: (its) => RANKS.indexOf(condition(its).tone),
        node: () => h('span', null, badge(), ' ', h('span', { class: 'hint' })),
        update: (node, its) => {
          setBadge(node.firstChild, condition(its));
          say(node.lastChild, isFailing(its) ? (its.check ?? '') : '');
        },
      },
      { id: 'since', title: 'Since', text: (its) => (its.last_change ? ago(its.last_change.at) : ''), hint: (its) => whole(its.last_change?.at), sort: (its) => its.last_change?.at ?? '', less: 2, class: 'nowrap' },
      { id: 'address', title: 'Address', text: (its) => its.address, hint: (its) => its.resolved, less: 2, class: 'code' },
      {
        id: 'errors', title: 'Errors', text: (its) => count(errorsOf(its)), numeric: true, sort: errorsOf,
        tone: (its) => (errorsOf(its) > 0 ? 'bad' : ''), about: 'Connects of sessions that failed in the last minute',
      },
      { id: 'weight', title: 'Weight', text: (its) => String(its.weight), numeric: true, sort: (its) => its.weight, less: 1 },
      {
        id: 'share', title: 'Share', numeric: true, less: 1, about: 'Its part of the new connections of its pool in the last minute; the mark is where its weight would put it',
        sort: (its) => its.share,
        node: () => h('span', { class: 'share' }, bar(), h('span')),
        update: (node, its) => {
          setBar(node.firstChild, its.share, its.expected);
          say(node.lastChild, its.share == null ? '–' : percent(its.share, 1));
        },
      },
      { id: 'connections', title: 'Conns', text: (its) => count(its.connections), numeric: true, sort: (its) => its.connections },
      { id: 'new', title: 'New/s', text: (its) => rate(minuteOf(its)?.rate('opened')), numeric: true, sort: (its) => minuteOf(its)?.rate('opened'), less: 1 },
      { id: 'traffic', title: 'Traffic', text: (its) => bytesRate(its.bytes_up_per_s + its.bytes_down_per_s), numeric: true, sort: (its) => its.bytes_up_per_s + its.bytes_down_per_s, less: 2, class: 'nowrap' },
      { id: 'answer', title: 'Answer', text: (its) => (its.answer_ms == null ? '–' : micros(its.answer_ms * 1e3)), hint: (its) => (its.first_byte_p99_ms == null ? null : `p99 of first bytes: ${p99Of(its)}`), numeric: true, sort: (its) => its.answer_ms, less: 2, class: 'nowrap', about: 'Average of its recent answer times' },
      { id: 'p99', title: 'p99', text: p99Of, numeric: true, sort: (its) => its.first_byte_p99_ms, less: 3, class: 'nowrap', about: 'The time to the first byte that 99% of its sessions of the last minute kept within' },
    ],
    empty: 'No backend matches.',
  });
  box.append(
    h('div', { class: 'heading' }, h('h2', null, 'Backends'), summary),
    h(
      'form',
      { class: 'filters', onsubmit: (event) => event.preventDefault() },
      field('Search', search),
      field('Pool', pool),
      field('State', state),
    ),
    backends.element,
  );

  function draw() {
    setOptions(pool, [['', 'all pools'], ...store.pools.map((its) => its.name)], wanted || pool.value);
    if (store.pools.length) wanted = '';
    const sought = search.value.toLowerCase();
    const all = store.pools.flatMap((its) =>
      its.backends.map((one) => ({ ...one, share: shareOf(one, its), expected: expectedShare(one, its) })),
    );
    const shown = all.filter((its) => {
      const text = `${its.pool}/${its.name} ${its.address} ${its.resolved ?? ''}`.toLowerCase();
      return (pool.value === '' || its.pool === pool.value) && MATCH[state.value](its) && text.includes(sought);
    });
    backends.update(shown);
    const failing = all.filter(isFailing).length;
    const resting = all.filter((its) => !its.in_rotation && !isFailing(its)).length;
    const parts = [`${all.filter((its) => its.in_rotation).length} of ${all.length} take new sessions`];
    if (failing) parts.push(`${failing} ${failing === 1 ? 'fails' : 'fail'}`);
    if (resting) parts.push(`${resting} ${resting === 1 ? 'rests' : 'rest'}`);
    if (shown.length !== all.length) parts.push(`${shown.length} shown`);
    say(summary, store.status ? parts.join(' · ') : '');
  }

  return {
    update(what) {
      if (what === 'poll' || what === 'show') draw();
      panel?.update(what);
    },
    leave: () => panel?.close(),
  };
}

/** The backend as the last answer has it. */
function current({ pool, name }) {
  const its = store.pools.find((one) => one.name === pool);
  return { pool: its, backend: its?.backends.find((one) => one.name === name) };
}

let panel = null;

/** All about a backend, and its controls. */
function showPanel(of) {
  const heading = h('h2', { id: id('panel') }, `${of.name}`);
  const state = badge();
  const facts = h('dl', { class: 'facts' });
  const probes = h('div', { class: 'probes' });
  const controls = h('div', { class: 'controls' });
  const effect = h('p', { class: 'effect', role: 'status' });
  const close = h('button', { type: 'button', class: 'quiet', 'aria-label': 'Close', onclick: () => dialog.close() }, '×');
  const content = h(
    'div',
    { class: 'panel' },
    h('div', { class: 'heading' }, heading, state, close),
    h('p', { class: 'hint' }, `in pool ${of.pool}`),
    controls,
    effect,
    probes,
    facts,
    h('p', null, h('a', { href: `#/sessions?${new URLSearchParams({ pool: of.pool, backend: of.name })}`, onclick: () => dialog.close() }, 'Its sessions')),
  );
  const dialog = open(content, heading.id, () => {
    panel = null;
  });
  dialog.classList.add('side');
  let before = null;

  const buttons = Object.fromEntries(
    Object.entries(ORDERS).map(([name, order]) => {
      const act = () => changeState(of, name, order, remember);
      return [name, h('button', { type: 'button', onclick: act }, order.verb)];
    }),
  );
  const weight = h('input', { type: 'number', min: 0, max: 256, required: true, value: of.weight });
  const weigh = h(
    'form',
    {
      class: 'weight',
      onsubmit: (event) => {
        event.preventDefault();
        changeWeight(of, weight.valueAsNumber, remember);
      },
    },
    field('Weight', weight),
    h('button', { type: 'submit' }, 'Set'),
  );
  const reader = h('p', { class: 'hint' }, 'You may read only. ', h('button', { type: 'button', class: 'link', onclick: askForWrite }, 'Sign in to change'));
  fill(controls, reader, h('div', { class: 'group', role: 'group', 'aria-label': 'State' }, Object.values(buttons)), weigh);

  /** What was so before a change, to show its effect. */
  function remember(backend, sentence) {
    before = { connections: backend.connections, sentence, at: Date.now() };
    update();
  }

  function update() {
    const { backend } = current(of);
    if (!backend) {
      say(effect, 'This backend is gone.');
      Object.values(buttons).forEach((button) => mark(button, 'disabled', true));
      return;
    }
    setBadge(state, condition(backend));
    reader.hidden = mayWrite();
    for (const [name, button] of Object.entries(buttons)) {
      mark(button, 'aria-pressed', String(backend.state === name));
      mark(button, 'disabled', !mayWrite() || backend.state === name || backend.leaving);
    }
    weigh.querySelectorAll('input, button').forEach((one) => mark(one, 'disabled', !mayWrite() || backend.leaving));
    if (before) {
      say(effect, `${before.sentence} ${plural(before.connections, 'connection')} then, ${backend.connections} now (${ago(before.at)}).`);
    }
    drawFacts(facts, backend);
  }

  /** Only an answer about the backend alone has its probes. */
  async function askProbes() {
    const its = await get(path('pools', of.pool, 'backends', of.name)).catch(() => null);
    if (its && panel === self) drawProbes(probes, its);
  }

  const self = {
    update(what) {
      update();
      if (what === 'poll') askProbes();
    },
    close: () => dialog.close(),
  };
  panel = self;
  update();
  askProbes();
}

function drawProbes(box, backend) {
  const recent = (backend.probes ?? []).map((probe) => ({ ...probe, at: Date.now() - probe.ago_s * 1000 }));
  box.hidden = recent.length === 0;
  if (box.hidden) return;
  fill(
    box,
    h('h3', null, 'Recent probes, the newest last'),
    h(
      'ol',
      { class: 'probelist' },
      recent.map((probe) =>
        h('li', { 'data-tone': probe.error ? 'bad' : 'good', title: `${clock(probe.at)}: ${probe.error ?? micros(probe.took_us)}` },
          h('span', { class: 'hidden' }, `${clock(probe.at)}: ${probe.error ?? `answered in ${micros(probe.took_us)}`}`)),
      ),
    ),
    h('p', { class: 'hint' }, `Last at ${clock(recent.at(-1).at)}: ${recent.at(-1).error ?? `answered in ${micros(recent.at(-1).took_us)}`}`),
  );
}

function drawFacts(list, its) {
  const failures = Object.entries(its.connect_failures);
  const rows = {
    'Address': its.resolved ? `${its.address} (${its.resolved})` : its.address,
    'Group': its.group,
    'Last probe': its.check,
    'Last change': its.last_change ? `${words(its.last_change.to)}, ${since(its.last_change.at)}` : null,
    'Connections': its.max_connections ? `${its.connections} of ${its.max_connections}` : `${its.connections}`,
    'Waiting for an answer': `${its.waiting}`,
    'Begun since it joined': its.opened.toLocaleString('en'),
    'Answered': its.answered.toLocaleString('en'),
    'Failures in a row': `${its.failures}`,
    'Failed connects': failures.map(([kind, number]) => `${number} ${words(kind)}`).join(', ') || 'none',
    'Answer time': its.answer_ms == null ? null : micros(its.answer_ms * 1e3),
    'First byte, p99': its.first_byte_p99_ms == null ? null : p99Of(its),
    'Traffic': `${bytes(its.bytes_down)} from it, ${bytes(its.bytes_up)} to it`,
    'Failed probes': `${its.checks_failed}`,
    'Down': its.times_down ? `${plural(its.times_down, 'time')}, ${span(its.down_s)} in all` : 'never',
    'Ejected': its.times_ejected ? plural(its.times_ejected, 'time') : 'never',
  };
  const shown = Object.entries(rows).filter(([, text]) => text != null && text !== '');
  const wanted = JSON.stringify(shown);
  if (list.dataset.shown === wanted) return;
  list.dataset.shown = wanted;
  fill(list, shown.map(([name, text]) => h('div', null, h('dt', null, name), h('dd', null, text))));
}

async function patch(of, body) {
  const changed = await ask('PATCH', path('pools', of.pool, 'backends', of.name), { body });
  await poll();
  return [`Snapshot ${changed.snapshot} is in force.`, ...(changed.notes ?? [])].join(' ');
}

async function changeState(of, name, order, remember) {
  const { pool, backend } = current(of);
  const others = pool.backends.filter((one) => one.in_rotation && one.name !== backend.name).length;
  const isLast = name !== 'ready' && backend.in_rotation && others === 0;
  await confirm({
    title: `${order.verb} ${of.name}?`,
    danger: isLast,
    verb: order.verb,
    about: h(
      'div',
      null,
      h('p', null, order.about(backend)),
      name === 'ready' ? null : h('p', null, `${plural(others, 'other backend')} of ${of.pool} ${others === 1 ? 'takes' : 'take'} new sessions.`),
      isLast ? h('p', { class: 'error' }, `It is the last one: new sessions of ${of.pool} will fail.`) : null,
    ),
    act: async () => {
      const sentence = await patch(of, { state: name });
      remember(backend, order.done);
      return `${of.name}: ${order.done} ${sentence}`;
    },
  });
}

async function changeWeight(of, weight, remember) {
  const { pool, backend } = current(of);
  const now = expectedShare(backend, pool);
  const others = pool.backends.filter((one) => one.in_rotation && one.name !== backend.name);
  const total = others.reduce((sum, one) => sum + one.weight, weight);
  const then = backend.in_rotation && total > 0 ? weight / total : 0;
  await confirm({
    title: `Set the weight of ${of.name} to ${weight}?`,
    verb: 'Set weight',
    about: h('p', null, `Its weight is ${backend.weight} now. Its share of new sessions by weight goes from ${percent(now ?? 0, 1)} to ${percent(then, 1)}. Open sessions stay.`),
    act: async () => {
      const sentence = await patch(of, { weight });
      remember(backend, `Its weight is ${weight}.`);
      return `${of.name}: its weight is ${weight}. ${sentence}`;
    },
  });
}

const open_ = (backend) => plural(backend.connections, 'open connection');
const ORDERS = {
  ready: {
    verb: 'Ready',
    about: () => 'It gets its share of new sessions again, once its probes say that it answers.',
    done: 'It is ready.',
  },
  drain: {
    verb: 'Drain',
    about: (backend) => `It gets no new sessions. Its ${open_(backend)} go on until they end.`,
    done: 'It drains.',
  },
  maint: {
    verb: 'Maint',
    about: (backend) => `It gets no new sessions and no probes. Its ${open_(backend)} go on until they end.`,
    done: 'It is in maintenance.',
  },
};
/** Those that fail come first; the others stay as the configuration has them. */
const RANKS = ['warn', 'bad'];
const STATES = [
  ['', 'all'],
  ['failing', 'failing'],
  ['out', 'without new sessions'],
  ['ordered', 'drained or in maintenance'],
];
const MATCH = {
  '': () => true,
  failing: isFailing,
  out: (backend) => !backend.in_rotation,
  ordered: (backend) => backend.state !== 'ready',
};
