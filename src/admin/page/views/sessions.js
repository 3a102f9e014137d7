// Sessions that are open now, with a filter, and the order to close them.

import { ask, get, mayWrite, path } from '../api.js';
import { confirm } from '../dialog.js';
import { choice, field, h, mark, say, sayPlace, setOptions } from '../dom.js';
import { bytes, clock, plural, span } from '../format.js';
import { askForWrite } from '../signin.js';
import { store } from '../store.js';
import { badge, setBadge, table } from '../table.js';

export const title = 'Sessions';

export function show(box, query) {
  const client = h('input', { type: 'search', placeholder: '192.0.2.7', value: query.get('client') ?? '' });
  const anyOf = (word) => [['', `all ${word}`]];
  const listener = choice(anyOf('listeners'), '', () => load());
  const pool = choice(anyOf('pools'), '', () => load());
  const backend = choice(anyOf('backends'), '', () => load());
  const wanted = Object.fromEntries(query);
  const limit = choice([['100', '100'], ['1000', '1,000'], ['10000', '10,000']], '100', () => load());
  const live = h('input', { type: 'checkbox', checked: true });
  const note = h('p', { class: 'hint', role: 'status' });
  const error = h('p', { class: 'error', role: 'alert' });
  const close = h('button', { type: 'button', onclick: () => (mayWrite() ? closeAll() : askForWrite()) }, 'Close those …');
  const sessions = table({
    caption: 'Open sessions',
    key: (its) => its.id,
    limit: 10_000,
    sorted: { id: 'age', direction: 'descending' },
    columns: [
      { id: 'id', title: 'Session', header: true, text: (its) => its.id, sort: (its) => its.id, class: 'code', less: 1 },
      { id: 'client', title: 'Client', node: () => h('span'), update: (node, its) => sayPlace(node, its.client ?? 'Unix socket'), sort: (its) => its.client ?? '', class: 'code' },
      { id: 'proxy', title: 'Proxy', node: () => h('span'), update: (node, its) => sayPlace(node, its.proxy ?? '–'), sort: (its) => its.proxy ?? '', class: 'code', less: 2, about: 'The proxy that named the client in a PROXY header' },
      { id: 'state', title: 'State', node: badge, update: (node, its) => setBadge(node, { tone: its.state === 'open' ? 'good' : 'note', text: its.state }), sort: (its) => its.state, less: 1 },
      { id: 'listener', title: 'Listener', text: (its) => its.listener, sort: (its) => its.listener, less: 2 },
      { id: 'pool', title: 'Pool', text: (its) => its.pool, sort: (its) => its.pool, less: 1 },
      { id: 'backend', title: 'Backend', node: () => h('span'), update: (node, its) => sayPlace(node, its.backend ?? '–'), sort: (its) => its.backend ?? '' },
      { id: 'age', title: 'Age', numeric: true, text: (its) => span(its.age_s), sort: (its) => its.age_s, class: 'nowrap' },
      { id: 'idle', title: 'Idle', numeric: true, text: (its) => span(its.idle_s), sort: (its) => its.idle_s, less: 1, class: 'nowrap' },
      { id: 'up', title: 'From client', numeric: true, text: (its) => bytes(its.bytes_up), sort: (its) => its.bytes_up, less: 1, class: 'nowrap' },
      { id: 'down', title: 'To client', numeric: true, text: (its) => bytes(its.bytes_down), sort: (its) => its.bytes_down, less: 1, class: 'nowrap' },
      {
        id: 'do', title: 'Orders', class: 'orders',
        node: (its) => [
          h('a', { href: `#/explain?${new URLSearchParams({ session: its.id })}`, 'aria-label': `Explain session ${its.id}` }, 'Explain'),
          h('button', { type: 'button', class: 'small', 'aria-label': `Close session ${its.id}`, onclick: () => closeOne(its) }, 'Close'),
        ],
        update: (nodes) => mark(nodes[1], 'disabled', !mayWrite()),
      },
    ],
    empty: 'No session matches.',
  });
  box.append(
    h(
      'form',
      {
        class: 'filters',
        onsubmit: (event) => {
          event.preventDefault();
          load();
        },
      },
      field('Client', client),
      field('Listener', listener),
      field('Pool', pool),
      field('Backend', backend),
      field('At most', limit),
      h('button', { type: 'submit' }, 'Show'),
      h('label', { class: 'check' }, live, 'Every 3 s'),
      h('div', { class: 'actions' }, close),
    ),
    error,
    note,
    sessions.element,
  );

  const filter = () => ({
    client: client.value.trim(), listener: listener.value, pool: pool.value, backend: backend.value,
  });
  let isLoading = false;
  let isGone = false;

  async function load() {
    if (isLoading || isGone) return;
    isLoading = true;
    try {
      const found = await get('/v1/sessions', { ...filter(), limit: limit.value });
      if (isGone) return;
      sessions.update(found);
      const isAll = found.length < Number(limit.value);
      say(note, `${isAll ? '' : 'The first '}${plural(found.length, 'session')} at ${clock(Date.now())}`);
      say(error, '');
    } catch (failure) {
      say(error, failure.message);
    } finally {
      isLoading = false;
    }
  }

  async function closeOne(its) {
    await confirm({
      title: `Close session ${its.id}?`,
      danger: true,
      verb: 'Close session',
      about: h('p', null, `Client ${its.client ?? 'on a Unix socket'} and backend ${its.backend ?? '–'} get a reset. A client may connect again.`),
      act: async () => {
        await ask('DELETE', path('sessions', its.id));
        return `Session ${its.id} is closed.`;
      },
    });
    load();
  }

  async function closeAll() {
    const chosen = Object.entries(filter()).filter(([, value]) => value !== '');
    const what = chosen.map(([name, value]) => `${name} ${value}`).join(', ');
    await confirm({
      title: chosen.length ? 'Close the sessions that match?' : 'Close every session?',
      danger: true,
      verb: 'Close them',
      about: h('p', null, chosen.length ? `All of ${what}, also those that are not listed. ` : 'No filter is set. ', 'Both sides get a reset. Clients may connect again.'),
      act: async () => {
        const filters = chosen.length ? Object.fromEntries(chosen) : { all: true };
        const { sessions: number } = await ask('DELETE', '/v1/sessions', { query: filters });
        return `${plural(number, 'session')} closed.`;
      },
    });
    load();
  }

  function drawFilters() {
    const named = (all) => all.map((its) => its.name);
    const backends = [...new Set(store.pools.filter((its) => !pool.value || its.name === pool.value).flatMap((its) => named(its.backends)))];
    for (const [select, word, names] of [
      [listener, 'listener', named(store.listeners)],
      [pool, 'pool', named(store.pools)],
      [backend, 'backend', backends],
    ]) {
      setOptions(select, [...anyOf(`${word}s`), ...names], wanted[word] ?? select.value);
    }
    if (!store.status) return;
    const isFirst = Object.keys(wanted).length > 0;
    Object.keys(wanted).forEach((name) => delete wanted[name]);
    if (isFirst) load();
  }

  const timer = setInterval(() => live.checked && !document.hidden && load(), 3_000);
  load();
  return {
    update(what) {
      if (what === 'poll' || what === 'show') drawFilters();
      say(close, mayWrite() ? 'Close those …' : 'Sign in to close');
    },
    leave() {
      isGone = true;
      clearInterval(timer);
    },
  };
}
