// Pools: how they select, how full they are, and who waits for a place.

import { h, say } from '../dom.js';
import { bytesRate, count, percent, plural, rate, span } from '../format.js';
import { isFailing } from '../problems.js';
import { minuteOf, store } from '../store.js';
import { badge, setBadge, table } from '../table.js';

export const title = 'Pools';

/** The condition of a pool in words. */
function condition(pool) {
  const usable = pool.backends.filter((one) => one.in_rotation).length;
  if (usable === 0) return { tone: 'bad', text: 'no backend usable' };
  if (pool.panic) return { tone: 'bad', text: 'panic: health is ignored' };
  if (pool.backends.some(isFailing)) return { tone: 'warn', text: 'some fail' };
  return { tone: 'good', text: 'fine' };
}

const opened = (pool) =>
  pool.backends.reduce((sum, one) => sum + (minuteOf(one)?.rate('opened') ?? 0), 0);
const limited = (now, most) => (most ? `${count(now)} of ${count(most)}` : count(now));

export function show(box) {
  const summary = h('p', { class: 'summary', role: 'status' });
  const pools = table({
    caption: 'Pools',
    key: (pool) => pool.name,
    columns: [
      {
        id: 'name', title: 'Pool', header: true, sort: (its) => its.name,
        node: (its) => h('a', { href: `#/backends?${new URLSearchParams({ pool: its.name })}` }, its.name),
      },
      { id: 'state', title: 'State', node: badge, update: (node, its) => setBadge(node, condition(its)), sort: (its) => condition(its).tone },
      { id: 'usable', title: 'Usable', text: (its) => `${its.backends.filter((one) => one.in_rotation).length} of ${its.backends.filter((one) => !one.leaving).length}`, numeric: true },
      { id: 'strategy', title: 'Strategy', text: (its) => its.strategy, sort: (its) => its.strategy, less: 1, class: 'code' },
      { id: 'connections', title: 'Connections', text: (its) => limited(its.connections, its.max_connections), numeric: true, sort: (its) => its.connections },
      { id: 'new', title: 'New/s', text: (its) => rate(opened(its)), numeric: true, sort: opened, less: 1 },
      { id: 'traffic', title: 'Traffic', text: (its) => bytesRate(its.bytes_up_per_s + its.bytes_down_per_s), numeric: true, sort: (its) => its.bytes_up_per_s + its.bytes_down_per_s, less: 1, class: 'nowrap' },
      { id: 'queued', title: 'Waiting', text: (its) => limited(its.queued, its.queue_max), numeric: true, sort: (its) => its.queued, tone: (its) => (its.queued > 0 ? 'warn' : ''), hint: (its) => `up to ${span(its.queue_timeout_s)} each` },
      { id: 'clients', title: 'Remembered', text: (its) => count(its.clients ?? NaN), numeric: true, sort: (its) => its.clients, less: 2, about: 'Clients that go back to the backend that they had' },
    ],
    empty: 'There is no pool.',
  });
  box.append(summary, pools.element);
  return {
    update(what) {
      if (what !== 'poll' && what !== 'show') return;
      pools.update(store.pools);
      const waiting = store.pools.reduce((sum, its) => sum + its.queued, 0);
      const all = store.pools.reduce((sum, its) => sum + its.connections, 0);
      const full = store.pools.filter((its) => its.max_connections && its.connections >= its.max_connections);
      say(summary, store.status ? `${plural(store.pools.length, 'pool')}, ${count(all)} ${all === 1 ? 'connection' : 'connections'}, ${count(waiting)} ${waiting === 1 ? 'client waits' : 'clients wait'}` + (full.length ? `; full: ${full.map((its) => its.name).join(', ')} (${percent(full.length, store.pools.length)})` : '') : '');
    },
  };
}
