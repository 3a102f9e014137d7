// Listeners: who comes in, where routes lead, and who is refused by which rule.

import { h } from '../dom.js';
import { bytesRate, count, plural, rate, words } from '../format.js';
import { store } from '../store.js';
import { table } from '../table.js';

export const title = 'Listeners';

const list = (counts) =>
  Object.entries(counts)
    .filter(([, number]) => number > 0)
    .sort((one, other) => other[1] - one[1])
    .map(([name, number]) => `${count(number)} ${words(name)}`)
    .join(', ') || '–';

const cut = ({ client_closed: _, backend_closed: __, ...others }) => others;

const WEEK_MS = 7 * 24 * 60 * 60 * 1000;

/** How many values of a condition a line has. */
const VALUES = 3;

/** The values of a condition, and how many there are besides. */
function values({ values: all, more }) {
  const others = all.length - VALUES + more;
  return all.slice(0, VALUES).join(' or ') + (all.length > VALUES || more ? ` or ${others} more` : '');
}

/** Whom a route takes. */
const takes = (conditions) =>
  conditions.map((its) => `${its.setting} ${values(its)}`).join(', ') || 'all';

/** A line for each pool of each route, and one for the clients that no route takes. */
const routesOf = (listener) => {
  const routes = (listener.routes ?? []).map((its) => ({ ...its, listener: listener.name, takes: takes(its.conditions ?? []) }));
  const { unrouted, pool, name } = listener;
  return unrouted == null ? routes : [...routes, { listener: name, name: 'default', pool, sessions: unrouted, takes: 'all others' }];
};

/** The TLS that ends at a listener: its certificates, and when the first expires. */
function tlsOf({ tls }) {
  if (!tls) return '–';
  const ends = Math.min(...tls.certificates.map((one) => one.expires));
  const until = new Date(ends * 1000).toISOString().slice(0, 10);
  return `${plural(tls.certificates.length, 'certificate')}, until ${until}`;
}

const expiresSoon = ({ tls }) =>
  tls?.certificates.some((one) => one.expires * 1000 - Date.now() < WEEK_MS);

const sum = (counts) => Object.values(counts ?? {}).reduce((all, one) => all + one, 0);

const poolLink = (pool) => h('a', { href: `#/backends?${new URLSearchParams({ pool })}` }, pool);

export function show(box) {
  const listeners = table({
    caption: 'Listeners',
    key: (its) => its.name,
    columns: [
      { id: 'name', title: 'Listener', header: true, text: (its) => its.name, sort: (its) => its.name },
      { id: 'bind', title: 'Address', text: (its) => its.bind, sort: (its) => its.bind, less: 1, class: 'code' },
      {
        id: 'pool', title: 'Pool', sort: (its) => its.pool,
        node: (its) => poolLink(its.pool),
      },
      { id: 'connections', title: 'Connections', numeric: true, sort: (its) => its.connections, text: (its) => (its.max_connections ? `${count(its.connections)} of ${count(its.max_connections)}` : count(its.connections)), tone: (its) => (its.max_connections && its.connections >= its.max_connections ? 'warn' : '') },
      { id: 'down', title: 'To clients', numeric: true, sort: (its) => its.bytes_down_per_s, text: (its) => bytesRate(its.bytes_down_per_s), less: 1, class: 'nowrap' },
      { id: 'up', title: 'From clients', numeric: true, sort: (its) => its.bytes_up_per_s, text: (its) => bytesRate(its.bytes_up_per_s), less: 1, class: 'nowrap' },
      { id: 'tls', title: 'TLS', text: tlsOf, less: 1, tone: (its) => (expiresSoon(its) ? 'warn' : ''), about: 'Whether TLS ends here, and when the first certificate expires' },
      { id: 'handshakes', title: 'Handshakes', numeric: true, sort: (its) => sum(its.tls?.handshakes), text: (its) => (its.tls ? count(sum(its.tls.handshakes)) : '–'), less: 2, about: 'Handshakes of TLS since it listens' },
      { id: 'handshakes-failed', title: 'TLS failed', text: (its) => list(its.tls?.failures ?? {}), less: 2, about: 'Clients whose TLS failed, by the kind of failure' },
      { id: 'access', title: 'Access list', text: (its) => its.access_list ?? '–', less: 2 },
      { id: 'refusing', title: 'Refused/s', numeric: true, sort: (its) => store.listenerRates.get(its.name)?.rate('refused'), text: (its) => rate(store.listenerRates.get(its.name)?.rate('refused')), tone: (its) => (store.listenerRates.get(its.name)?.rate('refused') > 0 ? 'warn' : '') },
      { id: 'refused', title: 'Refused since it listens', text: (its) => list(its.refused_by), less: 1 },
      { id: 'cut', title: 'Cut short', text: (its) => list(cut(its.closed)), less: 3, about: 'Sessions that did not end in order, by reason, since it listens' },
      { id: 'dry', title: 'Dry run', text: (its) => list(its.dry_run), less: 2, about: 'Clients that a rule in a dry run would have refused' },
    ],
    empty: 'There is no listener.',
  });
  const routes = table({
    caption: 'Routes',
    key: (its) => JSON.stringify([its.listener, its.route, its.name, its.pool]),
    columns: [
      { id: 'listener', title: 'Listener', text: (its) => its.listener, sort: (its) => its.listener },
      { id: 'route', title: 'Route', header: true, text: (its) => its.name ?? its.route },
      { id: 'takes', title: 'Takes', text: (its) => its.takes, class: 'code' },
      {
        id: 'pool', title: 'Pool', sort: (its) => its.pool ?? '',
        node: (its) => (its.pool == null ? 'refuse' : poolLink(its.pool)),
      },
      { id: 'share', title: 'Share', numeric: true, text: (its) => (its.share == null ? '–' : `${its.share}%`), hint: (its) => (its.weight == null ? null : `weight ${its.weight}`) },
      { id: 'sessions', title: 'Sessions', numeric: true, text: (its) => count(its.sessions), sort: (its) => its.sessions, about: 'Sessions that it took and that have ended' },
    ],
    empty: 'No listener has routes: the clients of each go to its pool.',
  });
  const lists = table({
    caption: 'Access lists',
    key: (its) => its.name,
    columns: [
      { id: 'name', title: 'Access list', header: true, text: (its) => its.name, sort: (its) => its.name },
      { id: 'prefixes', title: 'Prefixes', numeric: true, text: (its) => count(its.prefixes), sort: (its) => its.prefixes },
      { id: 'others', title: 'All others', text: (its) => its.others },
      { id: 'refused', title: 'Refused', numeric: true, text: (its) => count(its.refused), sort: (its) => its.refused },
      { id: 'mode', title: 'Mode', text: (its) => (its.dry_run ? 'dry run: counts only' : 'in force'), less: 1 },
      { id: 'file', title: 'File', text: (its) => its.error ?? its.file ?? '–', tone: (its) => (its.error ? 'bad' : ''), less: 1 },
    ],
    empty: 'No access list is configured.',
  });
  box.append(
    listeners.element,
    h('section', { class: 'below' }, h('h2', null, 'Routes'), routes.element),
    h('section', { class: 'below' }, h('h2', null, 'Access lists'), lists.element),
  );
  return {
    update(what) {
      if (what !== 'poll' && what !== 'show') return;
      listeners.update(store.listeners);
      routes.update(store.listeners.flatMap(routesOf));
      lists.update(store.status?.access_lists ?? []);
    },
  };
}
