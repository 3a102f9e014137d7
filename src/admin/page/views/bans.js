// The ban table: who is refused, why, how often and for how long; to add bans and to lift them.

import { ask, get, mayWrite, path } from '../api.js';
import { confirm } from '../dialog.js';
import { choice, field, h, mark, say } from '../dom.js';
import { clock, count, percent, plural, since, span, whole, words } from '../format.js';
import { askForWrite } from '../signin.js';
import { store } from '../store.js';
import { table } from '../table.js';

export const title = 'Bans';

const BY = { hand: 'an operator', rule: 'a rule', file: 'the watched file' };
const TIMES = [['10m', '10 minutes'], ['1h', '1 hour'], ['1d', '1 day'], ['7d', '7 days'], ['forever', 'until it is lifted']];

export function show(box, query) {
  const summary = h('p', { class: 'summary', role: 'status' });
  const search = h('input', { type: 'search', placeholder: '192.0.2.7', value: query.get('client') ?? '' });
  const by = choice([['', 'all'], ...Object.entries(BY)], '', () => load());
  const sort = choice([['hits', 'most hits'], ['since', 'newest'], ['until', 'first to end'], ['prefix', 'network']], 'since', () => load());
  const error = h('p', { class: 'error', role: 'alert' });
  const bans = table({
    caption: 'Bans',
    key: (its) => its.prefix,
    columns: [
      { id: 'prefix', title: 'Network', header: true, text: (its) => its.prefix, class: 'code' },
      { id: 'reason', title: 'Reason', text: (its) => its.reason ?? '–', class: 'long' },
      { id: 'by', title: 'By', text: (its) => BY[its.by] ?? words(its.by), less: 1 },
      { id: 'since', title: 'Since', text: (its) => since(its.since), hint: (its) => whole(its.since), less: 1 },
      { id: 'left', title: 'Left', numeric: true, text: (its) => leftOf(its), hint: (its) => (its.until ? `until ${whole(its.until)}` : ''), class: 'nowrap' },
      { id: 'hits', title: 'Hits', numeric: true, text: (its) => count(its.hits), about: 'Clients that it refused', less: 1 },
      {
        id: 'do', title: 'Orders', class: 'orders',
        node: (its) => h('button', { type: 'button', class: 'small', 'aria-label': `Lift the ban of ${its.prefix}`, onclick: () => lift(its) }, 'Lift'),
        update: (node, its) => mark(node, 'disabled', !mayWrite() || its.by === 'file'),
      },
    ],
    empty: 'No ban matches.',
  });
  const prefix = h('input', { required: true, placeholder: '192.0.2.7 or 192.0.2.0/24' });
  const time = choice(TIMES, '1h');
  const reason = h('input', { maxlength: 200, placeholder: 'for those who read this later' });
  const add = h(
    'form',
    { class: 'filters add', onsubmit: (event) => ban(event) },
    field('Address or network', prefix),
    field('For', time),
    field('Reason', reason),
    h('button', { type: 'submit', class: 'primary' }, 'Ban'),
  );
  const reader = h('p', { class: 'hint' }, 'You may read only. ', h('button', { type: 'button', class: 'link', onclick: askForWrite }, 'Sign in to change'));
  box.append(
    summary,
    h(
      'form',
      {
        class: 'filters',
        onsubmit: (event) => {
          event.preventDefault();
          load();
        },
      },
      field('Client', search),
      field('By', by),
      field('Order', sort),
      h('button', { type: 'submit' }, 'Show'),
    ),
    error,
    bans.element,
    h('section', { class: 'below' }, h('h2', null, 'Add a ban'), reader, add),
  );
  let isGone = false;
  let shown = [];
  let askedAt = Date.now();

  /** Time goes on between two answers. */
  const leftOf = (its) =>
    its.left_s == null ? 'no end' : span(its.left_s - (Date.now() - askedAt) / 1000);

  async function load() {
    try {
      const found = await get('/v1/bans', { client: search.value.trim(), by: by.value, sort: sort.value, limit: 1000 });
      if (isGone) return;
      shown = found;
      askedAt = Date.now();
      bans.update(shown);
      say(error, '');
    } catch (failure) {
      say(error, failure.message);
    }
  }

  async function ban(event) {
    event.preventDefault();
    const network = prefix.value.trim();
    const body = { prefix: network, for: time.value };
    if (reason.value.trim()) body.reason = reason.value.trim();
    const about = h('p', null, `New clients of ${network} are refused for ${time.selectedOptions[0].textContent}, and its sessions are closed.`);
    const done = await confirm({
      title: `Ban ${network}?`,
      danger: true,
      verb: 'Ban',
      about,
      act: async () => {
        const banned = await ask('POST', '/v1/bans', { body });
        const notes = (banned.notes ?? []).join(' ');
        return `${banned.prefix} is banned${banned.until ? ` until ${clock(banned.until)}` : ''}. ${notes}`;
      },
    });
    if (!done) return;
    add.reset();
    load();
  }

  async function lift(its) {
    await confirm({
      title: `Lift the ban of ${its.prefix}?`,
      verb: 'Lift',
      about: h('p', null, `Its clients may connect again. It refused ${plural(its.hits, 'client')}.`),
      act: async () => {
        const lifted = await ask('DELETE', path('bans', its.prefix));
        return `The ban of ${its.prefix} is lifted. ${(lifted.notes ?? []).join(' ')}`;
      },
    });
    load();
  }

  function drawSummary() {
    const { bans: its, syn_filter: filter } = store.status;
    const parts = [
      `${plural(its.count, 'ban')}, ${percent(its.count, its.max)} of the table`,
      `${count(its.hits)} ${its.hits === 1 ? 'client' : 'clients'} refused`,
    ];
    if (filter.networks) parts.push(`${plural(filter.networks, 'network')} dropped before their clients are accepted`);
    if (its.import) parts.push(its.import.error ?? `${count(its.import.networks)} of the file ${its.import.file}`);
    say(summary, parts.join(' · '));
  }

  const timer = setInterval(() => !document.hidden && load(), 3_000);
  load();
  return {
    update(what) {
      if (what === 'poll' || what === 'show') {
        if (store.status) drawSummary();
        bans.update(shown);
      }
      reader.hidden = mayWrite();
      add.querySelectorAll('input, select, button').forEach((one) => mark(one, 'disabled', !mayWrite()));
    },
    leave() {
      isGone = true;
      clearInterval(timer);
    },
  };
}
