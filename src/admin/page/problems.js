// What is wrong now, in words: where, since when, and what can be done. The worst comes first.

import { plural, rate, span, words } from './format.js';
import { FAILURES, REFUSALS, store } from './store.js';

/** Since when this page has seen each problem that has no time of its own. */
const firstSeen = new Map();

/** The problems: `tone`, `text`, maybe `why`, `since` (ms) and links `todo`. */
export function problems() {
  const { status } = store;
  const found = [];
  if (store.unreachable) {
    found.push({
      tone: 'bad',
      text: store.unreachable,
      why: 'The figures on this page are those from before.',
      since: store.unreachableSince,
    });
  }
  if (!status) return found;
  const ofPool = withAlerts(ofPools(), status.alerts);
  const told = ofPool.filter((problem) => problem.isRefused);
  found.push(...ofStage(status), ...ofPool, ...ofSentences(status), ...ofRates(status, told));
  const seen = new Set();
  for (const problem of found) {
    seen.add(problem.text);
    if (problem.since) continue;
    if (!firstSeen.has(problem.text)) firstSeen.set(problem.text, Date.now());
    problem.since = firstSeen.get(problem.text);
    problem.isSeen = true;
  }
  for (const text of firstSeen.keys()) if (!seen.has(text)) firstSeen.delete(text);
  const order = ['bad', 'warn', 'note'];
  return found.sort((one, other) => order.indexOf(one.tone) - order.indexOf(other.tone));
}

function ofStage(status) {
  if (status.stage === 'starting') {
    return [{ tone: 'warn', text: 'The balancer is starting: not every backend was probed yet.' }];
  }
  if (status.stage === 'leaving') {
    return [{ tone: 'warn', text: 'The balancer is leaving: it takes clients that still come.' }];
  }
  if (status.stage === 'left') {
    const todo = [{ text: 'Sessions that are left', href: '#/sessions' }];
    return [{ tone: 'warn', text: 'The balancer has left: it takes no new clients.', todo }];
  }
  if (status.stage === 'stopping') {
    const todo = [{ text: 'Sessions that are left', href: '#/sessions' }];
    return [{ tone: 'bad', text: 'The balancer is stopping: it takes no new clients.', todo }];
  }
  return [];
}

/** The last event of these kinds about a pool, as ms. */
function lastOf(kinds, pool) {
  const event = store.events.findLast((one) => one.pool === pool && kinds.includes(one.kind));
  return event?.ms;
}

function ofPools() {
  return store.pools.flatMap((pool) => {
    const found = [];
    const backends = pool.backends.filter((one) => !one.leaving && !one.standby);
    const failing = backends.filter((one) => one.state === 'ready' && isFailing(one));
    const usable = backends.filter((one) => one.in_rotation).length;
    const todo = [
      { text: 'See its backends', href: `#/backends?${new URLSearchParams({ pool: pool.name })}` },
    ];
    // Failing backends of a pool are one problem, however many they are.
    if (failing.length > 0) {
      const shown = failing.slice(0, 4).map((one) => `${one.name} ${conditionOf(one)}`);
      const more = failing.length - shown.length;
      const names = shown.join('; ') + (more > 0 ? `; and ${more} more` : '');
      const since = Math.min(...failing.map((one) => Date.parse(one.last_change?.at ?? '')));
      found.push({
        pool: pool.name,
        tone: usable === 0 ? 'bad' : 'warn',
        text: `Pool ${pool.name}: ${failing.length} of ${plural(backends.length, 'backend')} ${failing.length === 1 ? 'fails' : 'fail'}`,
        why: `${names}. ${usable} of ${backends.length} take new sessions.`,
        since: Number.isFinite(since) ? since : undefined,
        todo,
      });
    }
    if (pool.queued > 0) {
      found.push({
        tone: pool.queued >= pool.queue_max ? 'bad' : 'warn',
        text: `Pool ${pool.name}: clients wait for a place`,
        why: `${pool.queued} wait now, ${pool.queue_max} may. Each waits ${span(pool.queue_timeout_s)} at most.`,
        todo: [{ text: 'See the pools', href: '#/pools' }],
      });
    }
    return found;
  });
}

