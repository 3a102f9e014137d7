// What has happened, the newest first.

import { choice, field, h, setOptions } from '../dom.js';
import { ago, beyond, clock, plural, whole, words } from '../format.js';
import { store } from '../store.js';
import { badge, setBadge, table } from '../table.js';

export const title = 'Events';

const BAD = new Set([
  'backend_down', 'panic', 'pool_down', 'reload_failed', 'discovery_failed', 'fleet_failed', 'overloaded',
  'no_local_port', 'no_source_address', 'bans_unsaved', 'bans_import_failed', 'access_list_failed', 'certificates_failed', 'certificate_expires',
  'stopping',
]);
const WARN = new Set([
  'backend_ejected', 'backend_unresolved', 'backend_refused', 'bans_full', 'access_denied',
  'limit_exceeded', 'first_bytes_timeout', 'proxy_refused', 'tls_refused', 'source_table_full', 'banned_refused', 'missed', 'banned',
]);
const GOOD = new Set([
  'ready', 'backend_up', 'backend_readmitted', 'pool_up', 'panic_over', 'discovery_restored',
  'fleet_restored',
]);

/** What an event means: bad, warn, good or nothing of these. */
export function toneOf({ kind }) {
  if (BAD.has(kind)) return 'bad';
  if (WARN.has(kind)) return 'warn';
  return GOOD.has(kind) ? 'good' : 'note';
}

/** An event as an item of a list. */
export function eventLine(event) {
  return h(
    'li',
    { 'data-tone': toneOf(event) },
    h('time', { datetime: event.at, title: whole(event.at) }, clock(event.at)),
    h('span', { class: 'badge', 'data-tone': toneOf(event) }, words(event.kind)),
    h('span', null, beyond(words(event.kind), event.message)),
  );
}

export function show(box, query) {
  const search = h('input', { type: 'search', placeholder: 'Words of the event', oninput: () => draw() });
  search.value = query.get('text') ?? '';
  const kind = choice([['', 'all kinds']], '', () => draw());
  const grave = choice([['', 'all'], ['warn', 'warnings and problems'], ['bad', 'problems']], query.get('tone') ?? '', () => draw());
  const pause = h('input', { type: 'checkbox' });
  const note = h('p', { class: 'hint', role: 'status' });
  const events = table({
    caption: 'Events, the newest first',
    key: (event) => `${event.number} ${event.at}`,
    columns: [
      { id: 'at', title: 'Time', text: (event) => clock(event.ms), hint: (event) => `${whole(event.ms)}, ${ago(event.ms)}`, class: 'nowrap' },
      { id: 'kind', title: 'Kind', node: badge, update: (node, event) => setBadge(node, { tone: toneOf(event), text: words(event.kind) }) },
      { id: 'message', title: 'What happened', text: (event) => beyond(words(event.kind), event.message), class: 'long' },
      { id: 'pool', title: 'Pool', text: (event) => event.pool ?? '', less: 1 },
      { id: 'backend', title: 'Backend', text: (event) => event.backend ?? '', less: 1 },
    ],
    empty: 'No event matches.',
  });
  box.append(
    h(
      'form',
      { class: 'filters', onsubmit: (event) => event.preventDefault() },
      field('Search', search),
      field('Kind', kind),
      field('Severity', grave),
      h('label', { class: 'check' }, pause, 'Pause'),
    ),
    note,
    events.element,
  );
  let held = null;

  function draw() {
    const all = held ?? store.events;
    const kinds = [...new Set(all.map((event) => event.kind))].sort();
    setOptions(kind, [['', 'all kinds'], ...kinds.map((name) => [name, words(name)])]);
    const sought = search.value.toLowerCase();
    const shown = all.filter((event) => {
      const tone = toneOf(event);
      const isGrave = grave.value === '' || tone === 'bad' || (grave.value === 'warn' && tone === 'warn');
      const text = `${event.message} ${event.pool ?? ''} ${event.backend ?? ''}`.toLowerCase();
      return isGrave && (kind.value === '' || event.kind === kind.value) && text.includes(sought);
    });
    events.update([...shown].reverse());
    const missed = held ? store.events.length - held.length : 0;
    const more = missed > 0 ? `; ${plural(missed, 'newer event')} since the pause` : '';
    note.textContent = `${plural(shown.length, 'event')} of the last ${all.length}${more}`;
  }

  pause.addEventListener('change', () => {
    held = pause.checked ? [...store.events] : null;
    draw();
  });
  return { update: (what) => (what === 'events' || what === 'show') && draw() };
}
