// Why a session went where it went, and where a client would go now.

import { get, has } from '../api.js';
import { choice, field, fill, h, say, setOptions } from '../dom.js';
import { beyond, bytes, clock, micros, plural, whole, words } from '../format.js';
import { store } from '../store.js';

export const title = 'Explain';

const TONES = {
  chosen: 'good', failing: 'bad', down: 'bad', ejected: 'bad', unresolved: 'bad', tried: 'warn', full: 'warn', backlog_full: 'warn',
};
/** Listeners that refuse a client, or route it, which the page has. */
const REFUSALS_MAX = 8;
const number = (value) => (value == null ? '–' : Number(value.toPrecision(4)).toLocaleString('en'));

function keys(list) {
  if (!list.length) return 'none: the pool needs no key';
  return list.map((key) => `${words(key.kind)} (${key.use}${key.missed ? ', missed: the address stands in' : ''}), hash ${key.hash}`).join('; ');
}

function decision(its, heading) {
  if (!its) return h('p', null, 'It ended before a backend was selected.');
  const isScored = its.score_is != null;
  const rows = its.candidates.map((one) =>
    h('tr', null,
      h('th', { scope: 'row' }, one.backend),
      h('td', { class: 'code less1' }, one.address),
      isScored ? h('td', { class: 'number' }, number(one.score)) : null,
      h('td', null, h('span', { class: 'badge', 'data-tone': TONES[one.verdict] ?? 'note' }, words(one.verdict)), ' ', beyond(words(one.verdict), one.says))));
  const others = Object.entries(its.passed_over).map(([name, count]) => `${count} ${words(name)}`).join(', ');
  return [
    h('p', { class: 'what' }, its.says),
    h('div', { class: 'tablebox', role: 'region', 'aria-label': heading, tabindex: 0 },
      h('table', null,
        h('caption', { class: 'hidden' }, heading),
        h('thead', null, h('tr', null,
          h('th', { scope: 'col' }, 'Backend'), h('th', { scope: 'col', class: 'less1' }, 'Address'),
          isScored ? h('th', { scope: 'col', class: 'number', title: its.score_is }, 'Score') : null, h('th', { scope: 'col' }, 'Why or why not'))),
        h('tbody', null, rows))),
    h('p', { class: 'hint' },
      `${plural(its.backends, 'backend')} in the pool. ${others ? `Passed over: ${others}. ` : ''}${its.score_is ? `Score: ${its.score_is}. ` : ''}` +
      (its.not_looked_at ? `${its.not_looked_at} were not looked at.` : '')),
  ];
}

function attempt({ backend, address, outcome, says, us }) {
  const place = backend === address ? address : `${backend}, ${address}`;
  const more = beyond(outcome, says);
  return `${place}${more ? `: ${more}` : ''}, after ${micros(us)}`;
}

function attempts(its) {
  if (!its.attempts.length) return h('p', null, 'No connection to a backend was tried.');
  const more = its.attempts_failed - its.attempts.filter((one) => one.outcome !== 'connected').length;
  return h('ol', { class: 'attempts' },
    its.attempts.map((one) => h('li', null,
      h('span', { class: 'badge', 'data-tone': one.outcome === 'connected' ? 'good' : 'bad' }, one.outcome),
      ` ${attempt(one)}`)),
    more > 0 ? h('li', null, `${more} more failed.`) : null);
}

function facts(rows) {
  const known = Object.entries(rows).filter(([, text]) => text != null && text !== '–');
  return h('dl', { class: 'facts' }, known.map(([name, text]) => h('div', null, h('dt', null, name), h('dd', null, text))));
}

function card(its) {
  const isOpen = its.state === 'open';
  return h('article', { class: 'card' },
    h('div', { class: 'heading' },
      h('h2', null, `Session ${its.session}`),
      h('span', { class: 'badge', 'data-tone': isOpen ? 'good' : 'note' }, isOpen ? 'open' : `closed: ${words(its.reason)}`),
      h('span', { class: 'hint', title: whole(its.opened_at) }, `since ${clock(its.opened_at)}`)),
    h('h3', null, 'How it was selected'),
    decision(its.decision, `Candidates of session ${its.session}`),
    h('h3', null, 'Attempts to connect'),
    attempts(its),
    h('h3', null, 'Facts'),
    facts({
      'Client': its.client ?? 'on a Unix socket',
      'Proxy': its.proxy,
      'Listener': its.listener,
      'Name in TLS': its.sni,
      'Route': its.route_says,
      'Pool': `${its.pool}, ${its.strategy}`,
      'Keys': keys(its.keys),
      'Waited for a place': its.queued_us == null ? null : micros(its.queued_us),
      'Connected after': micros(its.connect_us ?? NaN),
      'First byte after': micros(its.first_byte_us ?? NaN),
      'Lasted': micros(its.total_us ?? NaN),
      'Bytes': its.bytes_up == null ? null : `${bytes(its.bytes_up)} from the client, ${bytes(its.bytes_down)} to it`,
    }));
}