/**
 * The problems of pools with the alerts, which are sentences: one about a pool belongs to the
 * problem that this pool has already.
 */
function withAlerts(found, alerts) {
  for (const sentence of alerts) {
    const pool = store.pools.find(({ name }) => sentence.startsWith(`pool \`${name}\` `));
    const isRefused = /has no (usable )?backend/.test(sentence);
    const kinds = [pool?.panic ? 'panic' : '', isRefused ? 'pool_down' : ''];
    const since = (pool && lastOf(kinds, pool.name)) ?? toldAt(sentence);
    const its = pool && found.find((problem) => problem.pool === pool.name);
    if (its) {
      Object.assign(its, { tone: 'bad', isRefused, since: since ?? its.since });
      its.why = `${its.why} ${capital(sentence)}.`;
    } else {
      const query = new URLSearchParams({ pool: pool?.name });
      const todo = pool ? [{ text: 'See its backends', href: `#/backends?${query}` }] : [];
      found.push({ tone: 'bad', text: capital(sentence), why: '', isRefused, since, todo });
    }
  }
  return found;
}

/** When an event said the same, as ms. */
const toldAt = (sentence) => store.events.findLast((one) => one.message.includes(sentence))?.ms;

const capital = (sentence) => sentence.charAt(0).toUpperCase() + sentence.slice(1);

/** Whether probes or sessions found a backend failing. */
export const isFailing = (backend) =>
  backend.health === 'down' || backend.health === 'unresolved' || backend.ejected_s != null;

function conditionOf(backend) {
  if (backend.ejected_s != null) return `is ejected for ${span(backend.ejected_s)} more`;
  const why = backend.check ? ` (${backend.check})` : '';
  return backend.health === 'unresolved' ? `has no address${why}` : `is down${why}`;
}

function ofSentences(status) {
  const each = (tone, sentences, todo) => sentences.map((text) => ({ tone, text, todo }));
  const config = [{ text: 'See the configuration', href: '#/config' }];
  const found = each('bad', status.lacks);
  if (status.reloads.last_error) {
    found.push({
      tone: 'warn',
      text: 'The last reload was refused: the configuration from before is in force',
      why: status.reloads.last_error,
      since: Date.parse(status.reloads.last_at ?? '') || undefined,
      todo: config,
    });
  }
  found.push(...each('note', status.waiting, config));
  return found;
}

/** `told`: pools without a usable backend. One of them explains why sessions fail. */
function ofRates(status, told) {
  const found = [];
  const { overloaded, failed, refused } = store.rates ?? {};
  if (overloaded > 0) {
    found.push({
      tone: 'bad',
      text: 'Workers are overloaded: new clients are reset',
      why: `${rate(overloaded)} a second.`,
      todo: [{ text: 'See the workers', href: '#/distribution' }],
    });
  }
  if (failed > 0 && told.length === 1) {
    told[0].why = `${told[0].why} ${rate(failed)} sessions a second fail.`.trim();
  } else if (failed > 0) {
    found.push({
      tone: 'bad',
      text: 'Sessions fail: their clients reach no backend',
      why: `${rate(failed)} a second. Since the start: ${most(status.closed, FAILURES)}.`,
      todo: [{ text: 'See the backends', href: '#/backends' }],
    });
  }
  if (refused - (overloaded ?? 0) > 0) {
    found.push({
      tone: 'note',
      text: 'Rules refuse clients',
      why: `${rate(refused)} a second. Since the start: ${most(status.closed, REFUSALS)}.`,
      todo: [
        { text: 'See the listeners', href: '#/listeners' },
        { text: 'See the bans', href: '#/bans' },
      ],
    });
  }
  return found;
}

/** The most frequent of some close reasons. */
function most(closed, reasons) {
  const counts = reasons.map((name) => [name, closed[name] ?? 0]).filter(([, count]) => count > 0);
  counts.sort((one, other) => other[1] - one[1]);
  const shown = counts.slice(0, 3).map(([name, count]) => `${count.toLocaleString('en')} ${words(name)}`);
  return shown.join(', ') || 'none';
}