function forecast(its) {
  const routes = its.listeners.filter((one) => one.route).slice(0, REFUSALS_MAX);
  const places = its.workers.map((one) => `worker ${one.worker} (${one.listener}): ${one.backend ?? 'none'}`);
  const to = its.elsewhere ? `another pool than ${its.pool}` : its.decision?.backend ?? 'no backend';
  const goes = its.refused ? 'would be refused' : `would go to ${to}`;
  const refusals = its.listeners.filter((one) => one.refused).slice(0, REFUSALS_MAX);
  return h('article', { class: 'card' },
    h('div', { class: 'heading' }, h('h2', null, `${its.client} ${goes}`)),
    refusals.map((one) => h('p', { class: 'what' }, h('span', { class: 'badge', 'data-tone': 'bad' }, words(one.refused.reason)), ` ${one.refused.says}`)),
    routes.map(({ route }) => h('p', { class: 'what' }, `${route.says}${route.pool == null ? '' : `: to pool ${route.pool}`}`)),
    its.pool === '' ? null : [
      its.refused ? h('p', null, 'If it were let in:') : null,
      its.elsewhere ? h('p', null, 'If it came here:') : null,
      decision(its.decision, 'Candidates for this client'),
      its.says.map((sentence) => h('p', { class: 'hint' }, sentence)),
      facts({ 'Pool': `${its.pool}, ${its.strategy}`, 'Keys': keys(its.keys), 'Workers': places.join('; ') }),
    ]);
}

/** What a client may be asked about: all of a kind. */
const options = (kind, all) => all.map(({ name }) => [JSON.stringify([kind, name]), `${kind} ${name}`]);

export function show(box, query) {
  const about = h('input', {
    type: 'search', required: true, placeholder: '0-17 or 192.0.2.7', value: query.get('session') ?? query.get('client') ?? '',
  });
  const last = choice([['1', '1'], ['10', '10'], ['100', '100']], '10');
  const to = choice([], '');
  const client = h('input', { required: true, placeholder: '192.0.2.7' });
  const name = h('input', { placeholder: 'www.example.com' });
  const error = h('p', { class: 'error', role: 'alert' });
  const answer = h('div', { role: 'status' });
  const on = (act) => (event) => {
    event.preventDefault();
    answered(act);
  };
  const past = h('form', { class: 'filters', onsubmit: on(explain) },
    field('Session or client', about), field('At most', last), h('button', { type: 'submit', class: 'primary' }, 'Explain'));
  const future = h('form', { class: 'filters', onsubmit: on(predict) },
    field('Client', client), field('Pool or listener', to), field('SNI', name), h('button', { type: 'submit' }, 'Where would it go?'));
  box.append(past, h('details', null, h('summary', null, 'Where would a client go now?'), future), error, answer);

  async function answered(act) {
    try {
      if (!(await has('/v1/explain'))) throw new Error('This balancer explains nothing: its version has no such command.');
      say(error, '');
      fill(answer, await act());
    } catch (failure) {
      fill(answer);
      say(error, failure.message);
    }
  }

  async function explain() {
    const text = about.value.trim();
    const of = /^\d+-\d+$/.test(text) ? { session: text } : { client: text };
    const found = await get('/v1/explain', { ...of, last: last.value });
    const none = 'No worker remembers it: each keeps its last 4,096 decisions.';
    return found.length ? found.map(card) : h('p', { class: 'empty' }, none);
  }

  async function predict() {
    const [what, which] = JSON.parse(to.value);
    const of = { [what]: which, client: client.value.trim(), sni: name.value.trim() };
    return forecast(await get('/v1/explain/dry_run', of));
  }

  if (about.value) answered(explain);
  return {
    update: (what) => (what === 'poll' || what === 'show') && setOptions(to, [...options('pool', store.pools), ...options('listener', store.listeners)]),
  };
}
